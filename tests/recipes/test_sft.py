"""SFT: two steps, sources, long texts, kill and resume, the loss of each text."""

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
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.recipes.conftest import RunFolder, assistant, read_result, user
from training.recipes._data import DatasetError, load_supervised
from training.recipes._runlog import newest_checkpoint, read_events
from training.recipes.sft import SFTArguments, SFTSettings, main, prepare
from training.sampling.transformers_backend import TransformersBackend

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("correction", "demonstration", "best")


def supervised_rows(groups: range, *, words: int = 1) -> list[dict]:
    """A text of each source in turn, two to a group."""
    return [
        {
            "messages": user(f"How do I reset number {group}?") + assistant("Thank you! " * words + f"Open page {n}."),
            "source": SOURCES[(2 * group + n) % 3],
            "model": None,
            "group_id": f"g{group}",
        }
        for group in groups
        for n in range(2)
    ]


def settings(**changes: object) -> SFTSettings:
    """Two steps in float32."""
    return SFTSettings(**{"max_steps": 2, "per_device_train_batch_size": 4, "bf16": False} | changes)


def adapter_of(folder: Path) -> dict[str, torch.Tensor]:
    """The saved LoRA weights."""
    return load_file(folder / "model" / "adapter_model.safetensors")


@pytest.fixture
def folder(run_folder: RunFolder) -> Path:
    return run_folder(supervised_rows(range(8)), supervised_rows(range(8, 12)))


def test_a_few_steps_lower_the_loss_and_an_adapter_is_trained_further(folder: Path, tiny_model: Path) -> None:
    args = {"model": str(tiny_model), "adapter_rank": 4, "sample_every_steps": 2, "sample_tokens": 4}
    main(SFTArguments(run_dir=folder, **args), settings(learning_rate=1e-2, max_steps=4, warmup_steps=0))
    result = read_result(folder)
    loss, change = result["figures"]["loss"], result["figures"]["loss_change"]
    assert (loss["n"], loss["n_groups"]) == (8, 4)
    assert loss["low"] < loss["value"] < loss["high"]
    assert change["high"] < 0
    counts = {name: count for name, count in result["dataset"].items() if name != "manifest"}
    assert counts == {
        "n_train": 16, "n_train_best": 5, "n_train_correction": 6, "n_train_demonstration": 5, "n_eval": 8,
        "n_train_dropped": 0, "n_eval_dropped": 0, "n_train_other_sources": 0, "licences": {"unknown": 16},
    }  # fmt: skip
    assert {"mean_token_accuracy", "train_loss", "eval_loss"} <= set(result["metrics"])
    assert "training_args.bin" not in result["files"]
    events = list(read_events(folder))
    assert {"status", "metric", "progress", "checkpoint", "sample", "done"} == {event["type"] for event in events}
    # The curve of the held-out loss begins where the training does.
    logged = [event for event in events if event["type"] == "metric" and "eval_loss" in event["metrics"]]
    assert [event["step"] for event in logged] == [0, 4]
    earlier, later = (event["metrics"]["eval_loss"] for event in logged)
    assert later - earlier == pytest.approx(change["value"])
    TransformersBackend(str(tiny_model), str(folder / "model"))  # the adapter loads and merges

    # Trained on from there, that adapter and no other is what changes.
    first, again = adapter_of(folder), folder.parent / "again"
    shutil.copytree(folder / "dataset", again / "dataset")
    main(
        SFTArguments(
            run_dir=again, model=str(tiny_model), adapter=str(folder / "model"), sources=["correction"], max_eval_rows=2
        ),
        settings(),
    )
    second = adapter_of(again)
    assert set(first) == set(second)
    assert any(not torch.equal(first[name], second[name]) for name in first)
    counts = read_result(again)["dataset"]
    assert (counts["n_train"], counts["n_train_correction"], counts["n_train_other_sources"]) == (6, 6, 10)
    assert counts["n_eval"] == 2


def test_the_loss_is_that_of_the_completions_tokens_alone(folder: Path, tiny_model: Path) -> None:
    """Also the contract with TRL: names what moved if its model no longer answers with losses by token."""
    # Trained with a learning rate of nothing, it is the model it was.
    main(SFTArguments(run_dir=folder, model=str(tiny_model), adapter_rank=4), settings(learning_rate=0.0, max_steps=1))
    figure = read_result(folder)["figures"]["loss"]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    nats, tokens = 0.0, 0
    for row in load_supervised(folder / "dataset")["eval"]:
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
        whole = tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=True)["input_ids"]
        assert whole[: len(prompt)] == prompt
        with torch.no_grad():
            log_probs = model(torch.tensor([whole])).logits[0].log_softmax(dim=-1)
        nats -= sum(float(log_probs[place - 1, whole[place]]) for place in range(len(prompt), len(whole)))
        tokens += len(whole) - len(prompt)
    assert figure["value"] == pytest.approx(nats / tokens, rel=1e-5)


def test_killed_in_training_and_started_again_it_ends_with_the_same_weights(
    run_folder: RunFolder, tiny_model: Path
) -> None:
    options = {"max_steps": 40, "save_steps": 3}
    rows = supervised_rows(range(8)), supervised_rows(range(8, 10))
    whole = run_folder(*rows, name="whole")
    main(SFTArguments(run_dir=whole, model=str(tiny_model), adapter_rank=4), settings(**options))

    folder = run_folder(*rows, name="killed")
    spec = {"model": str(tiny_model), "adapter_rank": 4, "per_device_train_batch_size": 4, "bf16": False}
    (folder / "spec.yaml").write_text(json.dumps(spec | options))
    process = subprocess.Popen(
        [sys.executable, "-m", "training.recipes.sft", "--config", str(folder / "spec.yaml"), "--run_dir", str(folder)],
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

    main(SFTArguments(run_dir=folder, model=str(tiny_model), adapter_rank=4), settings(**options))
    assert any(event.get("state") == "resumed" for event in read_events(folder))
    for name, tensor in adapter_of(whole).items():
        assert torch.equal(tensor, adapter_of(folder)[name]), name
    # What it began from is not what it was resumed from.
    assert read_result(folder)["figures"] == read_result(whole)["figures"]


def test_texts_that_are_too_long_are_left_out_and_counted(run_folder: RunFolder, tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = supervised_rows(range(4)) + supervised_rows(range(4, 6), words=30)
    dataset = load_supervised(run_folder(rows, []) / "dataset")["train"]
    longest = max(
        len(tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=True)["input_ids"])
        for row in dataset.select(range(8))
    )
    args = SFTArguments(run_dir=Path("unused"), model="unused")
    kept, dropped = prepare(dataset, args, tokenizer, longest)
    assert len(kept) == 8 and kept["completion"] == dataset.select(range(8))["completion"]
    assert dropped == {"best": 2, "correction": 1, "demonstration": 1}
    with pytest.raises(DatasetError, match=rf"Every text is longer than max_length \({longest - 1} tokens\)"):
        prepare(dataset, args, tokenizer, longest - 1)


def test_sources_that_nobody_has_are_named(run_folder: RunFolder) -> None:
    dataset = load_supervised(run_folder(supervised_rows(range(2)), []) / "dataset")["train"]
    with pytest.raises(ValueError, match="sources names 'gold'"):
        prepare(dataset, SFTArguments(run_dir=Path("unused"), model="unused", sources=["gold"]), None, None)
    rows = dataset.select([0, 3])  # of the sources correction and correction
    with pytest.raises(DatasetError, match=r"of the sources \['best'\]: it holds 2 correction"):
        prepare(rows, SFTArguments(run_dir=Path("unused"), model="unused", sources=["best"]), None, None)
