"""What keeps a run from starting, by field, and what it would take: told before anything is queued."""

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db.models import Q

from labeling.preferences.models import Snapshot
from labeling.projects.models import Project
from training.endpoints.services import wrong_use_of
from training.registry.models import ModelVersion
from training.registry.selectors import models_of
from training.registry.terms import why_not_accepted
from training.runs.catalogue import KINDS, makes_adapter
from training.runs.errors import BadSpec
from training.runs.explaining import ASKED_BY, check_asked
from training.runs.folder import count_prompts_to_train_on, prompts_to_sample
from training.runs.launchers import why_not_here
from training.runs.learnable import why_no_agreement, why_nothing_to_learn, why_nothing_to_read
from training.runs.parts import PARTS
from training.runs.planning import Plan, plan_run, why_model_unfit
from training.runs.rewards import check_rewards
from training.runs.specs import check_spec, prompts_a_rollout

OTHER_MODELS = ("teacher", "reference")


@dataclass(frozen=True)
class Checked:
    """What was asked for, as a row holds it, and what is `wrong` with it by field."""

    project: Project
    kind: str
    spec: dict[str, Any]
    inputs: dict[str, Any]
    snapshot: Snapshot | None
    model: ModelVersion | None
    other: ModelVersion | None
    reward_models: list[ModelVersion]
    plan: Plan
    wrong: dict[str, str]


def check_run(
    *,
    project: Project,
    kind: str,
    spec: dict[str, Any] | None = None,
    snapshot: Snapshot | None = None,
    model: ModelVersion | None = None,
    inputs: dict[str, Any] | None = None,
) -> Checked:
    """What `create_run` would queue or refuse, and what the run would take; nothing is written.

    Raises BadSpec for an unknown kind.
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
    if (part := PARTS.get(kind)) and part.check:
        inputs, bad_inputs = part.check(project, model, inputs)
        wrong |= bad_inputs
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
    for name, used in (("model", model), (f"inputs.{known.other_model}", other)):
        if used and name not in wrong and (unfit := why_model_unfit(used, converses=kind != "merge")):
            wrong[name] = unfit
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
        elif disagreed := why_no_agreement(snapshot, spec):
            wrong["spec.smoothing_from"] = disagreed
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
    plan = Plan()
    if not wrong and model is not None:
        plan = plan_run(
            project=project, kind=kind, spec=spec, snapshot=snapshot, model=model, other=other, inputs=inputs, reward_models=reward_models
        )
        wrong |= plan.wrong
    return Checked(
        project=project, kind=kind, spec=spec, inputs=inputs, model=model, other=other, reward_models=reward_models, plan=plan, wrong=wrong,
        snapshot=snapshot if known.needs_snapshot or known.may_have_snapshot else None,
    )  # fmt: skip


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
