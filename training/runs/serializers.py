from typing import Any

from rest_framework import serializers

from labeling.web.api import StrictSerializer, Text
from training.registry.serializers import ModelReferenceSerializer
from training.runs.models import Run, RunEvent

MAX_PROMPTS = 100_000


class RunInputsSerializer(StrictSerializer):
    prompt_ids = serializers.ListField(child=Text(max_length=20), max_length=MAX_PROMPTS, required=False)
    tags = serializers.ListField(child=Text(max_length=60), max_length=50, required=False)


class NewRunSerializer(StrictSerializer):
    kind = Text(max_length=20, help_text="a recipe: sample, reward_head, reward, dpo, ...")
    spec = serializers.DictField(default=dict, help_text="options of the recipe; an unknown one is refused by name")
    snapshot = Text(max_length=20, required=False, allow_null=True, help_text="id of a snapshot of the project")
    model = Text(max_length=120, required=False, allow_null=True, help_text="id or key of the model to start from")
    inputs = RunInputsSerializer(required=False, help_text="of a sample run; left out: all prompts")


class RunSerializer(serializers.Serializer):
    id = serializers.CharField(source="pk")
    project = serializers.CharField(source="project.slug")
    kind = serializers.CharField()
    state = serializers.CharField(help_text=", ".join(Run.State.values))
    spec = serializers.DictField()
    snapshot = serializers.CharField(source="snapshot_id", allow_null=True)
    model = ModelReferenceSerializer(allow_null=True)
    output_model = ModelReferenceSerializer(allow_null=True)
    progress = serializers.FloatField(help_text="share done, 0 to 1")
    status_text = serializers.CharField()
    error = serializers.CharField()
    attempts = serializers.IntegerField()
    result = serializers.DictField()
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    heartbeat_at = serializers.DateTimeField(allow_null=True)
    cancel_requested_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


class RunEventSerializer(serializers.Serializer):
    """One line of the run's events.jsonl. What the recipe wrote beside these stands next to them."""

    id = serializers.CharField(help_text="give the last one as ?after= for what came later")
    type = serializers.CharField()
    step = serializers.IntegerField(allow_null=True)
    at = serializers.DateTimeField()

    def to_representation(self, event: RunEvent) -> dict[str, Any]:
        at = self.fields["at"].to_representation(event.at)
        return {**event.payload, "id": str(event.number), "type": event.type, "step": event.step, "at": at}
