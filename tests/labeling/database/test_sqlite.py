"""Threads and processes wait for one another's writes in line; a writer outside is waited for as SQLite does."""

import fcntl
import itertools
import os
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.db import DatabaseError, OperationalError, connection, transaction

from labeling.database.sqlite import base
from labeling.live.models import Event
from tests.services.databases import use_database_file

use_database_file()
pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "sqlite", reason="of SQLite alone"),
]

HOLD_LOCK = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
database.execute("ROLLBACK")
"""


def in_threads(n: int, work) -> list:
    def run(number: int):
        try:
            return work(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(run, range(n)))


def write(group: str) -> None:
    with transaction.atomic():
        Event.objects.create(group=group, name="x")
        with transaction.atomic():
            Event.objects.create(group=group, name="y")


def test_sixteen_threads_write_all_they_have_to():
    in_threads(16, lambda number: [write(str(number)) for _ in range(20)])
    assert Event.objects.count() == 16 * 20 * 2


@pytest.mark.parametrize("how", ["error", "refused statement", "closed connection"])
def test_a_transaction_that_fails_lets_the_next_one_in(how):
    def fail(_number: int) -> None:
        with pytest.raises((ZeroDivisionError, DatabaseError)), transaction.atomic():
            Event.objects.create(group="g", name="x")
            if how == "error":
                raise ZeroDivisionError
            if how == "closed connection":
                connection.close()
            Event.objects.raw("SELECT nothing FROM nowhere")[0]

    in_threads(4, fail)
    assert not base._turn.locked()
    write("after")
    assert set(Event.objects.values_list("group", flat=True)) == {"after"}


def test_another_process_that_writes_is_waited_for_and_its_end_seen():
    path = str(connection.settings_dict["NAME"])
    with subprocess.Popen([sys.executable, "-c", HOLD_LOCK, path, "0.5"], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        began = time.monotonic()
        in_threads(4, lambda number: write(str(number)))
        assert time.monotonic() - began > 0.2
    assert Event.objects.count() == 8


HOLD_TURN = """
import fcntl, sys, time
file = open(sys.argv[1] + "-turn", "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


def test_a_process_that_dies_in_its_turn_lets_the_next_one_in():
    path = str(connection.settings_dict["NAME"])
    with subprocess.Popen([sys.executable, "-c", HOLD_TURN, path], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        writer = threading.Thread(target=in_threads, args=(4, lambda number: write(str(number))))
        writer.start()
        writer.join(0.3)
        assert writer.is_alive() and Event.objects.count() == 0
        other.kill()
        writer.join(60)
    assert Event.objects.count() == 8


def test_a_child_waits_for_its_parent_and_not_as_its_parent():
    path = str(connection.settings_dict["NAME"])
    write("parent")
    with open(f"{path}-turn", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        child = os.fork()
        if child == 0:
            os._exit(0 if base._files == {} and not base._turn.locked() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    write("after")
    assert Event.objects.count() == 4


def test_readers_do_not_stand_in_the_line():
    holding, done = threading.Event(), threading.Event()

    def hold(_number: int) -> None:
        with transaction.atomic():
            Event.objects.create(group="g", name="x")
            holding.set()
            assert done.wait(10)

    writer = threading.Thread(target=in_threads, args=(1, hold))
    writer.start()
    assert holding.wait(10)
    assert in_threads(2, lambda _number: Event.objects.count()) == [0, 0]
    done.set()
    writer.join()
    assert Event.objects.count() == 1


def test_what_was_committed_outlives_a_power_cut(tmp_path, monkeypatch):
    """Of the log, only what was synced by then is taken along; every commit that came back must be in it."""
    path = Path(connection.settings_dict["NAME"])
    n_synced, lock, taken = 0, threading.Lock(), itertools.count()

    def to_disk(file: int) -> None:
        nonlocal n_synced
        size = os.fstat(file).st_size  # what comes after this may not be on the disk
        os.fsync(file)
        with lock:
            n_synced = max(n_synced, size)

    def cut() -> Path:
        with lock:
            log = Path(f"{path}-wal").read_bytes()[:n_synced]
            after = tmp_path / f"{next(taken)}.sqlite3"
            after.write_bytes(path.read_bytes())
        Path(f"{after}-wal").write_bytes(log)
        return after

    def work(number: int) -> None:
        for turn in range(3):
            write(f"{number}-{turn}")
            with sqlite3.connect(cut()) as kept:
                assert kept.execute(
                    'SELECT count(*) FROM live_event WHERE "group" = ?', [f"{number}-{turn}"]
                ).fetchone() == (2,)
            kept.close()

    connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    monkeypatch.setattr(base, "_to_disk", to_disk)
    in_threads(6, work)
    assert next(taken) == 18 and n_synced


def test_nobody_waits_for_the_disk_of_another_and_a_statement_alone_is_left_to_sqlite(monkeypatch):
    at_disk, may_go_on = threading.Event(), threading.Event()

    def slow_disk(_file: int) -> None:
        if not at_disk.is_set():
            at_disk.set()
            assert may_go_on.wait(30)

    monkeypatch.setattr(base, "_to_disk", slow_disk)
    first = threading.Thread(target=in_threads, args=(1, lambda number: write("first")))
    first.start()
    assert at_disk.wait(30)
    in_threads(2, lambda number: write(str(number)))
    assert first.is_alive()
    may_go_on.set()
    first.join(30)
    assert Event.objects.count() == 6

    def of_threads(_number: int) -> tuple[int, int, int]:
        def synchronous() -> int:
            return connection.cursor().execute("PRAGMA synchronous").fetchone()[0]

        before = synchronous()
        with transaction.atomic():
            inside = synchronous()
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            1 / 0  # noqa: B018
        return before, inside, synchronous()

    full, normal = 2, 1
    assert in_threads(1, of_threads) == [(full, normal, full)]


def test_a_disk_that_fails_is_no_commit_that_succeeded(monkeypatch):
    def broken(_file: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(base, "_to_disk", broken)
    with pytest.raises(OperationalError, match="disk would not take what was written"):
        write("lost")
    monkeypatch.undo()
    write("after")
    assert Event.objects.filter(group="after").count() == 2
