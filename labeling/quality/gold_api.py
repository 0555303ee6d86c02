"""Gold tasks over REST, for those who steer and train: nobody who only judges may see one as such."""

from typing import Any

from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from labeling.accounts.roles import TRAINING
from labeling.annotation.models import Task
from labeling.annotation.selectors import KEYS
from labeling.projects.api_access import ApiView, number_of
from labeling.projects.models import Prompt
from labeling.quality.errors import BadGold
from labeling.quality.gold import results_by_task, unanimous_tasks
from labeling.quality.models import GoldAnswer
from labeling.quality.services import MAX_EXPLANATION, MAX_TEXT, change_gold, create_gold, promote_task, write_gold
from labeling.web.api import (
    PAGE_PARAMETERS,
    Flag,
    StrictSerializer,
    Text,
    describe,
    page_of,
    wrong_fields,
)


class NewGoldSerializer(StrictSerializer):
    task = Text(max_length=32, required=False, help_text="a task that three people or more ranked alike: promote it")
    prompt = Text(max_length=30, required=False, help_text="id of a prompt of the project")
    completions = serializers.ListField(
        child=Text(max_length=30), max_length=9, required=False, help_text="ids of its completions, to be keys a, b, ..."
    )
    text = Text(max_length=MAX_TEXT, required=False, help_text="instead of prompt: one written for it")
    texts = serializers.ListField(
        child=Text(max_length=MAX_TEXT), max_length=9, required=False, help_text="its completions, to be keys a, b, ..."
    )
    expected = serializers.DictField(
        required=False, help_text="parts of a judgement by keys: ranking, ratings, acceptable; a rating may be {value, within}"
    )
    explanation = Text(max_length=MAX_EXPLANATION, allow_blank=True, default="")


class GoldChangesSerializer(StrictSerializer):
    expected = serializers.DictField(required=False)
    explanation = Text(max_length=MAX_EXPLANATION, allow_blank=True, required=False)
    retired = Flag(required=False)


class GoldCompletionSerializer(serializers.Serializer):
    key = serializers.CharField()
    id = serializers.CharField()
    content = serializers.CharField()


class GoldSerializer(serializers.Serializer):
    id = serializers.CharField()
    prompt = serializers.CharField()
    completions = GoldCompletionSerializer(many=True)
    expected = serializers.DictField()
    explanation = serializers.CharField()
    retired_at = serializers.DateTimeField(allow_null=True)
    promoted_from = serializers.CharField(allow_null=True)
    results = serializers.DictField(help_text="share of answers right, with n and a 95 % interval")

    def to_representation(self, gold: GoldAnswer) -> dict[str, Any]:
        completions = sorted(gold.task.completions.all(), key=lambda completion: completion.pk)
        keys = {completion.pk: key for key, completion in zip(KEYS, completions, strict=False)}
        return {
            "id": str(gold.pk),
            "prompt": str(gold.task.prompt_id),
            "completions": [
                {"key": keys[completion.pk], "id": str(completion.pk), "content": completion.content}
                for completion in completions
            ],
            "expected": {
                "ranking": [[keys.get(pk, "?") for pk in group] for group in gold.expected["ranking"]],
                "ratings": {keys[int(pk)]: axes for pk, axes in gold.expected["ratings"].items()},
                "acceptable": {keys[int(pk)]: value for pk, value in gold.expected["acceptable"].items()},
            },
            "explanation": gold.explanation,
            "retired_at": gold.retired_at and self.fields["retired_at"].to_representation(gold.retired_at),
            "promoted_from": gold.promoted_from.public_id if gold.promoted_from else None,
            "results": self.context.get("results", {}).get(gold.task_id),
        }


class CandidateSerializer(serializers.Serializer):
    task = serializers.CharField()
    prompt = serializers.CharField()
    n = serializers.IntegerField(help_text="people who ranked it, all alike")


class GoldListView(ApiView):
    @describe("list_gold", tag="annotation", answers={200: page_of(GoldSerializer)}, errors=[404], parameters=PAGE_PARAMETERS)
    def get(self, request: Request, slug: str) -> Response:
        """The project's gold tasks, newest first, with how they were answered."""
        project = self.project(slug, TRAINING)
        found = GoldAnswer.objects.filter(project=project).select_related("task", "promoted_from")
        return self.page(found.prefetch_related("task__completions"), GoldSerializer, results=results_by_task(project))

    @describe("create_gold", tag="annotation", body=NewGoldSerializer, answers={201: GoldSerializer}, errors=[404])
    def post(self, request: Request, slug: str) -> Response:
        """Make a gold task: of a task that was judged alike, of completions that are there, or of texts sent along."""
        project = self.project(slug, TRAINING)
        sent = self.parsed(NewGoldSerializer)
        ways = [name for name in ("task", "prompt", "text") if name in sent]
        if len(ways) != 1:
            raise wrong_fields({"prompt": "Give one of task, prompt and text"})
        try:
            if ways == ["task"]:
                task = get_object_or_404(Task, project=project, public_id=sent["task"])
                gold = promote_task(task=task, by=request.user)
            elif ways == ["prompt"]:
                prompt = get_object_or_404(Prompt, project=project, pk=number_of(sent["prompt"]))
                ids = [number_of(id) for id in sent.get("completions", [])]
                gold = create_gold(
                    project=project, prompt=prompt, completion_ids=ids, expected=_by_names(sent, ids),
                    explanation=sent["explanation"], written_by=request.user,
                )  # fmt: skip
            else:
                texts = sent.get("texts", [])
                gold = write_gold(
                    project=project, messages=[{"role": "user", "content": sent["text"]}], completions=texts,
                    expected=_by_names(sent, list(range(len(texts)))), explanation=sent["explanation"],
                    written_by=request.user,
                )  # fmt: skip
        except BadGold as error:
            raise wrong_fields(error.fields) from None
        return Response(GoldSerializer(gold).data, status=201)


class GoldView(ApiView):
    @describe("change_gold", tag="annotation", body=GoldChangesSerializer, answers={200: GoldSerializer}, errors=[404])
    def patch(self, request: Request, gold_id: str) -> Response:
        """Change what is expected or explained, retire the gold task or take it back into use."""
        gold = self.find(
            GoldAnswer.objects.filter(project__memberships__user=request.user, project__memberships__role__in=TRAINING)
            .select_related("task", "project", "promoted_from"), gold_id, TRAINING,
        )  # fmt: skip
        changes = self.parsed(GoldChangesSerializer, partial=True)
        if "expected" in changes:
            ids = sorted(gold.task.task_completions.values_list("completion_id", flat=True))
            changes["expected"] = _by_names(changes, ids)
        try:
            return Response(GoldSerializer(change_gold(gold=gold, **changes)).data)
        except BadGold as error:
            raise wrong_fields(error.fields) from None


class CandidatesView(ApiView):
    @describe("list_gold_candidates", tag="annotation", answers={200: CandidateSerializer(many=True)}, errors=[404])
    def get(self, request: Request, slug: str) -> Response:
        """Tasks that three people or more ranked, all alike; at most 50, newest first. POST one to the gold tasks."""
        found = unanimous_tasks(self.project(slug, TRAINING))
        return Response([{"task": task.public_id, "prompt": str(task.prompt_id), "n": n} for task, _ranking, n in found])


def _by_names(sent: dict[str, Any], names: list[int]) -> dict[str, Any]:
    """`expected` by the keys of the caller's own order, turned into these names."""
    of = dict(zip(KEYS, names, strict=False))
    expected = sent.get("expected", {})
    ranking = expected.get("ranking", [])
    if not isinstance(ranking, list) or not all(isinstance(group, list) for group in ranking):
        raise wrong_fields({"expected": "ranking must be a list of lists of keys"})
    try:
        return {
            "ranking": [[of[key] for key in group] for group in ranking],
            "ratings": {str(of[key]): axes for key, axes in expected.get("ratings", {}).items()},
            "acceptable": {str(of[key]): value for key, value in expected.get("acceptable", {}).items()},
        } | {name: value for name, value in expected.items() if name not in ("ranking", "ratings", "acceptable")}
    except (KeyError, TypeError, AttributeError):
        raise wrong_fields({"expected": "names completions by the keys a, b, ..., as a judgement does"}) from None
