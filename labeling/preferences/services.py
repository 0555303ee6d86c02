"""Freezing a preference dataset."""

import errno
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Max

from labeling.accounts.models import User
from labeling.live.services import notify
from labeling.preferences.errors import NoRoom, NothingToFreeze
from labeling.preferences.filters import complete_filters, complete_policy
from labeling.preferences.freezing import SPLITS, Report, write_rows
from labeling.preferences.models import Snapshot
from labeling.projects.grouping import regroup
from labeling.projects.models import Project

UNFINISHED = ".freezing-"  # begins the name of a folder that is being written
UNFINISHED_HOURS = 6  # without a change, and it is nobody's
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

__all__ = ["SPLITS", "create_snapshot", "snapshots_folder"]


def snapshots_folder() -> Path:
    return Path(settings.FILES) / "snapshots"


def create_snapshot(
    *,
    project: Project,
    created_by: User | None,
    name: str = "",
    filters: dict[str, Any] | None = None,
    policy: dict[str, Any] | None = None,
    report: Report | None = None,
) -> Snapshot:
    """Freeze the judgements that pass the filters. The same rows again give the snapshot there is.

    Streams to files named by the SHA-256 of their canonical rows; memory stays constant, and what is read is one state
    of the database, whatever is written meanwhile. `report` hears of the tasks done, of all.

    A project without rankings has no pairs, and is frozen for what else was said. Raises BadFilter, NothingToFreeze
    where no judgement passes, and NoRoom where the disk is full; then nothing is registered.
    """
    filters, policy = complete_filters(filters), complete_policy(policy)
    regroup(project)
    root = snapshots_folder()
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        work = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=root))
    except OSError as error:
        raise _no_room(error) from error
    try:
        filters, manifest = write_rows(project, filters, policy, work, report)
        if not manifest["n_judgements"]:
            n_all = project.judgements.count()
            raise NothingToFreeze(
                f"None of the {n_all:,} judgements passes these filters: loosen them"
                if n_all
                else "Nothing is judged yet: make tasks, and freeze when people have judged some of them"
            )
        existing = Snapshot.objects.filter(project=project, content_hash=manifest["content_hash"])
        if found := existing.first():
            return found
        _put_in_place(work, root / manifest["content_hash"])
        with transaction.atomic():
            # Numbers snapshots one at a time, and of two freezes of the same rows lets the second find the first's.
            Project.objects.select_for_update().get(pk=project.pk)
            if found := existing.first():
                return found
            number = (project.snapshots.aggregate(top=Max("number"))["top"] or 0) + 1
            snapshot = Snapshot.objects.create(
                project=project, number=number, name=name, content_hash=manifest["content_hash"], filters=filters,
                policy=policy, manifest=manifest, n_judgements=manifest["n_judgements"],
                n_pairs=manifest["n_pairs"], created_by=created_by,
            )  # fmt: skip
            notify(project.live_group, "snapshot", number=number)
        return snapshot
    except OSError as error:
        raise _no_room(error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _put_in_place(work: Path, final: Path) -> None:
    """A folder of this name has the same rows: of a freeze that was killed before it was registered."""
    if final.exists():
        for path in work.iterdir():
            os.replace(path, final / path.name)
    else:
        work.chmod(0o755)
        os.replace(work, final)
    for folder in (final, final.parent):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sweep(root: Path) -> None:
    """Remove what freezes that were killed have left."""
    before = time.time() - UNFINISHED_HOURS * 3600
    for folder in root.glob(f"{UNFINISHED}*"):
        try:
            newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
        except OSError:
            continue  # its freeze has ended just now
        if newest < before:
            shutil.rmtree(folder, ignore_errors=True)


def _no_room(error: OSError) -> Exception:
    if error.errno not in FULL:
        return error
    return NoRoom("The disk is full, so nothing was frozen: make room and freeze again")
