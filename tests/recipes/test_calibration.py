"""Whether probabilities are borne out: simulated models that are calibrated, too sure, and worth nothing."""

import numpy
import pytest
from scipy.special import expit

from training.recipes._calibration import MOST_TEMPERATURE, calibration, fit_scale, scaled_margins


def margins_of(n: int, *, temperature: float, seed: int = 0, spread: float = 1.2) -> tuple[list[float], list[int]]:
    """Pairs labelled by the model's own probabilities, whose margins were then multiplied; three pairs a group."""
    chance = numpy.random.default_rng(seed)
    logit = chance.normal(size=n) * spread
    wins = chance.random(n) < expit(logit)
    return (numpy.where(wins, logit, -logit) * temperature).tolist(), (numpy.arange(n) // 3).tolist()


def test_a_calibrated_model_has_a_small_error_that_chance_explains() -> None:
    found = calibration(*margins_of(3000, temperature=1))
    assert found["ece"]["value"] < 0.03 and found["ece"]["low"] == 0
    assert found["ece"]["value"] <= found["ece_by_chance"]["high"]
    assert found["temperature"]["low"] <= 1 <= found["temperature"]["high"]
    assert len(found["bins"]) == 10 and all(row["right"]["n"] == 300 for row in found["bins"])
    within = [row["right"]["low"] <= row["predicted"] <= row["right"]["high"] for row in found["bins"]]
    assert sum(within) >= 9
    assert found["brier"]["n"] == 3000 and abs(found["log_loss_change"]["value"]) < 0.002


@pytest.mark.parametrize("temperature", [0.5, 3])
def test_a_model_that_is_too_sure_or_too_little_is_found_out_and_put_right(temperature: float) -> None:
    found = calibration(*margins_of(3000, temperature=temperature))
    assert found["ece"]["low"] > 0 and found["ece"]["value"] > found["ece_by_chance"]["high"]
    assert found["temperature"]["value"] == pytest.approx(temperature, rel=0.15)
    assert found["temperature"]["low"] <= temperature <= found["temperature"]["high"]
    assert found["log_loss_change"]["high"] < 0  # on pairs that the temperature was not fitted on
    assert found["log_loss"]["value"] > found["log_loss_scaled"]["value"]


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    hits = {"ece": 0, "chance": 0, "temperature": 0}
    for seed in range(60):
        found = calibration(*margins_of(300, temperature=1, seed=seed))
        hits["ece"] += found["ece"]["low"] <= 0
        hits["chance"] += found["ece"]["value"] <= found["ece_by_chance"]["high"]
        hits["temperature"] += found["temperature"]["low"] <= 1 <= found["temperature"]["high"]
    assert all(52 <= count <= 60 for count in hits.values())


def test_a_pairs_own_group_has_no_part_in_its_temperature() -> None:
    margin, group = (numpy.array(values) for values in margins_of(300, temperature=1))
    turned = numpy.where(group == 7, -50.0, margin)  # would change any temperature that it took part in
    before, _ = scaled_margins(margin, group)
    after, figure = scaled_margins(turned, group)
    own = group == 7
    assert (after[own] / turned[own]) == pytest.approx(before[own] / margin[own])
    assert (after[~own] / turned[~own]).max() < (before[~own] / margin[~own]).max()
    assert figure["n_groups"] == 100


def test_a_model_without_any_idea_is_scaled_to_one_half_and_few_pairs_are_not_fitted() -> None:
    chance = numpy.random.default_rng(1)
    worse = -abs(chance.normal(size=200)) - 0.1  # always wrong
    assert fit_scale(worse) == pytest.approx(1 / MOST_TEMPERATURE)
    _, figure = scaled_margins(worse, numpy.arange(200))
    assert figure["value"] == pytest.approx(20) and figure["low"] is None and "end of the range" in figure["method"]
    few = calibration([1.0, -1.0, 2.0], ["a", "b", "c"])
    assert few["temperature"]["value"] is None and "not fitted" in few["temperature"]["method"]
    assert few["log_loss_scaled"] is None and len(few["bins"]) == 1
    none = calibration([], [])
    assert (none["bins"], none["ece"]["value"], none["brier"]["value"]) == ([], None, None)


def test_brier_and_log_loss_by_hand() -> None:
    found = calibration([0.0, numpy.log(3)], ["a", "b"])
    assert found["brier"]["value"] == pytest.approx((0.25 + 0.0625) / 2)
    assert found["log_loss"]["value"] == pytest.approx((numpy.log(2) + numpy.log(4 / 3)) / 2)
    assert found["bins"][0]["predicted"] == pytest.approx((0.5 + 0.75) / 2)
    assert found["bins"][0]["right"]["value"] == 0.75
