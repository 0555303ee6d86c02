"""What runs take of the disk, how much they may, and when their checkpoints go.

While a run goes on its last two checkpoints are kept. They go when its model is entered, unless its option
`keep_checkpoints` holds them; those of failed and cancelled runs go after PREFLOOP_RUN_CHECKPOINT_DAYS, or by hand.
"""

import os
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet, Sum
from django.db.models.functions import Now
from django.template.defaultfilters import filesizeformat
from django.utils.timezone import now

from labeling.live.services import notify
from labeling.projects.models import Project
from training.runs.errors import RunError
from training.runs.events import note
from training.runs.folder import run_folder
from training.runs.models import Run

GB = 2**30  # as templates say it
MOST_BYTES_OF_A_FULL_DISK = 1_000_000
CHECKPOINTS, GOING = "checkpoints", "checkpoints.deleted"


@dataclass(frozen=True)
class Usage:
    """In bytes. `quota` and `floor` are 0 where there is none."""

    used: int
    checkpoints: int
    quota: int
    free: int
    total: int
    floor: int

    @property
    def is_over_quota(self) -> bool:
        return bool(self.quota) and self.used >= self.quota

    @property
    def is_below_floor(self) -> bool:
        return self.free < self.floor


def usage_of(project: Project) -> Usage:
    sums = Run.objects.filter(project=project).aggregate(used=Sum("disk_bytes"), checkpoints=Sum("checkpoint_bytes"))
    disk = _disk()
    return Usage(
        used=sums["used"] or 0, checkpoints=sums["checkpoints"] or 0, quota=settings.RUN_DISK_QUOTA_GB * GB,
        free=disk.free, total=disk.total, floor=settings.RUN_DISK_FREE_GB * GB,
    )  # fmt: skip


def why_over_quota(project: Project) -> str:
    """Why the project may start nothing more, and what to do; empty: it may."""
    if not settings.RUN_DISK_QUOTA_GB or not (usage := usage_of(project)).is_over_quota:
        return ""
    return (
        f"is used up: the project's runs take {filesizeformat(usage.used)} of {filesizeformat(usage.quota)}, "
        f"{filesizeformat(usage.checkpoints)} of it checkpoints. A lead deletes some under Runs, Disk"
    )


def why_no_room() -> str:
    """Why no run is begun on this disk now; empty: there is room."""
    floor = settings.RUN_DISK_FREE_GB * GB
    if (free := _disk().free) >= floor:
        return ""
    return f"waiting for room: {filesizeformat(free)} are free where runs lie, and {filesizeformat(floor)} stay free"


def why_full() -> str:
    """What a run failed of that could not even say so; empty: there is room."""
    if (free := _disk().free) >= MOST_BYTES_OF_A_FULL_DISK:
        return ""
    return (
        f"The disk that holds {settings.RUNS} is full: {filesizeformat(free)} are free. Free some space, or delete checkpoints "
        "under Runs, Disk; then resume: the run goes on from its last checkpoint."
    )


def runs_by_room(project: Project) -> QuerySet[Run]:
    """Those that take any, the largest first."""
    return Run.objects.filter(project=project, disk_bytes__gt=0).select_related("project", "output_model").order_by("-disk_bytes", "-pk")


def goes_at(run: Run) -> datetime | None:
    """When the checkpoints of a run go by themselves; None: there are none, or they stay."""
    if run.state not in (Run.State.FAILED, Run.State.CANCELLED) or not run.checkpoint_bytes or not run.finished_at:
        return None
    return run.finished_at + timedelta(days=settings.RUN_CHECKPOINT_DAYS)


# --- counting -----------------------------------------------------------------------------------
def measure(run: Run) -> None:
    """Count the bytes of a run's folder, and store them."""
    folder = run_folder(run)
    Run.objects.filter(pk=run.pk).update(
        disk_bytes=_bytes_below(folder), checkpoint_bytes=_bytes_below(folder / CHECKPOINTS), measured_at=Now()
    )


def measure_runs() -> int:
    """Count those that go on, and those that ended since they were counted. Returns how many."""
    changed = Q(state=Run.State.RUNNING) | Q(state__in=Run.ENDED) & (Q(measured_at=None) | Q(measured_at__lt=F("finished_at")))
    runs = list(Run.objects.filter(changed).only("pk"))
    for run in runs:
        measure(run)
    return len(runs)


def _bytes_below(folder: Path) -> int:
    """What the files take, counting what disappears meanwhile as nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:
                continue
    return total


def _disk() -> shutil._ntuple_diskusage:
    path = Path(settings.RUNS)
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path)


# --- deleting -----------------------------------------------------------------------------------
def delete_checkpoints(*, run: Run, reason: str) -> int:
    """Delete a run's checkpoints and say so in its events. Returns the bytes. Raises RunError for one that isn't over."""
    folder = run_folder(run)
    n_bytes = _bytes_below(folder / CHECKPOINTS)
    with transaction.atomic():
        over = Run.objects.filter(pk=run.pk, state__in=Run.ENDED)
        if not over.update(checkpoints_deleted_at=Now(), checkpoint_bytes=0):
            raise RunError("This run isn't over: its checkpoints are what it goes on from. Cancel it first")
        if (folder / CHECKPOINTS).exists():
            # Out of the way at once, so that a run that is resumed now finds all of them or none.
            shutil.rmtree(folder / GOING, ignore_errors=True)
            os.replace(folder / CHECKPOINTS, folder / GOING)
            note(run, folder, "status", state="checkpoints deleted", reason=reason, bytes=n_bytes)
            notify(run.live_group, "state")
    shutil.rmtree(folder / GOING, ignore_errors=True)
    measure(run)
    return n_bytes


def clean_runs(project: Project | None = None, *, at: datetime | None = None, days: int | None = None) -> list[tuple[Run, int]]:
    """Delete the checkpoints whose time is over. Returns the runs with the bytes of each."""
    cleaned = []
    for run in due_runs(project, at=at, days=days):
        why = "its model is entered" if run.state == Run.State.DONE else f"{run.get_state_display()} {_days(days)} ago or longer"
        try:
            cleaned.append((run, delete_checkpoints(run=run, reason=why)))
        except RunError:  # resumed meanwhile
            continue
    for left in Path(settings.RUNS).glob(f"*/{GOING}"):
        shutil.rmtree(left, ignore_errors=True)
    return cleaned


def due_runs(project: Project | None = None, *, at: datetime | None = None, days: int | None = None) -> list[Run]:
    """Runs whose checkpoints are to go now: of those that failed or were cancelled, after so many days."""
    days = settings.RUN_CHECKPOINT_DAYS if days is None else days
    long_over = Q(state__in=[Run.State.FAILED, Run.State.CANCELLED], finished_at__lte=(at or now()) - timedelta(days=days))
    runs = Run.objects.filter(long_over | Q(state=Run.State.DONE), checkpoint_bytes__gt=0).order_by("pk")
    runs = runs.filter(project=project) if project else runs
    return [run for run in runs if run.state != Run.State.DONE or not run.spec.get("keep_checkpoints")]


def _days(days: int | None) -> str:
    days = settings.RUN_CHECKPOINT_DAYS if days is None else days
    return f"{days} day{'s' if days != 1 else ''}"
