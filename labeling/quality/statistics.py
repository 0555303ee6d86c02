"""Agreement between annotators and bias of one, each with its uncertainty. Pure: no Django, no database.

A task's pairs of completions are not independent of one another, so every interval here treats the task, not the
pair, as what was drawn at random.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import combinations
from statistics import median
from typing import Any

import numpy

Figure = dict[str, Any]
Ranking = Sequence[Sequence[Hashable]]
# A pair of completions and what each annotator said of it: 1 the first, -1 the second, 0 a tie.
PairVotes = dict[tuple[Hashable, Hashable], dict[Hashable, int]]

Z_95 = 1.959963984540054
RESAMPLES = 1000
MAX_BLOCKS = 1000
CLUSTERED = "Wilson interval, effective n from clusters by task"


def undefined(reason: str, n: int = 0) -> Figure:
    """A figure that cannot be computed, and why."""
    return {"value": None, "low": None, "high": None, "n": n, "method": f"not defined: {reason}"}


def wilson_interval(successes: float, n: float) -> tuple[float, float]:
    """Wilson's (1927) 95 % score interval of the share successes / n; both may be fractional, n > 0."""
    value = successes / n
    centre = (value + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(value * (1 - value) / n + Z_95**2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def clustered_proportion(successes: Sequence[float], totals: Sequence[float]) -> Figure:
    """A share over clusters (tasks): `successes[i]` of `totals[i]` comparisons of cluster i.

    The interval is Wilson's with n divided by the design effect of the ratio estimator (Korn and Graubard 1998),
    which is at least 1. Where all comparisons agree the effect can't be estimated, and the number of clusters
    stands in for n. `n` of the figure counts comparisons.
    """
    won, all_ = numpy.asarray(successes, dtype=float), numpy.asarray(totals, dtype=float)
    n = float(all_.sum())
    if n == 0:
        return undefined("nothing was judged twice")
    value = float(won.sum() / n)
    clusters = int((all_ > 0).sum())
    independent = value * (1 - value) / n
    if independent == 0 or clusters < 2:
        effective_n = float(clusters)
    else:
        clustered = float(((won - value * all_) ** 2).sum()) / n**2 * clusters / (clusters - 1)
        effective_n = n / max(1.0, clustered / independent)
    low, high = wilson_interval(value * effective_n, effective_n)
    return {"value": value, "low": low, "high": high, "n": int(n), "method": CLUSTERED}


def ranks_of(ranking: Ranking) -> dict[Hashable, int]:
    return {item: rank for rank, group in enumerate(ranking) for item in group}


def pair_votes(rankings: Mapping[Hashable, Ranking]) -> PairVotes:
    """Of one task: annotator to ranking, turned into votes on each pair of completions."""
    ranked = {annotator: ranks_of(ranking) for annotator, ranking in rankings.items()}
    items = sorted(set().union(*ranked.values())) if ranked else []
    votes: PairVotes = {}
    for first, second in combinations(items, 2):
        votes[first, second] = {
            annotator: (ranks[first] < ranks[second]) - (ranks[first] > ranks[second])
            for annotator, ranks in ranked.items()
            if first in ranks and second in ranks
        }
    return votes


# What a vote on a pair becomes when its two completions change places.
OTHER_WAY_ROUND = {1: -1, -1: 1, 0: 0}


def pairwise_agreement(tasks: Iterable[PairVotes]) -> Figure:
    """Share of (pair of annotators, pair of completions) on which two people say the same; ties are an answer.

    Stiennon et al. 2020 (arXiv:2009.01325) and Ouyang et al. 2022 (arXiv:2203.02155) report this figure. Not
    corrected for chance: with three answers, guessing alone gives a third or more.
    """
    agreeing, compared = [], []
    for task in tasks:
        same = total = 0
        for votes in task.values():
            size = len(votes)
            if size > 1:
                total += size * (size - 1) // 2
                same += sum(count * (count - 1) // 2 for count in Counter(votes.values()).values())
        agreeing.append(same)
        compared.append(total)
    return clustered_proportion(agreeing, compared)


def krippendorff_alpha_nominal(
    tasks: Iterable[Iterable[Sequence[Hashable]]], *, swap: Mapping[Hashable, Hashable] | None = None, seed: int = 0
) -> Figure:
    """Krippendorff's alpha for nominal values; units with one value don't count, missing values may be many.

    `tasks` holds clusters of units, a unit the values it was given. 1 is perfect agreement, 0 what chance gives.
    Krippendorff, Content Analysis (2018), chapter 12. The interval is the percentile bootstrap over tasks (over at
    most 1,000 blocks of tasks): the usual one over disagreements (evalica's, Hayes') takes a task's pairs as
    independent and comes out too narrow. `n` counts units.

    Which completion of a pair is the first is an accident, yet it moves nominal alpha: where the first is mostly the
    better one, agreement by chance is held to be high. `swap` ({1: -1, -1: 1}) names values that change places
    with the sides; chance is then taken from their mean, as if each pair were entered both ways round.
    """
    clusters = [[Counter(unit) for unit in units if len(unit) > 1] for units in tasks]
    clusters = [units for units in clusters if units]
    n_units = sum(map(len, clusters))
    if not clusters:
        return undefined("nothing was judged twice")
    values = sorted({value for units in clusters for unit in units for value in unit}, key=repr)
    # Of each task: how often the values agree within units, and how often each value was given.
    sums = numpy.zeros((len(clusters), 1 + len(values)))
    for row, units in zip(sums, clusters, strict=True):
        for unit in units:
            row[0] += sum(count * (count - 1) for count in unit.values()) / (unit.total() - 1)
            row[1:] += [unit[value] for value in values]
    if swap:
        values_both_ways = sorted({*values, *(swap.get(value, value) for value in values)}, key=repr)
        counts = {value: sums[:, 1 + values.index(value)] for value in values}
        nothing = numpy.zeros(len(sums))
        mirrored = [
            (counts.get(value, nothing) + counts.get(swap.get(value, value), nothing)) / 2 for value in values_both_ways
        ]
        sums = numpy.column_stack([sums[:, 0], *mirrored])
    return _bootstrapped(_nominal, sums, n_units, seed)


def krippendorff_alpha_interval(tasks: Iterable[Iterable[Sequence[float]]], *, seed: int = 0) -> Figure:
    """Krippendorff's alpha for numbers on a scale of equal steps: values differ by the square of their distance.

    `tasks`, `n` and the interval are as in the nominal one. Two who are one step apart disagree little, so this is the
    alpha of ratings.
    """
    clusters = [[list(map(float, unit)) for unit in units if len(unit) > 1] for units in tasks]
    clusters = [units for units in clusters if units]
    if not clusters:
        return undefined("nothing was judged twice")
    # Of each task: squared distances within units, then count, sum and sum of squares of its values.
    sums = numpy.zeros((len(clusters), 4))
    for row, units in zip(sums, clusters, strict=True):
        for unit in units:
            n, total, squares = len(unit), sum(unit), sum(value * value for value in unit)
            row += [2 * (n * squares - total**2) / (n - 1), n, total, squares]
    return _bootstrapped(_interval, sums, sum(map(len, clusters)), seed)


def _bootstrapped(
    alpha: Callable[[numpy.ndarray], numpy.ndarray], sums: numpy.ndarray, n_units: int, seed: int
) -> Figure:
    """Alpha of sums by task, with its percentile bootstrap over tasks."""
    value = float(alpha(sums.sum(axis=0)[None])[0])
    if math.isnan(value):
        return undefined("every answer is the same, so chance can't be told from agreement", n_units)
    figure = {"value": value, "low": None, "high": None, "n": n_units}
    if len(sums) < 2:
        return figure | {"method": "no interval: needs two tasks"}
    rng = numpy.random.default_rng(seed)
    if len(sums) > MAX_BLOCKS:
        blocks = numpy.zeros((MAX_BLOCKS, sums.shape[1]))
        numpy.add.at(blocks, rng.permutation(len(sums)) % MAX_BLOCKS, sums)
        sums = blocks
    draws = rng.multinomial(len(sums), numpy.full(len(sums), 1 / len(sums)), size=RESAMPLES)
    resampled = alpha(draws @ sums)
    resampled = resampled[~numpy.isnan(resampled)]
    low, high = numpy.quantile(resampled, [0.025, 0.975])
    return figure | {"low": float(low), "high": float(high), "method": f"bootstrap by task, {RESAMPLES:,} resamples"}


def _nominal(sums: numpy.ndarray) -> numpy.ndarray:
    """Rows of (agreeing pairs of values, count of each value) to alpha; nan where only one value occurs."""
    n = sums[:, 1:].sum(axis=1)
    expected = n**2 - (sums[:, 1:] ** 2).sum(axis=1)
    with numpy.errstate(invalid="ignore", divide="ignore"):
        return numpy.where(expected > 0, 1 - (n - 1) * (n - sums[:, 0]) / expected, numpy.nan)


def _interval(sums: numpy.ndarray) -> numpy.ndarray:
    """Rows of (squared distances within units, count, sum, sum of squares) to alpha; nan where all values are equal."""
    within, n, total, squares = sums.T
    # Values are whole steps, so sums are exact and equal values give 0.
    expected = 2 * (n * squares - total**2)
    with numpy.errstate(invalid="ignore", divide="ignore"):
        return numpy.where(expected > 0, 1 - (n - 1) * within / expected, numpy.nan)


def position_bias(judgements: Iterable[tuple[Ranking, Sequence[Hashable]]]) -> Figure:
    """How much oftener than by chance the completion shown first wins: 0 is none, 0.5 is always (of two).

    Takes (ranking, order shown). A win shared by m tied completions counts 1/m; by chance the first of K wins 1/K.
    The order is random, so quality cancels out. Wilson's interval of the share, less the share expected: with shared
    wins it is a little too wide. Wang et al. 2023 (arXiv:2305.17926) for the effect itself.
    """
    won, expected = [], []
    for ranking, order in judgements:
        if len(order) < 2 or not ranking:
            continue
        won.append(1 / len(ranking[0]) if order[0] in ranking[0] else 0.0)
        expected.append(1 / len(order))
    if not won:
        return undefined("no ranking")
    share, chance = sum(won) / len(won), sum(expected) / len(expected)
    low, high = wilson_interval(sum(won), len(won))
    return {
        "value": share - chance, "low": low - chance, "high": high - chance, "n": len(won), "share": share,
        "expected": chance, "method": "win rate of the completion shown first, less that by chance; Wilson interval",
    }  # fmt: skip


def agreement_with_others(tasks: Iterable[PairVotes]) -> dict[Hashable, Figure]:
    """Per annotator: the share of pairs on which they say what most of the others say.

    The annotator's own vote is left out of the majority, and so are pairs on which the others are split evenly.
    """
    right: dict[Hashable, list[int]] = {}
    counted: dict[Hashable, list[int]] = {}
    for task in tasks:
        mine: dict[Hashable, list[int]] = {}
        for votes in task.values():
            tally = Counter(votes.values())
            for annotator, vote in votes.items():
                same, total = mine.setdefault(annotator, [0, 0])
                others = tally.copy()
                others[vote] -= 1
                (top, most), *rest = others.most_common(2)
                if most and not (rest and rest[0][1] == most):
                    mine[annotator] = [same + (top == vote), total + 1]
        for annotator, (same, total) in mine.items():
            right.setdefault(annotator, []).append(same)
            counted.setdefault(annotator, []).append(total)
    return {annotator: clustered_proportion(right[annotator], counted[annotator]) for annotator in right}


def median_seconds(seconds: Iterable[float | None]) -> float | None:
    known = [value for value in seconds if value is not None]
    return median(known) if known else None
