"""The client against a real site: processes that are killed while a file is half way in or out."""

import gzip
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.urls import NoReverseMatch, reverse

from labeling.accounts.models import ApiToken
from labeling.accounts.services import create_token
from labeling.preferences.models import Snapshot
from labeling.preferences.services import create_snapshot
from labeling.projects.models import Project
from labeling.web.docs import FOLDER
from tests import factories
from tests.labeling.webhooks.receiver import Receiver
from tests.services.databases import use_database_file
from tests.training.client.site import ROOT, RunningSite
from training.client import Client, Conflict, Invalid, NotAllowed, NotFound, NotLoggedIn, is_genuine
from training.client.commands import main, make_parser

use_database_file()
pytestmark = pytest.mark.django_db(transaction=True)
PAGE = (FOLDER / "client.md").read_text(encoding="utf-8")


@pytest.fixture
def site(project) -> Iterator[RunningSite]:
    with RunningSite() as site:
        yield site


@pytest.fixture
def own_folders(tmp_path, monkeypatch) -> Path:
    """The person's folders, and the one that they are in."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("PREFLOOP_URL", "PREFLOOP_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def password(lead, settings) -> str:
    """Of the lead, kept as the site's own processes keep it."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
    lead.set_password(factories.PASSWORD)
    lead.save()
    return factories.PASSWORD + "\n"


@pytest.fixture
def client(site, lead) -> Iterator[Client]:
    with Client(site.url, factories.token_for(lead), backoff_seconds=0.2) as client:
        yield client


def has_route(name: str, *args: str) -> bool:
    try:
        reverse(f"api:{name}", args=args)
    except NoReverseMatch:
        return False
    return True


def rows_file(path: Path, n: int) -> Path:
    path.write_bytes(b"\n".join(factories.completions_rows(n)) + b"\n")
    return path


# --- killed half way ----------------------------------------------------------------------------
def test_an_upload_whose_server_is_killed_half_way_is_sent_again_and_adds_each_row_once(site, client, project, own_folders):
    path = own_folders / "rows.jsonl"
    # Longer than what fits between the two in buffers.
    path.write_bytes(b"\n".join(b'{"id": "p%d", "prompt": "Where is parcel number %d? %s"}' % (n, n, b"x" * 20_000) for n in range(900)))
    killed = []

    def report(sent: int, total: int) -> None:
        if sent > total // 2 and not killed:
            site.kill_web()
            killed.append(sent)
            site.start_web()

    site.start_worker()
    record = client.import_file("support", path, format="prompts", report=report)
    assert killed and record["state"] == "done"
    assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (record["n_rows"], record["n_prompts"]) == (900, 900)
    assert project.prompts.count() == 900


def test_a_download_whose_server_is_killed_half_way_goes_on_where_it_stopped(site, client, project, lead, annotator, own_folders):
    factories.fill_project(project, 60)
    project.prompts.update(messages=[{"role": "user", "content": "word " * 40_000}])
    factories.judge_all(project, annotator)
    snapshot = create_snapshot(project=project, created_by=lead)
    killed, seen = [], []

    def report(received: int, total: int | None) -> None:
        seen.append(received)
        if received > (total or 0) // 3 and not killed:
            site.kill_web()
            killed.append(received)
            site.start_web()

    path = client.download_snapshot(str(snapshot.pk), "train", "jsonl", "pairs", own_folders / "train.jsonl", report=report)
    assert killed and path.stat().st_size > 5_000_000
    assert seen == sorted(seen)  # nothing began anew
    whole = client.download_snapshot(str(snapshot.pk), "train", "jsonl", "pairs", own_folders / "whole.jsonl")
    assert path.read_bytes() == whole.read_bytes()
    changed = path.stat().st_mtime_ns
    assert client.download_snapshot(str(snapshot.pk), "train", "jsonl", "pairs", path, reuse=True) == path
    assert path.stat().st_mtime_ns == changed  # the server said that it is the same


# --- rows in ------------------------------------------------------------------------------------
def test_files_of_any_kind_come_in_and_what_is_refused_is_listed(site, client, project, own_folders):
    site.start_worker()
    lines = b'{"prompt": "Where is my parcel?"}\n{"prompt": ""}\n{"prompt": "Is it open on Sunday?"}\n'
    packed = own_folders / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(lines))
    shown = client.preview_import("support", packed, format="prompts")
    assert (shown["kind"], shown["n_records"], shown["n_rejected"]) == ("jsonl", 2, 1)
    assert project.prompts.count() == 0
    states = []

    def seen(found):
        states.append(found["state"])
        site.expect_worker()

    record = client.import_file("support", packed, format="prompts", tags=["a", "b"], follow=seen)
    assert (record["state"], record["n_prompts"], record["n_rejected"], record["tags"]) == ("done", 2, 1, ["a", "b"])
    assert states[-1] == "done"
    [refused] = client.rejected_rows(record["id"])
    assert refused["line"] == 2 and refused["reason"]
    table = own_folders / "rows.csv"
    table.write_text("question\nWhere is my parcel?\nHow late is it?\n")
    again = client.import_file("support", table, format="prompts", mapping={"prompt": "question"}, follow=site.expect_worker)
    assert (again["n_prompts"], again["n_duplicates"]) == (1, 1)
    assert [one["id"] for one in client.imports("support")] == [again["id"], record["id"]]
    with pytest.raises(Conflict) as refusal:
        client.cancel_import(record["id"])
    assert refusal.value.code == "wrong_state"
    with pytest.raises(Invalid):
        client.start_import("support", packed, format="nothing known")


# --- judgements, snapshots ----------------------------------------------------------------------
def test_judgements_are_pulled_whole_to_a_file(site, client, project, annotator, own_folders):
    factories.fill_project(project, 12)
    factories.judge_all(project, annotator)
    assert client.pull_judgements("support", own_folders / "out" / "j.jsonl") == 12
    rows = [json.loads(line) for line in (own_folders / "out" / "j.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in rows}) == 12
    assert client.pull_judgements("support", own_folders / "none.jsonl", annotator_kind="model") == 0


def test_a_snapshot_is_frozen_in_the_background_counted_described_and_compared(site, client, project, annotator):
    if not (has_route("freeze", "1") and has_route("snapshot_diff", "1") and has_route("preview_snapshot", "support")):
        pytest.skip("this site has no freezing in the background")
    site.start_worker()
    factories.fill_project(project, 10)
    factories.judge_all(project, annotator, limit=5)
    assert client.preview_snapshot("support")["judgements"] == 5
    seen = []
    first = client.freeze("support", name="first", report=lambda done, total: seen.append((done, total)))
    assert (first["number"], first["n_judgements"], first["name"]) == (1, 5, "first") and seen
    factories.judge_all(project, annotator)
    second = client.freeze("support")
    assert client.snapshot_diff(first["id"], to=second["id"])
    if has_route("snapshot_card", "1"):
        assert client.snapshot_card(second["id"]).startswith("---")
    with pytest.raises(Invalid) as refusal:
        client.freeze("support", filters={"colour": "red"})
    assert refusal.value.fields


def test_a_person_is_withdrawn_and_let_in_again(site, client, project, annotator):
    if not has_route("withdrawals", "support"):
        pytest.skip("this site has no withdrawals")
    factories.fill_project(project, 3)
    factories.judge_all(project, annotator)
    snapshot = client.create_snapshot("support")
    asked = client.withdraw("support", annotator=annotator.username, dry_run=True)
    assert asked["id"] is None and [one["snapshot"] for one in asked["touched"]] == [snapshot["id"]]
    withdrawal = client.withdraw("support", annotator=annotator.username, reason="asked for it")
    assert [one["id"] for one in client.withdrawals("support")] == [withdrawal["id"]]
    with pytest.raises(Conflict):
        client.create_snapshot("support")
    assert client.undo_withdrawal(withdrawal["id"])["undone_at"]


def test_a_snapshot_becomes_a_dataset_that_is_downloaded_once(site, client, project, lead, annotator, own_folders):
    pytest.importorskip("datasets")
    factories.fill_project(project, 30)
    factories.judge_all(project, annotator)
    snapshot = client.create_snapshot("support")
    dataset = client.to_datasets(snapshot, view="preference", split="train")
    assert {"prompt", "chosen", "rejected"} <= set(dataset.column_names) and len(dataset) > 30
    assert list((own_folders / "cache" / "prefloop").rglob("*.parquet"))
    downloads = []
    again = client.to_datasets(snapshot["id"], report=lambda received, total: downloads.append(received))
    assert again[0] == dataset[0] and not downloads


# --- webhooks -----------------------------------------------------------------------------------
def test_a_webhook_is_made_tried_and_its_messages_are_genuine(site, client, project):
    with Receiver() as receiver:
        site.kill_web()
        site.environment["PREFLOOP_WEBHOOK_HOSTS"] = receiver.host
        site.start_web()
        webhook = client.create_webhook("support", receiver.url, ["run"], "tests")
        assert client.test_webhook(webhook["id"])["state"] == "delivered"
        [(headers, body)] = receiver.messages
        assert is_genuine(webhook["secret"], headers, body)
        assert not is_genuine(webhook["secret"], headers, body + b" ")
        assert not is_genuine(webhook["secret"], {**headers, "webhook-timestamp": "1"}, body)
        assert not is_genuine(webhook["secret"], {}, body)
        fresh = client.rotate_webhook_secret(webhook["id"])["secret"]
        client.test_webhook(webhook["id"])
        assert all(is_genuine(secret, *receiver.messages[1]) for secret in (webhook["secret"], fresh))
        assert [one["state"] for one in client.deliveries(webhook["id"])] == ["delivered"] * 2
        assert client.redeliver(next(client.deliveries(webhook["id"]))["id"])["state"] == "waiting"
        assert client.change_webhook(webhook["id"], state="paused")["state"] == "paused"
        client.delete_webhook(webhook["id"])
        with pytest.raises(NotFound):
            client.webhook(webhook["id"])


# --- refusals -----------------------------------------------------------------------------------
def test_refusals_are_errors_of_their_own(site, client, annotator):
    with pytest.raises(NotFound):
        client.project("nothing")
    with Client(site.url) as nobody, pytest.raises(NotLoggedIn):
        list(nobody.projects())
    with Client(site.url, factories.token_for(annotator)) as low, pytest.raises(NotAllowed) as refusal:
        list(low.webhooks("support"))
    assert refusal.value.status == 403 and refusal.value.code == "permission_denied"


# --- the command line ---------------------------------------------------------------------------
def run(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """`prefloop` in a process of its own, which finds this checkout from any folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-m", "training.client", *arguments]
    return subprocess.run(command, input=stdin, env=environment, capture_output=True, text=True, timeout=300)


def test_a_login_is_kept_for_its_owner_and_its_site_alone(site, lead, own_folders, password):
    done = run("--url", site.url, "login", "lead", stdin=password)
    assert done.returncode == 0, done.stderr
    kept = own_folders / "config" / "prefloop" / "logins.json"
    assert kept.stat().st_mode & 0o777 == 0o600 and kept.parent.stat().st_mode & 0o777 == 0o700
    assert factories.PASSWORD not in kept.read_text()
    listed = run("projects")
    assert listed.returncode == 0 and "support" in listed.stdout
    elsewhere = run("--url", "http://127.0.0.1:1", "projects")
    assert elsewhere.returncode == 1
    assert run("projects", PREFLOOP_TOKEN="wrong").returncode == 1
    kept.chmod(0o644)
    refused = run("projects")
    assert refused.returncode == 1 and "chmod 600" in refused.stderr
    kept.chmod(0o600)
    assert run("logout").returncode == 0
    assert f"Log in first: prefloop --url {site.url} login" in run("--url", site.url, "projects").stderr
    assert run("--url", site.url, "login", "lead", stdin="wrong\n").returncode == 1
    token = create_token(user=lead, name="mine", scopes=[ApiToken.Scope.READ])[1]
    assert run("--url", site.url, "login", "--token", stdin=token + "\n").returncode == 0
    assert "support" in run("projects").stdout


def test_a_terminal_obeys_nothing_that_a_name_says(site, lead, own_folders):
    Project.objects.update(name="red\x1b[31m\x07 and \u009b31m[bold]")
    token = factories.token_for(lead)
    listed = run("projects", PREFLOOP_URL=site.url, PREFLOOP_TOKEN=token)
    assert "red\\x1b[31m\\x07 and \\x9b31m[bold]" in listed.stdout


# --- the documentation --------------------------------------------------------------------------
def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def of_the_docs(site, lead, annotator, own_folders) -> Path:
    """A project as the page on the client has it, with judgements; and its file."""
    larkfell = factories.make_project(lead, slug="larkfell", members={annotator: "annotator"})
    factories.fill_project(larkfell, 20)
    factories.judge_all(larkfell, annotator)
    Path("prompts.jsonl").write_text('{"prompt": "Where is my other parcel?"}\n')
    site.start_worker()
    return own_folders


def test_the_commands_of_the_documentation_do_as_it_says(site, password, of_the_docs, capsys):
    if not has_route("freeze", "1"):
        pytest.skip("this site has no freezing in the background")
    [login, work] = blocks("sh")
    first, *rest = (shlex.split(line)[1:] for line in login.splitlines())
    first[first.index("https://prefloop.example.org")] = site.url
    first[first.index("ada")] = "lead"
    assert run(*first, stdin=password).returncode == 0
    for command in [rest[0], *(shlex.split(line)[1:] for line in work.splitlines())]:
        if command[:2] == ["download", "1"]:  # by now another number
            command[1] = str(Snapshot.objects.latest("pk").pk)
        assert main(command) == 0, (command, capsys.readouterr().err)
    assert Path("train.jsonl").read_text().count("\n") > 10
    assert Path("train.parquet").read_bytes()[:4] == b"PAR1"
    assert len(Path("judgements.jsonl").read_text().splitlines()) == 20
    assert main(rest[1]) == 0


def test_the_programs_of_the_documentation_run_as_they_stand(site, lead, of_the_docs):
    pytest.importorskip("datasets")
    variables = {"PREFLOOP_URL": site.url, "PREFLOOP_TOKEN": factories.token_for(lead)}
    outputs = []
    for source in blocks("python"):
        Path("example.py").write_text(source)
        done = subprocess.run(
            [sys.executable, "example.py"], env={**os.environ, "PYTHONPATH": str(ROOT), **variables}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0].startswith("1 prompts are new, 0 rows were refused\ntrain.jsonl holds the rows of ")
    assert "not_found" in outputs[1] and "nothing_to_freeze" in outputs[1]
    assert "chosen" in outputs[2]


def test_every_command_is_on_the_page_and_says_what_it_does():
    [commands] = [action for action in make_parser()._actions if action.dest == "command"]
    on_page = set(re.findall(r"`([a-z-]+)`", PAGE[PAGE.index("| | commands |") : PAGE.index("`import` sends")]))
    assert on_page == set(commands.choices)
    assert all(choice.help for choice in commands._choices_actions)
