"""The run folder: all that the web and a recipe know of each other.

In: `spec.yaml`, `dataset/`. Out: `events.jsonl`, `model/` or `completions.jsonl`, `result.json`.
"""

import json
import os
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import orjson
import yaml
from django.conf import settings
from django.db.models import Q, QuerySet

from labeling.annotation.selectors import prompts_for_data
from labeling.preferences.views_of_snapshots import rows_in, rows_to_train_on
from labeling.projects.models import Project, Prompt
from labeling.projects.text import split_of
from training.endpoints.models import Endpoint
from training.endpoints.services import reach, recipe_options
from training.registry.models import ModelVersion
from training.registry.services import folder_of
from training.runs.catalogue import KINDS, defaults, view_of
from training.runs.explaining import rows_to_explain
from training.runs.learnable import PREFERENCE
from training.runs.models import Run
from training.runs.options import RUN_DEFAULTS
from training.runs.parts import PARTS
from training.runs.reported import REPORTED, rows_by_axis, rows_to_report_on
from training.runs.rewards import rewards_of


def run_folder(run: Run) -> Path:
    return Path(settings.RUNS) / str(run.pk)


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


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


def prompts_to_train_on(project: Project, inputs: dict[str, Any], split: str = "train") -> Iterator[Prompt]:
    """Of the prompts that a sample run would answer those of one split: by group, as in the project's snapshots."""
    for prompt in prompts_to_sample(project, inputs).iterator():
        if split_of(prompt.group_id, project.eval_share) == split:
            yield prompt


def count_prompts_to_train_on(project: Project, inputs: dict[str, Any], at_most: int, split: str = "train") -> int:
    """How many there are, counted no further than `at_most`."""
    groups = prompts_to_sample(project, inputs).values_list("group_id", flat=True).iterator()
    in_split = (group for group in groups if split_of(group, project.eval_share) == split)
    return sum(1 for _ in islice(in_split, at_most))


def served(run: Run) -> tuple[dict[str, Any], dict[str, str]]:
    """(options, environment) of a recipe whose model is asked at an endpoint, both empty where it is loaded here.

    The server's key goes by the environment alone. Raises Unreachable.
    """
    if not (endpoint_id := run.inputs.get("endpoint")):
        return {}, {}
    endpoint = Endpoint.objects.get(pk=endpoint_id)
    place = reach(endpoint)
    return {"model": run.model.key, **recipe_options(endpoint, place)}, {"PREFLOOP_ENDPOINT_KEY": place.key}


def write_inputs(run: Run, at_endpoint: dict[str, Any] | None = None) -> Path:
    """Write `spec.yaml` and `dataset/`; a run that is resumed keeps the dataset it has.

    `at_endpoint` are the options that `served` gave; they take the place of the model's folder.
    """
    folder = run_folder(run)
    dataset = folder / "dataset"
    dataset.mkdir(parents=True, exist_ok=True)
    (folder / "stop").unlink(missing_ok=True)
    known = KINDS[run.kind]
    part = PARTS.get(run.kind)
    options = {name: value for name, value in run.spec.items() if name not in RUN_DEFAULTS}
    usual = {**defaults(run.kind), **(part.options(run) if part else {})}
    spec = {**usual, **options, **(at_endpoint or _models(run.model))}
    if run.other_model:
        names = {"model": known.other_model, "adapter": f"{known.other_model}_adapter"}
        spec |= {names[name]: path for name, path in _models(run.other_model).items()}
    if run.inputs.get("rewards"):
        spec |= rewards_of(run)
    if KINDS[run.kind].explains and run.model.base:
        spec = {**spec, "model": str(folder_of(run.model)), "base": str(folder_of(run.model.base))}
        spec.pop("adapter", None)
    if run.kind == "gguf":  # the file says what it is
        spec |= {"name": run.model.key, "licence": run.model.terms_of.licence or run.model.licence}
    if run.kind == "reward_head":
        spec["cache"] = str(Path(settings.HOME) / "cache" / "embeddings.sqlite3")
        (Path(settings.HOME) / "cache").mkdir(exist_ok=True)
    _write(folder / "spec.yaml", yaml.safe_dump(spec, sort_keys=False).encode())
    if (dataset / "manifest.json").exists():
        return folder
    if run.snapshot:
        view = view_of(run.kind, run.spec)
        reported = _split_to_report_on(run)
        for split in ("train", "eval") if known.needs_snapshot else ("eval",):
            rows = rows_to_report_on(run.snapshot, split) if split == reported else rows_to_train_on(run.snapshot, view, split)
            if axes := run.spec.get("axes"):
                ranked = (row | {"axis": PREFERENCE} for row in rows) if PREFERENCE in axes else ()
                rows = chain(ranked, rows_by_axis(run.snapshot, split, axes))
            _write_rows(dataset / f"{split}.jsonl", rows)
        manifest = {**run.snapshot.manifest, "snapshot": str(run.snapshot), "view": view}
    if known.prompt_splits:
        # The first split in prompts.jsonl, what is held out of it beside.
        counts = {
            split: _write_rows(dataset / name, map(_prompt_row, prompts_to_train_on(run.project, run.inputs, split)))
            for split, name in zip(known.prompt_splits, ("prompts.jsonl", "eval_prompts.jsonl"), strict=False)
        }
        manifest = {
            **(manifest if run.snapshot else {}),
            "project": run.project.slug,
            "inputs": run.inputs,
            "eval_share": run.project.eval_share,
            "n_prompts": counts,
        }
    elif part and part.rows:
        _write_rows(dataset / "completions.jsonl", part.rows(run))
        manifest = {"project": run.project.slug, "inputs": run.inputs}
    elif known.explains:
        _write_rows(dataset / "completions.jsonl", rows_to_explain(run))
        manifest = {"project": run.project.slug}
    elif not known.needs_prompts:
        manifest = {"project": run.project.slug}
    elif not run.snapshot:
        prompts = prompts_to_sample(run.project, run.inputs)
        _write_rows(
            dataset / "prompts.jsonl",
            ({"prompt_id": str(prompt.pk), "prompt": prompt.messages} for prompt in prompts.iterator()),
        )
        manifest = {"project": run.project.slug, "inputs": run.inputs}
    _write(dataset / "manifest.json", json.dumps(manifest, ensure_ascii=False, sort_keys=True).encode())
    return folder


def _split_to_report_on(run: Run) -> str | None:
    """Of a reward model the pairs held out, or those trained on, where there are none and it is cross-validated.

    Of DPO those trained on, where their labels are smoothed by how far people agreed.
    """
    if run.kind == "dpo" and run.spec.get("smoothing_from") == "agreement":
        return "train"
    if run.kind not in REPORTED or run.snapshot is None:
        return None
    return "eval" if rows_in(run.snapshot, "preference", "eval") else "train"


def _models(model: ModelVersion) -> dict[str, str]:
    """The recipe's `model`, and `adapter` where the model is one on a base."""
    if model.is_adapter:
        return {"model": str(folder_of(model.base)), "adapter": str(folder_of(model))}
    return {"model": str(folder_of(model))}


def _prompt_row(prompt: Prompt) -> dict[str, Any]:
    return {"prompt_id": str(prompt.pk), "prompt": prompt.messages, "group_id": prompt.group_id}


def _write_rows(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    """Returns how many there were."""
    count = 0
    with open(path, "wb") as file:
        for row in rows:
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            count += 1
    return count


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    temporary = path.with_suffix(path.suffix + ".new")
    temporary.write_bytes(content)
    os.replace(temporary, path)
