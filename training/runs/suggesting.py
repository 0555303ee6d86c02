"""Options that suit a model and a machine better than the recipe's defaults, each with why."""

from dataclasses import dataclass
from typing import Any

from training.runs.catalogue import KINDS, defaults
from training.runs.checking import Checked
from training.runs.efforts import Data
from training.runs.estimates import least_bytes, likely_bytes, memory_of
from training.runs.planning import options_of
from training.sampling.model_facts import ModelFacts

ROOM = 0.8  # of the memory may be filled by what is likely
LARGE = 1_000_000_000  # weights from which on the defaults, made for a small model, take too large steps
LARGE_RATES = {"sft": 1e-4, "dpo": 2e-5, "kto": 2e-5, "reward": 5e-5, "grpo": 1e-5, "rloo": 1e-5, "ppo": 1e-5, "distill": 1e-4}
ENCODED_AT = 2 / 3  # of the layers: where features of human preferences are best
MOST_AT_ONCE = 256


@dataclass(frozen=True)
class Suggestion:
    value: Any
    why: str


def defaults_for(kind: str, model: ModelFacts, machine: dict[str, Any] | None, data: Data | None = None) -> dict[str, Suggestion]:
    """What should differ from the recipe's defaults for this model on this machine, by option.

    Where the default batch would not fit, smaller ones are added up to the same step; then activations are computed twice;
    and on a GPU the frozen base is held in four bits. Without a machine only what follows from the model.
    """
    usual, options = defaults(kind), KINDS[kind].options
    found: dict[str, Suggestion] = {}
    if kind == "reward_head" and usual["layer"] > model.layers:
        found["layer"] = Suggestion(max(1, round(model.layers * ENCODED_AT)), f"two thirds up its {model.layers} layers")
    if model.positions:
        for name in ("max_length", "max_prompt_length"):
            if name in options and (usual.get(name) or 0) > model.positions:
                found[name] = Suggestion(model.positions, f"the model takes {model.positions:,} tokens")
    if model.n_parameters > LARGE and usual.get("learning_rate", 0) > LARGE_RATES.get(kind, 1):
        found["learning_rate"] = Suggestion(LARGE_RATES[kind], f"{model.n_parameters / 1e9:.1f} billion weights want smaller steps")
    if machine and memory_of(machine):
        found |= _fitting(kind, model, machine, data or Data())
    return found


def _fitting(kind: str, model: ModelFacts, machine: dict[str, Any], data: Data) -> dict[str, Suggestion]:
    base, options = defaults(kind), KINDS[kind].options
    there = memory_of(machine)

    def fits(changes: dict[str, Any]) -> bool:
        tried = {**base, **changes}
        needed = likely_bytes(kind, options=tried, model=model, data=data, machine=machine)
        return needed <= ROOM * there and least_bytes(kind, options=tried, model=model, data=data, machine=machine) <= there

    changes: dict[str, Any] = {}
    if fits(changes):
        return {}
    where = f"to fit {there / 1e9:.0f} GB"
    why: dict[str, str] = {}
    for name in ("batch_size", "generation_batch_size", "eval_batch_size"):
        while name in options and (changes.get(name) or base.get(name) or 1) > 1 and not fits(changes):
            changes[name] = max(1, (changes.get(name) or base[name]) // 2)
            why[name] = where
    batch, least = base.get("per_device_train_batch_size"), int(options["per_device_train_batch_size"].low) if "per_device_train_batch_size" in options else 1
    steps = (base.get("gradient_accumulation_steps") or 1) * (batch or 1)
    for checkpointed in (False, True):
        if checkpointed and "gradient_checkpointing" in options and not fits(changes):
            changes["gradient_checkpointing"], why["gradient_checkpointing"] = True, f"{where}, at the price of a fifth more time"
        while batch and (size := changes.get("per_device_train_batch_size", batch)) // 2 >= least and not fits(changes) and not size % 2:
            changes |= {"per_device_train_batch_size": size // 2, "gradient_accumulation_steps": steps * 2 // size}
            why |= {"per_device_train_batch_size": where, "gradient_accumulation_steps": "as many rows a step as usual"}
    if machine.get("gpus") and "quantised_base" in options and not fits(changes):
        changes["quantised_base"], why["quantised_base"] = "4bit", f"{where}; the worker needs bitsandbytes"
    return {name: Suggestion(value, why[name]) for name, value in changes.items()}


def suggestions(checked: Checked) -> dict[str, dict[str, Any]]:
    """Of a run that was checked: what it doesn't set itself already."""
    plan = checked.plan
    if plan.facts is None or checked.model is None:
        return {}
    found = defaults_for(checked.kind, plan.facts, plan.machine.facts if plan.machine else None, plan.data)
    chosen = options_of(checked.kind, checked.spec, model=checked.model)
    return {name: {"value": one.value, "why": one.why} for name, one in found.items() if chosen.get(name) != one.value}
