"""Whose judgements a snapshot holds, and which: small files of ids beside its rows."""

import json
import os
import tempfile
from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy
import orjson

from labeling.annotation.models import Judgement
from labeling.preferences.models import Snapshot
from labeling.preferences.services import SPLITS, snapshots_folder

JUDGEMENTS, PROMPTS, PEOPLE = "judgements.u64", "prompts.u64", "annotators.json"
BATCH_TASKS = 200


@dataclass(frozen=True)
class Contents:
    """Ids of the judgements and of the prompts that were judged, each sorted, and how many judgements are whose."""

    judgements: numpy.ndarray
    prompts: numpy.ndarray
    people: dict[int, int]

    def n_of(self, people: Collection[int]) -> int:
        return sum(self.people.get(pk, 0) for pk in people)

    def n_among(self, judgements: Iterable[int]) -> int:
        """How many of these judgements it holds."""
        return int(is_in(numpy.fromiter(judgements, dtype=numpy.uint64), self.judgements).sum())


def contents_of(snapshot: Snapshot) -> Contents:
    """From the files; those of a snapshot frozen before there were any are made first."""
    folder = snapshots_folder() / snapshot.folder
    if not (folder / PEOPLE).exists():
        _make(snapshot, folder)
    people = json.loads((folder / PEOPLE).read_text())
    return Contents(
        _ids(folder / JUDGEMENTS), _ids(folder / PROMPTS), {int(pk): n for pk, n in people.items()}
    )


def is_in(wanted: numpy.ndarray, sorted_ids: numpy.ndarray) -> numpy.ndarray:
    """For each of `wanted` whether it is among the sorted ids, which may be a file and is not read whole."""
    if not len(sorted_ids):
        return numpy.zeros(len(wanted), dtype=bool)
    places = numpy.searchsorted(sorted_ids, wanted)
    places[places == len(sorted_ids)] = 0
    return sorted_ids[places] == wanted


def _ids(path: Path) -> numpy.ndarray:
    if not path.stat().st_size:  # an empty file can't be mapped
        return numpy.empty(0, dtype="<u8")
    return numpy.memmap(path, dtype="<u8", mode="r")


def _make(snapshot: Snapshot, folder: Path) -> None:
    """Find the ids of the frozen votes again: a task, a person and a moment name one judgement."""
    ids, prompts = array("Q"), set()
    people: dict[int, int] = {}
    for split in SPLITS:
        rows = _votes(folder / f"votes.{split}.jsonl")
        while batch := list(islice(rows, BATCH_TASKS)):
            wanted = {(task, at) for task, votes in batch for at in votes}
            found = Judgement.objects.filter(project=snapshot.project_id, task__public_id__in=[task for task, _ in batch])
            for pk, task, prompt, annotator, at in found.values_list(
                "pk", "task__public_id", "task__prompt", "annotator", "created_at"
            ):
                if (task, at.isoformat().replace("+00:00", "Z")) in wanted:
                    ids.append(pk)
                    prompts.add(prompt)
                    people[annotator] = people.get(annotator, 0) + 1
    _write(folder / JUDGEMENTS, numpy.sort(numpy.array(ids, dtype="<u8")).tobytes())
    _write(folder / PROMPTS, numpy.array(sorted(prompts), dtype="<u8").tobytes())
    _write(folder / PEOPLE, json.dumps({str(pk): people[pk] for pk in sorted(people)}).encode())


def _votes(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Each task with the moments of its votes."""
    with open(path, "rb") as file:
        rows: Iterator[dict[str, Any]] = map(orjson.loads, file)
        for task, votes in groupby(rows, key=lambda row: row["task"]):
            yield task, [vote["at"] for vote in votes]


def _write(path: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".making-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
