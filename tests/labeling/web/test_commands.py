"""The command line, as an operator uses it; `up` as a process of its own."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError

from labeling.accounts.models import ApiToken, User
from labeling.accounts.services import digest_of
from labeling.web import doctor
from labeling.web.processes import Process, ProcessGroup
from tests import factories
from tests.ports import free_port
from tests.waiting import wait_until


def run(*args: object, **kwargs: object) -> str:
    out = io.StringIO()
    call_command(*args, stdout=out, stderr=io.StringIO(), **kwargs)
    return out.getvalue()


@pytest.mark.django_db
def test_an_account_and_a_token_can_be_made_and_the_token_is_printed_alone():
    run("create_user", "ada", password=factories.PASSWORD, staff=True)
    assert User.objects.get(username="ada").is_staff
    with pytest.raises(CommandError, match="already an account"):
        run("create_user", "ada", password=factories.PASSWORD)
    with pytest.raises(CommandError, match="too short"):
        run("create_user", "bob", password="short")
    text = run("create_token", "ada", scopes=["read"], days=3).strip()
    token = ApiToken.objects.get(digest=digest_of(text))
    assert token.scopes == ["read"] and token.expires_at
    with pytest.raises(CommandError, match="create_user nobody"):
        run("create_token", "nobody")
    with pytest.raises(CommandError, match="Unknown scope"):
        run("create_token", "ada", scopes=["fly"])
    with pytest.raises(CommandError, match="not a member"):
        run("create_token", "ada", project="support")


@pytest.mark.django_db
def test_a_snapshot_is_exported_and_the_same_again(filled_project, annotator, tmp_path, settings):
    settings.FILES = tmp_path / "files"
    factories.judge_all(filled_project, annotator)
    for split in ("train", "eval"):
        run("export_snapshot", "support", str(tmp_path / f"{split}.jsonl"), split=split, view="pairs")
    first = [json.loads(line) for split in ("train", "eval") for line in (tmp_path / f"{split}.jsonl").read_text().splitlines()]
    assert len(first) == 15
    run("export_snapshot", "support", str(tmp_path / "again.jsonl"), number=1, view="pairs")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "train.jsonl").read_bytes()
    with pytest.raises(CommandError, match="must end in"):
        run("export_snapshot", "support", str(tmp_path / "x.xlsx"))
    with pytest.raises(CommandError, match="no snapshot #9"):
        run("export_snapshot", "support", str(tmp_path / "x.jsonl"), number=9)


@pytest.mark.parametrize(
    "command", ["up", "doctor", "create_user", "create_token", "import_data", "export_snapshot"]
)
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as ended:
        call_command(command, "--help")
    assert ended.value.code == 0
    assert f"python manage.py {command}" in capsys.readouterr().out


@pytest.mark.django_db
def test_the_doctor_finds_a_healthy_installation_and_names_what_is_not(settings, tmp_path, monkeypatch):
    states = {finding.name: finding.state for finding in doctor.examine(port=free_port())}
    assert states["database"] == states["queue"] == states["Python"] == states["packages"] == "ok"
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10**9}))
    monkeypatch.setitem(doctor.FLOORS, "Django", "99")
    settings.REDIS_URL = f"redis://127.0.0.1:{free_port()}/0"
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "secret_key").write_text("x")
    (keys / "secret_key").chmod(0o644)
    settings.HOME = tmp_path
    bad = {finding.name: finding for finding in doctor.examine(port=free_port()) if finding.state == "bad"}
    assert {"packages", "PREFLOOP_HOME", "secrets", "queue"} <= set(bad)
    assert "chmod 600" in bad["secrets"].mend
    assert "3 GB are needed" in bad["PREFLOOP_HOME"].text
    with pytest.raises(SystemExit) as ended:
        run("doctor", json=True)
    assert ended.value.code == 1


@pytest.mark.parametrize(
    ("version", "expected"), [("2.13.0+cpu", (2, 13, 0)), ("5.2.19", (5, 2, 19)), ("7", (7,)), ("1.16.dev0", (1, 16))]
)
def test_versions_are_compared_as_numbers(version, expected):
    assert doctor.numbers(version) == expected


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_crashed_process_is_started_again_and_all_end_together(tmp_path):
    said: list[str] = []
    sleeper = "import time; print('up', flush=True); time.sleep(600)"
    group = ProcessGroup(
        [Process("one", [sys.executable, "-c", sleeper]), Process("two", [sys.executable, "-c", "raise SystemExit(3)"])],
        log_folder=tmp_path,
        say=said.append,
    )
    with group:
        wait_until(lambda: "one" in group.running and (tmp_path / "one.log").exists())
        first = group.running["one"].pid
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: "one" in group.running and group.running["one"].pid != first)
        second = group.running["one"].pid
        wait_until(lambda: sum("two ended (exit status 3)" in line for line in said) >= 2)
    assert not alive(second)
    waits = [float(line.split()[-2]) for line in said if line.startswith("two")]
    assert waits[:2] == [0.5, 1.0]
    assert any("one ended (signal SIGKILL)" in line for line in said)


def start_up(home, port: int, *extra: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "manage.py", "up", "--port", str(port), *extra],
        cwd=settings.BASE_DIR, env={**os.environ, "PREFLOOP_HOME": str(home), "PREFLOOP_DATABASE_URL": ""},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.services
def test_up_names_a_taken_port_before_it_starts_anything(tmp_path):
    port = free_port(3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port + 1))
        taken.listen()
        process = start_up(tmp_path, port)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"Port {port + 1} " in output and "--port" in output
    assert not (tmp_path / "prefloop.sqlite3").exists()


@pytest.mark.services
def test_up_serves_survives_a_killed_web_worker_and_ends_in_order(tmp_path):
    port = free_port(3)
    process = start_up(tmp_path, port)
    try:
        for line in process.stdout:
            if "is ready" in line:
                break
        assert f"http://127.0.0.1:{port}/" in line

        def answers() -> bool:
            try:
                return urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).status == 200
            except OSError:
                return False

        family = descendants(process.pid)
        web = [pid for pid in family if b"config.wsgi" in command_of(pid)]
        os.kill(max(web), signal.SIGKILL)  # the worker, younger than its parent
        wait_until(answers)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        wait_until(lambda: not any(alive(pid) for pid in family))
    finally:
        process.kill()
        process.communicate()


@pytest.mark.services
def test_the_whole_family_ends_when_up_itself_is_killed(tmp_path):
    process = start_up(tmp_path, free_port(3), "--no-worker")
    for line in process.stdout:
        if "is ready" in line:
            break
    family = descendants(process.pid)
    assert len(family) >= 4
    process.kill()
    process.communicate()
    wait_until(lambda: not any(alive(pid) for pid in family))


def descendants(pid: int) -> list[int]:
    found = []
    for child in subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split():
        found += [int(child), *descendants(int(child))]
    return found


def command_of(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""
