from rest_framework import serializers

from labeling.web.api import StrictSerializer, Text


class NewSnapshotSerializer(StrictSerializer):
    name = Text(max_length=120, allow_blank=True, default="")
    filters = serializers.DictField(
        default=dict, help_text="iterations, annotator_kinds, purposes, up_to_judgement, up_to_adjudication; left out: everything"
    )
    policy = serializers.DictField(
        default=dict,
        help_text="what the trainer sees: ties (drop or keep), pairs (all or extremes), corrections (include or "
        "leave_out), adjudications (use or ignore), margins",
    )


class SnapshotSerializer(serializers.Serializer):
    id = serializers.CharField(source="pk")
    project = serializers.CharField(source="project.slug")
    number = serializers.IntegerField()
    name = serializers.CharField()
    content_hash = serializers.CharField(help_text="SHA-256 of the canonical rows")
    filters = serializers.DictField()
    policy = serializers.DictField()
    n_judgements = serializers.IntegerField()
    n_pairs = serializers.IntegerField()
    created_at = serializers.DateTimeField()


class SnapshotDetailSerializer(SnapshotSerializer):
    manifest = serializers.DictField()
