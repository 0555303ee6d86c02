"""The LoRA reward model, and what our trainer leans on in TRL."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from tests.recipes.conftest import RunFolder, assistant, planted_rows, read_result
from training.recipes._runlog import read_events
from training.recipes.reward import PairRewardTrainer, RewardArguments, RewardSettings, main, pair_loss
from training.sampling.reward_models import RewardModels, inspect_reward_model


def settings(**changes: object) -> RewardSettings:
    """Two steps in float32."""
    return RewardSettings(**{"max_steps": 2, "per_device_train_batch_size": 4, "bf16": False, **changes})


def test_two_steps_move_the_weights_and_report_an_interval(run_folder: RunFolder, tiny_model: Path) -> None:
    long = planted_rows(range(20, 21))
    for row in long:
        row["chosen"] = assistant("Thank you! " * 200)
    folder = run_folder(planted_rows(range(8)) + long)
    main(RewardArguments(run_dir=folder, model=str(tiny_model), adapter_rank=4), settings(max_length=300))
    result = read_result(folder)
    accuracy = result["figures"]["accuracy"]
    assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
    assert accuracy["n"] == 12
    assert result["dataset"]["n_train"] == 24
    assert result["dataset"]["n_train_dropped"] == 3
    assert result["dataset"]["margin_used"] is False
    assert "training_args.bin" not in result["files"]
    adapter = load_file(folder / "model" / "adapter_model.safetensors")
    assert any("score" in name for name in adapter)
    assert any("lora_B" in name and tensor.abs().max() > 0 for name, tensor in adapter.items())


def test_margins_are_used_when_every_winner_has_one(run_folder: RunFolder, tiny_model: Path) -> None:
    rows = [row | {"margin": 1.0} for row in planted_rows(range(4))]
    rows.append(rows[0] | {"tie": True, "margin": None})
    folder = run_folder(rows, evaluation=[])
    main(RewardArguments(run_dir=folder, model=str(tiny_model), adapter_rank=4), settings(max_steps=1))
    result = read_result(folder)
    assert result["dataset"]["margin_used"] is True
    assert result["dataset"]["n_train_ties"] == 1
    assert result["figures"] == {}


def test_the_figures_are_those_of_the_saved_model_and_the_last_evaluation_stands(run_folder: RunFolder, tiny_model: Path) -> None:
    folder = run_folder()
    main(
        RewardArguments(run_dir=folder, model=str(tiny_model), adapter_rank=4),
        settings(eval_strategy="steps", eval_steps=1, learning_rate=1e-2),
    )
    result = read_result(folder)
    evaluated = [event["step"] for event in read_events(folder) if event["type"] == "metric" and "eval_loss" in event["metrics"]]
    assert evaluated == [1, 2]  # and not once more at the end
    rows = [json.loads(line) for line in (folder / "dataset" / "eval.jsonl").read_text().splitlines()]
    model = RewardModels(dtype=torch.float32).add(inspect_reward_model(folder / "model"))
    prompts = [row["prompt"] for row in rows]
    scored = [model.score(prompts, [row[side][0]["content"] for row in rows]) for side in ("chosen", "rejected")]
    margins = [first - second for first, second in zip(*scored, strict=True)]
    assert result["figures"]["margin"]["value"] == pytest.approx(sum(margins) / len(margins), abs=1e-4)


def test_pair_loss_by_hand() -> None:
    difference = torch.tensor([2.0, 2.0, 0.0])
    one, none = torch.ones(3), torch.zeros(3)
    assert pair_loss(difference, weight=one, tie=none, margin=none, soft_label=one).item() == pytest.approx(
        (2 * 0.126928 + 0.693147) / 3, rel=1e-5
    )
    weighted = pair_loss(difference, weight=torch.tensor([3.0, 0.0, 0.0]), tie=none, margin=none, soft_label=one)
    assert weighted.item() == pytest.approx(0.126928, rel=1e-5)
    tied = pair_loss(difference, weight=one, tie=one, margin=one, soft_label=one / 2)  # the margin of a tie does not count
    assert tied.item() == pytest.approx((2 * (0.126928 + 2.126928) / 2 + 0.693147) / 3, rel=1e-5)
    assert pair_loss(difference, weight=one, tie=none, margin=2 * one, soft_label=one).item() == pytest.approx(
        (2 * 0.693147 + 2.126928) / 3, rel=1e-5
    )
    soft = pair_loss(difference, weight=one, tie=none, margin=none, soft_label=0.75 * one)
    assert soft.item() == pytest.approx((2 * (0.75 * 0.126928 + 0.25 * 2.126928) + 0.693147) / 3, rel=1e-5)


def test_trl_still_computes_the_loss_that_weights_of_one_give(
    run_folder: RunFolder, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names what moved if a new TRL changes the batch or the loss that PairRewardTrainer builds on."""
    seen = []
    ours = PairRewardTrainer.compute_loss

    def compare(
        self: PairRewardTrainer, model: torch.nn.Module, inputs: dict, *args: object, **kwargs: object
    ) -> object:
        assert {"weight", "tie", "soft_label", "margin", "input_ids", "attention_mask"} <= set(inputs)
        plain = {name: value for name, value in inputs.items() if name not in ("weight", "tie", "soft_label")}
        theirs = super(PairRewardTrainer, self).compute_loss(model, plain)
        loss = ours(self, model, dict(inputs), *args, **kwargs)
        seen.append((float(theirs.detach()), float((loss[0] if isinstance(loss, tuple) else loss).detach())))
        return loss

    monkeypatch.setattr(PairRewardTrainer, "compute_loss", compare)
    rows = [row | {"margin": 0.5} for row in planted_rows(range(4))]
    main(
        RewardArguments(run_dir=run_folder(rows, evaluation=[]), model=str(tiny_model), adapter_rank=4),
        settings(max_steps=1),
    )
    assert seen
    for theirs, loss in seen:
        assert loss == pytest.approx(theirs, rel=1e-5)


def test_full_fine_tuning_saves_a_whole_model(run_folder: RunFolder, tiny_model: Path) -> None:
    folder = run_folder(evaluation=[])
    main(RewardArguments(run_dir=folder, model=str(tiny_model), adapter_rank=0), settings(max_steps=1))
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model")
    assert model.config.num_labels == 1
