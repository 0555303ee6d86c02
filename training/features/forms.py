from typing import Any

from django import forms

from labeling.preferences.models import Snapshot
from labeling.projects.models import Project
from training.features.models import Encoder
from training.features.services import DIMENSIONS, MAX_LENGTHS
from training.registry.models import ModelVersion
from training.registry.selectors import models_of


class _OfBaseModel(forms.Form):
    model = forms.ModelChoiceField(ModelVersion.objects.none(), label="Base model", empty_label="choose a model")

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        models = models_of(project).exclude(stage=ModelVersion.Stage.ARCHIVED).exclude(folder="")
        field = self.fields["model"]
        field.queryset = models.filter(kind=ModelVersion.Kind.BASE).order_by("-pk")
        field.label_from_instance = lambda model: model.key
        if not self.is_bound and (first := field.queryset.first()):
            self.initial.setdefault("model", first.pk)


class MeasureForm(_OfBaseModel):
    """What a run of kind layers is started with."""

    snapshot = forms.ModelChoiceField(
        Snapshot.objects.none(), label="Snapshot", empty_label="choose a snapshot",
        help_text="its training pairs are measured on; those held out stay untouched",
    )  # fmt: skip
    max_pairs = forms.IntegerField(
        min_value=20, max_value=100_000, initial=2000, label="Pairs at most", help_text="whole prompt groups, drawn at random"
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, project=project, **kwargs)
        field = self.fields["snapshot"]
        field.queryset = Snapshot.objects.filter(project=project).order_by("-number").defer("manifest")
        field.label_from_instance = lambda snapshot: f"#{snapshot.number} · {snapshot.n_pairs:,} pairs"
        if not self.is_bound and (first := field.queryset.first()):
            self.initial.setdefault("snapshot", first.pk)


class EncoderForm(_OfBaseModel):
    """A choice made by hand."""

    layer = forms.IntegerField(min_value=1, max_value=512, help_text="from 1; two thirds up is a fair guess")
    pooling = forms.ChoiceField(choices=Encoder.Pooling.choices, help_text="over the completion’s tokens")
    max_length = forms.IntegerField(
        min_value=MAX_LENGTHS[0], max_value=MAX_LENGTHS[1], initial=1024, help_text="tokens of prompt and completion"
    )
    dimensions = forms.IntegerField(
        min_value=DIMENSIONS[0], max_value=DIMENSIONS[1], initial=64, help_text="principal components that a head keeps"
    )
