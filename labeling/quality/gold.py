"""How people do on gold tasks. The first half is pure: no Django, no database.

What a gold task expects, completions named by id:

    {"ranking": [[7], [5, 9]],                         # best first, ties in one list; [] if none is expected
     "ratings": {"7": {"tone": {"value": 4, "within": 1}}},
     "acceptable": {"7": true}}
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations, pairwise
from typing import Any

from django.db.models import Q, QuerySet
from django.db.models.functions import Coalesce

from labeling.accounts.models import User
from labeling.annotation.models import Judgement, Task
from labeling.annotation.selectors import standing_judgements
from labeling.projects.models import Project
from labeling.projects.quality_settings import quality_of
from labeling.quality.adjudication import in_letters
from labeling.quality.models import GoldAnswer
from labeling.quality.statistics import Figure, clustered_proportion, undefined, wilson_interval

Expected = dict[str, Any]
PARTS, LEAST_A_PART = 12, 10  # of answers over time
MOST_LOOKED_AT = 500  # gold answers of one person
MOST_MISSED = 10
METHOD = "share of gold tasks answered right; Wilson interval"


# --- pure ---------------------------------------------------------------------------------------
def score_of(expected: Expected, ranking: Sequence[Sequence[int]], feedback: dict[str, Any]) -> float:
    """How much of what is expected was said, 0 to 1: the mean over the parts that are expected of their share right.

    Of the ranking, each pair of completions counts: 1 where it is said alike, ½ where one side ties what the other
    orders, 0 where it is turned around. A rating is right within its tolerance. What was left out is wrong.
    """
    parts = [
        _share_of_pairs(expected.get("ranking") or [], ranking),
        _mean(
            abs(given - wanted["value"]) <= wanted["within"] if given is not None else False
            for completion, axes in (expected.get("ratings") or {}).items()
            for axis, wanted in axes.items()
            for given in [(feedback.get("ratings", {}).get(completion) or {}).get(axis)]
        ),
        _mean(
            feedback.get("acceptable", {}).get(completion) is wanted
            for completion, wanted in (expected.get("acceptable") or {}).items()
        ),
    ]
    return _mean(part for part in parts if part is not None) or 0.0


def _share_of_pairs(expected: Sequence[Sequence[int]], said: Sequence[Sequence[int]]) -> float | None:
    wanted = {pk: rank for rank, group in enumerate(expected) for pk in group}
    given = {pk: rank for rank, group in enumerate(said) for pk in group}
    right = []
    for first, second in combinations(sorted(wanted), 2):
        if first not in given or second not in given:
            right.append(0.0)
            continue
        apart = abs(_order(wanted, first, second) - _order(given, first, second))
        right.append({0: 1.0, 1: 0.5, 2: 0.0}[apart])
    return _mean(right)


def _order(ranks: dict[int, int], first: int, second: int) -> int:
    return (ranks[first] > ranks[second]) - (ranks[first] < ranks[second])


def _mean(values: Iterable[float]) -> float | None:
    found = [float(value) for value in values]
    return sum(found) / len(found) if found else None


def pass_figure(scores: Sequence[float], passes_from: float) -> Figure:
    """The share of answers that are right, with Wilson's 95 % interval; `mean_score` beside it."""
    if not scores:
        return undefined("no gold task answered") | {"mean_score": None}
    n_right = sum(score >= passes_from for score in scores)
    low, high = wilson_interval(n_right, len(scores))
    return {
        "value": n_right / len(scores), "low": low, "high": high, "n": len(scores), "method": METHOD,
        "mean_score": sum(scores) / len(scores),
    }  # fmt: skip


def is_surely_below(figure: Figure, *, bound: float, least: int) -> bool:
    """Whether the whole interval lies below the bound, on at least so many answers."""
    return figure["n"] >= least and figure["high"] is not None and figure["high"] < bound


def last_surely_good(
    answers: Sequence[tuple[datetime, float]], *, passes_from: float, bound: float, window: int
) -> datetime | None:
    """When a person was last surely good: after the last answer at which the interval lay wholly at or above the bound.

    `answers` are (when, score), oldest first. None: never.
    """
    scores = [score for _, score in answers]
    for last in range(len(answers), 0, -1):
        figure = pass_figure(scores[max(0, last - window) : last], passes_from)
        if figure["low"] >= bound:
            return answers[last - 1][0]
    return None


# --- from the database --------------------------------------------------------------------------
def hidden_answers(project: Project) -> QuerySet[Judgement]:
    """Standing answers to gold tasks by people who didn't know them for such: qualification is left out."""
    return Judgement.objects.current().filter(
        project=project, task__purpose=Task.Purpose.GOLD, qualification_answer=None
    )


@dataclass(frozen=True)
class GoldResults:
    """`by_annotator` (ids): the share answered right, and in `window` the same of the newest; `all` and `over_time` together."""

    by_annotator: dict[int, Figure]
    all: Figure
    over_time: list[dict[str, Any]]


def gold_results(project: Project) -> GoldResults:
    """How gold tasks are answered by people who don't know them for such, scored against what is expected now. Two queries."""
    settings = quality_of(project.quality)
    found = [
        (judgement.annotator_id, judgement.gold_id, judgement.created_at, score)  # type: ignore[attr-defined]
        for judgement, score in _scored(hidden_answers(project), answers_of(project))
    ]
    scores: dict[int, list[float]] = defaultdict(list)
    for annotator, _gold, _at, score in found:
        scores[annotator].append(score)
    passes_from = settings["gold_pass"]
    n_parts = min(PARTS, len(found) // LEAST_A_PART)
    ends = [len(found) * part // n_parts for part in range(n_parts + 1)] if n_parts else []
    return GoldResults(
        by_annotator={
            annotator: pass_figure(given, passes_from)
            | {"window": pass_figure(given[-settings["gold_window"] :], passes_from)}
            for annotator, given in scores.items()
        },
        all=_shared_figure([row[1::2] for row in found], passes_from),
        over_time=[
            {
                "from": found[begin][2].isoformat(timespec="seconds"),
                "to": found[end - 1][2].isoformat(timespec="seconds"),
                "right": _shared_figure([row[1::2] for row in found[begin:end]], passes_from),
            }
            for begin, end in pairwise(ends)
        ],
    )


def _shared_figure(answers: Sequence[tuple[int, float]], passes_from: float) -> Figure:
    """The share of (gold task, score) that are right; answers to one gold task are not independent."""
    right: dict[int, int] = defaultdict(int)
    all_: dict[int, int] = defaultdict(int)
    for gold, score in answers:
        right[gold] += score >= passes_from
        all_[gold] += 1
    if not answers:
        return undefined("no gold task answered")
    return clustered_proportion([right[gold] for gold in all_], list(all_.values()))


def results_by_task(project: Project) -> dict[int, Figure]:
    """Gold task id to how many were right of all its answers, those of people who qualified included. Two queries."""
    settings = quality_of(project.quality)
    everything = Judgement.objects.current().filter(project=project, task__purpose=Task.Purpose.GOLD)
    scores: dict[int, list[float]] = defaultdict(list)
    for judgement, score in _scored(everything, answers_of(project)):
        scores[judgement.gold_id].append(score)  # type: ignore[attr-defined]
    return {task: pass_figure(found, settings["gold_pass"]) for task, found in scores.items()}


def answers_of(project: Project) -> dict[int, Expected]:
    return dict(GoldAnswer.objects.filter(project=project).values_list("task", "expected"))


def scored_answers(project: Project, annotator_id: int, *, since: datetime | None, n: int) -> list[tuple[datetime, float]]:
    """(when, score) of the person's newest `n` hidden answers since then, oldest first. Two queries."""
    found = hidden_answers(project).filter(annotator=annotator_id)
    if since is not None:
        found = found.filter(created_at__gte=since)
    newest = list(found.order_by("-pk").values_list("pk", "task__repeats")[:n])
    golds = GoldAnswer.objects.filter(task__in={gold for _, gold in newest})
    expected = dict(golds.values_list("task", "expected"))
    rows = Judgement.objects.filter(pk__in=[pk for pk, _ in newest])
    return [(judgement.created_at, score) for judgement, score in _scored(rows, expected)]


@dataclass(frozen=True)
class MissedGold:
    """A gold answer that was not right; `said` and `expected` in the letters that the page of the gold task uses."""

    judgement: Judgement
    gold: GoldAnswer
    score: float

    @property
    def said(self) -> str:
        return in_letters(self.judgement.ranking, self._ids)

    @property
    def expected(self) -> str:
        return in_letters(self.gold.expected["ranking"], self._ids)

    @property
    def _ids(self) -> list[int]:
        return sorted(pk for group in self.gold.expected["ranking"] for pk in group)


def missed_gold(project: Project, user: User, *, n: int = MOST_MISSED) -> list[MissedGold]:
    """The person's newest gold answers that are not right, among their newest 500. Three queries."""
    passes_from = quality_of(project.quality)["gold_pass"]
    newest = hidden_answers(project).filter(annotator=user).order_by("-pk").values_list("pk", flat=True)
    pks = list(newest[:MOST_LOOKED_AT])
    if not pks:
        return []
    rows = hidden_answers(project).filter(pk__in=pks)
    golds = {gold.task_id: gold for gold in GoldAnswer.objects.filter(project=project).select_related("task__prompt")}
    missed = [
        MissedGold(judgement, golds[judgement.gold_id], score)  # type: ignore[attr-defined]
        for judgement, score in _scored(rows, {task: gold.expected for task, gold in golds.items()})
        if score < passes_from
    ]
    return missed[::-1][:n]


def _scored(judgements: QuerySet[Judgement], expected: dict[int, Expected]) -> Iterable[tuple[Judgement, float]]:
    """Oldest first; what has no expected answer any more is left out."""
    found = judgements.annotate(gold_id=Coalesce("task__repeats", "task")).only(
        "annotator_id", "created_at", "ranking", "feedback"
    )
    for judgement in found.order_by("pk").iterator():
        if (wanted := expected.get(judgement.gold_id)) is not None:
            yield judgement, score_of(wanted, judgement.ranking, judgement.feedback)


def unanimous_tasks(project: Project, *, least: int = 3, limit: int = 50) -> list[tuple[Task, list[list[int]], int]]:
    """(task, ranking, how many said it) of done tasks that at least so many people ranked, all of them alike.

    Ties and all. People alone, surplus left out; prompts that have a gold task already are left out. Newest first.
    """
    taken = Task.objects.filter(project=project, purpose=Task.Purpose.GOLD, repeats=None).values("prompt")
    tasks = (
        Task.objects.filter(project=project, purpose=Task.Purpose.PREFERENCE, n_judged__gte=least)
        .exclude(Q(kind=Task.CONVERSATION) | Q(state=Task.State.CLOSED) | Q(prompt__in=taken))
        .select_related("prompt")
        .order_by("-pk")[:2000]
    )
    by_id = {task.pk: task for task in tasks}
    said: dict[int, list[list[list[int]]]] = defaultdict(list)
    standing = standing_judgements(project).filter(
        task__in=by_id, slot__isnull=False, annotator_kind=User.Kind.HUMAN
    )
    for task, ranking in standing.order_by().values_list("task_id", "ranking"):
        said[task].append([sorted(group) for group in ranking])
    return [
        (by_id[pk], rankings[0], len(rankings))
        for pk, rankings in sorted(said.items(), reverse=True)
        if len(rankings) >= least and len(rankings[0]) > 1 and all(one == rankings[0] for one in rankings)
    ][:limit]
