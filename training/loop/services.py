"""The loop: one iteration moves from stage to stage as what it waits for is there.

`advance_iteration` is called again and again, by the worker every few seconds and by whoever is in a hurry. Each
step is idempotent and each move is one conditional update, so two callers at once do no harm and a killed one
leaves nothing half done.
"""

from collections.abc import Callable
from typing import Any

from django.db import transaction
from django.db.models import Max
from django.utils.timezone import now

from labeling.accounts.models import User
from labeling.annotation.errors import BadTasks
from labeling.annotation.models import Task
from labeling.annotation.services import NewTask, create_tasks, create_tasks_for_prompts
from labeling.live.services import notify
from labeling.preferences.errors import BadFilter, NoRoom, NothingToFreeze
from labeling.preferences.filters import complete_policy
from labeling.preferences.services import create_snapshot
from labeling.projects.models import Completion, Project, Prompt
from training.loop.errors import BadIteration, LoopError, WrongStage
from training.loop.models import Iteration
from training.loop.selectors import collected
from training.registry.models import ModelVersion
from training.registry.terms import why_not_accepted
from training.runs.catalogue import KINDS
from training.runs.errors import BadSpec
from training.runs.folder import prompts_to_sample
from training.runs.models import Run
from training.runs.services import create_run, request_cancel, resume_run
from training.runs.specs import check_spec

Stage = Iteration.Stage

HELDOUT_PRIORITY, COMPARE_PRIORITY = 20, 10

DEFAULT_CONFIG: dict[str, Any] = {
    "train_tag": "",  # prompts to collect preferences on; empty: all but the held-out ones
    "heldout_tag": "heldout",  # prompts that only ever compare policies
    "n_heldout": 200,
    "n_compare_train": 30,  # prompts of the training side to compare on, too
    "completions_per_task": 4,
    "overlap": None,  # empty: the project's
    "quota": 1.0,  # share of the wanted judgements that is enough to freeze
    "compare_quota": 1.0,
    "compare_overlap": 1,
    "sample": {},
    "compare_sample": {},  # what differs when old and new policy are sampled to be compared
    "reward_kind": "reward_head",
    "reward": {},
    "policy": {},
    "snapshot_policy": {},
}


STARTS = (ModelVersion.Kind.BASE, ModelVersion.Kind.POLICY)


def complete_config(config: dict[str, Any] | None) -> dict[str, Any]:
    """Fill in defaults; raises BadIteration naming what is wrong."""
    config = config or {}
    wrong = {key: "is not part of an iteration's configuration" for key in config.keys() - DEFAULT_CONFIG.keys()}
    full = {**DEFAULT_CONFIG, **config}
    for key in ("quota", "compare_quota"):
        if isinstance(full[key], bool) or not isinstance(full[key], int | float) or not 0 < full[key] <= 1:
            wrong[key] = "must be a share above 0 and at most 1"
    for key, low, high in (("completions_per_task", 2, 9), ("n_heldout", 0, 100_000), ("n_compare_train", 0, 100_000)):
        if type(full[key]) is not int or not low <= full[key] <= high:
            wrong[key] = f"must be a whole number from {low} to {high}"
    for key in ("overlap", "compare_overlap"):
        if not (full[key] is None and key == "overlap") and (type(full[key]) is not int or not 1 <= full[key] <= 50):
            wrong[key] = "must be a whole number from 1 to 50"
    if full["reward_kind"] not in ("reward_head", "reward"):
        wrong["reward_kind"] = "must be reward_head or reward"
    else:
        for key, kind in (
            ("sample", "sample"),
            ("compare_sample", "sample"),
            ("reward", full["reward_kind"]),
            ("policy", "dpo"),
        ):
            if not isinstance(full[key], dict):
                wrong[key] = f"must be an object of options of {KINDS[kind].label}"
            else:
                wrong |= {name.replace("spec", key, 1): text for name, text in check_spec(kind, full[key]).items()}
    try:
        if not isinstance(full["snapshot_policy"], dict):
            wrong["snapshot_policy"] = "must be an object"
        else:
            complete_policy(full["snapshot_policy"])
    except BadFilter as error:
        wrong |= {f"snapshot_policy.{name}": text for name, text in error.fields.items()}
    for key in ("train_tag", "heldout_tag"):
        if not isinstance(full[key], str):
            wrong[key] = "must be a text"
    if wrong:
        raise BadIteration(wrong)
    return full


def start_iteration(
    *, project: Project, policy_before: ModelVersion, created_by: User | None, config: dict[str, Any] | None = None
) -> Iteration:
    """Begin a turn of the loop with this policy. Raises BadIteration, also while another iteration is under way."""
    full = complete_config(config)
    if policy_before.project_id not in (None, project.pk) or policy_before.kind not in STARTS:
        raise BadIteration({"policy_before": "must be a base model or a policy of this project"})
    if not policy_before.folder:
        raise BadIteration({"policy_before": f"the weights of {policy_before.key} are on a server alone: nothing can be trained"})
    if problem := why_not_accepted(project, policy_before):
        raise BadIteration({"policy_before": problem})
    with transaction.atomic():
        Project.objects.select_for_update().get(pk=project.pk)
        under_way = project.iterations.exclude(stage__in=[Stage.DONE, Stage.FAILED]).first()
        if under_way:
            raise BadIteration(
                {"project": f"iteration {under_way.number} is still at: {under_way.get_stage_display()}"}
            )
        number = (project.iterations.aggregate(top=Max("number"))["top"] or 0) + 1
        iteration = Iteration.objects.create(
            project=project, number=number, config=full, policy_before=policy_before, created_by=created_by,
            stage_log=[{"stage": Stage.SAMPLING.value, "at": now().isoformat()}],
        )  # fmt: skip
        notify(project.live_group, "iteration", iteration=iteration.pk, number=number, stage=iteration.stage)
    return iteration


def proceed_iteration(*, iteration: Iteration) -> None:
    """A lead decides that what was collected is enough. Raises WrongStage outside collecting and comparing."""
    for stage, purpose, key in (
        (Stage.COLLECTING, Task.Purpose.PREFERENCE, "quota"),
        (Stage.COMPARING, Task.Purpose.EVALUATION, "compare_quota"),
    ):
        if iteration.stage == stage:
            state = collected(iteration, purpose)
            if not state.n_done:
                raise WrongStage("Nothing has been judged yet")
            Iteration.objects.filter(pk=iteration.pk, stage=stage).update(
                config={**iteration.config, key: state.n_done / state.n_slots}
            )
            return
    raise WrongStage("Only collecting and comparing wait for people")


def retry_iteration(*, iteration: Iteration) -> None:
    """Take a failed iteration up where it failed; its failed run is resumed. Raises WrongStage if it hasn't failed."""
    if iteration.stage != Stage.FAILED:
        raise WrongStage("Only a failed iteration can be taken up again")
    stage = next(entry["stage"] for entry in reversed(iteration.stage_log) if entry["stage"] != Stage.FAILED)
    for run in (
        iteration.sample_run,
        iteration.reward_run,
        iteration.policy_run,
        iteration.resample_run,
        iteration.baseline_run,
    ):
        if run and run.state in (Run.State.FAILED, Run.State.CANCELLED):
            resume_run(run=run)
    _move(iteration, Stage.FAILED, stage, error="")


def cancel_iteration(*, iteration: Iteration) -> None:
    """End an iteration; its runs are cancelled, what was collected stays. Raises WrongStage if it is over."""
    if iteration.stage in (Stage.DONE, Stage.FAILED):
        raise WrongStage("This iteration is over already")
    for run in (
        iteration.sample_run,
        iteration.reward_run,
        iteration.policy_run,
        iteration.resample_run,
        iteration.baseline_run,
    ):
        if run and not run.is_over:
            request_cancel(run=run)
    _move(iteration, iteration.stage, Stage.FAILED, error="cancelled")


# --- moving on ----------------------------------------------------------------------------------
def advance_iteration(iteration: Iteration) -> Iteration:
    """Do what can be done now; returns the iteration as it then is. A refusal fails the iteration with its reason."""
    iteration.refresh_from_db()
    step = STEPS.get(iteration.stage)
    if step is None:
        return iteration
    try:
        step(iteration)
    except (LoopError, BadSpec, BadFilter, NothingToFreeze, NoRoom, BadTasks) as error:
        _move(iteration, iteration.stage, Stage.FAILED, error=str(error))
    iteration.refresh_from_db()
    return iteration


def _move(iteration: Iteration, from_stage: str, to_stage: str, **fields: Any) -> bool:
    """Change the stage once: of two callers the second changes nothing."""
    at = now()
    log = [*iteration.stage_log, {"stage": str(to_stage), "at": at.isoformat()}]
    with transaction.atomic():
        moved = Iteration.objects.filter(pk=iteration.pk, stage=from_stage).update(
            stage=to_stage, stage_since=at, stage_log=log, **fields
        )
        if moved:
            notify(
                iteration.project.live_group, "iteration", iteration=iteration.pk, number=iteration.number,
                stage=str(to_stage),
            )  # fmt: skip
    return bool(moved)


def _run_of(iteration: Iteration, name: str, **arguments: Any) -> Run | None:
    """The iteration's run called `name`, started now if it isn't there; None while it goes on.

    Raises LoopError where it failed or was cancelled.
    """
    with transaction.atomic():
        locked = Iteration.objects.select_for_update().get(pk=iteration.pk)
        run = getattr(locked, name)
        if run is None:
            run = create_run(project=iteration.project, created_by=iteration.created_by, **arguments)
            Iteration.objects.filter(pk=iteration.pk).update(**{name: run})
            return None
    if run.state in (Run.State.FAILED, Run.State.CANCELLED):
        raise LoopError(f"Run {run.pk} ({run.kind}) {run.get_state_display()}: {run.error or 'cancelled by a person'}")
    return run if run.state == Run.State.DONE else None


def _train_prompts(iteration: Iteration) -> list[int]:
    config = iteration.config
    inputs = {"tags": [config["train_tag"]]} if config["train_tag"] else {}
    rows = prompts_to_sample(iteration.project, inputs).values_list("pk", "tags")
    return [pk for pk, tags in rows if config["heldout_tag"] not in tags]


def _heldout_prompts(iteration: Iteration) -> list[int]:
    config = iteration.config
    rows = prompts_to_sample(iteration.project, {"tags": [config["heldout_tag"]]}).values_list("pk", "tags")
    return [pk for pk, tags in rows if config["heldout_tag"] in tags][: config["n_heldout"]]


def _sample(iteration: Iteration) -> None:
    config = iteration.config
    prompt_ids = _train_prompts(iteration)
    if not prompt_ids:
        raise LoopError("No prompt to collect preferences on: import prompts, or set train_tag to a tag they carry")
    spec = {"completions_per_prompt": config["completions_per_task"], **config["sample"]}
    if not _run_of(
        iteration,
        "sample_run",
        kind="sample",
        model=iteration.policy_before,
        spec=spec,
        inputs={"prompt_ids": prompt_ids},
    ):
        return
    create_tasks_for_prompts(
        project=iteration.project,
        prompts=Prompt.objects.filter(pk__in=prompt_ids),
        completions_per_task=config["completions_per_task"],
        overlap=config["overlap"],
        iteration=iteration.number,
        model_keys=[iteration.policy_before.key],
    )
    _move(iteration, Stage.SAMPLING, Stage.COLLECTING)


def _collect(iteration: Iteration) -> None:
    state = collected(iteration)
    if state.n_slots and state.n_done >= iteration.config["quota"] * state.n_slots:
        # The snapshot holds what was there at this moment, whoever judges on and whoever freezes.
        last = iteration.project.judgements.aggregate(top=Max("pk"))["top"]
        settled = iteration.project.adjudications.aggregate(top=Max("pk"))["top"] or 0
        config = {**iteration.config, "freeze_up_to": last, "freeze_up_to_adjudication": settled}
        _move(iteration, Stage.COLLECTING, Stage.FREEZING, config=config)


def _freeze(iteration: Iteration) -> None:
    snapshot = create_snapshot(
        project=iteration.project,
        created_by=iteration.created_by,
        name=f"iteration {iteration.number}",
        filters={
            "iterations": [iteration.number], "up_to_judgement": iteration.config["freeze_up_to"],
            "up_to_adjudication": iteration.config.get("freeze_up_to_adjudication"),
        },
        policy=iteration.config["snapshot_policy"],
    )
    _move(iteration, Stage.FREEZING, Stage.REWARD, snapshot=snapshot)


def _train_reward(iteration: Iteration) -> None:
    base = iteration.policy_before.root
    run = _run_of(
        iteration, "reward_run", kind=iteration.config["reward_kind"], model=base, snapshot=iteration.snapshot,
        spec=iteration.config["reward"],
    )  # fmt: skip
    if run:
        _move(iteration, Stage.REWARD, Stage.POLICY, reward_model=run.output_model)


def _train_policy(iteration: Iteration) -> None:
    run = _run_of(
        iteration, "policy_run", kind="dpo", model=iteration.policy_before, snapshot=iteration.snapshot,
        spec=iteration.config["policy"],
    )  # fmt: skip
    if run:
        _move(iteration, Stage.POLICY, Stage.RESAMPLING, policy_after=run.output_model)


def _resample(iteration: Iteration) -> None:
    config = iteration.config
    heldout = _heldout_prompts(iteration)
    compared = _train_prompts(iteration)[: config["n_compare_train"]]
    spec = {**config["sample"], **config["compare_sample"], "completions_per_prompt": 1}
    new = _run_of(
        iteration, "resample_run", kind="sample", model=iteration.policy_after, spec=spec,
        inputs={"prompt_ids": heldout + compared},
    )  # fmt: skip
    old = _run_of(
        iteration, "baseline_run", kind="sample", model=iteration.policy_before, spec=spec,
        inputs={"prompt_ids": heldout + compared},
    )  # fmt: skip
    if not (new and old):
        return
    # Held-out prompts first: they decide whether the new policy is better.
    for prompt_ids, priority in ((heldout, HELDOUT_PRIORITY), (compared, COMPARE_PRIORITY)):
        pairs = []
        for prompt_id in prompt_ids:
            newer = _one_completion(prompt_id, iteration.policy_after.key, new.pk)
            older = _one_completion(prompt_id, iteration.policy_before.key, old.pk)
            if newer and older and newer.content_hash != older.content_hash:
                pairs.append(NewTask(prompt_id, [older.pk, newer.pk]))
        create_tasks(
            project=iteration.project,
            new_tasks=pairs,
            overlap=config["compare_overlap"],
            purpose=Task.Purpose.EVALUATION,
            priority=priority,
            iteration=iteration.number,
        )
    _move(iteration, Stage.RESAMPLING, Stage.COMPARING)


def _one_completion(prompt_id: int, model_key: str, run_id: int) -> Completion | None:
    """The run's completion; where it repeated an earlier text word for word, that one."""
    rows = Completion.objects.filter(prompt=prompt_id, model_key=model_key).order_by("-pk")
    return next((row for row in rows if row.sampling.get("run") == run_id), None) or rows.first()


def _compare(iteration: Iteration) -> None:
    state = collected(iteration, Task.Purpose.EVALUATION)
    if not state.n_slots or state.n_done >= iteration.config["compare_quota"] * state.n_slots:
        _move(iteration, Stage.COMPARING, Stage.DONE)


STEPS: dict[str, Callable[[Iteration], None]] = {
    Stage.SAMPLING: _sample,
    Stage.COLLECTING: _collect,
    Stage.FREEZING: _freeze,
    Stage.REWARD: _train_reward,
    Stage.POLICY: _train_policy,
    Stage.RESAMPLING: _resample,
    Stage.COMPARING: _compare,
}
