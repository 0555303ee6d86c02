"""All standing judgements of a project as columns of numbers: read row by row, kept as arrays."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy

from labeling.accounts.models import User
from labeling.annotation.models import Task
from labeling.annotation.selectors import standing_judgements
from labeling.projects.models import Project
from labeling.quality.adjudication import standing_adjudications
from labeling.quality.models import Adjudication
from labeling.quality.statistics import Answers, Ranking, Rankings

CHUNK = 5000
MOST_DAYS = 60


@dataclass(frozen=True)
class Said:
    """Values given to single completions: one entry a value, tasks and annotators by number."""

    task: numpy.ndarray
    annotator: numpy.ndarray
    completion: numpy.ndarray
    value: numpy.ndarray

    def only(self, kept: numpy.ndarray) -> "Said":
        return Said(self.task[kept], self.annotator[kept], self.completion[kept], self.value[kept])

    def answers(self) -> Answers:
        """A unit is a completion in a task."""
        _, completion = numpy.unique(self.completion, return_inverse=True)
        width = int(completion.max()) + 1 if len(completion) else 1
        _, unit = numpy.unique(self.task * width + completion, return_inverse=True)
        return Answers.coded(unit, self.task, self.value, self.annotator)


@dataclass(frozen=True)
class Columns:
    """Judgements, oldest first; `task` and `annotator` number `tasks` and `annotators` (database ids).

    `rankings` holds those that rank two completions or more, in the same order; `judgement` says which each is.
    `won` is what the completion shown first won of each ranking, `chance` what it wins by chance; nan: nobody knows.
    """

    tasks: numpy.ndarray
    annotators: list[int]
    kinds: list[str]
    task: numpy.ndarray
    annotator: numpy.ndarray
    seconds: numpy.ndarray
    at: numpy.ndarray
    rankings: Rankings
    judgement: numpy.ndarray
    won: numpy.ndarray
    chance: numpy.ndarray
    ratings: dict[str, Said]
    acceptable: Said

    def __len__(self) -> int:
        return len(self.task)

    @property
    def is_person(self) -> numpy.ndarray:
        """Of each annotator."""
        return numpy.asarray([kind == User.Kind.HUMAN for kind in self.kinds], dtype=bool)

    def when(self, index: int) -> str:
        return datetime.fromtimestamp(float(self.at[index]), UTC).isoformat(timespec="seconds")


def read_columns(project: Project) -> Columns:
    """Every standing judgement. One query, streamed; about 200 bytes a ranking of three."""
    fields = ("task_id", "annotator_id", "annotator_kind", "ranking", "order_shown", "seconds", "created_at")
    # Only these parts of the feedback: corrections can be long.
    parts = ("feedback__ratings", "feedback__acceptable")
    rows = standing_judgements(project).order_by("pk").values_list(*fields, *parts).iterator(chunk_size=CHUNK)
    return _Gatherer().gather(rows)


def tags_of_tasks(project: Project, tasks: numpy.ndarray) -> dict[str, numpy.ndarray]:
    """Tag of a prompt to the numbers of the tasks over prompts that have it. One query, streamed."""
    number = {pk: index for index, pk in enumerate(tasks.tolist())}
    found: dict[str, array[int]] = {}
    rows: Iterator[tuple[int, Any]] = Task.objects.filter(project=project).order_by().values_list("pk", "prompt__tags")
    for pk, tags in rows.iterator(chunk_size=CHUNK):
        if pk in number and isinstance(tags, list):
            for tag in set(map(str, tags)):
                found.setdefault(tag, array("q")).append(number[pk])
    return {tag: numpy.frombuffer(numbers, dtype=numpy.int64) for tag, numbers in found.items()}


@dataclass(frozen=True)
class Settled:
    """What reviewers settled, by number of the task: rankings that count as the truth, and whatever was settled at all."""

    rankings: dict[int, Ranking]
    is_settled: numpy.ndarray
    outcomes: dict[str, int]
    days: list[tuple[str, int]]


def read_settled(project: Project, tasks: numpy.ndarray) -> Settled:
    """Of the tasks that judgements stand on; `outcomes` and `days` (the newest 60 with any) count all. One query."""
    number = {pk: index for index, pk in enumerate(tasks.tolist())}
    rankings, is_settled = {}, numpy.zeros(len(tasks), dtype=bool)
    outcomes: Counter[str] = Counter(dict.fromkeys(Adjudication.Outcome.values, 0))
    days: Counter[str] = Counter()
    rows = standing_adjudications(project).order_by("pk").values_list("task_id", "outcome", "ranking", "created_at")
    for task, outcome, ranking, at in rows.iterator(chunk_size=CHUNK):
        outcomes[outcome] += 1
        days[at.date().isoformat()] += 1
        if task in number:
            is_settled[number[task]] = True
            if outcome == Adjudication.Outcome.RANKING and ranking:
                rankings[number[task]] = ranking
    return Settled(rankings, is_settled, dict(outcomes), sorted(days.items())[-MOST_DAYS:])


class _Gatherer:
    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}
        self.annotators: dict[int, int] = {}
        self.kinds: dict[int, str] = {}
        self.ratings: dict[str, list[array[int]]] = {}
        self.acceptable = [array("q") for _ in range(4)]

    def gather(self, rows: Iterable[tuple[Any, ...]]) -> Columns:
        task, annotator, judgement, start, item, rank = (array("q") for _ in range(6))
        seconds, at, won, chance = (array("d") for _ in range(4))
        start.append(0)
        for task_id, by_id, kind, ranking, order, took, made_at, ratings, acceptable in rows:
            of = self.numbers.setdefault(task_id, len(self.numbers))
            by = self.annotators.setdefault(by_id, len(self.annotators))
            self.kinds[by] = kind
            self.add_said(of, by, ratings or {}, acceptable or {})
            if sum(map(len, ranking)) > 1:
                judgement.append(len(task))
                for place, group in enumerate(ranking):
                    item.extend(group)
                    rank.extend([place] * len(group))
                start.append(len(item))
                # Of imported judgements nobody may know the order: they say nothing of position.
                won.append((1 / len(ranking[0]) if order[0] in ranking[0] else 0.0) if order else float("nan"))
                chance.append(1 / len(order) if order else float("nan"))
            task.append(of)
            annotator.append(by)
            seconds.append(float("nan") if took is None else took)
            at.append(made_at.timestamp())
        of_task, of_annotator, ranked = _whole(task), _whole(annotator), _whole(judgement)
        return Columns(
            tasks=numpy.fromiter(self.numbers, dtype=numpy.int64, count=len(self.numbers)),
            annotators=list(self.annotators),
            kinds=[self.kinds[by] for by in range(len(self.annotators))],
            task=of_task, annotator=of_annotator, seconds=_real(seconds), at=_real(at),
            rankings=Rankings(of_task[ranked], of_annotator[ranked], _whole(start), _whole(item), _whole(rank)),
            judgement=ranked, won=_real(won), chance=_real(chance),
            ratings={axis: Said(*map(_whole, columns)) for axis, columns in sorted(self.ratings.items())},
            acceptable=Said(*map(_whole, self.acceptable)),
        )  # fmt: skip

    def add_said(self, task: int, by: int, ratings: dict[str, dict[str, int]], acceptable: dict[str, bool]) -> None:
        for completion, by_axis in ratings.items():
            for axis, value in by_axis.items():
                columns = self.ratings.setdefault(axis, [array("q") for _ in range(4)])
                for column, entry in zip(columns, (task, by, int(completion), int(value)), strict=True):
                    column.append(entry)
        for completion, value in acceptable.items():
            for column, entry in zip(self.acceptable, (task, by, int(completion), int(value)), strict=True):
                column.append(entry)


def _whole(column: "array[int]") -> numpy.ndarray:
    return numpy.frombuffer(column, dtype=numpy.int64) if len(column) else numpy.zeros(0, dtype=numpy.int64)


def _real(column: "array[float]") -> numpy.ndarray:
    return numpy.frombuffer(column, dtype=numpy.float64) if len(column) else numpy.zeros(0)
