"""What a recipe tells the outside: events while it runs, one result at the end, and how it ends.

`events.jsonl` gets one JSON object a line: `{"type", "step", "at", ...}`, where type is

- `status`: `state` is started, resumed, training, encoding, stopping, stopped, ...
- `metric`: `metrics`, flat numbers under the trainer's own names; not a number becomes null
- `progress`: `done`, `total`, `unit`
- `checkpoint`: `path` inside the run folder
- `sample`: `prompt`, `completion`
- `error`: `message`, `kind`; then the process exits with 1. Of several processes each says its own, with its `rank`
- `done`: `result.json` is there; the process exits with 0

A resumed run appends to the same file and repeats the steps after its checkpoint: for one step the last
event counts. After a kill the last line may be torn; the next start ends it with a line break.
"""

import contextlib
import json
import math
import os
import platform
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from training.recipes._disk import COMPLETE_FILE, clear_torn, describe_full, is_full
from training.recipes._environment import run_dir_from
from training.sampling.model_files import sha256_of_file

STOP_FILE = "stop"
EXIT_FAILED, EXIT_STOPPED, EXIT_ORPHANED = 1, 3, 4
WATCHER_VARIABLE = "PREFLOOP_WATCHER_PID"
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "safetensors")

Event = dict[str, Any]


class Stopped(Exception):
    """The run was asked to end early, and has saved what it needs to go on later."""


class OthersGone(Exception):
    """Another process of the run ended first, and this one waited for it in vain."""


class EventLog:
    """Writes a run folder's `events.jsonl` and `result.json`. Imports no torch: for recipes that may not need it.

    With several processes each has one, but only process zero writes. SIGTERM counts as the `stop` file.
    """

    def __init__(self, run_dir: Path, *, kind: str, seed: int | None = None) -> None:
        self.run_dir = run_dir
        self.kind = kind
        self.seed = seed
        self.step = 0
        self.began = time.monotonic()
        self.is_writer = is_process_zero()
        self.stop_seen = False
        self.batch: dict[str, int] | None = None  # rows that a step learns from
        self._events = None
        self._lock = threading.Lock()
        if self.is_writer:
            self._events = _open_for_append(run_dir / "events.jsonl")
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note_signal)
        self.status("started", kind=kind, pid=os.getpid())

    # Writing events

    def event(self, type: str, **fields: Any) -> None:
        """Append one event and flush it."""
        if self._events is None:
            return
        event = {"type": type, "step": self.step, "at": datetime.now(UTC).isoformat()} | fields
        line = json.dumps(_without_nan(event), ensure_ascii=False, default=str) + "\n"
        with self._lock:
            _write_all(self._events, line.encode())

    def status(self, state: str, **fields: Any) -> None:
        """Say what the run is doing now."""
        self.event("status", state=state, **fields)

    def metrics(self, metrics: dict[str, Any], *, step: int | None = None) -> None:
        """Record numbers of one step; entries that are no numbers are left out."""
        if step is not None:
            self.step = step
        numbers = {
            name: float(value) if isinstance(value, float) else value
            for name, value in metrics.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        self.event("metric", metrics=numbers)

    def progress(self, done: int, total: int, unit: str) -> None:
        """Say how far the present stage is."""
        self.event("progress", done=done, total=total, unit=unit)

    # Ending early

    def stop_requested(self) -> bool:
        """Whether the `stop` file is there or SIGTERM came; every process gives the same answer."""
        self.stop_seen = self._agree(self.stop_seen or (self.run_dir / STOP_FILE).exists())
        return self.stop_seen

    def _agree(self, wanted: bool) -> bool:
        """Several processes answer as one where a trainer has made them a group."""
        return wanted

    def wait_for_others(self) -> None:
        """Until all processes are here, where a trainer has made them a group."""

    def raise_if_stopped(self) -> None:
        """Raise Stopped if the run was asked to end: for loops without a trainer, and after `train()`."""
        if self.stop_requested():
            raise Stopped

    def _note_signal(self, number: int, frame: object) -> None:
        self.stop_seen = True

    # The end

    def finish(
        self,
        *,
        metrics: dict[str, Any],
        figures: dict[str, Any] | None = None,
        **facts: Any,
    ) -> dict[str, Any]:
        """Write `result.json` whole or not at all, then the `done` event; returns what was written.

        `metrics` are flat numbers, `figures` are `{"value", "low", "high", "n", ...}`, `facts` whatever
        else belongs to this kind of run. Of several processes the first writes, and the others have nothing to return.
        """
        self.wait_for_others()  # what they write must be there to be listed
        if not self.is_writer:
            return {}
        # The trainer saves its arguments as a pickle; nothing that loads a model should meet one.
        (self.run_dir / "model" / "training_args.bin").unlink(missing_ok=True)
        result = {
            "kind": self.kind,
            "status": "done",
            "metrics": metrics,
            "figures": figures or {},
            **facts,
            "files": describe_files(self.run_dir / "model"),
            "versions": library_versions(),
            "code_version": code_version(),
            "seed": self.seed,
            **({"batch": self.batch} if self.batch else {}),
            "seconds": round(time.monotonic() - self.began, 3),
            "peak_rss_bytes": peak_rss_bytes(),
            "peak_gpu_bytes": peak_gpu_bytes(),
            "finished_at": datetime.now(UTC).isoformat(),
        }
        result = _without_nan(result)
        write_json(self.run_dir / "result.json", result)
        self.event("done", metrics=metrics)
        return result


# Starting a recipe


def parse_with_trl(dataclass_types: tuple[type, ...], arguments: list[str]) -> tuple[Any, ...]:
    """By TRL's parser, which knows the configurations of trainers."""
    from trl import TrlParser

    return TrlParser(dataclass_types).parse_args_and_config(arguments)


def launch(
    kind: str,
    main: Callable[..., None],
    dataclass_types: tuple[type, ...],
    arguments: Sequence[str] | None = None,
    *,
    parse: Callable[[tuple[type, ...], list[str]], tuple[Any, ...]] = parse_with_trl,
) -> int:
    """Parse a recipe's command line, run it, and return the exit status: 0 done, 3 stopped, 1 failed.

    `parse` makes the dataclasses out of the command line: `parse_plain` does without a second of imports.
    Whatever goes wrong is written to `events.jsonl` as one `error` event that says what to do about it.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    run_dir = run_dir_from(arguments)
    watch_parent()
    try:
        main(*parse(dataclass_types, arguments))
    except Stopped:
        if run_dir:
            append_event(run_dir, {"type": "status", "state": "stopped"})
        return EXIT_STOPPED
    except Exception as error:
        name = OthersGone.__name__ if is_of_another(error) else type(error).__name__
        message = explain(error, run_dir)
        with contextlib.suppress(OSError):  # a full disk may be the very reason
            if run_dir:
                append_event(run_dir, {"type": "error", "kind": name, "message": message}, by_all=True)
            traceback.print_exc()
            print(f"{kind}: {message}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def is_of_another(error: BaseException) -> bool:
    """Whether an error only says that a process of the same run is gone."""
    if type(error).__name__ in ("DistBackendError", "DistNetworkError"):
        return True
    return isinstance(error, RuntimeError) and ("Connection closed by peer" in str(error) or "reset by peer" in str(error))


def explain(error: BaseException, run_dir: Path | None = None) -> str:
    """One line for the person who started the run: what happened, and what to do where we know.

    Of a full disk it first clears away what lies half written in the run folder.
    """
    text = str(error).strip() or type(error).__name__
    if is_full(error) and run_dir and run_dir.is_dir():
        if is_process_zero():
            clear_torn(run_dir)
        return describe_full(run_dir)
    if is_full(error):
        return f"The disk is full ({text}). Free some space, then resume the run: its checkpoints are kept."
    if is_of_another(error):
        return f"Another process of the run ended, and this one with it: the log says why ({text.splitlines()[0]})"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
        return (
            f"Out of memory ({text.splitlines()[0]}). Lower per_device_train_batch_size or max_length, raise "
            "gradient_accumulation_steps, or set gradient_checkpointing: true."
        )
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{error.filename} is missing. Check that the run folder and the model folder are complete."
    if isinstance(error, PermissionError) and error.filename:
        return f"{error.filename} cannot be accessed: the worker's user lacks the permission."
    return text


def watch_parent() -> None:
    """End this process when the one named by PREFLOOP_WATCHER_PID is gone, or the launcher that started this one.

    A worker that is killed cannot stop its recipe. Without this the orphan would go on writing into a run
    folder that another worker may have taken over.
    """
    if not (value := os.environ.get(WATCHER_VARIABLE)):
        return
    launcher = os.getppid()
    try:
        watcher = psutil.Process(int(value))
    except psutil.NoSuchProcess:
        os._exit(EXIT_ORPHANED)

    def watch() -> None:
        # is_running also compares start times, so a reused process id does not keep the orphan alive.
        while watcher.is_running() and watcher.status() != psutil.STATUS_ZOMBIE and os.getppid() == launcher:
            time.sleep(1)
        os._exit(EXIT_ORPHANED)

    def watch_safely() -> None:
        with contextlib.suppress(psutil.Error):
            watch()
        os._exit(EXIT_ORPHANED)

    threading.Thread(target=watch_safely, name="watcher", daemon=True).start()


# Facts about this run


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """`{relative path: {"sha256", "bytes"}}` for every file below `folder`, except the seal itself."""
    return {
        path.relative_to(folder).as_posix(): {"sha256": sha256_of_file(path), "bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != COMPLETE_FILE
    }


def library_versions() -> dict[str, str]:
    """Python and the libraries that decide what a run computes."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def code_version() -> str:
    """The commit of this checkout, with `+changes` where files differ from it; else the package's version."""
    root = Path(__file__).resolve().parents[2]
    git = ["git", "-C", str(root)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no", "--", "training"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        return commit.stdout.strip() + ("+changes" if changed.stdout.strip() else "")
    except (OSError, subprocess.SubprocessError):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version("prefloop")
        return "unknown"


def peak_rss_bytes() -> int:
    """The most memory this process held; `ru_maxrss` counts KiB on Linux, bytes on macOS."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_gpu_bytes() -> int | None:
    """The most memory of its GPU that torch gave to this process; None where it has none, or never asked for torch."""
    torch = sys.modules.get("torch")
    return torch.cuda.max_memory_allocated() if torch and torch.cuda.is_available() else None


def is_process_zero() -> bool:
    """Whether this is the first of the processes that torchrun or accelerate started, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


# Files


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all, even when the power goes."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=2, allow_nan=False, default=str)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def append_event(run_dir: Path, event: Event, *, by_all: bool = False) -> None:
    """Append one event where no RunLog may exist, as when parsing the arguments failed; of several processes the first, or all."""
    if (by_all or is_process_zero()) and run_dir.is_dir():
        with _open_for_append(run_dir / "events.jsonl") as file:
            event = {"type": event["type"], "step": None, "at": datetime.now(UTC).isoformat()} | event
            event |= {} if is_process_zero() else {"rank": int(os.environ["RANK"])}
            _write_all(file, (json.dumps(_without_nan(event), ensure_ascii=False) + "\n").encode())


def read_events(run_dir: Path) -> Iterator[Event]:
    """The whole events so far, oldest first; a torn line is skipped."""
    with (run_dir / "events.jsonl").open("rb") as lines:
        for line in lines:
            with contextlib.suppress(ValueError):
                yield json.loads(line)


def _open_for_append(path: Path) -> Any:
    """Open for appending whole lines: a line that a kill has torn gets its line break first."""
    file = path.open("ab+", buffering=0)
    if file.tell():
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")
    return file


def _write_all(file: Any, line: bytes) -> None:
    """Raises OSError where the disk has no room for all of it; nothing is kept to be written later."""
    while line:
        line = line[file.write(line) :]


def _without_nan(value: Any) -> Any:
    """The same with None for NaN and infinities, which JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
