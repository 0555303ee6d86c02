"""Starting a run: kind, data, model, and the options that its kind knows."""

from typing import Any

import yaml
from django import forms

from labeling.preferences.models import Snapshot
from labeling.projects.models import Project
from training.registry.models import ModelVersion
from training.registry.selectors import models_of
from training.runs.catalogue import KINDS, Option, defaults

# The few that people change; the rest is in the box for the others.
MAIN_OPTIONS = {
    "sample": ("completions_per_prompt", "temperature", "max_new_tokens", "seed"),
    "reward_head": ("layer", "pooling", "dimensions", "seed"),
    "reward": ("learning_rate", "num_train_epochs", "per_device_train_batch_size", "adapter_rank"),
    "dpo": (
        "beta",
        "learning_rate",
        "num_train_epochs",
        "per_device_train_batch_size",
        "adapter_rank",
        "sample_every_steps",
    ),
}
MAX_OTHER_OPTIONS = 10_000


class RunForm(forms.Form):
    """`kind` decides which fields there are: the form is built for one kind and checked by the service."""

    model = forms.ModelChoiceField(ModelVersion.objects.none(), label="Start from", empty_label="choose a model")
    snapshot = forms.ModelChoiceField(Snapshot.objects.none(), label="Snapshot", empty_label="choose a snapshot")
    tags = forms.CharField(
        required=False, label="Prompts with the tags", help_text="commas between; empty: all prompts of the project"
    )
    other_options = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 5, "class": "mono", "spellcheck": "false"}),
        help_text="YAML, one option a line",
    )

    def __init__(self, *args: Any, project: Project, kind: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kind, self.known = kind, KINDS[kind]
        models = models_of(project).exclude(stage=ModelVersion.Stage.ARCHIVED)
        self.fields["model"].queryset = models.filter(kind__in=self.known.model_kinds).order_by("-pk")
        if self.known.needs_snapshot:
            del self.fields["tags"]
            snapshots = Snapshot.objects.filter(project=project).order_by("-number").defer("manifest")
            self.fields["snapshot"].queryset = snapshots
            self.fields["snapshot"].label_from_instance = lambda row: (
                f"#{row.number} · {row.n_pairs:,} pairs" + (f" · {row.name}" if row.name else "")
            )
        else:
            del self.fields["snapshot"]
        self.fields["model"].label_from_instance = lambda row: (
            f"{row.key} · {row.get_kind_display()}, {row.get_stage_display()}"
        )
        usual = defaults(kind)
        self.option_names = [name for name in MAIN_OPTIONS.get(kind, ()) if name in self.known.options]
        for name in self.option_names:
            self.fields[f"option_{name}"] = _field(name, self.known.options[name], usual.get(name))
        self.order_fields(
            ["model", "snapshot", "tags", *(f"option_{name}" for name in self.option_names), "other_options"]
        )

    @property
    def option_fields(self) -> list[Any]:
        return [self[f"option_{name}"] for name in self.option_names]

    @property
    def other_known(self) -> list[tuple[str, str, Any]]:
        """Name, help and default of the options without a field of their own."""
        usual = defaults(self.kind)
        return [
            (name, option.help, usual.get(name, ""))
            for name, option in self.known.options.items()
            if name not in self.option_names
        ]

    def clean_other_options(self) -> dict[str, Any]:
        text = self.cleaned_data["other_options"]
        if len(text) > MAX_OTHER_OPTIONS:
            raise forms.ValidationError("This is longer than any recipe")
        try:
            options = yaml.safe_load(text) if text.strip() else {}
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f" in line {mark.line + 1}" if mark else ""
            raise forms.ValidationError(f"Not YAML{where}: write one option a line, such as save_steps: 20") from None
        except RecursionError:
            raise forms.ValidationError("This is nested too deeply") from None
        if options is None:
            return {}
        if not isinstance(options, dict):
            raise forms.ValidationError("Write one option a line, such as save_steps: 20")
        return {str(key): value for key, value in options.items()}

    def clean_tags(self) -> list[str]:
        return [tag.strip() for tag in self.cleaned_data["tags"].split(",") if tag.strip()]

    def spec(self) -> dict[str, Any]:
        """What differs from the recipe's defaults."""
        usual = defaults(self.kind)
        chosen = {name: self.cleaned_data[f"option_{name}"] for name in self.option_names}
        chosen = {name: value for name, value in chosen.items() if value not in (None, "") and value != usual.get(name)}
        return chosen | self.cleaned_data["other_options"]

    def inputs(self) -> dict[str, Any]:
        tags = self.cleaned_data.get("tags")
        return {"tags": tags} if tags else {}

    def add_refusal(self, fields: dict[str, str]) -> None:
        """Put what the service refused beside the field it came from."""
        for name, problem in fields.items():
            option = name.removeprefix("spec.")
            if f"option_{option}" in self.fields:
                self.add_error(f"option_{option}", problem)
            elif name.startswith("spec."):
                self.add_error("other_options", f"{option} {problem}")
            elif name == "inputs" and "tags" in self.fields:
                self.add_error("tags", problem)
            elif name in self.fields:
                self.add_error(name, problem)
            else:
                self.add_error(None, f"{name} {problem}")


def _field(name: str, option: Option, usual: Any) -> forms.Field:
    common = {"required": False, "label": name, "help_text": option.help, "initial": usual}
    if option.choices and not option.is_list:
        return forms.ChoiceField(choices=[(choice, choice) for choice in option.choices], **common)
    if option.type is bool:
        return forms.BooleanField(**common)
    if option.type is int:
        return forms.IntegerField(min_value=int(option.low or 0), max_value=int(option.high or 0), **common)
    return forms.FloatField(
        min_value=option.low, max_value=option.high, widget=forms.NumberInput(attrs={"step": "any"}), **common
    )
