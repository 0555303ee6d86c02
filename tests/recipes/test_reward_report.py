"""The report of a reward model, on simulated rewards whose faults are known, and from the recipes."""

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
from datasets import Dataset
from scipy.special import expit

from tests.recipes.conftest import RunFolder, assistant, planted_rows, read_result, user, write_rows
from training.recipes._data import load_preferences
from training.recipes._reward_report import (
    CROSS_VALIDATED,
    headlines,
    reward_report,
    write_predictions,
)
from training.recipes._statistics import clustered_correlation, correlation
from training.recipes.reward import RewardArguments, RewardSettings
from training.recipes.reward import main as train_reward
from training.recipes.reward_head import RewardHeadArguments
from training.recipes.reward_head import main as train_head

N = 1200


def pair(number: int, lengths: tuple[int, int] = (20, 20), **columns: Any) -> dict[str, Any]:
    """A row of eval.jsonl; three pairs a group."""
    chosen, rejected = (f"{side}{number:06}{'x' * (length - 7)}" for side, length in zip("cr", lengths, strict=True))
    return {
        "prompt": user(f"Prompt {number // 3}"), "chosen": assistant(chosen), "rejected": assistant(rejected),
        "group_id": f"g{number // 3}", "id": f"p{number}", **columns,
    }  # fmt: skip


@pytest.fixture
def loaded(tmp_path: Path):
    """Makes rows into what the recipes load."""

    def load(rows: list[dict[str, Any]]) -> Dataset:
        write_rows(tmp_path / "train.jsonl", rows)
        return load_preferences(tmp_path)["train"]

    return load


def report_on(dataset: Dataset, margins: Any, **options: Any) -> dict[str, Any]:
    return reward_report(dataset, margins, numpy.zeros(len(margins)), **options)


def biased(n: int, bias: float, seed: int = 0) -> tuple[list[dict[str, Any]], numpy.ndarray, numpy.ndarray]:
    """People follow a worth that has nothing to do with length; the model adds `bias` times the log length to it."""
    chance = numpy.random.default_rng(seed)
    lengths = numpy.exp(chance.uniform(numpy.log(20), numpy.log(400), size=(n, 2))).astype(int)
    worth = chance.normal(size=(n, 2))
    first_wins = chance.random(n) < expit(worth[:, 0] - worth[:, 1])
    order = numpy.where(first_wins[:, None], [[0, 1]], [[1, 0]])
    lengths, worth = (numpy.take_along_axis(values, order, axis=1) for values in (lengths, worth))
    rewards = worth + bias * numpy.log(lengths)
    rows = [pair(number, (int(own[0]), int(own[1]))) for number, own in enumerate(lengths)]
    return rows, rewards[:, 0], rewards[:, 1]


def test_a_length_bias_shows_where_the_shorter_won(loaded) -> None:
    rows, chosen, rejected = biased(N, bias=2)
    length = reward_report(loaded(rows), chosen, rejected)["length"]
    assert length["difference"]["low"] > 0.3
    assert length["shorter_won"]["high"] < 0.5 < length["longer_won"]["low"]
    assert length["people"]["low"] <= 0.5 <= length["people"]["high"]
    assert length["model"]["low"] > 0.75
    assert length["within_prompt"]["low"] > 0.6 and length["overall"]["low"] > 0.6
    assert [row["high"] <= later["low"] for row, later in zip(length["by_ratio"], length["by_ratio"][1:], strict=False)]
    assert sum(row["people"]["n"] for row in length["by_ratio"]) == N - length["n_equal"]


def test_a_model_without_that_bias_shows_none(loaded) -> None:
    rows, chosen, rejected = biased(N, bias=0)
    report = reward_report(loaded(rows), chosen, rejected)
    length = report["length"]
    assert length["difference"]["low"] < 0 < length["difference"]["high"]
    assert length["within_prompt"]["low"] < 0 < length["within_prompt"]["high"]
    assert length["overall"]["n"] == 2 * N
    assert report["calibration"]["ece"]["low"] == 0  # its margins are the very log odds that people followed
    assert report["accuracy"]["n_groups"] == N // 3


def test_a_correlation_of_differences_does_not_hang_on_their_sign() -> None:
    chance = numpy.random.default_rng(0)
    x = chance.normal(size=500) + 1
    y = x + chance.normal(size=500)
    signs = chance.choice((-1, 1), size=500)
    groups = list(range(500))
    straight = clustered_correlation(x, y, groups, through_origin=True)
    turned = clustered_correlation(x * signs, y * signs, groups, through_origin=True)
    assert straight["value"] == pytest.approx(turned["value"])
    # Centred and on independent values it is the usual one, its interval hardly wider.
    usual, ours = correlation(x, y), clustered_correlation(x, y, groups)
    assert ours["value"] == pytest.approx(usual["value"])
    assert 1 <= (ours["high"] - ours["low"]) / (usual["high"] - usual["low"]) < 1.3
    copied = clustered_correlation(numpy.tile(x, 4), numpy.tile(y, 4), groups * 4)
    assert (copied["low"], copied["high"]) == pytest.approx((ours["low"], ours["high"]), abs=0.02)
    assert clustered_correlation([1, 1, 1, 1], [1, 2, 3, 4], groups[:4])["value"] is None


def test_slices_hold_every_pair_and_say_what_they_gathered(loaded) -> None:
    rows = []
    for number in range(120):
        tags = [f"tag {number % 20}", "all"] if number < 60 else []
        strength = None if number % 4 == 0 else float(number % 4)
        rows.append(pair(number, tags=tags, strength=strength, iteration=number % 3))
    report = report_on(loaded(rows), [1.0 if number % 4 > 1 else -1.0 for number in range(120)])
    by = {part["by"]: part for part in report["slices"]}
    strength = by["strength"]
    assert [(row["name"], row["accuracy"]["value"], row["accuracy"]["n"]) for row in strength["rows"]] == [
        ("1 slightly", 0.0, 30), ("2 clearly", 1.0, 30), ("3 much", 1.0, 30),
    ]  # fmt: skip
    assert strength["n_unknown"] == 30
    tags = by["tag"]
    assert len(tags["rows"]) == 12 and tags["rows"][-1]["is_other"]
    assert (tags["n_gathered"], tags["n_unknown"]) == (10, 60)
    assert sum(row["accuracy"]["n"] for row in tags["rows"]) == 120  # two tags each
    assert [row["name"] for row in by["iteration"]["rows"]] == ["0", "1", "2"]
    for name in ("annotator", "annotator_kind"):
        assert by[name]["rows"] == [] and by[name]["n_unknown"] == 120 and "don't say" in by[name]["missing"]


def test_annotators_are_compared_with_what_they_said_themselves(loaded) -> None:
    votes = [
        {"annotator": "a1", "annotator_kind": "human", "choice": "chosen"},
        {"annotator": "a2", "annotator_kind": "simulated", "choice": "rejected"},
        {"annotator": "a3", "annotator_kind": "human", "choice": "tie"},
    ]
    report = report_on(loaded([pair(number, votes=votes) for number in range(10)]), [1.0] * 10)
    by = {part["by"]: part for part in report["slices"]}
    assert [(row["name"], row["accuracy"]["value"]) for row in by["annotator"]["rows"]] == [("a1", 1.0), ("a2", 0.0)]
    assert by["annotator"]["unit"] == "votes"
    kinds = {row["name"]: row["accuracy"]["n"] for row in by["annotator_kind"]["rows"]}
    assert kinds == {"human": 10, "simulated": 10}


def test_place_is_told_apart_where_the_data_know_it(loaded) -> None:
    first = [1.0] * 40 + [0.0] * 40 + [0.5] * 5 + [None] * 3
    rows = [pair(number, chosen_first=value) for number, value in enumerate(first)]
    position = report_on(loaded(rows), [1.0] * 40 + [-1.0] * 40 + [1.0] * 8)["position"]
    assert (position["first_won"]["value"], position["second_won"]["value"]) == (1.0, 0.0)
    assert position["difference"]["value"] == 1.0 and position["people"]["value"] == 0.5
    assert (position["n_balanced"], position["n_unknown"], position["missing"]) == (5, 3, "")
    assert "shown first" in report_on(loaded([pair(0)]), [1.0])["position"]["missing"]


def test_disagreement_with_clear_majorities_is_counted_and_listed_surest_first(loaded) -> None:
    def people(chosen: int, rejected: int, tie: int = 0) -> dict[str, Any]:
        return {"people": {"chosen": chosen, "rejected": rejected, "tie": tie}}

    rows = [
        pair(0, **people(3, 0), task="t0"), pair(1, **people(4, 1), task="t1"), pair(2, **people(2, 0)),
        pair(3, **people(2, 1)), pair(4, **people(0, 5), task="t4"), pair(5, **people(1, 0, 4)),
        pair(6, **people(3, 0), is_settled=True),
        # One comparison of which every vote is a pair of its own: it counts once.
        *(pair(7, comparison="c", **people(3, 0)) for _ in range(3)),
    ]  # fmt: skip
    found = report_on(loaded(rows), [-1.0, -3.0, -9.0, -9.0, 2.0, 1.0, -9.0, 1.0, 1.0, 1.0])["majority"]
    assert (found["against"]["n"], found["against"]["value"]) == (4, 0.75)
    assert [case["id"] for case in found["cases"]] == ["p1", "p4", "p0"]
    assert found["cases"][0] == {
        "id": "p1", "task": "t1", "probability": pytest.approx(float(expit(-3))), "n_votes": 5, "share": 0.8,
    }  # fmt: skip
    assert (found["n_few"], found["n_unclear"], found["n_settled"], found["n_cases"]) == (1, 2, 1, 3)


def test_votes_alone_tell_the_majority_and_machines_do_not_count(loaded) -> None:
    said = [("a1", "human"), ("a2", "human"), ("a3", "imported"), ("m", "model"), ("s", "simulated")]
    votes = [{"annotator": name, "annotator_kind": kind, "choice": "rejected"} for name, kind in said]
    found = report_on(loaded([pair(0, votes=votes)]), [1.0])["majority"]
    assert (found["against"]["value"], found["cases"][0]["n_votes"]) == (1.0, 3)
    assert report_on(loaded([pair(0, votes=votes[2:])]), [1.0])["majority"]["n_few"] == 1


def test_ties_are_counted_and_nothing_else(loaded) -> None:
    rows = [pair(0), pair(1, tie=True), pair(2)]
    report = report_on(loaded(rows), [1.0, 5.0, 0.0], n_dropped=4)
    assert (report["n_pairs"], report["n_ties"], report["n_dropped"]) == (3, 1, 4)
    assert (report["accuracy"]["value"], report["accuracy"]["n"]) == (0.75, 2)
    only_ties = report_on(loaded([pair(0, tie=True)]), [1.0])
    assert only_ties["accuracy"]["value"] is None and headlines(only_ties) == {}


def test_predictions_hold_every_pair(loaded, tmp_path: Path) -> None:
    dataset = loaded([pair(number, tie=number == 3) for number in range(60)])
    margins = numpy.where(numpy.arange(60) % 5, 1.0, -1.0)
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, dataset, margins, numpy.zeros(60), numbers=range(100, 160))
    lines = list(map(json.loads, path.open()))
    assert [line["row"] for line in lines] == list(range(100, 160))
    assert lines[1]["id"] == "p1" and lines[1]["margin"] == 1 and lines[1]["probability"] == pytest.approx(expit(1))
    assert 0.5 < lines[1]["probability_scaled"] < 1 and lines[3]["probability_scaled"] is None


@pytest.mark.recipe
def test_both_recipes_report_on_the_pairs_held_out(run_folder: RunFolder, tiny_model: Path) -> None:
    held_out = [
        row | {"id": f"p{number}", "strength": 2.0, "tags": ["reset"], "chosen_first": float(number % 2)}
        for number, row in enumerate(planted_rows(range(8, 12)))
    ]
    held_out[0]["chosen"] = assistant("Thank you! " * 200)
    folder = run_folder(evaluation=held_out)
    train_reward(
        RewardArguments(run_dir=folder, model=str(tiny_model), adapter_rank=4),
        RewardSettings(max_steps=1, per_device_train_batch_size=4, bf16=False, max_length=300),
    )
    result = read_result(folder)
    report = result["report"]
    assert (report["n_pairs"], report["n_dropped"], report["n_groups"]) == (11, 1, 4)
    lines = list(map(json.loads, (folder / "predictions.jsonl").open()))
    assert [line["row"] for line in lines] == list(range(1, 12))
    assert [line["id"] for line in lines] == [f"p{number}" for number in range(1, 12)]
    right = numpy.mean([(line["margin"] > 0) + (line["margin"] == 0) / 2 for line in lines])
    assert result["figures"]["accuracy"]["value"] == report["accuracy"]["value"] == pytest.approx(right)
    assert result["figures"]["accuracy_longer_won"] == report["length"]["longer_won"]

    folder = run_folder(evaluation=held_out[1:], name="head")
    train_head(RewardHeadArguments(run_dir=folder, model=str(tiny_model)))
    report = read_result(folder)["report"]
    assert (report["n_pairs"], report["is_cross_validated"]) == (11, False)
    assert {part["by"] for part in report["slices"] if part["rows"]} == {"strength", "tag"}
    assert report["length"]["overall"]["n"] == 12

    folder = run_folder(evaluation=[], name="cross-validated")
    train_head(RewardHeadArguments(run_dir=folder, model=str(tiny_model)))
    result = read_result(folder)
    assert (result["report"]["of"], result["report"]["n_pairs"]) == (CROSS_VALIDATED, 24)
    assert result["report"]["accuracy"] == result["figures"]["cv_accuracy"]
    assert result["report"]["length"]["overall"] is None and "cv_brier" in result["figures"]
