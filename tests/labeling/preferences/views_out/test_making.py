"""Files of views are made whole, once, by one maker."""

import gzip
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from labeling.preferences.errors import BeingMade, UnknownView
from labeling.preferences.views_of_snapshots import VIEWS, view_file
from labeling.preferences.views_out import making
from labeling.preferences.views_out.making import made, make

HOLD = """
import sys, time
from pathlib import Path
from labeling.preferences.views_out.making import make
def write(output):
    output.write(b"half")
    print("writing", flush=True)
    time.sleep(600)
make(Path(sys.argv[1]), write)
"""


@pytest.mark.django_db
def test_what_is_known_of_a_file_is_what_it_holds(snapshot):
    for name, view in VIEWS.items():
        for kind in view.kinds:
            path = view_file(snapshot, split="train", view=name, format=kind)
            content = path.read_bytes()
            known = made(path)
            assert known["sha256"] == hashlib.sha256(content).hexdigest() and known["bytes"] == len(content)
        assert len({made(path)["rows"] for path in path.parent.glob(f"{name}.*train.*")}) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_gzip_files_hold_the_plain_ones_and_have_no_time_in_them(snapshot, kind):
    plain = view_file(snapshot, split="train", view="votes", format=kind).read_bytes()
    zipped = view_file(snapshot, split="train", view="votes", format=f"{kind}.gz")
    first = zipped.read_bytes()
    assert gzip.decompress(first) == plain and first[4:8] == b"\0\0\0\0"
    zipped.unlink()
    time.sleep(1.1)  # a time in the header would have moved on
    assert view_file(snapshot, split="train", view="votes", format=f"{kind}.gz").read_bytes() == first


@pytest.mark.django_db
def test_what_a_view_does_not_come_as_is_named(snapshot):
    for view, split, kind in (
        ("argilla", "train", "parquet"), ("pairs", "train", "json"), ("pairs", "all", "jsonl"), ("pairs", "config", "xml"),
        ("pairs", "../votes", "jsonl"), ("pairs", "train", "jsonl/../x"),
    ):  # fmt: skip
        with pytest.raises(UnknownView, match=f"{view} has no"):
            view_file(snapshot, split=split, view=view, format=kind)


def test_of_many_who_ask_at_once_one_makes_and_all_get_the_file(tmp_path):
    makers, begun = [], threading.Barrier(8)

    def write(output):
        makers.append(1)
        for _ in range(50):
            output.write(b"x" * 1000)
        return 50

    def ask():
        begun.wait()
        make(tmp_path / "views" / "file", write)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(makers) == 1 and made(tmp_path / "views" / "file") == {
        "sha256": hashlib.sha256(b"x" * 50_000).hexdigest(), "rows": 50, "bytes": 50_000,
    }  # fmt: skip


def test_who_waits_too_long_is_told_and_a_killed_maker_is_replaced(tmp_path, monkeypatch):
    target = tmp_path / "views" / "file"
    target.parent.mkdir()
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings"}
    program = "import django; django.setup()\n" + HOLD
    maker = subprocess.Popen([sys.executable, "-c", program, str(target)], stdout=subprocess.PIPE, env=environment)
    try:
        assert maker.stdout.readline() == b"writing\n"
        monkeypatch.setattr(making, "PATIENCE_SECONDS", 0.2)
        with pytest.raises(BeingMade, match="ask again"):
            make(target, lambda output: pytest.fail("two make it at once"))
        assert made(target) is None and not target.exists()
    finally:
        maker.send_signal(signal.SIGKILL)
        maker.wait()
    make(target, lambda output: output.write(b"whole") // 5)
    assert target.read_bytes() == b"whole" and made(target)["rows"] == 1
    assert not list(target.parent.glob("*.making"))


def test_a_maker_that_fails_leaves_no_file(tmp_path):
    target = tmp_path / "views" / "file"

    def breaks(output):
        output.write(b"half")
        raise OSError("no space left")

    with pytest.raises(OSError):
        make(target, breaks)
    assert made(target) is None and not target.exists()
    make(target, lambda output: output.write(b"x"))
    assert target.read_bytes() == b"x"


def test_a_file_cut_short_is_made_again(tmp_path):
    target = tmp_path / "views" / "file"
    make(target, lambda output: output.write(b"whole"))
    target.write_bytes(b"who")
    assert made(target) is None
    make(target, lambda output: output.write(b"whole"))
    assert target.read_bytes() == b"whole"
