"""What leads send: projects, people, guidelines, files."""

from typing import Any

from django import forms
from django.core.validators import validate_slug
from django.utils.text import slugify

from labeling.accounts.models import User
from labeling.accounts.roles import Role
from labeling.projects.feedback import DEFAULT_FORM, SWITCHES
from labeling.projects.imports import FORMATS
from labeling.projects.models import Project
from labeling.projects.services import RESERVED_SLUGS


class FeedbackFields(forms.Form):
    """The feedback form of a project as fields of one's own; `feedback_form` gives it back as an object."""

    ranking = forms.BooleanField(required=False, label="Ranking of the completions, best first")
    ties = forms.BooleanField(required=False, label="Ties in the ranking")
    none_acceptable = forms.BooleanField(required=False, label="“None is good” as an answer")
    strength = forms.BooleanField(required=False, label="How much better the best is, in three steps")
    acceptable = forms.BooleanField(required=False, label="Good enough, yes or no, for each completion")
    corrections = forms.BooleanField(required=False, label="Editing a completion")
    rationale = forms.ChoiceField(
        choices=[("off", "not asked"), ("optional", "optional"), ("required", "required")],
        label="Reason in words",
    )
    flags = forms.CharField(
        required=False, help_text="names with commas between: unsafe, off topic", label="Flags on a completion"
    )
    ratings = forms.CharField(
        required=False,
        label="Ratings of a completion",
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="one axis a line, with its lowest and highest number: helpfulness 1 5",
    )

    def clean_flags(self) -> list[str]:
        return [flag.strip() for flag in self.cleaned_data["flags"].split(",") if flag.strip()]

    def clean_ratings(self) -> dict[str, dict[str, int]]:
        ratings = {}
        for line in self.cleaned_data["ratings"].splitlines():
            words = line.split()
            if not words:
                continue
            try:
                *name, low, high = words
                ratings[" ".join(name)] = {"low": int(low), "high": int(high)}
            except ValueError:
                raise forms.ValidationError(
                    f"“{line.strip()}” should read: a name, the lowest and the highest number"
                ) from None
            if not name:
                raise forms.ValidationError(f"“{line.strip()}” lacks the name of the axis")
        return ratings

    def feedback_form(self) -> dict[str, Any]:
        return {name: self.cleaned_data[name] for name in DEFAULT_FORM}

    @staticmethod
    def initial_of(form: dict[str, Any]) -> dict[str, Any]:
        full = {**DEFAULT_FORM, **form}
        return {name: full[name] for name in (*SWITCHES, "rationale")} | {
            "flags": ", ".join(full["flags"]),
            "ratings": "\n".join(f"{axis} {scale['low']} {scale['high']}" for axis, scale in full["ratings"].items()),
        }


class WorkFields(forms.Form):
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


class NewProjectForm(WorkFields, FeedbackFields):
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


class SettingsForm(WorkFields, FeedbackFields):
    name = forms.CharField(max_length=120)
    description = forms.CharField(required=False, widget=forms.Textarea(attrs={"rows": 2}))
    allows_revision = forms.BooleanField(required=False, label="Annotators may revise what they submitted")

    @classmethod
    def initial_of_project(cls, project: Project) -> dict[str, Any]:
        return cls.initial_of(project.form) | {
            "name": project.name,
            "description": project.description,
            "allows_revision": project.allows_revision,
            "overlap": project.overlap,
            "lease_minutes": max(1, round(project.lease_seconds / 60)),
            "eval_per_cent": round(100 * project.eval_share),
        }

    def changes(self) -> dict[str, Any]:
        data = self.cleaned_data
        plain = {name: data[name] for name in ("name", "description", "allows_revision")}
        return plain | self.work() | {"form": self.feedback_form()}


class MemberForm(forms.Form):
    username = forms.CharField(max_length=150)
    role = forms.ChoiceField(choices=Role.choices, initial=Role.ANNOTATOR)

    def clean_username(self) -> User:
        try:
            return User.objects.get(username=self.cleaned_data["username"].strip())
        except User.DoesNotExist:
            raise forms.ValidationError(
                "There is no account of this name. The operator makes one with: manage.py create_user NAME"
            ) from None


class GuidelineForm(forms.Form):
    markdown = forms.CharField(
        max_length=100_000, strip=False, widget=forms.Textarea(attrs={"rows": 18, "class": "mono"}), label="Guideline"
    )

    def clean_markdown(self) -> str:
        text = self.cleaned_data["markdown"].replace("\r\n", "\n")
        if not text.strip():
            raise forms.ValidationError("Write something: annotators read it beside each task")
        return text


class ImportForm(forms.Form):
    format = forms.ChoiceField(choices=[(name, name) for name in FORMATS])
    file = forms.FileField(allow_empty_file=False, label="File", help_text="JSON lines, UTF-8, one row a line")
