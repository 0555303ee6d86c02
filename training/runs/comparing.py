"""Several runs side by side: their curves in one plot each, the options that differ, and what came out."""

from collections.abc import Sequence
from typing import Any

from training.runs.catalogue import KINDS, defaults
from training.runs.curves import metric_rows
from training.runs.models import Run

MOST_RUNS = 6  # as many colours as plots have
MOST_POINTS = 400  # of each run
# First what one looks at first; the rest by name.
FIRST = ("loss", "accuracy", "rewards/accuracies", "margin", "rewards/margins", "reward", "kl", "objective/kl", "entropy")
NOT_ALIKE = ("sample_every_steps", "sample_tokens")  # say nothing of what was learnt


def curves_of(runs: Sequence[Run]) -> dict[str, Any]:
    """Panels for the plots, `{"x", "panels"}`: one for each metric, a line for each run that logged it.

    What was measured on held-out data is dashed, in the run's colour. Two queries a run.
    """
    lines: dict[str, list[dict[str, Any]]] = {}
    for colour, run in enumerate(runs):
        found: dict[str, dict[int, float]] = {}
        for row in metric_rows(run, most=MOST_POINTS):  # a resumed run repeats steps: the last one counts
            for name, value in row["metrics"].items():
                found.setdefault(name, {})[row["step"]] = value
        for name, values in sorted(found.items()):
            is_eval = name.startswith("eval_")
            lines.setdefault(name.removeprefix("eval_"), []).append(
                {
                    "label": f"run {run.pk}, held out" if is_eval else f"run {run.pk}",
                    "points": sorted(values.items()), "colour": colour, "isEval": is_eval,
                }
            )  # fmt: skip
    ordered = sorted(lines, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
    panels = [
        {
            "key": name, "title": name, "unit": "", "kind": "line",
            "series": sorted(lines[name], key=lambda line: (line["colour"], line["isEval"])),
        }
        for name in ordered
    ]  # fmt: skip
    return {"x": {"unit": "step", "kind": "number"}, "panels": panels}


def differences(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What the runs were given and do not share: `{"name", "values"}`, a value for each run, None where it has no such option."""
    given = [_given(run) for run in runs]
    names = dict.fromkeys(name for one in given for name in one)
    rows = [{"name": name, "values": [one.get(name) for one in given]} for name in names]
    return [row for row in rows if any(value != row["values"][0] for value in row["values"])]


def _given(run: Run) -> dict[str, Any]:
    options = {**(defaults(run.kind) if run.kind in KINDS else {}), **run.spec}
    return {
        "kind": run.kind,
        "from": run.model.key if run.model else None,
        "teacher or reference": run.other_model.key if run.other_model else None,
        "snapshot": f"#{run.snapshot.number}" if run.snapshot else None,
        "code": run.result.get("code_version"),
        "libraries": ", ".join(f"{name} {version}" for name, version in (run.result.get("versions") or {}).items()) or None,
        **{name: value for name, value in options.items() if name not in NOT_ALIKE},
    }


def figures_beside(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """`{"name", "values"}` of every figure that a run ended with, None where one has it not."""
    found = [run.result.get("figures") or {} for run in runs]
    names = dict.fromkeys(name for figures in found for name, figure in figures.items() if isinstance(figure, dict))
    return [{"name": name, "values": [figures.get(name) for figures in found]} for name in names]


def share_of_data(runs: Sequence[Run]) -> str:
    """Whether figures of held-out data can be held against each other, in words; empty if they can."""
    ended = [run for run in runs if run.result.get("figures")]
    held_out = {
        (run.snapshot.content_hash if run.snapshot else None, dataset.get("n_eval"), dataset.get("prompts_hash"))
        for run in ended
        for dataset in [run.result.get("dataset") or {}]
    }
    if len(held_out) > 1:
        return "These runs did not evaluate on the same rows, so their held-out figures can't be held against each other."
    return ""
