"""What an app above this one brings to runs of a kind: it knows of runs, and runs know nothing of it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from labeling.projects.models import Project
from training.registry.models import ModelVersion
from training.runs.models import Run

Checked = tuple[dict[str, Any], dict[str, str]]  # inputs as they are kept, and what is wrong with them


@dataclass(frozen=True)
class Part:
    """`options` go to the recipe before those of the run's own spec; `rows` become `dataset/completions.jsonl`, once.

    `check` reads the inputs before anything is queued. `ended` keeps what a run left, with its result or, where it was stopped
    or failed, without; it is called in the transaction that ends the run, and says in a line what came of it.
    """

    options: Callable[[Run], dict[str, Any]]
    check: Callable[[Project, ModelVersion | None, dict[str, Any]], Checked] | None = None
    rows: Callable[[Run], Iterable[dict[str, Any]]] | None = None
    ended: Callable[[Run, dict[str, Any] | None], str] | None = None


PARTS: dict[str, Part] = {}
