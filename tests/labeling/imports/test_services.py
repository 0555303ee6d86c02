"""Imports as jobs: claimed once, going on where they were, whatever is killed."""

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.utils.timezone import now

from labeling.annotation.models import Judgement, Lease, Slot, Task, TaskCompletion
from labeling.imports import reading, services, storage
from labeling.imports.errors import BadImport, NotNow
from labeling.imports.services import (
    import_rows,
    remove_old_files,
    request_cancel,
    resume_import,
    run_import,
    run_next_import,
    start_import,
    sweep_imports,
)
from labeling.imports.storage import file_of, receive, rejected_file_of
from labeling.imports.tasks import take_imports
from labeling.live.models import Event
from labeling.projects.models import Completion, Import, Prompt
from tests import factories
from tests.services.databases import database_url, use_database_file

use_database_file()

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_SECONDS = 120
WORKER = """
import sys
import django

django.setup()
from labeling.imports import reading, services

reading.BATCH_RECORDS = int(sys.argv[2])
services.run_import(int(sys.argv[1]))
"""


def rows(n: int, start: int = 0) -> list[bytes]:
    """Comparisons; every 50th can't be taken, and says by its id which it is."""
    return [
        json.dumps(
            {
                "id": f"r{number}",
                "prompt": [{"role": "user", "content": f"Question {number} about {'parcel ' * (number % 7)}?"}],
                "completions": [{"key": "a", "content": f"Yes {number}."}, {"key": "b", "content": f"No {number}."}],
                "annotator": f"person {number % 5}",
                "judgement": {"ranking": [["a"], ["b"]] if number % 50 else "nonsense"},
            }
        ).encode()
        for number in range(start, start + n)
    ]


def begin(project, lines: list[bytes], *, format: str = "votes", **extra) -> Import:
    data = iter([b"\n".join(lines) + b"\n"])
    return start_import(project=project, path=receive(lambda size: next(data, b"")), filename="rows.jsonl", format=format, **extra)


def assert_whole(n: int) -> None:
    """Every row that can be taken is in once, with all that belongs to it."""
    refused = n // 50 + bool(n % 50)
    taken = n - refused
    counts = {table: table.objects.count() for table in (Prompt, Task, Slot, Lease, Judgement)}
    assert counts == dict.fromkeys(counts, taken)
    assert Completion.objects.count() == TaskCompletion.objects.count() == 2 * taken
    assert set(Counter(Prompt.objects.values_list("external_id", flat=True)).values()) == {1}
    record = Import.objects.order_by("pk").first()
    assert (record.n_taken, record.n_duplicates, record.n_rejected) == (taken, 0, refused)
    assert (record.n_prompts, record.n_completions, record.n_judgements) == (taken, 2 * taken, taken)
    lines = [json.loads(line)["line"] for line in rejected_file_of(record).read_bytes().splitlines()]
    assert lines == [line for line in range(1, n + 1) if (line - 1) % 50 == 0]
    assert [row["line"] for row in record.rejected] == lines[:1000]


# --- one at a time ------------------------------------------------------------------------------
@pytest.mark.django_db
def test_a_file_is_taken_to_its_end_and_told_of(project, lead, monkeypatch):
    monkeypatch.setattr(reading, "BATCH_RECORDS", 40)
    seen = []
    record = run_import(begin(project, rows(200), created_by=lead).pk, report=lambda row: seen.append(row.n_rows))
    assert (record.state, record.problem, record.n_rows) == ("done", "", 200)
    assert record.bytes_done == record.bytes_total == file_of(record).stat().st_size
    assert seen == sorted(seen) and len(seen) >= 5 and seen[-1] == 200
    assert record.finished_at and record.seconds > 0 and record.attempts == 1
    assert_whole(200)
    told = [event.payload for event in Event.objects.filter(group=project.live_group, name="import")]
    assert [payload["state"] for payload in told if "state" in payload] == ["waiting", "running", "done"]


@pytest.mark.django_db
def test_the_same_file_again_adds_nothing_and_says_so(project, lead):
    run_import(begin(project, rows(60)).pk)
    again = run_import(begin(project, rows(60)).pk)
    assert (again.state, again.n_taken, again.n_duplicates, again.n_rejected) == ("done", 0, 58, 2)
    assert (again.n_prompts, again.n_completions, again.n_judgements) == (0, 0, 0)
    assert Judgement.objects.count() == 58


@pytest.mark.django_db
def test_near_duplicates_are_counted(project):
    words = "Where is the parcel that you promised me for Friday, and why does nobody answer my letters"
    record = import_rows(project=project, format="prompts", lines=[json.dumps({"prompt": text}).encode() for text in (words + "?", words + " at all?", "Else?")])
    assert record.n_near_duplicates == 1
    assert Prompt.objects.values("group_id").distinct().count() == 2


@pytest.mark.django_db
def test_rows_that_share_a_line_are_counted_one_by_one(project):
    """A JSON document may be a single line, and some formats read two rows as one record."""
    found = [*({"prompt": f"Question {number}?"} for number in range(3)), {"prompt": ""}, {"prompt": "Question 1?"}]
    record = import_rows(project=project, format="prompts", lines=[json.dumps(found).encode()])
    assert (record.n_rows, record.n_taken, record.n_duplicates, record.n_rejected) == (5, 3, 1, 1)
    [refused] = rejected_file_of(record).read_bytes().splitlines()
    assert json.loads(refused)["row"] == {"prompt": ""}
    scores = {"helpfulness": 1, "correctness": 2, "coherence": 3, "complexity": 1, "verbosity": 0}
    two = [json.dumps({"prompt": "Why?", "response": text, **scores}).encode() for text in ("So.", "Thus.")]
    record = import_rows(project=project, format="helpsteer2", lines=two)
    assert (record.n_rows, record.n_taken, record.n_prompts, record.n_completions) == (2, 2, 1, 2)


@pytest.mark.django_db
def test_an_import_that_runs_or_is_over_is_not_run_again(project):
    record = begin(project, rows(60))
    Import.objects.filter(pk=record.pk).update(state="running", owner="elsewhere:1:1", epoch=3)
    assert run_import(record.pk).state == "running" and Prompt.objects.count() == 0
    Import.objects.filter(pk=record.pk).update(state="done")
    assert run_import(record.pk).n_rows == 0


@pytest.mark.django_db
def test_who_lost_the_import_writes_nothing_more(project, monkeypatch):
    monkeypatch.setattr(reading, "BATCH_RECORDS", 10)
    record = begin(project, rows(60))

    def lose(row: Import) -> None:
        Import.objects.filter(pk=row.pk, n_rows__gte=20).update(epoch=9)

    found = run_import(record.pk, report=lose)
    assert (found.state, found.n_rows) == ("running", 20)
    assert Prompt.objects.count() == found.n_taken == 19


@pytest.mark.django_db
def test_cancelling_stops_after_the_batch_in_hand_and_resuming_goes_on(project, monkeypatch):
    monkeypatch.setattr(reading, "BATCH_RECORDS", 20)
    record = begin(project, rows(100))
    found = run_import(record.pk, report=lambda row: row.n_rows < 40 or request_cancel(record=row))
    assert (found.state, found.n_rows) == ("cancelled", 40)
    assert Prompt.objects.count() == 39
    with pytest.raises(NotNow):
        request_cancel(record=found)
    resume_import(record=found, enqueue=False)
    found = run_import(record.pk)
    assert (found.state, found.attempts) == ("done", 1)
    assert_whole(100)


@pytest.mark.django_db
def test_a_file_that_breaks_off_keeps_what_came_before_and_says_where(project):
    whole = b"\n".join(rows(300))
    cut = gzip.compress(whole)[:-400]
    data = iter([cut])
    record = start_import(project=project, path=receive(lambda size: next(data, b"")), filename="x.gz", format="votes")
    record = run_import(record.pk)
    assert record.state == "failed" and record.problem
    assert 0 < record.n_rows < 300 and record.n_taken == Prompt.objects.count() > 0


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("choices", "field"),
    [
        ({"format": "pickle"}, "format"),
        ({"format": "preference", "mapping": {"colour": "x"}}, "mapping.colour"),
        ({"format": "votes", "options": {"odd": "x"}}, "options.odd"),
        ({"licence": "x" * 81}, "licence"),
        ({"source": "nul \x00"}, "source"),
        ({"tags": [""]}, "tags"),
    ],
)
def test_what_cannot_be_is_refused_before_there_is_an_import(project, choices, field):
    with pytest.raises(BadImport) as refused:
        begin(project, rows(2), **{"format": "votes", **choices})
    assert list(refused.value.fields) == [field]
    assert not Import.objects.exists()
    assert not list((Path(storage.settings.FILES) / "imports" / "arriving").glob("*"))


@pytest.mark.django_db
def test_a_fault_of_ours_is_told_and_can_be_gone_on_from(project, monkeypatch):
    record = begin(project, rows(60))
    with monkeypatch.context() as broken:
        broken.setattr(services, "Taker", lambda record: 1 / 0)
        found = run_import(record.pk)
    assert found.state == "failed" and "ZeroDivisionError" in found.problem and "resume" in found.problem
    resume_import(record=found, enqueue=False)
    assert run_import(record.pk).state == "done"


@pytest.mark.django_db
def test_files_names_are_ours_and_theirs_is_only_a_text(project):
    record = begin(project, rows(2))
    assert record.filename == "rows.jsonl" and file_of(record).name == "source"
    data = iter([b'{"prompt": "x"}'])
    other = start_import(project=project, path=receive(lambda size: next(data, b"")), filename="../../etc/\x00passwd\n", format="prompts")
    assert other.filename == "passwd" and file_of(other).is_relative_to(storage.settings.FILES)


# --- sweeping -----------------------------------------------------------------------------------
@pytest.mark.django_db
def test_the_sweeper_hands_on_what_lost_its_worker_and_gives_up_in_the_end(project, settings):
    record = begin(project, rows(60))
    for attempt in range(1, settings.IMPORT_MAX_ATTEMPTS + 1):
        services._claim(record.pk)
        assert sweep_imports() == 0  # it lives
        Import.objects.filter(pk=record.pk).update(owner="elsewhere:1:1", heartbeat_at=now() - timedelta(hours=1))
        assert sweep_imports() == 1
        record.refresh_from_db()
        assert record.attempts == attempt
        assert record.state == ("waiting" if attempt < settings.IMPORT_MAX_ATTEMPTS else "failed")
    assert "lost 3 times" in record.problem
    resume_import(record=record)
    assert run_next_import() and Import.objects.get(pk=record.pk).state == "done"


@pytest.mark.django_db
def test_a_request_that_was_cut_off_leaves_its_import_to_a_worker(project):
    record = begin(project, rows(60))
    assert not run_next_import()  # whoever began it runs it
    sweep_imports()
    assert not run_next_import()
    Import.objects.filter(pk=record.pk).update(created_at=now() - timedelta(minutes=2))
    sweep_imports()
    assert run_next_import()
    assert Import.objects.get().state == "done"


@pytest.mark.django_db
def test_files_go_some_days_after_the_end_and_drafts_the_next_day(project, settings):
    done, young, draft = run_import(begin(project, rows(3)).pk), run_import(begin(project, rows(4)).pk), begin(project, rows(5), draft=True)
    assert remove_old_files() == 0
    Import.objects.filter(pk=done.pk).update(finished_at=now() - timedelta(days=settings.IMPORT_KEEP_DAYS, hours=1))
    Import.objects.filter(pk=draft.pk).update(created_at=now() - timedelta(days=1, hours=1))
    parts = iter([b"x"])
    stray = receive(lambda size: next(parts, b""))
    os.utime(stray.path, (time.time() - 2 * 24 * 3600,) * 2)
    assert remove_old_files() == 3
    assert not file_of(done).exists() and file_of(young).exists() and not stray.path.exists()
    assert rejected_file_of(done).exists()
    assert not Import.objects.filter(pk=draft.pk).exists() and not storage.folder_of(draft).exists()
    assert remove_old_files() == 0
    Import.objects.filter(pk=done.pk).update(state="failed")
    with pytest.raises(NotNow, match="send it again"):
        resume_import(record=Import.objects.get(pk=done.pk))


# --- several at once, and killed ------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_two_imports_of_one_file_at_once_bring_everything_once(project, monkeypatch):
    monkeypatch.setattr(reading, "BATCH_RECORDS", 30)
    both = [begin(project, rows(300)), begin(project, rows(300))]
    ready = threading.Barrier(2)

    def run(record: Import) -> Import:
        try:
            ready.wait()
            return run_import(record.pk)
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(run, both))
    assert [record.state for record in found] == ["done", "done"], [record.problem for record in found]
    assert sum(record.n_taken for record in found) == Prompt.objects.count() == 294
    assert all(record.n_taken + record.n_duplicates == 294 for record in found)
    assert Judgement.objects.count() == Slot.objects.count() == Lease.objects.count() == 294
    assert Completion.objects.count() == TaskCompletion.objects.count() == 588
    assert set(Task.objects.values_list("overlap", "n_judged")) == {(1, 1)}


@pytest.mark.django_db(transaction=True)
def test_of_several_workers_one_gets_an_import(project):
    record = begin(project, rows(100), enqueue=True)
    ready = threading.Barrier(6)

    def run(_: int) -> bool:
        try:
            ready.wait()
            return run_next_import()
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(run, range(6))) == 1
    record.refresh_from_db()
    assert (record.state, record.attempts, record.epoch) == ("done", 1, 1)
    assert_whole(100)


@pytest.mark.django_db(transaction=True)
def test_a_worker_takes_one_import_at_a_time_and_leaves_none_waiting(project, monkeypatch):
    records = [begin(project, rows(60, start), enqueue=True) for start in (0, 100, 200, 300)]
    at_once, most = [], []
    run = services._Run.to_the_end

    def watched(self) -> None:
        at_once.append(1)
        most.append(len(at_once))
        run(self)
        at_once.pop()

    monkeypatch.setattr(services._Run, "to_the_end", watched)
    ready = threading.Barrier(3)

    def work(_: int) -> int:
        try:
            ready.wait()
            return take_imports()
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(work, range(3))) == len(records)
    assert max(most) == 1
    assert set(Import.objects.values_list("state", flat=True)) == {"done"}


def start_worker(record: Import, batch: int) -> subprocess.Popen:
    environment = {
        **os.environ, "PREFLOOP_DATABASE_URL": database_url(), "DJANGO_SETTINGS_MODULE": "config.settings", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    return subprocess.Popen([sys.executable, "-c", WORKER, str(record.pk), str(batch)], env=environment, cwd=ROOT)


@pytest.mark.django_db(transaction=True)
def test_a_worker_killed_again_and_again_loses_no_row_and_doubles_none(project):
    n = 3000
    record = begin(project, rows(n))
    reached = []
    for _ in range(3):
        worker = start_worker(record, batch=25)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and worker.poll() is None:
            done = Import.objects.values_list("n_rows", flat=True).get(pk=record.pk)
            if done > (reached[-1] if reached else 0):
                break
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        record.refresh_from_db()
        reached.append(record.n_rows)
        assert record.state == "running" and record.attempts == 1, "the worker was too quick to be killed"
        # What was committed fits together at every moment.
        assert Prompt.objects.count() == Judgement.objects.count() == record.n_taken
        assert sweep_imports() == 1
        Import.objects.filter(pk=record.pk).update(attempts=0)
    assert reached == sorted(set(reached)) and reached[-1] < n
    found = run_import(record.pk)
    assert (found.state, found.n_rows) == ("done", n)
    assert_whole(n)


@pytest.mark.django_db
def test_one_project_gets_nothing_of_anothers_import(project, stranger):
    other = factories.make_project(stranger, slug="other")
    run_import(begin(project, rows(60)).pk)
    found = run_import(begin(other, rows(60)).pk)
    assert (found.n_taken, found.n_judgements) == (58, 58)
    assert project.judgements.count() == other.judgements.count() == 58
    assert not set(project.judgements.values_list("annotator", flat=True)) & set(other.judgements.values_list("annotator", flat=True))
