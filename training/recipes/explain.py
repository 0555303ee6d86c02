"""Why a reward model rewards one completion, or one more than another: `sampling/explaining.py` says how.

`dataset/completions.jsonl` holds one or two rows `{"prompt", "completion"}`; of two the prompt is the same. Each leaves an
event `explanation` with its `number` (from 0), pieces and sentences; a run that was killed begins anew, and the last event of
a number counts.

Run: python -m training.recipes.explain --config runs/42/spec.yaml --run_dir runs/42
"""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
from training.recipes._runlog import RunLog, launch
from training.sampling.attribution import STEPS
from training.sampling.explaining import BASELINES, Explainer
from training.sampling.reward_models import HEAD, inspect_reward_model

KIND = "explain"


@dataclass
class ExplainArguments:
    """Arguments of explaining."""

    run_dir: Path = field(metadata={"help": "run folder: dataset/completions.jsonl in, events and result.json out"})
    model: str = field(metadata={"help": "the reward model's folder"})
    base: str | None = field(default=None, metadata={"help": "where its base model is now, if it has moved"})
    baseline: str = field(
        default="average", metadata={"help": f"what a token is compared with: {' or '.join(BASELINES)} token embedding"}
    )
    max_path_steps: int = field(default=STEPS[-1], metadata={"help": "points on the path of integrated gradients, at most"})

    def __post_init__(self) -> None:
        if self.baseline not in BASELINES:
            raise ValueError(f"baseline is {self.baseline!r}, it must be one of {', '.join(BASELINES)}")
        if self.max_path_steps < 1:
            raise ValueError(f"max_path_steps is {self.max_path_steps}, it must be 1 or more")


def read_completions(path: Path) -> list[dict[str, Any]]:
    """The one or two rows. Raises ValueError, naming the file, for what can't be explained."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    if len(rows) not in (1, 2):
        raise ValueError(f"{path} holds {len(rows)} completions: one is explained, or two beside each other")
    if rows[0]["prompt"] != rows[-1]["prompt"]:
        raise ValueError(f"{path}: the two completions answer different prompts, so their rewards can't be compared")
    return rows


def path_steps(at_most: int) -> list[int]:
    """The numbers of points to try in turn."""
    return [*(steps for steps in STEPS if steps < at_most), at_most]


def main(args: ExplainArguments) -> None:
    """Explain the completions one by one, then their difference."""
    run_log = RunLog(args.run_dir, kind=KIND)
    rows = read_completions(args.run_dir / "dataset" / "completions.jsonl")
    files = inspect_reward_model(args.model, base=args.base)
    explainer = Explainer(files, baseline=args.baseline, steps=path_steps(args.max_path_steps))
    run_log.status("explaining", model_kind=files.kind)
    found = []
    for number, row in enumerate(rows):
        run_log.progress(number, len(rows), "completions")
        explanation = explainer.explain(row["prompt"], row["completion"], on_step=run_log.raise_if_stopped)
        run_log.event("explanation", number=number, **explanation.as_dict())
        found.append(explanation)
    metrics = {f"reward/{number}": explanation.reward for number, explanation in enumerate(found)}
    difference = None
    if len(found) == 2:
        value, deviation = explainer.difference(rows[0]["prompt"], *(row["completion"] for row in rows))
        difference = {"value": value, "deviation": deviation}
        metrics["reward/difference"] = value
    run_log.progress(len(rows), len(rows), "completions")
    run_log.metrics(metrics)
    run_log.finish(
        metrics=metrics,
        arguments={name: value for name, value in asdict(args).items() if name != "run_dir"},
        method=found[0].method,
        difference=difference,
        is_complete=all(explanation.is_complete for explanation in found),
        base_model={"path": files.base, "reward_model": args.model, "kind": files.kind},
        layer=explainer.model.head.config["layer"] if files.kind == HEAD else None,
    )


if __name__ == "__main__":
    sys.exit(launch(KIND, main, (ExplainArguments,)))
