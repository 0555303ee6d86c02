"""Files made to break an import: each is refused in words, or costs the rows it spoils and no others.

All are read by one process of their own, whose peak of memory, and that of the processes it starts, is measured.
"""

import gzip
import io
import json
import os
import pickle
import random
import re
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labeling.imports.sources import BadSource, Limits, open_source

ROOT = Path(__file__).resolve().parents[2]
MAX_PEAK_BYTES = 256 * 2**20
MB = 1_000_000
TOO_LONG = "longer than 1,000,000 bytes"


@dataclass(frozen=True)
class Hostile:
    """`fault` is what reading ends with, "" where it goes on to the end. `problems`: why which line gives no row."""

    content: Callable[[], bytes]
    fault: str = ""
    n_good: int = 0
    problems: dict[int, str] = field(default_factory=dict)
    n_problems: int | None = None


def packed_many_times(row: bytes, times: int = 640, before: bytes = b"") -> bytes:
    """gzip that unpacks to `times` times 16 MiB of one row."""
    return gzip.compress(before, mtime=0) + gzip.compress(row * (2**24 // len(row)), mtime=0) * times


def spoiled(packed: bytes, at: int, byte: int = 0xFF) -> bytes:
    return packed[:at] + bytes([packed[at] ^ byte]) + packed[at + 1 :]


def lines(n: int) -> bytes:
    return b"".join(b'{"n": %d, "text": "%d"}\n' % (k, k * 7919**3) for k in range(1, n + 1))


def parquet(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def arrow(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return file.getvalue()


def one_text_many_times(n: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int32()), pa.array(["x" * 900_000]))


def one_list(of: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array([0, len(of)], pa.int32()), of)


def lying_about_rows() -> bytes:
    content = parquet(pa.table({"n": list(range(1000))}), compression="none")
    n_footer = int.from_bytes(content[-8:-4], "little")
    body, footer = content[: -8 - n_footer], content[-8 - n_footer :]
    # Zigzag varints of 1,000 and 1,100, wherever the footer gives a number of rows or values.
    return body + footer.replace(b"\xd0\x0f", b"\x98\x11")


def deep_column(levels: int) -> pa.Table:
    kind = pa.int64()
    for _ in range(levels):
        kind = pa.struct([("a", kind)])
    return pa.table({"deep": pa.nulls(1, kind)})


def offsets(*ends: int) -> bytes:
    return b"".join(end.to_bytes(4, "little") for end in ends)


def offsets_out_of_bounds() -> bytes:
    content = arrow(pa.table({"a": ["a" * 11, "b" * 13, "c" * 17]}))
    assert offsets(0, 11, 24, 41) in content
    return content.replace(offsets(0, 11, 24, 41), offsets(0, 2**30, 2**31 - 1, 5))


def archive(kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as made:
            made.writestr("../../outside.jsonl", '{"prompt": "a"}')
    else:
        with tarfile.open(fileobj=file, mode="w:gz" if kind == "tar.gz" else "w") as made:
            info = tarfile.TarInfo("../../outside.jsonl")
            info.size = 5
            made.addfile(info, io.BytesIO(b"[{}]\n"))
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            made.addfile(link)
    return file.getvalue()


def database() -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table prompts (prompt text)")
    return connection.serialize()


class Canary:
    def __reduce__(self):
        return os.mkdir, ("canary",)


def named_gzip(name: bytes) -> bytes:
    packed = gzip.compress(lines(2), mtime=0)
    return packed[:3] + b"\x08" + packed[4:10] + name + b"\0" + packed[10:]


GOOD = b'{"ok": 1}\n'


def between(line: bytes) -> bytes:
    """A good line, the bad one, a good line."""
    return GOOD + line + b"\n" + GOOD


def bad_line(line: bytes, why: str) -> Hostile:
    return Hostile(lambda: between(line), n_good=2, problems={2: why})


HOSTILE = {
    # gzip
    "gzip of gzip": Hostile(lambda: gzip.compress(gzip.compress(lines(9))), "gzip inside gzip"),
    "gzip of gzip of gzip": Hostile(lambda: gzip.compress(gzip.compress(gzip.compress(b"\0" * 10**7))), "gzip inside gzip"),
    "10 GB of zeros": Hostile(lambda: packed_many_times(b"\0"), "The file is binary"),
    "10 GB of blank lines": Hostile(lambda: packed_many_times(b"\n"), "nothing but blank lines"),
    "10 GB of blanks in an array": Hostile(lambda: packed_many_times(b" ", before=b"["), "more than 100 times their size"),
    "10 GB in a line": Hostile(lambda: packed_many_times(b"x", before=b'{"a": "'), "more than 100 times their size"),
    "10 GB in a record": Hostile(lambda: packed_many_times(b"x", before=b'[{"a": "'), "more than 100 times their size"),
    "10 GB in a cell": Hostile(lambda: packed_many_times(b"x", before=b'a,b\n1,"'), "more than 100 times their size"),
    "10 GB in the lines of a cell": Hostile(lambda: packed_many_times(b"x\n", before=b'a,b\n1,"'), "more than 100 times their size"),
    "10 GB of rows": Hostile(
        lambda: packed_many_times(GOOD * 1000), r"more than 100 times their size \(the last row read is on line [\d,]+\)", n_good=-1
    ),
    "the head of gzip alone": Hostile(lambda: gzip.compress(lines(9))[:8], "The gzip data end early"),
    "gzip cut off": Hostile(lambda: gzip.compress(lines(99_999))[:-9], r"end early: .* \(the last row read is on line [\d,]+\)", n_good=-1),
    "gzip with a wrong sum": Hostile(lambda: spoiled(gzip.compress(lines(9)), -8), "The gzip data are damaged: incorrect data check"),
    "gzip with a broken middle": Hostile(lambda: spoiled(gzip.compress(lines(99_999)), 500_000), "The gzip data are damaged", n_good=-1, n_problems=-1),
    "gzip naming a file elsewhere": Hostile(lambda: named_gzip(b"../../outside.jsonl"), n_good=2),
    "gzip naming an absolute file": Hostile(lambda: named_gzip(b"/etc/passwd"), n_good=2),
    "gzip of Parquet": Hostile(lambda: gzip.compress(parquet(pa.table({"a": [1]}))), "Parquet or Arrow inside gzip"),
    # what is no text
    "nothing": Hostile(lambda: b"", "The file is empty"),
    "gzip of nothing": Hostile(lambda: gzip.compress(b""), "The file is empty"),
    "blanks": Hostile(lambda: b" \n\r\n\t", "The file is empty"),
    "a pickle": Hostile(lambda: pickle.dumps(Canary(), 4), "Python pickle, which is never read because it can run code"),
    "a pickle of the first kind": Hostile(lambda: pickle.dumps(Canary(), 0), "Python pickle"),
    "gzip of a pickle": Hostile(lambda: gzip.compress(pickle.dumps(Canary(), 2)), "Python pickle"),
    "a ZIP archive": Hostile(lambda: archive("zip"), "The file is a ZIP archive"),
    "a tar archive": Hostile(lambda: archive("tar"), "The file is a tar archive"),
    "a packed tar archive": Hostile(lambda: archive("tar.gz"), "The file is a tar archive"),
    "a database": Hostile(database, "The file is an SQLite database"),
    "an image": Hostile(lambda: b"\x89PNG\r\n\x1a\n" + bytes(99), "The file is a PNG image"),
    "a program": Hostile(lambda: b"\x7fELF\x02\x01\x01" + bytes(99), "The file is a program"),
    "weights": Hostile(lambda: b"\x40\0\0\0\0\0\0\0" + b'{"a":{"dtype":"F32"}}' + bytes(999), "model weights"),
    "noise": Hostile(lambda: random.Random(1).randbytes(MB), "The file is binary"),
    "a web page": Hostile(lambda: b"<!DOCTYPE html><html><script>alert(1)</script></html>", "a web page or XML"),
    "a bomb of entities": Hostile(
        lambda: b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><a>&c;</a>', "a web page or XML"
    ),
    # encodings
    "UTF-16 with a mark": Hostile(lambda: lines(9).decode().encode("utf-16"), "The text is UTF-16, not UTF-8: save it as UTF-8"),
    "UTF-16 without a mark": Hostile(lambda: lines(9).decode().encode("utf-16-be"), "The text is UTF-16BE, not UTF-8"),
    "UTF-32": Hostile(lambda: lines(9).decode().encode("utf-32"), "The text is UTF-32, not UTF-8"),
    "Latin-1": Hostile(lambda: '{"a": "ä"}\n'.encode("latin-1") * 9, "byte 0xe4 on line 1. It looks like Latin-1 or Windows-1252"),
    "a table in Latin-1": Hostile(lambda: "a,b\nä,1\né,2\n".encode("latin-1"), "byte 0xe4 on line 2. It looks like Latin-1"),
    "Shift JIS": Hostile(lambda: '{"a": "日本語"}\n'.encode("shift-jis") * 9, "looks like an older encoding of another script"),
    "lines of an old Mac": Hostile(lambda: lines(9).replace(b"\n", b"\r"), "carriage returns alone"),
    "a table of an old Mac": Hostile(lambda: b"a,b\r1,2\r", "carriage returns alone"),
    "a character written too long": bad_line(b'{"a": "\xc0\x80"}', "is not UTF-8: byte 7 is 0xc0"),
    "half a pair written as UTF-8": bad_line(b'{"a": "\xed\xa0\x80"}', "is not UTF-8: byte 7 is 0xed"),
    # JSON
    "a million brackets": Hostile(lambda: b"[" * MB, "The file ends inside the record that begins on line 1"),
    "a million brackets and back": Hostile(lambda: b"[" * MB + b"]" * MB, problems={1: "the record is longer"}),
    "a million brackets in a line": bad_line(b'{"a":' * MB + b"1" + b"}" * MB, TOO_LONG),
    "100,000 brackets in a line": bad_line(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    "65 levels": bad_line(b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", "nested too deeply"),
    "1e309": bad_line(b'{"a": 1e309}', "a number is too large"),
    "NaN": bad_line(b'{"a": NaN}', "NaN is not a JSON number"),
    "infinity": bad_line(b'{"a": [-Infinity]}', "-Infinity is not a JSON number"),
    "a number of 900,000 digits": bad_line(b'{"a": ' + b"9" * 900_000 + b"}", "does not fit into 64 bits"),
    "half a pair": bad_line(b'{"a": "\\udfff"}', "half of a surrogate pair"),
    "NUL": bad_line(b'{"a": "\0"}', "Invalid control character"),
    "NUL, escaped": bad_line(b'{"\\u0000": 1}', "NUL"),
    "a field given twice": bad_line(b'{"a": 1, "\\u0061": 2}', "the field 'a' is given twice"),
    "100,000 fields": bad_line(b"{" + b",".join(b'"%d":0' % n for n in range(90_000)) + b"}", "has 90,000 fields"),
    "a line of 10 MB": bad_line(b'{"a": "' + b"x" * 10 * MB + b'"}', TOO_LONG),
    "a record of 10 MB": Hostile(
        lambda: b'[{"ok": 1},\n{"a": "' + b"x" * 10 * MB + b'"},\n{"ok": 1}]', n_good=2, problems={2: TOO_LONG}
    ),
    "a record of a million escapes": Hostile(
        lambda: b'[{"ok": 1},\n{"a": "' + b"\\" * 2 * MB + b'"},\n{"ok": 1}]', n_good=2, problems={2: TOO_LONG}
    ),
    "half a million commas": Hostile(lambda: b"[" + b"," * 500_000 + b"]", n_problems=500_001),
    "an array cut off": Hostile(lambda: b'[{"ok": 1},\n{"ok"', r"inside the record that begins on line 2 \(the last row", n_good=1),
    "a text never closed": Hostile(lambda: b'[{"ok": 1},\n{"a": "' + b"x,{}" * MB, "inside the record that begins on line 2", n_good=1),
    # tables
    "a header of a million columns": Hostile(lambda: b"a," * MB + b"a\n", "first line cannot be read as a header: the row is longer"),
    "a header of 100,000 columns": Hostile(lambda: b",".join(b"c%d" % n for n in range(100_000)) + b"\n", "There are 100,000 columns"),
    "a row of a million columns": Hostile(lambda: b"a,b\n1,2\n" + b"," * (MB - 1) + b"\n3,4\n", n_good=2, problems={3: "has 1,000,000 cells"}),
    "a cell of 10 MB": Hostile(lambda: b"a,b\n1,2\n3," + b"x" * 10 * MB + b"\n5,6\n", n_good=2, problems={3: TOO_LONG}),
    "a quote never closed": Hostile(lambda: b'a,b\n1,2\n3,"' + b"x,y\n" * MB, n_good=1, problems={3: TOO_LONG}),
    "a million quotes": Hostile(lambda: b"a,b\n1,2\n" + b'"' * (MB - 9) + b"\n3,4\n", n_good=1, n_problems=1),
    "a table with NUL": Hostile(lambda: b"a,b\n1,\0\n3,4\n", n_good=1, problems={2: "NUL"}),
    "two columns of one name": Hostile(lambda: b"a,b,a\n1,2,3\n", "names the column 'a' 2 times"),
    # Parquet
    "four bytes of Parquet": Hostile(lambda: b"PAR1", "it was cut off"),
    "Parquet cut off": Hostile(lambda: parquet(pa.table({"a": [1, 2]}))[:-5], "it was cut off"),
    "noise as Parquet": Hostile(lambda: b"PAR1" + random.Random(1).randbytes(9999) + (9999).to_bytes(4, "little") + b"PAR1", "is damaged"),
    "a footer past the beginning": Hostile(lambda: b"PAR1" + bytes(99) + b"\xff\xff\xff\x7fPAR1", "footer says that it takes 2,147,483,647 bytes"),
    "an encrypted footer": Hostile(lambda: b"PAR1" + bytes(99) + b"\x09\0\0\0PARE", "The file is encrypted"),
    "a footer lying about rows": Hostile(lying_about_rows, "damaged|says that it holds 1,100", n_good=-1),
    "9 million rows of nothing": Hostile(lambda: parquet(pa.table({"a": pa.nulls(9 * MB, pa.int8())})), "says that it holds 9,000,000 rows"),
    "100,000 times one long text": Hostile(lambda: parquet(pa.table({"a": one_text_many_times(100_000)})), "unpack"),
    "a list of a million times one long text": Hostile(
        lambda: parquet(pa.table({"a": one_list(one_text_many_times(MB))})), "memory|", n_problems=-1
    ),
    "a list of 30 million gaps": Hostile(lambda: parquet(pa.table({"a": one_list(pa.nulls(30 * MB, pa.int64()))})), "more memory"),
    "a cell of 100 MB": Hostile(lambda: parquet(pa.table({"a": ["x" * 100 * MB]}), compression="zstd"), "says that it unpacks to"),
    "a cell of 2 MB": Hostile(lambda: parquet(pa.table({"a": ["a", "x" * 2 * MB, "b"]})), n_good=2, problems={2: TOO_LONG}),
    "2,000 columns": Hostile(lambda: parquet(pa.table({f"c{n}": [1] for n in range(2000)})), "has 2,000 columns, and at most 1,000"),
    "a column 70 levels deep": Hostile(lambda: parquet(deep_column(70)), "nested too deeply|damaged"),
    "Parquet with two columns of one name": Hostile(
        lambda: parquet(pa.Table.from_arrays([pa.array([1])] * 2, names=["a", "a"])), "has two columns 'a'"
    ),
    # Arrow
    "the head of Arrow alone": Hostile(lambda: b"ARROW1\0\0", "is damaged"),
    "Arrow with a head of 2 GB": Hostile(lambda: b"\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(99), "is damaged|more memory"),
    "Arrow cut off": Hostile(lambda: arrow(pa.table({"a": list(range(9999))}))[:-5000], "is damaged"),
    "Arrow with offsets out of bounds": Hostile(offsets_out_of_bounds, n_problems=-1),
    "packed Arrow of 300 MB": Hostile(lambda: arrow(pa.table({"a": ["x" * MB] * 300}), compression="zstd"), "more memory"),
    "Arrow with a column 62 levels deep": Hostile(lambda: arrow(deep_column(62)), "nested too deeply"),
}  # fmt: skip

TEXT = "naïve “text” of a completion, " * 40
ROWS = [{"prompt": f"{n} {TEXT}", "chosen": f"{TEXT} {n * 7919}"} for n in range(20_000)]
# Far more than may lie in memory at once, in one array, one row group, one batch after the other.
HONEST = {
    "50 MB of lines": lambda: "\n".join(map(json.dumps, ROWS)).encode(),
    "50 MB of lines, packed": lambda: gzip.compress("\n".join(f'{{"n": {n}, "text": "{n**300}"}}' for n in range(1, 20_001)).encode(), 1),
    "50 MB in an array": lambda: json.dumps(ROWS, indent=1).encode(),
    "50 MB in an object": lambda: json.dumps({"data": ROWS}).encode(),
    "50 MB in a table": lambda: "".join(["prompt,chosen\n", *(f'"{row["prompt"]}","{row["chosen"]}\n"\n' for row in ROWS)]).encode(),
    "50 MB in one row group": lambda: parquet(pa.Table.from_pylist(ROWS), compression="none", use_dictionary=False),
    "50 MB in one page": lambda: parquet(
        pa.Table.from_pylist(ROWS), use_dictionary=False, data_page_size=2**30, write_batch_size=2**20, max_rows_per_page=2**20
    ),
    "50 MB in one batch": lambda: arrow(pa.Table.from_pylist(ROWS)),
    "50 MB in one packed batch": lambda: arrow(pa.Table.from_pylist(ROWS), compression="lz4"),
}  # fmt: skip

READER = """
import json, resource, sys
from pathlib import Path
from labeling.imports.sources import BadSource, open_source

def peak():
    own = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return own * 1024, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024

idle, _ = peak()
for path in sys.argv[1:]:
    found = {"fault": "", "n_good": 0, "n_problems": 0, "problems": {}}
    try:
        for row in open_source(Path(path)).rows():
            if row.data is None:
                found["n_problems"] += 1
                if found["n_problems"] < 10:
                    found["problems"][row.line] = row.problem
            else:
                found["n_good"] += 1
    except BadSource as fault:
        found["fault"] = str(fault)
    own, others = peak()
    print(json.dumps({**found, "peak": own - idle + others}), flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("hostile")


def read_by_a_process(folder: Path, contents: dict[str, Callable[[], bytes]]) -> dict[str, dict[str, Any]]:
    """What one process made of all the files, one after the other, and its peak of memory after each."""
    paths = []
    for number, content in enumerate(contents.values()):
        path = folder / f"{number}"
        path.write_bytes(content())
        paths.append(str(path))
    done = subprocess.run([sys.executable, "-c", READER, *paths], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(contents, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.fixture(scope="module")
def found(folder) -> dict[str, dict[str, Any]]:
    return read_by_a_process(folder, {name: case.content for name, case in HOSTILE.items()})


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_words_and_spoils_no_other_row(found, name):
    case, result = HOSTILE[name], found[name]
    if case.fault:
        assert re.search(case.fault, result["fault"]), result
    else:
        assert result["fault"] == ""
    if case.n_good >= 0:
        assert result["n_good"] == case.n_good
    if case.problems:
        assert list(result["problems"]) == [str(line) for line in case.problems]
        for line, why in case.problems.items():
            assert why in result["problems"][str(line)]
    if case.n_problems != -1:
        assert result["n_problems"] == (len(case.problems) if case.n_problems is None else case.n_problems)
    # Whoever sent the file has nothing of this machine in the answer.
    said = " ".join([result["fault"], *result["problems"].values()])
    assert "/tmp" not in said and "Traceback" not in said and str(ROOT) not in said


def test_there_are_sixty_hostile_files_at_least():
    assert len(HOSTILE) >= 60


def test_memory_stays_within_bounds_over_all_of_them(found):
    peaks = {name: result["peak"] for name, result in found.items()}
    assert max(peaks.values()) < MAX_PEAK_BYTES, peaks


def test_memory_stays_within_bounds_over_long_honest_files(tmp_path):
    found = read_by_a_process(tmp_path, HONEST)
    assert {name: (result["fault"], result["n_good"]) for name, result in found.items()} == dict.fromkeys(HONEST, ("", 20_000))
    of_text = max(result["peak"] for name, result in found.items() if "one" not in name)
    assert of_text < 40 * 2**20, found
    assert max(result["peak"] for result in found.values()) < MAX_PEAK_BYTES, found


def test_nothing_in_a_file_is_run_or_written(found, folder):
    assert not (ROOT / "canary").exists()
    assert not list(folder.rglob("canary")) and not list(folder.parent.rglob("outside.jsonl"))
    assert {path.name for path in folder.iterdir()} >= {str(number) for number in range(len(HOSTILE))}


# Made by chance

SEEDS = [
    lines(3), b'{"a": [1, {"b": null}], "c": "\\u00e4\\ud83d\\ude00"}\r\n\r\n{"a": 1.5e3}', b'[\n {"a": 1},\n {"a": "x]"}\n]\n',
    b'{"v": 1, "data": [{"a": 1}, {"a": [2]}], "w": {}}', b'{\n "a": 1,\n "b": [{"c": 2}]\n}\n', b'a,b,c\n1,"x\ny",3\n4,"""",6\n',
    b"a\tb\r\n1\t2\r\n", "prompt;n\nä;1\n".encode(), b"\xef\xbb\xbfprompt\nx\n", gzip.compress(lines(3), mtime=0),
    gzip.compress(b"a,b\n1,2\n", mtime=0) + gzip.compress(b"3,4\n", mtime=0),
]  # fmt: skip
SPLINTERS = [
    b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"\x1f\x8b", b"\xed\xa0\x80", b"NaN", b"1e999",
    b'""', b'"a":', b"\\u0000", b"\\ud800", b"9" * 30, b"\t", b";", b" ", b"PAR1", b"<html", b'{"a": 1}\n', b'{"data": [', b"x" * 300,
]  # fmt: skip


def mutated(random: random.Random, content: bytes) -> bytes:
    for _ in range(random.randint(1, 6)):
        at = random.randint(0, len(content))
        end = at + random.choice([0, 0, 1, 1, 2, 10])
        content = content[:at] + random.choice([b"", random.choice(SPLINTERS), random.randbytes(1)]) + content[end:]
        if random.random() < 0.05:
            content = content[: random.randint(0, len(content))]
        if random.random() < 0.05:
            content += random.choice(SEEDS)
    return content


def read_all(path: Path, limits: Limits | None = None) -> list[Any]:
    """Rows, twice the same and the same from the middle on, and what reading ended with. Raises nothing of its own."""
    try:
        source = open_source(path, limits=limits)
    except BadSource as fault:
        assert str(fault)
        return [str(fault)]
    outcomes = []
    for skip in (0, 2):
        found: list[Any] = []
        try:
            for row in source.rows(skip=skip):
                assert (row.data is None) == bool(row.problem)
                assert row.line >= 1 and (row.data is None or isinstance(row.data, dict))
                found.append(row)
        except BadSource as fault:
            found.append(str(fault))
        outcomes.append(found)
    whole, rest = ([row for row in found if not isinstance(row, str)] for found in outcomes)
    assert repr(whole[2:]) == repr(rest)
    json.dumps([row.data for row in whole]).encode()
    return outcomes[0]


def test_20000_mutated_texts_end_in_rows_or_words(folder):
    chance = random.Random(20261122)
    path = folder / "mutated"
    n_with_rows = 0
    for number in range(20_000):
        content = mutated(chance, chance.choice(SEEDS))
        if content.startswith((b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")):
            continue
        path.write_bytes(content)
        try:
            n_with_rows += len(read_all(path, Limits(record_bytes=chance.choice([40, 1_000_000])))) > 1
        except Exception as error:
            raise AssertionError(f"input {number}: {content!r}") from error
    # Enough of them are still files, so that the readers were tried and not the refusals alone.
    assert n_with_rows > 5_000


def test_mutated_columns_end_in_rows_or_words(folder):
    """Each is unpacked by a process of its own, so these are few; that a crash of the library is no crash of ours is the point."""
    chance = random.Random(20261122)
    path = folder / "mutated"
    table = pa.table({"a": ["x", None, "yy" * 50] * 9, "b": [[1], None, [2, 3]] * 9, "c": pa.array(["u", "v", "u"] * 9).dictionary_encode()})
    seeds = [parquet(table), parquet(table, compression="zstd", row_group_size=5), arrow(table), arrow(table, compression="lz4")]
    for number in range(40):
        content = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(8, len(content) - 4)] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        path.write_bytes(content)
        try:
            read_all(path)
        except Exception as error:
            raise AssertionError(f"input {number}: {bytes(content)!r}") from error
