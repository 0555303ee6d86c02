"""CSV and its like: a header, then a row a line, cells in quotes where they hold line breaks."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from labeling.imports.records import SourceRow
from labeling.imports.sources.base import BadSource, Limits, Source
from labeling.imports.sources.lines import not_utf8, numbered_lines
from labeling.imports.sources.stored import Stored

DELIMITERS = ",\t;|"


@dataclass(frozen=True)
class Dialect:
    delimiter: str
    # A space between the delimiter and a quote.
    spaced: bool = False
    # A quote at the beginning of a cell holds it together, rather than being part of it.
    quoted: bool = True

    def reader(self, lines: Iterator[str]) -> "csv._reader":
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            skipinitialspace=self.spaced,
            quoting=csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE,
            strict=True,
        )


class Table(Source):
    def __init__(self, stored: Stored, limits: Limits, dialect: Dialect) -> None:
        super().__init__("csv", n_bytes=stored.n_bytes, limits=limits, compressed=stored.compressed)
        self._stored = stored
        self.dialect = dialect
        # The module's own limit holds for the whole process; a row is held to ours before it comes there.
        csv.field_size_limit(max(csv.field_size_limit(), limits.record_bytes))
        _, header, problem = next(_Rows(stored, limits, dialect), (1, [], "is missing"))
        if problem:
            raise BadSource(f"The first line cannot be read as a header: {problem}")
        self.columns = _names(header, limits)

    def _rows(self, skip: int) -> Iterator[SourceRow]:
        rows = _Rows(self._stored, self.limits, self.dialect)
        next(rows, None)
        columns = self.columns or []
        for line, cells, problem in rows:
            if skip:
                skip -= 1
                continue
            self.bytes_read = self._stored.n_read
            if not problem and len(cells) != len(columns):
                problem = f"has {len(cells):,} cell{'s' * (len(cells) > 1)}, and the header {len(columns):,}"
            yield SourceRow(line, None, problem) if problem else SourceRow(line, dict(zip(columns, cells, strict=True)))


class _Rows:
    """The rows of a table: the line each begins on, its cells, and why it cannot be taken if it cannot."""

    def __init__(self, stored: Stored, limits: Limits, dialect: Dialect) -> None:
        self.limits = limits
        self.lines = numbered_lines(stored.text(), limits.record_bytes, self._drop)
        self.reader = dialect.reader(self._feed())
        self.began = 0
        self.n_bytes = 0
        self.n_quotes_dropped = 0
        self.problem = ""

    def __iter__(self) -> "_Rows":
        return self

    def __next__(self) -> tuple[int, list[str], str]:
        while True:
            self.began = self.n_bytes = 0
            self.problem = ""
            try:
                cells = next(self.reader)
            except csv.Error as error:
                return self.began, [], self.problem or f"is not CSV: {error}"
            if cells or self.problem:
                return self.began, cells, self.problem

    def _feed(self) -> Iterator[str]:
        for number, line in self.lines:
            self.began = self.began or number
            self.n_bytes += len(line or b"") + 1
            if line is None or self.n_bytes > self.limits.record_bytes + 1:
                self.problem = f"the row is longer than {self.limits.record_bytes:,} bytes (a quote that is never closed?)"
                # Of what is not kept, whether it ends inside quotes.
                n_quotes = self.n_quotes_dropped if line is None else line.count(b'"')
                self.n_quotes_dropped = 0
                yield '"' * (n_quotes % 2)
            else:
                yield self._decoded(line) + "\n"

    def _decoded(self, line: bytes) -> str:
        if b"\0" in line:
            self.problem = "a cell holds a NUL character, which databases refuse"
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            self.problem = not_utf8(line, error.start)
            # The rest of the row is still to be found.
            return line.decode(errors="replace")

    def _drop(self, piece: bytes) -> None:
        self.n_quotes_dropped += piece.count(b'"')


def _names(header: list[str], limits: Limits) -> list[str]:
    if len(header) > limits.fields:
        raise BadSource(f"There are {len(header):,} columns, and at most {limits.fields:,} are taken")
    # Some programs write the number of the row into a column without a name.
    names = [name.strip() or f"column {number}" for number, name in enumerate(header, start=1)]
    name, n_times = Counter(names).most_common(1)[0]
    if n_times > 1:
        raise BadSource(f"The header names the column {name[:80]!r} {n_times} times")
    return names


def recognise(head: str) -> Dialect | None:
    """How the text's cells are divided, by which division gives rows of equal length; None if it is no table."""
    best: tuple[float, int] = (0.0, 1)
    found: Dialect | None = None
    header = head.partition("\n")[0]
    # Some programs that divide by tabs know no quotes.
    unquoted = Dialect("\t", quoted=False)
    for dialect in (*(Dialect(char, spaced=f'{char} "' in header) for char in DELIMITERS), unquoted):
        lengths = _lengths(head, dialect)
        if not lengths or lengths[0] < 2:
            continue
        score = (lengths.count(lengths[0]) / len(lengths), lengths[0])
        if score > best:
            best, found = score, dialect
    return found


def _lengths(head: str, dialect: Dialect) -> list[int]:
    lengths = []
    reader = dialect.reader(io.StringIO(head, newline=""))
    while True:
        try:
            lengths.append(len(next(reader)))
        except StopIteration:
            return [length for length in lengths if length]
        except csv.Error:
            lengths.append(-1)
