"""The table that the demo ends with: each figure with its count and 95 % interval."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from labeling.annotation.models import Judgement
from training.loop.models import Iteration
from training.loop.selectors import win_rate
from training.runs.models import Run

Figure = dict[str, Any]


@dataclass(frozen=True)
class Report:
    """What one turn of the demo's loop gave."""

    pairs: dict[str, int]
    judgements: dict[str, int]
    reward_accuracy: Figure
    reward_accuracy_cross_validated: Figure
    dpo_margin: Figure
    win_rate: Figure
    seconds: dict[str, float]
    policy_before: str
    policy_after: str

    def as_json(self) -> dict[str, Any]:
        return {**self.__dict__, "pairs": {"value": sum(self.pairs.values()), "low": None, "high": None, **self.pairs}}


def report_on(iteration: Iteration) -> Report:
    """Draw everything from the database: the demo keeps no figures of its own, so an interrupted one misses none."""
    snapshot = iteration.snapshot
    files = snapshot.manifest["files"]
    kinds = snapshot.manifest["annotator_kinds"]
    return Report(
        pairs={split: files[f"pairs.{split}.jsonl"]["rows"] for split in ("train", "eval")},
        judgements=kinds,
        reward_accuracy=figure(iteration.reward_model.metrics, "accuracy"),
        reward_accuracy_cross_validated=figure(iteration.reward_model.metrics, "cv_accuracy"),
        dpo_margin=figure(iteration.policy_after.metrics, "rewards/margins"),
        win_rate=win_rate(iteration, tag=iteration.config["heldout_tag"]),
        seconds=stage_seconds(iteration),
        policy_before=iteration.policy_before.key,
        policy_after=iteration.policy_after.key,
    )


def figure(metrics: dict[str, Any], name: str) -> Figure:
    return metrics.get(name) or {"value": None, "low": None, "high": None, "n": 0, "method": "not measured"}


def stage_seconds(iteration: Iteration) -> dict[str, float]:
    """Working time per stage: of runs from claim to end, of judging from the first judgement to the last."""
    seconds = {}
    for name, runs in (
        ("sample", [iteration.sample_run]),
        ("reward model", [iteration.reward_run]),
        ("DPO", [iteration.policy_run]),
        ("sample again", [iteration.baseline_run, iteration.resample_run]),
    ):
        seconds[name] = sum(_run_seconds(run) for run in runs if run)
    for name, purpose in (("judge", "preference"), ("compare", "evaluation")):
        times = Judgement.objects.filter(
            project=iteration.project_id, task__iteration=iteration.number, task__purpose=purpose,
            annotator_kind="simulated",
        ).order_by("pk").values_list("created_at", flat=True)  # fmt: skip
        first, last = times.first(), times.last()
        seconds[name] = (last - first).total_seconds() if first else 0.0
    entered = {entry["stage"]: datetime.fromisoformat(entry["at"]) for entry in iteration.stage_log}
    if "freezing" in entered and "reward" in entered:
        seconds["freeze"] = (entered["reward"] - entered["freezing"]).total_seconds()
    if "sampling" in entered and "comparing" in entered:
        seconds["whole loop"] = (entered["comparing"] - entered["sampling"]).total_seconds() + seconds["compare"]
    order = ("sample", "judge", "freeze", "reward model", "DPO", "sample again", "compare", "whole loop")
    return {name: round(seconds[name], 1) for name in order if name in seconds}


def _run_seconds(run: Run) -> float:
    if not (run.started_at and run.finished_at):
        return 0.0
    return (run.finished_at - run.started_at).total_seconds()
