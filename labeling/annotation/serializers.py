from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from labeling.annotation.models import Judgement, Lease, Pool, PromptReport, Slot, Task
from labeling.annotation.pools import PoolFigures
from labeling.annotation.queue import MOST_PRIORITY
from labeling.annotation.selectors import shown_completions, shown_messages
from labeling.annotation.services import judgement_body
from labeling.annotation.services.pools import MOST_NAMED
from labeling.projects.serializers import MAX_OVERLAP, GuidelineSerializer
from labeling.projects.services import pseudonym_of
from labeling.projects.text import ROLES
from labeling.web.api import StrictSerializer, Text, Whole

TASK_KINDS = ("ranking", "pairwise")
SHOWN_KINDS = (*TASK_KINDS, Task.CONVERSATION)
MAX_PROMPTS = 10_000
MAX_HOLDING = 100
MAX_TASKS = 10_000
_MOMENT = serializers.DateTimeField()


class AssignmentFields(StrictSerializer):
    """Who may be given tasks, and how soon."""

    pool = Text(max_length=20, allow_null=True, required=False, help_text="id of a pool of the project; null: everyone")
    people = serializers.ListField(
        child=Text(max_length=150), min_length=1, max_length=MOST_NAMED, required=False,
        help_text="instead of pool: usernames of members, for whom alone the tasks are",
    )  # fmt: skip
    priority = Whole(
        min_value=-MOST_PRIORITY, max_value=MOST_PRIORITY, required=False, help_text="higher first; 0 is usual"
    )


class NewTasksSerializer(AssignmentFields):
    kind = serializers.ChoiceField(TASK_KINDS, default="ranking")
    overlap = Whole(
        min_value=1, max_value=MAX_OVERLAP, required=False, help_text="judgements a task; default: the project's"
    )
    completions_per_task = Whole(
        min_value=0, max_value=9, default=4,
        help_text="1: a task for each completion; 0: annotators write from nothing, where the form asks for that alone",
    )  # fmt: skip
    prompts = serializers.ListField(
        child=Text(max_length=120), min_length=1, max_length=MAX_PROMPTS, required=False,
        help_text="ids of prompts, given at the import or by this site; default: all that have no task",
    )  # fmt: skip


class TaskSerializer(serializers.Serializer):
    """A task as those see it who bring tasks in; annotators are given `ShownTaskSerializer`."""

    id = serializers.CharField(source="public_id")
    kind = serializers.CharField()
    purpose = serializers.ChoiceField([choice for choice in Task.Purpose.choices if choice[0] in Task.COLLECTED])
    prompt = serializers.CharField(source="prompt_id")
    state = serializers.ChoiceField(Task.State.choices)
    overlap = serializers.IntegerField(help_text="judgements wanted")
    n_judged = serializers.IntegerField()
    pool = serializers.CharField(source="pool_id", allow_null=True, help_text="null: everyone")
    priority = serializers.IntegerField()
    iteration = serializers.IntegerField()
    created_at = serializers.DateTimeField()


class TasksWhere(StrictSerializer):
    """Tasks by what is known of them; what is left out doesn't matter."""

    state = serializers.ChoiceField(Task.State.choices, required=False)
    pool = Text(max_length=20, required=False, allow_null=True, help_text="id of a pool; null: those for everyone")
    tag = Text(max_length=60, required=False, help_text="of the prompt")
    iteration = Whole(min_value=0, max_value=2**31 - 1, required=False)
    batch = Text(max_length=20, required=False, help_text="id of the import that brought the prompt")


class AssignSerializer(AssignmentFields):
    tasks = serializers.ListField(
        child=Text(max_length=32), min_length=1, max_length=MAX_TASKS, required=False, help_text="ids of tasks"
    )
    where = TasksWhere(required=False, help_text="instead of tasks; state is open unless given")


class PoolSerializer(serializers.Serializer):
    id = serializers.CharField(source="pk")
    name = serializers.CharField()
    languages = serializers.ListField(child=serializers.CharField(), help_text="all of them are needed")
    skills = serializers.ListField(child=serializers.CharField(), help_text="all of them are needed")
    people = serializers.SerializerMethodField()
    n_people = serializers.SerializerMethodField(help_text="members at work who fit")
    n_open_tasks = serializers.SerializerMethodField()
    warning = serializers.SerializerMethodField(help_text="such as that nobody can be given its tasks; else empty")
    created_at = serializers.DateTimeField()

    @extend_schema_field(serializers.ListField(child=serializers.CharField(), allow_null=True))
    def get_people(self, pool: Pool) -> list[str] | None:
        """Usernames; null where languages and skills decide."""
        return sorted(person.username for person in pool.people.all()) if pool.is_named else None

    def get_n_people(self, pool: Pool) -> int:
        return self._figures(pool).n_people

    def get_n_open_tasks(self, pool: Pool) -> int:
        return self._figures(pool).n_open

    def get_warning(self, pool: Pool) -> str:
        return self._figures(pool).warning

    def _figures(self, pool: Pool) -> PoolFigures:
        return self.context["figures"].get(pool.pk, PoolFigures(0))


class TasksMadeSerializer(serializers.Serializer):
    created = serializers.IntegerField()
    prompts_without_enough_completions = serializers.IntegerField()
    pool = PoolSerializer(required=False, help_text="where they were given to one")


class AssignedSerializer(serializers.Serializer):
    matched = serializers.IntegerField(help_text="tasks")
    changed = serializers.IntegerField(help_text="those of them that weren't so already")
    pool = PoolSerializer(allow_null=True, help_text="where they were given to one")


class HoldingSerializer(StrictSerializer):
    holding = serializers.ListField(
        child=Text(max_length=40), max_length=MAX_HOLDING, required=False, default=list,
        help_text="ids of leases that you have already: the answer is another one",
    )  # fmt: skip


class MessageSerializer(serializers.Serializer):
    role = serializers.CharField(help_text=", ".join(ROLES))
    content = serializers.CharField()


class ShownCompletionSerializer(serializers.Serializer):
    key = serializers.CharField(help_text="a, b, ... in the order shown")
    content = serializers.CharField()


class ShownTaskSerializer(serializers.Serializer):
    id = serializers.CharField()
    kind = serializers.ChoiceField(SHOWN_KINDS)
    prompt = MessageSerializer(many=True)
    completions = ShownCompletionSerializer(many=True)
    form = serializers.DictField()


class LeaseSerializer(serializers.Serializer):
    """What an annotator may know of a task. Nothing here says who wrote a completion or what the task is for."""

    id = serializers.CharField()
    expires_at = serializers.DateTimeField()
    task = ShownTaskSerializer()
    guideline = GuidelineSerializer(allow_null=True)
    draft = serializers.DictField(allow_null=True)

    def to_representation(self, lease: Lease) -> dict[str, Any]:
        # Written out, as it is sent with every judgement: the fields above are for the schema.
        task, guideline = lease.task, lease.guideline
        return {
            "id": str(lease.pk),
            "expires_at": _MOMENT.to_representation(lease.expires_at),
            "task": {
                "id": task.public_id,
                "kind": task.kind,
                "prompt": [{"role": turn["role"], "content": turn["content"]} for turn in shown_messages(lease)],
                "completions": [{"key": shown.key, "content": shown.content} for shown in shown_completions(lease)],
                "form": task.project.form,
            },
            "guideline": {"version": guideline.version, "markdown": guideline.markdown} if guideline else None,
            "draft": lease.draft,
        }


class RenewedSerializer(serializers.Serializer):
    expires_at = serializers.DateTimeField()


class SkipSerializer(StrictSerializer):
    reason = Text(
        max_length=300, allow_blank=True, default="",
        help_text=f"one of {', '.join(Lease.SkipReason.values)}; anything else is kept as a note",
    )  # fmt: skip
    note = Text(max_length=300, allow_blank=True, default="")


class ReportSerializer(StrictSerializer):
    reason = serializers.ChoiceField(PromptReport.Reason.values)
    note = Text(max_length=2000, allow_blank=True, default="")


class MarkSerializer(serializers.Serializer):
    start = serializers.IntegerField(min_value=0, help_text="first character marked, counted in code points from 0")
    end = serializers.IntegerField(min_value=1, help_text="first character no longer marked")
    label = serializers.CharField(help_text="one of the form's marks")
    comment = serializers.CharField(required=False)


class JudgementBodySerializer(serializers.Serializer):
    """The shape for the schema; `check_answer` holds it against the project's form."""

    ranking = serializers.ListField(
        child=serializers.ListField(child=serializers.CharField()), required=False,
        help_text="keys, best first; ties share an inner list; every completion exactly once",
    )  # fmt: skip
    strength = serializers.IntegerField(min_value=1, max_value=3, required=False)
    ratings = serializers.DictField(child=serializers.DictField(child=serializers.IntegerField()), required=False)
    acceptable = serializers.DictField(child=serializers.BooleanField(), required=False)
    flags = serializers.DictField(child=serializers.ListField(child=serializers.CharField()), required=False)
    corrections = serializers.DictField(child=serializers.CharField(), required=False)
    marks = serializers.DictField(child=MarkSerializer(many=True), required=False, help_text="spans of completions")
    demonstration = serializers.CharField(required=False, help_text="a completion written from nothing")
    none_acceptable = serializers.BooleanField(required=False)
    rationale = serializers.CharField(required=False)
    seconds = serializers.FloatField(min_value=0, max_value=86400, required=False)


class JudgementSerializer(serializers.Serializer):
    id = serializers.CharField()
    task = serializers.CharField()
    lease = serializers.CharField()
    annotator = serializers.CharField(help_text="the pseudonym of exports")
    annotator_kind = serializers.CharField()
    guideline_version = serializers.IntegerField(allow_null=True)
    judgement = JudgementBodySerializer()
    surplus = serializers.BooleanField(help_text="came after its place was given away; counted apart")
    supersedes = serializers.CharField(allow_null=True, help_text="the judgement that this one revises")
    created_at = serializers.DateTimeField()

    def to_representation(self, judgement: Judgement) -> dict[str, Any]:
        # Written out: the body is what was sent, and must not gain or lose a part on the way.
        return {
            "id": str(judgement.pk),
            "task": judgement.task.public_id,
            "lease": str(judgement.lease_id),
            "annotator": pseudonym_of(judgement.project, judgement.annotator),
            "annotator_kind": judgement.annotator_kind,
            "guideline_version": judgement.guideline.version if judgement.guideline else None,
            "judgement": judgement_body(judgement),
            "surplus": judgement.is_surplus,
            "supersedes": str(judgement.supersedes_id) if judgement.supersedes_id else None,
            "created_at": _MOMENT.to_representation(judgement.created_at),
        }


class ListedJudgementSerializer(JudgementSerializer):
    set_aside = serializers.BooleanField(help_text="does not count any more; another judgement was asked for")

    def to_representation(self, judgement: Judgement) -> dict[str, Any]:
        shown = super().to_representation(judgement)
        return shown | {"set_aside": judgement.slot is not None and judgement.slot.state == Slot.State.VOID}


class ComparedSerializer(serializers.Serializer):
    asked = serializers.CharField()
    said = serializers.CharField()
    expected = serializers.CharField()
    is_right = serializers.BooleanField()


class FeedbackSerializer(serializers.Serializer):
    is_right = serializers.BooleanField()
    score = serializers.FloatField()
    compared = ComparedSerializer(many=True)
    explanation = serializers.CharField()
    number = serializers.IntegerField(help_text="of this answer in the round, from 1")
    n = serializers.IntegerField(help_text="answers in the round")
    n_right = serializers.IntegerField(help_text="so far")
    outcome = serializers.ChoiceField(["going on", "passed", "failed"])


class SubmittedSerializer(JudgementSerializer):
    feedback = FeedbackSerializer(required=False, help_text="there while the caller is qualifying")
    next_lease = LeaseSerializer(allow_null=True, required=False, help_text="there with ?next=1")
