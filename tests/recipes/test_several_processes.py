"""One run of two processes: the weights of one process at twice the batch, also after a kill; they stop together.

The two are forks of this process, which has imported everything already, with the variables that torchrun sets.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from safetensors.torch import load_file

from tests.ports import free_port
from tests.recipes import test_kto, test_sft
from tests.recipes.conftest import RunFolder, read_result
from training.recipes import dpo, kto, sft
from training.recipes._runlog import is_sealed, launch, newest_checkpoint, read_events

OPTIONS = ["--adapter_rank", "4", "--bf16", "false", "--save_steps", "2", "--learning_rate", "1e-3"]


def train(folder: Path, model: Path, *, steps: int, batch: int) -> int:
    command = ["--run_dir", str(folder), "--model", str(model), *OPTIONS, "--max_steps", str(steps)]
    command += ["--per_device_train_batch_size", str(batch), "--num_train_epochs", "20"]
    return launch("dpo", dpo.main, (dpo.DPOArguments, dpo.DPOSettings), command)


def fork_two(work: Callable[[], int]) -> list[int]:
    """Numbers of two processes that do the same work as one group."""
    port = str(free_port())
    pids = []
    for rank in ("0", "1"):
        if not (pid := os.fork()):
            status = 70
            try:
                os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                AcceleratorState._reset_state(reset_partial_state=True)
                PartialState._reset_state()
                GradientState._reset_state()
                status = work()
            finally:
                os._exit(status)
        pids.append(pid)
    return pids


def ends_of(pids: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


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
