"""Figures with intervals, checked by hand, by simulation and against scipy."""

import numpy
import pytest
from scipy import stats

from training.recipes._statistics import correlation, mean, proportion, wilson_interval


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
