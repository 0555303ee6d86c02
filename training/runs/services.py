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
from training.endpoints.services import wrong_use_of
from training.registry.models import ModelVersion
from training.registry.selectors import models_of
from training.registry.terms import why_not_accepted
from training.runs.catalogue import KINDS, check_spec, makes_adapter, prompts_a_rollout
from training.runs.disk import why_no_room, why_over_quota
from training.runs.errors import BadSpec, OwnerLost, RunError
from training.runs.explaining import ASKED_BY, check_asked
from training.runs.folder import count_prompts_to_train_on, prompts_to_sample
from training.runs.launchers import why_not_here
from training.runs.learnable import why_nothing_to_learn, why_nothing_to_read
from training.runs.models import Run
from training.runs.rewards import check_rewards

MAX_QUEUED_A_PROJECT = 20
OTHER_MODELS = ("teacher", "reference")
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

    Raises BadSpec naming each wrong field: nothing is queued that can't start.
    """
    spec = {key: value for key, value in (spec or {}).items() if value is not None}
    inputs = inputs or {}
    wrong: dict[str, str] = {}
    known = KINDS.get(kind)
    if known is None:
        raise BadSpec({"kind": f"unknown kind {kind!r}: choose from {', '.join(KINDS)}"})
    bad_options = check_spec(kind, spec)
    if not bad_options and not settings.REDIS_URL and (lacking := why_not_here(spec)):
        bad_options["spec.launcher"] = lacking  # the worker is on this machine
    wrong |= bad_options
    reward_models: list[ModelVersion] = []
    if known.needs_rewards or known.may_have_rewards:
        given = inputs.get("rewards") or (None if known.may_have_rewards else inputs.get("rewards"))
        rewards, reward_models, bad_rewards = check_rewards(project, given, kind, may_be_none=known.may_have_rewards)
        inputs = {**inputs, "rewards": rewards}
        wrong |= bad_rewards
    elif "rewards" in inputs:
        wrong["inputs.rewards"] = f"are not for a run of kind {kind}"
    other, inputs, bad_other = _other_model(project, kind, inputs)
    wrong |= bad_other
    has_preamble = bool(str(spec.get("preamble") or "").strip())
    if kind == "distill" and not bad_other and not has_preamble and other in (None, model):
        wrong["spec.preamble"] = "is empty, and no other model is the teacher: there is nothing to learn"
    if known.explains:
        inputs, bad_inputs = check_asked(project, inputs)
        wrong |= bad_inputs
    elif asked := [name for name in ASKED_BY if name in inputs]:
        wrong[f"inputs.{asked[0]}"] = f"is not for a run of kind {kind}"
    if model is None:
        wrong["model"] = "is required"
    elif model.project_id not in (None, project.pk):
        wrong["model"] = "belongs to another project"
    elif model.kind not in known.model_kinds:
        wrong["model"] = f"must be a {' or '.join(known.model_kinds)} model; {model.key} is a {model.kind} model"
    elif model.kind == ModelVersion.Kind.GGUF and not inputs.get("endpoint"):
        wrong["model"] = f"{model.key} is a file for serving: enter an endpoint that serves it, or choose {model.parent.key}"
    elif known.needs_adapter and not model.is_adapter:
        wrong["model"] = f"must be an adapter; {model.key} is a whole model"
    for name, used in (("model", [model]), (f"inputs.{known.other_model}", [other]), ("inputs.rewards", reward_models)):
        if name not in wrong and (problem := why_not_accepted(project, *filter(None, used))):
            wrong[name] = problem
    if kind == "sample":
        wrong |= wrong_use_of(project=project, model=model, endpoint_id=inputs.get("endpoint"), spec=spec)
    elif model is not None and not model.folder:
        wrong["model"] = f"is on a server alone: there are no weights of {model.key} here to work with"
    if model and known.is_adapter and model.is_adapter and not bad_options and not makes_adapter(kind, spec):
        wrong["spec.adapter_rank"] = f"is 0, which trains all weights, but {model.key} is an adapter: merge it first"
    if kind == "ppo" and model and spec.get("value_head_from") == "reward":
        base = model.base_id if model.is_adapter else model.pk
        if not any(reward.is_adapter and reward.base_id == base for reward in reward_models):
            wrong["spec.value_head_from"] = "is reward, but no reward is a LoRA reward model on the policy's base model"
    if known.may_have_snapshot and snapshot is not None:
        if snapshot.project_id != project.pk:
            wrong["snapshot"] = "belongs to another project"
        elif missing := why_nothing_to_read(snapshot, known.view):
            wrong["snapshot"] = missing
    if known.needs_snapshot:
        if snapshot is None:
            wrong["snapshot"] = "is required"
        elif snapshot.project_id != project.pk:
            wrong["snapshot"] = "belongs to another project"
        elif not bad_options and (missing := why_nothing_to_learn(snapshot, kind, spec)):
            wrong["snapshot"] = missing
    elif known.needs_prompts and not prompts_to_sample(project, inputs).exists():
        wrong["inputs"] = "no prompt fits: import prompts first, or ask for other tags"
    elif known.prompt_splits and not bad_options:
        wanted, split = prompts_a_rollout(kind, spec), known.prompt_splits[0]
        if (count := count_prompts_to_train_on(project, inputs, wanted, split)) >= wanted:
            pass
        elif not known.needs_rewards:
            wrong["inputs"] = f"no prompt that fits is {'held out' if split == 'eval' else 'to train on'}: import prompts first"
        else:
            wrong["inputs"] = (
                f"{count} prompts to train on fit, besides those held out, and one rollout takes {wanted}: import prompts, "
                "or lower per_device_train_batch_size"
            )
    if Run.objects.filter(project=project, state=Run.State.QUEUED).count() >= MAX_QUEUED_A_PROJECT:
        wrong["project"] = f"has {MAX_QUEUED_A_PROJECT} runs waiting already: wait for one, or cancel one"
    if used_up := why_over_quota(project):
        wrong["disk"] = used_up
    if wrong:
        raise BadSpec(wrong)
    with transaction.atomic():
        run = Run.objects.create(
            project=project, kind=kind, spec=spec, 
            snapshot=snapshot if known.needs_snapshot or known.may_have_snapshot else None, other_model=other, model=model, inputs=inputs, created_by=created_by, status_text="waiting for a worker",
        )  # fmt: skip
        run.reward_models.set(reward_models)
        _enqueue(run)
        notify(project.live_group, "run", run=run.pk, state=run.state)
    return run


def _other_model(
    project: Project, kind: str, inputs: dict[str, Any]
) -> tuple[ModelVersion | None, dict[str, Any], dict[str, str]]:
    """The run's teacher or reference, the inputs without its name, and what is wrong with it."""
    role = KINDS[kind].other_model
    kept = {name: value for name, value in inputs.items() if name not in OTHER_MODELS}
    wrong = {f"inputs.{name}": f"is not for a run of kind {kind}" for name in OTHER_MODELS if name in inputs and name != role}
    if not role or inputs.get(role) in (None, ""):
        return None, kept, wrong
    name = str(inputs[role])
    found = Q(key=name)
    if name.isascii() and name.isdigit() and len(name) < 19:
        found |= Q(pk=int(name))
    model = models_of(project).filter(found).first()
    if model is None:
        wrong[f"inputs.{role}"] = "there is no such model in this project"
    elif model.kind not in KINDS[kind].model_kinds:
        wrong[f"inputs.{role}"] = f"{model.key} is a {model.get_kind_display()}, no model that writes completions"
    elif not model.folder:
        wrong[f"inputs.{role}"] = f"{model.key} is on a server alone: there are no weights of it here to work with"
    return model, kept, wrong


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
