from rest_framework import serializers

from labeling.quality.serializers import FigureSerializer
from labeling.web.api import StrictSerializer, Text
from training.loop.models import Iteration
from training.registry.serializers import ModelReferenceSerializer


class NewIterationSerializer(StrictSerializer):
    policy_before = Text(max_length=120, help_text="id or key of the policy, or base model, to begin with")
    config = serializers.DictField(default=dict, help_text="quota, completions_per_task, train_tag, ...")


class IterationRunsSerializer(serializers.Serializer):
    sample = serializers.CharField(source="sample_run_id", allow_null=True)
    reward = serializers.CharField(source="reward_run_id", allow_null=True)
    policy = serializers.CharField(source="policy_run_id", allow_null=True)
    resample = serializers.CharField(source="resample_run_id", allow_null=True)
    baseline = serializers.CharField(source="baseline_run_id", allow_null=True)


class IterationSerializer(serializers.Serializer):
    id = serializers.CharField(source="pk")
    project = serializers.CharField(source="project.slug")
    number = serializers.IntegerField()
    stage = serializers.CharField(help_text=", ".join(Iteration.Stage.values))
    config = serializers.DictField()
    policy_before = ModelReferenceSerializer()
    policy_after = ModelReferenceSerializer(allow_null=True)
    reward_model = ModelReferenceSerializer(allow_null=True)
    snapshot = serializers.CharField(source="snapshot_id", allow_null=True)
    runs = IterationRunsSerializer(source="*", help_text="ids")
    error = serializers.CharField()
    created_at = serializers.DateTimeField()
    stage_since = serializers.DateTimeField()


class StageEntrySerializer(serializers.Serializer):
    stage = serializers.CharField()
    at = serializers.CharField()


class CollectedSerializer(serializers.Serializer):
    n_tasks = serializers.IntegerField()
    n_slots = serializers.IntegerField()
    n_done = serializers.IntegerField()


class IterationDetailSerializer(IterationSerializer):
    stage_log = StageEntrySerializer(many=True)
    collected = CollectedSerializer()
    win_rate = FigureSerializer(help_text="of the new policy over the old, in the comparison tasks")
