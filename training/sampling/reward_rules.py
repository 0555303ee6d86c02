"""Rewards as people write them, and the rules among them: plain texts taken apart and checked. No torch here.

Each reward is one text:

- `model:FOLDER`, or `model:FOLDER,base=FOLDER` where the base model has moved: a reward model made by the recipes
  `reward` or `reward_head`, in logits. Models on one base share its weights. `,axis=NAME` after that: one axis of a model
  that has several, instead of all by their weights. With `,caution=0.5` at the end the reward is
  lowered by half its standard deviation, of models that know it: heads and ensembles (Coste et al. 2023, arXiv:2310.02743,
  lower it by its variance instead).
- `length:target=60`, with `,tolerance=10` and `,unit=words` if wanted: 0 within `tolerance` of the target, falling
  linearly to -1 at nothing or double the target. Tokens of the policy's tokenizer, or words.
- `format:NAME`: 1 for a completion of that form, else 0; `FORMATS` says which there are.
- `repetition`, or `repetition:n=4`: minus the share of n-grams of words that were there before; 0 to -1.
- `function:package.module.name`: a Python function of the team, if the operator allows it by its exact name in
  PREFLOOP_REWARD_FUNCTIONS (names with commas between). Whatever isn't listed is refused before it is imported.
"""

import json
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

ALLOWED_VARIABLE = "PREFLOOP_REWARD_FUNCTIONS"
KINDS = ("model", "length", "format", "repetition", "function")


class RewardError(ValueError):
    """A reward can't be used, or gave what is no reward; the message names it and says what to do."""


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_json_object(text: str) -> bool:
    return text.lstrip().startswith("{") and _is_json(text)


def _is_list(text: str) -> bool:
    lines = [line for line in text.splitlines() if line.strip()]
    return len(lines) > 1 and all(re.match(r"\s*([-*•]|\d{1,3}[.)])\s+\S", line) for line in lines)


# Patterns have names, and people choose among them: an expression of theirs could take for ever to match.
FORMATS: dict[str, Callable[[str], bool]] = {
    "json": _is_json,
    "json-object": _is_json_object,
    "list": _is_list,
    "whole-sentence": lambda text: bool(re.search(r"[.!?…。！？][\"'”’)\]]{0,3}\Z", text.rstrip())),
    "one-paragraph": lambda text: bool(text.strip()) and "\n" not in text.strip(),
}


@dataclass(frozen=True)
class Reward:
    """One entry of `rewards`, taken apart: `kind` is one of KINDS, `value` a folder or a name."""

    entry: str
    kind: str
    value: str = ""
    options: dict[str, str] = field(default_factory=dict)


def parse_reward(entry: str) -> Reward:
    """Take one entry apart; looks at no file. Raises RewardError."""
    if not isinstance(entry, str) or not entry.strip():
        raise RewardError(f"The reward {entry!r} is no text. Write it as one of: {examples()}")
    kind, _, rest = entry.strip().partition(":")
    if kind not in KINDS:
        raise RewardError(f"The reward {entry!r} is of no known kind. Write it as one of: {examples()}")
    if kind == "model":
        named, _, caution = rest.rpartition(",caution=") if ",caution=" in rest else (rest, "", "")
        placed, _, axis = named.partition(",axis=")
        folder, _, base = placed.partition(",base=")
        if not folder:
            raise RewardError(f"The reward {entry!r} names no folder: write model:FOLDER")
        if placed != named and not axis:
            raise RewardError(f"The reward {entry!r} names no axis: write axis=NAME, or leave it out")
        options = ({"base": base} if base else {}) | ({"axis": axis} if axis else {})
        if named != rest:
            check_caution(entry, caution)
            options["caution"] = caution
        return Reward(entry, kind, folder, options)
    if kind == "function":
        if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", rest):
            raise RewardError(f"The reward {entry!r} names no function: write function:package.module.name")
        return Reward(entry, kind, rest)
    if kind == "format":
        if rest not in FORMATS:
            raise RewardError(f"The reward {entry!r} names no known format: choose from {', '.join(FORMATS)}")
        return Reward(entry, kind, rest)
    options = _options(entry, rest)
    if kind == "length":
        _check_options(entry, options, known=("target", "tolerance", "unit"), required=("target",))
        _number(entry, options, "target", low=1, high=32_768)
        _number(entry, options, "tolerance", low=0, high=32_768)
        if options.get("unit", "tokens") not in ("tokens", "words"):
            raise RewardError(f"The reward {entry!r}: unit is {options['unit']!r}, it must be tokens or words")
    else:
        _check_options(entry, options, known=("n",))
        _number(entry, options, "n", low=1, high=20)
    return Reward(entry, kind, "", options)


def check_caution(entry: str, caution: object) -> float:
    """How many standard deviations are taken off a reward, 0 to 10. Raises RewardError."""
    try:
        value = math.nan if isinstance(caution, bool) else float(caution)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value <= 10:
        raise RewardError(f"The reward {entry!r}: caution is {caution!r}, it must be a number from 0 to 10")
    return value


def examples() -> str:
    """One reward of each kind, for messages."""
    return "model:FOLDER, length:target=60, format:json, repetition, function:package.module.name"


def _options(entry: str, text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in text.split(",") if text else ():
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not name or not equals or not value:
            raise RewardError(f"The reward {entry!r}: {part!r} is no option; write name=value, with commas between")
        if name in options:
            raise RewardError(f"The reward {entry!r} has {name} twice")
        options[name] = value
    return options


def _check_options(entry: str, options: dict[str, str], *, known: Sequence[str], required: Sequence[str] = ()) -> None:
    for name in options:
        if name not in known:
            raise RewardError(f"The reward {entry!r} has no option {name}; known: {', '.join(known)}")
    for name in required:
        if name not in options:
            raise RewardError(f"The reward {entry!r} needs {name}, such as {entry.partition(':')[0]}:{name}=60")


def _number(entry: str, options: dict[str, str], name: str, *, low: int, high: int) -> None:
    if (text := options.get(name)) is None:
        return
    if not re.fullmatch(r"\d{1,6}", text, re.ASCII) or not low <= int(text) <= high:
        raise RewardError(f"The reward {entry!r}: {name} is {text!r}, it must be a whole number from {low} to {high}")


def check_weights(rewards: list[str], reward_weights: list[float] | None) -> list[float]:
    """One finite weight for each reward, not all 0. Raises RewardError."""
    if reward_weights is None:
        return [1.0] * len(rewards)
    if len(reward_weights) != len(rewards):
        raise RewardError(
            f"There are {len(rewards)} rewards and {len(reward_weights)} reward_weights: give one weight for each"
        )
    for entry, weight in zip(rewards, reward_weights, strict=True):
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise RewardError(f"The weight of the reward {entry!r} is {weight!r}, it must be a finite number")
    if not any(reward_weights):
        raise RewardError("Every weight of the rewards is 0: there is nothing to train on")
    return [float(weight) for weight in reward_weights]


def allowed_functions() -> tuple[str, ...]:
    """The dotted names that the operator lists in PREFLOOP_REWARD_FUNCTIONS."""
    return tuple(name.strip() for name in os.environ.get(ALLOWED_VARIABLE, "").split(",") if name.strip())


def check_allowed(reward: Reward, allowed: Sequence[str] | None = None) -> None:
    """Refuse a function that the operator hasn't listed in the environment, or in `allowed`. Raises RewardError."""
    if reward.value not in (allowed_functions() if allowed is None else allowed):
        raise RewardError(
            f"The reward {reward.entry!r} is not allowed here: it would run code. The operator allows it by adding "
            f"{reward.value} to {ALLOWED_VARIABLE} in the worker's environment."
        )


def length_reward(length: int, target: int, tolerance: int) -> float:
    """0 within `tolerance` of `target`, -1 at nothing, at double the target and beyond; linear between."""
    beyond = max(0, abs(length - target) - tolerance)
    return -min(1.0, beyond / max(1, target - tolerance))


def repeated_share(text: str, n: int) -> float:
    """The share of n-grams of words, case aside, that stood in the text before; 0 for fewer than n + 1 words."""
    words = text.lower().split()
    grams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
