"""A file as batches of records, each ending where the file can be taken up again."""

import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from labeling.imports import mapping as mappings
from labeling.imports.errors import BadImport
from labeling.imports.formats import FORMATS, BadOptions, Counted
from labeling.imports.recognition import Recognised, recognise
from labeling.imports.records import Record, Rejected, SourceRow
from labeling.imports.sources import BadSource, Source, open_source

BATCH_RECORDS = 1000
BATCH_CHARACTERS = 4_000_000
LOOKED_AT = 100  # rows, to recognise a format
MOST_OF_A_ROW = 4_000  # characters of a rejected row that are kept

T = TypeVar("T")


@dataclass
class RejectedRow:
    line: int
    reason: str
    row: Any = None

    def as_json(self) -> bytes:
        """A line of the list; a long row as the beginning of its text."""
        text = json.dumps(self.row, ensure_ascii=False, default=str)
        row = self.row if len(text) <= MOST_OF_A_ROW else text[:MOST_OF_A_ROW] + "…"
        line = json.dumps({"line": self.line, "reason": self.reason, "row": row}, ensure_ascii=False, default=str)
        return line.encode("utf-8", "replace") + b"\n"


@dataclass
class Batch:
    """`n_rows`: how many rows of the file are dealt with once this batch is.

    `places` says of each record where its rows begin, which is its own as a line need not be: a document may be one
    line. `sizes` and `rows` tell by place how many rows there are, and the first of them.
    """

    records: list[Record] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)
    rows: dict[int, Any] = field(default_factory=dict)
    rejected: list[RejectedRow] = field(default_factory=list)
    n_rows: int = 0
    bytes_done: int = 0

    @property
    def size(self) -> int:
        return len(self.records) + len(self.rejected)


def opened(path: Path, filename: str) -> Source:
    """Raises BadImport for what can't be read as any kind of file."""
    try:
        return open_source(path, filename=filename)
    except BadSource as error:
        raise BadImport({"file": str(error)}) from None


def first_rows(source: Source, n: int = LOOKED_AT) -> list[SourceRow]:
    """As many as can be read: what is wrong further on is for the reading to say."""
    found: list[SourceRow] = []
    try:
        found.extend(islice(source.rows(), n))
    except BadSource:
        if not found:
            raise
    return found


def recognised_in(source: Source, filename: str) -> Recognised:
    """Raises BadImport where the file can't be read at all."""
    try:
        return recognise(first_rows(source), kind=source.kind, filename=filename)
    except BadSource as error:
        raise BadImport({"file": str(error)}) from None


def unknown_format(name: str) -> BadImport:
    return BadImport({"format": f"Unknown format {name!r}: choose from {', '.join(FORMATS)}"})


def unrecognised(found: Recognised) -> BadImport:
    why = " ".join(found.reasons)
    return BadImport({"format": f"The format isn't recognised. {why} Name one of {', '.join(FORMATS)}".replace("  ", " ")})


def check_choices(format: str, mapping: dict[str, str], options: dict[str, str]) -> None:
    """Raises BadImport naming what doesn't fit the format."""
    if format not in FORMATS:
        raise unknown_format(format)
    chosen = FORMATS[format]
    try:
        chosen.records(iter(()), options)
    except BadOptions as error:
        raise BadImport({f"options.{name}": problem for name, problem in error.fields.items()}) from None
    try:
        mappings.check(mapping, format)
    except mappings.BadMapping as error:
        fields = {name if name == "mapping" else f"mapping.{name}": problem for name, problem in error.fields.items()}
        raise BadImport(fields) from None


class Ahead(Generic[T]):
    """An iterator whose next item can be begun, in a thread, while nothing is left to do but to wait.

    `begin` it just before a wait that lets go of Python's lock, such as for a commit. The items themselves touch no database.
    """

    def __init__(self, items: Iterator[T]) -> None:
        self.items = items
        self.thread = ThreadPoolExecutor(1, "reading-ahead")
        self.begun: Future[T | None] | None = None

    def begin(self) -> None:
        if self.begun is None:
            self.begun = self.thread.submit(next, self.items, None)

    def __iter__(self) -> Iterator[T]:
        while True:
            self.begin()
            assert self.begun is not None
            item, self.begun = self.begun.result(), None
            if item is None:
                return
            yield item

    def __enter__(self) -> "Ahead[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.shutdown()


class Reading:
    """One way through a file from after its first `skip` rows."""

    def __init__(
        self,
        source: Source,
        *,
        format: str,
        mapping: dict[str, str],
        options: dict[str, str],
        skip: int = 0,
    ) -> None:
        self.source, self.format, self.mapping, self.options = source, FORMATS[format], mapping, options
        self.skip = skip
        self.n_pulled = 0
        self.waiting: deque[tuple[int, SourceRow]] = deque()

    def batches(self) -> Iterator[Batch]:
        """Raises BadSource, after the batch of all before it, where the file can't be read any further."""
        batch, characters, done = Batch(), 0, 0
        counted = Counted()
        items = self.format.records(mappings.mapped(self._rows(), self.mapping, self.format), self.options, counted)
        fault: BadSource | None = None
        while True:
            try:
                item = next(items, None)
            except BadSource as error:
                fault, item = error, None
            if item is None:
                break
            while self.waiting and self.waiting[0][0] <= done:
                self.waiting.popleft()
            if isinstance(item, Rejected):
                batch.rejected.append(RejectedRow(item.line, item.reason, self._row_at(item.line)))
            else:
                batch.records.append(item)
                batch.places.append(done)
                batch.rows.setdefault(done, self._row_at(item.line))
                characters += _characters(item)
            # Not between the parts of one row: who goes on after it would miss or repeat some.
            is_whole = counted.rows > done
            if is_whole and done in batch.rows:
                batch.sizes[done] = counted.rows - done
            done = counted.rows
            if is_whole and (batch.size >= BATCH_RECORDS or characters >= BATCH_CHARACTERS):
                yield self._ended(batch, done)
                batch, characters = Batch(), 0
        yield self._ended(batch, max(done, counted.rows) if fault else self.n_pulled)
        if fault:
            raise fault

    def _ended(self, batch: Batch, done: int) -> Batch:
        batch.n_rows, batch.bytes_done = self.skip + done, self.source.bytes_read
        return batch

    def _rows(self) -> Iterator[SourceRow]:
        for row in self.source.rows(self.skip):
            self.n_pulled += 1
            self.waiting.append((self.n_pulled, row))
            yield row

    def _row_at(self, line: int) -> Any:
        return next((row.data for _, row in self.waiting if row.line == line), None)


def _characters(record: Record) -> int:
    return sum([len(message["content"]) for message in record.prompt]) + sum([len(item.content) for item in record.completions])
