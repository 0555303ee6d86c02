"""What leads send: projects, people, guidelines."""

from typing import Any

from django import forms
from django.core.validators import validate_slug
from django.forms.utils import ErrorDict
from django.urls import NoReverseMatch, reverse
from django.utils.text import slugify

from labeling.accounts.models import User
from labeling.accounts.roles import Role
from labeling.projects.bench_settings import DEFAULT_BENCH, MAX_WARNING, NUMBERS
from labeling.projects.feedback import CAN_BE_REQUIRED, DEFAULT_FORM
from labeling.projects.models import Project
from labeling.projects.presets import PRESETS, TALK, Preset, preset_like
from labeling.projects.quality_settings import MOST_QUALIFYING, quality_of
from labeling.projects.quality_settings import NUMBERS as QUALITY_NUMBERS
from labeling.projects.rows import AxesWidget, AxisRow, NameRow, NamesWidget, clean_axes, clean_names
from labeling.projects.services import RESERVED_SLUGS
from labeling.projects.skills import in_list

ROW_PARTS = {"ratings": clean_axes, "flags": clean_names, "marks": clean_names}
ASKED = [("off", "not asked"), ("optional", "optional"), ("required", "required")]


class DraftForm(forms.Form):
    """A form that can be shown with what was typed so far, unjudged: after a row was added, say."""

    is_draft = False

    def full_clean(self) -> None:
        if self.is_draft:
            self._errors, self.cleaned_data = ErrorDict(), {}
        else:
            super().full_clean()


class FeedbackFields(DraftForm):
    """The feedback form of a project as fields; `feedback_form` gives it back as an object.

    What is asked in rows has a switch of its own (`asks_ratings`, ...), so that rows outlive being switched off.
    """

    ranking = forms.BooleanField(required=False, label="Rank the completions")
    ties = forms.BooleanField(required=False, label="Ties are allowed")
    strength = forms.BooleanField(required=False, label="Say how much better the best one is")
    asks_ratings = forms.BooleanField(required=False, label="Rate each completion")
    ratings = forms.Field(required=False, widget=AxesWidget, label="Rate each completion")
    acceptable = forms.BooleanField(required=False, label="Good or not")
    corrections = forms.BooleanField(required=False, label="Correct it")
    asks_marks = forms.BooleanField(required=False, label="Mark what is wrong")
    marks = forms.Field(required=False, widget=NamesWidget, label="Mark what is wrong")
    asks_flags = forms.BooleanField(required=False, label="Flags on a whole completion")
    flags = forms.Field(required=False, widget=NamesWidget, label="Flags on a whole completion")
    demonstration = forms.ChoiceField(choices=ASKED, initial="off", label="Write it yourself", widget=forms.RadioSelect)
    rationale = forms.ChoiceField(choices=ASKED, initial="off", label="Reason in words", widget=forms.RadioSelect)
    none_acceptable = forms.BooleanField(required=False, label="“None is good” as an answer")
    required = forms.MultipleChoiceField(
        required=False, choices=[(part, part) for part in CAN_BE_REQUIRED], widget=forms.CheckboxSelectMultiple
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Read once: what is found wrong with a row is noted on it.
        self.rows: dict[str, list[Any]] = {name: self[name].value() or [] for name in ROW_PARTS}

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        for part, clean_rows in ROW_PARTS.items():
            data[part] = type(DEFAULT_FORM[part])()
            if data.get(f"asks_{part}"):
                try:
                    data[part] = clean_rows(self.rows[part])
                except forms.ValidationError as error:
                    self.add_error(part, error)
        return data

    def feedback_form(self) -> dict[str, Any]:
        """What is set below a switch that is off doesn't count."""
        form = {name: self.cleaned_data[name] for name in DEFAULT_FORM}
        form["strength"] = form["strength"] and form["ranking"]
        form["required"] = [part for part in CAN_BE_REQUIRED if part in form["required"] and form[part]]
        return form

    @property
    def presets(self) -> tuple[Preset, ...]:
        return (*PRESETS, TALK) if self.has_conversations else PRESETS

    @property
    def has_conversations(self) -> bool:
        """Whether the site has the page where conversations are set up: an app above this one."""
        try:
            return bool(reverse("projects:conversation", args=["any"]))
        except NoReverseMatch:
            return False

    @property
    def preset_forms(self) -> dict[str, dict[str, Any]]:
        """What each preset fills in, for the script."""
        return {preset.key: preset.form for preset in self.presets}

    @property
    def blank_axis(self) -> AxisRow:
        return AxisRow("__token__")

    @property
    def preset(self) -> str:
        """The card that is chosen: the one of a form like this one, if there is one."""
        if self.is_bound:
            return self.data.get("preset", "")
        return preset_like(self.initial["form"])

    @property
    def required_parts(self) -> list[str]:
        return self["required"].value() or []

    @staticmethod
    def initial_of(form: dict[str, Any]) -> dict[str, Any]:
        full = {**DEFAULT_FORM, **form}
        rows = {
            "ratings": [AxisRow.of(number, *axis) for number, axis in enumerate(full["ratings"].items())],
            "flags": [NameRow(name) for name in full["flags"]],
            "marks": [NameRow(name) for name in full["marks"]],
        }
        switches = {f"asks_{part}": bool(full[part]) for part in ROW_PARTS}
        return {"form": full} | full | switches | rows


class BenchFields(DraftForm):
    """How the bench of a project behaves; `bench_settings` gives it back as an object."""

    system_prompts = forms.ChoiceField(
        choices=[("shown", "shown to annotators"), ("hidden", "hidden: they never reach the annotator")],
        label="System prompts",
        widget=forms.RadioSelect,
    )
    fold_turns = forms.IntegerField(
        min_value=0, max_value=NUMBERS["fold_turns"], label="Fold long conversations after",
        help_text="messages; the first and the last ones stay open. 0: never fold",
    )  # fmt: skip
    content_warning = forms.CharField(
        required=False, max_length=MAX_WARNING, widget=forms.Textarea(attrs={"rows": 3}), label="Content warning",
        help_text="in Markdown; each person agrees to it once before their first task, and again when it changes",
    )  # fmt: skip
    blur = forms.BooleanField(
        required=False, label="Blur texts until asked for",
        help_text="for projects in which reading at all should be a decision",
    )  # fmt: skip
    daily_cap = forms.IntegerField(
        min_value=0, max_value=NUMBERS["daily_cap"], label="Most tasks a person gets in a day",
        help_text="counted in UTC, skipped ones too. 0: no limit",
    )  # fmt: skip
    break_minutes = forms.IntegerField(
        min_value=0, max_value=NUMBERS["break_minutes"], label="Remind of a break after",
        help_text="minutes of work; it can be waved away. 0: never",
    )  # fmt: skip
    warns_when_fast = forms.BooleanField(
        required=False, label="A gentle word when someone is too fast",
        help_text="where a judgement came sooner than the texts can be read; nothing is refused",
    )  # fmt: skip
    shows_agreement = forms.BooleanField(
        required=False, label="Tell annotators how often others agree with them",
        help_text="in their own figures; it teaches, and it draws opinions together",
    )  # fmt: skip

    def bench_settings(self) -> dict[str, Any]:
        settings = {name: self.cleaned_data[name] for name in DEFAULT_BENCH}
        return settings | {"content_warning": settings["content_warning"].replace("\r\n", "\n")}

    @staticmethod
    def initial_of_bench(settings: dict[str, Any]) -> dict[str, Any]:
        return {**DEFAULT_BENCH, **settings}


class WorkFields(DraftForm):
    """How tasks are handed out."""

    overlap = forms.IntegerField(
        min_value=1,
        max_value=50,
        initial=1,
        help_text="judgements, by different people, that a new task gets",
        label="Overlap",
    )
    lease_minutes = forms.IntegerField(
        min_value=1,
        max_value=24 * 60,
        initial=20,
        label="Minutes to hold a task",
        help_text="without a sign of life the task goes to someone else after so long",
    )
    eval_per_cent = forms.IntegerField(
        min_value=0,
        max_value=90,
        initial=20,
        label="Per cent kept for evaluation",
        help_text="share of the prompt groups that no model trains on",
    )

    def work(self) -> dict[str, Any]:
        return {
            "overlap": self.cleaned_data["overlap"],
            "lease_seconds": 60 * self.cleaned_data["lease_minutes"],
            "eval_share": self.cleaned_data["eval_per_cent"] / 100,
        }


def _per_cent(label: str, help_text: str, most: int = 100) -> forms.IntegerField:
    return forms.IntegerField(min_value=0, max_value=most, required=False, label=label, help_text=help_text)


def _count(name: str, label: str, help_text: str) -> forms.IntegerField:
    least, most = QUALITY_NUMBERS[name]
    return forms.IntegerField(min_value=least, max_value=most, required=False, label=label, help_text=help_text)


class QualityFields(DraftForm):
    """How labels are checked, shares in per cent; what is left empty stays as it was."""

    gold_per_cent = _per_cent("Gold tasks, per cent", "of the tasks handed out. 0: none", 50)
    gold_pass_per_cent = _per_cent("Right from, per cent", "of what a gold task expects")
    gold_window = _count("gold_window", "Newest gold answers looked at", "when deciding whether to pause a person")
    gold_least = _count("gold_least", "Gold answers before a pause", "nobody is paused on fewer")
    gold_bound_per_cent = _per_cent(
        "Pause below, per cent right", "once the 95 % interval lies wholly below. 0: never pause"
    )
    gold_again_days = _count("gold_again_days", "Days before a gold task comes again", "to the same person")
    requeue_days = _count(
        "requeue_days", "Days set aside on a pause", "of what the person judged; others judge it again. 0: nothing"
    )
    repeat_per_cent = _per_cent("Repeats, per cent", "of the tasks handed out: the person's own, shown again. 0: none", 50)
    repeat_after = _count("repeat_after", "Judgements before a repeat", "of the person's own in between, at least")
    repeat_hours = _count("repeat_hours", "Hours before a repeat", "in between, at least")
    qualification_n = forms.IntegerField(
        min_value=0, max_value=MOST_QUALIFYING, required=False, label="Gold tasks to begin with",
        help_text="a new annotator answers so many and is told after each what was right. 0: no round",
    )  # fmt: skip
    qualification_per_cent = _per_cent("Right to pass, per cent", "of the gold tasks of the round")

    SHARES = {
        "gold_per_cent": "gold_rate",
        "gold_pass_per_cent": "gold_pass",
        "gold_bound_per_cent": "gold_bound",
        "repeat_per_cent": "repeat_rate",
    }

    def quality_settings(self, before: dict[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in self.cleaned_data.items() if value is not None}
        settings = quality_of(before)
        for field, name in self.SHARES.items():
            # A share finer than per cents, set over REST, outlives a form that doesn't show it.
            if field in given and given[field] != round(100 * settings[name]):
                settings[name] = given[field] / 100
        settings |= {name: given[name] for name in QUALITY_NUMBERS if name in given}
        settings["qualification"] |= {"n": given["qualification_n"]} if "qualification_n" in given else {}
        if "qualification_per_cent" in given:
            settings["qualification"]["pass"] = given["qualification_per_cent"] / 100
        return settings

    @classmethod
    def initial_of_quality(cls, settings: dict[str, Any]) -> dict[str, Any]:
        full = quality_of(settings)
        return (
            {field: round(100 * full[name]) for field, name in cls.SHARES.items()}
            | {name: full[name] for name in QUALITY_NUMBERS}
            | {
                "qualification_n": full["qualification"]["n"],
                "qualification_per_cent": round(100 * full["qualification"]["pass"]),
            }
        )


class BuilderForm(WorkFields, BenchFields, FeedbackFields):
    """All that a lead sets up of a project: what is asked, how the bench behaves, how tasks are handed out."""

    @property
    def bench_errors(self) -> list[str]:
        return [name for name in BenchFields.base_fields if name in self.errors]

    @property
    def work_errors(self) -> list[str]:
        return [name for name in WorkFields.base_fields if name in self.errors]


class NewProjectForm(BuilderForm):
    name = forms.CharField(max_length=120, widget=forms.TextInput(attrs={"autofocus": True}))
    slug = forms.CharField(
        max_length=50,
        required=False,
        label="Short name",
        help_text="in addresses: small letters, digits and hyphens; made from the name if empty",
    )
    description = forms.CharField(required=False, widget=forms.Textarea(attrs={"rows": 2}))
    guideline = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 8}),
        help_text="what annotators are asked to do, in Markdown; its versions are kept",
    )

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        if "name" not in data or "slug" not in data:
            return data
        slug = data["slug"] or slugify(data["name"])[:50]
        try:
            validate_slug(slug)
        except forms.ValidationError:
            self.add_error("slug", "Give one of small letters, digits and hyphens")
        if slug in RESERVED_SLUGS:
            self.add_error("slug", f"“{slug}” is an address of the site itself")
        return data | {"slug": slug}


class SettingsForm(QualityFields, BuilderForm):
    name = forms.CharField(max_length=120)
    description = forms.CharField(required=False, widget=forms.Textarea(attrs={"rows": 2}))
    allows_revision = forms.BooleanField(required=False, label="Annotators may revise what they submitted")

    @classmethod
    def initial_of_project(cls, project: Project) -> dict[str, Any]:
        return (
            cls.initial_of(project.form)
            | cls.initial_of_bench(project.bench)
            | cls.initial_of_quality(project.quality)
            | {
                "name": project.name,
                "description": project.description,
                "allows_revision": project.allows_revision,
                "overlap": project.overlap,
                "lease_minutes": max(1, round(project.lease_seconds / 60)),
                "eval_per_cent": round(100 * project.eval_share),
            }
        )

    def changes(self, project: Project) -> dict[str, Any]:
        data = self.cleaned_data
        plain = {name: data[name] for name in ("name", "description", "allows_revision")}
        return plain | self.work() | {
            "form": self.feedback_form(),
            "bench": self.bench_settings(),
            "quality": self.quality_settings(project.quality),
        }


class CommaField(forms.CharField):
    """Texts with commas between; a list."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"required": False, "max_length": 10_000} | options)

    def clean(self, value: Any) -> list[str]:
        return in_list(super().clean(value))


class MemberForm(forms.Form):
    username = forms.CharField(max_length=150)
    role = forms.ChoiceField(choices=Role.choices, initial=Role.ANNOTATOR)
    languages = CommaField(help_text="codes such as de, en-GB, with commas between")
    skills = CommaField(help_text="words of your own, such as law, sql")

    def clean_username(self) -> User:
        try:
            return User.objects.get(username=self.cleaned_data["username"].strip())
        except User.DoesNotExist:
            raise forms.ValidationError(
                "There is no account of this name. The operator makes one with: manage.py create_user NAME"
            ) from None


    @property
    def known(self) -> dict[str, list[str]]:
        """What was sent of languages and skills."""
        return {name: self.cleaned_data[name] for name in ("languages", "skills") if name in self.data}


class GuidelineForm(forms.Form):
    markdown = forms.CharField(
        max_length=100_000, strip=False, widget=forms.Textarea(attrs={"rows": 18, "class": "mono"}), label="Guideline"
    )

    def clean_markdown(self) -> str:
        text = self.cleaned_data["markdown"].replace("\r\n", "\n")
        if not text.strip():
            raise forms.ValidationError("Write something: annotators read it beside each task")
        return text
