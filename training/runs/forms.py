"""Starting a run: kind, data, model, and the options that its kind knows."""

import math
from dataclasses import replace
from typing import Any

import yaml
from django import forms
from django.conf import settings
from django.db.models import QuerySet
from django.db.models.fields.json import KeyTransform

from labeling.preferences.models import Snapshot
from labeling.projects.models import Project
from training.endpoints.models import Endpoint
from training.registry.models import ModelVersion
from training.registry.selectors import models_of
from training.registry.terms import terms_to_accept
from training.runs.catalogue import KINDS, defaults
from training.runs.learnable import PREFERENCE
from training.runs.options import LAUNCH_OPTIONS, RUN_DEFAULTS, Option
from training.runs.rewards import axes_of, why_no_caution
from training.sampling.reward_rules import FORMATS

# The few that people change; the rest is in the box for the others.
MAIN_OPTIONS = {
    "sample": ("completions_per_prompt", "temperature", "max_new_tokens", "seed"),
    "reward_head": ("layer", "pooling", "dimensions", "seed"),
    "reward": ("axes", "learning_rate", "num_train_epochs", "per_device_train_batch_size", "adapter_rank", "n_heads", *LAUNCH_OPTIONS),
    "dpo": (
        "beta",
        "smoothing_from",
        "learning_rate",
        "num_train_epochs",
        "per_device_train_batch_size",
        "adapter_rank",
        "sample_every_steps",
        *LAUNCH_OPTIONS,
    ),
    "sft": (
        "sources",
        "learning_rate",
        "num_train_epochs",
        "per_device_train_batch_size",
        "adapter_rank",
        "sample_every_steps",
        *LAUNCH_OPTIONS,
    ),
    "kto": (
        "labels_from",
        "beta",
        "learning_rate",
        "num_train_epochs",
        "per_device_train_batch_size",
        "adapter_rank",
        "sample_every_steps",
        *LAUNCH_OPTIONS,
    ),
    "grpo": ("beta", "learning_rate", "max_steps", "num_generations", "max_completion_length", "adapter_rank", *LAUNCH_OPTIONS),
    "rloo": ("beta", "learning_rate", "max_steps", "num_generations", "max_completion_length", "adapter_rank", *LAUNCH_OPTIONS),
    "merge": ("dtype",),
    "distill": ("preamble", "loss", "written_by", "learning_rate", "max_steps", "max_completion_length", "adapter_rank", *LAUNCH_OPTIONS),
    "gguf": ("quantisation", "max_new_tokens", "max_prompts"),
    "evaluate": ("completions_per_prompt", "temperature", "max_new_tokens", "max_prompts"),
    "ppo": ("beta", "learning_rate", "max_steps", "num_iterations", "max_completion_length", "adapter_rank", *LAUNCH_OPTIONS),
}
# What the rows of a view are called where a snapshot is chosen.
ROWS_OF = {"sft": "texts to imitate", "unpaired": "labelled completions"}
# Label, what none of them is called, and help of the second model.
OTHER_MODELS = {
    "distill": ("Teacher", "the policy itself, with the preamble", "its terms go with what is made"),
    "evaluate": ("Compare with", "nothing", "the reference: win rate and KL are against it"),
}
MAX_REWARD_MODELS = 12  # the newest have a field each
MAX_OTHER_OPTIONS = 10_000
MOST_TERMS = 100


class RunForm(forms.Form):
    """`kind` decides which fields there are: the form is built for one kind and checked by the service."""

    model = forms.ModelChoiceField(ModelVersion.objects.none(), label="Start from", empty_label="choose a model")
    snapshot = forms.ModelChoiceField(Snapshot.objects.none(), label="Snapshot", empty_label="choose a snapshot")
    tags = forms.CharField(
        required=False, label="Prompts with the tags", help_text="commas between; empty: all prompts of the project"
    )
    other_model = forms.ModelChoiceField(ModelVersion.objects.none(), required=False)
    rules = forms.CharField(
        required=False,
        label="Rules",
        widget=forms.Textarea(attrs={"rows": 3, "class": "mono", "spellcheck": "false"}),
    )
    caution = forms.FloatField(
        required=False, min_value=0, max_value=10,
        help_text="standard deviations taken off the rewards of chosen models that know them: reward heads, and models with n_heads",
        widget=forms.NumberInput(attrs={"step": "any", "placeholder": "none"}),
    )  # fmt: skip
    endpoint = forms.ModelChoiceField(
        Endpoint.objects.none(), required=False, label="Sampled at", empty_label="a worker of this site"
    )
    other_options = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 5, "class": "mono", "spellcheck": "false"}),
        help_text="YAML, one option a line",
    )

    def __init__(self, *args: Any, project: Project, kind: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.project, self.kind, self.known = project, kind, KINDS[kind]
        models = models_of(project).exclude(stage=ModelVersion.Stage.ARCHIVED)
        if kind != "sample":
            models = models.exclude(folder="")  # on a server alone
        self.fields["model"].queryset = models.filter(kind__in=self.known.model_kinds).order_by("-pk")
        if self.known.needs_snapshot or self.known.may_have_snapshot:
            snapshots = Snapshot.objects.filter(project=project).order_by("-number").defer("manifest")
            if self.known.view in ROWS_OF:
                counted = KeyTransform(f"{self.known.view}.train", KeyTransform("views", "manifest"))
                snapshots = snapshots.annotate(n_rows=counted)
            self.fields["snapshot"].queryset = snapshots
            self.fields["snapshot"].label_from_instance = self._label_of_snapshot
        else:
            del self.fields["snapshot"]
        if self.known.needs_snapshot or not self.known.needs_prompts:
            del self.fields["tags"]
        if self.known.may_have_snapshot:
            self.fields["snapshot"].required, self.fields["snapshot"].empty_label = False, "none"
            self.fields["snapshot"].help_text = "its held-out corrections and demonstrations: their loss is told, too"
        if kind == "sample":
            endpoints = Endpoint.objects.filter(project=project, is_active=True).select_related("model").order_by("name")
            self.fields["endpoint"].queryset = endpoints
            self.fields["endpoint"].label_from_instance = lambda row: f"{row.name} · {row.model.key}"
        else:
            del self.fields["endpoint"]
        if self.known.other_model:
            field = self.fields["other_model"]
            field.queryset = models.exclude(folder="").filter(kind__in=self.known.model_kinds).order_by("-pk")
            field.label, field.empty_label, field.help_text = OTHER_MODELS[kind]
            field.label_from_instance = lambda row: row.key
        else:
            del self.fields["other_model"]
        if kind == "evaluate":
            self.fields["model"].label = "Evaluate"
        if self.known.needs_adapter:
            self.fields["model"].queryset = self.fields["model"].queryset.filter(is_adapter=True)
        self.fields["model"].label_from_instance = lambda row: (
            f"{row.key} · {row.get_kind_display()}, {row.get_stage_display()}"
        )
        self.reward_models: dict[str, tuple[ModelVersion, str]] = {}  # by field: a model, and one axis of it or all
        self.reward_origins: list[str] = []
        self.n_older_reward_models = 0
        if self.known.needs_rewards or self.known.may_have_rewards:
            self._add_reward_fields(models)
        else:
            del self.fields["rules"], self.fields["caution"]
        usual = RUN_DEFAULTS | defaults(kind)
        axes = [PREFERENCE, *project.form.get("ratings", {})]
        self.option_names = [
            name for name in MAIN_OPTIONS.get(kind, ()) if name in self.known.settable and (name != "axes" or len(axes) > 1)
        ]
        for name in self.option_names:
            option = self.known.settable[name]
            if name == "axes":
                option = replace(option, choices=tuple(axes), max_chars=0)
            self.fields[f"option_{name}"] = _field(name, option, usual.get(name))
        options = [f"option_{name}" for name in self.option_names]
        self.order_fields(["model", "other_model", "snapshot", "tags", "endpoint", *self.reward_models, "rules", *options, "other_options"])

    def _add_reward_fields(self, models: QuerySet[ModelVersion]) -> None:
        """A weight for each of the newest reward models, the first of them chosen, and the rules."""
        found = models.filter(kind=ModelVersion.Kind.REWARD, project__isnull=False).order_by("-pk")
        self.n_older_reward_models = max(0, found.count() - MAX_REWARD_MODELS)
        for model in found[:MAX_REWARD_MODELS]:
            accuracy = model.metrics.get("accuracy") or {}
            self.fields[f"reward_{model.pk}"] = forms.FloatField(
                required=False,
                label=model.key,
                initial=None if self.reward_models or self.known.may_have_rewards else 1.0,
                help_text=_accuracy_in_words(accuracy),
                widget=forms.NumberInput(attrs={"step": "any", "placeholder": "not used"}),
            )
            self.reward_models[f"reward_{model.pk}"] = model, ""
            for number, axis in enumerate(axes_of(model)):
                accuracy = model.metrics.get(f"accuracy_on/{axis}") or {}
                self.fields[f"reward_{model.pk}_{number}"] = forms.FloatField(
                    required=False,
                    label=f"{model.key} on {axis}",
                    help_text=_accuracy_in_words(accuracy),
                    widget=forms.NumberInput(attrs={"step": "any", "placeholder": "not used"}),
                )
                self.reward_models[f"reward_{model.pk}_{number}"] = model, axis
        functions = "".join(f", function:{name}" for name in settings.REWARD_FUNCTIONS)
        self.fields["rules"].help_text = (
            "One a line with its weight, such as length:target=60 0.5. There are length:target=N, "
            f"{', '.join(f'format:{name}' for name in FORMATS)}, repetition{functions}"
        )

    def _label_of_snapshot(self, row: Snapshot) -> str:
        """Its number, pairs, name; and its rows to train on, where these are no pairs and somebody counted them."""
        n_rows = getattr(row, "n_rows", None)
        rows = "" if n_rows is None else f" · {n_rows:,} {ROWS_OF[self.known.view]}"
        return f"#{row.number}{rows} · {row.n_pairs:,} pairs" + (f" · {row.name}" if row.name else "")

    @property
    def reward_fields(self) -> list[Any]:
        return [self[name] for name in self.reward_models]

    @property
    def terms_to_know(self) -> list[tuple[ModelVersion, list[str], bool]]:
        """Whose terms ask something of whoever uses them, the models one may start from under these terms, and whether
        the project has accepted all that stands over them."""
        found: dict[int, tuple[ModelVersion, list[str]]] = {}
        for model in self.fields["model"].queryset[:MOST_TERMS]:
            if model.terms_ask:
                found.setdefault(model.terms_of.pk, (model.terms_of, []))[1].append(model.key)
        return [(terms, keys, not terms_to_accept(self.project, terms)) for terms, keys in found.values()]

    def _is_text(self, name: str) -> bool:
        option = self.known.settable[name]
        return bool(option.max_chars) and not option.is_list

    @property
    def option_fields(self) -> list[Any]:
        return [self[f"option_{name}"] for name in self.option_names if not self._is_text(name)]

    @property
    def text_option_fields(self) -> list[Any]:
        """Those that are written rather than chosen, for the whole width."""
        return [self[f"option_{name}"] for name in self.option_names if self._is_text(name)]

    @property
    def other_known(self) -> list[tuple[str, str, Any]]:
        """Name, help and default of the options without a field of their own."""
        usual = RUN_DEFAULTS | defaults(self.kind)
        return [
            (name, option.help, usual.get(name, ""))
            for name, option in self.known.settable.items()
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

    def clean_rules(self) -> list[tuple[str, float]]:
        """Each line as a rule and its weight."""
        found = []
        lines = self.cleaned_data["rules"].splitlines()
        for number, line in enumerate(lines, start=1):
            words = line.split()
            if not words:
                continue
            try:
                weight = float(words[-1]) if len(words) > 1 else 1.0
            except ValueError:
                weight = math.nan
            if len(words) > 2 or not math.isfinite(weight):
                raise forms.ValidationError(f"Line {number}: write a rule and its weight, such as length:target=60 0.5")
            found.append((words[0], weight))
        return found

    def clean_tags(self) -> list[str]:
        return [tag.strip() for tag in self.cleaned_data["tags"].split(",") if tag.strip()]

    def spec(self) -> dict[str, Any]:
        """What differs from the recipe's defaults."""
        usual = RUN_DEFAULTS | defaults(self.kind)
        chosen = {name: self.cleaned_data[f"option_{name}"] for name in self.option_names}
        for name in self.option_names:
            if self._is_text(name):  # browsers send two characters for a line break
                chosen[name] = chosen[name].replace("\r\n", "\n")
        chosen = {name: value for name, value in chosen.items() if value not in (None, "") and value != usual.get(name)}
        return chosen | self.cleaned_data["other_options"]

    def inputs(self) -> dict[str, Any]:
        tags, endpoint = self.cleaned_data.get("tags"), self.cleaned_data.get("endpoint")
        inputs = ({"tags": tags} if tags else {}) | ({"endpoint": endpoint.pk} if endpoint else {})
        if other := self.cleaned_data.get("other_model"):
            inputs[self.known.other_model] = other.pk
        has_rewards = self.known.needs_rewards or self.known.may_have_rewards
        return inputs | {"rewards": self._rewards()} if has_rewards else inputs

    def _rewards(self) -> list[dict[str, Any]]:
        """As the service takes them; `reward_origins` keeps the field of each."""
        rewards, self.reward_origins = [], []
        caution = self.cleaned_data.get("caution")
        for name, (model, axis) in self.reward_models.items():
            if (weight := self.cleaned_data.get(name)) is not None:
                rewards.append({"model": model.pk, "weight": weight} | ({"axis": axis} if axis else {}))
                if caution and not why_no_caution(model):
                    rewards[-1]["caution"] = caution
                self.reward_origins.append(name)
        for text, weight in self.cleaned_data["rules"]:
            function = text.removeprefix("function:")
            rewards.append({"rule": text, "weight": weight} if function == text else {"function": function, "weight": weight})
            self.reward_origins.append("rules")
        return rewards

    def clean(self) -> dict[str, Any]:
        chosen = [model for name, (model, _) in self.reward_models.items() if self.cleaned_data.get(name) is not None]
        reasons = [why_no_caution(model) for model in chosen]
        if self.cleaned_data.get("caution") and all(reasons):
            self.add_error("caution", " ".join(reasons) or "Choose a reward model: rules are sure of themselves")
        return self.cleaned_data

    def add_refusal(self, fields: dict[str, str]) -> None:
        """Put what the service refused beside the field it came from."""
        for name, problem in fields.items():
            option = name.removeprefix("spec.")
            if f"option_{option}" in self.fields:
                self.add_error(f"option_{option}", problem)
            elif name.startswith("spec."):
                self.add_error("other_options", f"{option} {problem}")
            elif name.startswith("inputs.rewards"):
                number = name.removeprefix("inputs.rewards").lstrip(".").partition(".")[0]
                self.add_error(self.reward_origins[int(number)] if number.isdigit() else "rules", problem)
            elif name == f"inputs.{self.known.other_model}" and self.known.other_model:
                self.add_error("other_model", problem)
            elif name == "inputs" and "tags" in self.fields:
                self.add_error("tags", problem)
            elif name in self.fields:
                self.add_error(name, problem)
            else:
                self.add_error(None, f"{name} {problem}")


def _accuracy_in_words(accuracy: dict[str, Any]) -> str:
    return f"accuracy {accuracy['value']:.2f} (n = {accuracy['n']:,} pairs)" if accuracy.get("value") else ""


def _field(name: str, option: Option, usual: Any) -> forms.Field:
    common = {"required": False, "label": name, "help_text": option.help, "initial": usual}
    if option.choices and option.is_list:
        choices = [(choice, choice) for choice in option.choices]
        return forms.MultipleChoiceField(choices=choices, widget=forms.CheckboxSelectMultiple, **common)
    if option.choices:
        return forms.ChoiceField(choices=[(choice, choice) for choice in option.choices], **common)
    if option.max_chars:
        # Longer texts, and what is no text, the service refuses in its own words.
        return forms.CharField(widget=forms.Textarea(attrs={"rows": 4}), **common)
    if option.type is bool:
        return forms.BooleanField(**common)
    if option.type is int:
        return forms.IntegerField(min_value=int(option.low or 0), max_value=int(option.high or 0), **common)
    return forms.FloatField(
        min_value=option.low, max_value=option.high, widget=forms.NumberInput(attrs={"step": "any"}), **common
    )
