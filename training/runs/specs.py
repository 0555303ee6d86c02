"""Whether the options that people set fit a kind of run and one another, told before anything is queued. No torch here."""

import math
from typing import Any

from training.runs.catalogue import KINDS, defaults, makes_adapter
from training.runs.launchers import ONE, processes_of, shards
from training.runs.options import LAUNCH_OPTIONS


def check_spec(kind: str, spec: dict[str, Any]) -> dict[str, str]:
    """What is wrong with the options people set, by name; empty: nothing."""
    options = KINDS[kind].settable
    wrong = {}
    for name, value in spec.items():
        if name in LAUNCH_OPTIONS and name not in options:
            wrong[f"spec.{name}"] = f"is not for a run of kind {kind}, which is one process: leave it out"
        elif name not in options:
            wrong[f"spec.{name}"] = f"is not an option of {kind}; known: {', '.join(options)}"
        elif value is not None and (problem := options[name].problem(value)):
            wrong[f"spec.{name}"] = problem
    if not wrong and "loss_weights" in options:
        losses = spec.get("loss_type") or []
        if len(losses) != len(spec.get("loss_weights") or losses):
            wrong["spec.loss_weights"] = "needs one weight for each loss_type"
    if not wrong and "smoothing_from" in options:
        wrong |= _check_smoothing(kind, spec)
    if not wrong and "axes" in options:
        wrong |= _check_axes(spec)
    if not wrong and not makes_adapter(kind, spec):
        if spec.get("adapter_kind", "lora") != "lora":
            wrong["spec.adapter_kind"] = f"is {spec['adapter_kind']}, but adapter_rank is 0: there is no adapter"
        if spec.get("quantised_base", "no") != "no":
            wrong["spec.quantised_base"] = "holds a frozen base, but adapter_rank is 0: all weights are trained"
    if not wrong and kind == "distill" and spec.get("loss") == "texts" and spec.get("written_by") == "student":
        wrong["spec.loss"] = "is texts, which are the teacher's: set written_by to teacher, or loss to kl"
    if not wrong and kind == "evaluate" and spec.get("temperature") == 0 and spec.get("completions_per_prompt", 2) > 1:
        wrong["spec.temperature"] = "is 0, so all completions of a prompt would be one: set completions_per_prompt to 1"
    if not wrong and KINDS[kind].needs_rewards:
        wrong |= _check_rollouts(kind, spec)
    return wrong or _check_launcher(kind, spec)


def _check_launcher(kind: str, spec: dict[str, Any]) -> dict[str, str]:
    launcher = spec.get("launcher") or ONE
    if launcher == ONE:
        if (spec.get("processes") or 1) > 1:
            return {"spec.processes": f"is {spec['processes']}, but launcher is {ONE}: choose another launcher, such as torchrun"}
        return {}
    if kind == "distill" and spec.get("written_by") == "student":
        return {"spec.launcher": f"is {launcher}, but a student that writes its own completions is one process: choose {ONE}"}
    if spec.get("quantised_base", "no") != "no" and shards(launcher):
        return {"spec.launcher": f"is {launcher}, which holds parts of the weights, but a base of four bits stays whole: choose ddp"}
    if shards(launcher):
        if not KINDS[kind].may_shard:
            return {"spec.launcher": f"is {launcher}, but a run of kind {kind} needs the whole model in each process: choose ddp"}
        if (spec.get("n_heads") or 1) > 1 or spec.get("axes"):
            return {"spec.launcher": f"is {launcher}, but several heads need the whole model in each process: choose ddp"}
    return {}


def _check_smoothing(kind: str, spec: dict[str, Any]) -> dict[str, str]:
    losses = spec.get("loss_type") or defaults(kind)["loss_type"]
    if {"sigmoid", "robust"} & set(losses):
        return {}
    for name, value in (("label_smoothing", spec.get("label_smoothing") or 0), ("smoothing_from", spec.get("smoothing_from", "none"))):
        if value not in (0, "none", None):
            return {f"spec.{name}": f"is {value}, but the losses are {', '.join(losses)}, which smooth no labels: add sigmoid or robust"}
    return {}


def _check_axes(spec: dict[str, Any]) -> dict[str, str]:
    axes, weights = spec.get("axes") or [], spec.get("axis_weights")
    if len(set(axes)) < len(axes):
        return {"spec.axes": f"names {next(axis for axis in axes if axes.count(axis) > 1)!r} twice"}
    if axes and spec.get("n_heads", 1) > 1:
        return {"spec.n_heads": f"is {spec['n_heads']}, and there are axes: a head is one of an ensemble or of an axis"}
    if len(axes) > 1 and spec.get("quantised_base", "no") != "no":
        return {"spec.quantised_base": "is 4bit, and there are several axes: their heads are made on a base in full"}
    if weights is not None and (len(weights) != len(axes) or not any(weights)):
        return {"spec.axis_weights": "needs one weight for each of the axes, not all 0"}
    return {}


def _check_rollouts(kind: str, spec: dict[str, Any]) -> dict[str, str]:
    options = {**defaults(kind), **{name: value for name, value in spec.items() if value is not None}}
    n, completions = options.get("num_generations", 1), completions_a_rollout(kind, spec)
    if completions % n:
        return {
            "spec.num_generations": f"is {n}, and a rollout has {completions} completions (per_device_train_batch_size "
            "times the batches sampled in one go, times processes): that must be a multiple of it"
        }
    accumulation = options["gradient_accumulation_steps"]
    if kind == "ppo" and _batches(options) * options["num_iterations"] % accumulation:
        return {
            "spec.gradient_accumulation_steps": f"is {accumulation}, it must divide steps_per_generation x num_iterations: "
            "a step would mix two rollouts"
        }
    if kind == "ppo" and options.get("kl_target_nats") and not options["beta"]:
        return {"spec.kl_target_nats": "adapts beta, which is 0 and would stay so: give beta a first value"}
    cycle = math.lcm(_batches(options) * options.get("num_iterations", 1), accumulation) // accumulation
    if options["save_steps"] % cycle:
        return {
            "spec.save_steps": f"is {options['save_steps']}, it must be a multiple of {cycle}: one rollout serves so many "
            "steps, and checkpoints lie between rollouts"
        }
    return {}


def _batches(options: dict[str, Any]) -> int:
    return options.get("steps_per_generation") or options["gradient_accumulation_steps"]


def completions_a_rollout(kind: str, spec: dict[str, Any]) -> int:
    """Completions that a recipe trained on rewards samples in one go, in all its processes."""
    options = {**defaults(kind), **{name: value for name, value in spec.items() if value is not None}}
    return options["per_device_train_batch_size"] * _batches(options) * processes_of(options)


def prompts_a_rollout(kind: str, spec: dict[str, Any]) -> int:
    """Prompts that must be there at least. `spec` has been checked."""
    if not KINDS[kind].needs_rewards:
        return 1
    return completions_a_rollout(kind, spec) // {**defaults(kind), **spec}.get("num_generations", 1)
