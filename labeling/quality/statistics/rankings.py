"""Agreement of whole rankings, and the bias towards what is shown first."""

from collections.abc import Hashable, Iterable, Sequence

import numpy

from labeling.quality.statistics.agreement import NOT_TWICE, Answers
from labeling.quality.statistics.intervals import Figure, blocks_of, bootstrapped, sums_by, undefined, wilson_interval
from labeling.quality.statistics.votes import Ranking, Rankings

BIAS_METHOD = "win rate of the completion shown first, less that by chance; Wilson interval"


def kendall_tau(rankings: Rankings, *, seed: int = 0) -> Figure:
    """Kendall's tau-b (1945) of two rankings, averaged over the pairs of annotators of a task, then over tasks.

    1 is the same order, -1 the reverse, 0 no relation; ties are allowed. A pair in which one tied everything has no tau
    and doesn't count. `n` counts tasks. The interval is the bootstrap over tasks.
    """
    tasks, taus = [], []
    for task, ranks in rankings.shared():
        left, right = numpy.triu_indices(ranks.shape[2], 1)
        signs = numpy.sign(ranks[:, :, left] - ranks[:, :, right]).astype(float)  # (tasks, annotators, pairs)
        untied = (signs**2).sum(axis=2)
        concordant = signs @ signs.transpose(0, 2, 1)
        one, other = numpy.triu_indices(ranks.shape[1], 1)
        with numpy.errstate(invalid="ignore", divide="ignore"):
            tau = concordant[:, one, other] / numpy.sqrt(untied[:, one] * untied[:, other])
        has_any = ~numpy.isnan(tau).all(axis=1)
        tasks.append(task[has_any])
        taus.append(numpy.nanmean(tau[has_any], axis=1))
    return _mean_over_tasks(tasks, taus, "no two people ranked the same completions of a task", seed)


def kendall_w(rankings: Rankings, *, seed: int = 0) -> Figure:
    """Kendall's coefficient of concordance W with the correction for ties, averaged over tasks.

    Of tasks that two or more ranked in full. 1 is full agreement. It can't be negative: m annotators who guess get 1 / m
    on average, so compare it only where tasks have alike numbers of annotators. `n` counts tasks.
    """
    tasks, all_ = [], []
    for task, ranks in rankings.shared():
        middle = _middle_ranks(ranks)
        n_annotators, n_items = ranks.shape[1:]
        spread = ((middle.sum(axis=1) - n_annotators * (n_items + 1) / 2) ** 2).sum(axis=1)
        # Of m annotators the largest spread: m times the sum of squares of each one's own ranks about their mean.
        largest = n_annotators * ((middle - (n_items + 1) / 2) ** 2).sum(axis=(1, 2))
        is_ranked = largest > 0
        tasks.append(task[is_ranked])
        all_.append(spread[is_ranked] / largest[is_ranked])
    return _mean_over_tasks(tasks, all_, "no task was ranked by two people who did not tie everything", seed)


def ranks_as_answers(rankings: Rankings) -> Answers:
    """The place of each completion as an answer: units are completions of tasks; a shared place is the mean of places."""
    units, clusters, values = [], [], []
    n_units = 0
    for task, ranks in rankings.shared():
        n_tasks, n_annotators, n_items = ranks.shape
        unit = n_units + numpy.arange(n_tasks * n_items).reshape(n_tasks, 1, n_items)
        units.append(numpy.broadcast_to(unit, ranks.shape).ravel())
        clusters.append(numpy.repeat(task, n_annotators * n_items))
        values.append(_middle_ranks(ranks).ravel())
        n_units += n_tasks * n_items
    if not units:
        return Answers(numpy.zeros(0, int), numpy.zeros(0, int), numpy.zeros(0, int), [])
    return Answers.coded(*(numpy.concatenate(column) for column in (units, clusters, values)))


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
    return position_bias_of(len(won), sum(won), sum(expected))


def position_bias_of(n: int, won: float, expected: float) -> Figure:
    """The same from sums: of n rankings the first shown won `won`, by chance it would have won `expected`."""
    if not n:
        return undefined("no ranking whose order shown is known")
    share, chance = won / n, expected / n
    low, high = wilson_interval(won, n)
    return {
        "value": share - chance, "low": low - chance, "high": high - chance, "n": int(n), "share": share,
        "expected": chance, "method": BIAS_METHOD,
    }  # fmt: skip


def _middle_ranks(ranks: numpy.ndarray) -> numpy.ndarray:
    """Places from 1; those who share some places each get their mean."""
    before = (ranks[..., None, :] < ranks[..., :, None]).sum(axis=-1)
    same = (ranks[..., None, :] == ranks[..., :, None]).sum(axis=-1)
    return before + (same + 1) / 2


def _mean_over_tasks(tasks: list[numpy.ndarray], values: list[numpy.ndarray], reason: str, seed: int) -> Figure:
    if not sum(map(len, values)):
        return undefined(reason if tasks else NOT_TWICE)
    value = numpy.concatenate(values)
    block, n_blocks = blocks_of(numpy.concatenate(tasks))
    sums = sums_by(block, n_blocks, numpy.ones_like(value), value)
    return bootstrapped(lambda rows: rows[:, 1] / rows[:, 0], sums, len(value), reason=reason, seed=seed)
