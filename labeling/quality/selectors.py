"""How good a project's judgements are."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy
from django.db.models import Exists, OuterRef, QuerySet

from labeling.accounts.models import User
from labeling.annotation.models import Task
from labeling.annotation.selectors import standing_judgements
from labeling.projects.models import Project
from labeling.projects.services import pseudonym_of
from labeling.quality.adjudication import standing_rankings
from labeling.quality.models import Adjudication, QualityReport
from labeling.quality.statistics import Ranking, Rankings, Votes
from labeling.quality.statistics.consensus import consensus_rankings, pair_probabilities, usual_confusion
from labeling.quality.statistics.crowd_bt import crowd_bt_of

EVEN = [0.4, 0.4, 0.2]  # first, second, tie: before anything is known of a project
USUAL_RELIABILITY = 0.75


def annotators_by_pseudonym(project: Project, ids: Sequence[int]) -> dict[str, User]:
    """Who is behind the pseudonyms: for the console, never for exports."""
    return {pseudonym_of(project, user): user for user in User.objects.filter(pk__in=ids)}


def tasks_with_rankings(project: Project) -> QuerySet[Task]:
    """Those that a consensus can be given of."""
    ranked = standing_judgements(project).exclude(ranking=[]).filter(task=OuterRef("pk"))
    settled = standing_rankings(project).filter(task=OuterRef("pk"))
    return Task.objects.filter(Exists(ranked) | Exists(settled), project=project)


def consensus_of_tasks(project: Project, tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """What annotators hold together of each task, by the model of the project's newest report. Three queries.

    Completions are named by id. `pairs` has the probabilities that the first is better, that the second is, and of
    a tie; `ranking` the order that follows, ties in one inner list; `scores` are log strengths of mean 0 (Crowd-BT).
    Annotators who judged since are taken as any newcomer. A task that a reviewer settled has their ranking, for
    certain, and says in `adjudication` who it was and when.
    """
    numbers = {task.pk: number for number, task in enumerate(tasks)}
    judged = standing_judgements(project).filter(task__in=numbers).exclude(ranking=[]).order_by("pk")
    rows = list(judged.values_list("task_id", "annotator_id", "annotator_kind", "ranking"))
    by: dict[int, int] = {}
    rankings = Rankings.of(
        (numbers[task], by.setdefault(annotator, len(by)), ranking) for task, annotator, _, ranking in rows
    )
    n_judgements = Counter(task for task, *_ in rows)
    n_people = Counter(task for task, _, kind, _ in rows if kind == User.Kind.HUMAN)
    settled = {row.task_id: row for row in standing_rankings(project).filter(task__in=numbers)}
    found: list[dict[str, Any]] = [
        {
            "task": task.public_id,
            "n_judgements": n_judgements[task.pk],
            "n_people": n_people[task.pk],
            "pairs": [], "ranking": None, "points": None, "scores": None, "adjudication": None,
        }
        for task in tasks
    ]  # fmt: skip
    votes = Votes.drawn_from(rankings)
    if len(votes):
        _add_votes(project, votes, list(by), {numbers[pk]: row.ranking for pk, row in settled.items()}, found)
    for pk, row in settled.items():
        _settle(project, row, found[numbers[pk]])
    return found


def probabilities_by(
    model: dict[str, Any], votes: Votes, people: Sequence[int], known: numpy.ndarray | None = None
) -> numpy.ndarray:
    """Of each pair that the first is better, that the second is, and of a tie, by the model of a report.

    `people` are the user ids of the votes' annotators; those whom the model doesn't know are taken as any newcomer.
    """
    of_people, usual = model.get("confusion", {}), usual_confusion().tolist()
    confusion = numpy.asarray([of_people.get(str(pk), usual) for pk in people])
    return pair_probabilities(votes, confusion, numpy.asarray(model.get("priors", EVEN)), known)


def _add_votes(
    project: Project, votes: Votes, people: list[int], settled: dict[int, Ranking], found: list[dict[str, Any]]
) -> None:
    model = QualityReport.objects.filter(project=project).values_list("consensus", flat=True).first() or {}
    known = votes.settled_by(settled)
    probabilities = probabilities_by(model, votes, people, known)
    for pair, tally in enumerate(votes.tallies()):
        first, second, tie = probabilities[pair].tolist()
        found[votes.task[pair]]["pairs"].append(
            {
                "first": str(votes.first[pair]), "second": str(votes.second[pair]),
                "p_first": first, "p_second": second, "p_tie": tie, "n": int(tally.sum()),
            }
        )  # fmt: skip
    for order in consensus_rankings(votes, probabilities):
        for task, items, places, points in zip(order.tasks, order.items, order.place, order.points, strict=True):
            groups: list[list[str]] = [[] for _ in range(int(places[-1]) + 1)]
            for item, place in zip(items, places, strict=True):
                groups[place].append(str(item))
            found[task]["ranking"] = groups
            found[task]["points"] = dict(zip(map(str, items), points.tolist(), strict=True))
    reliability = numpy.asarray([model.get("reliability", {}).get(str(pk)) or USUAL_RELIABILITY for pk in people])
    for task, item, score in _scores(votes, reliability, known):
        found[task]["scores"] = (found[task]["scores"] or {}) | {str(item): score}


def _settle(project: Project, row: Adjudication, found: dict[str, Any]) -> None:
    """The reviewer's ranking in the place of what follows from the votes, which stay counted."""
    place = {pk: rank for rank, group in enumerate(row.ranking) for pk in group}
    n_votes = {(pair["first"], pair["second"]): pair["n"] for pair in found["pairs"]}
    found["pairs"], points = [], dict.fromkeys(map(str, sorted(place)), 0.0)
    for first, second in combinations(sorted(place), 2):
        names = (str(first), str(second))
        is_first, is_second = place[first] < place[second], place[second] < place[first]
        is_tie = not (is_first or is_second)
        found["pairs"].append(
            {
                "first": names[0], "second": names[1],
                "p_first": float(is_first), "p_second": float(is_second), "p_tie": float(is_tie),
                "n": n_votes.get(names, 0),
            }
        )  # fmt: skip
        points[names[0]] += is_first + is_tie / 2
        points[names[1]] += is_second + is_tie / 2
    found["ranking"] = [[str(pk) for pk in group] for group in row.ranking]
    found["points"] = points
    found["adjudication"] = {
        "by": pseudonym_of(project, User(pk=row.by_id)), "at": row.created_at, "blind": row.blind
    }  # fmt: skip


def _scores(votes: Votes, reliability: numpy.ndarray, known: numpy.ndarray | None) -> list[tuple[int, int, float]]:
    """(task, completion, score); each task is scored by its own votes."""
    task, item = numpy.tile(votes.task, 2), numpy.concatenate([votes.first, votes.second])
    ends, number = numpy.unique(numpy.stack([task, item]), axis=1, return_inverse=True)
    apart = replace(votes, first=number[: votes.n_pairs], second=number[votes.n_pairs :])
    fitted = crowd_bt_of(apart, known, reliability=reliability)
    return list(zip(*ends.tolist(), numpy.round(fitted.scores, 4).tolist(), strict=True))
