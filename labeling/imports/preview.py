"""What the beginning of a file would become, before anything is taken."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from labeling.imports import mapping as mappings
from labeling.imports.errors import BadImport
from labeling.imports.formats import FORMATS, Format
from labeling.imports.reading import Reading, RejectedRow, check_choices, first_rows, opened, recognised_in
from labeling.imports.records import Record
from labeling.imports.sources import BadSource, Source

MOST_RECORDS = 5
MOST_PROBLEMS = 10
MOST_ROWS = 200


@dataclass
class Preview:
    """`format` is empty where none was named and none is recognised; then there are no records either.

    `reasons` say why the format, `also` which others it might be. `mapping` and `options` are those used: as given, else as proposed.
    `n_rows` were looked at; `problem` says why reading ended before that, `wrong` which choices fit neither file nor format.
    """

    kind: str
    compressed: bool
    n_bytes: int
    format: str
    certainty: str
    reasons: list[str]
    also: list[str]
    columns: list[str]
    mapping: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    problems: list[RejectedRow] = field(default_factory=list)
    n_rows: int = 0
    n_records: int = 0
    n_rejected: int = 0
    problem: str = ""
    wrong: dict[str, str] = field(default_factory=dict)

    @property
    def chosen(self) -> Format | None:
        return FORMATS.get(self.format)


def preview(
    path: Path,
    *,
    filename: str = "",
    format: str = "",
    mapping: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
) -> Preview:
    """Look at the first rows. Raises BadImport for a file that can't be read at all."""
    source = opened(path, filename)
    found = recognised_in(source, filename)
    shown = Preview(
        kind=source.kind, compressed=source.compressed, n_bytes=source.n_bytes, format=format or found.format or "",
        certainty=str(found.certainty), reasons=list(found.reasons), also=list(found.also), columns=columns_of(source),
    )  # fmt: skip
    if shown.format:
        proposed = found.mapping if shown.format == found.format else mappings.propose(shown.columns, shown.format)
        shown.mapping = dict(proposed if mapping is None else mapping)
        shown.options = (found.options if shown.format == found.format else {}) | dict(options or {})
        try:
            check_choices(shown.format, shown.mapping, shown.options)
        except BadImport as error:
            shown.wrong = error.fields
        else:
            _fill(shown, source)
    return shown


def columns_of(source: Source) -> list[str]:
    """Of a table all there are; else those of the first rows, each once."""
    if source.columns is not None:
        return list(source.columns)
    rows = [row.data for row in first_rows(source) if row.data is not None]
    return list(dict.fromkeys(str(name) for row in rows for name in row))[:200]


def _fill(shown: Preview, source: Source) -> None:
    reading = Reading(_First(source), format=shown.format, mapping=shown.mapping, options=shown.options)
    try:
        for batch in reading.batches():
            shown.records += batch.records[: MOST_RECORDS - len(shown.records)]
            shown.problems += batch.rejected[: MOST_PROBLEMS - len(shown.problems)]
            shown.n_rows, shown.n_records = batch.n_rows, shown.n_records + len(batch.records)
            shown.n_rejected += len(batch.rejected)
    except BadSource as error:
        shown.problem = str(error)


class _First:
    """The first rows of a source, as a source."""

    def __init__(self, source: Source) -> None:
        self.source, self.bytes_read = source, 0

    def rows(self, skip: int = 0) -> object:
        return islice(self.source.rows(skip), MOST_ROWS)
