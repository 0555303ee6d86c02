"""Figures with their uncertainty, for `result.json`."""

import math
from collections.abc import Hashable, Sequence

import numpy

Figure = dict[str, float | int | str | None]

Z_95 = 1.959963984540054


def proportion(successes: Sequence[float], groups: Sequence[Hashable]) -> Figure:
    """A share of pairs with a 95 % interval that knows that pairs of one prompt are not independent.

    `successes` holds 1, 0 or, for an undecided pair, 0.5; `groups` names the prompt group of each. The
    interval is Wilson's (1927) with n replaced by the effective number of pairs, n / design effect, where
    the design effect compares the variance between clusters with that of independent pairs (Korn and
    Graubard 1998). It is at least 1; where all pairs agree it cannot be estimated and the number of groups
    stands in. Unlike a bootstrap it does not collapse to a point on few or unanimous pairs.

    Returns `{"value", "low", "high", "n", "n_groups", "method"}`; value and limits are None where n is 0.
    """
    n = len(successes)
    n_groups = len(set(groups))
    method = "Wilson interval, effective n from clusters by group_id"
    if n == 0:
        return {"value": None, "low": None, "high": None, "n": 0, "n_groups": 0, "method": "no pairs"}
    values = numpy.asarray(successes, dtype=float)
    value = float(values.mean())
    independent_variance = value * (1 - value) / n
    if independent_variance == 0 or n_groups < 2:
        effective_n = float(n_groups)
    else:
        residuals: dict[Hashable, float] = {}
        for group, residual in zip(groups, values - value, strict=True):
            residuals[group] = residuals.get(group, 0.0) + residual
        clustered_variance = sum(r * r for r in residuals.values()) / n**2 * n_groups / (n_groups - 1)
        effective_n = n / max(1.0, clustered_variance / independent_variance)
    low, high = wilson_interval(value, effective_n)
    return {"value": value, "low": low, "high": high, "n": n, "n_groups": n_groups, "method": method}


def wilson_interval(value: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion `value` seen in `n` trials; `n` may be fractional."""
    centre = (value + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(value * (1 - value) / n + Z_95**2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def mean(values: Sequence[float], groups: Sequence[Hashable]) -> Figure:
    """A mean with a 95 % normal interval whose standard error is clustered by group.

    Limits are None below two groups.
    """
    n = len(values)
    if n == 0:
        return {"value": None, "low": None, "high": None, "n": 0, "n_groups": 0, "method": "no pairs"}
    array = numpy.asarray(values, dtype=float)
    value = float(array.mean())
    residuals: dict[Hashable, float] = {}
    for group, residual in zip(groups, array - value, strict=True):
        residuals[group] = residuals.get(group, 0.0) + residual
    n_groups = len(residuals)
    figure: Figure = {"value": value, "low": None, "high": None, "n": n, "n_groups": n_groups}
    if n_groups > 1:
        variance = sum(r * r for r in residuals.values()) / n**2 * n_groups / (n_groups - 1)
        half = Z_95 * math.sqrt(variance)
        figure |= {"low": value - half, "high": value + half}
    return figure | {"method": "normal interval, standard error clustered by group_id"}


def correlation(first: Sequence[float], second: Sequence[float]) -> Figure:
    """Pearson's correlation with Fisher's 95 % interval; None where one side does not vary or n < 4."""
    n = len(first)
    method = "Pearson, Fisher interval"
    x, y = numpy.asarray(first, dtype=float), numpy.asarray(second, dtype=float)
    if n < 4 or x.std() == 0 or y.std() == 0:
        return {
            "value": None,
            "low": None,
            "high": None,
            "n": n,
            "method": "not defined: too few or constant",
        }
    value = float(numpy.corrcoef(x, y)[0, 1])
    if abs(value) > 1 - 1e-12:
        return {"value": value, "low": value, "high": value, "n": n, "method": method}
    half = Z_95 / math.sqrt(n - 3)
    low, high = math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half)
    return {"value": value, "low": low, "high": high, "n": n, "method": method}
