"""What reviewers settled, settling by a program, and what models think of people's order."""

from typing import Any

from django.db.models import Prefetch
from django.http import Http404
from rest_framework import serializers
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from labeling.accounts.models import ApiToken
from labeling.accounts.roles import READING, REVIEWING, TRAINING
from labeling.annotation.errors import KeyReused
from labeling.annotation.models import Task, TaskCompletion
from labeling.annotation.serializers import MessageSerializer
from labeling.projects.api_access import ApiView, key_of
from labeling.projects.selectors import membership_of
from labeling.projects.services import pseudonym_of
from labeling.quality.adjudication import tasks_to_settle
from labeling.quality.errors import AlreadyAdjudicated, BadOutcome
from labeling.quality.models import Adjudication
from labeling.quality.services import MAX_NOTE, MAX_RATIONALE, Belief, adjudicate, record_contradictions
from labeling.web.api import (
    PAGE_PARAMETERS,
    Flag,
    Number,
    Refused,
    StrictSerializer,
    Text,
    describe,
    header,
    page_of,
    wrong_fields,
)

MAX_TASKS = 1000
MAX_PAIRS = 36  # of nine completions
ID = {"max_length": 40}


class CompletionOfTaskSerializer(serializers.Serializer):
    id = serializers.CharField()
    content = serializers.CharField()


class AdjudicationSerializer(serializers.Serializer):
    id = serializers.CharField()
    task = serializers.CharField()
    completions = CompletionOfTaskSerializer(many=True)
    outcome = serializers.ChoiceField(Adjudication.Outcome.choices)
    ranking = serializers.ListField(
        child=serializers.ListField(child=serializers.CharField()),
        help_text="ids of completions, best first; ties share an inner list; empty for another outcome",
    )
    none_acceptable = serializers.BooleanField()
    rationale = serializers.CharField(allow_blank=True)
    by = serializers.CharField(help_text="the reviewer: the pseudonym of exports")
    blind = serializers.BooleanField(help_text="a ranking was said before the votes were shown; false over REST")
    votes_seen_at = serializers.DateTimeField(allow_null=True)
    becomes_gold = serializers.BooleanField()
    note_to_guideline = serializers.CharField(allow_blank=True)
    note_settled_at = serializers.DateTimeField(allow_null=True)
    supersedes = serializers.CharField(allow_null=True)
    created_at = serializers.DateTimeField()

    def to_representation(self, row: Adjudication) -> dict[str, Any]:
        same = (
            "outcome",
            "none_acceptable",
            "rationale",
            "blind",
            "votes_seen_at",
            "becomes_gold",
            "note_to_guideline",
        )
        return super().to_representation(
            {
                **{name: getattr(row, name) for name in (*same, "note_settled_at", "created_at")},
                "id": str(row.pk),
                "task": row.task.public_id,
                "completions": _completions(row.task),
                "ranking": [[str(pk) for pk in group] for group in row.ranking],
                "by": pseudonym_of(row.project, row.by),
                "supersedes": str(row.supersedes_id) if row.supersedes_id else None,
            }
        )


class TaskToSettleSerializer(serializers.Serializer):
    id = serializers.CharField()
    prompt = MessageSerializer(many=True)
    completions = CompletionOfTaskSerializer(many=True)
    adjudication = AdjudicationSerializer(
        allow_null=True, help_text="what stands; name it in `supersedes` to replace it"
    )


class OutcomeSerializer(StrictSerializer):
    outcome = serializers.ChoiceField(Adjudication.Outcome.choices)
    ranking = serializers.ListField(
        child=serializers.ListField(child=Text(**ID), min_length=1, max_length=9), max_length=9, required=False,
        default=list, help_text="ids of completions, best first, ties in one inner list; with the outcome ranking",
    )  # fmt: skip
    none_acceptable = Flag(default=False)
    rationale = Text(max_length=MAX_RATIONALE, allow_blank=True, default="")
    becomes_gold = Flag(default=False)
    note_to_guideline = Text(max_length=MAX_NOTE, allow_blank=True, default="")
    supersedes = Text(**ID, required=False, help_text="id of the adjudication that stands, to replace it")


class PairBeliefSerializer(StrictSerializer):
    better = Text(**ID)
    worse = Text(**ID)
    probability = Number(min_value=0, max_value=1, help_text="that this order is right")


class TaskBeliefSerializer(StrictSerializer):
    task = Text(**ID)
    pairs = serializers.ListField(child=PairBeliefSerializer(), min_length=1, max_length=MAX_PAIRS)


class ContradictionsSerializer(StrictSerializer):
    model_key = Text(max_length=120)
    calibrated = Flag(
        help_text="its probabilities were held against held-out judgements; only then do tasks enter the queue"
    )
    tasks = serializers.ListField(child=TaskBeliefSerializer(), min_length=1, max_length=MAX_TASKS)


class RecordedSerializer(serializers.Serializer):
    recorded = serializers.IntegerField(help_text="tasks")
    queued = serializers.IntegerField(help_text="those of them that wait for a reviewer now")


class AdjudicationsView(ApiView):
    @describe(
        "list_adjudications", tag="annotation", answers={200: page_of(AdjudicationSerializer)}, errors=[404],
        parameters=PAGE_PARAMETERS,
    )  # fmt: skip
    def get(self, request: Request, slug: str) -> Response:
        """What reviewers settled, newest first; what was superseded is left out."""
        project = self.project(slug, READING)
        found = Adjudication.objects.filter(project=project, superseded_by=None)
        found = found.select_related("task", "by", "project").prefetch_related(_with_completions("task__"))
        return self.page(found, AdjudicationSerializer)


class AdjudicationView(ApiView):
    scope = ApiToken.Scope.ANNOTATE

    @describe("get_task_to_settle", tag="annotation", answers={200: TaskToSettleSerializer}, errors=[404])
    def get(self, request: Request, task_id: str) -> Response:
        """A task with the ids of its completions, without the votes, and what stands of it."""
        task = self._task(task_id)
        standing = Adjudication.objects.filter(task=task, superseded_by=None).select_related("by", "project").first()
        if standing:
            standing.task = task
        return Response(
            {
                "id": task.public_id,
                "prompt": MessageSerializer(task.prompt.messages, many=True).data,
                "completions": _completions(task),
                "adjudication": AdjudicationSerializer(standing).data if standing else None,
            }
        )

    @describe(
        "adjudicate", tag="annotation", body=OutcomeSerializer,
        parameters=[header("Idempotency-Key", "the same key again changes nothing; left out, the same body does", required=False)],
        answers={200: AdjudicationSerializer, 201: AdjudicationSerializer}, errors=[404, 409],
    )  # fmt: skip
    def post(self, request: Request, task_id: str) -> Response:
        """Settle a task. 409 `already_adjudicated` where another outcome stands that `supersedes` doesn't name."""
        task = self._task(task_id)
        body = self.parsed(OutcomeSerializer)
        key = key_of(request, f"rest:{task.pk}")
        body["ranking"] = [[_number(id, "ranking") for id in group] for group in body["ranking"]]
        supersedes = body.pop("supersedes", None)
        try:
            done = adjudicate(
                task=task, by=request.user, submission_key=key,
                supersedes=_number(supersedes, "supersedes") if supersedes else None, **body,
            )  # fmt: skip
        except BadOutcome as error:
            raise wrong_fields(error.fields) from None
        except (AlreadyAdjudicated, KeyReused) as error:
            raise Refused(error.code, str(error), status=409) from None
        return Response(AdjudicationSerializer(done.adjudication).data, status=201 if done.is_new else 200)

    def _task(self, task_id: str) -> Task:
        found = Task.objects.filter(project__in=self.projects(), public_id=task_id)
        task = found.select_related("project", "prompt").prefetch_related(_with_completions()).first()
        if task is None:
            raise Http404
        member = membership_of(self.request.user, task.project)
        if member is None or member.role not in REVIEWING:
            raise PermissionDenied("This needs a reviewer or a lead")
        # Only now: to an annotator, a gold task must answer like any other.
        if not tasks_to_settle(task.project, self.request.user, member.role).filter(pk=task.pk).exists():
            raise Http404
        return task


class ContradictionsView(ApiView):
    @describe(
        "record_contradictions", tag="annotation", body=ContradictionsSerializer, answers={201: RecordedSerializer},
        errors=[404],
    )  # fmt: skip
    def post(self, request: Request, slug: str) -> Response:
        """Say what a model thinks of the order of tasks' completions.

        A task comes before reviewers where a calibrated model is at least 0.9 sure that a confident majority of people
        has a pair the wrong way round. Sent again, the newest of a model counts.
        """
        project = self.project(slug, TRAINING)
        body = self.parsed(ContradictionsSerializer)
        wanted = [row["task"] for row in body["tasks"]]
        ids = dict(Task.objects.filter(project=project, public_id__in=wanted).values_list("public_id", "pk"))
        if unknown := [id for id in wanted if id not in ids]:
            raise wrong_fields({"tasks": f"not a task of this project: {', '.join(unknown[:5])}"})
        beliefs = [
            Belief(
                ids[row["task"]],
                [(_number(pair["better"], "tasks"), _number(pair["worse"], "tasks"), pair["probability"]) for pair in row["pairs"]],
            )
            for row in body["tasks"]
        ]  # fmt: skip
        try:
            recorded, queued = record_contradictions(
                project=project, model_key=body["model_key"], is_calibrated=body["calibrated"], beliefs=beliefs
            )
        except BadOutcome as error:
            raise wrong_fields(error.fields) from None
        return Response({"recorded": recorded, "queued": queued}, status=201)


def _with_completions(before: str = "") -> Prefetch:
    rows = TaskCompletion.objects.select_related("completion").order_by("completion")
    return Prefetch(f"{before}task_completions", rows)


def _completions(task: Task) -> list[dict[str, str]]:
    return [{"id": str(row.completion_id), "content": row.completion.content} for row in task.task_completions.all()]


def _number(id: str, field: str) -> int:
    if not (id.isascii() and id.isdigit() and len(id) < 19):
        raise wrong_fields({field: f"{id!r} is no id of this site"})
    return int(id)
