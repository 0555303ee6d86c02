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


def clustered_correlation(
    first: Sequence[float], second: Sequence[float], groups: Sequence[Hashable], *, through_origin: bool = False
) -> Figure:
    """Pearson's correlation with a 95 % interval on Fisher's scale that knows that values of one group are not independent.

    `through_origin` leaves the means in: for differences within pairs, which could as well have been taken the other way
    round. The standard error is that of the linearised correlation, summed by group, at least that of independent
    values. None where one side does not vary or there are fewer than 4 values; the limits are None below two groups.
    """
    n, n_groups = len(first), len(set(groups))
    x, y = numpy.asarray(first, dtype=float), numpy.asarray(second, dtype=float)
    if not through_origin and n:
        x, y = x - x.mean(), y - y.mean()
    figure: Figure = {"value": None, "low": None, "high": None, "n": n, "n_groups": n_groups}
    if n < 4 or numpy.allclose(x, 0, atol=1e-12) or numpy.allclose(y, 0, atol=1e-12):
        return figure | {"method": "not defined: too few or constant"}
    x, y = x / math.sqrt(float((x**2).mean())), y / math.sqrt(float((y**2).mean()))
    value = float((x * y).mean())
    method = "Pearson, Fisher interval, standard error clustered by group_id"
    if abs(value) > 1 - 1e-12:
        return figure | {"value": value, "low": value, "high": value, "method": method}
    if n_groups > 1:
        sums: dict[Hashable, float] = {}
        for group, influence in zip(groups, x * y - value / 2 * (x**2 + y**2), strict=True):
            sums[group] = sums.get(group, 0.0) + influence
        error = math.sqrt(sum(total**2 for total in sums.values()) * n_groups / (n_groups - 1)) / n
        half = Z_95 * max(error / (1 - value**2), 1 / math.sqrt(n - 3))
        figure |= {"low": math.tanh(math.atanh(value) - half), "high": math.tanh(math.atanh(value) + half)}
    return figure | {"value": value, "method": method}


def ratio(totals: Sequence[float], sizes: Sequence[float], groups: Sequence[Hashable]) -> Figure:
    """The sum of `totals` over the sum of `sizes`, such as nats per token, with a 95 % normal interval by group.

    The standard error is that of a ratio estimator (Cochran 1977, Sampling Techniques, section 6.4) over the groups.
    `n` counts rows. Limits are None below two groups, the value too where the sizes add up to 0.
    """
    n = len(totals)
    if n == 0 or sum(sizes) == 0:
        return {"value": None, "low": None, "high": None, "n": n, "n_groups": len(set(groups)), "method": "no rows"}
    size = float(sum(sizes))
    value = float(sum(totals)) / size
    residuals: dict[Hashable, float] = {}
    for group, total, of in zip(groups, totals, sizes, strict=True):
        residuals[group] = residuals.get(group, 0.0) + (total - value * of) / size
    method = "ratio estimator, standard error clustered by group_id"
    return {"value": value, **_normal_limits(value, residuals), "n": n, "n_groups": len(residuals), "method": method}


def difference_of_means(values: Sequence[float], labels: Sequence[bool], groups: Sequence[Hashable]) -> Figure:
    """Mean of the values labelled true less that of those labelled false; 95 % normal interval clustered by group.

    Limits are None below two groups, the value too where one label is missing.
    """
    n_true, n_false = sum(map(bool, labels)), sum(not label for label in labels)
    if not n_true or not n_false:
        return _one_sided(len(values), groups)
    means = {
        side: sum(value for value, label in zip(values, labels, strict=True) if bool(label) is side) / count
        for side, count in ((True, n_true), (False, n_false))
    }
    residuals: dict[Hashable, float] = {}
    for group, value, label in zip(groups, values, labels, strict=True):
        share = (value - means[True]) / n_true if label else (means[False] - value) / n_false
        residuals[group] = residuals.get(group, 0.0) + share
    value, method = means[True] - means[False], "normal interval, standard error clustered by group_id"
    limits = _normal_limits(value, residuals)
    return {"value": value, **limits, "n": len(values), "n_groups": len(residuals), "method": method}


def area_under_curve(values: Sequence[float], labels: Sequence[bool], groups: Sequence[Hashable]) -> Figure:
    """How often a value labelled true is above one labelled false, ties by half: 0.5 is chance, 1 tells all apart.

    The variance is that of Obuchowski 1997 (Biometrics 53:567-578), which knows that values of one group are not
    independent. The interval is Wilson's with the n that a proportion of this variance would have, at most the number of
    values; where all are told apart, the number of groups of the rarer label stands in. The value is None where
    one label is missing.
    """
    array, is_true = numpy.asarray(values, dtype=float), numpy.asarray(labels, dtype=bool)
    of_true, of_false = array[is_true], array[~is_true]
    if not len(of_true) or not len(of_false):
        return _one_sided(len(values), groups)
    ranked_true, ranked_false = numpy.sort(of_true), numpy.sort(of_false)
    # Of each value the share of those of the other label that it is rightly above or below.
    placements = numpy.empty(len(array))
    placements[is_true] = (
        numpy.searchsorted(ranked_false, of_true, "left") + numpy.searchsorted(ranked_false, of_true, "right")
    ) / (2 * len(of_false))
    placements[~is_true] = 1 - (
        numpy.searchsorted(ranked_true, of_false, "left") + numpy.searchsorted(ranked_true, of_false, "right")
    ) / (2 * len(of_true))
    value = float(placements[is_true].mean())
    sums: dict[Hashable, list[float]] = {}
    for group, placement, label in zip(groups, placements, is_true, strict=True):
        held = sums.setdefault(group, [0.0, 0.0, 0, 0])
        held[0 if label else 1] += float(placement) - value
        held[2 if label else 3] += 1
    n_true_groups, n_false_groups = (sum(bool(held[side]) for held in sums.values()) for side in (2, 3))
    if min(n_true_groups, n_false_groups) > 1:
        true_part = n_true_groups / (n_true_groups - 1) * sum(held[0] ** 2 for held in sums.values())
        false_part = n_false_groups / (n_false_groups - 1) * sum(held[1] ** 2 for held in sums.values())
        both = len(sums) / (len(sums) - 1) * sum(held[0] * held[1] for held in sums.values())
        variance = true_part / len(of_true) ** 2 + false_part / len(of_false) ** 2
        variance += 2 * both / (len(of_true) * len(of_false))
    else:
        variance = 0.0
    if variance > 1e-12:
        effective_n = min(value * (1 - value) / variance, float(len(array)))
    else:
        effective_n = float(min(n_true_groups, n_false_groups))
    low, high = wilson_interval(value, effective_n)
    return {
        "value": value, "low": low, "high": high, "n": len(array), "n_groups": len(sums),
        "method": "area under the ROC curve; Wilson interval, effective n from clusters by group_id",
    }  # fmt: skip


def length_controlled(
    wins: Sequence[float], longer: Sequence[float], groups: Sequence[Hashable], weights: Sequence[float]
) -> Figure:
    """The win rate that a logistic regression expects of texts of equal length (Dubois et al. 2024, arXiv:2404.04475).

    `wins` are 1, 0 or 0.5 of each pair of texts, `longer` the length of the first less that of the second, which enters as
    tanh of its ratio to the standard deviation, `weights` what each pair counts. So that it exists also where length decides
    everything, one tie of equal length is added, and the coefficient of length has a normal prior of standard deviation
    3. The interval is of the logit, by the sandwich variance clustered by group or by the model's own, whichever is
    larger: the first vanishes where length tells all winners. Where all pairs were won, or all
    lost, there is nothing to control, and the figure is that of `proportion`. `n` is the sum of the weights.
    """
    n_groups, n = len(set(groups)), round(float(sum(weights)))
    method = "logistic regression on length, sandwich variance clustered by group_id"
    if len(wins) == 0:
        return {"value": None, "low": None, "high": None, "n": 0, "n_groups": 0, "method": "no pairs"}
    if len(set(wins)) == 1 and wins[0] in (0, 1):
        return proportion(wins, groups) | {"n": n}
    y, weight, spread = numpy.asarray(wins, dtype=float), numpy.asarray(weights, dtype=float), float(numpy.std(longer))
    x = numpy.tanh(numpy.asarray(longer, dtype=float) / spread) if spread else numpy.zeros(len(y))
    design = numpy.column_stack([numpy.ones(len(y)), x])
    beta = numpy.zeros(2)
    for _ in range(100):
        expected = 1 / (1 + numpy.exp(-design @ beta))
        at_tie = 1 / (1 + math.exp(-beta[0]))
        score = design.T @ (weight * (y - expected)) + numpy.array([0.5 - at_tie, -beta[1] / 9])
        information = design.T @ (design * (weight * expected * (1 - expected))[:, None])
        information += numpy.diag([at_tie * (1 - at_tie), 1 / 9])
        step = numpy.linalg.solve(information, score)
        beta = beta + step
        if abs(step).max() < 1e-10:
            break
    value = 1 / (1 + math.exp(-beta[0]))
    figure: Figure = {"value": value, "low": None, "high": None, "n": n, "n_groups": n_groups, "method": method}
    if n_groups < 2:
        return figure
    scores: dict[Hashable, numpy.ndarray] = {}
    for group, row in zip(groups, design * (weight * (y - expected))[:, None], strict=True):
        scores[group] = scores.get(group, 0.0) + row
    meat = sum(numpy.outer(one, one) for one in scores.values()) * n_groups / (n_groups - 1)
    bread = numpy.linalg.inv(information)
    half = Z_95 * math.sqrt(max(float((bread @ meat @ bread)[0, 0]), float(bread[0, 0])))
    return figure | {"low": 1 / (1 + math.exp(half - beta[0])), "high": 1 / (1 + math.exp(-half - beta[0]))}


def _normal_limits(value: float, residuals: dict[Hashable, float]) -> dict[str, float | None]:
    n_groups = len(residuals)
    if n_groups < 2:
        return {"low": None, "high": None}
    half = Z_95 * math.sqrt(sum(r * r for r in residuals.values()) * n_groups / (n_groups - 1))
    return {"low": value - half, "high": value + half}


def _one_sided(n: int, groups: Sequence[Hashable]) -> Figure:
    method = "not defined: all held-out rows have one label"
    return {"value": None, "low": None, "high": None, "n": n, "n_groups": len(set(groups)), "method": method}
