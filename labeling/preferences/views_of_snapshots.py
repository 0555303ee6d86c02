"""The views of a snapshot: each is a projection of its frozen rows, made once as a file and then only read.

A file that stays the same can be sent in pieces, resumed by HTTP range and verified by its hash.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from labeling.preferences.errors import UnknownView
from labeling.preferences.models import Snapshot
from labeling.preferences.services import SPLITS, snapshots_folder

Row = dict[str, Any]
BATCH_ROWS = 2000
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SOURCE = pa.struct(
    [
        ("model", pa.string()), ("revision", pa.string()), ("adapter", pa.string()), ("sampling", pa.string()),
        ("seed", pa.int64()),
    ]
)  # fmt: skip


def _preference(row: Row) -> Row:
    """TRL's explicit-prompt conversational preference, with what the loss may use."""
    return {key: row[key] for key in ("prompt", "chosen", "rejected", "margin", "weight", "group_id", "tie")}


def _as_json(row: Row, *keys: str) -> Row:
    """Parts whose shape varies travel as JSON text in Parquet, which wants one shape for all rows."""
    return {**row, **{key: json.dumps(row[key], ensure_ascii=False, sort_keys=True) for key in keys}}


def _pairs_in_parquet(row: Row) -> Row:
    return {
        **_as_json(row, "votes"),
        "chosen_source": _as_json(row["chosen_source"], "sampling"),
        "rejected_source": _as_json(row["rejected_source"], "sampling"),
    }


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
        ("n_votes", pa.int64()), ("agreement", pa.float64()), ("votes", pa.string()), ("edited", pa.string()),
        ("reasons", pa.list_(pa.string())), ("flags", pa.list_(pa.string())), ("split", pa.string()),
        ("licence", pa.string()), ("snapshot", pa.string()),
    ]
)  # fmt: skip
VOTES_SCHEMA = pa.schema(
    [
        ("task", pa.string()), ("prompt", MESSAGES),
        ("completions", pa.list_(pa.struct([("key", pa.string()), ("content", pa.string()), ("model", pa.string())]))),
        ("annotator", pa.string()), ("annotator_kind", pa.string()), ("judgement", pa.string()),
        ("order_shown", pa.list_(pa.string())), ("guideline_version", pa.int64()), ("iteration", pa.int64()),
        ("gold", pa.bool_()), ("at", pa.string()),
    ]
)  # fmt: skip

Projection = Callable[[Row], Row]
# view: (rows it is made from, projection, projection for Parquet, Parquet schema)
VIEWS: dict[str, tuple[str, Projection, Projection, pa.Schema]] = {
    "preference": ("pairs", _preference, _preference, PREFERENCE_SCHEMA),
    "pairs": ("pairs", lambda row: row, _pairs_in_parquet, PAIRS_SCHEMA),
    "votes": ("votes", lambda row: row, lambda row: _as_json(row, "judgement"), VOTES_SCHEMA),
}
FILE_FORMATS = ("jsonl", "parquet")


def view_file(snapshot: Snapshot, *, split: str, view: str, format: str) -> Path:
    """The file of one view, made now if nobody asked before. Raises UnknownView naming what there is."""
    if view not in VIEWS:
        raise UnknownView(f"Unknown view {view!r}: choose from {', '.join(VIEWS)}")
    if split not in SPLITS or format not in FILE_FORMATS:
        raise UnknownView("Ask for train or eval, as .jsonl or .parquet")
    folder = snapshots_folder() / snapshot.folder
    kind, project_row, project_parquet, schema = VIEWS[view]
    # `pairs` names its snapshot, so its files are the snapshot's own though the rows may be shared.
    target = (
        folder / "views" / f"{view}.{snapshot.pk}.{split}.{format}"
        if view == "pairs"
        else (folder / "views" / f"{view}.{split}.{format}")
    )
    if target.exists():
        return target
    target.parent.mkdir(exist_ok=True)
    rows = read_rows(folder / f"{kind}.{split}.jsonl")
    if view == "pairs":
        rows = ({**row, "snapshot": f"{snapshot.project.slug}#{snapshot.number}"} for row in rows)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".making-")
    os.close(descriptor)
    try:
        if format == "jsonl":
            with open(name, "wb") as file:
                for row in rows:
                    file.write(orjson.dumps(project_row(row), option=orjson.OPT_APPEND_NEWLINE))
        else:
            with pq.ParquetWriter(name, schema, compression="zstd") as writer:
                while batch := list(islice(rows, BATCH_ROWS)):
                    writer.write_table(
                        pa.Table.from_pylist([project_parquet(row) for row in batch], schema=schema)
                    )
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)
    return target


def read_rows(path: Path) -> Iterator[Row]:
    with open(path, "rb") as file:
        for line in file:
            yield orjson.loads(line)


def preference_rows(snapshot: Snapshot, split: str) -> Iterator[Row]:
    """Rows of the `preference` view, for the run folder."""
    for row in read_rows(snapshots_folder() / snapshot.folder / f"pairs.{split}.jsonl"):
        yield _preference(row)
