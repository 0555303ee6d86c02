"""Starting, stopping and owning training runs."""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Case, Q, Value, When
from django.db.models.functions import Coalesce, Now

from labeling.accounts.models import User
from labeling.database.jobs import LOST_WORKER, Jobs
from labeling.database.ownership import before
from labeling.live.services import notify
from labeling.preferences.models import Snapshot
from labeling.projects.models import Project
from training.registry.models import ModelVersion
from training.runs.catalogue import KINDS
from training.runs.checking import check_run
from training.runs.disk import why_no_room, why_over_quota
from training.runs.errors import BadSpec, RunError
from training.runs.models import Run

MAX_QUEUED_A_PROJECT = 20
WAKE_EVERY = timedelta(seconds=60)


def _wake() -> None:
    from training.runs.tasks import execute_runs  # the task calls back into this module

    execute_runs.delay()


def _tell(run: Run, state: str) -> None:
    """Tell the pages, and with the state those who are told by webhook."""
    notify(run.project.live_group, "run", run=run.pk, state=state)
    notify(run.live_group, "state")


JOBS = Jobs(
    Run, waiting=Run.State.QUEUED, working=Run.State.RUNNING, wake=_wake, tell=_tell,
    related=("project", "snapshot", "model__base", "other_model__base"),
)  # fmt: skip


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
        JOBS.enqueue(run)
        notify(project.live_group, "run", run=run.pk, state=run.state)
    return run


def request_cancel(*, run: Run) -> None:
    """End a queued run now, or ask the worker to end a running one at its next step. Raises RunError if it is over."""
    said = {"now": {"status_text": "cancelled"}, "soon": {"status_text": "stopping"}}
    if not JOBS.request_cancel(run, cancelled=Run.State.CANCELLED, **said):
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
        JOBS.enqueue(run)
        _tell(run, Run.State.QUEUED)


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
    return JOBS.claim_first(
        in_order, owner=owner, started_at=Coalesce("started_at", Now()), status_text="starting", checkpoints_deleted_at=None
    )


def heartbeat(*, run: Run, **fields: Any) -> bool:
    """Say that the worker lives; returns whether the run should stop. Raises OwnerLost."""
    JOBS.beat(run, **fields)
    return Run.objects.filter(pk=run.pk).values_list("cancel_requested_at", flat=True)[0] is not None


def sweep_runs() -> int:
    """Hand on runs whose worker fell silent, fail those that lost too many, wake workers for what waits.

    Returns how many runs lost their worker.
    """
    lost = JOBS.sweep(silent_for=timedelta(seconds=settings.RUN_LOST_AFTER_SECONDS), then=_after_loss)
    if not Run.objects.filter(state=Run.State.RUNNING).exists():
        JOBS.wake_for(Run.objects.filter(Q(enqueued_at=None) | Q(enqueued_at__lt=before(WAKE_EVERY))))
    return len(lost)


def _after_loss(run: Run) -> dict[str, Any]:
    if run.cancel_requested_at:
        return {"state": Run.State.CANCELLED, "status_text": "cancelled"}
    if run.attempts < settings.RUN_MAX_ATTEMPTS:
        return {"state": Run.State.QUEUED, "status_text": "the worker was lost; waiting for another"}
    error = f"{LOST_WORKER.format(run.attempts)}. Look at the worker's log, then resume: the run goes on from its last checkpoint."
    return {"state": Run.State.FAILED, "status_text": "failed", "error": error}
