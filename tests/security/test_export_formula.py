"""A spreadsheet that opens an export runs nothing of it; JSON lines and Parquet stay exact."""

import csv
import gzip
import io

import orjson
import pyarrow.parquet as pq
import pytest

from labeling.preferences.views_of_snapshots import VIEWS
from labeling.preferences.views_out import making
from labeling.preferences.views_out.columns import JSON, NUMBER, WORD, cell
from labeling.preferences.views_out.making import make, write_view

STARTS = ["=", "+", "-", "@", "\t", "\r", "\x00", "＝", "＋", "－", "＠", "−"]
BEFORE = ["", " ", "   ", "\n", "\t", '"', "'", "''", ' "', "\xa0", "\ufeff", "\u200b", "“", "\v", "\r\n", "\x1f"]
PREFIXES = [*STARTS, *(before + start for before in BEFORE[1:] for start in ("=", "@"))]
assert len(PREFIXES) >= 40


def spoilt(shape, text):
    """A value of the shape with the text in every place of it that holds text."""
    if isinstance(shape, dict):
        return {key: spoilt(inner, text) for key, inner in shape.items()}
    if isinstance(shape, list):
        return [spoilt(shape[0], text)]
    return {str: text, JSON: text, WORD: text, int: -3, NUMBER: -3, float: -1.5, bool: True}[shape]


def row_of(columns, prefix):
    return {name: spoilt(shape, prefix + "cmd|' /C calc'!A0") for name, shape in columns.items()}


@pytest.mark.parametrize("view", [name for name, view in VIEWS.items() if view.columns])
def test_no_cell_of_any_text_column_begins_like_a_formula(view, tmp_path, monkeypatch):
    known = VIEWS[view]
    rows = [row_of(known.columns, prefix) for prefix in PREFIXES]
    monkeypatch.setattr(making, "read_rows", lambda path: iter(rows))
    plain = type(known)(known.help, known.frozen, lambda snapshot, frozen: frozen, known.columns)

    def written(kind):
        path = tmp_path / f"rows.{kind}"
        make(path, lambda output: write_view(output, view=plain, frozen=tmp_path, snapshot=None, kind=kind))
        return path

    for content in (written("csv").read_bytes(), gzip.decompress(written("csv.gz").read_bytes())):
        _, *cells = csv.reader(io.StringIO(content.decode(), newline=""))
        assert len(cells) == len(rows)
        for found, row in zip(cells, rows, strict=True):
            for value, (name, shape) in zip(found, known.columns.items(), strict=True):
                if shape in (int, float):
                    assert value == str(row[name])  # a number below nothing is no formula
                elif value:
                    assert value[0] not in STARTS
                    if shape in (str, JSON, WORD):
                        assert value == "'" + row[name]
    assert [orjson.loads(line) for line in written("jsonl").read_bytes().splitlines()] == rows
    columns = pq.read_table(written("parquet"))
    for name, shape in known.columns.items():
        if shape is str:
            assert columns.column(name).to_pylist() == [row[name] for row in rows]


@pytest.mark.parametrize("text", ["a=b", "1+1", "mail@here", "say -no", "«quoted»", "", "é", "1.5", "(=x)", "a\tb", "a\r\nb"])
def test_other_texts_stay_as_they_are(text):
    assert cell(text) == text
