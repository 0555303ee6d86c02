"""Starting, stopping and owning training runs. The row is the truth; a Celery message only wakes a worker.

Whoever holds (owner, epoch) may write. A claim, a sweep and an end are each one conditional update, so neither a
message delivered twice nor a worker thought dead can make a run happen twice.
"""

from datetime import timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Coalesce, Now

from labeling.accounts.models import User
from labeling.database.ownership import before, owner_is_gone
from labeling.live.services import notify
from labeling.preferences.models import Snapshot
from labeling.projects.models import Project
from training.registry.models import ModelVersion
from training.runs.catalogue import KINDS
from training.runs.checking import check_run
from training.runs.disk import why_no_room, why_over_quota
from training.runs.errors import BadSpec, OwnerLost, RunError
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
    """Queue a run. `inputs` of a sample run: `{"prompt_ids": [...]}` or `{"tags": [...]}`; empty: all prompts. With
    `{"endpoint": id}` in it the completions come from there.

    Of a run that learns from rewards also `rewards`, as `check_rewards` takes them. It is trained on those prompts that
    are not held out, and evaluated on the others. Of a distill run `{"teacher": id or key}`, of an evaluate run
    `{"reference": id or key}`; this one may have `rewards` and a snapshot, too. Of a run that explains, what `check_asked`
    takes.

    What it will take is told beforehand by `check_run`, and kept with the run. Raises BadSpec naming each wrong field:
    nothing is queued that can't start.
    """
    checked = check_run(project=project, kind=kind, spec=spec, snapshot=snapshot, model=model, inputs=inputs)
    wrong = dict(checked.wrong)
    if Run.objects.filter(project=project, state=Run.State.QUEUED).count() >= MAX_QUEUED_A_PROJECT:
        wrong["project"] = f"has {MAX_QUEUED_A_PROJECT} runs waiting already: wait for one, or cancel one"
    if used_up := why_over_quota(project):
        wrong["disk"] = used_up
    if wrong:
        raise BadSpec(wrong)
    with transaction.atomic():
        run = Run.objects.create(
            project=project, kind=kind, spec=checked.spec, snapshot=checked.snapshot, other_model=checked.other, model=model,
            inputs=checked.inputs, estimate=checked.plan.estimate, created_by=created_by, status_text="waiting for a worker",
        )  # fmt: skip
        run.reward_models.set(checked.reward_models)
        _enqueue(run)
        notify(project.live_group, "run", run=run.pk, state=run.state)
    return run


def _enqueue(run: Run) -> None:
    from training.runs.tasks import execute_runs  # the task calls back into this module

    Run.objects.filter(pk=run.pk).update(enqueued_at=Now())
    transaction.on_commit(partial(execute_runs.delay))


def _tell_state(run: Run) -> None:
    """Tell the pages, and with the state those who are told by webhook."""
    state = Run.objects.values_list("state", flat=True).get(pk=run.pk)
    notify(run.project.live_group, "run", run=run.pk, state=state)
    notify(run.live_group, "state")


def request_cancel(*, run: Run) -> None:
    """End a queued run now, or ask the worker to end a running one at its next step. Raises RunError if it is over."""
    with transaction.atomic():
        open_runs = Run.objects.filter(pk=run.pk)
        if open_runs.filter(state=Run.State.QUEUED).update(
            state=Run.State.CANCELLED, cancel_requested_at=Now(), finished_at=Now(), status_text="cancelled"
        ) or open_runs.filter(state=Run.State.RUNNING).update(cancel_requested_at=Now(), status_text="stopping"):
            _tell_state(run)
            return
    raise RunError("This run is over already")


def resume_run(*, run: Run) -> None:
    """Queue a failed or cancelled run again; it goes on from its last checkpoint, or begins anew if they were deleted.

    Raises RunError otherwise.
    """
    if used_up := why_over_quota(run.project):
        raise RunError(f"The room for runs {used_up}")
    with transaction.atomic():
        over = Run.objects.filter(pk=run.pk, state__in=[Run.State.FAILED, Run.State.CANCELLED])
        if not over.update(
            state=Run.State.QUEUED, owner="", error="", attempts=0, cancel_requested_at=None, finished_at=None,
            status_text=Case(
                When(checkpoints_deleted_at=None, then=Value("waiting for a worker")),
                default=Value("waiting for a worker; its checkpoints were deleted, so it begins anew"),
            ),
        ):  # fmt: skip
            raise RunError("Only a failed or cancelled run can be resumed")
        _enqueue(run)
        _tell_state(run)


# --- ownership ----------------------------------------------------------------------------------
def claim_next_run(*, owner: str) -> Run | None:
    """Take the oldest queued run for this worker, or None. Of several workers, one gets it.

    An explanation comes before all others: somebody waits for it, and it is short. While the disk has no room nothing is
    taken, and the runs that wait say so.
    """
    queued = Run.objects.filter(state=Run.State.QUEUED)
    if (no_room := why_no_room()) and queued.exists():
        for run in queued.exclude(status_text=no_room):
            if queued.filter(pk=run.pk).update(status_text=no_room):
                notify(run.live_group, "state")
        return None
    in_order = queued.order_by(Case(When(kind__in=[name for name, kind in KINDS.items() if kind.explains], then=0), default=1), "pk")
    while run_id := in_order.values_list("pk", flat=True).first():
        with transaction.atomic():
            claimed = Run.objects.filter(pk=run_id, state=Run.State.QUEUED).update(
                state=Run.State.RUNNING, owner=owner, epoch=F("epoch") + 1, attempts=F("attempts") + 1,
                heartbeat_at=Now(), started_at=Coalesce("started_at", Now()), status_text="starting",
                checkpoints_deleted_at=None,
            )  # fmt: skip
            if claimed:
                run = Run.objects.select_related("project", "snapshot", "model__base", "other_model__base").get(pk=run_id)
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


def sweep_runs() -> int:
    """Hand on runs whose worker fell silent, fail those that lost too many, wake workers for what waits.

    Returns how many runs lost their worker.
    """
    silent_since = before(timedelta(seconds=settings.RUN_LOST_AFTER_SECONDS))
    count = 0
    for run in Run.objects.filter(state=Run.State.RUNNING).select_related("project"):
        mine = Run.objects.filter(pk=run.pk, epoch=run.epoch, state=Run.State.RUNNING)
        if not owner_is_gone(run.owner):
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
                _tell_state(run)
    waiting = Run.objects.filter(Q(enqueued_at=None) | Q(enqueued_at__lt=before(WAKE_EVERY)), state=Run.State.QUEUED)
    if (first := waiting.order_by("pk").first()) and not Run.objects.filter(state=Run.State.RUNNING).exists():
        _enqueue(first)
    return count
