"""What a run is rewarded for: the project's reward models, rules, and the team's functions that the operator allows."""

import math
from typing import Any

from django.conf import settings
from django.db.models import Q

from labeling.projects.models import Project
from training.registry.models import ModelVersion
from training.registry.services import folder_of
from training.runs.models import Run
from training.sampling.reward_rules import RewardError, check_allowed, check_caution, parse_reward

MAX_REWARDS = 20
# What lies in the folder of a reward model that knows how sure it is.
ENSEMBLE_FILE, HEAD_FILE = "reward_heads.safetensors", "reward_head.json"
SOURCES = ("model", "rule", "function")

Reward = dict[str, Any]


def why_no_caution(model: ModelVersion) -> str:
    """Why a run can't lower the model's rewards by their uncertainty; empty: it can."""
    if not {ENSEMBLE_FILE, HEAD_FILE} & set(model.files):
        return f"{model.key} doesn't know how sure it is: train one with n_heads, or a reward head"
    return ""


def axes_of(model: ModelVersion) -> list[str]:
    """The axes of a reward model that has several; else none."""
    axes = (model.lineage.get("options") or {}).get("axes") or []
    return axes if len(axes) > 1 else []


def check_rewards(
    project: Project, given: Any, kind: str = "", *, may_be_none: bool = False
) -> tuple[list[Reward], list[ModelVersion], dict[str, str]]:
    """Rewards as a run keeps them, the reward models among them, and what is wrong, by name of the field.

    `given` is a list of `{"model": id or key}`, `{"rule": "length:target=60"}` or `{"function": "package.module.name"}`,
    each with a `weight` (default 1); a model may have `caution`, the standard deviations taken off, and
    `axis`, the one of several axes that counts. Of a reward model its id and key are kept. Text goes to a reward model's own
    tokenizer, so its base may be another than the policy's.
    With `may_be_none` there may be no rewards at all.
    """
    where = "inputs.rewards"
    if given is None and may_be_none:
        return [], [], {}
    if not isinstance(given, list) or not given:
        return [], [], {where: "is required: choose a reward model, or write a rule"}
    if len(given) > MAX_REWARDS:
        return [], [], {where: f"holds {len(given)} rewards, at most {MAX_REWARDS} are taken"}
    kept: list[Reward] = []
    models: list[ModelVersion] = []
    wrong: dict[str, str] = {}
    for number, item in enumerate(given):
        here = f"{where}.{number}"
        named = [source for source in SOURCES if isinstance(item, dict) and item.get(source) is not None]
        if len(named) != 1:
            wrong[here] = "must name one model, one rule or one function"
            continue
        source, weight = named[0], item.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            wrong[f"{here}.weight"] = "must be a finite number"
            continue
        reward: Reward = {source: item[source], "weight": float(weight)}
        if source == "model":
            model, problem = _reward_model(project, item["model"])
            axis = item.get("axis") or ""
            if any((reward.get("model"), reward.get("axis", "")) == (model and model.pk, axis) for reward in kept):
                problem = f"{model.key} is there twice"
            if model is not None and not problem:
                if axis and axis not in axes_of(model):
                    there = f"choose from {', '.join(axes_of(model))}" if axes_of(model) else "it has one reward alone"
                    wrong[f"{here}.axis"] = f"{axis!r} is no axis of {model.key}: {there}"
                    continue
                if model not in models:
                    models.append(model)
                reward = {"model": model.pk, "key": model.key, **({"axis": axis} if axis else {}), "weight": float(weight)}
                if caution := item.get("caution"):
                    try:
                        reward["caution"] = check_caution(model.key, caution)
                        reason = why_no_caution(model)
                    except RewardError as error:
                        reason = str(error)
                    if reason:
                        wrong[f"{here}.caution"] = reason
                        continue
        elif item.get("axis"):
            wrong[f"{here}.axis"] = "is for reward models alone"
            continue
        elif item.get("caution"):
            wrong[f"{here}.caution"] = "is for reward models alone: a rule or function is sure of itself"
            continue
        else:
            problem = _problem_of_text(source, item[source])
        if problem:
            wrong[f"{here}.{source}"] = problem
        else:
            kept.append(reward)
    if not wrong and not any(reward["weight"] for reward in kept):
        wrong[where] = "have a weight of 0, all of them: there is nothing to train on"
    return kept, models, wrong


def _reward_model(project: Project, name: Any) -> tuple[ModelVersion | None, str]:
    """The model by id or key, and what is wrong with it."""
    text = str(name)
    found = Q(key=text)
    if text.isascii() and text.isdigit() and len(text) < 19:
        found |= Q(pk=int(text))
    model = ModelVersion.objects.filter(found, project=project).first()
    if model is None:
        return None, "there is no such reward model in this project"
    if model.kind != ModelVersion.Kind.REWARD:
        return None, f"{model.key} is a {model.get_kind_display()}, no reward model"
    return model, ""


def _problem_of_text(source: str, text: Any) -> str:
    try:
        reward = parse_reward(f"function:{text}" if source == "function" else text)
        if source == "rule" and reward.kind in ("model", "function"):
            return f"{text!r} is no rule: give it as {reward.kind}"
        if source == "function":
            check_allowed(reward, settings.REWARD_FUNCTIONS)
    except RewardError as error:
        return str(error)
    return ""


def rewards_of(run: Run) -> dict[str, list[Any]]:
    """The recipe's `rewards` and `reward_weights`, with the folders of the models on this machine."""
    models = run.reward_models.select_related("base").in_bulk()
    entries = []
    for reward in run.inputs["rewards"]:
        if "model" in reward:
            model = models[reward["model"]]
            base = f",base={folder_of(model.base)}" if model.base else ""
            caution = f",caution={reward['caution']:g}" if reward.get("caution") else ""
            axis = f",axis={reward['axis']}" if reward.get("axis") else ""
            entries.append(f"model:{folder_of(model)}{base}{axis}{caution}")
        elif "function" in reward:
            entries.append(f"function:{reward['function']}")
        else:
            entries.append(reward["rule"])
    return {"rewards": entries, "reward_weights": [reward["weight"] for reward in run.inputs["rewards"]]}
