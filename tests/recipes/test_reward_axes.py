"""Reward models of several axes: each head learns its own pairs, and the model is their weighed sum."""

from pathlib import Path

import numpy
import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.recipes.conftest import RunFolder, assistant, read_result, user
from training.recipes._reward_axes import describe_axes, of_own_axis
from training.recipes._rewards import reward_functions
from training.recipes._shared_base import build_policy
from training.recipes.ppo import PPOArguments, PPOSettings, share_the_base, shared_reward_models
from training.recipes.reward import RewardArguments, RewardSettings, main
from training.sampling.model_files import ModelFilesError
from training.sampling.reward_axes import AXES_FILE, read_axes, shares_of
from training.sampling.reward_models import RewardModels, inspect_reward_model
from training.sampling.reward_rules import RewardError, parse_reward

POLITE, CURT = "Thank you! Thank you! Thank you!", "Open page 7."
AXES = ["polite", "short"]


def opposite_rows(groups: range) -> list[dict]:
    """Of every two completions one is better on one axis and the other on the other."""
    rows = []
    for group in groups:
        for axis, chosen, rejected in (("polite", POLITE, CURT), ("short", CURT, POLITE)):
            texts = {"chosen": assistant(f"{chosen} {group}"), "rejected": assistant(f"{rejected} {group}")}
            rows.append({"prompt": user(f"Number {group}?"), **texts, "group_id": f"g{group}", "axis": axis})
    return rows


def train(folder: Path, base: Path, **changes: object) -> Path:
    settings = RewardSettings(max_steps=12, per_device_train_batch_size=4, learning_rate=2e-2, bf16=False, save_steps=50)
    main(RewardArguments(run_dir=folder, model=str(base), adapter_rank=4, axes=AXES, **changes), settings)
    return folder / "model"


@pytest.fixture
def folder(run_folder: RunFolder) -> Path:
    return run_folder(opposite_rows(range(12)), opposite_rows(range(12, 18)))


def test_each_pair_has_the_reward_of_its_own_axis() -> None:
    rewards = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])  # two pairs, chosen first
    assert of_own_axis(rewards, torch.tensor([0.0, 1.0])).flatten().tolist() == [1.0, 4.0, 5.0, 8.0]


def test_axes_that_contradict_each_other_are_both_learnt(folder: Path, tiny_model: Path) -> None:
    saved = train(folder, tiny_model, axis_weights=[3.0, -1.0])
    result = read_result(folder)
    assert AXES_FILE in result["files"]
    # One head could have been right on one of the two axes at best.
    assert result["figures"]["accuracy"]["value"] > 0.9 and result["figures"]["accuracy"]["n"] == 12
    axes = result["report"]["axes"]
    assert [(row["name"], row["share"], row["accuracy"]["n"]) for row in axes["rows"]] == [("polite", 0.75, 6), ("short", -0.25, 6)]
    assert all(row["accuracy"]["value"] > 0.8 for row in axes["rows"])
    [between] = axes["correlations"]
    assert (between["first"], between["second"]) == ("polite", "short") and between["correlation"]["value"] < -0.5
    assert between["correlation"]["n"] == 6  # each two completions once, though they were compared on two axes
    assert result["report"]["length"]["overall"] is None
    assert result["figures"]["accuracy_on/short"] == axes["rows"][1]["accuracy"]

    prompts, texts = [user("Number 3?")] * 2, [f"{POLITE} 3", f"{CURT} 3"]

    def rewards_of(axis: str = "") -> list[float]:
        return RewardModels(dtype=torch.float32).add(inspect_reward_model(saved), axis).score(prompts, texts)

    polite, short, whole = rewards_of("polite"), rewards_of("short"), rewards_of()
    assert polite[0] > polite[1] and short[0] < short[1]
    assert whole == pytest.approx([0.75 * one - 0.25 * other for one, other in zip(polite, short, strict=True)], abs=1e-4)
    # As transformers and PEFT load it, without anything of ours.
    plain = PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1), saved)
    heads = read_axes(saved)
    weight = plain.base_model.model.score.modules_to_save["default"].weight
    assert torch.allclose(weight, torch.tensor([[0.75, -0.25]]) @ heads.weight, atol=1e-6)

    with pytest.raises(ModelFilesError, match="no axis 'kind': choose from polite, short"):
        RewardModels().add(inspect_reward_model(saved), "kind")
    [function], _ = reward_functions([f"model:{saved},base={tiny_model},axis=short"], None, base_model=str(tiny_model), seed=0)
    completions = [assistant(text) for text in texts]
    assert function.__name__.endswith("_short")
    assert function(prompts, completions) == pytest.approx(short, abs=0.05)
    with pytest.raises(RewardError, match="no axis 'kind'"):
        reward_functions([f"model:{saved},base={tiny_model},axis=kind"], None, base_model=str(tiny_model), seed=0)


@pytest.mark.parametrize("changes, message", [
    ({"n_heads": 2}, "choose one"),
    ({"axis_weights": [1.0]}, "2 axes and 1 axis_weights"),
    ({"axis_weights": [0.0, 0.0]}, "not all 0"),
])  # fmt: skip
def test_what_does_not_go_with_axes_is_refused(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        RewardArguments(run_dir=tmp_path, model="m", axes=AXES, **changes)


def test_an_axis_without_pairs_is_named_with_those_there_are(run_folder: RunFolder, tiny_model: Path) -> None:
    folder = run_folder([row for row in opposite_rows(range(4)) if row["axis"] == "polite"], [])
    with pytest.raises(ValueError, match="compares by 'short': the axes of the data are polite"):
        train(folder, tiny_model)


def test_weights_become_shares_whose_sizes_sum_to_one() -> None:
    assert shares_of(["a", "b"], None) == (0.5, 0.5)
    assert shares_of(["a", "b", "c"], [2, -1, 1]) == (0.5, -0.25, 0.25)
    with pytest.raises(ValueError, match="'a' twice"):
        shares_of(["a", "a"], None)


def test_an_axis_is_named_before_caution() -> None:
    assert parse_reward("model:/m,base=/b,axis=tone, of voice,caution=1").options == {
        "base": "/b", "axis": "tone, of voice", "caution": "1",
    }  # fmt: skip
    with pytest.raises(RewardError, match="names no axis"):
        parse_reward("model:/m,axis=")


def test_axes_are_described_by_hand() -> None:
    rows = Dataset.from_list(
        [
            {"prompt": user("q"), "chosen": assistant("a"), "rejected": assistant("b"), "axis": "x", "group_id": "1", "tie": False},
            {"prompt": user("q"), "chosen": assistant("b"), "rejected": assistant("a"), "axis": None, "group_id": "1", "tie": False},
            {"prompt": user("r"), "chosen": assistant("a"), "rejected": assistant("b"), "axis": "x", "group_id": "2", "tie": True},
        ]
    )
    found = describe_axes(["x", "preference"], [0.5, 0.5], rows, [1.0, 0.0, 2.0], [0.0, 1.0, 0.0], numpy.zeros((3, 2)))
    assert [(row["accuracy"]["value"], row["accuracy"]["n"]) for row in found["rows"]] == [(1.0, 1), (0.0, 1)]
    assert found["correlations"][0]["correlation"]["n"] == 2


def test_ppo_takes_the_axis_of_a_model_on_the_shared_base(folder: Path, tiny_model: Path) -> None:
    saved = train(folder, tiny_model)
    entries = [f"model:{saved},base={tiny_model},axis=short", f"model:{saved},base={tiny_model},caution=0"]
    shared = shared_reward_models(entries, str(tiny_model))
    assert list(shared) == [0]  # caution asks more than the one head
    model = build_policy(str(tiny_model), dtype=torch.float32, rank=4, alpha=8)
    args = PPOArguments(run_dir=folder, model=str(tiny_model), rewards=entries[:1])
    functions, _ = reward_functions(entries[:1], None, base_model=str(tiny_model), seed=0)
    [function] = share_the_base(
        functions, shared, args=args, config=PPOSettings(bf16=False), model=model,
        tokenizer=AutoTokenizer.from_pretrained(tiny_model),
    )  # fmt: skip
    prompts, texts = [user("Number 3?")] * 2, [f"{POLITE} 3", f"{CURT} 3"]
    alone = RewardModels(dtype=torch.float32).add(inspect_reward_model(saved), "short").score(prompts, texts)
    assert function(prompts, list(map(assistant, texts))) == pytest.approx(alone, abs=1e-4)
