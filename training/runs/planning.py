"""What a run would take and what keeps it from starting, told before anything is queued."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.utils.timezone import now

from labeling.preferences.models import Snapshot
from labeling.projects.models import Project
from training.endpoints.models import Endpoint
from training.registry.models import ModelVersion
from training.registry.services import folder_of
from training.runs.catalogue import KINDS, defaults
from training.runs.efforts import Data, n_fitting
from training.runs.estimates import Estimate, Past, Range, estimate, least_bytes, memory_of
from training.runs.launchers import ONE, processes_here, processes_of, shards
from training.runs.machines import machines_there
from training.runs.models import Machine, Run
from training.runs.parts import PARTS
from training.runs.reading import Read, kept, read_for
from training.sampling.fitness import too_large, why_adapter_unfit, why_unfit
from training.sampling.model_facts import ModelFacts, read_facts, stamp_of
from training.sampling.model_files import ModelFilesError

MAX_MACHINES = 10
MAX_PAST = 20
# What becomes of rows longer than the longest that a run takes.
TOO_LONG = {"dpo": "lose their end", "reward_head": "lose the start of their prompt"}
LONGEST_BY_DEFAULT = {"reward_head": 1024, "reward": 512, "evaluate": 1024}


@dataclass(frozen=True)
class Plan:
    """`estimate` as pages, REST and the run's row have it; `wrong` by field. `facts` of the model, where its files are here."""

    estimate: dict[str, Any] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    facts: ModelFacts | None = None
    machine: Machine | None = None
    data: Data = field(default_factory=Data)


def whole_of(model: ModelVersion) -> ModelVersion:
    """The model whose weights are computed with: of an adapter its base, of a reward head the model it was fitted on."""
    return model.base if model.base is not None and (model.is_adapter or model.kind == ModelVersion.Kind.REWARD) else model


def facts_of(model: ModelVersion) -> ModelFacts | None:
    """None where its files are not on this machine, or can't be read."""
    folder = folder_of(whole_of(model))
    if not (stamp := stamp_of(folder)):
        return None

    def read() -> dict[str, Any]:
        try:
            return read_facts(folder).as_dict()
        except (ModelFilesError, OSError):
            return {}

    found = kept("model-facts", [str(folder), stamp], read)
    return ModelFacts(**found) if found else None


def why_model_unfit(model: ModelVersion, *, converses: bool = True) -> str:
    """What keeps any run from working with the model; empty: nothing that can be read from here."""
    if not model.folder:
        return ""
    reasons = []
    if model.is_adapter and (stamp := stamp_of(folder_of(model))):
        reasons.append(kept("unfit-adapter", [model.folder, stamp], lambda: why_adapter_unfit(folder_of(model))))
    folder = folder_of(whole_of(model))
    if whole_of(model).folder and (stamp := stamp_of(folder)):
        reasons.append(kept("unfit-model", [str(folder), stamp, converses], lambda: why_unfit(folder, converses=converses)))
    reason = next(filter(None, reasons), "")
    return f"{model.key} can't be used: {reason}" if reason else ""


def plan_run(
    *,
    project: Project,
    kind: str,
    spec: dict[str, Any],
    snapshot: Snapshot | None,
    model: ModelVersion,
    other: ModelVersion | None = None,
    inputs: dict[str, Any] | None = None,
    reward_models: Sequence[ModelVersion] = (),
) -> Plan:
    """What a run with these options would take, which `check_run` found right, and what forbids it."""
    inputs = inputs or {}
    options = options_of(kind, spec, other=other, model=model, reward_models=reward_models)
    if part := PARTS.get(kind):
        given = part.options(Run(project=project, kind=kind, spec=spec, snapshot=snapshot, model=model, inputs=inputs))
        options |= {name: value for name, value in given.items() if name not in spec}
    facts = facts_of(model)
    folder = folder_of(whole_of(model)) if facts else None
    try:
        read = read_for(project=project, kind=kind, options=options, snapshot=snapshot, inputs=inputs, folder=folder)
    except FileNotFoundError:  # the check of the snapshot has said so
        return Plan(facts=facts)
    if endpoint_id := inputs.get("endpoint"):
        return Plan(estimate=_at_endpoint(Endpoint.objects.filter(pk=endpoint_id).first(), options, read), facts=facts)
    longest = longest_of(kind, options, facts)
    notes, wrong = _notes_on_rows(kind, options, read, longest, facts), {}
    if facts is None:
        notes.append(f"The files of {whole_of(model).key} are not on this machine: what the run will take is not known.")
        return Plan(estimate={"notes": notes}, wrong=_nothing_fits(kind, read, longest))
    machines = list(machines_there()[:MAX_MACHINES])
    wrong |= _nothing_fits(kind, read, longest)
    if kind == "reward_head" and options["layer"] > facts.layers:
        wrong["spec.layer"] = f"is {options['layer']}, and {whole_of(model).key} has {facts.layers} layers"
    wrong |= _without_gpu(options, machines) or _too_large(kind, options, facts, read, machines, model)
    # A reader of long rows computes with the rest: what is left out is counted in `longest`.
    options |= {"max_length": longest} if longest and "max_length" in options else {}
    estimates = [
        (machine, _estimated(kind, options, facts, read, machine)) for machine in machines if _fits(kind, options, facts, read, machine)
    ]
    machine, found = min(estimates, key=lambda each: each[1].seconds.likely) if estimates else (
        machines[0] if machines else None, _estimated(kind, options, facts, read, machines[0] if machines else None)
    )  # fmt: skip
    if machine is None:
        notes.append("No worker that executes runs was seen for a day: start one to be told the time.")
    elif len(machines) > 1:
        notes.append(f"For {machine.name}, the quickest of {len(machines)} machines; whichever is free first takes the run.")
    return Plan(estimate=_shown(found, read, machine, notes), wrong=wrong, facts=facts, machine=machine, data=read.data)


def options_of(
    kind: str, spec: dict[str, Any], *, model: ModelVersion, other: ModelVersion | None = None, reward_models: Sequence[ModelVersion] = ()
) -> dict[str, Any]:
    """The recipe's defaults, what differs from them, and what of other models an effort is counted by."""
    others = [reward for reward in reward_models if reward.kind == ModelVersion.Kind.REWARD]
    is_beside = other is not None and whole_of(other) != whole_of(model)
    fixed = {"reward_models": len(others), "other_model": is_beside, "other_model_is_whole": is_beside}
    if kind == "evaluate":
        fixed["other_model"] = other is not None
    fixed |= {"world": processes_of(spec), "processes_here": processes_here(spec), "is_sharded": shards(spec.get("launcher", ONE))}
    longest = {"max_length": LONGEST_BY_DEFAULT[kind]} if kind in LONGEST_BY_DEFAULT else {}
    rank = {"adapter_rank": 16} if kind == "reward" else {}
    return {**longest, **rank, **defaults(kind), **spec, **fixed}


def longest_of(kind: str, options: dict[str, Any], facts: ModelFacts | None) -> int | None:
    """Tokens of the longest row that a run takes; None: it takes them all."""
    positions = facts.positions if facts else None
    if KINDS[kind].needs_snapshot:
        limits = [options.get("max_length"), positions]
    elif "max_prompt_length" in options:
        new = options.get("max_completion_length") or options.get("max_new_tokens") or 0
        limits = [options["max_prompt_length"], positions - new if positions else None]
    elif kind == "sample":
        limits = [positions - options["max_new_tokens"] if positions else None]
    else:
        limits = []
    return min((limit for limit in limits if limit), default=None)


# --- what is wrong, and what is worth knowing ---------------------------------------------------
def _nothing_fits(kind: str, read: Read, longest: int | None) -> dict[str, str]:
    """Refused only where each row was counted by the model's own tokenizer."""
    option = "max_length" if KINDS[kind].needs_snapshot else "max_prompt_length"
    is_known = read.is_whole and not read.data.lengths.uncertainty and read.longest and not read.n_refused
    if longest is None or not is_known or option not in KINDS[kind].options or kind in TOO_LONG or min(read.longest) <= longest:
        return {}
    return {
        f"spec.{option}": f"leaves nothing: each of the {len(read.longest):,} rows has more than {longest:,} tokens for this model, "
        f"the shortest {min(read.longest):,}"
    }


def _notes_on_rows(kind: str, options: dict[str, Any], read: Read, longest: int | None, facts: ModelFacts | None) -> list[str]:
    notes = []
    n, n_long = n_too_long(read, longest), read.data.n_train
    if n:
        about = "" if read.is_whole and not read.data.lengths.uncertainty else "about "
        rows = "row has" if n == 1 else "rows have"
        notes.append(
            f"{about}{n:,} of {n_long:,} {rows} more than {longest:,} tokens, and {TOO_LONG.get(kind, 'are left out and counted')}."
            .capitalize()
        )  # fmt: skip
    wanted = options.get("max_length")
    if facts and facts.positions and wanted and wanted > facts.positions and KINDS[kind].needs_snapshot:
        notes.append(f"The model takes {facts.positions:,} tokens: max_length {wanted:,} is more than it was made for.")
    if read.n_refused:
        notes.append(
            f"The model's chat template refuses {read.n_refused:,} of {read.n_sampled:,} rows that were tried, such as those with a "
            "system message: the run would fail at them."
        )
    if read.data.lengths.uncertainty and facts:
        notes.append("Tokens are guessed from characters: no tokenizer could be asked here.")
    return notes


def n_too_long(read: Read, longest: int | None) -> int:
    """Rows that are longer than a run takes, of all, by their share in what was counted."""
    counted = len(read.longest)
    if longest is None or not counted:
        return 0
    n_long = counted - n_fitting(counted, read.longest, longest)
    return n_long if read.is_whole else round(read.data.n_train * n_long / counted)


def _without_gpu(options: dict[str, Any], machines: list[Machine]) -> dict[str, str]:
    if options.get("quantised_base") != "4bit" or not machines or any(machine.facts.get("gpus") for machine in machines):
        return {}
    return {"spec.quantised_base": "is 4bit, which needs an NVIDIA GPU, and no machine that executes runs has one: set it to no"}


def _fits(kind: str, options: dict[str, Any], facts: ModelFacts, read: Read, machine: Machine) -> bool:
    needed = least_bytes(kind, options=options, model=facts, data=read.data, machine=machine.facts)
    return needed <= memory_of(machine.facts) and (bool(machine.facts.get("gpus")) or options.get("quantised_base") != "4bit")


def _too_large(
    kind: str, options: dict[str, Any], facts: ModelFacts, read: Read, machines: list[Machine], model: ModelVersion
) -> dict[str, str]:
    """Refused where even the least that it can need is more than any machine has."""
    if not machines or any(_fits(kind, options, facts, read, machine) for machine in machines):
        return {}
    largest = max(machines, key=lambda machine: memory_of(machine.facts))
    needed = least_bytes(kind, options=options, model=facts, data=read.data, machine=largest.facts)
    # Would it fit with the smallest batch? Then the options are at fault, not the model.
    small = {name: 1 for name in ("per_device_train_batch_size", "batch_size", "generation_batch_size", "eval_batch_size") if name in options}
    smallest = options | small | ({"gradient_checkpointing": True} if "gradient_checkpointing" in KINDS[kind].options else {})
    least = least_bytes(kind, options=smallest, model=facts, data=read.data, machine=largest.facts)
    batch = next((name for name in ("per_device_train_batch_size", "batch_size") if name in options), "")
    if batch and least <= memory_of(largest.facts):
        return {f"spec.{batch}": too_large(f"a batch of {options[batch]}", needed, memory_of(largest.facts), largest.name, is_batch=True)}
    is_trained_whole = "adapter_rank" in KINDS[kind].options and not options.get("adapter_rank")
    return {"model": too_large(model.key, needed, memory_of(largest.facts), largest.name, is_trained_whole=is_trained_whole)}


# --- figures ------------------------------------------------------------------------------------
def past_of(kind: str, machine: Machine) -> list[Past]:
    """The newest finished runs of the kind on the machine that took one attempt, with what had been said of each."""
    runs = Run.objects.filter(
        kind=kind, state=Run.State.DONE, attempts=1, owner__startswith=f"{machine.name}:", estimate__has_key="raw_seconds"
    ).order_by("-pk")[:MAX_PAST]
    return [
        Past(run.estimate["raw_seconds"] or 0, took_seconds(run) or 0, run.estimate.get("raw_bytes") or 0, took_bytes(run) or 0)
        for run in runs
        if run.estimate.get("machine") == machine.name
    ]


def took_seconds(run: Run) -> float | None:
    """Of a run that was finished at the first attempt; of others nobody knows how much was lost between."""
    if run.state != Run.State.DONE or run.attempts != 1 or run.started_at is None or run.finished_at is None:
        return None
    return (run.finished_at - run.started_at).total_seconds()


def took_bytes(run: Run) -> int | None:
    """The most memory it held, on its GPU where it had one; None of several processes, of which only the first tells."""
    if processes_of(run.spec) > 1:
        return None
    return run.result.get("peak_gpu_bytes") or run.result.get("peak_rss_bytes")


def _estimated(kind: str, options: dict[str, Any], facts: ModelFacts, read: Read, machine: Machine | None) -> Estimate:
    past = past_of(kind, machine) if machine else []
    return estimate(kind, options=options, model=facts, data=read.data, machine=machine.facts if machine else None, past=past)


def _shown(found: Estimate, read: Read, machine: Machine | None, notes: list[str]) -> dict[str, Any]:
    there = memory_of(machine.facts) if machine else None
    if there and found.memory.high > there:
        notes = [*notes, f"It may need more memory than the {there / 1e9:.0f} GB of {machine.name}: a smaller batch is safer."]
    free = shutil.disk_usage(settings.HOME).free
    if found.disk.high > free:
        notes = [*notes, f"The disk has {free / 1e9:.1f} GB free, and checkpoints may take {found.disk.high / 1e9:.1f} GB."]
    return {
        "machine": machine.name if machine else None,
        "steps": found.steps,
        "rows": found.rows,
        "tokens": found.tokens.as_dict(),
        "seconds": found.seconds.as_dict(1) if found.seconds else None,
        "memory_bytes": found.memory.as_dict(),
        "memory_of": "gpu" if machine and machine.facts.get("gpus") else "processor",
        "memory_there_bytes": there,
        "disk_bytes": found.disk.as_dict(),
        "cost": _cost(found.seconds),
        "n_past": found.n_past,
        "notes": notes,
        "raw_seconds": found.raw_seconds,
        "raw_bytes": found.raw_bytes,
        "at": now().isoformat(),
    }


def _cost(seconds: Range | None) -> dict[str, Any] | None:
    if not settings.PRICE_AN_HOUR or seconds is None:
        return None
    hours = Range(seconds.low / 3600, seconds.high / 3600)
    return {**Range(hours.low * settings.PRICE_AN_HOUR, hours.high * settings.PRICE_AN_HOUR).as_dict(2), "currency": settings.CURRENCY}


def _at_endpoint(endpoint: Endpoint | None, options: dict[str, Any], read: Read) -> dict[str, Any]:
    """What a server is asked for: its tokens and their price. How long it takes is its own affair."""
    if endpoint is None:
        return {}
    n = read.data.n_train * options["completions_per_prompt"]
    asked = sum(read.data.lengths.prompts) / max(1, len(read.data.lengths.prompts)) * n
    written = Range(n * options["max_new_tokens"] * 0.1, n * options["max_new_tokens"])
    low, high = (asked * endpoint.prompt_price / 1e6 + new * endpoint.new_price / 1e6 for new in (written.low, written.high))
    return {
        "endpoint": endpoint.name,
        "rows": read.data.n_train,
        "tokens": Range(asked + written.low, asked + written.high).as_dict(),
        "seconds": None,
        "cost": {**Range(low, high).as_dict(2), "currency": endpoint.currency} if endpoint.has_prices else None,
        "notes": [f"How long it takes is up to {endpoint.name}."],
    }
