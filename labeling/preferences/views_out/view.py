"""What a view is."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from labeling.preferences.models import Snapshot
from labeling.preferences.views_out.columns import Columns, Row

if TYPE_CHECKING:
    import pyarrow as pa

CONTENT_TYPES = {
    "jsonl": "application/x-ndjson",
    "jsonl.gz": "application/gzip",
    "parquet": "application/vnd.apache.parquet",
    "csv": "text/csv; charset=utf-8",
    "csv.gz": "application/gzip",
    "json": "application/json",
    "xml": "application/xml",
}
OF_TABLES = ("jsonl", "jsonl.gz", "parquet", "csv", "csv.gz")
OF_RECORDS = ("jsonl", "jsonl.gz", "json")  # rows whose columns differ from project to project


@dataclass(frozen=True)
class View:
    """A projection of a snapshot's frozen rows.

    `rows` makes the view's rows from those of the file `frozen`, in order and in constant memory; rows of `votes` lie
    together by task. `columns` is their shape. Two short cuts, where rows need no reading: `lines` makes JSON lines
    of the frozen lines, and `table` completes a Parquet table of columns that were read straight from the frozen file.
    `beside` are files that say how to read the view elsewhere, by their name.
    """

    help: str
    frozen: str
    rows: Callable[[Snapshot, Iterator[Row]], Iterator[Row]]
    columns: Columns = field(default_factory=dict)
    kinds: tuple[str, ...] = OF_TABLES
    lines: Callable[[Iterator[bytes]], Iterator[bytes]] | None = None
    table: "Callable[[pa.Table], pa.Table] | None" = None
    beside: Mapping[str, Callable[[Snapshot], bytes]] = field(default_factory=dict)
    names_its_snapshot: bool = False
