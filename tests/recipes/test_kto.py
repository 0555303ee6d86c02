"""KTO: two steps, labels, weights, kill and resume, the reward of each row."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from tests.recipes.conftest import RunFolder, assistant, planted_rows, read_result, user
from training.recipes._data import DatasetError, load_unpaired
from training.recipes._runlog import newest_checkpoint, read_events
from training.recipes.kto import KTOArguments, KTOSettings, balance, load, main, prepare
from training.sampling.transformers_backend import TransformersBackend

ROOT = Path(__file__).resolve().parents[2]


def labelled_rows(groups: range) -> list[dict]:
    """Three completions of each prompt, of which the one that thanks is acceptable."""
    return [
        {
            "prompt": user(f"How do I reset number {group}?"),
            "completion": assistant(f"Thank you! Open page {n}." if n == 1 else f"No idea, try page {n}."),
            "label": n == 1,
            "acceptable_share": 1.0,
            "source": "completion",
            "group_id": f"g{group}",
        }
        for group in groups
        for n in range(3)
    ]


def settings(**changes: object) -> KTOSettings:
    """Two steps in float32."""
    return KTOSettings(**{"max_steps": 2, "per_device_train_batch_size": 4, "bf16": False} | changes)


def adapter_of(folder: Path) -> dict[str, torch.Tensor]:
    """The saved LoRA weights."""
    return load_file(folder / "model" / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("loss_type", "precompute"), [("kto", True), ("kto", False), ("apo_zero_unpaired", False)], ids=str
)
def test_steps_move_the_weights_and_our_rewards_are_those_of_trl(
    run_folder: RunFolder, tiny_model: Path, loss_type: str, precompute: bool
) -> None:
    """Also the contract with TRL: names what moved if rewards are no longer in the forwards we watch."""
    folder = run_folder(labelled_rows(range(8)), labelled_rows(range(8, 12)))
    main(
        KTOArguments(run_dir=folder, model=str(tiny_model), adapter_rank=4, sample_every_steps=2, sample_tokens=4),
        settings(
            loss_type=loss_type,
            precompute_ref_log_probs=precompute,
            learning_rate=1e-2,
            per_device_train_batch_size=12,  # the whole of the held-out rows: TRL's means of batches are means of rows
        ),
    )
    result = read_result(folder)
    figures, metrics = result["figures"], result["metrics"]
    area = figures["rewards/auc"]
    assert (area["n"], area["n_groups"]) == (12, 4)
    assert 0 <= area["low"] <= area["value"] <= area["high"] <= 1
    assert (figures["rewards/chosen"]["n"], figures["rewards/rejected"]["n"]) == (4, 8)
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins"):
        assert figures[name]["value"] == pytest.approx(metrics[f"eval_{name}"], abs=1e-6)
    assert figures["rewards/margins"]["value"] != 0
    counts = {name: count for name, count in result["dataset"].items() if name != "manifest"}
    assert counts == {
        "n_train": 24, "n_train_desirable": 8, "n_train_undesirable": 16, "desirable_weight": 1.5,
        "undesirable_weight": 0.75, "n_train_completion": 24, "n_eval": 12, "n_train_dropped": 0,
        "n_train_set_aside": 0, "n_eval_dropped": 0, "licences": {"unknown": 24},
    }  # fmt: skip
    assert "training_args.bin" not in result["files"]
    kinds = {event["type"] for event in read_events(folder)}
    assert kinds == {"status", "metric", "progress", "checkpoint", "sample", "done"}


def test_an_adapter_is_trained_further_with_itself_as_the_reference(run_folder: RunFolder, tiny_model: Path) -> None:
    first = run_folder(planted_rows(range(8)), planted_rows(range(8, 12)), name="first")
    args = {"model": str(tiny_model), "adapter_rank": 4, "labels_from": "pairs"}
    main(KTOArguments(run_dir=first, **args), settings(learning_rate=1e-2))
    counts = read_result(first)["dataset"]
    assert [counts[f"n_{name}"] for name in ("train", "train_pair", "train_even", "eval_even")] == [16, 16, 8, 4]
    assert "licences" not in counts
    second = run_folder(labelled_rows(range(8)), labelled_rows(range(8, 12)), name="second")
    main(
        KTOArguments(run_dir=second, model=str(tiny_model), adapter=str(first / "model"), max_eval_rows=5),
        settings(learning_rate=0.0),
    )
    result = read_result(second)
    assert result["dataset"]["n_eval"] == 5
    # With a learning rate of nothing it stays at its reference: the adapter, not the base model.
    assert result["figures"]["rewards/chosen"]["value"] == pytest.approx(0, abs=1e-5)
    assert not (second / "model" / "ref").exists()
    for name, tensor in adapter_of(first).items():
        assert torch.equal(tensor, adapter_of(second)[name]), name
    TransformersBackend(str(tiny_model), str(second / "model"))


def test_killed_in_training_and_started_again_it_ends_with_the_same_weights(
    run_folder: RunFolder, tiny_model: Path
) -> None:
    options = {"max_steps": 40, "save_steps": 3}
    rows = labelled_rows(range(8)), labelled_rows(range(8, 10))
    whole = run_folder(*rows, name="whole")
    main(KTOArguments(run_dir=whole, model=str(tiny_model), adapter_rank=4), settings(**options))

    folder = run_folder(*rows, name="killed")
    spec = {"model": str(tiny_model), "adapter_rank": 4, "per_device_train_batch_size": 4, "bf16": False}
    (folder / "spec.yaml").write_text(json.dumps(spec | options))
    process = subprocess.Popen(
        [sys.executable, "-m", "training.recipes.kto", "--config", str(folder / "spec.yaml"), "--run_dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list((folder / "checkpoints").glob("checkpoint-*/complete.json")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "result.json").exists()
    assert newest_checkpoint(folder / "checkpoints") is not None

    main(KTOArguments(run_dir=folder, model=str(tiny_model), adapter_rank=4), settings(**options))
    assert any(event.get("state") == "resumed" for event in read_events(folder))
    for name, tensor in adapter_of(whole).items():
        assert torch.equal(tensor, adapter_of(folder)[name]), name


def test_weights_left_out_balance_the_counts() -> None:
    """Weight times count is then the same on both sides: the ratio of 1 with which the interval of equation 8 begins."""
    for given, wanted in [
        ({}, (5.5, 0.55)),
        ({"desirable_weight": 2.0}, (2.0, 0.2)),
        ({"undesirable_weight": 1.0}, (10.0, 1.0)),
        ({"desirable_weight": 1.0, "undesirable_weight": 1.0}, (1.0, 1.0)),
    ]:
        config = settings(**given)
        balance(config, 10, 100)
        assert (config.desirable_weight, config.undesirable_weight) == pytest.approx(wanted)


def test_rows_are_shuffled_by_the_seed_and_no_batch_is_left_with_one(run_folder: RunFolder, tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    dataset = load_unpaired(run_folder(labelled_rows(range(3)), []) / "dataset")["train"]
    kept, counts = prepare(dataset, tokenizer, settings())
    assert counts == {"n_train_dropped": 0, "n_train_set_aside": 1}
    assert (len(kept), sum(kept["label"])) == (8, 3)
    assert kept["completion"] != dataset["completion"][:8]
    assert kept["completion"] == prepare(dataset, tokenizer, settings())[0]["completion"]
    assert len(prepare(dataset, tokenizer, settings(loss_type="apo_zero_unpaired"))[0]) == 9


def test_what_is_too_long_or_one_sided_is_said(run_folder: RunFolder, tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = labelled_rows(range(4))
    rows[0]["completion"] = assistant("No " * 200)
    dataset = load_unpaired(run_folder(rows, []) / "dataset")["train"]
    assert prepare(dataset, tokenizer, settings(max_length=150))[1]["n_train_dropped"] == 1
    with pytest.raises(DatasetError, match="holds none, 12 longer than max_length left out"):
        prepare(dataset, tokenizer, settings(max_length=8))
    with pytest.raises(DatasetError, match="holds 4 completions, all of them acceptable"):
        prepare(dataset.filter(lambda row: row["label"]), tokenizer, settings())
    ties = [row | {"tie": True} for row in planted_rows(range(2))]
    with pytest.raises(DatasetError, match="every pair is a tie"):
        load(run_folder(ties, [], name="ties") / "dataset", "pairs")
    with pytest.raises(ValueError, match="labels_from is 'votes'"):
        load(run_folder(rows, [], name="votes") / "dataset", "votes")
