"""What a reward model that was just trained thinks of the pairs that people judged: where it is sure of the opposite."""

import json
from pathlib import Path
from typing import Any

from labeling.annotation.models import Task, TaskCompletion
from labeling.annotation.selectors import KEYS
from labeling.preferences.views_of_snapshots import compared_in
from labeling.quality.disagreement import SURE
from labeling.quality.services import Belief, record_contradictions
from training.registry.models import ModelVersion
from training.runs.models import Run

LEFT_IN = "beliefs.jsonl"


def beliefs_against(run: Run, folder: Path, result: dict[str, Any]) -> list[Belief] | None:
    """Of the pairs in the run's snapshot those whose order the model is sure is wrong, by task.

    None where nothing can be said: the recipe left no beliefs, or held-out labels don't bear out what it calls sure.
    Reads two files of the snapshot through; tasks that are gone are left out.
    """
    if run.snapshot is None or not (result.get("calibration") or {}).get("is_calibrated"):
        return None
    against: dict[str, float] = {}
    with open(folder / LEFT_IN, encoding="utf-8") as lines:
        for line in lines:
            belief = json.loads(line)
            if belief["probability"] <= 1 - SURE:
                against[belief["id"]] = belief["probability"]
    found: dict[str, list[tuple[str, str, float]]] = {}
    for id, task, chosen, rejected in compared_in(run.snapshot, against):
        found.setdefault(task, []).append((chosen, rejected, against[id]))
    tasks = dict(Task.objects.filter(project=run.project, public_id__in=found).values_list("public_id", "pk"))
    shown: dict[int, list[int]] = {}
    rows = TaskCompletion.objects.filter(task__in=tasks.values()).order_by("completion")
    for pk, completion in rows.values_list("task", "completion"):
        shown.setdefault(pk, []).append(completion)
    beliefs = []
    for public_id, pk in tasks.items():
        by_key = dict(zip(KEYS, shown[pk], strict=False))
        pairs = [(by_key[chosen], by_key[rejected], probability) for chosen, rejected, probability in found[public_id]]
        beliefs.append(Belief(pk, pairs))
    return beliefs


def bring_before_reviewers(run: Run, model: ModelVersion, beliefs: list[Belief]) -> int:
    """Let this model contradict people in the place of the project's earlier ones. How many tasks wait for it."""
    earlier = ModelVersion.objects.filter(project=run.project, kind=ModelVersion.Kind.REWARD).exclude(pk=model.pk)
    _recorded, waiting = record_contradictions(
        project=run.project, model_key=model.key, is_calibrated=True, beliefs=beliefs,
        replaces=list(earlier.values_list("key", flat=True)),
    )  # fmt: skip
    return waiting
