"""Asking why a reward model rewards something."""

from typing import Any

from django import forms

from labeling.projects.models import Project, Prompt
from training.registry.models import ModelVersion
from training.registry.selectors import models_of
from training.runs.catalogue import KINDS, defaults
from training.runs.explaining import MAX_COMPLETIONS
from training.runs.forms import _field

OPTIONS = ("baseline", "max_path_steps")
MAX_LISTED = 40  # completions of a prompt


class ExplainForm(forms.Form):
    """Of a stored `prompt` some of its completions are chosen; without one, texts are written."""

    model = forms.ModelChoiceField(ModelVersion.objects.none(), label="Reward model", empty_label="choose a reward model")
    prompt = forms.CharField(label="Prompt", widget=forms.Textarea(attrs={"rows": 4, "dir": "auto"}))
    first = forms.CharField(label="Completion", strip=False, widget=forms.Textarea(attrs={"rows": 8, "dir": "auto"}))
    second = forms.CharField(
        label="Another one, to compare", required=False, strip=False,
        widget=forms.Textarea(attrs={"rows": 8, "dir": "auto"}),
    )  # fmt: skip
    completion_ids = forms.MultipleChoiceField(
        label="Completions", help_text="one, or two beside each other", widget=forms.CheckboxSelectMultiple
    )

    def __init__(self, *args: Any, project: Project, stored: Prompt | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stored = stored
        models = models_of(project).filter(kind=ModelVersion.Kind.REWARD).exclude(folder="")
        self.fields["model"].queryset = models.exclude(stage=ModelVersion.Stage.ARCHIVED).order_by("-pk")
        self.fields["model"].label_from_instance = lambda row: f"{row.key} · {row.get_stage_display()}"
        if stored is None:
            del self.fields["completion_ids"]
        else:
            for name in ("prompt", "first", "second"):
                del self.fields[name]
            rows = stored.completions.exclude(content="").order_by("pk")
            self.n_left_out = max(0, rows.count() - MAX_LISTED)
            self.completions = list(rows[:MAX_LISTED])
            self.fields["completion_ids"].choices = [(str(row.pk), str(number)) for number, row in enumerate(self.completions, 1)]
        for name in OPTIONS:
            self.fields[f"option_{name}"] = _field(name, KINDS["explain"].options[name], defaults("explain").get(name))

    def clean_completion_ids(self) -> list[str]:
        ids = self.cleaned_data["completion_ids"]
        if len(ids) > MAX_COMPLETIONS:
            raise forms.ValidationError(f"{len(ids)} are chosen: choose one or two")
        return ids

    @property
    def option_fields(self) -> list[Any]:
        return [self[f"option_{name}"] for name in OPTIONS]

    @property
    def chosen(self) -> list[str]:
        """Ids of the completions that are ticked."""
        return [str(id) for id in self["completion_ids"].value() or []]

    def spec(self) -> dict[str, Any]:
        """What differs from the recipe's defaults."""
        usual = defaults("explain")
        given = {name: self.cleaned_data[f"option_{name}"] for name in OPTIONS}
        return {name: value for name, value in given.items() if value not in (None, "") and value != usual.get(name)}

    def inputs(self) -> dict[str, Any]:
        if self.stored is not None:
            return {"completion_ids": self.cleaned_data["completion_ids"]}
        texts = [self.cleaned_data["first"], self.cleaned_data["second"]]
        # A browser sends line breaks as CRLF; no tokenizer saw them so in training.
        texts = [text.replace("\r\n", "\n") for text in texts if text.strip()]
        return {"prompt": self.cleaned_data["prompt"].replace("\r\n", "\n"), "completions": texts}

    def add_refusal(self, fields: dict[str, str]) -> None:
        """Put what the service refused beside the field it came from."""
        for name, problem in fields.items():
            own = name.removeprefix("inputs.")
            own = {"completions": "first"}.get(own, own)
            option = f"option_{name.removeprefix('spec.')}"
            field = next((known for known in (own, option) if known in self.fields), None)
            self.add_error(field, problem if field else f"{name} {problem}")
