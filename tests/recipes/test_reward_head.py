"""The cached-embedding reward model."""

from pathlib import Path

import numpy
import pytest

from tests.recipes.conftest import RunFolder, assistant, planted_rows, read_result, user
from training.recipes._runlog import Stopped, launch, read_events
from training.recipes.reward_head import (
    KIND,
    Pairs,
    RewardHeadArguments,
    bradley_terry_loss,
    fit_weights,
    main,
    posterior_precision,
    solve,
)
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
    assert launch(KIND, main, (RewardHeadArguments,), arguments) == 1
    *_, event = read_events(folder)
    assert event["type"] == "error"
    assert "train.jsonl, line 1: `rejected` is missing" in event["message"]
    assert not (folder / "result.json").exists()

    folder = run_folder(name="no_model")
    arguments = ["--run_dir", str(folder), "--model", "/models/missing"]
    assert launch(KIND, main, (RewardHeadArguments,), arguments) == 1
    *_, event = read_events(folder)
    assert "No model folder at /models/missing" in event["message"]
