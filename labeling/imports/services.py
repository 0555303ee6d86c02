"""Imports from the file to the last row.

What a batch brings and how far the import has come is one transaction, so a worker that is killed leaves an import that
another goes on with where it was, with nothing lost and nothing twice.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils.timezone import now

from labeling.accounts.models import User
from labeling.annotation.models import Judgement, Lease, Slot, Task, TaskCompletion
from labeling.database.away import is_away
from labeling.database.jobs import LOST_WORKER, Jobs, OwnerLost
from labeling.database.ownership import before, owner_name
from labeling.database.planner import after_many_new_rows
from labeling.imports import storage
from labeling.imports.errors import BadImport, NotNow
from labeling.imports.formats import FORMATS
from labeling.imports.reading import (
    Ahead,
    Batch,
    Reading,
    RejectedRow,
    check_choices,
    opened,
    recognised_in,
    unknown_format,
    unrecognised,
)
from labeling.imports.sources import BadSource
from labeling.imports.storage import Upload
from labeling.imports.taking import LONGEST, LONGEST_TAG, Checked, Taken, Taker
from labeling.live.services import notify
from labeling.projects.grouping import regroup
from labeling.projects.models import Completion, Import, Project, Prompt

logger = logging.getLogger(__name__)

MAX_REASONS_KEPT = 1000
TELL_EVERY_SECONDS = 1.0
WAKE_EVERY = timedelta(seconds=60)
MAX_TAGS = 50
Report = Callable[[Import], None]


def _wake() -> None:
    from labeling.imports.tasks import take_imports  # the task calls back into this module

    take_imports.delay()


def _tell(record: Import, state: str = "") -> None:
    notify(record.project.live_group, "import", id=record.pk, **({"state": state} if state else {}))


JOBS = Jobs(Import, waiting=Import.State.WAITING, working=Import.State.RUNNING, wake=_wake, tell=_tell)


# --- beginning ----------------------------------------------------------------------------------
def start_import(
    *,
    project: Project,
    path: Path | Upload,
    filename: str = "",
    format: str = "",
    mapping: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
    licence: str = "",
    source: str = "",
    tags: Sequence[str] = (),
    created_by: User | None = None,
    enqueue: bool = False,
    draft: bool = False,
) -> Import:
    """Make the import of a file, waiting to be run; `enqueue` has a worker run it, `draft` lets nobody do so yet.

    An Upload is moved to the import, a file anywhere else stays where it is. No format: it is recognised.

    Raises BadImport naming what can't be: nothing is left then, and an Upload is gone.
    """
    upload = path if isinstance(path, Upload) else None
    at = upload.path if upload else Path(path)
    mapping, options = dict(mapping or {}), dict(options or {})
    try:
        check_origin(source, licence, tags)
        if not format:
            format, mapping, options = _recognised(at, filename, mapping, options, or_none=draft)
        if format and not draft:
            check_choices(format, mapping, options)
        with transaction.atomic():
            record = Import.objects.create(
                project=project, format=format, filename=storage.clean_name(filename), mapping=mapping, options=options,
                path="" if upload else str(at.absolute()), source=source, licence=licence, tags=sorted(set(tags)),
                state=Import.State.DRAFT if draft else Import.State.WAITING, created_by=created_by,
                sha256=upload.sha256 if upload else storage.digest_of_path(at),
                bytes_total=upload.n_bytes if upload else bytes_of(at),
            )  # fmt: skip
            if upload:
                storage.keep(upload, record)
            if enqueue:
                JOBS.enqueue(record)
            if not draft:
                _tell(record, record.state)
    except BaseException:
        if upload:
            storage.discard(upload)
        raise
    return record


def check_origin(source: str, licence: str, tags: Sequence[str]) -> None:
    """Raises BadImport."""
    wrong = {
        name: f"must have at most {LONGEST[name]} characters, without NUL"
        for name, value in (("source", source), ("licence", licence))
        if len(value) > LONGEST[name] or "\x00" in value
    }
    if len(tags) > MAX_TAGS or any(not 0 < len(tag) <= LONGEST_TAG or "\x00" in tag for tag in tags):
        wrong["tags"] = f"must be at most {MAX_TAGS} texts of at most {LONGEST_TAG} characters"
    if wrong:
        raise BadImport(wrong)


def _recognised(
    path: Path, filename: str, mapping: dict[str, str], options: dict[str, str], *, or_none: bool
) -> tuple[str, dict[str, str], dict[str, str]]:
    """Format, mapping and options; what the person said of the latter two goes before what is recognised."""
    found = recognised_in(opened(path, filename), filename)
    if found.format is None and not or_none:
        raise unrecognised(found)
    return found.format or "", mapping or found.mapping, found.options | options


def bytes_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(item.stat().st_size for item in path.rglob("*") if item.is_file())


def change_draft(*, record: Import, format: str, mapping: Mapping[str, str], options: Mapping[str, str], **origin: Any) -> None:
    """Say anew how a file that isn't started yet is to be read; whether that can be, starting it says.

    Raises BadImport for what no file can be said to be, and NotNow.
    """
    check_origin(origin["source"], origin["licence"], origin["tags"])
    if format and format not in FORMATS:
        raise unknown_format(format)
    changes = {"format": format, "mapping": dict(mapping), "options": dict(options), **origin}
    if not Import.objects.filter(pk=record.pk, state=Import.State.DRAFT).update(**changes):
        raise NotNow("This import has been started already")
    record.refresh_from_db()


def start_draft(*, record: Import) -> None:
    """Have a worker take the file. Raises BadImport for choices that don't fit, and NotNow where somebody did so before."""
    check_choices(record.format, record.mapping, record.options)
    with transaction.atomic():
        if not Import.objects.filter(pk=record.pk, state=Import.State.DRAFT).update(state=Import.State.WAITING):
            raise NotNow("This import has been started already")
        JOBS.enqueue(record)
        _tell(record, Import.State.WAITING)


def drop_draft(*, record: Import) -> None:
    """Raises NotNow for an import that was started: what came in by it knows it."""
    deleted, _ = Import.objects.filter(pk=record.pk, state=Import.State.DRAFT).delete()
    if not deleted:
        raise NotNow("This import has been started already")
    storage.remove_folder(record)


def import_rows(
    *, project: Project, format: str, lines: Iterable[bytes], created_by: User | None = None, filename: str = ""
) -> Import:
    """Take lines that a program has at hand, here and now. Raises BadImport."""
    if format not in FORMATS:
        raise unknown_format(format)
    whole = (line if line.endswith(b"\n") else line + b"\n" for line in lines)
    upload = storage.receive(lambda _size: next(whole, b""))
    record = start_import(project=project, path=upload, filename=filename, format=format, created_by=created_by)
    return run_import(record.pk)


def again(record: Import) -> Import:
    """An earlier import of the very file, read in the very way, that broke off; it goes on in place of the new one.

    One that a living process works on is left to it.
    """
    same = Import.objects.filter(
        project=record.project_id, sha256=record.sha256, format=record.format, mapping=record.mapping,
        options=record.options, source=record.source, licence=record.licence, tags=record.tags, path=record.path,
    ).exclude(pk=record.pk)  # fmt: skip
    for earlier in same.filter(state=Import.State.RUNNING).select_related("project"):
        _hand_on(earlier)
    earlier = same.exclude(state__in=[Import.State.DONE, Import.State.DRAFT, Import.State.RUNNING]).order_by("-pk").first()
    if earlier is None or not storage.file_of(earlier).exists():
        return record
    if earlier.is_over:
        resume_import(record=earlier, enqueue=False)
    record.delete()
    storage.remove_folder(record)
    return earlier


# --- stopping and going on ----------------------------------------------------------------------
def request_cancel(*, record: Import) -> None:
    """End an import that waits, or have its worker end it after the batch in hand. What it took stays.

    Raises NotNow if it is over.
    """
    if not JOBS.request_cancel(record, cancelled=Import.State.CANCELLED):
        raise NotNow("This import is over already")


def resume_import(*, record: Import, enqueue: bool = True) -> None:
    """Have a failed or cancelled import go on after its last row. Raises NotNow."""
    if record.file_removed_at or not storage.file_of(record).exists():
        raise NotNow("Its file isn't kept any more: send it again, what was taken is found again")
    with transaction.atomic():
        over = Import.objects.filter(pk=record.pk, state__in=[Import.State.FAILED, Import.State.CANCELLED])
        if not over.update(
            state=Import.State.WAITING, owner="", problem="", attempts=0, cancel_requested_at=None, finished_at=None,
            enqueued_at=None,
        ):  # fmt: skip
            raise NotNow("Only an import that failed or was cancelled can go on")
        if enqueue:
            JOBS.enqueue(record)
        _tell(record)


# --- running ------------------------------------------------------------------------------------
def run_import(import_id: int, *, report: Report = lambda record: None) -> Import:
    """Take the file to its end, from where it was left; whoever runs it already is left alone.

    Never raises for what is wrong with the file: the row says it. `report` is called as it goes on.
    """
    if record := _claim(import_id):
        _Run(record, report).to_the_end()
    return Import.objects.select_related("project").get(pk=import_id)


def waiting_for_workers() -> QuerySet[Import]:
    """Oldest first. Imports that whoever began them is going to run are none of these."""
    return Import.objects.filter(state=Import.State.WAITING, enqueued_at__isnull=False).order_by("pk")


def run_next_import() -> bool:
    """Run the oldest import that waits for a worker; whether there was one."""
    for pk in list(waiting_for_workers().values_list("pk", flat=True)[:20]):
        if record := _claim(pk):
            _Run(record, lambda record: None).to_the_end()
            return True
    return False


def _claim(import_id: int) -> Import | None:
    return JOBS.claim_first(Import.objects.filter(pk=import_id), owner=owner_name())


class _Run:
    """One attempt at one import, by who has claimed it."""

    def __init__(self, record: Import, report: Report) -> None:
        self.record, self.report = record, report
        self.began, self.seconds_before = time.monotonic(), record.seconds
        self.last_told = self.began

    def to_the_end(self) -> None:
        record = self.record
        try:
            with self._beating():
                is_cancelled = self._take_all()
                if not is_cancelled:
                    record.n_near_duplicates = regroup(record.project)
            if is_cancelled:
                self._end(Import.State.CANCELLED)
            else:
                self._end(Import.State.DONE, n_near_duplicates=record.n_near_duplicates)
        except OwnerLost:
            logger.warning("import %s is no longer ours", record.pk)
        except (BadImport, BadSource) as error:
            fields = getattr(error, "fields", {})
            self._end(Import.State.FAILED, problem=" ".join(fields.values()) or str(error))
        except (KeyboardInterrupt, SystemExit):
            JOBS.give_back(record)  # another takes it up
            raise
        except Exception as error:
            full = storage.said_of_disk(error)
            if not full:
                logger.exception("import %s could not be run", record.pk)
            self._fail_quietly(str(full) if full else self._excuse(error))

    def _excuse(self, error: Exception) -> str:
        if is_away(error):
            return "The database did not answer for too long. What was taken until then is kept: resume it"
        return f"It broke off with an error of ours ({type(error).__name__}). What was taken until then is kept: resume it"

    def _take_all(self) -> bool:
        """Whether it was cancelled on the way."""
        record = self.record
        path = storage.file_of(record)
        if not path.exists():
            raise BadImport({"file": "The file isn't there any more: send it again, what was taken is found again"})
        if not record.bytes_total:
            return False
        source = opened(path, record.filename)
        reading = Reading(source, format=record.format, mapping=record.mapping, options=record.options, skip=record.n_rows)
        taker = Taker(record)
        with Ahead((batch, taker.check(batch.records, batch.places)) for batch in reading.batches()) as ahead:
            for batch, checked in ahead:
                self._take(taker, batch, checked, ahead.begin)
                self.report(record)
                if self._is_cancelled():
                    return True
        after_many_new_rows(record.n_judgements, Task, TaskCompletion, Slot, Lease, Judgement)
        after_many_new_rows(record.n_prompts + record.n_completions, Prompt, Completion)
        return False

    def _take(self, taker: Taker, batch: Batch, checked: Checked, before_commit: Callable[[], None]) -> None:
        """A batch and how far we are with it, in one transaction."""
        record = self.record
        counts: dict[str, Any] = {}

        def write_down(taken: Taken) -> None:
            counts.clear()
            refused = [
                *batch.rejected,
                *(RejectedRow(one.line, one.reason, batch.rows.get(place)) for place, one in taken.rejected),
            ]
            refused.sort(key=lambda row: row.line)
            counts.update(
                n_rows=batch.n_rows,
                bytes_done=min(batch.bytes_done, record.bytes_total),
                n_taken=record.n_taken + taken.n_taken,
                n_duplicates=record.n_duplicates + taken.n_duplicates,
                n_rejected=record.n_rejected + len(refused),
                n_prompts=record.n_prompts + taken.n_prompts,
                n_completions=record.n_completions + taken.n_completions,
                n_judgements=record.n_judgements + taken.n_judgements,
                seconds=self._seconds(),
            )
            if refused:
                counts["rejected_bytes"] = _append_rejected(record, refused)
                room = MAX_REASONS_KEPT - len(record.rejected)
                if room > 0:
                    counts["rejected"] = record.rejected + [{"line": row.line, "reason": row.reason} for row in refused[:room]]
            JOBS.beat(record, **counts)
            if time.monotonic() - self.last_told > TELL_EVERY_SECONDS:
                self.last_told = time.monotonic()
                _tell(record)
            before_commit()

        taker.take(checked, write_down, batch.sizes)
        for name, value in counts.items():
            setattr(record, name, value)

    def _seconds(self) -> float:
        return round(self.seconds_before + time.monotonic() - self.began, 3)

    @contextmanager
    def _beating(self) -> Iterator[None]:
        """A sign of life now and then, however long a batch takes, or what comes after the last."""
        done = threading.Event()

        def beat() -> None:
            try:
                while not done.wait(settings.IMPORT_HEARTBEAT_SECONDS):
                    JOBS.held(self.record).update(heartbeat_at=Now())
            finally:
                connection.close()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _is_cancelled(self) -> bool:
        found = Import.objects.filter(pk=self.record.pk).values_list("cancel_requested_at", flat=True)
        return bool(found and found[0])

    def _end(self, state: str, **fields: Any) -> None:
        """Raises OwnerLost."""
        record = self.record
        if state == Import.State.DONE:
            fields["bytes_done"] = record.bytes_total
        JOBS.end(record, state=state, seconds=self._seconds(), **fields)

    def _fail_quietly(self, problem: str) -> None:
        try:
            self._end(Import.State.FAILED, problem=problem)
        except Exception:
            # The database is away, or somebody else has it: the sweeper finds the row as it is.
            logger.exception("import %s could not be closed", self.record.pk)


def _append_rejected(record: Import, rows: Sequence[RejectedRow]) -> int:
    """Write rows at the place where the list ended at the last commit; returns where it ends now.

    They are on the disk before the transaction that counts them is.
    """
    path = storage.rejected_file_of(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "r+b" if path.exists() else "w+b") as file:
        file.truncate(record.rejected_bytes)
        file.seek(record.rejected_bytes)
        for row in rows:
            file.write(row.as_json())
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


# --- sweeping -----------------------------------------------------------------------------------
def sweep_imports() -> int:
    """Hand on imports whose worker fell silent, wake workers for what waits, drop drafts and files nobody needs.

    Returns how many imports lost their worker.
    """
    count = sum(_hand_on(record) for record in Import.objects.filter(state=Import.State.RUNNING).select_related("project"))
    long_ago = before(WAKE_EVERY)
    # One without a message is of a request that was going to run it itself, and had a minute to begin.
    never = Q(enqueued_at=None, created_at__lt=long_ago, heartbeat_at=None) | Q(enqueued_at=None, heartbeat_at__lt=long_ago)
    JOBS.wake_for(Import.objects.filter(never | Q(enqueued_at__lt=long_ago), path=""))
    return count


def _hand_on(record: Import) -> bool:
    silent_for = timedelta(seconds=settings.IMPORT_LOST_AFTER_SECONDS)
    is_lost = JOBS.hand_on(record, silent_for=silent_for, **_after_loss(record))
    if is_lost:
        JOBS.wake_for(Import.objects.filter(pk=record.pk))
    return is_lost


def _after_loss(record: Import) -> dict[str, Any]:
    if record.cancel_requested_at:
        return {"state": Import.State.CANCELLED}
    if record.path:
        problem = "The command that ran it was stopped. Run it again with the same file: it goes on where it was"
    elif record.attempts >= settings.IMPORT_MAX_ATTEMPTS:
        problem = (
            f"{LOST_WORKER.format(record.attempts)}. Look at the worker's log, then resume: the import goes on after the last "
            "row it took"
        )
    else:
        return {"state": Import.State.WAITING}
    return {"state": Import.State.FAILED, "problem": problem}


def remove_old_files() -> int:
    """Delete files of imports that have been over for some days, drafts of yesterday, and uploads nobody took on."""
    at = now()
    count = storage.remove_strays()
    for record in Import.objects.filter(state=Import.State.DRAFT, created_at__lt=at - timedelta(days=1)):
        try:
            drop_draft(record=record)
            count += 1
        except NotNow:
            pass
    over = Import.objects.filter(
        state__in=[Import.State.DONE, Import.State.FAILED, Import.State.CANCELLED], path="", file_removed_at=None,
        finished_at__lt=at - timedelta(days=settings.IMPORT_KEEP_DAYS),
    )  # fmt: skip
    for record in over[:1000]:
        # The row first: a resume that comes in between finds that there is no file.
        Import.objects.filter(pk=record.pk).update(file_removed_at=at)
        storage.remove_file(record)
        count += 1
    return count
