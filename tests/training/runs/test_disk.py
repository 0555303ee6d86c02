"""What runs take of the disk: counted, bounded, and cleared away when its time is over."""

import shutil
from collections import namedtuple
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import call_command
from django.utils.timezone import now

from labeling.preferences.services import create_snapshot
from tests import factories
from tests.api_caller import Caller, code_of
from training.registry.models import ModelVersion
from training.runs import disk, logs
from training.runs.errors import BadSpec, RunError
from training.runs.folder import run_folder
from training.runs.models import Run
from training.runs.services import claim_next_run, create_run, resume_run
from training.runs.watch import _check_what_was_entered, watch_run

Space = namedtuple("Space", "total used free")


@pytest.fixture
def base(db) -> ModelVersion:
    return ModelVersion.objects.create(key="small@1", name="small", version=1, kind="base", folder="models/small")


@pytest.fixture
def snapshot(project, annotator, lead):
    factories.fill_project(project, 16)
    factories.judge_all(project, annotator)
    return create_snapshot(project=project, created_by=lead)


def make_run(project, base, state="failed", *, checkpoint=1000, days=0, **fields) -> Run:
    """With a folder in which there is a checkpoint, two events and a log."""
    run = Run.objects.create(
        project=project, kind="dpo", model=base, state=state, **fields,
        finished_at=None if state in ("queued", "running") else now() - timedelta(days=days),
    )  # fmt: skip
    newest = run_folder(run) / "checkpoints" / "checkpoint-2"
    newest.mkdir(parents=True)
    (newest / "optimizer.pt").write_bytes(b"x" * checkpoint)
    (run_folder(run) / "events.jsonl").write_text('{"type": "status", "state": "started"}\n{"type": "checkpoi')
    (run_folder(run) / "log.txt").write_text("first\nlast\n")
    disk.measure(run)
    run.refresh_from_db()
    return run


def free_of(monkeypatch, free_gb: float) -> None:
    monkeypatch.setattr(disk, "_disk", lambda: Space(100 * disk.GB, 0, int(free_gb * disk.GB)))


# --- counting -----------------------------------------------------------------------------------
def test_runs_are_counted_while_they_go_on_and_once_when_they_are_over(project, base):
    going, over = make_run(project, base, "running"), make_run(project, base, days=1)
    queued = make_run(project, base, "queued")
    assert over.checkpoint_bytes == 1000 and over.disk_bytes > 1040
    Run.objects.update(measured_at=now(), disk_bytes=1)
    Run.objects.filter(pk=over.pk).update(finished_at=now() + timedelta(seconds=1))
    (run_folder(going) / "more").write_bytes(b"x" * 5000)
    assert disk.measure_runs() == 2
    for run in (going, over, queued):
        run.refresh_from_db()
    assert going.disk_bytes > 6000 and over.disk_bytes > 1040 and queued.disk_bytes == 1
    Run.objects.filter(pk=over.pk).update(finished_at=now() - timedelta(days=1))
    assert disk.measure_runs() == 1  # the one that goes on


# --- bounds -------------------------------------------------------------------------------------
def test_a_project_whose_room_is_used_up_queues_no_more(client, project, snapshot, base, lead, settings, monkeypatch):
    held = make_run(project, base)
    wanted = {"project": project, "kind": "dpo", "created_by": lead, "snapshot": snapshot, "model": base}
    settings.RUN_DISK_QUOTA_GB = 1
    create_run(**wanted)
    Run.objects.filter(pk=held.pk).update(disk_bytes=disk.GB, checkpoint_bytes=disk.GB)
    with pytest.raises(BadSpec) as refused:
        create_run(**wanted)
    assert "is used up" in refused.value.fields["disk"] and "delete" in refused.value.fields["disk"]
    with pytest.raises(RunError, match="used up"):
        resume_run(run=held)
    body = {"kind": "dpo", "model": base.key, "snapshot": str(snapshot.pk)}
    answer = Caller(lead).post("projects/support/runs/", body)
    assert answer.status_code == 400 and "used up" in answer.json()["error"]["fields"]["disk"][0]
    client.force_login(lead)
    assert "room is used up" in client.get("/projects/support/runs/disk/").content.decode()
    settings.RUN_DISK_QUOTA_GB = 2
    create_run(**wanted)


def test_below_the_floor_no_run_begins_and_those_that_wait_say_why(project, snapshot, base, lead, settings, monkeypatch):
    run = create_run(project=project, kind="dpo", created_by=lead, snapshot=snapshot, model=base)
    settings.RUN_DISK_FREE_GB = 2
    free_of(monkeypatch, 1.5)
    assert claim_next_run(owner="test") is None
    run.refresh_from_db()
    assert run.state == Run.State.QUEUED and run.status_text.startswith("waiting for room: 1.5")
    free_of(monkeypatch, 2.5)
    assert claim_next_run(owner="test") == run
    settings.RUN_DISK_FREE_GB = 0
    free_of(monkeypatch, 0)
    assert disk.why_no_room() == ""


def test_a_run_that_could_not_say_that_the_disk_is_full_is_told_so(project, snapshot, base, lead, monkeypatch, settings):
    settings.RUN_DISK_FREE_GB = 0
    create_run(project=project, kind="dpo", created_by=lead, snapshot=snapshot, model=base)
    run = claim_next_run(owner="test")
    free_of(monkeypatch, 0)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.runs.watch.write_inputs", full)
    watch_run(run)
    run.refresh_from_db()
    assert run.state == Run.State.FAILED and "is full: 0\xa0bytes are free" in run.error


# --- what goes, and when ------------------------------------------------------------------------
def test_checkpoints_go_when_their_time_is_over_and_the_run_says_so(project, base, settings):
    settings.RUN_CHECKPOINT_DAYS = 3
    old, young = make_run(project, base, days=4), make_run(project, base, "cancelled", days=2)
    going, done = make_run(project, base, "running"), make_run(project, base, "done")
    kept = make_run(project, base, "done", days=40, spec={"keep_checkpoints": True})
    assert disk.goes_at(old) == old.finished_at + timedelta(days=3) and disk.goes_at(done) is None
    assert [run for run, _ in disk.clean_runs()] == [old, done]
    assert disk.clean_runs() == []
    for run, has in ((old, False), (young, True), (going, True), (done, False), (kept, True)):
        assert (run_folder(run) / "checkpoints").exists() is has
        run.refresh_from_db()
        assert bool(run.checkpoint_bytes) is has and (run.checkpoints_deleted_at is None) is has
    assert [event.type for event in old.events.order_by("number")] == ["status", "torn", "status"]
    said = old.events.get(payload__state="checkpoints deleted").payload
    assert said == {"state": "checkpoints deleted", "reason": "failed 3 days ago or longer", "bytes": 1000}
    assert done.events.get(payload__state="checkpoints deleted").payload["reason"] == "its model is entered"
    assert logs.file_of(old, "log.txt").content == b"first\nlast\n"


def test_a_run_without_its_checkpoints_begins_anew_and_says_so(client, project, base, lead):
    run = make_run(project, base)
    assert disk.delete_checkpoints(run=run, reason="by lead") == 1000
    client.force_login(lead)
    assert "Start again from the beginning" in client.get(f"/projects/support/runs/{run.pk}/").content.decode()
    resume_run(run=run)
    run.refresh_from_db()
    assert run.status_text == "waiting for a worker; its checkpoints were deleted, so it begins anew"
    with pytest.raises(RunError, match="isn't over"):
        disk.delete_checkpoints(run=run, reason="by lead")
    assert claim_next_run(owner="test").checkpoints_deleted_at is None


def test_what_a_torn_deletion_left_goes_with_the_next(project, base):
    run = make_run(project, base)
    shutil.copytree(run_folder(run) / "checkpoints", run_folder(run) / disk.GOING)
    disk.clean_runs(days=100)
    assert not (run_folder(run) / disk.GOING).exists() and (run_folder(run) / "checkpoints").exists()


def test_a_model_that_is_not_what_the_recipe_wrote_is_not_entered():
    model = ModelVersion(files={"adapter.safetensors": "aa", "README.md": "bb"})
    _check_what_was_entered(model, {"files": {"adapter.safetensors": {"sha256": "aa", "bytes": 1}}})
    with pytest.raises(RunError, match=r"adapter\.safetensors of the model is not what the recipe wrote"):
        _check_what_was_entered(model, {"files": {"adapter.safetensors": {"sha256": "ab", "bytes": 1}}})


def test_the_command_says_what_would_go_and_what_went(project, base, capsys):
    run = make_run(project, base, days=2)
    call_command("clean_runs", "support", "--older-than", "1", "--dry-run")
    assert f"run {run.pk} (dpo, failed)" in (said := capsys.readouterr().out) and "would be free" in said
    call_command("clean_runs")
    assert "0 runs" in capsys.readouterr().out
    call_command("clean_runs", "support", "--older-than", "1")
    assert "1 runs, 1000\xa0bytes are free" in capsys.readouterr().out


# --- pages and REST -----------------------------------------------------------------------------
def test_a_lead_sees_what_takes_the_disk_and_deletes_it_an_engineer_only_sees(client, project, base, lead, engineer):
    small, large = make_run(project, base), make_run(project, base, "cancelled", checkpoint=9000)
    make_run(factories.make_project(factories.make_user("other"), slug="elsewhere"), base)
    client.force_login(engineer)
    page = client.get("/projects/support/runs/disk/")
    assert [run.pk for run in page.context["rows"]] == [large.pk, small.pk]
    assert "Delete checkpoints" not in page.content.decode() and "Leads delete" in page.content.decode()
    assert client.post(f"/projects/support/runs/{large.pk}/checkpoints/delete/").status_code == 403
    client.force_login(lead)
    assert client.get("/projects/support/runs/disk/").content.decode().count("Delete checkpoints</button>") == 2
    answer = client.post(f"/projects/support/runs/{large.pk}/checkpoints/delete/", follow=True)
    assert "8.8\xa0KB are free again" in answer.content.decode()
    assert large.events.get(payload__state="checkpoints deleted").payload["reason"] == "by lead"


def test_the_disk_over_rest(project, base, lead, engineer):
    run = make_run(project, base)
    found = Caller(engineer).get("projects/support/runs/disk/").json()
    assert found["used_bytes"] == run.disk_bytes and found["checkpoint_bytes"] == 1000 and found["free_bytes"] > 0
    assert [(one["id"], one["checkpoint_bytes"]) for one in found["runs"]] == [(str(run.pk), 1000)]
    assert found["runs"][0]["checkpoints_go_at"].startswith(str(disk.goes_at(run).year))
    assert Caller(engineer).call("DELETE", f"runs/{run.pk}/checkpoints/").status_code == 403
    answer = Caller(lead).call("DELETE", f"runs/{run.pk}/checkpoints/")
    assert answer.status_code == 200 and answer.json()["checkpoint_bytes"] == 0 and answer.json()["checkpoints_deleted_at"]
    going = make_run(project, base, "running")
    answer = Caller(lead).call("DELETE", f"runs/{going.pk}/checkpoints/")
    assert answer.status_code == 409 and code_of(answer) == "wrong_state"


def test_log_and_events_are_downloads_bounded_in_size(client, project, base, lead, monkeypatch):
    run = make_run(project, base)
    client.force_login(lead)
    log = client.get(f"/projects/support/runs/{run.pk}/log/")
    assert log.content == b"first\nlast\n" and log["Content-Disposition"] == f'attachment; filename="run-{run.pk}-log.txt"'
    assert Caller(lead).get(f"runs/{run.pk}/events.jsonl").content.startswith(b'{"type": "status"')
    monkeypatch.setattr(logs, "MOST_BYTES_HANDED_OUT", 7)
    assert Caller(lead).get(f"runs/{run.pk}/log/").content == b"last\n"
    shutil.rmtree(run_folder(run))
    assert Caller(lead).get(f"runs/{run.pk}/log/").content == b""


def test_a_log_that_grows_too_long_keeps_its_end_and_its_writers_go_on(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(logs, "MOST_BYTES_OF_A_LOG", 100)
    monkeypatch.setattr(logs, "KEPT_BYTES", 20)
    with open(tmp_path / "log.txt", "ab", buffering=0) as writer:
        for number in range(20):
            writer.write(f"line {number}\n".encode())
        assert logs.trim_log(tmp_path)
        writer.write(b"line 20\n")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert lines[0].startswith("(the log was longer") and lines[1:] == ["line 18", "line 19", "line 20"]
    assert not logs.trim_log(tmp_path / "elsewhere")


# --- the order of the queue ---------------------------------------------------------------------
def test_an_explanation_is_claimed_before_long_runs_that_waited_longer(project, base):
    Run.objects.create(project=project, kind="dpo", model=base)
    Run.objects.create(project=project, kind="ppo", model=base)
    Run.objects.create(project=project, kind="explain", model=base)
    assert [claim_next_run(owner="test").kind for _ in range(3)] == ["explain", "dpo", "ppo"]
