"""DPO: two steps, stop, kill and resume, weights and ties."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from tests.recipes.conftest import RunFolder, planted_rows, read_result
from training.recipes import dpo
from training.recipes._data import load_preferences
from training.recipes._runlog import Stopped, launch, newest_checkpoint, read_events
from training.recipes.dpo import DPOArguments, DPOSettings, PairDPOTrainer, main, prepare
from training.sampling.transformers_backend import TransformersBackend

ROOT = Path(__file__).resolve().parents[2]


def settings(**changes: object) -> DPOSettings:
    """Two steps in float32."""
    defaults = {"max_steps": 2, "per_device_train_batch_size": 4, "bf16": False, "loss_type": ["sigmoid", "sft"]}
    return DPOSettings(**defaults | changes)


def adapter_of(folder: Path) -> dict[str, torch.Tensor]:
    """The saved LoRA weights."""
    return load_file(folder / "model" / "adapter_model.safetensors")


def test_two_steps_move_the_weights_and_report_an_interval(run_folder: RunFolder, tiny_model: Path) -> None:
    folder = run_folder()
    main(
        DPOArguments(run_dir=folder, model=str(tiny_model), adapter_rank=4, sample_every_steps=2, sample_tokens=4),
        settings(per_device_eval_batch_size=4),
    )
    result = read_result(folder)
    accuracy = result["figures"]["rewards/accuracies"]
    assert (accuracy["n"], accuracy["n_groups"]) == (12, 4)
    assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
    # Our margins, pair by pair, are those that TRL logs as means of batches (12 pairs, 4 a batch).
    assert result["figures"]["rewards/margins"]["value"] == pytest.approx(
        result["metrics"]["eval_rewards/margins"], abs=1e-6
    )
    assert {"rewards/margins", "eval_loss", "train_loss"} <= set(result["metrics"])
    assert any(tensor.abs().max() > 0 for name, tensor in adapter_of(folder).items() if "lora_B" in name)
    assert "training_args.bin" not in result["files"]
    assert json.loads((folder / "model" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        tiny_model
    )
    kinds = [event["type"] for event in read_events(folder)]
    assert {"status", "metric", "progress", "checkpoint", "sample", "done"} == set(kinds)
    assert kinds.count("sample") == 2
    TransformersBackend(str(tiny_model), str(folder / "model"))  # the adapter loads and merges


def test_a_gradient_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(
    run_folder: RunFolder, tiny_model: Path
) -> None:
    folder = run_folder()
    command = ["--run_dir", str(folder), "--model", str(tiny_model), "--adapter_rank", "4", "--max_steps", "6"]
    command += ["--per_device_train_batch_size", "4", "--bf16", "false", "--learning_rate", "1e30", "--save_steps", "1"]
    assert launch("dpo", main, (DPOArguments, DPOSettings), command) == 1
    error = list(read_events(folder))[-1]
    assert (error["type"], error["kind"]) == ("error", "NotANumber")
    kept = newest_checkpoint(folder / "checkpoints")
    assert f"{kept.name} is kept" in error["message"] and "1e+30" in error["message"]
    assert all(torch.isfinite(tensor).all() for tensor in load_file(kept / "adapter_model.safetensors").values())
    assert not (folder / "result.json").exists()


def test_the_stop_file_saves_a_checkpoint_and_the_run_goes_on_from_it(
    run_folder: RunFolder, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_folder(name="whole")
    args = {"model": str(tiny_model), "adapter_rank": 4}
    main(DPOArguments(run_dir=whole, **args), settings(max_steps=4))

    folder = run_folder(name="stopped")
    (folder / "stop").touch()
    command = ["--run_dir", str(folder), "--model", str(tiny_model), "--adapter_rank", "4", "--max_steps", "4"]
    command += ["--per_device_train_batch_size", "4", "--bf16", "false", "--loss_type", "sigmoid", "sft"]
    assert launch("dpo", main, (DPOArguments, DPOSettings), command) == 3
    events = list(read_events(folder))
    assert events[-1]["state"] == "stopped"
    assert not (folder / "result.json").exists()
    assert newest_checkpoint(folder / "checkpoints").name == "checkpoint-1"

    (folder / "stop").unlink()
    assert launch("dpo", main, (DPOArguments, DPOSettings), command) == 0
    assert any(event.get("state") == "resumed" for event in read_events(folder))
    for name, tensor in adapter_of(whole).items():
        assert torch.equal(tensor, adapter_of(folder)[name]), name


def test_killed_in_training_and_started_again_it_ends_with_the_same_weights(
    run_folder: RunFolder, tiny_model: Path
) -> None:
    options = {"max_steps": 40, "save_steps": 3, "num_train_epochs": 20}
    whole = run_folder(name="whole")
    main(DPOArguments(run_dir=whole, model=str(tiny_model), adapter_rank=4), settings(**options))

    folder = run_folder(name="killed")
    spec = {"model": str(tiny_model), "adapter_rank": 4, "per_device_train_batch_size": 4, "bf16": False}
    (folder / "spec.yaml").write_text(json.dumps(spec | options | {"loss_type": ["sigmoid", "sft"]}))
    command = [sys.executable, "-m", "training.recipes.dpo", "--config", str(folder / "spec.yaml")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "--run_dir", str(folder)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list((folder / "checkpoints").glob("checkpoint-*/complete.json")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "result.json").exists()
    resumed_at = newest_checkpoint(folder / "checkpoints")
    assert resumed_at is not None
    # A checkpoint that was being written when the kill came:
    shutil.copytree(resumed_at, folder / "checkpoints" / "checkpoint-39")
    (folder / "checkpoints" / "checkpoint-39" / "adapter_model.safetensors").write_bytes(b"half")

    main(DPOArguments(run_dir=folder, model=str(tiny_model), adapter_rank=4), settings(**options))
    resumed = [event for event in read_events(folder) if event.get("state") == "resumed"]
    assert resumed[0]["checkpoint"] == f"checkpoints/{resumed_at.name}"
    for name, tensor in adapter_of(whole).items():
        assert torch.equal(tensor, adapter_of(folder)[name]), name


def test_a_pairs_weight_multiplies_its_gradient(run_folder: RunFolder, tiny_model: Path) -> None:
    """Also the contract with TRL: names what moved if the weights no longer reach the loss."""
    trainer = PairDPOTrainer(
        model=str(tiny_model),
        args=settings(output_dir=str(run_folder(name="out")), loss_type=["sigmoid"]),
        train_dataset=prepare(load_preferences(run_folder() / "dataset")["train"], arguments())[0],
    )
    examples = [trainer.train_dataset[index] for index in (0, 5)]

    def gradient(weights: list[float], chosen: list[dict]) -> torch.Tensor:
        batch = trainer.data_collator(
            [example | {"weight": weight} for example, weight in zip(chosen, weights, strict=True)]
        )
        trainer.model.zero_grad()
        trainer.compute_loss(trainer.model, batch).backward()
        return trainer.model.model.layers[0].mlp.up_proj.weight.grad.clone()

    first, second = gradient([1.0], examples[:1]), gradient([1.0], examples[1:])
    torch.testing.assert_close(gradient([1.0, 1.0], examples), (first + second) / 2, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(gradient([2.0, 0.0], examples), first, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(gradient([0.5, 1.5], examples), first / 4 + second * 0.75, atol=1e-6, rtol=1e-3)


def arguments(**changes: object) -> DPOArguments:
    """Arguments that need no files."""
    return DPOArguments(run_dir=Path("unused"), model="unused", **changes)


def test_ties_are_dropped_or_taken_both_ways(run_folder: RunFolder) -> None:
    rows = planted_rows(range(2))
    rows[0]["tie"] = True
    dataset: Dataset = load_preferences(run_folder(rows) / "dataset")["train"]
    dropped, counts = prepare(dataset, arguments())
    assert (len(dropped), counts["n_train_ties"]) == (5, 1)
    both, counts = prepare(dataset, arguments(ties="both_ways"))
    assert (len(both), counts["n_train_ties"]) == (7, 1)
    first, second = both[5], both[6]
    assert first["chosen"] == second["rejected"]
    assert first["weight"] == second["weight"] == pytest.approx(both[0]["weight"] / 2)
    with pytest.raises(ValueError, match="must be drop or both_ways"):
        prepare(dataset, arguments(ties="maybe"))


def test_pairs_set_aside_are_counted(run_folder: RunFolder) -> None:
    dataset = load_preferences(run_folder(planted_rows(range(3), completions=4)) / "dataset")["train"]
    kept, counts = prepare(dataset, arguments(max_pairs_per_group=2))
    assert (len(kept), counts["n_train_set_aside"]) == (6, 12)


def test_code_of_a_model_is_never_run(run_folder: RunFolder, tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="trust_remote_code"):
        main(DPOArguments(run_dir=run_folder(), model=str(tiny_model)), settings(trust_remote_code=True))
    assert dpo.KIND == "dpo"


def test_stopped_is_raised_not_swallowed(run_folder: RunFolder, tiny_model: Path) -> None:
    folder = run_folder()
    (folder / "stop").touch()
    with pytest.raises(Stopped):
        main(DPOArguments(run_dir=folder, model=str(tiny_model), adapter_rank=4), settings())
