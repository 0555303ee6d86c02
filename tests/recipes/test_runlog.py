"""Events, seals, errors and the watch over the worker."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from training.recipes._runlog import (
    COMPLETE_FILE,
    RunLog,
    Stopped,
    explain,
    newest_checkpoint,
    read_events,
    seal_checkpoint,
)


@pytest.fixture(autouse=True)
def keep_signal_handler() -> object:
    """RunLog takes SIGTERM over."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_not_a_number_becomes_null_and_other_things_are_left_out(tmp_path: Path) -> None:
    run_log = RunLog(tmp_path, kind="test")
    run_log.metrics({"loss": float("nan"), "accuracy": 0.5, "n": 3, "name": "x", "flag": True}, step=2)
    *_, event = read_events(tmp_path)
    assert event["type"] == "metric"
    assert event["step"] == 2
    assert event["metrics"] == {"loss": None, "accuracy": 0.5, "n": 3}


def test_a_torn_line_is_ended_by_the_next_start_and_skipped_by_readers(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"type": "status"}\n{"type": "met')
    RunLog(tmp_path, kind="test")
    assert [event["type"] for event in read_events(tmp_path)] == ["status", "status"]


def test_only_process_zero_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    run_log = RunLog(tmp_path, kind="test")
    run_log.status("anything")
    run_log.finish(metrics={})
    assert list(tmp_path.iterdir()) == []


def test_the_result_carries_hashes_versions_seed_and_memory(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.safetensors").write_bytes(b"abc")
    (tmp_path / "model" / "training_args.bin").write_bytes(b"a pickle")
    RunLog(tmp_path, kind="test", seed=7).finish(metrics={"loss": float("inf")}, n_texts=3)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["files"] == {
        "weights.safetensors": {
            "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "bytes": 3,
        }
    }
    assert result["metrics"] == {"loss": None}
    assert result["seed"] == 7
    assert result["n_texts"] == 3
    assert {"python", "torch", "transformers", "trl", "peft"} <= set(result["versions"])
    assert result["peak_rss_bytes"] > 10_000_000
    assert "peak_gpu_bytes" in result
    assert [event["type"] for event in read_events(tmp_path)][-1] == "done"


def test_the_stop_file_or_a_signal_asks_for_an_end(tmp_path: Path) -> None:
    run_log = RunLog(tmp_path, kind="test")
    run_log.raise_if_stopped()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Stopped):
        run_log.raise_if_stopped()
    second = RunLog(tmp_path, kind="test")
    (tmp_path / "stop").touch()
    with pytest.raises(Stopped):
        second.raise_if_stopped()


def test_only_whole_checkpoints_count_and_torn_ones_are_removed(tmp_path: Path) -> None:
    for step in (2, 4, 6, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "weights").write_text(str(step))
    for step in (2, 4, 6):
        seal_checkpoint(tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-6" / "weights").write_text("half")  # changed after the seal
    (tmp_path / "checkpoint-10" / COMPLETE_FILE).write_text('{"files"')
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-4"]
    assert newest_checkpoint(tmp_path / "missing") is None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk is full"),
        (MemoryError(), "per_device_train_batch_size"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/models/x"), "/models/x is missing"),
        (ValueError("as it is"), "as it is"),
    ],
)
def test_errors_say_what_to_do(error: Exception, words: str) -> None:
    assert words in explain(error)


def test_a_recipe_ends_soon_after_its_worker_is_gone() -> None:
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    code = "from training.recipes._runlog import watch_parent; watch_parent(); print('on', flush=True)\n"
    recipe = subprocess.Popen(
        [sys.executable, "-c", code + "import time; time.sleep(60)"],
        env=os.environ | {"PREFLOOP_WATCHER_PID": str(worker.pid)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert recipe.stdout.readline() == "on\n"
    worker.kill()
    began = time.monotonic()  # the worker stays a zombie until it is waited for: that must count as gone
    assert recipe.wait(timeout=20) == 4
    assert time.monotonic() - began < 10
    worker.wait()
