"""Further machines of runs that are spread over several: each starts its part of what the first one's worker has begun.

They share PREFLOOP_HOME and the database with it. The parts find each other at PREFLOOP_TRAIN_RENDEZVOUS; which run it is,
and when it is over, the row says.
"""

import logging
import subprocess
import time
from collections.abc import Callable

from django.conf import settings

from training.runs.folder import run_folder
from training.runs.launchers import ONE, command, environment, processes_here, why_not_here
from training.runs.models import Run
from training.runs.subprocesses import end_all, start

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5


def begun() -> Run | None:
    """The run that is spread over all machines now: they meet at one place, so there is one at a time."""
    running = Run.objects.filter(state=Run.State.RUNNING).order_by("-pk")
    return next((run for run in running if run.spec.get("launcher", ONE) != ONE), None)


def join_runs(*, rank: int, is_over: Callable[[], bool] = lambda: False) -> int:
    """Take part in each run until `is_over` says so between two; returns in how many it did."""
    joined: set[tuple[int, int]] = set()
    while not is_over():
        run = begun()
        if run is not None and (run.pk, run.epoch) not in joined:
            joined.add((run.pk, run.epoch))
            take_part(run, rank)
        time.sleep(POLL_SECONDS)
    return len(joined)


def take_part(run: Run, rank: int) -> None:
    """Start this machine's processes of a run, and end them with it."""
    folder = run_folder(run)
    folder.mkdir(parents=True, exist_ok=True)
    if lacking := why_not_here(run.spec):
        logger.error("run %s: %s", run.pk, lacking)
        return
    process = None
    try:
        process = start(
            command(run.kind, run.spec, folder, rank=rank), folder, run.epoch, environment(processes_here(run.spec)),
            log=f"log-{rank}.txt",
        )  # fmt: skip
        _wait(run, process)
    finally:
        end_all(folder, run.epoch, process)


def _wait(run: Run, process: subprocess.Popen) -> None:
    """Until the processes end, or the run is over or somebody else's: the others then wait for nobody."""
    mine = Run.objects.filter(pk=run.pk, epoch=run.epoch, state=Run.State.RUNNING)
    last_look = time.monotonic()
    while process.poll() is None:
        if time.monotonic() - last_look >= settings.RUN_HEARTBEAT_SECONDS:
            last_look = time.monotonic()
            if not mine.exists():
                return
        time.sleep(POLL_SECONDS)
