"""How sure a reward head is, against truths that are known here."""

import numpy
import pytest
from scipy.special import expit

from training.recipes._bradley_terry import Pairs, held_out_margins, posterior, root, solve
from training.recipes._uncertainty import uncertainty_report
from training.sampling.certainty import DOES_NOT_KNOW, KNOWS, LEANS, interval, probability, verdicts


def drawn_pairs(n: int, n_features: int, seed: int, truth: numpy.ndarray | None = None) -> tuple[Pairs, numpy.ndarray]:
    """Pairs labelled by weights drawn from the prior of ridge 1, and those weights."""
    chance = numpy.random.default_rng(seed)
    truth = chance.normal(size=n_features) if truth is None else truth
    difference = chance.normal(size=(n, n_features))
    wins = chance.random(n) < expit(difference @ truth)
    return Pairs(numpy.where(wins, 1, -1)[:, None] * difference, numpy.ones(n), numpy.ones(n), numpy.arange(n)), truth


def test_intervals_of_the_probability_hold_the_truth_as_often_as_they_say() -> None:
    inside = []
    for seed in range(40):
        pairs, truth = drawn_pairs(150, 5, seed)
        weights = solve(pairs, 1.0, 60)
        covariance, _widening = posterior(pairs, weights, 1.0)
        asked = numpy.random.default_rng(1000 + seed).normal(size=(50, 5))
        low, high = interval(asked @ weights, numpy.linalg.norm(asked @ root(covariance), axis=1))
        true = expit(asked @ truth)
        inside.append(((low <= true) & (true <= high)).mean())
    assert numpy.mean(inside) == pytest.approx(0.95, abs=0.03)


def test_pairs_that_repeat_one_another_make_it_no_surer() -> None:
    pairs, _ = drawn_pairs(200, 4, 0)
    fourfold = pairs.take(numpy.repeat(numpy.arange(200), 4))
    once, widening_once = posterior(pairs, solve(pairs, 0.01, 60), 0.01)
    repeated, widening = posterior(fourfold, solve(fourfold, 0.04, 60), 0.04)
    assert widening_once == pytest.approx(1, abs=0.15)
    assert widening == pytest.approx(4 * widening_once, rel=0.05)
    assert numpy.trace(repeated) == pytest.approx(numpy.trace(once), rel=0.05)


def test_the_probability_moves_to_one_half_with_doubt_and_verdicts_follow_the_interval() -> None:
    margin, deviation = numpy.array([1.0, 1.0, 0.1, 0.1]), numpy.array([0.0, 3.0, 0.1, 2.0])
    claimed = probability(margin, deviation)
    assert claimed[0] == pytest.approx(expit(1.0))
    assert 0.5 < claimed[1] < claimed[0]
    # Against the integral over the posterior, by draws.
    drawn = expit(1.0 + 3.0 * numpy.random.default_rng(0).standard_normal(200_000)).mean()
    assert claimed[1] == pytest.approx(drawn, abs=0.01)
    assert verdicts(*interval(margin, deviation)).tolist() == [KNOWS, DOES_NOT_KNOW, LEANS, DOES_NOT_KNOW]


def test_the_report_bears_out_a_right_posterior_and_shows_up_one_that_is_too_sure() -> None:
    pairs, _ = drawn_pairs(1500, 8, 3)
    margins, spreads = held_out_margins(pairs, 1.0)
    honest = uncertainty_report(margins, spreads, pairs.group.tolist(), widening=1.0)
    (half, nine_tenths) = (row["covered"] for row in honest["coverage"])
    assert nine_tenths["n"] == 40 and nine_tenths["low"] <= 0.9 <= nine_tenths["high"] and half["low"] <= 0.5 <= half["high"]
    knows, leans, does_not = honest["verdicts"]
    assert knows["accuracy"]["value"] > 0.75 and knows["share"]["n"] == honest["n"] == 1500
    assert knows["share"]["value"] + leans["share"]["value"] + does_not["share"]["value"] == pytest.approx(1)
    boastful = uncertainty_report(margins * 4, spreads, pairs.group.tolist(), widening=1.0)
    assert boastful["coverage"][1]["covered"]["high"] < 0.9
    few = uncertainty_report(margins[:60], spreads[:60], pairs.group[:60].tolist(), widening=1.0)
    assert few["coverage"] == []
