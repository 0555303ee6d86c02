"""What a run will take: time, memory, disk and money, as ranges, before anything is queued. No Django and no torch here.

Everything is counted twice: under assumptions such that all goes well, and such that nothing does. What is likely lies
between, at their geometric mean. Past runs of the kind on the machine then say where between: the range is moved by the
ratio of what they took to what had been said of them, and narrowed the more of them there are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from training.runs.efforts import Assumed, Data, Effort, Options, effort_of, flops_of
from training.sampling.model_facts import ModelFacts

# Held against SmolLM2-135M on processors: from 0.2 to 0.7 of the speed of one large matrix product.
WELL = Assumed(
    share_of_peak=0.8, share_on_gpu=0.55, layer_seconds=0.0003, step_seconds=0.01, start_seconds=5.0, written_share=0.5,
    length_factor=-1.0, adapter_pass=2.0, activations=(8.0, 3.0), logits=0.0, process_bytes=0.4e9, is_cached=True,
)  # fmt: skip
BADLY = Assumed(
    share_of_peak=0.15, share_on_gpu=0.08, layer_seconds=0.004, step_seconds=0.3, start_seconds=40.0, written_share=1.0,
    length_factor=1.0, adapter_pass=3.0, activations=(30.0, 10.0), logits=3.0, process_bytes=1.6e9,
)  # fmt: skip
READ_BYTES_A_SECOND = {True: 2e9, False: 1e8}  # of a disk, by whether all goes well
GPU_CONTEXT_BYTES = {True: 0.3e9, False: 1.5e9}
KEPT_CHECKPOINTS = 2
# Past runs needed: with so many the range is their own, widened by a quarter.
ENOUGH_PAST = 3


@dataclass(frozen=True)
class Range:
    low: float
    high: float

    @property
    def likely(self) -> float:
        return math.sqrt(self.low * self.high) if self.low > 0 else self.high / 2

    def as_dict(self, digits: int = 0) -> dict[str, float]:
        said = {"low": self.low, "likely": self.likely, "high": self.high}
        return {name: round(value, digits) if digits else round(value) for name, value in said.items()}


@dataclass(frozen=True)
class Past:
    """A finished run of the kind on the machine: what was said to be likely before anything was learnt, and what it took."""

    said_seconds: float
    took_seconds: float
    said_bytes: float = 0.0
    took_bytes: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """`raw_seconds` is the likely time before past runs were looked at: what later runs are held against."""

    steps: int
    rows: int
    tokens: Range
    memory: Range
    host_memory: Range
    disk: Range
    seconds: Range | None = None
    raw_seconds: float | None = None
    raw_bytes: float = 0.0
    n_past: int = 0


def estimate(
    kind: str, *, options: Options, model: ModelFacts, data: Data, machine: dict[str, Any] | None, past: Sequence[Past] = ()
) -> Estimate:
    """`options` with the recipe's defaults, also `reward_models`; `machine` as it measured itself, None: nobody did.

    Without a machine there is no time, and memory is that of a processor.
    """
    facts = machine or {}
    options = _on(facts, options)
    low, high = (effort_of(kind, options, data, assumed) for assumed in (WELL, BADLY))
    memory = _ordered(_device_bytes(kind, options, model, low, facts, WELL), _device_bytes(kind, options, model, high, facts, BADLY))
    said = [run for run in past if run.said_seconds > 0 and run.took_seconds > 0]
    raw_bytes = memory.likely
    if with_memory := [run for run in said if run.said_bytes > 0 and run.took_bytes > 0]:
        memory = _by_past(memory, [run.took_bytes / run.said_bytes for run in with_memory])
    host = memory if not facts.get("gpus") else Range(WELL.process_bytes, BADLY.process_bytes * 3 + model.file_bytes)
    seconds = raw = None
    if facts.get("flops"):
        seconds = _ordered(_seconds(options, model, low, facts, WELL), _seconds(options, model, high, facts, BADLY))
        raw = seconds.likely
        if said:
            seconds = _by_past(seconds, [run.took_seconds / run.said_seconds for run in said])
    return Estimate(
        steps=high.steps, rows=high.rows, tokens=_ordered(low.passes + low.tokens_written, high.passes + high.tokens_written),
        memory=memory, host_memory=host, disk=_disk(kind, options, model, high), seconds=seconds, raw_seconds=raw,
        raw_bytes=raw_bytes, n_past=len(said),
    )  # fmt: skip


def least_bytes(kind: str, *, options: Options, model: ModelFacts, data: Data, machine: dict[str, Any]) -> float:
    """Memory that the run needs at the very least where the model is computed: on a GPU, or in the machine's own memory."""
    effort = effort_of(kind, _on(machine, options), data, WELL)
    return _device_bytes(kind, options, model, effort, machine, WELL)


def likely_bytes(kind: str, *, options: Options, model: ModelFacts, data: Data, machine: dict[str, Any]) -> float:
    """The same as is likely."""
    most = _device_bytes(kind, options, model, effort_of(kind, _on(machine, options), data, BADLY), machine, BADLY)
    return _ordered(least_bytes(kind, options=options, model=model, data=data, machine=machine), most).likely


def _on(machine: dict[str, Any], options: Options) -> dict[str, Any]:
    return {**options, "on_cpu": not machine.get("gpus")}


def memory_of(machine: dict[str, Any]) -> float:
    """What the device has on which a machine trains."""
    gpus = machine.get("gpus") or []
    return max(gpu["memory_bytes"] for gpu in gpus) if gpus else machine.get("memory_bytes", 0)


def adapter_weights(options: Options, model: ModelFacts) -> int:
    return (options.get("adapter_rank") or 0) * model.linear_sides


def _ordered(low: float, high: float) -> Range:
    return Range(min(low, high), max(low, high))


def _by_past(said: Range, ratios: list[float]) -> Range:
    """The range as past runs would have had it: from the least to the most that they took, a quarter more either way."""
    likely = said.likely * median(ratios)
    if len(ratios) >= ENOUGH_PAST:
        return Range(said.likely * min(ratios) / 1.25, said.likely * max(ratios) * 1.25)
    return Range(likely / 2, likely * 2)


# --- time ---------------------------------------------------------------------------------------
def _seconds(options: Options, model: ModelFacts, effort: Effort, machine: dict[str, Any], assumed: Assumed) -> float:
    on_gpu, speeds = bool(machine.get("gpus")), machine["flops"]
    in_half = "bfloat16" in speeds and (not effort.trains or options.get("bf16", True))
    peak = speeds["bfloat16" if in_half else "float32"]
    speed = peak * (assumed.share_on_gpu if on_gpu else assumed.share_of_peak)
    a_pass = model.layers * assumed.layer_seconds
    speed_of_all = speed * (options.get("world", 1) if on_gpu else 1)  # processes on processors share the cores
    computing = flops_of(effort, model) / speed_of_all + effort.batches * a_pass + effort.steps * assumed.step_seconds
    if options.get("quantised_base") == "4bit":
        computing *= 1.3
    loading = model.file_bytes * (1 + effort.models_beside) / READ_BYTES_A_SECOND[assumed is WELL]
    saving = _checkpoint_bytes(options, model, effort) / READ_BYTES_A_SECOND[assumed is WELL]
    saves = effort.steps / options["save_steps"] if effort.trains and options.get("save_steps") else 0
    return assumed.start_seconds + computing + _writing(model, effort, machine, speed, a_pass) + loading + saving * (1 + saves)


def _writing(model: ModelFacts, effort: Effort, machine: dict[str, Any], speed: float, a_pass: float) -> float:
    """Each step reads all weights, or computes for all completions, whichever is slower."""
    reading = (model.n_active + model.vocabulary * model.hidden) * _bytes_a_weight(machine) / machine["copied_bytes_a_second"]
    a_token = 2.0 * (model.n_active + model.vocabulary * model.hidden)
    return sum(steps * (max(reading, at_once * a_token / speed) + a_pass) for steps, at_once in effort.written)


def _bytes_a_weight(machine: dict[str, Any]) -> int:
    return 2 if machine.get("bf16") else 4


# --- memory -------------------------------------------------------------------------------------
def _device_bytes(
    kind: str, options: Options, model: ModelFacts, effort: Effort, machine: dict[str, Any], assumed: Assumed
) -> float:
    """Of one GPU, or of all processes of the machine; `is_sharded`: each process holds a part of the weights."""
    on_gpu = bool(machine.get("gpus"))
    is_whole = effort.trains and not options.get("adapter_rank")
    a_weight = 4.0 if is_whole else float(_bytes_a_weight(machine))
    if kind == "merge":
        a_weight = 4.0
    if options.get("quantised_base") == "4bit":
        a_weight = 0.6
    weights = model.n_parameters * a_weight * (1 + effort.models_beside)
    trained = 0.0
    if effort.trains:
        n_trained = model.n_parameters if is_whole else adapter_weights(options, model)
        trained = n_trained * (12.0 if is_whole else 16.0)  # gradients, two moments; an adapter's own weights
    here = options.get("processes_here", 1)
    shared = here if options.get("is_sharded") else 1
    return (1 if on_gpu else here) * (
        (GPU_CONTEXT_BYTES[assumed is WELL] if on_gpu else assumed.process_bytes)
        + (weights + trained) / shared
        + _activation_bytes(options, model, effort, machine, assumed)
        + effort.cached_tokens * model.layers * 2 * model.hidden / model.heads * model.key_value_heads * _bytes_a_weight(machine)
    )


def _activation_bytes(options: Options, model: ModelFacts, effort: Effort, machine: dict[str, Any], assumed: Assumed) -> float:
    """What a backward pass needs of the forward: of all layers, or with checkpointing their inputs and one layer."""
    by_hidden, by_intermediate = assumed.activations
    a_layer = (by_hidden * model.hidden + by_intermediate * model.intermediate) * _bytes_a_weight(machine)
    if not effort.trains:
        layers = a_layer
    elif options.get("gradient_checkpointing"):
        layers = a_layer + model.layers * model.hidden * _bytes_a_weight(machine)
    else:
        layers = a_layer * model.layers
    return effort.batch_tokens * layers + effort.scored_tokens * model.vocabulary * 4.0 * assumed.logits


# --- disk ---------------------------------------------------------------------------------------
def _checkpoint_bytes(options: Options, model: ModelFacts, effort: Effort) -> float:
    """Weights and two moments of each that is trained."""
    if not effort.trains:
        return 0.0
    return 12.0 * (adapter_weights(options, model) if options.get("adapter_rank") else model.n_parameters)


def _disk(kind: str, options: Options, model: ModelFacts, effort: Effort) -> Range:
    """Checkpoints, one more while the newest is written, and what is made: in the run's folder and in the registry."""
    checkpoint = _checkpoint_bytes(options, model, effort)
    made = checkpoint / 3
    if kind == "merge":
        made = model.n_parameters * (4.0 if options.get("dtype") == "float32" else model.file_bytes / model.n_parameters)
    elif kind == "gguf":
        made = model.n_parameters * 2.0  # sixteen bits at most
    kept = KEPT_CHECKPOINTS * checkpoint + 2 * made
    return Range(kept + 1e5, 1.3 * (kept + checkpoint) + 5e7)
