"""Parquet and Arrow: rows that lie in columns. `unpack` reads the file, in a process with limited memory."""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from labeling.imports.records import SourceRow
from labeling.imports.sources import unpack
from labeling.imports.sources.base import BadSource, Limits, Source

PARQUET = b"PAR1"
ARROW_FILE = b"ARROW1"
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "HOME", "TMPDIR", "LANG")
ARROW_STREAM = b"\xff\xff\xff\xff"


class Columns(Source):
    """One or more files of the same columns."""

    place = "row"

    def __init__(self, kind: str, paths: list[Path], limits: Limits) -> None:
        super().__init__(kind, n_bytes=sum(path.stat().st_size for path in paths), limits=limits)
        self._paths = paths
        for path in paths:
            with _unpacked(path, 0, limits, several=len(paths) > 1) as batches:
                names = list(batches.schema.names)
            if self.columns is not None and names != self.columns:
                raise BadSource(f"{path.name} has other columns than {paths[0].name}")
            self.columns = names

    def _rows(self, skip: int) -> Iterator[SourceRow]:
        before = n_bytes = 0  # rows and bytes of the files before
        for path in self._paths:
            n_rows = None
            with _unpacked(path, skip, self.limits, several=len(self._paths) > 1) as batches:
                while n_rows is None:
                    batch, about = batches.read_next_batch_with_custom_metadata()
                    if b"rows" in about:
                        n_rows = int(about[b"rows"])
                        break
                    self.bytes_read = n_bytes + int(about[b"read"])
                    first = before + int(about[b"row"]) + 1
                    if b"problem" in about:
                        yield SourceRow(first, None, about[b"problem"].decode())
                    else:
                        yield from _rows_of(batch, first)
            skip = max(0, skip - n_rows)
            before += n_rows
            n_bytes += path.stat().st_size


@contextmanager
def _unpacked(path: Path, skip: int, limits: Limits, *, several: bool) -> Iterator[Any]:
    """The stream of batches that `unpack` describes. Raises BadSource where that ends with a fault."""
    arguments = {"path": str(path.absolute()), "skip": skip} | {
        name: getattr(limits, name)
        for name in ("record_bytes", "fields", "rows", "column_ratio", "ratio_from", "unpacked_bytes", "memory_bytes")
    }
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", unpack.__file__, json.dumps(arguments)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
            # Nothing secret: what reads a stranger's file has no use for it.
            env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        )  # fmt: skip
        assert process.stdout
        try:
            with pa.ipc.open_stream(process.stdout) as batches:
                yield batches
        except (pa.ArrowException, OSError, StopIteration):
            raise BadSource(("In " + path.name + ": " if several else "") + _fault(process, errors)) from None
        finally:
            process.kill()
            process.stdout.close()
            process.wait()


def _fault(process: "subprocess.Popen[bytes]", errors: IO[bytes]) -> str:
    if process.wait() == unpack.FAULT:
        errors.seek(0)
        return errors.read(1000).decode(errors="replace").strip().replace("It ", "The file ", 1)
    # Killed by its limit or by a crash of the library; its last words are not for the person.
    return "The file is damaged, or takes more memory or time to unpack than an import may"


def _rows_of(batch: Any, first: int) -> Iterator[SourceRow]:
    names = batch.schema.names
    try:
        columns = [column.to_pylist() for column in batch.columns]
    # A date after the year 9999, a time zone that does not exist: Arrow has them, Python does not.
    except (ValueError, OverflowError, LookupError, pa.ArrowException) as error:
        if batch.num_rows == 1:
            yield SourceRow(first, None, f"holds a value that cannot be read: {str(error)[:200]}")
            return
        for index in range(batch.num_rows):
            yield from _rows_of(batch.slice(index, 1), first + index)
        return
    values = [[_as_json_or_unfit(value) for value in column] for column in columns]
    for number, row in enumerate(zip(*values, strict=True), start=first):
        unfit = next(((name, each) for name, each in zip(names, row, strict=True) if type(each) is _Unfit), None)
        if unfit:
            yield SourceRow(number, None, f"{unfit[0]}: {unfit[1]}")
        else:
            yield SourceRow(number, dict(zip(names, row, strict=True)))


class _Unfit(Exception):
    """A value that JSON does not have, or a database does not store."""


def _as_json_or_unfit(value: Any) -> Any:
    try:
        return _as_json(value)
    except _Unfit as unfit:
        return unfit


def _as_json(value: Any) -> Any:
    """The value as JSON would have it. A number that is none is a gap, as pandas writes one, and so are bytes that are no text."""
    kind = type(value)
    if kind is str:
        if "\x00" in value:
            raise _Unfit("a text holds a NUL character, which databases refuse")
    elif kind is int:
        if not -(2**63) <= value < 2**63:
            raise _Unfit("a number does not fit into 64 bits")
    elif kind is float:
        if math.isnan(value):
            return None
        if math.isinf(value):
            raise _Unfit("a number is infinite")
    elif kind is list:
        return _map_as_json(value) if value and type(value[0]) is tuple else [_as_json(each) for each in value]
    elif kind is dict:
        return {_as_json(name): _as_json(each) for name, each in value.items()}
    elif kind is bytes:
        try:
            return _as_json(value.decode())
        except UnicodeDecodeError:
            return None
    elif isinstance(value, datetime | date | time):
        return value.isoformat()
    elif isinstance(value, Decimal):
        return _as_json(float(value))
    elif value is not None and kind is not bool:
        return str(value)
    return value


def _map_as_json(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    fields = {str(name): _as_json(value) for name, value in pairs}
    if len(fields) < len(pairs):
        raise _Unfit("a field is given twice")
    return fields


def is_columns(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8).startswith((PARQUET, ARROW_FILE, ARROW_STREAM))


def columns_source(paths: list[Path], *, limits: Limits, kind: str = "") -> Columns:
    with paths[0].open("rb") as file:
        is_parquet = file.read(4) == PARQUET
    return Columns(kind or ("parquet" if is_parquet else "arrow"), paths, limits)
