"""Making the file of a view: in constant memory, by one maker at a time, hashed while it is written.

Files are made on first ask, in the thread that asks. Files a web server can send in parts and verify need their length
and hash before the first byte, so a file is made whole, then sent; but its making is short (some ten seconds for a
million pairs: `bench/export.py` has the figures), most of it in code that lets other threads of the process go on. To make
them all when a snapshot is frozen would cost every freeze what few of its files are ever asked for.

Whoever asks meanwhile waits for that maker, at most `PATIENCE_SECONDS`, and is then told to come back: a thread of the
web server is never held longer by a file it does not make itself. The lock is one of the operating system, so the
making of a killed process is taken over at once, and it holds between the processes of one machine, or of several on a
shared folder.
"""

import csv
import fcntl
import gzip
import hashlib
import io
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from labeling.preferences.errors import BeingMade
from labeling.preferences.models import Snapshot
from labeling.preferences.views_out.columns import Columns, Row, arrow_schema, cell, shaper
from labeling.preferences.views_out.view import View

if TYPE_CHECKING:
    import pyarrow as pa

PATIENCE_SECONDS = 20.0
BLOCK_BYTES = 4 << 20  # of JSON that become one row group of Parquet
PARSE_BYTES = 1 << 20  # of it that one thread reads at a time
WRITE_BYTES = 1 << 20
BATCH_ROWS = 1000
GZIP_LEVEL = 4  # several times as fast as the usual 6, for files some 4 % longer


def read_rows(path: Path) -> Iterator[Row]:
    with open(path, "rb", buffering=WRITE_BYTES) as file:
        for line in file:
            yield orjson.loads(line)


def made(target: Path) -> dict[str, Any] | None:
    """What is known of a file that was made: `sha256`, `rows`, `bytes`. None where it has yet to be made."""
    try:
        known = orjson.loads(_note(target).read_bytes())
        return known if target.stat().st_size == known["bytes"] else None
    except (OSError, orjson.JSONDecodeError):
        return None


def make(target: Path, write: Callable[["Hashed"], int]) -> None:
    """Make the file unless it is there; `write` returns how many rows it wrote.

    Raises BeingMade where somebody else has been at it for too long.
    """
    target.parent.mkdir(exist_ok=True)
    with _only_maker(target):
        if made(target):
            return
        # Nobody else writes here: what a killed maker left is written over.
        unfinished = target.parent / f".{target.name}.making"
        with open(unfinished, "wb", buffering=0) as file:
            output = Hashed(file)
            rows = write(output)
            os.fsync(file.fileno())
        note = orjson.dumps({"sha256": output.sha256.hexdigest(), "rows": rows, "bytes": output.n_bytes})
        _note(target).write_bytes(note)
        os.replace(unfinished, target)


def _note(target: Path) -> Path:
    return target.parent / f".{target.name}.made"


@contextmanager
def _only_maker(target: Path) -> Iterator[None]:
    with open(target.parent / f".{target.name}.lock", "wb") as lock:
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up_at:
                    raise BeingMade(f"{target.name} is being made: ask again in some seconds") from None
                time.sleep(0.05)
        yield


class Hashed(io.RawIOBase):
    """A file that knows the SHA-256 of what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()
        self.n_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self.sha256.update(view)
        self.n_bytes += view.nbytes
        left = view
        while left:
            left = left[self.file.write(left) :]
        return view.nbytes


def write_view(output: Hashed, *, view: View, frozen: Path, snapshot: Snapshot, kind: str) -> int:
    """Write the view of the rows in `frozen` and return how many it has."""
    if kind == "parquet" and view.table is not None:
        return _write_parquet(output, _blocks_of_file(frozen), view)
    if kind.removesuffix(".gz") == "jsonl" and view.lines is not None:
        with open(frozen, "rb", buffering=WRITE_BYTES) as file:
            return _write_blocks(output, view.lines(file), kind)
    rows = view.rows(snapshot, read_rows(frozen))
    if kind == "parquet":
        shape = shaper(view.columns)
        return _write_parquet(output, _blocks(map(_line, map(shape, rows) if shape else rows), BLOCK_BYTES), view)
    if kind.startswith("csv"):
        return _write_csv(output, rows, view.columns, kind)
    if kind == "json":
        return _write_array(output, rows)
    return _write_blocks(output, map(_line, rows), kind)


def _line(row: Row) -> bytes:
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


def _blocks(lines: Iterable[bytes], size: int) -> Iterator[tuple[int, bytes]]:
    """How many lines, and they as one piece."""
    held: list[bytes] = []
    n_bytes = 0
    for line in lines:
        held.append(line)
        n_bytes += len(line)
        if n_bytes >= size:
            yield len(held), b"".join(held)
            held, n_bytes = [], 0
    if held:
        yield len(held), b"".join(held)


def _blocks_of_file(path: Path) -> Iterator[tuple[int, bytes]]:
    """Pieces of a file that end where a line ends. Nobody counted the lines: that is left to who reads them."""
    with open(path, "rb") as file:
        while piece := file.read(BLOCK_BYTES):
            yield 0, piece + file.readline()


@contextmanager
def _zipped(output: Hashed, kind: str) -> Iterator[io.RawIOBase | gzip.GzipFile]:
    """`output`, through gzip if the kind says so: without a name or a time in it, so that equal rows make equal files."""
    if not kind.endswith(".gz"):
        yield output
        return
    with gzip.GzipFile(filename="", fileobj=output, mode="wb", compresslevel=GZIP_LEVEL, mtime=0) as file:
        yield file


def _write_blocks(output: Hashed, lines: Iterable[bytes], kind: str) -> int:
    n_rows = 0
    with _zipped(output, kind) as file:
        for n, block in _blocks(lines, WRITE_BYTES):
            file.write(block)
            n_rows += n
    return n_rows


def _write_array(output: Hashed, rows: Iterator[Row]) -> int:
    n_rows = 0
    output.write(b"[")
    while batch := list(islice(rows, BATCH_ROWS)):
        output.write(b",\n" if n_rows else b"\n")
        output.write(b",\n".join(map(orjson.dumps, batch)))
        n_rows += len(batch)
    output.write(b"\n]\n")
    return n_rows


def _write_csv(output: Hashed, rows: Iterator[Row], columns: Columns, kind: str) -> int:
    n_rows = 0
    with _zipped(output, kind) as file:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(columns)
        while batch := list(islice(rows, BATCH_ROWS)):
            writer.writerows([cell(row.get(name)) for name in columns] for row in batch)
            n_rows += len(batch)
            file.write(_taken(text))
        file.write(_taken(text))
    return n_rows


def _taken(text: io.StringIO) -> bytes:
    content = text.getvalue().encode()
    text.seek(0)
    text.truncate()
    return content


def _write_parquet(output: Hashed, blocks: Iterator[tuple[int, bytes]], view: View) -> int:
    """Arrow reads rows from JSON several times faster than from Python's objects, and without holding up other threads."""
    import pyarrow.parquet as pq

    n_rows = 0
    schema = arrow_schema(view.columns)
    with pq.ParquetWriter(output, schema, compression="zstd") as writer:
        for _, block in blocks:
            table = _table(block, schema)
            table = view.table(table) if view.table else table
            writer.write_table(table)
            n_rows += table.num_rows
    return n_rows


def _table(block: bytes, schema: "pa.Schema") -> "pa.Table":
    import pyarrow as pa
    import pyarrow.json

    def read(size: int) -> pa.Table:
        return pyarrow.json.read_json(
            pa.BufferReader(block),
            read_options=pyarrow.json.ReadOptions(block_size=size),
            parse_options=pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
            memory_pool=pa.system_memory_pool(),  # Arrow's own keeps more for later, in every web process
        )

    try:
        return read(PARSE_BYTES)
    except pa.ArrowInvalid:  # a row longer than what one thread reads at a time
        return read(len(block) + 1)
