"""A disk that fills up while a run writes to it: what it says, what it keeps, and that it goes on as if nothing had been."""

import errno
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.recipes.conftest import RunFolder
from training.recipes import dpo
from training.recipes._disk import describe_full, in_words, is_full
from training.recipes._eventlog import EventLog
from training.recipes._runlog import is_sealed, launch, read_events


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if not mount or subprocess.run([mount, "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path, leave_bytes: int) -> Path:
    """Leaves so much room."""
    ballast = disk / "ballast"
    ballast.write_bytes(b"\0" * max(0, shutil.disk_usage(disk).free - leave_bytes))
    return ballast


def train(folder: Path, model: Path) -> int:
    command = ["--run_dir", str(folder), "--model", str(model), "--adapter_rank", "4", "--max_steps", "6", "--bf16", "false"]
    command += ["--per_device_train_batch_size", "4", "--save_steps", "2"]
    return launch("dpo", dpo.main, (dpo.DPOArguments, dpo.DPOSettings), command)


def test_a_run_whose_disk_fills_up_says_so_and_resumes_to_the_same_weights(
    run_folder: RunFolder, tiny_model: Path, small_disk: Path
) -> None:
    whole = run_folder(name="whole")
    assert train(whole, tiny_model) == 0
    a_checkpoint = sum(path.stat().st_size for path in (whole / "checkpoints" / "checkpoint-4").rglob("*") if path.is_file())
    folder = small_disk / "run"
    shutil.copytree(run_folder(name="other"), folder)
    ballast = fill(small_disk, int(2.2 * a_checkpoint))
    assert train(folder, tiny_model) == 1
    kept = sorted((folder / "checkpoints").glob("checkpoint-*"))
    assert kept and all(map(is_sealed, kept)) and not (folder / "checkpoints" / "checkpoint-6").exists()
    *_, error = read_events(folder)
    assert error["type"] == "error" and f"The disk that holds {folder} is full" in error["message"]
    assert f"{kept[-1].name} is kept" in error["message"] and "free at least" in error["message"]
    ballast.unlink()
    assert train(folder, tiny_model) == 0
    assert [event["checkpoint"] for event in read_events(folder) if event.get("state") == "resumed"] == [f"checkpoints/{kept[-1].name}"]
    first, second = (load_file(path / "model" / "adapter_model.safetensors") for path in (whole, folder))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_an_event_that_finds_no_room_stops_the_run_and_is_not_written_later(small_disk: Path) -> None:
    log = EventLog(small_disk, kind="dpo")
    ballast = fill(small_disk, 0)
    with pytest.raises(OSError) as raised:
        for _ in range(100):
            log.event("sample", completion="x" * 1000)
    assert raised.value.errno == errno.ENOSPC and is_full(raised.value)
    assert "No checkpoint was made before" in describe_full(small_disk)
    ballast.unlink()
    n_before = len(list(read_events(small_disk)))
    EventLog(small_disk, kind="dpo")  # as when the run is resumed: a torn line gets its end
    assert len(list(read_events(small_disk))) == n_before + 1


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (RuntimeError("[enforce fail at inline_container.cc:668] . PytorchStreamWriter failed writing file data/1: file write failed"), True),
        (ValueError("I/O error: No space left on device (os error 28)"), True),
        (OSError(errno.ENOENT, "No such file or directory"), False),
        (RuntimeError("out of memory"), False),
    ],
)
def test_full_disks_are_told_from_other_errors(error: Exception, full: bool) -> None:
    assert is_full(error) is full


@pytest.mark.parametrize(("n", "words"), [(12, "12 bytes"), (4_200, "4.2 kB"), (3_210_000, "3.21 MB"), (5 * 10**11, "500 GB")])
def test_sizes_are_said_as_people_say_them(n: int, words: str) -> None:
    assert in_words(n) == words
