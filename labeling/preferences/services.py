"""Freezing a preference dataset."""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from django.conf import settings
from django.db import transaction
from django.db.models import Max

from labeling.accounts.models import User
from labeling.annotation.models import Judgement, Task
from labeling.live.services import notify
from labeling.preferences.errors import BadFilter, NothingToFreeze
from labeling.preferences.models import Snapshot
from labeling.preferences.rows import (
    adjudications_chosen,
    is_correction,
    judgements_chosen,
    n_left_out_as_unfit,
    task_rows,
)
from labeling.preferences.supervised import sft_rows, unpaired_rows
from labeling.projects.models import Project

SPLITS = ("train", "eval")
WRITTEN = "written by annotators"  # where the manifest counts completions by model
DEFAULT_FILTERS: dict[str, Any] = {
    "iterations": [],  # empty: all
    "annotator_kinds": [],  # empty: all
    "purposes": [Task.Purpose.PREFERENCE.value],
    "up_to_judgement": None,  # set when frozen, so that the same filter on the same data stays the same
    "up_to_adjudication": None,  # as well
}
DEFAULT_POLICY: dict[str, Any] = {
    "ties": "drop",  # drop | keep
    "pairs": "all",  # all | extremes
    "margins": {},  # strength "1".."3" to margin
    "corrections": "include",  # include | leave_out: pairs of an edit over what it corrects, and edits in `sft`
    "adjudications": "use",  # use | ignore: a ranking that a reviewer settled decides, or the majority of the votes
}


def snapshots_folder() -> Path:
    return Path(settings.FILES) / "snapshots"


def complete_filters(filters: dict[str, Any] | None) -> dict[str, Any]:
    """Fill in defaults; raises BadFilter naming what is wrong."""
    filters = filters or {}
    wrong = {key: "is not a filter" for key in filters.keys() - DEFAULT_FILTERS.keys()}
    full = {**DEFAULT_FILTERS, **filters}
    if not isinstance(full["iterations"], list) or not all(type(item) is int for item in full["iterations"]):
        wrong["iterations"] = "must be a list of whole numbers"
    for key, known in (("annotator_kinds", User.Kind.values), ("purposes", [purpose.value for purpose in Task.COLLECTED])):
        if not isinstance(full[key], list) or not set(map(str, full[key])) <= set(known):
            wrong[key] = "must be a list from: " + ", ".join(known)
    for key in ("up_to_judgement", "up_to_adjudication"):
        if full[key] is not None and type(full[key]) is not int:
            wrong[key] = "must be a whole number"
    if wrong:
        raise BadFilter(wrong)
    return full


def complete_policy(policy: dict[str, Any] | None) -> dict[str, Any]:
    """Fill in defaults; raises BadFilter naming what is wrong."""
    policy = policy or {}
    wrong = {key: "is not part of a policy" for key in policy.keys() - DEFAULT_POLICY.keys()}
    full = {**DEFAULT_POLICY, **policy}
    if full["ties"] not in ("drop", "keep"):
        wrong["ties"] = "must be drop or keep"
    if full["pairs"] not in ("all", "extremes"):
        wrong["pairs"] = "must be all or extremes"
    if full["corrections"] not in ("include", "leave_out"):
        wrong["corrections"] = "must be include or leave_out"
    if full["adjudications"] not in ("use", "ignore"):
        wrong["adjudications"] = "must be use or ignore"
    margins = full["margins"]
    if not isinstance(margins, dict) or not all(
        key in ("1", "2", "3") and isinstance(value, int | float) for key, value in margins.items()
    ):
        wrong["margins"] = 'must map strengths "1", "2", "3" to numbers'
    if wrong:
        raise BadFilter(wrong)
    return full


def create_snapshot(
    *,
    project: Project,
    created_by: User | None,
    name: str = "",
    filters: dict[str, Any] | None = None,
    policy: dict[str, Any] | None = None,
) -> Snapshot:
    """Freeze the judgements that pass the filters. The same rows again give the snapshot there is.

    Streams to files named by the SHA-256 of their canonical rows; memory stays constant.
    A project without rankings has no pairs, and is frozen for what else was said. Raises BadFilter, and NothingToFreeze
    where no judgement passes.
    """
    full_filters, full_policy = complete_filters(filters), complete_policy(policy)
    if full_filters["up_to_judgement"] is None:
        full_filters["up_to_judgement"] = project.judgements.aggregate(top=Max("pk"))["top"] or 0
    if full_filters["up_to_adjudication"] is None:
        full_filters["up_to_adjudication"] = project.adjudications.aggregate(top=Max("pk"))["top"] or 0
    root = snapshots_folder()
    root.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".freezing-", dir=root))
    try:
        manifest = _write_rows(project, full_filters, full_policy, work)
        if not manifest["n_judgements"]:
            n_all = project.judgements.count()
            raise NothingToFreeze(
                f"None of the {n_all:,} judgements passes these filters: loosen them"
                if n_all
                else "Nothing is judged yet: make tasks, and freeze when people have judged some of them"
            )
        digest = manifest["content_hash"]
        existing = Snapshot.objects.filter(project=project, content_hash=digest).first()
        if existing:
            return existing
        (work / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False))
        final = root / digest
        if not final.exists():
            os.replace(work, final)
        with transaction.atomic():
            Project.objects.select_for_update().get(pk=project.pk)  # numbers snapshots one at a time
            number = (project.snapshots.aggregate(top=Max("number"))["top"] or 0) + 1
            snapshot = Snapshot.objects.create(
                project=project, number=number, name=name, content_hash=digest, filters=full_filters,
                policy=full_policy, manifest=manifest, n_judgements=manifest["n_judgements"],
                n_pairs=manifest["n_pairs"], created_by=created_by,
            )  # fmt: skip
            notify(project.live_group, "snapshot", number=number)
        return snapshot
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write_rows(project: Project, filters: dict[str, Any], policy: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write votes and pairs of each split, and return the manifest."""
    files: dict[str, BinaryIO] = {}
    digests = {f"{kind}.{split}.jsonl": hashlib.sha256() for kind in ("votes", "pairs") for split in SPLITS}
    counts = dict.fromkeys(digests, 0)
    kinds: dict[str, int] = {}
    sources: dict[str, int] = {}
    models: dict[str, int] = {}
    groups: dict[str, set[str]] = {split: set() for split in SPLITS}
    said = dict.fromkeys(("rankings", "corrections", "demonstrations", "acceptable", "ratings", "marks"), 0)
    views = {f"{view}.{split}": 0 for view in ("sft", "unpaired") for split in SPLITS}
    n_correction_pairs = n_adjudicated_pairs = n_adjudicated_tasks = 0
    includes = policy["corrections"] == "include"
    judgement_ids, adjudication_ids = hashlib.sha256(), hashlib.sha256()
    try:
        for name in digests:
            files[name] = open(folder / name, "wb")  # noqa: SIM115  (closed below)
        for task in task_rows(project, filters, policy):
            split = task.split
            for kind, rows in (("votes", task.votes), ("pairs", task.pairs)):
                name = f"{kind}.{split}.jsonl"
                for row in rows:
                    line = orjson.dumps(row, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
                    digests[name].update(line)
                    files[name].write(line)
                counts[name] += len(rows)
            groups[split].add(task.group_id)
            n_adjudicated_tasks += "adjudication" in task.votes[0]
            views[f"sft.{split}"] += len(sft_rows(task.votes, corrections=includes))
            views[f"unpaired.{split}"] += len(unpaired_rows(task.votes, corrections=includes))
            for row in task.votes:
                kinds[row["annotator_kind"]] = kinds.get(row["annotator_kind"], 0) + 1
                _count(said, row["judgement"])
            for row in task.pairs:
                n_correction_pairs += is_correction(row)
                n_adjudicated_pairs += "adjudication" in row
                sources[row["licence"] or "unknown"] = sources.get(row["licence"] or "unknown", 0) + 1
                for side in ("chosen_source", "rejected_source"):
                    model = row[side]["model"] or (WRITTEN if "author" in row[side] else "unknown")
                    models[model] = models.get(model, 0) + 1
    finally:
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
    chosen = judgements_chosen(project, filters, policy)
    for pk in chosen.order_by("pk").values_list("pk", flat=True).iterator():
        judgement_ids.update(b"%d\n" % pk)
    if n_adjudicated_tasks:
        of_tasks = adjudications_chosen(project, filters).filter(task__in=chosen.values("task"))
        for pk in of_tasks.order_by("pk").values_list("pk", flat=True).iterator():
            adjudication_ids.update(b"%d\n" % pk)
    file_hashes = {name: digest.hexdigest() for name, digest in digests.items()}
    whole = hashlib.sha256("".join(f"{name} {file_hashes[name]}\n" for name in sorted(file_hashes)).encode())
    return {
        "content_hash": whole.hexdigest(),
        "files": {name: {"sha256": file_hashes[name], "rows": counts[name]} for name in sorted(file_hashes)},
        "n_judgements": counts["votes.train.jsonl"] + counts["votes.eval.jsonl"],
        "n_pairs": counts["pairs.train.jsonl"] + counts["pairs.eval.jsonl"],
        "n_correction_pairs": n_correction_pairs,
        "n_adjudicated_tasks": n_adjudicated_tasks,
        "n_adjudicated_pairs": n_adjudicated_pairs,
        "n_unfit_tasks": n_left_out_as_unfit(project, filters, policy),
        **{f"n_{part}": n for part, n in said.items()},
        "views": views,
        "n_groups": {split: len(groups[split]) for split in SPLITS},
        "annotator_kinds": dict(sorted(kinds.items())),
        "pairs_by_licence": dict(sorted(sources.items())),
        "completions_by_model": dict(sorted(models.items())),
        "judgement_ids_sha256": judgement_ids.hexdigest(),
        "adjudication_ids_sha256": adjudication_ids.hexdigest(),
        "filters": filters,
        "policy": policy,
        "eval_share": project.eval_share,
        "project": project.slug,
        "guideline_versions": sorted(
            set(
                Judgement.objects.filter(pk__in=chosen.values("pk"))
                .exclude(guideline=None)
                .values_list("guideline__version", flat=True)
            )
        ),
        "code_version": settings.VERSION,
    }


def _count(said: dict[str, int], judgement: dict[str, Any]) -> None:
    """Add what one judgement holds: rankings and demonstrations, and the rest by completion, marks each."""
    said["rankings"] += "ranking" in judgement
    said["demonstrations"] += "demonstration" in judgement
    for part in ("corrections", "acceptable", "ratings"):
        said[part] += len(judgement.get(part, {}))
    said["marks"] += sum(map(len, judgement.get("marks", {}).values()))
