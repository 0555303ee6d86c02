"""One annotator of a project beside the others: over time, by the time taken, and where they stood alone."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy

from labeling.accounts.models import User
from labeling.annotation.models import Task
from labeling.annotation.selectors import standing_judgements
from labeling.projects.models import Project
from labeling.quality import statistics
from labeling.quality.adjudication import standing_rankings
from labeling.quality.models import Adjudication
from labeling.quality.statistics import Figure, Rankings, Votes
from labeling.quality.statistics.reliability import sides_with_others

MOST_TASKS = 2000  # the newest
TREND_PARTS, LEAST_A_PART = 10, 10
TIME_PARTS = 4
MOST_SHOWN = 10


@dataclass(frozen=True)
class Part:
    """Some of the person's rankings: when or how long, and how often most of the others say the same."""

    at: datetime
    seconds_median: float | None
    n_rankings: int
    agreement: Figure


@dataclass(frozen=True)
class Alone:
    """A task in which two or more others were of one mind on some pairs, and the person of another."""

    task: Task
    n_alone: int
    n_pairs: int
    n_others: int


@dataclass(frozen=True)
class Unlike:
    """A settled task of which the person said something else: on so many of its pairs."""

    adjudication: Adjudication
    n_unlike: int
    n_pairs: int


@dataclass(frozen=True)
class PersonRecord:
    n_shared: int
    trend: list[Part]
    by_time: list[Part]
    alone: list[Alone]
    n_alone: int
    n_settled: int
    unlike: list[Unlike]
    n_unlike: int


def person_record(project: Project, user: User) -> PersonRecord:
    """Over the newest 2,000 tasks that the person ranked. Four queries."""
    ranked = standing_judgements(project).exclude(ranking=[]).order_by("-pk")
    columns = ("task_id", "ranking", "seconds", "created_at")
    mine = list(ranked.filter(annotator=user).values_list(*columns)[:MOST_TASKS])[::-1]
    number = {row[0]: index for index, row in enumerate(mine)}
    others = ranked.exclude(annotator=user).filter(task__in=number).order_by("pk")
    people: dict[int, int] = {user.pk: 0}
    rows = [(index, 0, row[1]) for index, row in enumerate(mine)]
    for task, annotator, ranking in others.values_list("task_id", "annotator_id", "ranking"):
        rows.append((number[task], people.setdefault(annotator, len(people)), ranking))
    votes = Votes.drawn_from(Rankings.of(rows))
    right, counted = sides_with_others(votes)
    is_mine = votes.annotator == 0
    task = votes.task[votes.pair[is_mine]]
    won, compared, pairs = (
        numpy.bincount(task, column, len(mine)) for column in (right[is_mine], counted[is_mine], None)
    )
    of_others = votes.tallies()[votes.pair[is_mine]]
    of_others[numpy.arange(len(task)), votes.value[is_mine]] -= 1
    n_others = of_others.sum(axis=1)
    of_one_mind = (of_others.max(axis=1, initial=0) == n_others) & (n_others > 1)
    alone = numpy.bincount(task, of_one_mind & ~right[is_mine], len(mine))
    shared = numpy.flatnonzero(compared > 0)

    def part(which: numpy.ndarray) -> Part:
        figure = statistics.clustered_proportion(won[which], compared[which])
        seconds = statistics.median_seconds(mine[index][2] for index in which)
        return Part(mine[which[-1]][3], seconds, len(which), figure)

    timed = [index for index in shared.tolist() if mine[index][2] is not None]
    timed.sort(key=lambda index: mine[index][2])
    lonely = [index for index in numpy.flatnonzero(alone).tolist()][::-1]
    # Those with most against them first, the newest of equals.
    shown = sorted(lonely, key=lambda index: -alone[index] / pairs[index])[:MOST_SHOWN]
    tasks = Task.objects.filter(pk__in=[mine[index][0] for index in shown]).select_related("prompt").in_bulk()
    others_of = numpy.zeros(len(mine), dtype=int)
    numpy.maximum.at(others_of, task, n_others)
    settled = standing_rankings(project).filter(task__in=number).select_related("task__prompt").order_by("-pk")
    compared_with = [_compared(row, mine[number[row.task_id]][1]) for row in settled]
    unlike = [found for found in compared_with if found.n_unlike]
    return PersonRecord(
        n_shared=len(shared),
        trend=[part(which) for which in _parts(shared, TREND_PARTS)],
        by_time=[part(which) for which in _parts(numpy.asarray(timed, dtype=int), TIME_PARTS)],
        alone=[
            Alone(tasks[mine[index][0]], int(alone[index]), int(pairs[index]), int(others_of[index])) for index in shown
        ],
        n_alone=len(lonely),
        n_settled=len(compared_with),
        unlike=sorted(unlike, key=lambda found: -found.n_unlike / found.n_pairs)[:MOST_SHOWN],
        n_unlike=len(unlike),
    )


def _compared(row: Adjudication, said: list[list[int]]) -> Unlike:
    votes = statistics.pair_votes({"settled": row.ranking, "said": said}).values()
    both = [vote for vote in votes if len(vote) == 2]
    return Unlike(row, sum(vote["settled"] != vote["said"] for vote in both), len(both))


def _parts(rows: numpy.ndarray, most: int) -> list[Any]:
    n_parts = min(most, len(rows) // LEAST_A_PART)
    return numpy.array_split(rows, n_parts) if n_parts else []
