"""The run folder: all that the web and a recipe know of each other.

In: `spec.yaml`, `dataset/`. Out: `events.jsonl`, `model/` or `completions.jsonl`, `result.json`.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import yaml
from django.conf import settings
from django.db.models import Q, QuerySet

from labeling.annotation.selectors import prompts_for_data
from labeling.preferences.views_of_snapshots import preference_rows
from labeling.projects.models import Project, Prompt
from training.registry.models import ModelVersion
from training.registry.services import folder_of
from training.runs.catalogue import defaults
from training.runs.models import Run


def run_folder(run: Run) -> Path:
    return Path(settings.RUNS) / str(run.pk)


def prompts_to_sample(project: Project, inputs: dict[str, Any]) -> QuerySet[Prompt]:
    """Prompts that a sample run answers: those named, else those with one of the tags, else all.

    Never those written for gold tasks alone, even if they are named.
    """
    prompts = prompts_for_data(project).order_by("pk")
    if ids := inputs.get("prompt_ids"):
        return prompts.filter(pk__in=ids)
    if tags := inputs.get("tags"):
        # JSON arrays have no portable "contains": tags are short, so compare their text, quoted.
        wanted = Q()
        for tag in tags:
            wanted |= Q(tags__icontains=json.dumps(tag, ensure_ascii=False))
        return prompts.filter(wanted)
    return prompts


def write_inputs(run: Run) -> Path:
    """Write `spec.yaml` and `dataset/`; a run that is resumed keeps the dataset it has."""
    folder = run_folder(run)
    dataset = folder / "dataset"
    dataset.mkdir(parents=True, exist_ok=True)
    (folder / "stop").unlink(missing_ok=True)
    spec = {**defaults(run.kind), **run.spec, **_models(run.model)}
    if run.kind == "reward_head":
        spec["cache"] = str(Path(settings.HOME) / "cache" / "embeddings.sqlite3")
        (Path(settings.HOME) / "cache").mkdir(exist_ok=True)
    _write(folder / "spec.yaml", yaml.safe_dump(spec, sort_keys=False).encode())
    if (dataset / "manifest.json").exists():
        return folder
    if run.snapshot:
        for split in ("train", "eval"):
            _write_rows(dataset / f"{split}.jsonl", preference_rows(run.snapshot, split))
        manifest = {**run.snapshot.manifest, "snapshot": str(run.snapshot)}
    else:
        prompts = prompts_to_sample(run.project, run.inputs)
        _write_rows(
            dataset / "prompts.jsonl",
            ({"prompt_id": str(prompt.pk), "prompt": prompt.messages} for prompt in prompts.iterator()),
        )
        manifest = {"project": run.project.slug, "inputs": run.inputs}
    _write(dataset / "manifest.json", json.dumps(manifest, ensure_ascii=False, sort_keys=True).encode())
    return folder


def _models(model: ModelVersion) -> dict[str, str]:
    """The recipe's `model`, and `adapter` where the model is one on a base."""
    if model.is_adapter:
        return {"model": str(folder_of(model.base)), "adapter": str(folder_of(model))}
    return {"model": str(folder_of(model))}


def _write_rows(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with open(path, "wb") as file:
        for row in rows:
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    temporary = path.with_suffix(path.suffix + ".new")
    temporary.write_bytes(content)
    os.replace(temporary, path)
