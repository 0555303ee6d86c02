"""What every kind of file has in common: limits, the fault that ends reading, and the stream of rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from labeling.imports.records import SourceRow


class BadSource(Exception):
    """The file, or what is left of it, cannot be read. The text is for the person who sent it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may ask for.

    `ratio` is of unpacked to stored bytes, counted once more than `ratio_from` bytes are unpacked; columns are packed
    closer than text by right, and only ever unpacked in slices. `memory_bytes` is for unpacking those.
    """

    record_bytes: int = 1_000_000
    fields: int = 1_000
    rows: int = 10_000_000
    ratio: int = 100
    column_ratio: int = 1_000
    ratio_from: int = 16 * 2**20
    unpacked_bytes: int = 32 * 2**30
    memory_bytes: int = 160 * 2**20


class Source:
    """One file, read as rows in constant memory, as often as asked.

    `columns` are the names of a file that has the same for every row. `bytes_read`, of `n_bytes` stored, follows
    the reading of the rows.
    """

    place = "on line"  # how a person finds a row again

    def __init__(self, kind: str, *, n_bytes: int, limits: Limits, compressed: bool = False) -> None:
        self.kind = kind
        self.n_bytes = n_bytes
        self.limits = limits
        self.compressed = compressed
        self.columns: list[str] | None = None
        self.bytes_read = 0

    def rows(self, skip: int = 0) -> Iterator[SourceRow]:
        """Every row after the first `skip`, those that cannot be read included.

        Raises BadSource, naming the last row that was read, where reading cannot go on.
        """
        self.bytes_read = 0
        last: SourceRow | None = None
        n_rows = skip
        try:
            for last in self._rows(skip):
                n_rows += 1
                if n_rows > self.limits.rows:
                    raise BadSource(f"There are more than {self.limits.rows:,} rows: send them in several files")
                yield last
        except BadSource as fault:
            if last is None:
                raise
            raise BadSource(f"{fault} (the last row read is {self.place} {last.line:,})") from None
        self.bytes_read = self.n_bytes

    def _rows(self, skip: int) -> Iterator[SourceRow]:
        raise NotImplementedError


def checked(data: Any, limits: Limits) -> str:
    """Why a value cannot be a row; empty if it can."""
    if type(data) is not dict:
        return "must be a JSON object"
    if len(data) > limits.fields:
        return f"has {len(data):,} fields, and at most {limits.fields:,} are taken"
    return ""
