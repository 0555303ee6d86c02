"""The views of a snapshot: each is a projection of its frozen rows, made once as a file and then only read.

A file that stays the same can be sent in pieces, resumed by HTTP range and verified by its hash.
"""

import json
import os
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import groupby, islice, permutations
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from labeling.annotation.models import Task
from labeling.preferences.errors import UnknownView
from labeling.preferences.models import Snapshot
from labeling.preferences.rows import pair_id
from labeling.preferences.services import SPLITS, snapshots_folder
from labeling.preferences.supervised import sft_rows, unpaired_rows

Row = dict[str, Any]
BATCH_ROWS = 2000
BATCH_TASKS = 200


# --- rows ---------------------------------------------------------------------------------------
def _preference(row: Row) -> Row:
    """TRL's explicit-prompt conversational preference, with what the loss may use."""
    return {key: row[key] for key in ("prompt", "chosen", "rejected", "margin", "weight", "group_id", "tie")}


def _preferences(snapshot: Snapshot, rows: Iterator[Row]) -> Iterator[Row]:
    return map(_preference, rows)


def _pairs(snapshot: Snapshot, rows: Iterator[Row]) -> Iterator[Row]:
    """Whole, with the snapshot's name; what only some rows have is null in the others, since all have one shape here."""
    name = f"{snapshot.project.slug}#{snapshot.number}"
    for row in rows:
        sources = {side: {"author": None, **row[side]} for side in ("chosen_source", "rejected_source")}
        yield {"adjudication": None, **row, **sources, "snapshot": name}


def _votes(snapshot: Snapshot, rows: Iterator[Row]) -> Iterator[Row]:
    return rows


def _sft(snapshot: Snapshot, rows: Iterator[Row]) -> Iterator[Row]:
    return _of_tasks(snapshot, rows, sft_rows)


def _unpaired(snapshot: Snapshot, rows: Iterator[Row]) -> Iterator[Row]:
    return _of_tasks(snapshot, rows, unpaired_rows)


def _of_tasks(snapshot: Snapshot, rows: Iterator[Row], make: Callable[..., list[Row]]) -> Iterator[Row]:
    """Rows made of each task's votes, which lie together in the file. A prompt's group and licence never change."""
    includes = snapshot.policy.get("corrections", "include") == "include"
    tasks = ((public_id, list(votes)) for public_id, votes in groupby(rows, key=lambda row: row["task"]))
    while batch := list(islice(tasks, BATCH_TASKS)):
        found = Task.objects.filter(project=snapshot.project_id, public_id__in=[public_id for public_id, _ in batch])
        known = {
            public_id: {"group_id": group_id, "licence": licence or None}
            for public_id, group_id, licence in found.values_list("public_id", "prompt__group_id", "prompt__licence")
        }
        for public_id, votes in batch:
            for row in make(votes, corrections=includes):
                yield {**row, **known.get(public_id, {"group_id": None, "licence": None})}


# --- their shapes in Parquet --------------------------------------------------------------------
def _as_json(row: Row, *keys: str) -> Row:
    """Parts whose shape varies travel as JSON text in Parquet, which wants one shape for all rows."""
    return {**row, **{key: json.dumps(row[key], ensure_ascii=False, sort_keys=True) for key in keys}}


def _same(row: Row) -> Row:
    return row


def _pairs_in_parquet(row: Row) -> Row:
    return {
        **_as_json(row, "votes"),
        "chosen_source": _as_json(row["chosen_source"], "sampling"),
        "rejected_source": _as_json(row["rejected_source"], "sampling"),
    }


def _votes_in_parquet(row: Row) -> Row:
    return _as_json(row, *({"judgement", "adjudication"} & row.keys()))


MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
AUTHOR = pa.struct([("annotator", pa.string()), ("annotator_kind", pa.string())])
ADJUDICATION = pa.struct(
    [("annotator", pa.string()), ("annotator_kind", pa.string()), ("blind", pa.bool_()), ("at", pa.string())]
)
SOURCE = pa.struct(
    [
        ("model", pa.string()), ("revision", pa.string()), ("adapter", pa.string()), ("sampling", pa.string()),
        ("seed", pa.int64()), ("author", AUTHOR),
    ]
)  # fmt: skip
COMPLETION = pa.struct([("key", pa.string()), ("content", pa.string()), ("model", pa.string()), ("author", AUTHOR)])
ORIGIN = [
    ("source", pa.string()), ("model", pa.string()), ("annotator", pa.string()), ("annotator_kind", pa.string()),
    ("group_id", pa.string()), ("licence", pa.string()),
]  # fmt: skip
PREFERENCE_SCHEMA = pa.schema(
    [
        ("prompt", MESSAGES), ("chosen", MESSAGES), ("rejected", MESSAGES), ("margin", pa.float64()),
        ("weight", pa.float64()), ("group_id", pa.string()), ("tie", pa.bool_()),
    ]
)  # fmt: skip
PAIRS_SCHEMA = pa.schema(
    [
        ("id", pa.string()), ("group_id", pa.string()), ("iteration", pa.int64()), ("prompt", MESSAGES),
        ("chosen", MESSAGES), ("rejected", MESSAGES), ("strength", pa.float64()), ("tie", pa.bool_()),
        ("margin", pa.float64()), ("weight", pa.float64()), ("chosen_source", SOURCE), ("rejected_source", SOURCE),
        ("n_votes", pa.int64()), ("agreement", pa.float64()), ("votes", pa.string()), ("edited", MESSAGES),
        ("reasons", pa.list_(pa.string())), ("flags", pa.list_(pa.string())), ("split", pa.string()),
        ("licence", pa.string()), ("snapshot", pa.string()), ("adjudication", ADJUDICATION),
    ]
)  # fmt: skip
VOTES_SCHEMA = pa.schema(
    [
        ("task", pa.string()), ("prompt", MESSAGES),
        ("completions", pa.list_(COMPLETION)), ("annotator", pa.string()), ("annotator_kind", pa.string()), ("judgement", pa.string()),
        ("order_shown", pa.list_(pa.string())), ("guideline_version", pa.int64()), ("iteration", pa.int64()),
        ("gold", pa.bool_()), ("at", pa.string()), ("adjudication", pa.string()),
    ]
)  # fmt: skip

SFT_SCHEMA = pa.schema([("messages", MESSAGES), *ORIGIN])
UNPAIRED_SCHEMA = pa.schema(
    [
        ("prompt", MESSAGES), ("completion", MESSAGES), ("label", pa.bool_()), ("acceptable_share", pa.float64()),
        ("n_votes", pa.int64()), *ORIGIN,
    ]
)  # fmt: skip


@dataclass(frozen=True)
class View:
    """`frozen` names the file of rows it is made from, `make` how, `in_parquet` a row's shape there."""

    frozen: str
    make: Callable[[Snapshot, Iterator[Row]], Iterator[Row]]
    in_parquet: Callable[[Row], Row]
    schema: pa.Schema


VIEWS = {
    "preference": View("pairs", _preferences, _same, PREFERENCE_SCHEMA),
    "unpaired": View("votes", _unpaired, _same, UNPAIRED_SCHEMA),
    "sft": View("votes", _sft, _same, SFT_SCHEMA),
    "pairs": View("pairs", _pairs, _pairs_in_parquet, PAIRS_SCHEMA),
    "votes": View("votes", _votes, _votes_in_parquet, VOTES_SCHEMA),
}
FILE_FORMATS = ("jsonl", "parquet")


def view_file(snapshot: Snapshot, *, split: str, view: str, format: str) -> Path:
    """The file of one view, made now if nobody asked before. Raises UnknownView naming what there is."""
    if view not in VIEWS:
        raise UnknownView(f"Unknown view {view!r}: choose from {', '.join(VIEWS)}")
    if split not in SPLITS or format not in FILE_FORMATS:
        raise UnknownView("Ask for train or eval, as .jsonl or .parquet")
    folder = snapshots_folder() / snapshot.folder
    known = VIEWS[view]
    # `pairs` names its snapshot, so its files are the snapshot's own though the rows may be shared.
    target = (
        folder / "views" / f"{view}.{snapshot.pk}.{split}.{format}"
        if view == "pairs"
        else (folder / "views" / f"{view}.{split}.{format}")
    )
    if target.exists():
        return target
    target.parent.mkdir(exist_ok=True)
    rows = known.make(snapshot, read_rows(folder / f"{known.frozen}.{split}.jsonl"))
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".making-")
    os.close(descriptor)
    try:
        if format == "jsonl":
            with open(name, "wb") as file:
                for row in rows:
                    file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        else:
            with pq.ParquetWriter(name, known.schema, compression="zstd") as writer:
                while batch := list(islice(rows, BATCH_ROWS)):
                    shaped = [known.in_parquet(row) for row in batch]
                    writer.write_table(pa.Table.from_pylist(shaped, schema=known.schema))
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)
    return target


def rows_in(snapshot: Snapshot, view: str, split: str) -> int | None:
    """How many rows the view has; None where the snapshot was frozen before these were counted."""
    manifest = snapshot.manifest
    if VIEWS[view].frozen == "pairs" or view == "votes":
        return manifest.get("files", {}).get(f"{VIEWS[view].frozen}.{split}.jsonl", {}).get("rows", 0)
    return manifest.get("views", {}).get(f"{view}.{split}")


def read_rows(path: Path) -> Iterator[Row]:
    with open(path, "rb") as file:
        for line in file:
            yield orjson.loads(line)


def preference_rows(snapshot: Snapshot, split: str) -> Iterator[Row]:
    """Rows of the `preference` view, each with its `id`, for the run folder."""
    for row in read_rows(snapshots_folder() / snapshot.folder / f"pairs.{split}.jsonl"):
        yield _preference(row) | {"id": row["id"]}


def compared_in(snapshot: Snapshot, ids: Collection[str]) -> Iterator[tuple[str, str, str, str]]:
    """What pairs of two ranked completions compare: (id of the pair, of its task, key of chosen, key of rejected).

    A pair's id says it all, but not to be read back; so those of every task are made again.
    """
    for split in SPLITS:
        seen = None
        for vote in read_rows(snapshots_folder() / snapshot.folder / f"votes.{split}.jsonl"):
            if vote["task"] == seen:
                continue
            seen = vote["task"]
            for chosen, rejected in permutations([completion["key"] for completion in vote["completions"]], 2):
                if (id := pair_id(seen, chosen, rejected)) in ids:
                    yield id, seen, chosen, rejected
