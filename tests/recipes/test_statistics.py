"""Figures with intervals, checked by hand, by simulation and against scipy."""

import numpy
import pytest
from scipy import stats

from training.recipes._statistics import (
    area_under_curve,
    correlation,
    difference_of_means,
    mean,
    proportion,
    ratio,
    wilson_interval,
)


def test_wilson_interval_equals_scipys() -> None:
    theirs = stats.binomtest(17, 24).proportion_ci(method="wilson")
    assert wilson_interval(17 / 24, 24) == pytest.approx((theirs.low, theirs.high))


def test_independent_pairs_give_the_plain_wilson_interval_or_a_wider_one() -> None:
    successes = [1, 0, 1, 1] * 10
    figure = proportion(successes, list(range(40)))
    assert figure["value"] == 0.75
    assert figure["n"] == figure["n_groups"] == 40
    assert (figure["low"], figure["high"]) == pytest.approx(wilson_interval(0.75, 40), abs=0.01)


def test_identical_pairs_of_a_group_count_once() -> None:
    once = proportion([1, 0, 1, 1] * 10, list(range(40)))
    copied = proportion([1, 0, 1, 1] * 40, list(range(40)) * 4)
    assert copied["n"] == 160
    assert (copied["low"], copied["high"]) == pytest.approx((once["low"], once["high"]), abs=0.01)


def test_unanimous_and_empty_sets_have_sensible_limits() -> None:
    figure = proportion([1, 1, 1, 1], ["a", "a", "b", "b"])
    assert figure["value"] == 1
    assert (figure["low"], figure["high"]) == pytest.approx(wilson_interval(1, 2))
    assert proportion([], [])["value"] is None


def test_the_interval_covers_a_clustered_truth_about_as_often_as_it_says() -> None:
    chance = numpy.random.default_rng(5)
    covered = 0
    for _ in range(400):
        of_group = chance.beta(7, 3, size=40)  # each prompt has an accuracy of its own, 0.7 on average
        figure = proportion(
            (chance.random((40, 6)) < of_group[:, None]).ravel().astype(float).tolist(),
            numpy.repeat(numpy.arange(40), 6).tolist(),
        )
        covered += figure["low"] <= 0.7 <= figure["high"]
    assert 0.91 <= covered / 400 <= 0.99


def test_mean_by_singletons_is_the_usual_standard_error() -> None:
    values = [1.0, 2.0, 4.0, 9.0]
    figure = mean(values, range(4))
    half = 1.959964 * numpy.std(values, ddof=1) / 2
    assert (figure["low"], figure["high"]) == pytest.approx((4 - half, 4 + half), rel=1e-6)
    assert mean([3.0], ["a"])["low"] is None


def test_correlation_equals_scipys_and_is_undefined_for_constants() -> None:
    x, y = [1, 2, 3, 4, 5, 6], [2, 1, 4, 3, 6, 7]
    theirs = stats.pearsonr(x, y)
    figure = correlation(x, y)
    assert figure["value"] == pytest.approx(theirs.statistic)
    assert (figure["low"], figure["high"]) == pytest.approx(tuple(theirs.confidence_interval()))
    assert correlation(x, [1] * 6)["value"] is None


def test_a_ratio_weighs_rows_by_their_size_and_equals_a_mean_where_all_are_one() -> None:
    assert ratio([2.0, 9.0], [1, 9], ["a", "b"])["value"] == pytest.approx(1.1)
    values, groups = [1.0, 2.0, 4.0, 9.0], ["a", "a", "b", "c"]
    figure, plain = ratio(values, [1] * 4, groups), mean(values, groups)
    assert [figure[key] for key in ("value", "low", "high", "n", "n_groups")] == pytest.approx(
        [plain[key] for key in ("value", "low", "high", "n", "n_groups")]
    )
    assert ratio([1.0], [0], ["a"])["value"] is None
    assert ratio([1.0], [2], ["a"])["low"] is None


def test_a_difference_of_means_of_independent_values_has_welchs_standard_error() -> None:
    chance = numpy.random.default_rng(3)
    first, second = chance.normal(1, 2, 400), chance.normal(0, 1, 300)
    figure = difference_of_means([*first, *second], [True] * 400 + [False] * 300, range(700))
    welch = stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    assert figure["value"] == pytest.approx(first.mean() - second.mean())
    assert (figure["low"], figure["high"]) == pytest.approx((welch.low, welch.high), abs=0.01)
    # What both of a group have in common takes no part in their difference.
    paired = difference_of_means([5.1, 5.0, 0.1, 0.0, 9.1, 9.0], [True, False] * 3, [1, 1, 2, 2, 3, 3])
    assert paired["high"] - paired["low"] < 1e-6
    assert difference_of_means([1.0, 2.0], [True, True], [1, 2])["value"] is None


def test_the_area_under_the_curve_is_mann_whitneys_share_and_has_sensible_limits() -> None:
    chance = numpy.random.default_rng(4)
    values, labels = chance.integers(0, 6, 60).astype(float), chance.random(60) < 0.4
    values[labels] += 1
    figure = area_under_curve(list(values), list(labels), range(60))
    count = stats.mannwhitneyu(values[labels], values[~labels]).statistic
    assert figure["value"] == pytest.approx(count / (labels.sum() * (~labels).sum()))
    assert figure["low"] < figure["value"] < figure["high"]
    copied = area_under_curve([*values] * 4, [*labels] * 4, [*range(60)] * 4)
    assert (copied["low"], copied["high"]) == pytest.approx((figure["low"], figure["high"]), abs=0.01)
    apart = area_under_curve([1.0, 2.0, 3.0, 4.0], [False, False, True, True], "abcd")
    assert apart["value"] == 1 and apart["low"] == pytest.approx(wilson_interval(1, 2)[0])
    assert area_under_curve([1.0, 2.0], [False, False], "ab")["value"] is None


def test_the_interval_of_the_area_covers_a_clustered_truth_about_as_often_as_it_says() -> None:
    """Two completions of either label to a group, whose rewards share what the group has; the truth is 0.7602."""
    chance = numpy.random.default_rng(6)
    covered = 0
    for _ in range(400):
        shared = numpy.repeat(chance.normal(0, 1, 40), 4)
        labels = numpy.tile([True, True, False, False], 40)
        values = shared + chance.normal(0, 1, 160) + 1.414 * labels
        figure = area_under_curve(list(values), list(labels), list(numpy.repeat(range(40), 4)))
        covered += figure["low"] <= stats.norm.cdf(1.414 / 2) <= figure["high"]
    assert covered / 400 == pytest.approx(0.95, abs=0.035)
