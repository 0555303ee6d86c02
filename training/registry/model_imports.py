"""Taking models in, in the background: an archive that was sent, or a folder of the server.

The model and the end of its import are one transaction, so a worker that is killed leaves either a model and an import
that is done, or neither; the next attempt clears away what was half unpacked.
"""

import logging
import os
import shutil
import tempfile
import threading
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet

from labeling.accounts.models import User
from labeling.accounts.roles import READING
from labeling.database.jobs import LOST_WORKER, Jobs, OwnerLost
from labeling.database.ownership import before, owner_name
from labeling.imports import storage
from labeling.imports.storage import Upload
from labeling.live.services import notify
from labeling.projects.models import Project
from labeling.projects.selectors import projects_of
from training.registry.errors import ImportStopped, NotImported
from training.registry.importing import SPARE_BYTES, allowed_folder, allowed_roots, check_wanted, take_in
from training.registry.models import ModelImport, ModelVersion
from training.sampling.model_archives import unpack
from training.sampling.model_files import ModelFilesError

logger = logging.getLogger(__name__)

MAX_OPEN_A_PROJECT = 3
MAX_ATTEMPTS = 3
BEAT_SECONDS = 1.0
# Silent while one large file is copied or its tokenizer tried; a worker of this host that is gone is missed at once.
LOST_AFTER = timedelta(minutes=10)
WAKE_EVERY = timedelta(seconds=30)
_working = threading.Lock()


def _wake() -> None:
    from training.registry.tasks import execute_model_imports  # the task calls back into this module

    execute_model_imports.delay()


def _tell(job: ModelImport, state: str = "") -> None:
    notify(job.project.live_group, "model_import", id=job.pk)


JOBS = Jobs(
    ModelImport, waiting=ModelImport.State.WAITING, working=ModelImport.State.WORKING, wake=_wake, tell=_tell,
    related=("project", "base", "created_by"),
)  # fmt: skip


def model_imports_visible_to(user: User) -> QuerySet[ModelImport]:
    """Of the projects whose console the person reads."""
    found = ModelImport.objects.filter(project__in=projects_of(user, roles=READING))
    return found.select_related("project", "model", "base", "created_by")


def start_model_import(
    *,
    project: Project,
    source_at: Upload | str,
    filename: str = "",
    base: ModelVersion | None = None,
    created_by: User | None = None,
    **wanted: Any,
) -> ModelImport:
    """Have a worker take in an archive that came in, or a folder of the server that the operator allows.

    `source_at` is that; `wanted`: name, kind, licence, source, plain_template and terms. Raises NotImported: nothing is queued then, and an
    Upload is for the caller to discard.
    """
    is_base = wanted["kind"] == ModelVersion.Kind.BASE
    check_wanted(name=wanted["name"], kind=wanted["kind"], project=None if is_base else project)
    upload = source_at if isinstance(source_at, Upload) else None
    folder = "" if upload else str(allowed_folder(str(source_at)))
    with transaction.atomic():
        Project.objects.select_for_update().get(pk=project.pk)  # counts its imports one at a time
        if project.model_imports.exclude(state__in=ModelImport.ENDED).count() >= MAX_OPEN_A_PROJECT:
            raise NotImported(f"{MAX_OPEN_A_PROJECT} models are being taken in already: wait for one, or cancel one")
        job = ModelImport.objects.create(
            project=project, source_folder=folder, filename=storage.clean_name(filename), sha256=upload.sha256 if upload else "",
            wanted=wanted, base=base, created_by=created_by, n_total=upload.n_bytes if upload else bytes_of_folder(folder),
            status_text="waiting for a worker",
        )  # fmt: skip
        if upload:
            archive_of(job).parent.mkdir(parents=True, exist_ok=True)
            os.replace(upload.path, archive_of(job))
        JOBS.enqueue(job)
        _tell(job)
    return job


def bytes_of_folder(folder: str) -> int:
    return sum(path.stat().st_size for path in Path(folder).iterdir() if path.is_file())


def archive_of(job: ModelImport) -> Path:
    return Path(settings.FILES) / "model-imports" / str(job.pk)


def cancel_model_import(*, job: ModelImport) -> None:
    """End a waiting one, or have its worker stop at the next file. Raises NotImported where it is over."""
    said = {"now": {"status_text": "cancelled"}, "soon": {"status_text": "stopping"}}
    state = JOBS.request_cancel(job, cancelled=ModelImport.State.CANCELLED, **said)
    if state == ModelImport.State.CANCELLED:
        transaction.on_commit(partial(_discard, job))
    elif not state:
        raise NotImported("This import is over already")


def work_off_model_imports() -> int:
    """Take in what waits, one at a time in this process. Returns how many ended."""
    if not _working.acquire(blocking=False):
        return 0
    n = 0
    try:
        while job := claim_next_model_import(owner=owner_name()):
            execute_model_import(job)
            n += 1
    finally:
        _working.release()
    return n


def claim_next_model_import(*, owner: str) -> ModelImport | None:
    """Take the oldest that waits for this worker, or None. Of several workers, one gets it."""
    return JOBS.claim_first(ModelImport.objects.order_by("pk"), owner=owner, n_done=0, status_text="starting")


def execute_model_import(job: ModelImport) -> None:
    """Take it in and close the row, with what went wrong if something did. One lost on the way is another's now."""
    is_ours = True
    try:
        _clear_away(job)
        _take_in(job)
    except OwnerLost as error:
        logger.warning("%s", error)
        return
    except ImportStopped:
        is_ours = JOBS.end_quietly(job, state=ModelImport.State.CANCELLED, status_text="cancelled")
    except NotImported as error:
        is_ours = JOBS.end_quietly(job, state=ModelImport.State.FAILED, status_text="failed", problem=str(error))
    except Exception as error:
        logger.exception("import of a model %s failed", job.pk)
        full = storage.said_of_disk(error)
        problem = str(full) if full else f"{type(error).__name__}: the worker's log says more"
        is_ours = JOBS.end_quietly(job, state=ModelImport.State.FAILED, status_text="failed", problem=problem)
    if is_ours:  # another's archive is still needed
        _discard(job)


def _take_in(job: ModelImport) -> None:
    is_base = job.wanted["kind"] == ModelVersion.Kind.BASE
    beat = _Beat(job)
    marked = f"{job.pk}-{job.epoch}"
    with tempfile.TemporaryDirectory(prefix=f".unpacking-{marked}-", dir=_models()) as scratch:
        left: list[str] = []
        folder, roots = Path(job.source_folder), allowed_roots()
        if not job.source_folder:
            folder, roots = Path(scratch), []
            most_bytes = min(settings.MODEL_UPLOAD_MAX_BYTES, shutil.disk_usage(scratch).free // 2 - SPARE_BYTES)
            beat.say("unpacking")
            try:
                left = unpack(archive_of(job), folder, most_bytes=max(0, most_bytes), report=beat)
            except ModelFilesError as error:
                raise NotImported(str(error)) from None
            except FileNotFoundError:
                raise NotImported("The archive is no longer there: send it again") from None
        else:
            folder = allowed_folder(job.source_folder)  # it may be another one by now
        beat.say("checking and copying")
        take_in(
            folder, roots=roots, project=None if is_base else job.project, base=job.base, created_by=job.created_by,
            most_bytes=settings.MODEL_UPLOAD_MAX_BYTES, imported_from=job.filename or folder.name, left=left,
            target=_models() / f"{job.wanted['name']}-import-{marked}", scratch_prefix=f".importing-{marked}-",
            report=beat, entered=partial(_entered, job), **job.wanted,
        )  # fmt: skip


def _models() -> Path:
    Path(settings.MODELS).mkdir(parents=True, exist_ok=True)
    return Path(settings.MODELS)


def _entered(job: ModelImport, model: ModelVersion) -> None:
    JOBS.end(job, state=ModelImport.State.DONE, model=model, n_done=F("n_total"), status_text=f"entered as {model.key}")
    notify(job.project.live_group, "model", model=model.pk)


def _clear_away(job: ModelImport) -> None:
    """What earlier attempts left that were killed. None of it was entered, or the import would be over."""
    for attempt in range(1, job.epoch):
        marked = f"{job.pk}-{attempt}"
        for pattern in (f".unpacking-{marked}-*", f".importing-{marked}-*", f"*-import-{marked}"):
            for folder in _models().glob(pattern):
                shutil.rmtree(folder, ignore_errors=True)


def _discard(job: ModelImport) -> None:
    archive_of(job).unlink(missing_ok=True)


class _Beat:
    """Says how far it is and that its worker lives, about once a second. Raises OwnerLost and ImportStopped."""

    def __init__(self, job: ModelImport) -> None:
        self.job = job
        self.last = -BEAT_SECONDS

    def __call__(self, n_bytes: int) -> None:
        if time.monotonic() - self.last >= BEAT_SECONDS:
            self._write(n_done=n_bytes)

    def say(self, text: str) -> None:
        self._write(status_text=text)

    def _write(self, **fields: Any) -> None:
        self.last = time.monotonic()
        JOBS.beat(self.job, **fields)
        _tell(self.job)
        if JOBS.held(self.job).exclude(cancel_requested_at=None).exists():
            raise ImportStopped


def sweep_model_imports() -> int:
    """Start again what lost its worker, fail what lost too many, wake workers for what waits.

    Returns how many had lost theirs.
    """
    lost = JOBS.sweep(silent_for=LOST_AFTER, then=_after_loss)
    for job in lost:
        _swept(job.pk)
    JOBS.wake_for(ModelImport.objects.filter(Q(enqueued_at=None) | Q(enqueued_at__lt=before(WAKE_EVERY))))
    return len(lost)


def _after_loss(job: ModelImport) -> dict[str, Any]:
    if job.cancel_requested_at:
        return {"state": ModelImport.State.CANCELLED, "status_text": "cancelled"}
    if job.attempts < MAX_ATTEMPTS:
        return {"state": ModelImport.State.WAITING, "status_text": "the worker was lost; waiting for another"}
    problem = f"{LOST_WORKER.format(job.attempts)}: its log says more"
    return {"state": ModelImport.State.FAILED, "status_text": "failed", "problem": problem}


def _swept(pk: int) -> None:
    job = ModelImport.objects.get(pk=pk)
    if job.state in ModelImport.ENDED:
        _clear_away(job)
        _discard(job)
