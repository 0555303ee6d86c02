from typing import Any

from rest_framework import serializers

from labeling.web.api import Flag, StrictSerializer, Text
from training.registry.models import ModelImport, ModelVersion, StageChange


class WantedTermsSerializer(StrictSerializer):
    licence_url = serializers.URLField(max_length=300, allow_blank=True, default="", help_text="where the terms can be read")
    fee_due = Flag(default=False, help_text="using it costs a fee, or does so in some cases")
    acceptance_due = Flag(default=False, help_text="its maker asks that somebody accepts the terms first")
    output_restrictions = Text(max_length=4000, allow_blank=True, default="", help_text="what may not be done with its completions")


class NewTermsSerializer(WantedTermsSerializer):
    licence = Text(max_length=80)


class NewModelSerializer(WantedTermsSerializer):
    name = serializers.RegexField(r"^[a-z0-9][a-z0-9._-]{0,99}\Z", help_text="small letters, digits, . _ -")
    folder = serializers.RegexField(
        r"^models/[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*\Z", max_length=300,
        help_text="on the server, below PREFLOOP_HOME: models/...",
    )  # fmt: skip
    licence = Text(max_length=80)
    source = Text(max_length=200, allow_blank=True, default="")


class NewImportedModelSerializer(WantedTermsSerializer):
    folder = Text(max_length=500, help_text="on the server, below a folder that the operator allows")
    name = serializers.RegexField(r"^[a-z0-9][a-z0-9._-]{0,99}\Z", help_text="small letters, digits, . _ -")
    kind = serializers.ChoiceField(
        [choice for choice in ModelVersion.Kind.choices if choice[0] != ModelVersion.Kind.GGUF],
        help_text="base: operators alone, for all projects",
    )
    licence = Text(max_length=80)
    base = Text(max_length=120, required=False, allow_null=True, help_text="of an adapter: id or key of its base model")
    source = Text(max_length=200, allow_blank=True, default="")
    plain_template = Flag(default=False, help_text="give it a plain chat template where it has none")


class NewUploadedModelSerializer(NewImportedModelSerializer):
    folder = None  # it is in the body


class StageSerializer(StrictSerializer):
    stage = serializers.ChoiceField(ModelVersion.Stage.choices)
    reason = Text(max_length=2000)


class ModelReferenceSerializer(serializers.Serializer):
    id = serializers.CharField(source="pk")
    key = serializers.CharField()
    kind = serializers.CharField(help_text="base, policy, reward or gguf")


class TermsSerializer(serializers.Serializer):
    licence = serializers.CharField()
    licence_url = serializers.CharField()
    fee_due = serializers.BooleanField()
    acceptance_due = serializers.BooleanField()
    output_restrictions = serializers.CharField()


class AcceptTermsSerializer(StrictSerializer):
    terms_hash = serializers.RegexField(r"^[0-9a-f]{64}\Z", help_text="of the terms that were read")


class AcceptanceSerializer(serializers.Serializer):
    accepted_by = serializers.CharField(source="accepted_by.username", default=None, allow_null=True)
    accepted_at = serializers.DateTimeField()
    terms_hash = serializers.CharField()


class AskedTermsSerializer(serializers.Serializer):
    model = ModelReferenceSerializer(help_text="whose terms they are")
    terms = TermsSerializer(source="model", help_text="as they are now")
    terms_hash = serializers.CharField(help_text="SHA-256 of these terms: what is sent to accept them")
    accepted = AcceptanceSerializer(allow_null=True, help_text="null: no run starts until a lead accepts them")
    earlier = AcceptanceSerializer(many=True, help_text="of terms no longer in force")


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
    terms = TermsSerializer(source="terms_of", help_text="its own, else those of its base model")
    source = serializers.CharField()
    metrics = serializers.DictField()
    created_at = serializers.DateTimeField()

    def get_project(self, model: ModelVersion) -> str | None:
        return model.project.slug if model.project else None


class StageChangeSerializer(serializers.Serializer):
    from_stage = serializers.CharField()
    to_stage = serializers.CharField()
    reason = serializers.CharField()
    created_by = serializers.SerializerMethodField(help_text="who moved it; null: the site itself, or an operator")
    created_at = serializers.DateTimeField()

    def get_created_by(self, change: StageChange) -> str | None:
        # A base model is for all projects: its operators' names are none of theirs.
        return change.created_by.username if change.created_by and change.model.project_id else None


class ProjectStageChangeSerializer(StageChangeSerializer):
    id = serializers.CharField(source="pk")
    model = ModelReferenceSerializer()


class CheckedFileSerializer(serializers.Serializer):
    name = serializers.CharField(help_text="of a file in the model's folder")
    sha256 = serializers.CharField(help_text="of what is there now; empty: it is missing, or was not entered")
    problem = serializers.CharField(help_text="empty: as it was entered")


class ModelVerificationSerializer(serializers.Serializer):
    ok = serializers.BooleanField()
    checked = CheckedFileSerializer(many=True)


class LineageNodeSerializer(serializers.Serializer):
    id = serializers.CharField(help_text="kind and number or name, such as model:12")
    kind = serializers.CharField(help_text="licence, iteration, snapshot, run or model")
    label = serializers.CharField()
    note = serializers.CharField()
    n_hidden = serializers.IntegerField(help_text="that follow from it and are not among the nodes: ask with open=")


class LineageEdgeSerializer(serializers.Serializer):
    source = serializers.CharField()
    target = serializers.CharField(help_text="what was made of the source, or holds it")


class LineageGraphSerializer(serializers.Serializer):
    nodes = LineageNodeSerializer(many=True)
    edges = LineageEdgeSerializer(many=True)
    is_cut = serializers.BooleanField(help_text="more leads here or follows than one answer holds")


class WithdrawnRowsSerializer(serializers.Serializer):
    snapshot = serializers.CharField(help_text="its id")
    held = serializers.CharField(help_text="how much of it was withdrawn since, in words")


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
    withdrawn = WithdrawnRowsSerializer(many=True, help_text="snapshots behind it that hold rows withdrawn since")
    made_by = serializers.DictField(help_text="run, configuration, code and library versions")


class ModelDetailSerializer(ModelSerializer):
    files = serializers.DictField(help_text="SHA-256 of each file")
    stage_changes = StageChangeSerializer(many=True)
    lineage = LineageSerializer()

    def to_representation(self, model: ModelVersion) -> dict[str, Any]:
        shown = ModelSerializer(model).data
        shown["files"] = model.files
        shown["stage_changes"] = StageChangeSerializer(model.stage_changes.select_related("created_by", "model").order_by("pk"), many=True).data
        shown["lineage"] = LineageSerializer(self.context["lineage"]).data
        return shown


class ModelImportSerializer(serializers.Serializer):
    id = serializers.CharField(source="pk")
    state = serializers.ChoiceField(ModelImport.State.choices)
    status_text = serializers.CharField()
    share = serializers.FloatField(help_text="of the bytes that are done, 0 to 1")
    problem = serializers.CharField(help_text="why it was refused")
    name = serializers.CharField(source="wanted.name")
    kind = serializers.CharField(source="wanted.kind")
    filename = serializers.CharField(help_text="of the archive that was sent; empty: a folder of the server")
    sha256 = serializers.CharField(help_text="of the archive")
    model = ModelReferenceSerializer(allow_null=True, help_text="what it became")
    mended = serializers.SerializerMethodField()
    left_behind = serializers.SerializerMethodField()
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)

    def get_mended(self, job: ModelImport) -> list[str]:
        return job.model.lineage.get("mended", []) if job.model else []

    def get_left_behind(self, job: ModelImport) -> list[str]:
        return job.model.lineage.get("left_behind", []) if job.model else []
