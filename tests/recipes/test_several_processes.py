"""One run of two processes: the weights of one process at twice the batch, also after a kill; they stop together."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.recipes import test_kto, test_sft
from tests.recipes.conftest import RunFolder, read_result
from tests.recipes.forks import ends_of, fork_two
from tests.recipes.test_online import OnlineArguments, prompt_folder  # noqa: F401  a fixture
from training.recipes import dpo, grpo, kto, ppo, rloo, sft
from training.recipes._runlog import is_sealed, launch, newest_checkpoint, read_events

OPTIONS = ["--adapter_rank", "4", "--bf16", "false", "--save_steps", "2", "--learning_rate", "1e-3"]


def train(folder: Path, model: Path, *, steps: int, batch: int) -> int:
    command = ["--run_dir", str(folder), "--model", str(model), *OPTIONS, "--max_steps", str(steps)]
    command += ["--per_device_train_batch_size", str(batch), "--num_train_epochs", "20"]
    return launch("dpo", dpo.main, (dpo.DPOArguments, dpo.DPOSettings), command)


def adapter_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "adapter_model.safetensors")


def test_two_processes_end_with_the_weights_of_one_at_twice_the_batch_also_when_one_was_killed(
    run_folder: RunFolder, tiny_model: Path
) -> None:
    one, two, killed = (run_folder(name=name) for name in ("one", "two", "killed"))
    assert train(one, tiny_model, steps=8, batch=4) == 0
    assert ends_of(fork_two(lambda: train(two, tiny_model, steps=8, batch=2))) == [0, 0]
    assert read_result(two)["batch"] == {"per_device": 2, "processes": 2, "accumulation": 1, "effective": 4}
    assert read_result(one)["batch"]["effective"] == 4
    for name, tensor in adapter_of(one).items():
        torch.testing.assert_close(adapter_of(two)[name], tensor, atol=1e-4, rtol=1e-3)
    margins = [read_result(folder)["figures"]["rewards/margins"] for folder in (one, two)]
    assert margins[0]["n"] == margins[1]["n"] and margins[0]["value"] == pytest.approx(margins[1]["value"], rel=1e-2)
    assert [event["type"] for event in read_events(two)].count("done") == 1
    assert is_sealed(newest_checkpoint(two / "checkpoints"))

    pids = fork_two(lambda: train(killed, tiny_model, steps=8, batch=2))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list((killed / "checkpoints").glob("checkpoint-*/complete.json")):
        time.sleep(0.005)
    os.kill(pids[1], signal.SIGKILL)
    assert ends_of(pids) == [1, -signal.SIGKILL]  # the other doesn't wait for ever
    [error] = [event for event in read_events(killed) if event["type"] == "error"]
    assert error["kind"] == "OthersGone" and "Another process of the run ended" in error["message"]
    assert ends_of(fork_two(lambda: train(killed, tiny_model, steps=8, batch=2))) == [0, 0]
    assert [event["checkpoint"] for event in read_events(killed) if event.get("state") == "resumed"]
    for name, tensor in adapter_of(two).items():
        assert torch.equal(tensor, adapter_of(killed)[name]), name


def test_all_processes_stop_together_and_the_run_says_so_once(run_folder: RunFolder, tiny_model: Path) -> None:
    folder = run_folder()
    (folder / "stop").touch()
    assert ends_of(fork_two(lambda: train(folder, tiny_model, steps=8, batch=2))) == [3, 3]
    states = [event.get("state") for event in read_events(folder)]
    assert states.count("stopped") == 1 and states[-1] == "stopped"
    assert newest_checkpoint(folder / "checkpoints").name == "checkpoint-1"


KINDS = {
    "sft": (sft.main, sft.SFTArguments, sft.SFTSettings, test_sft.supervised_rows),
    "kto": (kto.main, kto.KTOArguments, kto.KTOSettings, test_kto.labelled_rows),
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_end_in_two_processes_as_in_one(kind: str, run_folder: RunFolder, tiny_model: Path) -> None:
    main, arguments, settings, rows = KINDS[kind]

    def train_once(folder: Path, batch: int) -> int:
        command = ["--run_dir", str(folder), "--model", str(tiny_model), *OPTIONS, "--max_steps", "2"]
        return launch(kind, main, (arguments, settings), [*command, "--per_device_train_batch_size", str(batch)])

    folders = [run_folder(rows(range(8)), rows(range(8, 12)), name=name) for name in ("one", "two")]
    assert train_once(folders[0], 8) == 0
    assert ends_of(fork_two(lambda: train_once(folders[1], 4))) == [0, 0]
    one, two = map(read_result, folders)
    assert two["batch"]["effective"] == one["batch"]["effective"] == 8
    assert two["dataset"] == one["dataset"]
    assert {name: figure["n"] for name, figure in two["figures"].items()} == {name: figure["n"] for name, figure in one["figures"].items()}
    if kind == "sft":  # KTO's reference point is estimated from each process's own rows
        for name, tensor in adapter_of(folders[0]).items():
            torch.testing.assert_close(adapter_of(folders[1])[name], tensor, atol=2e-4, rtol=1e-3)


ONLINE = {
    "grpo": (grpo.main, OnlineArguments, grpo.GRPOSettings),
    "rloo": (rloo.main, OnlineArguments, rloo.RLOOSettings),
    "ppo": (ppo.main, ppo.PPOArguments, ppo.PPOSettings),
}


@pytest.mark.parametrize("kind", ONLINE)
def test_rollouts_of_two_processes_make_one_policy_also_when_one_was_killed(
    kind: str, prompt_folder: Callable[..., Path], tiny_model: Path  # noqa: F811
) -> None:
    """Two completions of each of four prompts a step, two prompts in each process."""
    main, arguments, settings = ONLINE[kind]

    def train_once(folder: Path) -> int:
        command = ["--run_dir", str(folder), "--model", str(tiny_model), *OPTIONS, "--max_steps", "8", "--num_generations", "2"]
        command += ["--rewards", "length:target=4", "--max_completion_length", "8", "--eval_completions", "2"]
        return launch(kind, main, (arguments, settings), [*command, "--per_device_train_batch_size", "4"])

    whole, killed = prompt_folder("whole"), prompt_folder("killed")
    assert ends_of(fork_two(lambda: train_once(whole))) == [0, 0]
    result, events = read_result(whole), read_events(whole)
    assert result["batch"] == {"per_device": 4, "processes": 2, "accumulation": 1, "effective": 8}
    assert result["figures"]["reward/change"]["n"] == 12  # six prompts, each process had three
    assert [event["type"] for event in events].count("done") == 1
    assert any(tensor.abs().max() > 0 for name, tensor in adapter_of(whole).items() if "lora_B" in name)

    pids = fork_two(lambda: train_once(killed))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list((killed / "checkpoints").glob("checkpoint-*/complete.json")):
        time.sleep(0.005)
    os.kill(pids[1], signal.SIGKILL)
    assert ends_of(pids) == [1, -signal.SIGKILL]
    assert ends_of(fork_two(lambda: train_once(killed))) == [0, 0]
    assert [event["checkpoint"] for event in read_events(killed) if event.get("state") == "resumed"]
    for name, tensor in adapter_of(whole).items():
        assert torch.equal(tensor, adapter_of(killed)[name]), name
    assert read_result(killed)["figures"] == result["figures"]
