from typing import Any

from rest_framework import serializers

from labeling.web.api import StrictSerializer, Text
from training.registry.models import ModelVersion


class NewModelSerializer(StrictSerializer):
    name = serializers.RegexField(r"^[a-z0-9][a-z0-9._-]{0,99}\Z", help_text="small letters, digits, . _ -")
    folder = serializers.RegexField(
        r"^models/[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*\Z", max_length=300,
        help_text="on the server, below PREFLOOP_HOME: models/...",
    )  # fmt: skip
    licence = Text(max_length=80)
    source = Text(max_length=200, allow_blank=True, default="")


class StageSerializer(StrictSerializer):
    stage = serializers.ChoiceField(ModelVersion.Stage.choices)
    reason = Text(max_length=2000)


class ModelReferenceSerializer(serializers.Serializer):
    id = serializers.CharField(source="pk")
    key = serializers.CharField()
    kind = serializers.CharField(help_text="base, policy or reward")


class ModelSerializer(ModelReferenceSerializer):
    name = serializers.CharField()
    version = serializers.IntegerField()
    stage = serializers.ChoiceField(ModelVersion.Stage.choices)
    project = serializers.SerializerMethodField(help_text="null: for all projects")
    base = ModelReferenceSerializer(allow_null=True)
    parent = ModelReferenceSerializer(allow_null=True)
    snapshot = serializers.CharField(source="snapshot_id", allow_null=True)
    is_adapter = serializers.BooleanField()
    licence = serializers.CharField()
    source = serializers.CharField()
    metrics = serializers.DictField()
    created_at = serializers.DateTimeField()

    def get_project(self, model: ModelVersion) -> str | None:
        return model.project.slug if model.project else None


class StageChangeSerializer(serializers.Serializer):
    from_stage = serializers.CharField()
    to_stage = serializers.CharField()
    reason = serializers.CharField()
    created_at = serializers.DateTimeField()


class LineageSnapshotSerializer(serializers.Serializer):
    id = serializers.CharField(source="pk")
    number = serializers.IntegerField()
    content_hash = serializers.CharField()
    n_judgements = serializers.IntegerField()
    n_pairs = serializers.IntegerField()


class LineageSerializer(serializers.Serializer):
    ancestors = ModelReferenceSerializer(many=True, help_text="nearest first")
    descendants = ModelReferenceSerializer(many=True, help_text="those that the caller may see")
    snapshots = LineageSnapshotSerializer(many=True)
    licences = serializers.ListField(child=serializers.CharField())
    annotators_by_kind = serializers.DictField(
        child=serializers.IntegerField(), help_text="judgements behind the model, by kind of annotator"
    )
    made_by = serializers.DictField(help_text="run, configuration, code and library versions")


class ModelDetailSerializer(ModelSerializer):
    files = serializers.DictField(help_text="SHA-256 of each file")
    stage_changes = StageChangeSerializer(many=True)
    lineage = LineageSerializer()

    def to_representation(self, model: ModelVersion) -> dict[str, Any]:
        shown = ModelSerializer(model).data
        shown["files"] = model.files
        shown["stage_changes"] = StageChangeSerializer(model.stage_changes.order_by("pk"), many=True).data
        shown["lineage"] = LineageSerializer(self.context["lineage"]).data
        return shown
