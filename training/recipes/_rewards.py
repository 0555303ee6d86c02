"""Reward functions of the recipes that train on a reward: reward models, rules about the text, a team's own functions.

How a reward is written says `sampling/reward_rules.py`.
"""

import importlib
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch
from transformers import AutoTokenizer

from training.recipes._data import completion_text
from training.sampling.model_files import ModelFilesError, check_model
from training.sampling.reward_models import RewardModel, RewardModels, inspect_reward_model
from training.sampling.reward_rules import (
    FORMATS,
    Reward,
    RewardError,
    check_allowed,
    check_weights,
    examples,
    length_reward,
    parse_reward,
    repeated_share,
)

Message = dict[str, str]
RewardFunction = Callable[..., list[float | None]]


def reward_functions(
    rewards: list[str],
    reward_weights: list[float] | None,
    *,
    base_model: str,
    seed: int,
) -> tuple[list[RewardFunction], list[float]]:
    """The functions that TRL's online trainers call, and the weight of each (default 1).

    Each is called as `function(prompts, completions, **columns)`, both lists of texts or of message lists, and gives
    a reward or None (nothing to say) for each completion. It has a `__name__` of its own, under which TRL logs it.
    `base_model` is the policy's base: its tokenizer counts tokens. `seed` reaches a team's functions as `seed`.
    Reward models are loaded at the first call, after all were checked here.

    Raises RewardError, naming the entry, for what can't work; and later, out of a function, where that gives
    another number of rewards than there are completions, or one that is no finite number.
    """
    if not rewards:
        raise RewardError(f"`rewards` is empty: there is nothing to train on. Name one or more of: {examples()}")
    weights = check_weights(rewards, reward_weights)
    parsed = [parse_reward(entry) for entry in rewards]
    for reward in parsed:
        if reward.kind == "function":
            check_allowed(reward)  # before anything is imported or loaded
    models = RewardModels()
    functions: list[RewardFunction] = []
    names: list[str] = []
    for reward in parsed:
        name, score = _scorer(reward, models, base_model=base_model, seed=seed)
        # TRL logs by name: two of one name would be averaged.
        names.append(name)
        unique = name if names.count(name) == 1 else f"{name}_{names.count(name)}"
        functions.append(_checked(unique, reward.entry, score))
    return functions, weights


Scorer = Callable[[list[Any], list[Any], dict[str, Any]], Any]


def _scorer(reward: Reward, models: RewardModels, *, base_model: str, seed: int) -> tuple[str, Scorer]:
    """A name and a function of (prompts, completions, columns)."""
    if reward.kind == "model":
        try:
            files = inspect_reward_model(reward.value, base=reward.options.get("base"))
            model = models.add(files, reward.options.get("axis", ""))
        except (ModelFilesError, ValueError, OSError) as error:
            raise RewardError(f"The reward {reward.entry!r} can't be used. {error}") from None
        caution = float(reward.options.get("caution", 0))
        if caution and not model.tells_uncertainty:
            raise RewardError(
                f"The reward {reward.entry!r} can't be lowered by caution: the model has one head and no posterior, so it "
                "doesn't know how sure it is. Train one with n_heads, or a reward head."
            )
        folder = Path(reward.value)
        name = folder.parent.name if folder.name == "model" else folder.name
        return _identifier(" ".join([name, reward.options.get("axis", "")])), _model_scorer(model, caution)
    if reward.kind == "length":
        return "length", _length_scorer(reward, base_model)
    if reward.kind == "format":
        fits = FORMATS[reward.value]
        return _identifier(f"format_{reward.value}"), lambda prompts, completions, columns: [
            float(fits(_text(completion))) for completion in completions
        ]
    if reward.kind == "repetition":
        n = int(reward.options.get("n", 3))
        return "repetition", lambda prompts, completions, columns: [
            -repeated_share(_text(completion), n) for completion in completions
        ]
    function = _import(reward)
    name = reward.value.rpartition(".")[2]
    return name, lambda prompts, completions, columns: function(
        prompts=prompts, completions=completions, **{"seed": seed, **columns}
    )


def _model_scorer(model: RewardModel, caution: float) -> Scorer:
    """Of a cautious one: the reward minus so many of its standard deviations."""

    def score(prompts: list[Any], completions: list[Any], columns: dict[str, Any]) -> list[float]:
        messages = [[{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt for prompt in prompts]
        texts = [_text(completion) for completion in completions]
        if not caution:
            return model.score(messages, texts)
        rewards, deviations = model.score_with_deviations(messages, texts)
        return (numpy.asarray(rewards) - caution * numpy.linalg.norm(deviations, axis=1)).tolist()

    return score


def _length_scorer(reward: Reward, base_model: str) -> Scorer:
    target, tolerance = int(reward.options["target"]), int(reward.options.get("tolerance", 0))
    if reward.options.get("unit") == "words":
        return lambda prompts, completions, columns: [
            length_reward(len(_text(completion).split()), target, tolerance) for completion in completions
        ]
    tokenizer = AutoTokenizer.from_pretrained(check_model(base_model))

    def score(prompts: list[Any], completions: list[Any], columns: dict[str, Any]) -> list[float]:
        # Of the text, not of `completion_ids`: those hold the end token, and padding where the caller pads.
        ids = tokenizer([_text(completion) for completion in completions], add_special_tokens=False)["input_ids"]
        return [length_reward(len(row), target, tolerance) for row in ids]

    return score


def _import(reward: Reward) -> Callable[..., Any]:
    module, _, name = reward.value.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the team's module does when it is imported
        raise RewardError(
            f"The reward {reward.entry!r} can't be imported ({type(error).__name__}: {error}). Install its package "
            "into the worker's environment."
        ) from error
    if not callable(function):
        raise RewardError(f"The reward {reward.entry!r} is a {type(function).__name__}, no function")
    return function


def _checked(name: str, entry: str, score: Scorer) -> RewardFunction:
    """The function as TRL calls it, which lets nothing pass that is no reward."""

    def reward(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
        try:
            values = score(prompts, completions, columns)
        except (RewardError, MemoryError, torch.OutOfMemoryError):
            raise  # the run says what to do about memory
        except Exception as error:
            raise RewardError(
                f"The reward function {name} ({entry}) failed: {type(error).__name__}: {error}"
            ) from error
        try:
            values = list(values)
        except TypeError:
            raise RewardError(
                f"The reward function {name} ({entry}) returned {type(values).__name__}: it must return a list"
            ) from None
        if len(values) != len(completions):
            raise RewardError(
                f"The reward function {name} ({entry}) returned {len(values)} rewards for {len(completions)} completions"
            )
        return [_checked_value(name, entry, place, value) for place, value in enumerate(values)]

    reward.__name__ = reward.__qualname__ = name
    return reward


def _checked_value(name: str, entry: str, place: int, value: Any) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise RewardError(
            f"The reward function {name} ({entry}) returned {str(value)[:60]!r} for completion {place} of its batch: "
            "a reward must be a finite number, or None"
        )
    return number


def _text(completion: str | list[Message]) -> str:
    return completion if isinstance(completion, str) else completion_text(completion)


def _identifier(text: str) -> str:
    return re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_").lower() or "reward"
