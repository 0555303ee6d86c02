"""Rows in, records out, for the tests of formats; and where the real data lies."""

import gzip
import json
import os
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from labeling.imports.formats import FORMATS, Counted
from labeling.imports.records import Record, Rejected, SourceRow

FOLDERS = [Path(os.environ.get("PREFLOOP_FIXTURES", "")), *(up / "shared/data" for up in Path(__file__).parents)]


def parts(format: str, *rows: Any, counted: Counted | None = None, **options: str) -> list[Record | Rejected]:
    source = [SourceRow(number, row) for number, row in enumerate(rows, 1)]
    return list(FORMATS[format].records(source, options, counted))


def records(format: str, *rows: Any, **options: str) -> list[Record]:
    found = parts(format, *rows, **options)
    assert all(isinstance(part, Record) for part in found), found
    return found


def record(format: str, row: Any, **options: str) -> Record:
    found = records(format, row, **options)
    assert len(found) == 1
    return found[0]


def reason(format: str, *rows: Any, **options: str) -> str:
    """Why the rows, or the first of them, are not taken; none of them is."""
    found = parts(format, *rows, **options)
    assert found and all(isinstance(part, Rejected) for part in found), found
    return found[0].reason


def contents(record: Record) -> list[str]:
    return [completion.content for completion in record.completions]


def rankings(record: Record) -> list[Any]:
    return [vote.judgement.get("ranking") for vote in record.votes]


def n_pairs(record: Record) -> int:
    return len(list(combinations(record.completions, 2)))


def shared_rows(name: str) -> list[SourceRow]:
    """Rows of a file of ../shared/data; the test is skipped where that folder isn't there."""
    path = shared_file(name)
    with gzip.open(path, "rb") if name.endswith(".gz") else open(path, "rb") as file:
        return [SourceRow(number, json.loads(line)) for number, line in enumerate(file, 1)]


def shared_file(name: str) -> Path:
    for folder in FOLDERS:
        if folder.name and (folder / name).exists():
            return folder / name
    pytest.skip(f"no {name}: the shared data is not beside this checkout (or set PREFLOOP_FIXTURES)")
