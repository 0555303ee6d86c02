"""The shape of a figure, and the 95 % intervals that several figures share."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from statistics import median
from typing import Any

import numpy

Figure = dict[str, Any]

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
    half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(max(0.0, value * (1 - value)) / n + Z_95**2 / (4 * n * n))
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
    if independent <= 0 or clusters < 2:
        effective_n = float(clusters)
    else:
        clustered = float(((won - value * all_) ** 2).sum()) / n**2 * clusters / (clusters - 1)
        effective_n = n / max(1.0, clustered / independent)
    low, high = wilson_interval(value * effective_n, effective_n)
    return {"value": value, "low": low, "high": high, "n": int(n), "method": CLUSTERED}


def blocks_of(clusters: numpy.ndarray, most: int = MAX_BLOCKS, seed: int = 0) -> tuple[numpy.ndarray, int]:
    """The block that each row is drawn with in a bootstrap: its cluster, or one of `most` random sets of clusters."""
    known, block = numpy.unique(clusters, return_inverse=True)
    if len(known) <= most:
        return block, len(known)
    return (numpy.random.default_rng(seed).permutation(len(known)) % most)[block], most


def sums_by(block: numpy.ndarray, n_blocks: int, *columns: numpy.ndarray) -> numpy.ndarray:
    """The sums of columns within blocks, of shape (blocks, columns)."""
    return numpy.column_stack([numpy.bincount(block, column, n_blocks) for column in columns])


@lru_cache(maxsize=8)
def _draws(n_blocks: int, seed: int) -> numpy.ndarray:
    rng = numpy.random.default_rng(seed)
    return rng.multinomial(n_blocks, numpy.full(n_blocks, 1 / n_blocks), size=RESAMPLES).astype(float)


def bootstrapped(
    statistic: Callable[[numpy.ndarray], numpy.ndarray], sums: numpy.ndarray, n: int, *, reason: str, seed: int = 0
) -> Figure:
    """A statistic of sums over blocks of tasks, with its percentile bootstrap over them.

    `statistic` takes rows of sums and gives one number a row, nan where it isn't defined, which is for `reason`.
    Tasks are drawn, not the units in them: a task's pairs are not independent, and drawing them one by one (as
    Hayes' bootstrap of alpha does) gives intervals that are too narrow.
    """
    value = float(statistic(sums.sum(axis=0)[None])[0])
    if math.isnan(value):
        return undefined(reason, n)
    figure = {"value": value, "low": None, "high": None, "n": n}
    if len(sums) < 2:
        return figure | {"method": "no interval: needs two tasks"}
    resampled = statistic(_draws(len(sums), seed) @ sums)
    resampled = resampled[~numpy.isnan(resampled)]
    if not len(resampled):
        return figure | {"method": "no interval: too few tasks"}
    low, high = numpy.quantile(resampled, [0.025, 0.975])
    return figure | {"low": float(low), "high": float(high), "method": f"bootstrap by task, {RESAMPLES:,} resamples"}


def median_seconds(seconds: Iterable[float | None]) -> float | None:
    known = [value for value in seconds if value is not None]
    return median(known) if known else None
