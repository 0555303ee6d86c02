"""The processes of a run: started with a mark in their environment, by which all of them are found again.

Launchers start their processes in sessions of their own, so ending a launcher's group doesn't end them.
"""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from django.conf import settings

MARK = "PREFLOOP_RUN_FOLDER"
PROC = Path("/proc")
END_WITHIN_SECONDS = 20


def start(
    command: list[str], folder: Path, epoch: int, environment: dict[str, str], *, log: str = "log.txt"
) -> subprocess.Popen:
    """Start the first process of a run's owner; what it and its children say goes to the end of the run's log."""
    with open(folder / log, "ab") as file:
        return subprocess.Popen(
            command,
            cwd=settings.BASE_DIR,
            env={**environment, MARK: f"{folder} {epoch}"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end_all(folder: Path, epoch: int | None = None, process: subprocess.Popen | None = None) -> None:
    """Kill what still runs of the run on this machine, under one owner or all, and wait until nothing of it does."""
    if process is not None and process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + END_WITHIN_SECONDS
    while (left := running(folder, epoch)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def running(folder: Path, epoch: int | None = None) -> list[int]:
    """Numbers of this machine's processes that belong to the run. Where there is no /proc, none are found."""
    mark, found = f"{MARK}={folder} ".encode(), []
    for entry in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile, or somebody else's
            marks = [value for value in (entry / "environ").read_bytes().split(b"\0") if value.startswith(mark)]
            if marks and (epoch is None or marks[0] == mark + str(epoch).encode()):
                found.append(int(entry.name))
    return found
