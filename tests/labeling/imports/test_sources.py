import csv
import gzip
import io
import json
import shutil
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labeling.imports.sources import BadSource, Limits, Source, open_source
from tests.labeling.imports.formats.reading import shared_file

ROWS = [{"prompt": f"Question {n}: naïve, “quoted”\nand broken", "n": n, "tags": ["a", None]} for n in range(1, 6)]


def opened(tmp_path: Path, content: bytes | str, **options: Any) -> Source:
    path = tmp_path / "upload"  # a name that says nothing
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return open_source(path, **options)


def read(source: Source, skip: int = 0) -> list[tuple[int, Any]]:
    """(line, what was read or why it was not)."""
    return [(row.line, row.problem or row.data) for row in source.rows(skip=skip)]


def data_of(source: Source) -> list[Any]:
    return [row.problem or row.data for row in source.rows()]


def json_lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def parquet(rows: list[Any] | pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), file, **options)
    return file.getvalue()


def arrow_stream(table: pa.Table, rows_a_batch: int = 2, **options: Any) -> bytes:
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=rows_a_batch)
    return file.getvalue()


def arrow_file(table: pa.Table, rows_a_batch: int = 2, **options: Any) -> bytes:
    file = io.BytesIO()
    with pa.ipc.new_file(file, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=rows_a_batch)
    return file.getvalue()


def csv_of(rows: list[list[str]], **options: Any) -> str:
    file = io.StringIO()
    csv.writer(file, **options).writerows(rows)
    return file.getvalue()


TABLE = pa.Table.from_pylist(ROWS)
EVERY_KIND = {
    "jsonl": ("jsonl", json_lines(ROWS)),
    "jsonl.gz": ("jsonl", gzip.compress(json_lines(ROWS))),
    "json array": ("json", json.dumps(ROWS).encode()),
    "json array over lines": ("json", json.dumps(ROWS, indent=2).encode()),
    "json array.gz": ("json", gzip.compress(json.dumps(ROWS).encode())),
    "json object with an array": ("json", json.dumps({"version": {"n": [1]}, "data": ROWS, "more": 1}).encode()),
    "json objects over lines": ("json", "\n".join(json.dumps(row, indent=1) for row in ROWS).encode()),
    "parquet": ("parquet", parquet(ROWS)),
    "parquet in row groups": ("parquet", parquet(ROWS, row_group_size=2, compression="zstd")),
    "arrow stream": ("arrow", arrow_stream(TABLE)),
    "arrow file": ("arrow", arrow_file(TABLE)),
    "packed arrow file": ("arrow", arrow_file(TABLE, compression="zstd")),
}


@pytest.mark.parametrize("name", EVERY_KIND)
def test_every_kind_gives_the_same_rows_and_goes_on_after_any_of_them(tmp_path, name):
    kind, content = EVERY_KIND[name]
    source = opened(tmp_path, content)
    assert source.kind == kind
    assert source.compressed == name.endswith(".gz")
    assert source.n_bytes == len(content)
    rows = read(source)
    assert [row for _, row in rows] == ROWS
    assert source.bytes_read == len(content)
    for skip in range(7):
        assert read(source, skip=skip) == rows[skip:]


@pytest.mark.parametrize("name", EVERY_KIND)
def test_progress_never_goes_back_nor_past_the_end(tmp_path, name):
    source = opened(tmp_path, EVERY_KIND[name][1])
    seen = [source.bytes_read for _ in source.rows()]
    assert seen == sorted(seen)
    assert all(0 <= n_bytes <= source.n_bytes for n_bytes in seen)


def test_the_name_of_a_file_decides_nothing(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(parquet(ROWS))
    assert open_source(path, filename="rows.json").kind == "parquet"


# Text: lines


def test_lines_are_counted_with_blank_ones_and_need_no_end(tmp_path):
    source = opened(tmp_path, '\n{"a": 1}\n\n   \t\n{"a": 2}\r\n\r\n{"a": 3}')
    assert read(source) == [(2, {"a": 1}), (5, {"a": 2}), (7, {"a": 3})]


def test_a_byte_order_mark_is_passed_over(tmp_path):
    for content in (json_lines(ROWS), json.dumps(ROWS).encode(), b"prompt,n\na,1\n"):
        for pack in (bytes, gzip.compress):
            source = opened(tmp_path, pack(b"\xef\xbb\xbf" + content))
            assert data_of(source) == data_of(opened(tmp_path, content))


def test_a_broken_line_is_named_and_the_next_one_read(tmp_path):
    lines = [
        b'{"a": 1}',
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": "\xe4"}',
        b"[1, 2]",
        b'"text"',
        b'{"a": 1',
        b'{"a": "' + b"x" * 1_000_000 + b'"}',
        b'{"a": "' + b"x" * 10_000_000 + b'"}',
        b'{"a": "\\ud800"}',
        b'{"a": "b\x00"}',
        json.dumps({f"f{n}": n for n in range(1001)}).encode(),
        b"not json",
        b"\xef\xbb\xbf{}",
        '{"a": "ä"}'.encode(),
    ]
    found = read(opened(tmp_path, b"\n".join(lines)))
    assert [line for line, _ in found] == list(range(1, 16))
    reasons = dict(found)
    assert reasons.pop(1) == {"a": 1}
    assert reasons.pop(15) == {"a": "ä"}
    expected = {
        2: "is not JSON: the field 'a' is given twice", 3: "is not JSON: NaN is not a JSON number",
        4: "is not UTF-8: byte 7 is 0xe4; save the file as UTF-8", 5: "must be a JSON object", 6: "must be a JSON object",
        7: "is not JSON: Expecting ',' delimiter, column 8", 8: "the line is longer than 1,000,000 bytes",
        9: "the line is longer than 1,000,000 bytes", 10: "is not JSON: a text holds half of a surrogate pair",
        11: "is not JSON: Invalid control character", 12: "has 1,001 fields, and at most 1,000 are taken",
        13: "is not JSON: Expecting value", 14: "is not JSON: Unexpected UTF-8 BOM",
    }  # fmt: skip
    assert {line: str(reason)[: len(expected[line])] for line, reason in reasons.items()} == expected


@pytest.mark.parametrize("n_bytes", [262_100, 262_144, 262_145, 524_288, 999_998, 999_999, 1_000_000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_line_of_the_longest_length_is_taken_wherever_the_pieces_end(tmp_path, n_bytes, end):
    line = b'{"a":"' + b"x" * (n_bytes - 8) + b'"}'
    assert len(line) == n_bytes
    source = opened(tmp_path, line + end + line + end + b'{"a":1}')
    assert [(number, len(row["a"]) if number < 3 else row) for number, row in read(source)] == [
        (1, n_bytes - 8), (2, n_bytes - 8), (3, {"a": 1}),
    ]  # fmt: skip


def test_one_line_with_one_object_is_a_row_unless_it_holds_the_rows(tmp_path):
    one = {"messages": [{"role": "user", "content": "a"}]}
    assert data_of(opened(tmp_path, json.dumps(one))) == [one]
    assert data_of(opened(tmp_path, json.dumps(one, indent=1))) == [one]
    for held in ({"data": ROWS}, {"anything": ROWS}, {"features": [{"name": "a"}], "rows": ROWS}):
        assert data_of(opened(tmp_path, json.dumps(held))) == ROWS
        assert data_of(opened(tmp_path, json.dumps(held, indent=1))) == ROWS
    two = {"data": {"prompt": "a"}, "annotations": [{"id": 1}]}
    assert data_of(opened(tmp_path, json.dumps(two))) == [two]


def test_lines_that_could_each_hold_the_rows_are_rows(tmp_path):
    assert data_of(opened(tmp_path, json_lines([{"data": ROWS}] * 2))) == [{"data": ROWS}] * 2


def test_a_broken_first_line_does_not_make_the_file_something_else(tmp_path):
    for first in ("not json", '{"a": "open', '{"a": [', "{'a': 1}", '"a","b"'):
        source = opened(tmp_path, f'{first}\n{{"a": 1}}\n{{"a": 2}}\n')
        assert source.kind == "jsonl"
        assert [row for _, row in read(source)][1:] == [{"a": 1}, {"a": 2}]


def test_an_object_longer_than_a_record_may_be_holds_the_rows(tmp_path):
    rows = [{"a": "x" * 1000, "n": n} for n in range(2000)]
    source = opened(tmp_path, json.dumps({"some name": rows}))
    assert source.kind == "json"
    assert data_of(source) == rows
    source = opened(tmp_path, json.dumps({"messages": rows}) + '\n{"a": 1}\n')
    assert source.kind == "jsonl"
    assert read(source) == [(1, "the line is longer than 1,000,000 bytes"), (2, {"a": 1})]


# Text: documents


def test_records_of_an_array_are_named_by_the_line_they_begin_on(tmp_path):
    text = '\n[\n\n{"a":\n\n1},\r\n {"a": 2}, {"a": {"b": [3,\n{}]}}\n,\n\n{"a": 4}\n]\n\n'
    source = opened(tmp_path, text)
    assert read(source) == [(4, {"a": 1}), (7, {"a": 2}), (7, {"a": {"b": [3, {}]}}), (11, {"a": 4})]


def test_records_of_a_document_without_lines_are_numbered(tmp_path):
    source = opened(tmp_path, '{"n": 3, "data": [{"a": 1}, {"a": tru}, {"a": 3}, 4]}\n')
    assert read(source) == [
        (1, {"a": 1}), (2, "is not JSON: Expecting value, character 7 of it"), (3, {"a": 3}), (4, "must be a JSON object"),
    ]  # fmt: skip
    assert [row.line for row in source.rows(skip=2)] == [3, 4]
    with pytest.raises(BadSource, match=r"the last row read is row 2\)"):
        list(opened(tmp_path, '[{"a": 1}, {"a": 2}, {').rows())


def test_a_broken_record_of_an_array_is_named_and_the_next_one_read(tmp_path):
    text = '[{"a": 1},\n{"a": tru},\n7,\n"x, ]",\n{"a": "' + "x" * 10_000_000 + '"},\n{"a": 1, "a": 1},\n[{}],\n{"a": 2}\n{"a": 3},,\n{"a": 4},\n]'
    found = read(opened(tmp_path, text))
    assert [line for line, _ in found] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 10, 10]
    assert [row for _, row in found if isinstance(row, dict)] == [{"a": 1}, {"a": 2}, {"a": 4}]
    reasons = [str(row).removeprefix("is not JSON: ")[:30] for _, row in found if isinstance(row, str)]
    assert reasons == [
        "Expecting value, line 2", "must be a JSON object", "must be a JSON object", "the record is longer than 1,00",
        "the field 'a' is given twice", "must be a JSON object", "no comma between this record a", "a comma with no record before ",
        "a comma with no record after i",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "n_rows", "message"),
    [
        ('[{"a": 1},\n{"a": 2}', 2, "The array that begins on line 1 is not closed: the file was cut off (the last row read is on line 2)"),
        ('[{"a": 1},\n{"a": ', 1, "The file ends inside the record that begins on line 2 (the last row read is on line 1)"),
        ('[{"a": 1},\n{"a": "x', 1, "The file ends inside the record that begins on line 2"),
        ('[{"a": 1}]\n[{"a": 2}]', 1, "There is more behind the end of the JSON on line 2"),
        ('[{"a": 1}\n}', 1, "A bracket on line 2 closes nothing"),
        ('{"data": [{"a": 1}\n], "data": [{"a": 2}]}', 1, "The field 'data' is given twice, the second time on line 2"),
        ('{"data": [{"a": 1}\n], "b" 1}', 1, "The object is not JSON on line 2"),
        ('{"data": [{"a": 1}\n] "b": 1}', 1, "The object is not JSON on line 2"),
        ('{"data": [{"a": 1}\n]', 1, "The object is not JSON on line 2"),
        ("[", 0, "The array that begins on line 1 is not closed"),
    ],
)  # fmt: skip
def test_a_document_that_breaks_off_gives_its_rows_and_then_says_where(tmp_path, text, n_rows, message):
    rows = []
    with pytest.raises(BadSource) as fault:
        rows.extend(row.data for row in opened(tmp_path, text).rows())
    assert str(fault.value).startswith(message)
    assert rows == [{"a": 1}, {"a": 2}][:n_rows]


def test_an_empty_array_has_no_rows(tmp_path):
    assert read(opened(tmp_path, "[]")) == []


def test_records_cut_anywhere_by_the_pieces_are_whole(tmp_path, monkeypatch):
    rows = [{"a": 'x"\\\\{[' * n, "b": [{"c": {"d": [{"e": [[n]]}]}}], "ä": "\u2028"} for n in range(30)]
    for text in (json.dumps(rows, indent=1), json.dumps(rows, ensure_ascii=False), json.dumps({"v": [1], "data": rows})):
        path = tmp_path / "upload"
        path.write_text(text)
        source = open_source(path)
        expected = read(source)
        assert [row for _, row in expected] == rows
        for piece_bytes in (1, 2, 3, 7, 64):
            monkeypatch.setattr("labeling.imports.sources.stored.PIECE_BYTES", piece_bytes)
            assert read(source) == expected
        monkeypatch.undo()


# Text: tables


def test_a_table_gives_its_rows_by_the_names_of_its_header(tmp_path):
    source = opened(tmp_path, 'prompt,chosen ,\n"a, b","x\r\ny ""z""",1\n\n,,2\n"last","",')
    assert source.kind == "csv"
    assert source.columns == ["prompt", "chosen", "column 3"]
    assert read(source) == [
        (2, {"prompt": "a, b", "chosen": 'x\r\ny "z"', "column 3": "1"}),
        (5, {"prompt": "", "chosen": "", "column 3": "2"}),
        (6, {"prompt": "last", "chosen": "", "column 3": ""}),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_way_of_dividing_cells_is_recognised(tmp_path, delimiter, quoting, end):
    rows = [["prompt", "chosen, and why", "n"], ["a; b, c|d\te", 'say "x"', "1"], ["no", "two\nlines", "2"], ["x,y;z", "", "3"]]
    text = csv_of(rows, delimiter=delimiter, quoting=quoting, lineterminator=end)
    assert data_of(opened(tmp_path, text)) == [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def test_a_space_after_the_delimiter_is_no_part_of_a_quoted_cell(tmp_path):
    assert data_of(opened(tmp_path, '"a", "b"\n"x, y", "z"\n')) == [{"a": "x, y", "b": "z"}]


def test_tabs_may_divide_cells_where_a_quote_is_only_a_quote(tmp_path):
    text = 'prompt\tchosen\n"Why?" she said.\t"No\nAnd then?\t"Yes" and "no"\n'
    assert data_of(opened(tmp_path, text)) == [
        {"prompt": '"Why?" she said.', "chosen": '"No'}, {"prompt": "And then?", "chosen": '"Yes" and "no"'},
    ]  # fmt: skip


def test_a_table_of_one_column_needs_a_name_that_looks_like_one(tmp_path):
    assert data_of(opened(tmp_path, 'prompt\nWhat?\n"a\nb"\n')) == [{"prompt": "What?"}, {"prompt": "a\nb"}]
    with pytest.raises(BadSource, match="neither JSON nor a table"):
        opened(tmp_path, "It was a dark night.\nIt rained.\n")


def test_rows_of_a_table_that_do_not_fit_are_named_and_the_next_one_read(tmp_path):
    text = 'a,b\n1\n1,2,3\n1,2\n"x"y,2\n3,4\n"\n\n' + "x" * 2_000_000 + '\n",1\n5,6\n"' + "long\n" * 300_000 + '",2\n7,8\n'
    found = read(opened(tmp_path, text))
    assert found == [
        (2, "has 1 cell, and the header 2"), (3, "has 3 cells, and the header 2"), (4, {"a": "1", "b": "2"}),
        (5, "is not CSV: ',' expected after '\"'"), (6, {"a": "3", "b": "4"}),
        (7, "the row is longer than 1,000,000 bytes (a quote that is never closed?)"), (11, {"a": "5", "b": "6"}),
        (12, "the row is longer than 1,000,000 bytes (a quote that is never closed?)"), (300_013, {"a": "7", "b": "8"}),
    ]  # fmt: skip
    for skip in range(10):
        assert read(opened(tmp_path, text), skip=skip) == found[skip:]


def test_a_quote_that_is_never_closed_is_named_by_the_line_it_opens_on(tmp_path):
    assert read(opened(tmp_path, 'a,b\n1,2\n3,"4\n5,6\n7,8\n')) == [
        (2, {"a": "1", "b": "2"}), (3, "is not CSV: unexpected end of data"),
    ]  # fmt: skip


def test_a_cell_that_is_not_utf8_or_holds_nul_costs_its_row_alone(tmp_path):
    found = read(opened(tmp_path, b'a,b\n"x\n\xe4",1\n"y\nz",\x00\n3,4\n\xc3\xa4,5\n'))
    assert found == [
        (2, "is not UTF-8: byte 0 is 0xe4; save the file as UTF-8"), (4, "a cell holds a NUL character, which databases refuse"),
        (6, {"a": "3", "b": "4"}), (7, {"a": "ä", "b": "5"}),
    ]  # fmt: skip


def test_two_columns_of_one_name_are_refused(tmp_path):
    with pytest.raises(BadSource, match="The header names the column 'a' 2 times"):
        opened(tmp_path, "a,b,a\n1,2,3\n")


def test_a_cell_with_a_line_of_json_is_still_a_cell(tmp_path):
    assert data_of(opened(tmp_path, 'prompt,n\n"code:\n{}\nend",1\n')) == [{"prompt": "code:\n{}\nend", "n": "1"}]


# gzip


def test_gzip_may_be_of_several_parts_and_padded(tmp_path):
    content = gzip.compress(json_lines(ROWS[:2])) + gzip.compress(json_lines(ROWS[2:])) + b"\0" * 512
    assert data_of(opened(tmp_path, content)) == ROWS


def test_gzip_of_very_many_parts_is_read_as_one(tmp_path):
    text = b"\xef\xbb\xbf" + json.dumps([{"a": "x" * 20_000}, *ROWS]).encode()
    parts = b"".join(gzip.compress(text[at : at + 3]) for at in range(0, len(text), 3))
    assert data_of(opened(tmp_path, parts)) == [{"a": "x" * 20_000}, *ROWS]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda packed: packed[:-20], "The gzip data end early: the file was cut off"),
        (lambda packed: packed[:-8] + b"\0" * 8, "The gzip data are damaged"),
        (lambda packed: packed + b"more", "The gzip data are damaged"),
        (lambda packed: packed[: len(packed) // 2] + b"\xff" * 100 + packed[len(packed) // 2 :], "The gzip data are damaged"),
    ],
)
def test_damaged_gzip_gives_the_rows_before_and_names_the_last(tmp_path, spoil, message):
    lines = json_lines([{"n": n, "text": str(n * 7919) * 9} for n in range(20_000)])
    rows = []
    with pytest.raises(BadSource, match=message) as fault:
        rows.extend(opened(tmp_path, spoil(gzip.compress(lines))).rows())
    assert len(rows) > 1000
    assert all(row.data and row.data["n"] == row.line - 1 for row in rows)
    assert f"(the last row read is on line {rows[-1].line:,})" in str(fault.value)


# Columns


def test_values_of_columns_come_as_json_would_have_them(tmp_path):
    table = pa.table(
        {
            "at": pa.array([datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)], pa.timestamp("ns", tz="UTC")),
            "day": pa.array([date(2024, 1, 2)]),
            "decimal": pa.array([Decimal("1.50")]),
            "text as bytes": pa.array(["ä".encode()]),
            "picture": pa.array([{"bytes": b"\x89PNG\xff", "path": "a.png"}]),
            "gap": pa.array([float("nan")]),
            "labels": pa.array(["x"]).dictionary_encode(),
            "map": pa.array([[("a", [1, None])]], pa.map_(pa.string(), pa.list_(pa.int64()))),
            "messages": pa.array([[{"role": "user", "content": "a"}]]),
            "nothing": pa.nulls(1),
            "yes": pa.array([True]),
        }
    )
    expected = {
        "at": "2024-01-02T03:04:05+00:00", "day": "2024-01-02", "decimal": 1.5, "text as bytes": "ä",
        "picture": {"bytes": None, "path": "a.png"}, "gap": None, "labels": "x", "map": {"a": [1, None]},
        "messages": [{"role": "user", "content": "a"}], "nothing": None, "yes": True,
    }  # fmt: skip
    for content in (parquet(table), arrow_stream(table), arrow_file(table)):
        source = opened(tmp_path, content)
        assert data_of(source) == [expected]
        assert source.columns == list(expected)
        json.dumps(expected)


def test_a_row_of_columns_that_cannot_be_stored_is_named_and_the_next_one_read(tmp_path):
    table = pa.table(
        {
            "a": ["1", "b\x00", "3", "4", "5", "x" * 2_000_000, "7"],
            "n": pa.array([1, 2, 2**63, 4, 5, 6, 7], pa.uint64()),
            "f": [1.0, 2.0, 3.0, float("inf"), 5.0, 6.0, 7.0],
            "t": pa.array([0, 0, 0, 0, 2**50, 0, 0], pa.timestamp("s")),
        }
    )
    for content in (parquet(table), arrow_stream(table)):
        found = read(opened(tmp_path, content))
        assert [line for line, _ in found] == [1, 2, 3, 4, 5, 6, 7]
        assert [line for line, row in found if isinstance(row, dict)] == [1, 7]
        assert [row[:30] for _, row in found if isinstance(row, str)] == [
            "a: a text holds a NUL characte", "n: a number does not fit into ", "f: a number is infinite", "holds a value that cannot be r",
            "the row is longer than 1,000,0",
        ]  # fmt: skip


def test_text_in_columns_that_is_not_utf8_costs_its_row_alone(tmp_path):
    broken = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"\xe4", b"c"]).buffers())
    for content in (parquet(pa.table({"a": broken})), arrow_stream(pa.table({"a": broken}))):
        assert read(opened(tmp_path, content)) == [(1, {"a": "a"}), (2, "holds text that is not UTF-8"), (3, {"a": "c"})]


def test_two_columns_of_one_name_are_refused_in_parquet_too(tmp_path):
    with pytest.raises(BadSource, match="The file has two columns 'a'"):
        opened(tmp_path, parquet(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])))


def test_going_on_inside_and_between_row_groups_keeps_the_numbers(tmp_path):
    rows = [{"n": n} for n in range(1, 1001)]
    source = opened(tmp_path, parquet(rows, row_group_size=300))
    for skip in (0, 1, 256, 299, 300, 301, 600, 899, 900, 999, 1000, 2000):
        assert read(source, skip=skip) == [(n, {"n": n}) for n in range(skip + 1, 1001)]


def test_reading_can_be_left_off_at_any_row(tmp_path):
    source = opened(tmp_path, parquet([{"n": n, "t": "x" * 1000} for n in range(10_000)]))
    rows = source.rows()
    assert next(rows).data["n"] == 0
    rows.close()
    assert next(source.rows(skip=5)).data["n"] == 5


# Folders


def test_a_folder_of_parquet_files_is_one_table(tmp_path):
    rows = [{"n": n} for n in range(1, 31)]
    for number in range(3):
        (tmp_path / f"train-0000{number}-of-00003.parquet").write_bytes(parquet(rows[number * 10 : number * 10 + 10]))
    (tmp_path / "test-00000-of-00001.parquet").write_bytes(parquet([{"n": 99}]))
    source = open_source(tmp_path, split="train")
    assert source.kind == "parquet"
    for skip in (0, 5, 10, 25, 30):
        assert read(source, skip=skip) == [(n, {"n": n}) for n in range(skip + 1, 31)]
    assert len(read(open_source(tmp_path))) == 31
    (tmp_path / "train-00003.parquet").write_bytes(parquet([{"other": 1}]))
    with pytest.raises(BadSource, match=r"train-00003\.parquet has other columns than"):
        open_source(tmp_path, split="train")


@pytest.fixture
def saved(tmp_path) -> Path:
    """What `datasets.save_to_disk` writes of a data set with two splits, one of them in two files."""
    folder = tmp_path / "saved"
    for split, parts in {"train": [ROWS[:2], ROWS[2:4]], "test": [ROWS[4:]]}.items():
        (folder / split).mkdir(parents=True)
        names = [f"data-{number:05}-of-{len(parts):05}.arrow" for number in range(len(parts))]
        for name, rows in zip(names, parts, strict=True):
            (folder / split / name).write_bytes(arrow_stream(pa.Table.from_pylist(rows)))
        state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0", "_split": split}
        (folder / split / "state.json").write_text(json.dumps(state))
        (folder / split / "dataset_info.json").write_text("{}")
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    return folder


def test_a_saved_data_set_is_read_whole_or_by_split(saved):
    source = open_source(saved)
    assert (source.kind, source.columns) == ("datasets", ["prompt", "n", "tags"])
    assert read(source) == list(enumerate(ROWS, start=1))
    assert read(source, skip=3) == list(enumerate(ROWS, start=1))[3:]
    assert data_of(open_source(saved, split="test")) == ROWS[4:]
    assert data_of(open_source(saved / "train")) == ROWS[:4]
    assert data_of(open_source(saved / "test", split="test")) == ROWS[4:]
    with pytest.raises(BadSource, match="no split 'dev' in the folder, only train, test"):
        open_source(saved, split="dev")
    with pytest.raises(BadSource, match="The folder holds the split 'test' alone"):
        open_source(saved / "test", split="train")
    with pytest.raises(BadSource, match="Only a folder has splits, and rows is a file"):
        open_source(saved / "test" / "state.json", filename="rows", split="train")


def test_what_the_library_itself_saved_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict(train=made, test=made.select([0])).save_to_disk(str(tmp_path / "saved"), num_shards={"train": 3, "test": 1})
    assert data_of(open_source(tmp_path / "saved", split="train")) == ROWS
    assert data_of(open_source(tmp_path / "saved" / "test")) == ROWS[:1]


@pytest.mark.parametrize("name", ["../secret.arrow", "/etc/passwd", "..", "", "sub/data.arrow", "link.arrow"])
def test_a_saved_data_set_cannot_name_a_file_elsewhere(saved, name):
    (saved / "secret.arrow").write_bytes(arrow_stream(TABLE))
    (saved / "train" / "link.arrow").symlink_to(saved / "secret.arrow")
    (saved / "train" / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(BadSource, match="which is not a file inside it"):
        open_source(saved)


@pytest.mark.parametrize("splits", ['["../elsewhere"]', '["/etc"]', "[1]", "[]", "{}"])
def test_a_saved_data_set_cannot_name_a_split_elsewhere(saved, splits):
    (saved / "dataset_dict.json").write_text(f'{{"splits": {splits}}}')
    with pytest.raises(BadSource, match=r"which is not a file inside it|list of splits is missing or broken"):
        open_source(saved)


@pytest.mark.parametrize("state", ["", "[]", "{}", '{"_data_files": []}', '{"_data_files": [1]}', '{"_data_files": [{}]}', "[" * 100_000])
def test_a_saved_data_set_with_a_broken_state_is_refused(saved, state):
    (saved / "train" / "state.json").write_text(state)
    with pytest.raises(BadSource):
        open_source(saved)


def test_a_saved_data_set_with_an_index_of_its_rows_is_refused(saved):
    state = {"_data_files": [{"filename": "a.arrow"}], "_indices_data_files": [{"filename": "b.arrow"}]}
    (saved / "train" / "state.json").write_text(json.dumps(state))
    with pytest.raises(BadSource, match="flatten_indices"):
        open_source(saved)


def test_a_saved_data_set_that_misses_a_file_is_refused(saved):
    (saved / "train" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(BadSource, match=r"data-00001-of-00002\.arrow is not there"):
        open_source(saved)
    shutil.rmtree(saved)
    with pytest.raises(BadSource, match="There is no saved"):
        open_source(saved)
    saved.mkdir()
    with pytest.raises(BadSource, match="holds no Parquet files"):
        open_source(saved)


# Limits


def test_more_rows_than_are_allowed_end_the_reading(tmp_path):
    limits = Limits(rows=3)
    for content in (json_lines(ROWS), json.dumps(ROWS), csv_of([["a", "b"], *[["1", "2"]] * 5])):
        source = opened(tmp_path, content, limits=limits)
        with pytest.raises(BadSource, match="There are more than 3 rows"):
            read(source)
        with pytest.raises(BadSource, match="There are more than 3 rows"):
            read(source, skip=2)
    for content in (parquet(ROWS), arrow_stream(TABLE)):
        with pytest.raises(BadSource, match=r"says that it holds 5 rows|holds more than 3 rows"):
            read(opened(tmp_path, content, limits=limits))


# Anything


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
OBJECTS = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=4), JSON, max_size=4)
# Cells of many control characters are a binary file.
CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\r\t"), max_size=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("sources")


@settings(max_examples=150)
@given(rows=st.lists(OBJECTS, min_size=1, max_size=5), ascii=st.booleans(), indent=st.sampled_from([None, 0, 2]))
@example(rows=[{}], ascii=True, indent=None)
@example(rows=[{"data": [{"a": 1}]}, {}], ascii=True, indent=2)
def test_any_objects_written_as_json_come_back(folder, rows, ascii, indent):
    lines = "\n".join(json.dumps(row, ensure_ascii=ascii) for row in rows) + "\n"
    if len(rows) > 1:
        assert data_of(opened(folder, lines)) == rows
    assert data_of(opened(folder, gzip.compress(lines.encode() + b'{"more": 1}\n'))) == [*rows, {"more": 1}]
    array = json.dumps(rows, ensure_ascii=ascii, indent=indent)
    source = opened(folder, array)
    assert data_of(source) == rows
    if rows[0]:
        assert data_of(opened(folder, json.dumps({"about": "x", "records": rows}, ensure_ascii=ascii, indent=indent))) == rows
    assert [row.line for row in source.rows(skip=1)] == [row.line for row in source.rows()][1:]


@settings(max_examples=150)
@given(rows=st.lists(st.lists(CELLS, min_size=3, max_size=3), max_size=6), delimiter=st.sampled_from(",;\t|"), end=st.sampled_from(["\n", "\r\n"]))
def test_any_texts_written_as_csv_come_back(folder, rows, delimiter, end):
    header = ["prompt", "chosen", "rejected"]
    text = csv_of([header, *rows], delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator=end)
    assert data_of(opened(folder, text)) == [dict(zip(header, row, strict=True)) for row in rows]


@settings(max_examples=12)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "prompt": st.none() | CELLS,
                "n": st.none() | st.integers(-(2**63), 2**63 - 1),
                "f": st.none() | st.floats(allow_nan=False, allow_infinity=False),
                "messages": st.none() | st.lists(st.fixed_dictionaries({"role": CELLS, "content": st.none() | CELLS}), max_size=3),
            }
        ),
        min_size=1,
        max_size=8,
    ),
    size=st.integers(1, 4),
)
def test_any_rows_written_as_columns_come_back(folder, rows, size):
    schema = pa.schema(
        [("prompt", pa.string()), ("n", pa.int64()), ("f", pa.float64()),
         ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))]
    )  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=schema)
    assert data_of(opened(folder, parquet(table, row_group_size=size))) == rows
    assert data_of(opened(folder, arrow_stream(table, size))) == rows


# Real files


def test_real_files_are_read_to_the_last_row():
    counts = {
        "hh-rlhf/harmless-mild.jsonl.gz": 637, "oasst/ranked-trees.jsonl.gz": 69, "oasst/prompts.jsonl": 163,
        "oasst/completions.jsonl.gz": 1455, "pandalm/testset-v1.jsonl.gz": 464, "llmbar/pairs.jsonl": 213,
        "llmbar/mtbench-majority.jsonl": 101, "self-instruct/seed-tasks.jsonl": 100,
    }  # fmt: skip
    for name, n_rows in counts.items():
        source = open_source(shared_file(name))
        rows = list(source.rows())
        assert source.kind == "jsonl"
        assert [row.line for row in rows] == list(range(1, n_rows + 1)), name
        assert not any(row.problem for row in rows), name
