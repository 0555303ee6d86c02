"""How much annotators agree, each figure with its uncertainty. Pure: no Django, no database.

A task's pairs of completions are not independent of one another, so every interval here treats the task, not the
pair, as what was drawn at random.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from labeling.quality.statistics.intervals import (
    CLUSTERED,
    MAX_BLOCKS,
    Figure,
    blocks_of,
    bootstrapped,
    clustered_proportion,
    sums_by,
    undefined,
)
from labeling.quality.statistics.votes import PairVotes, Votes

NOT_TWICE = "nothing was judged twice"
ALL_THE_SAME = "every answer is the same, so chance can't be told from agreement"
# Above so many different values a coincidence matrix a block takes much room, and fewer blocks do.
MANY_VALUES = 32
BLOCKS_OF_MANY_VALUES = 200

Units = Iterable[Iterable[Sequence[Hashable]]]


@dataclass(frozen=True)
class Answers:
    """Answers in columns: `code` indexes `values`, `unit` and `cluster` (the task) number what was answered.

    `annotator` is only needed where a figure asks who said it.
    """

    unit: numpy.ndarray
    cluster: numpy.ndarray
    code: numpy.ndarray
    values: list[Any]
    annotator: numpy.ndarray | None = None

    @classmethod
    def of(cls, tasks: "Answers | Units") -> "Answers":
        """From clusters (tasks) of units, a unit the values it was given."""
        if isinstance(tasks, Answers):
            return tasks
        unit: list[int] = []
        cluster: list[int] = []
        given: list[Any] = []
        n_units = 0
        for number, units in enumerate(tasks):
            for values in units:
                given += values
                unit += [n_units] * len(values)
                cluster += [number] * len(values)
                n_units += 1
        return cls.coded(numpy.asarray(unit, int), numpy.asarray(cluster, int), given)

    @classmethod
    def coded(
        cls, unit: numpy.ndarray, cluster: numpy.ndarray, given: Sequence[Any], annotator: numpy.ndarray | None = None
    ) -> "Answers":
        """From columns with the values themselves; numbers are put in their order."""
        if isinstance(given, numpy.ndarray):
            known, code = numpy.unique(given, return_inverse=True)
            return cls(unit, cluster, code, known.tolist(), annotator)
        is_number = all(isinstance(value, int | float) for value in given)
        values = sorted(set(given), key=float if is_number else repr)
        numbers = {value: number for number, value in enumerate(values)}
        code = numpy.fromiter((numbers[value] for value in given), dtype=numpy.int64, count=len(given))
        return cls(unit, cluster, code, values, annotator)

    @classmethod
    def of_votes(cls, votes: Votes) -> "Answers":
        """A unit is a pair of completions, its values 1 (the first is better), -1 (the second) and 0 (a tie)."""
        code = numpy.asarray([2, 0, 1])[votes.value]
        return cls(votes.pair, votes.task[votes.pair], code, [-1, 0, 1], votes.annotator)

    def judged_twice(self) -> "Answers":
        """Without the units that have one answer only, which say nothing of agreement."""
        if not len(self.unit):
            return self
        kept = numpy.bincount(self.unit)[self.unit] > 1
        annotator = None if self.annotator is None else self.annotator[kept]
        _, unit = numpy.unique(self.unit[kept], return_inverse=True)
        return Answers(unit, self.cluster[kept], self.code[kept], self.values, annotator)

    @property
    def n_units(self) -> int:
        return int(self.unit.max()) + 1 if len(self.unit) else 0


def pairwise_agreement(tasks: Votes | Iterable[PairVotes]) -> Figure:
    """Share of (pair of annotators, pair of completions) on which two people say the same; ties are an answer.

    Stiennon et al. 2020 (arXiv:2009.01325) and Ouyang et al. 2022 (arXiv:2203.02155) report this figure. Not
    corrected for chance: with three answers, guessing alone gives a third or more.
    """
    if isinstance(tasks, Votes):
        tally, task = tasks.tallies(), tasks.task
    else:
        counts = [
            (number, [sum(vote == value for vote in votes.values()) for value in (1, -1, 0)])
            for number, votes_of_task in enumerate(tasks)
            for votes in votes_of_task.values()
        ]
        tally = numpy.asarray([row for _, row in counts], dtype=int).reshape(-1, 3)
        task = numpy.asarray([number for number, _ in counts], dtype=int)
    size = tally.sum(axis=1)
    same = (tally * (tally - 1)).sum(axis=1) / 2
    _, cluster = numpy.unique(task, return_inverse=True)
    return clustered_proportion(numpy.bincount(cluster, same), numpy.bincount(cluster, size * (size - 1) / 2))


def krippendorff_alpha_nominal(
    tasks: Answers | Units, *, swap: Mapping[Hashable, Hashable] | None = None, seed: int = 0
) -> Figure:
    """Krippendorff's alpha for nominal values; units with one value don't count, missing values may be many.

    `tasks` holds clusters of units, a unit the values it was given. 1 is perfect agreement, 0 what chance gives.
    Krippendorff, Content Analysis (2018), chapter 12. The interval is the percentile bootstrap over tasks (over at
    most 1,000 blocks of tasks). `n` counts units.

    Which completion of a pair is the first is an accident, yet it moves nominal alpha: where the first is mostly the
    better one, agreement by chance is held to be high. `swap` ({1: -1, -1: 1}) names values that change places
    with the sides; chance is then taken from their mean, as if each pair were entered both ways round.
    """
    answers = Answers.of(tasks).judged_twice()
    values = list(answers.values)
    if swap:
        values += [swap[value] for value in answers.values if swap.get(value, value) not in values]
    other = [values.index(swap.get(value, value)) for value in values] if swap else list(range(len(values)))
    n_values = len(values)

    def alpha(sums: numpy.ndarray) -> numpy.ndarray:
        """Rows of (agreeing pairs of values, count of each value)."""
        counts = (sums[:, 1:] + sums[:, 1:][:, other]) / 2
        n = counts.sum(axis=1)
        expected = n**2 - (counts**2).sum(axis=1)
        with numpy.errstate(invalid="ignore", divide="ignore"):
            return numpy.where(expected > 0, 1 - (n - 1) * (n - sums[:, 0]) / expected, numpy.nan)

    if not answers.n_units:
        return undefined(NOT_TWICE)
    block, n_blocks = blocks_of(answers.cluster)
    matrix = _coincidences(answers, block, n_blocks)
    counts = numpy.zeros((n_blocks, n_values))
    counts[:, : matrix.shape[1]] = matrix.sum(axis=2)
    sums = numpy.column_stack([numpy.trace(matrix, axis1=1, axis2=2), counts])
    return bootstrapped(alpha, sums, answers.n_units, reason=ALL_THE_SAME, seed=seed)


def krippendorff_alpha_interval(tasks: Answers | Iterable[Iterable[Sequence[float]]], *, seed: int = 0) -> Figure:
    """Krippendorff's alpha for numbers on a scale of equal steps: values differ by the square of their distance.

    `tasks`, `n` and the interval are as in the nominal one. Two who are one step apart disagree little, so this is the
    alpha of ratings.
    """
    answers = Answers.of(tasks).judged_twice()
    if not answers.n_units:
        return undefined(NOT_TWICE)
    value = numpy.asarray(answers.values, dtype=float)[answers.code]
    value -= numpy.round(value.mean())
    block, n_blocks = blocks_of(answers.cluster)
    # Of each block: squared distances within units, then count, sum and sum of squares of its values.
    n, total, squares = (numpy.bincount(answers.unit, column) for column in (numpy.ones_like(value), value, value**2))
    of_unit = numpy.zeros(answers.n_units, dtype=int)
    of_unit[answers.unit] = block
    sums = sums_by(of_unit, n_blocks, 2 * (n * squares - total**2) / (n - 1), n, total, squares)
    return bootstrapped(_interval, sums, answers.n_units, reason=ALL_THE_SAME, seed=seed)


def krippendorff_alpha_ordinal(tasks: Answers | Iterable[Iterable[Sequence[float]]], *, seed: int = 0) -> Figure:
    """Krippendorff's alpha for values that have an order but no equal steps: ranks, and ratings taken as such.

    Two values differ by how many of the answers given lie between them, squared: a step that everybody uses weighs
    more than one that nobody does. `tasks`, `n` and the interval are as in the nominal one; a resample has distances
    of its own.
    """
    answers = Answers.of(tasks).judged_twice()
    if not answers.n_units:
        return undefined(NOT_TWICE)
    n_values = len(answers.values)
    block, n_blocks = blocks_of(answers.cluster, MAX_BLOCKS if n_values <= MANY_VALUES else BLOCKS_OF_MANY_VALUES)
    matrix = _coincidences(answers, block, n_blocks)

    def alpha(sums: numpy.ndarray) -> numpy.ndarray:
        observed = sums.reshape(-1, n_values, n_values)
        count = observed.sum(axis=2)
        middle = numpy.cumsum(count, axis=1) - count / 2  # the place of a value among all answers
        n = count.sum(axis=1)
        squares = (count * middle**2).sum(axis=1)
        within = 2 * (squares - numpy.einsum("ri,rij,rj->r", middle, observed, middle, optimize=True))
        expected = 2 * (n * squares - (count * middle).sum(axis=1) ** 2)
        is_varied = (count > 0).sum(axis=1) > 1
        with numpy.errstate(invalid="ignore", divide="ignore"):
            return numpy.where(is_varied, 1 - (n - 1) * within / expected, numpy.nan)

    sums = matrix.reshape(n_blocks, -1)
    return bootstrapped(alpha, sums, answers.n_units, reason=ALL_THE_SAME, seed=seed)


def cohen_kappa(
    first: Sequence[Any] | numpy.ndarray,
    second: Sequence[Any] | numpy.ndarray,
    *,
    tasks: Sequence[int] | numpy.ndarray | None = None,
    weights: str = "none",
    seed: int = 0,
) -> Figure:
    """Cohen's kappa (1960) of two annotators' answers to the same units: agreement beyond what chance gives.

    Chance is each one's own habit, so an annotator who always answers the same gets 0, not a low agreement. `weights`
    is `none`, `linear` or `quadratic` (Cohen 1968): answers count as apart by how far their places among the values
    are from each other. `tasks` says which units belong together; without it each is its own. `n` counts units.
    """
    given, n = numpy.concatenate([numpy.asarray(first), numpy.asarray(second)]), len(first)
    if len(second) != n:
        raise ValueError(f"One annotator answered {n} units, the other {len(second)}")
    if not n:
        return undefined("the two judged nothing in common")
    values, code = numpy.unique(given, return_inverse=True)
    size = len(values)
    apart = abs(numpy.subtract.outer(numpy.arange(size), numpy.arange(size)))
    distance = {"none": (apart > 0).astype(float), "linear": apart.astype(float), "quadratic": apart**2.0}[weights]

    def kappa(sums: numpy.ndarray) -> numpy.ndarray:
        table = sums.reshape(-1, size, size)
        total = table.sum(axis=(1, 2))
        by_chance = numpy.einsum("ri,rj,ij->r", table.sum(axis=2), table.sum(axis=1), distance)
        with numpy.errstate(invalid="ignore", divide="ignore"):
            value = 1 - total * (table * distance).sum(axis=(1, 2)) / by_chance
            return numpy.where(by_chance > 0, value, numpy.nan)

    block, n_blocks = blocks_of(numpy.arange(n) if tasks is None else numpy.asarray(tasks))
    cell = (block * size + code[:n]) * size + code[n:]
    sums = numpy.bincount(cell, minlength=n_blocks * size * size).reshape(n_blocks, -1).astype(float)
    return bootstrapped(kappa, sums, n, reason="both always gave the same one answer", seed=seed)


def fleiss_kappa(tasks: Answers | Units, *, seed: int = 0) -> Figure:
    """Fleiss' kappa (1971) of units that two or more answered, by whomever; `n` counts them.

    Where units have unlike numbers of answers, each unit counts once, with its own share of agreeing pairs of answers
    and its own shares of the values (Gwet 2014, chapter 2); with equal numbers that is Fleiss' own formula. The interval
    is the bootstrap over tasks.
    """
    answers = Answers.of(tasks).judged_twice()
    if not answers.n_units:
        return undefined(NOT_TWICE)
    n_values = len(answers.values)
    table = numpy.bincount(answers.unit * n_values + answers.code, minlength=answers.n_units * n_values)
    table = table.reshape(-1, n_values).astype(float)
    size = table.sum(axis=1)
    block, n_blocks = blocks_of(answers.cluster)
    of_unit = numpy.zeros(answers.n_units, dtype=int)
    of_unit[answers.unit] = block
    agreeing = (table * (table - 1)).sum(axis=1) / (size * (size - 1))
    sums = sums_by(of_unit, n_blocks, numpy.ones_like(size), agreeing, *(table / size[:, None]).T)

    def kappa(sums: numpy.ndarray) -> numpy.ndarray:
        with numpy.errstate(invalid="ignore", divide="ignore"):
            by_chance = ((sums[:, 2:] / sums[:, :1]) ** 2).sum(axis=1)
            value = (sums[:, 1] / sums[:, 0] - by_chance) / (1 - by_chance)
            return numpy.where(by_chance < 1 - 1e-12, value, numpy.nan)

    return bootstrapped(kappa, sums, answers.n_units, reason=ALL_THE_SAME, seed=seed)


def _interval(sums: numpy.ndarray) -> numpy.ndarray:
    """Rows of (squared distances within units, count, sum, sum of squares) to alpha; nan where all values are equal."""
    within, n, total, squares = sums.T
    # Values are whole steps, so sums are exact and equal values give 0.
    expected = 2 * (n * squares - total**2)
    with numpy.errstate(invalid="ignore", divide="ignore"):
        return numpy.where(expected > 0, 1 - (n - 1) * within / expected, numpy.nan)


def _coincidences(answers: Answers, block: numpy.ndarray, n_blocks: int) -> numpy.ndarray:
    """Krippendorff's coincidence matrix of each block, of shape (blocks, values, values).

    Each ordered pair of answers to one unit counts 1 / (answers to the unit - 1).
    """
    n_values = len(answers.values)
    cells, count = numpy.unique(answers.unit * n_values + answers.code, return_counts=True)
    unit, value = cells // n_values, cells % n_values
    others = numpy.bincount(answers.unit)[unit] - 1
    of_unit = numpy.zeros(answers.n_units, dtype=int)
    of_unit[answers.unit] = block
    row = (of_unit[unit] * n_values + value) * n_values
    matrix = numpy.bincount(row + value, count * (count - 1) / others, n_blocks * n_values**2)
    width = numpy.bincount(unit)
    start = numpy.cumsum(width) - width
    for n in numpy.unique(width[width > 1]).tolist():
        left, right = numpy.triu_indices(n, 1)
        at = start[width == n][:, None]
        left, right = (at + left).ravel(), (at + right).ravel()
        apart = count[left] * count[right] / others[left]
        matrix += numpy.bincount(row[left] + value[right], apart, len(matrix))
        matrix += numpy.bincount(row[right] + value[left], apart, len(matrix))
    return matrix.reshape(n_blocks, n_values, n_values)


__all__ = [
    "CLUSTERED", "Answers", "cohen_kappa", "fleiss_kappa", "krippendorff_alpha_interval", "krippendorff_alpha_nominal",
    "krippendorff_alpha_ordinal", "pairwise_agreement",
]  # fmt: skip
