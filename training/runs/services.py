"""Starting, stopping and owning training runs. The row is the truth; a Celery message only wakes a worker.

Whoever holds (owner, epoch) may write. A claim, a sweep and an end are each one conditional update, so neither a
message delivered twice nor a worker thought dead can make a run happen twice.
"""

import os
import socket
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import DateTimeField, ExpressionWrapper, F, Q
from django.db.models.functions import Coalesce, Now

from labeling.accounts.models import User
from labeling.live.services import notify
from labeling.preferences.models import Snapshot
from labeling.projects.models import Project
from training.registry.models import ModelVersion
from training.runs.catalogue import KINDS, check_spec
from training.runs.errors import BadSpec, OwnerLost, RunError
from training.runs.folder import prompts_to_sample
from training.runs.models import Run

MAX_QUEUED_A_PROJECT = 20
WAKE_EVERY = timedelta(seconds=60)


def create_run(
    *,
    project: Project,
    kind: str,
    created_by: User | None,
    spec: dict[str, Any] | None = None,
    snapshot: Snapshot | None = None,
    model: ModelVersion | None = None,
    inputs: dict[str, Any] | None = None,
) -> Run:
    """Queue a run. `inputs` of a sample run: `{"prompt_ids": [...]}` or `{"tags": [...]}`; empty: all prompts.

    Raises BadSpec naming each wrong field: nothing is queued that can't start.
    """
    spec = {key: value for key, value in (spec or {}).items() if value is not None}
    inputs = inputs or {}
    wrong: dict[str, str] = {}
    known = KINDS.get(kind)
    if known is None:
        raise BadSpec({"kind": f"unknown kind {kind!r}: choose from {', '.join(KINDS)}"})
    wrong |= check_spec(kind, spec)
    if model is None:
        wrong["model"] = "is required"
    elif model.project_id not in (None, project.pk):
        wrong["model"] = "belongs to another project"
    elif model.kind not in known.model_kinds:
        wrong["model"] = f"must be a {' or '.join(known.model_kinds)} model; {model.key} is a {model.kind} model"
    if known.needs_snapshot:
        if snapshot is None:
            wrong["snapshot"] = "is required"
        elif snapshot.project_id != project.pk:
            wrong["snapshot"] = "belongs to another project"
        elif not snapshot.n_pairs:
            wrong["snapshot"] = "holds no pairs to learn from: freeze one with rankings or corrections in it"
    elif not prompts_to_sample(project, inputs).exists():
        wrong["inputs"] = "no prompt fits: import prompts first, or ask for other tags"
    if Run.objects.filter(project=project, state=Run.State.QUEUED).count() >= MAX_QUEUED_A_PROJECT:
        wrong["project"] = f"has {MAX_QUEUED_A_PROJECT} runs waiting already: wait for one, or cancel one"
    if wrong:
        raise BadSpec(wrong)
    with transaction.atomic():
        run = Run.objects.create(
            project=project, kind=kind, spec=spec, snapshot=snapshot if known.needs_snapshot else None,
            model=model, inputs=inputs, created_by=created_by, status_text="waiting for a worker",
        )  # fmt: skip
        _enqueue(run)
        notify(project.live_group, "run", run=run.pk, state=run.state)
    return run


def _enqueue(run: Run) -> None:
    from training.runs.tasks import execute_runs  # the task calls back into this module

    Run.objects.filter(pk=run.pk).update(enqueued_at=Now())
    transaction.on_commit(partial(execute_runs.delay))


def request_cancel(*, run: Run) -> None:
    """End a queued run now, or ask the worker to end a running one at its next step. Raises RunError if it is over."""
    with transaction.atomic():
        open_runs = Run.objects.filter(pk=run.pk)
        if open_runs.filter(state=Run.State.QUEUED).update(
            state=Run.State.CANCELLED, cancel_requested_at=Now(), finished_at=Now(), status_text="cancelled"
        ) or open_runs.filter(state=Run.State.RUNNING).update(cancel_requested_at=Now(), status_text="stopping"):
            notify(run.project.live_group, "run", run=run.pk)
            notify(run.live_group, "state")
            return
    raise RunError("This run is over already")


def resume_run(*, run: Run) -> None:
    """Queue a failed or cancelled run again; it goes on from its last checkpoint. Raises RunError otherwise."""
    with transaction.atomic():
        over = Run.objects.filter(pk=run.pk, state__in=[Run.State.FAILED, Run.State.CANCELLED])
        if not over.update(
            state=Run.State.QUEUED, owner="", error="", attempts=0, cancel_requested_at=None, finished_at=None,
            status_text="waiting for a worker",
        ):  # fmt: skip
            raise RunError("Only a failed or cancelled run can be resumed")
        _enqueue(run)
        notify(run.project.live_group, "run", run=run.pk)
        notify(run.live_group, "state")


# --- ownership ----------------------------------------------------------------------------------
def claim_next_run(*, owner: str) -> Run | None:
    """Take the oldest queued run for this worker, or None. Of several workers, one gets it."""
    while run_id := Run.objects.filter(state=Run.State.QUEUED).order_by("pk").values_list("pk", flat=True).first():
        with transaction.atomic():
            claimed = Run.objects.filter(pk=run_id, state=Run.State.QUEUED).update(
                state=Run.State.RUNNING, owner=owner, epoch=F("epoch") + 1, attempts=F("attempts") + 1,
                heartbeat_at=Now(), started_at=Coalesce("started_at", Now()), status_text="starting",
            )  # fmt: skip
            if claimed:
                run = Run.objects.select_related("project", "snapshot", "model__base").get(pk=run_id)
                notify(run.project.live_group, "run", run=run.pk, state=run.state)
                notify(run.live_group, "state")
                return run
    return None


def owned(run: Run) -> Any:
    """The row, as long as this owner and epoch hold it: every write of a worker goes through this."""
    return Run.objects.filter(pk=run.pk, owner=run.owner, epoch=run.epoch, state=Run.State.RUNNING)


def heartbeat(*, run: Run, **fields: Any) -> bool:
    """Say that the worker lives; returns whether the run should stop. Raises OwnerLost."""
    if not owned(run).update(heartbeat_at=Now(), **fields):
        raise OwnerLost(f"Run {run.pk} was taken over or ended")
    return Run.objects.filter(pk=run.pk).values_list("cancel_requested_at", flat=True)[0] is not None


def end_run(*, run: Run, state: str, **fields: Any) -> None:
    """Close the run under its epoch. Raises OwnerLost."""
    with transaction.atomic():
        if not owned(run).update(state=state, finished_at=Now(), heartbeat_at=Now(), **fields):
            raise OwnerLost(f"Run {run.pk} was taken over or ended")
        notify(run.project.live_group, "run", run=run.pk, state=state)
        notify(run.live_group, "state")


def give_run_back(*, run: Run) -> None:
    """The worker is told to stop while the run goes on: queue it again without counting the attempt."""
    with transaction.atomic():
        owned(run).update(
            state=Run.State.QUEUED, owner="", attempts=F("attempts") - 1, status_text="waiting for a worker"
        )
        notify(run.live_group, "state")


def owner_name() -> str:
    """This process, as the owner of runs."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _owner_is_gone(owner: str) -> bool:
    """Whether the owner is a process of this very host that no longer exists: then nobody needs to wait."""
    host, _, pid = owner.rpartition(":")
    return (
        host == socket.gethostname() and pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc").exists()
    )


def sweep_runs() -> int:
    """Hand on runs whose worker fell silent, fail those that lost too many, wake workers for what waits.

    Returns how many runs lost their worker.
    """
    silent_since = ExpressionWrapper(
        Now() - timedelta(seconds=settings.RUN_LOST_AFTER_SECONDS), output_field=DateTimeField()
    )
    count = 0
    for run in Run.objects.filter(state=Run.State.RUNNING).select_related("project"):
        mine = Run.objects.filter(pk=run.pk, epoch=run.epoch, state=Run.State.RUNNING)
        if not _owner_is_gone(run.owner):
            mine = mine.filter(heartbeat_at__lt=silent_since)
            if not mine.exists():
                continue
        with transaction.atomic():
            if run.cancel_requested_at:
                changed = mine.update(
                    state=Run.State.CANCELLED, epoch=F("epoch") + 1, finished_at=Now(), status_text="cancelled"
                )
            elif run.attempts >= settings.RUN_MAX_ATTEMPTS:
                changed = mine.update(
                    state=Run.State.FAILED, epoch=F("epoch") + 1, finished_at=Now(), status_text="failed",
                    error=f"The worker was lost {run.attempts} times (killed, out of memory, or the machine stopped). "
                    "Look at the worker's log, then resume: the run goes on from its last checkpoint.",
                )  # fmt: skip
            else:
                changed = mine.update(
                    state=Run.State.QUEUED, owner="", epoch=F("epoch") + 1, enqueued_at=None,
                    status_text="the worker was lost; waiting for another",
                )  # fmt: skip
            if changed:
                count += 1
                notify(run.project.live_group, "run", run=run.pk)
                notify(run.live_group, "state")
    not_woken = ExpressionWrapper(Now() - WAKE_EVERY, output_field=DateTimeField())
    waiting = Run.objects.filter(Q(enqueued_at=None) | Q(enqueued_at__lt=not_woken), state=Run.State.QUEUED)
    if (first := waiting.order_by("pk").first()) and not Run.objects.filter(state=Run.State.RUNNING).exists():
        _enqueue(first)
    return count
