from typing import Any

from django import forms

from labeling.projects.models import Project
from training.loop.services import DEFAULT_CONFIG
from training.registry.models import ModelVersion
from training.registry.selectors import models_of


class IterationForm(forms.Form):
    """One turn of the loop. What isn't here keeps the defaults of the loop."""

    policy_before = forms.ModelChoiceField(
        ModelVersion.objects.none(), label="Policy to start from", empty_label="choose a model"
    )
    train_tag = forms.CharField(
        required=False,
        max_length=60,
        label="Tag of the prompts to collect on",
        help_text="empty: all but the held-out ones",
    )
    heldout_tag = forms.CharField(
        required=False,
        max_length=60,
        initial=DEFAULT_CONFIG["heldout_tag"],
        label="Tag of the held-out prompts",
        help_text="only ever used to compare policies",
    )
    completions_per_task = forms.IntegerField(
        min_value=2, max_value=9, initial=DEFAULT_CONFIG["completions_per_task"], label="Completions to a task"
    )
    overlap = forms.IntegerField(
        min_value=1, max_value=50, required=False, label="Judgements to a task", help_text="empty: as the project says"
    )
    quota_per_cent = forms.IntegerField(
        min_value=1, max_value=100, initial=100, label="Per cent of the judgements to wait for"
    )
    reward_kind = forms.ChoiceField(
        choices=[("reward_head", "head on cached features: seconds"), ("reward", "LoRA: slower, for many pairs")],
        label="Reward model",
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        models = models_of(project).exclude(stage=ModelVersion.Stage.ARCHIVED).exclude(kind=ModelVersion.Kind.REWARD)
        self.fields["policy_before"].queryset = models.exclude(folder="").order_by("-pk")
        self.fields["policy_before"].label_from_instance = lambda row: (
            f"{row.key} · {row.get_kind_display()}, {row.get_stage_display()}"
        )

    def config(self) -> dict[str, Any]:
        data = self.cleaned_data
        kept = ("train_tag", "heldout_tag", "completions_per_task", "overlap", "reward_kind")
        return {name: data[name] for name in kept} | {"quota": data["quota_per_cent"] / 100}
