"""Writing the rows of a snapshot into a folder: one pass over one state of the database, in constant memory."""

import gc
import hashlib
import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import orjson
from django.conf import settings

from labeling.annotation.models import Judgement
from labeling.database.reading import OneState, one_state
from labeling.preferences.chunks import Chosen, ReadTask, chunks_of, guideline_versions
from labeling.preferences.filters import Filters, Policy, left_out_by_figures, unfit_tasks
from labeling.preferences.pairing import Probabilities
from labeling.preferences.parts import utc
from labeling.preferences.rows import RowMaker, TaskLines
from labeling.projects.grouping import N_SLOTS, NEAR, SHINGLE_CHARS
from labeling.projects.models import Project
from labeling.projects.text import sha256
from labeling.quality.models import Adjudication, QualityReport
from labeling.quality.selectors import probabilities_by
from labeling.quality.services import figures_and_annotators
from labeling.quality.statistics import Rankings, Votes

SPLITS = ("train", "eval")
SAID = ("rankings", "corrections", "demonstrations", "acceptable", "ratings", "marks")
BUFFER_BYTES = 1 << 17
BATCH_IDS = 10_000
GROUPS = (
    "turns of one conversation, prompts alike but for case, digits and marks, and near-duplicates: MinHash of "
    f"{SHINGLE_CHARS}-character shingles of their openings, {N_SLOTS} slots, estimated Jaccard similarity from {NEAR:g}"
)
Manifest = dict[str, Any]
Report = Callable[[int, int], object]


def write_rows(
    project: Project, filters: Filters, policy: Policy, folder: Path, report: Report | None = None
) -> tuple[Filters, Manifest]:
    """Write votes and pairs of each split, and which judgements and prompts they are made of.

    Returns the filters with what they left to this moment filled in, and the manifest. The files are `votes.` and
    `pairs.` `train.jsonl` and `eval.jsonl`; `judgements.u64` and `prompts.u64`, sorted ids as little-endian 64-bit
    numbers; `annotators.json`, user id to number of judgements; `manifest.json`. `report` hears how many tasks are
    done, of how many.
    """
    left_out = _left_out(project, filters)
    if policy["votes"] == "consensus":
        figures_and_annotators(project)  # brings the model of a small project up to date
    with one_state(Judgement, Adjudication) as state:
        filters = _bounded(state, project, filters, left_out)
        chosen = Chosen(state, project, filters, policy)
        n_unfit = state.count(unfit_tasks(project, filters, policy))
        maker = RowMaker(project, filters, policy, guideline_versions(state, project))
        consensus = _Consensus(state, project) if policy["votes"] == "consensus" else None
        state.expect_few()
        with _Files(folder) as files, _few_collections():
            if report:
                report(0, len(chosen.tasks))
            for tasks in state.ahead(chunks_of(state, project, chosen, filters, policy)):
                probable = consensus.of(tasks) if consensus else {}
                for task in tasks:
                    files.add(task, maker.lines_of(task, probable.get(task.pk)))
                if report:
                    report(files.n_tasks, len(chosen.tasks))
    tally = maker.tally
    written = sorted(files.files.values(), key=lambda file: file.name)
    facts = {file.name: {"sha256": file.digest.hexdigest(), "rows": file.n_rows} for file in written}
    whole = "".join(f"{name} {found['sha256']}\n" for name, found in facts.items())
    counts = {name: found["rows"] for name, found in facts.items()}
    manifest = {
        "content_hash": sha256(whole),
        "files": facts,
        "n_judgements": counts["votes.train.jsonl"] + counts["votes.eval.jsonl"],
        "n_pairs": counts["pairs.train.jsonl"] + counts["pairs.eval.jsonl"],
        "n_correction_pairs": tally.n_correction_pairs,
        "n_adjudicated_tasks": tally.n_adjudicated_tasks,
        "n_adjudicated_pairs": tally.n_adjudicated_pairs,
        "n_unfit_tasks": n_unfit,
        **{f"n_{part}": tally.said[part] for part in SAID},
        "views": {f"{view}.{split}": tally.views[f"{view}.{split}"] for view in ("sft", "unpaired") for split in SPLITS},
        "n_groups": {split: len(set_of(files.groups[split])) for split in SPLITS},
        "annotator_kinds": dict(sorted(tally.annotator_kinds.items())),
        "pairs_by_licence": dict(sorted(tally.pairs_by_licence.items())),
        "completions_by_model": dict(sorted(tally.completions_by_model.items())),
        "judgement_ids_sha256": _digest_of_ids(numpy.sort(chosen.judgements)),
        "adjudication_ids_sha256": _digest_of_ids(set_of(files.adjudications)),
        "left_out_annotators": left_out,
        "groups": GROUPS,
        "consensus": consensus.facts if consensus else None,
        "filters": filters,
        "policy": policy,
        "eval_share": project.eval_share,
        "project": project.slug,
        "form": project.form,
        "guideline_versions": sorted(tally.guidelines),
        "code_version": settings.VERSION,
    }
    _write_ids(folder / "judgements.u64", numpy.sort(chosen.judgements))
    _write_ids(folder / "prompts.u64", set_of(files.prompts))
    people, n = numpy.unique(chosen.annotators, return_counts=True)
    _write_json(folder / "annotators.json", dict(zip(map(str, people.tolist()), n.tolist(), strict=True)))
    _write_json(folder / "manifest.json", manifest)
    return filters, manifest


def _left_out(project: Project, filters: Filters) -> list[dict[str, Any]]:
    """For the manifest: whom figures leave out, as they are now or as it was pinned."""
    if filters["left_out_annotators"] is None:
        return left_out_by_figures(project, filters)
    return [{"annotator": name, "by": "filters", "value": None, "n": None} for name in filters["left_out_annotators"]]


def _bounded(state: OneState, project: Project, filters: Filters, left_out: list[dict[str, Any]]) -> Filters:
    """With all that the filters leave to the moment filled in, so that the same filters give the same again."""
    full = {**filters, "left_out_annotators": sorted({row["annotator"] for row in left_out})}
    for name, model in (("up_to_judgement", Judgement), ("up_to_adjudication", Adjudication)):
        if full[name] is None:
            known = model.objects.filter(project=project, pk__lte=state.newest[model])
            newest = state.of(known.order_by("-pk").values_list("pk")[:1])
            full[name] = newest[0][0] if newest else 0
    return full


class _Consensus:
    """What is most probable of each pair, by the model of the project's newest report, from the chosen votes alone."""

    def __init__(self, state: OneState, project: Project) -> None:
        found = QualityReport.objects.filter(project=project).exclude(computed_at=None)
        rows = state.of(found.values_list("consensus", "computed_at", "up_to_judgement"))
        self.model: dict[str, Any] = {}
        self.facts: dict[str, Any] = {"computed_at": None, "up_to_judgement": 0}
        for model, computed_at, newest in rows:
            self.model = orjson.loads(model)
            self.facts = {"computed_at": utc(computed_at), "up_to_judgement": newest}

    def of(self, tasks: list[ReadTask]) -> dict[int, Probabilities]:
        """Task to its pairs' probabilities; what a reviewer settled has none."""
        by: dict[int, int] = {}
        rankings = Rankings.of(
            (number, by.setdefault(judgement[2], len(by)), orjson.loads(judgement[6]))
            for number, task in enumerate(tasks)
            if task.settled is None
            for judgement in task.judgements
            if judgement[6] != "[]"
        )
        votes = Votes.drawn_from(rankings)
        found: dict[int, dict[tuple[int, int], tuple[float, float, float]]] = {}
        if len(votes):
            pairs = zip(votes.task.tolist(), votes.first.tolist(), votes.second.tolist(), strict=True)
            for (number, first, second), known in zip(
                pairs, probabilities_by(self.model, votes, list(by)).tolist(), strict=True
            ):
                found.setdefault(tasks[number].pk, {})[first, second] = tuple(known)
        return found


@contextmanager
def _few_collections() -> Iterator[None]:
    """Rows hold no cycles, and looking for some in every few hundred of them takes a fifth of the time."""
    usual = gc.get_threshold()
    gc.set_threshold(100 * usual[0], *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


class _Files:
    """The files of rows with their hashes, and who and what is in them, as numbers."""

    def __init__(self, folder: Path) -> None:
        self.files = {
            (kind, split): _HashedFile(folder / f"{kind}.{split}.jsonl") for kind in ("votes", "pairs") for split in SPLITS
        }
        self.groups = {split: array("Q") for split in SPLITS}
        self.prompts, self.adjudications = array("Q"), array("Q")
        self.n_tasks = 0

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        try:
            if failed is None:
                for file in self.files.values():
                    file.finish()
        finally:
            for file in self.files.values():
                file.file.close()

    def add(self, task: ReadTask, lines: TaskLines) -> None:
        self.files["votes", lines.split].add(lines.votes)
        self.files["pairs", lines.split].add(lines.pairs)
        self.groups[lines.split].append(_number_of(task.group_id))
        self.prompts.append(task.prompt)
        self.n_tasks += 1
        if task.settled:
            self.adjudications.append(task.settled.pk)


class _HashedFile:
    """Lines go through a buffer that stays in the processor's caches until it is hashed and written."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.file = path.open("wb")
        self.digest = hashlib.sha256()
        self.n_rows = 0
        self.buffer = bytearray()

    def add(self, lines: list[bytes]) -> None:
        for line in lines:
            self.buffer += line
        self.n_rows += len(lines)
        if len(self.buffer) >= BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        self.digest.update(self.buffer)
        self.file.write(self.buffer)
        self.buffer.clear()

    def finish(self) -> None:
        self.flush()
        self.file.flush()
        os.fsync(self.file.fileno())


def set_of(numbers: "array[int]") -> numpy.ndarray:
    """Each once, in order."""
    return numpy.unique(numpy.frombuffer(numbers, dtype=numpy.uint64)) if numbers else numpy.zeros(0, numpy.uint64)


def _number_of(group_id: str) -> int:
    """A group's id is 16 hexadecimal digits; others are told apart by theirs."""
    try:
        return int(group_id, 16)
    except ValueError:
        return int(sha256(group_id)[:16], 16)


def _digest_of_ids(ids: numpy.ndarray) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(ids), BATCH_IDS):
        digest.update("".join(f"{pk}\n" for pk in ids[start : start + BATCH_IDS].tolist()).encode())
    return digest.hexdigest()


def _write_ids(path: Path, ids: numpy.ndarray) -> None:
    _write(path, [ids.astype("<u8").tobytes()])


def _write_json(path: Path, value: Any) -> None:
    _write(path, [json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode()])


def _write(path: Path, blocks: Iterable[bytes]) -> None:
    with open(path, "wb") as file:
        file.writelines(blocks)
        file.flush()
        os.fsync(file.fileno())
