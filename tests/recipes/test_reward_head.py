"""The cached-embedding reward model."""

import json
from pathlib import Path

import numpy
import pytest

from tests.recipes.conftest import RunFolder, assistant, planted_rows, read_result, user
from training.recipes._arguments import parse_plain
from training.recipes._bradley_terry import (
    Pairs,
    bradley_terry_loss,
    fit_weights,
    posterior_precision,
    solve,
    temperature,
)
from training.recipes._eventlog import Stopped, launch, read_events
from training.recipes.reward_head import KIND, RewardHeadArguments, is_calibrated, main, right_where_sure
from training.sampling.reward_head import FeatureMap, RewardHead


def synthetic_pairs(n: int, truth: numpy.ndarray, seed: int = 0) -> Pairs:
    """Pairs labelled by a Bradley-Terry model with known weights."""
    chance = numpy.random.default_rng(seed)
    difference = chance.normal(size=(n, len(truth)))
    wins = chance.random(n) < 1 / (1 + numpy.exp(-difference @ truth))
    return Pairs(numpy.where(wins, 1, -1)[:, None] * difference, numpy.ones(n), numpy.ones(n), numpy.arange(n))


def test_planted_weights_are_recovered_within_their_posterior() -> None:
    truth = numpy.array([1.5, -1.0, 0.5, 0.0])
    pairs = synthetic_pairs(4000, truth)
    weights = solve(pairs, 0.01, 100)
    deviation = numpy.sqrt(numpy.diag(numpy.linalg.inv(posterior_precision(pairs, weights, 0.01))))
    assert (abs(weights - truth) < 3.5 * deviation).all()
    losses = [
        bradley_terry_loss(pairs.difference @ step, pairs.target, pairs.weight) for step in fit_weights(pairs, 1, 50)
    ]
    assert losses[-1] < losses[0] < 0.6932


@pytest.mark.parametrize("scale", [1e-3, 0.2, 1, 5, 20, 1000])
def test_the_solution_does_not_depend_on_the_units(scale: float) -> None:
    pairs = synthetic_pairs(4000, numpy.array([2.0, -1.0]))
    scaled = Pairs(pairs.difference * scale, pairs.target, pairs.weight, pairs.group)
    assert solve(scaled, 1e-9, 100) * scale == pytest.approx(solve(pairs, 1e-9, 100), rel=1e-4)


def test_a_weight_of_two_is_the_same_as_the_pair_twice() -> None:
    pairs = synthetic_pairs(50, numpy.array([1.0, -1.0]))
    weighted = Pairs(pairs.difference, pairs.target, numpy.where(pairs.group < 10, 2.0, 1.0), pairs.group)
    doubled = pairs.take(numpy.concatenate([numpy.arange(50), numpy.arange(10)]))
    assert solve(weighted, 0.5, 100) == pytest.approx(solve(doubled, 0.5, 100), abs=1e-6)
    assert solve(weighted, 0.5, 100) != pytest.approx(solve(pairs, 0.5, 100), abs=1e-3)


def test_a_tie_pulls_the_rewards_together() -> None:
    pairs = synthetic_pairs(50, numpy.array([1.0, -1.0]))
    ties = Pairs(pairs.difference, numpy.full(50, 0.5), pairs.weight, pairs.group)
    assert abs(solve(ties, 0.5, 100)).max() < 1e-6  # no preference at all
    assert bradley_terry_loss(numpy.zeros(50), ties.target, ties.weight) == pytest.approx(numpy.log(2))


def test_features_have_unit_mean_square_norm_and_few_dimensions() -> None:
    embeddings = numpy.random.default_rng(0).normal(size=(200, 100)) * numpy.geomspace(1000, 1, 100)
    features = FeatureMap.fit(embeddings, 64)(embeddings)
    assert features.shape == (200, 64)
    assert (features**2).sum(axis=1).mean() == pytest.approx(1)
    assert features.mean(axis=0) == pytest.approx(numpy.zeros(64), abs=1e-9)


def test_planted_preference_is_learnt_scored_and_cached(
    run_folder: RunFolder, tiny_model: Path, tmp_path: Path
) -> None:
    # 20 % of the labels are wrong, so at best 0.8 of the held-out pairs can be right.
    train, held_out = planted_rows(range(60), noise=0.2), planted_rows(range(60, 120), noise=0.2)
    train += [train[0] | {"tie": True}]
    cache = tmp_path / "shared" / "embeddings.sqlite"
    folder = run_folder(train, held_out)
    main(RewardHeadArguments(run_dir=folder, model=str(tiny_model), cache=cache))
    result = read_result(folder)
    accuracy = result["figures"]["accuracy"]
    assert accuracy["low"] <= 0.8 <= accuracy["high"]
    assert accuracy["low"] > 0.6
    assert (accuracy["n"], accuracy["n_groups"]) == (180, 60)
    assert result["figures"]["cv_accuracy"]["n"] == 180
    assert result["dataset"]["n_train_ties"] == 1
    assert result["n_encoded"] == result["n_texts"] > 300
    assert set(result["files"]) == {"reward_head.json", "reward_head.safetensors"}
    events = list(read_events(folder))
    curve = [event["metrics"]["loss"] for event in events if event["type"] == "metric"]
    assert len(curve) > 3
    assert curve[-1] < curve[0]
    assert [event for event in events if event["type"] == "progress"][-1]["done"] == result["n_texts"]

    head = RewardHead.load(folder / "model")
    few, many = head.score(
        [user("How do I reset number 500?")] * 2, ["Open page 3.", "Thank you! Thank you! Open page 3."]
    )
    assert many > few

    # A refit on other labels of the same texts encodes nothing.
    again = run_folder(train[:90], held_out, name="again")
    main(RewardHeadArguments(run_dir=again, model=str(tiny_model), cache=cache, ridge_by="cv"))
    assert read_result(again)["n_encoded"] == 0


def test_pairs_of_a_single_group_are_fitted_by_evidence(run_folder: RunFolder, tiny_model: Path) -> None:
    folder = run_folder(planted_rows(range(1)), [])
    main(RewardHeadArguments(run_dir=folder, model=str(tiny_model), ridge_by="cv"))
    assert [event["reason"] for event in read_events(folder) if event.get("state") == "ridge_by_evidence"]
    assert read_result(folder)["dataset"]["n_train"] == 3


def test_a_head_refuses_another_base_model(run_folder: RunFolder, tiny_model: Path, tmp_path: Path) -> None:
    from training.sampling.tiny_model import build_tiny_model

    folder = run_folder()
    main(RewardHeadArguments(run_dir=folder, model=str(tiny_model)))
    other = build_tiny_model(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match="hashes differ"):
        RewardHead.load(folder / "model", base_model=str(other)).score([user("Hi")], ["Yes"])


def test_stopped_while_encoding_keeps_what_is_encoded(run_folder: RunFolder, tiny_model: Path) -> None:
    folder = run_folder()
    (folder / "stop").touch()
    with pytest.raises(Stopped):
        main(RewardHeadArguments(run_dir=folder, model=str(tiny_model)))
    (folder / "stop").unlink()
    main(RewardHeadArguments(run_dir=folder, model=str(tiny_model)))
    assert read_result(folder)["figures"]["accuracy"]["n"] == 12


def test_without_held_out_pairs_the_cross_validated_figure_remains(run_folder: RunFolder, tiny_model: Path) -> None:
    folder = run_folder(evaluation=[])
    main(RewardHeadArguments(run_dir=folder, model=str(tiny_model)))
    figures = read_result(folder)["figures"]
    assert "accuracy" not in figures
    assert figures["cv_accuracy"]["n"] == 24


def test_the_command_line_reports_errors_as_events(run_folder: RunFolder) -> None:
    folder = run_folder([{"prompt": user("Hi"), "chosen": assistant("Yes")}])
    arguments = ["--run_dir", str(folder), "--model", "/models/missing"]
    assert launch(KIND, main, (RewardHeadArguments,), arguments, parse=parse_plain) == 1
    *_, event = read_events(folder)
    assert event["type"] == "error"
    assert "train.jsonl, line 1: `rejected` is missing" in event["message"]
    assert not (folder / "result.json").exists()

    folder = run_folder(name="no_model")
    arguments = ["--run_dir", str(folder), "--model", "/models/missing"]
    assert launch(KIND, main, (RewardHeadArguments,), arguments, parse=parse_plain) == 1
    *_, event = read_events(folder)
    assert "No model folder at /models/missing" in event["message"]


def test_it_is_sure_of_the_opposite_where_labels_were_turned_round(run_folder: RunFolder, tiny_model: Path) -> None:
    train, held_out = planted_rows(range(80)), planted_rows(range(80, 100))
    rows = train + held_out
    for number, row in enumerate(rows):
        row["id"] = f"p{number}"
    # The second of each three is the best against the worst.
    turned = [train[1 + 3 * group] for group in range(0, 80, 16)] + [held_out[1]]
    for row in turned:
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    del train[0]["id"]
    folder = run_folder(train, held_out)
    main(RewardHeadArguments(run_dir=folder, model=str(tiny_model)))
    result = read_result(folder)
    beliefs = {row["id"]: row["probability"] for row in map(json.loads, (folder / "beliefs.jsonl").open())}
    assert len(beliefs) == 299 and all(0 < value < 1 for value in beliefs.values())
    assert {id for id, value in beliefs.items() if value <= 0.1} == {row["id"] for row in turned}
    figure = result["figures"]["right_where_sure"]
    assert figure["n"] >= 100 and figure["value"] == pytest.approx(1 - 6 / figure["n"])
    assert result["calibration"]["is_calibrated"]


def test_labels_that_say_little_make_it_sure_of_nothing(run_folder: RunFolder, tiny_model: Path) -> None:
    folder = run_folder(planted_rows(range(60), noise=0.45), planted_rows(range(60, 80), noise=0.45))
    main(RewardHeadArguments(run_dir=folder, model=str(tiny_model)))
    assert not read_result(folder)["calibration"]["is_calibrated"]
    assert (folder / "beliefs.jsonl").read_text() == ""  # the pairs had no ids


def test_margins_become_log_odds() -> None:
    pairs = synthetic_pairs(4000, numpy.array([2.0]))
    assert temperature(pairs.difference[:, 0] * 5, pairs, 100) == pytest.approx(2 / 5, rel=0.1)
    probability = numpy.array([0.95, 0.95, 0.05, 0.5, 0.99])
    figure = right_where_sure(probability, numpy.array([1, 1, 1, 1, 0.5]), numpy.arange(5))
    assert (figure["n"], figure["value"]) == (3, pytest.approx(2 / 3))
    assert not is_calibrated(figure)
    assert is_calibrated({"n": 20, "low": 0.8}) and not is_calibrated({"n": 19, "low": 0.9})
    assert not is_calibrated(right_where_sure(numpy.full(5, 0.5), numpy.ones(5), numpy.arange(5)))
