from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from labeling.accounts.models import User
from labeling.preferences.models import Freeze, Snapshot, Withdrawal
from labeling.projects.services import pseudonym_of
from labeling.web.api import Flag, StrictSerializer, Text


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


class HeldSerializer(serializers.Serializer):
    n_judgements = serializers.IntegerField()
    n_by_people = serializers.IntegerField(help_text="judgements of people who withdrew")
    n_people = serializers.IntegerField()
    n_on_prompts = serializers.IntegerField(help_text="judgements of others on prompts that were removed")
    n_prompts = serializers.IntegerField()
    n_on_texts = serializers.IntegerField(help_text="judgements of others on texts written by people who withdrew")


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
    withdrawn = serializers.SerializerMethodField(help_text="rows that it holds and that were withdrawn since; null: none")

    @extend_schema_field(HeldSerializer(allow_null=True))
    def get_withdrawn(self, snapshot: Snapshot) -> dict[str, Any] | None:
        held = self.context["withdrawn"].get(snapshot.pk)
        return HeldSerializer(held).data if held else None


class SnapshotDetailSerializer(SnapshotSerializer):
    manifest = serializers.DictField()


class PreviewSplitSerializer(serializers.Serializer):
    groups = serializers.IntegerField(help_text="prompt groups")
    judgements = serializers.IntegerField()
    pairs = serializers.IntegerField(allow_null=True)


class PreviewSplitsSerializer(serializers.Serializer):
    train = PreviewSplitSerializer()
    eval = PreviewSplitSerializer()


class PreviewKindSerializer(serializers.Serializer):
    kind = serializers.ChoiceField(User.Kind.choices)
    judgements = serializers.IntegerField()
    annotators = serializers.IntegerField()


class PreviewPartSerializer(serializers.Serializer):
    part = serializers.CharField(help_text="what the judgements say: rank, correct, ...")
    judgements = serializers.IntegerField()


class LeftOutSerializer(serializers.Serializer):
    filter = serializers.CharField()
    judgements = serializers.IntegerField(help_text="how many more would pass without it alone")
    pairs = serializers.IntegerField(allow_null=True, help_text="pairs, of filters that leave out no judgement")


class LeftOutAnnotatorSerializer(serializers.Serializer):
    annotator = serializers.CharField(help_text="pseudonym")
    by = serializers.CharField(help_text="the filter: min_reliability or gold")
    value = serializers.FloatField(allow_null=True)
    n = serializers.IntegerField(allow_null=True)


class SnapshotPreviewSerializer(serializers.Serializer):
    judgements = serializers.IntegerField()
    tasks = serializers.IntegerField()
    prompts = serializers.IntegerField()
    pairs = serializers.IntegerField(allow_null=True, help_text="null in a large project: counted when it is frozen")
    splits = PreviewSplitsSerializer()
    kinds = PreviewKindSerializer(many=True)
    holding = PreviewPartSerializer(many=True)
    unfit = serializers.IntegerField(help_text="tasks left out since a reviewer found them unfit")
    withdrawn = serializers.IntegerField(help_text="judgements that no filter lets in, since they were withdrawn")
    left_out = LeftOutSerializer(many=True)
    left_out_annotators = LeftOutAnnotatorSerializer(many=True)


class WantedSerializer(StrictSerializer):
    filters = serializers.DictField(default=dict, help_text="as for freezing")
    policy = serializers.DictField(default=dict, help_text="as for freezing")


class FreezeSerializer(serializers.Serializer):
    id = serializers.CharField(source="pk")
    project = serializers.CharField(source="project.slug")
    name = serializers.CharField()
    state = serializers.ChoiceField(Freeze.State.choices)
    n_done = serializers.IntegerField(help_text="tasks")
    n_total = serializers.IntegerField(help_text="tasks; 0: not counted yet")
    snapshot = serializers.CharField(source="snapshot_id", allow_null=True, help_text="once it is done")
    problem = serializers.CharField(help_text="why it failed")
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)


class DiffSideSerializer(serializers.Serializer):
    id = serializers.CharField()
    number = serializers.IntegerField()
    content_hash = serializers.CharField()


class DiffSettingSerializer(serializers.Serializer):
    name = serializers.CharField()
    before = serializers.JSONField(allow_null=True)
    after = serializers.JSONField(allow_null=True)


class DiffPairsSerializer(serializers.Serializer):
    before = serializers.IntegerField()
    after = serializers.IntegerField()
    same = serializers.IntegerField(help_text="in both, with the same row")
    changed = serializers.IntegerField(help_text="in both, with another row: more votes, another weight")
    flipped = serializers.IntegerField(help_text="chosen and rejected have changed places")
    added = serializers.IntegerField()
    removed = serializers.IntegerField()


class DiffJudgementsSerializer(serializers.Serializer):
    before = serializers.IntegerField()
    after = serializers.IntegerField()
    added = serializers.IntegerField()
    removed = serializers.IntegerField()


class DiffPromptsSerializer(DiffJudgementsSerializer):
    to_eval = serializers.IntegerField(help_text="were in train")
    to_train = serializers.IntegerField(help_text="were in eval")


class DiffPairSerializer(serializers.Serializer):
    id = serializers.CharField()
    split = serializers.CharField()
    prompt = serializers.ListField(child=serializers.DictField())
    chosen = serializers.ListField(child=serializers.DictField())
    rejected = serializers.ListField(child=serializers.DictField())
    agreement = serializers.FloatField()
    n_votes = serializers.IntegerField()
    tie = serializers.BooleanField()


class DiffExamplesSerializer(serializers.Serializer):
    added = DiffPairSerializer(many=True, help_text="as they are after")
    removed = DiffPairSerializer(many=True, help_text="as they were before")
    flipped = DiffPairSerializer(many=True, help_text="as they were before")
    changed = DiffPairSerializer(many=True, help_text="as they are after")


class DiffMovedSerializer(serializers.Serializer):
    prompt = serializers.ListField(child=serializers.DictField())
    to = serializers.CharField(help_text="train or eval")


class DiffSerializer(serializers.Serializer):
    before = DiffSideSerializer()
    after = DiffSideSerializer()
    pairs = DiffPairsSerializer()
    judgements = DiffJudgementsSerializer()
    prompts = DiffPromptsSerializer()
    filters = DiffSettingSerializer(many=True, help_text="those that differ")
    policy = DiffSettingSerializer(many=True, help_text="those that differ")
    eval_share = serializers.ListField(child=serializers.FloatField(), help_text="before and after")
    examples = DiffExamplesSerializer(help_text="the first 20 of each kind")
    moved = DiffMovedSerializer(many=True, help_text="the first 20 prompts that are in the other split")


class CheckedSerializer(serializers.Serializer):
    name = serializers.CharField(help_text="a file, or what follows from all")
    sha256 = serializers.CharField(help_text="of what is there now; empty: it is missing")
    problem = serializers.CharField(help_text="empty: as it was frozen")


class VerificationSerializer(serializers.Serializer):
    ok = serializers.BooleanField()
    checked = CheckedSerializer(many=True)


class NewWithdrawalSerializer(StrictSerializer):
    annotator = Text(max_length=150, default="", help_text="username or pseudonym")
    prompt = Text(max_length=19, default="", help_text="id")
    reason = Text(max_length=2000, allow_blank=True, default="")
    dry_run = Flag(default=False, help_text="record nothing, only say what would be touched")


class WithdrawalSerializer(serializers.Serializer):
    id = serializers.CharField(source="pk", allow_null=True, help_text="null in a dry run")
    annotator = serializers.SerializerMethodField(help_text="pseudonym; null where it is a prompt's")
    prompt = serializers.CharField(source="prompt_id", allow_null=True)
    reason = serializers.CharField()
    by_themselves = serializers.SerializerMethodField(help_text="the person took their own judgements back")
    at = serializers.DateTimeField(allow_null=True)
    undone_at = serializers.DateTimeField(allow_null=True)

    def get_annotator(self, withdrawal: Withdrawal) -> str | None:
        return pseudonym_of(withdrawal.project, withdrawal.annotator) if withdrawal.annotator_id else None

    def get_by_themselves(self, withdrawal: Withdrawal) -> bool:
        return withdrawal.annotator_id is not None and withdrawal.annotator_id == withdrawal.by_id


class TouchedSerializer(serializers.Serializer):
    snapshot = serializers.CharField(source="snapshot.pk")
    number = serializers.IntegerField(source="snapshot.number")
    n_judgements = serializers.IntegerField()
    n_on_texts = serializers.IntegerField(help_text="judgements of others on texts that the person wrote")
    models = serializers.SerializerMethodField(help_text="keys of the models made of it, and of these")

    def get_models(self, touched: Any) -> list[str]:
        return [model.key for model in touched.models]


class WithdrawalDetailSerializer(WithdrawalSerializer):
    touched = serializers.SerializerMethodField(help_text="what held the rows before")

    @extend_schema_field(TouchedSerializer(many=True))
    def get_touched(self, withdrawal: Withdrawal) -> list[dict[str, Any]]:
        return TouchedSerializer(self.context["touched"], many=True).data


class NewConsentSerializer(StrictSerializer):
    consent = Flag(help_text="true: models may be trained on what you judge here; false: not from now on")
    reason = Text(max_length=2000, allow_blank=True, default="", help_text="for the leads, where you take it back")


class ConsentSerializer(serializers.Serializer):
    consent = serializers.BooleanField(allow_null=True, help_text="null: nothing said yet")
    at = serializers.DateTimeField(allow_null=True)
    by_a_lead = serializers.BooleanField(help_text="a lead took your judgements out of training")
