from typing import Any

from rest_framework import serializers

from labeling.web.api import Flag, StrictSerializer, Text, Whole
from training.features.models import Encoder
from training.features.services import DIMENSIONS, MAX_LENGTHS
from training.registry.report_serializers import ClusteredFigureSerializer
from training.registry.serializers import ModelReferenceSerializer
from training.runs.serializers import RunSerializer


class NewEncoderSerializer(StrictSerializer):
    model = Text(max_length=120, help_text="id or key of a base model")
    layer = Whole(min_value=1, max_value=512, help_text="hidden layer, from 1")
    pooling = serializers.ChoiceField(Encoder.Pooling.choices, help_text="over the completion's tokens")
    max_length = Whole(
        min_value=MAX_LENGTHS[0], max_value=MAX_LENGTHS[1], default=1024, help_text="tokens of prompt and completion"
    )
    dimensions = Whole(
        min_value=DIMENSIONS[0], max_value=DIMENSIONS[1], default=64, help_text="principal components that a head keeps, at most"
    )


class EncoderPatchSerializer(StrictSerializer):
    is_active = Flag(help_text="true: encode by it, and by no other; false: encode nothing more by it")


class MeasuredLayerSerializer(serializers.Serializer):
    layer = serializers.IntegerField()
    pooling = serializers.CharField()
    accuracy = ClusteredFigureSerializer()
    log_loss = serializers.FloatField(help_text="in nats")


class EncoderSerializer(serializers.Serializer):
    id = serializers.CharField(source="pk")
    project = serializers.CharField(source="project.slug")
    model = ModelReferenceSerializer()
    layer = serializers.IntegerField()
    pooling = serializers.CharField()
    max_length = serializers.IntegerField()
    dimensions = serializers.IntegerField()
    is_active = serializers.BooleanField()
    measured_by = serializers.CharField(source="measured_by_id", allow_null=True, help_text="id of the run of kind layers; null: chosen by hand")
    layers = serializers.SerializerMethodField(help_text="accuracy of every layer and pooling, where it was measured")
    created_at = serializers.DateTimeField()

    def get_layers(self, encoder: Encoder) -> list[dict[str, Any]]:
        return MeasuredLayerSerializer(encoder.evidence.get("layers", []), many=True).data


class FeaturesSerializer(serializers.Serializer):
    encoder = EncoderSerializer(allow_null=True, help_text="the one in use")
    n_completions = serializers.IntegerField(help_text="of the project, without those removed or withdrawn")
    n_encoded = serializers.IntegerField()
    n_waiting = serializers.IntegerField()
    n_bytes = serializers.IntegerField(help_text="on disk")
    tokens_per_second = serializers.FloatField(allow_null=True, help_text="of the last run that encoded anything")
    run = RunSerializer(allow_null=True, help_text="the newest run that encodes")


class UncertainPairSerializer(serializers.Serializer):
    prompt = serializers.CharField()
    first = serializers.CharField(help_text="id of a completion")
    second = serializers.CharField(help_text="id of a completion")
    probability = serializers.FloatField(help_text="that the first is preferred")
    low = serializers.FloatField(help_text="of its 95 % interval")
    high = serializers.FloatField()
    verdict = serializers.CharField(help_text="knows, leans or does_not_know")
    information = serializers.FloatField(help_text="what an answer would tell of the model, in nats")


class UncertainPairsSerializer(serializers.Serializer):
    model = serializers.CharField(allow_null=True, help_text="key of the reward head that says so; null: none reads what is encoded")
    pairs = UncertainPairSerializer(many=True)
