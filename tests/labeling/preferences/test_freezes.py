"""Freezing in the background: who may write, what a killed worker leaves, and that it ends in one snapshot."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection
from django.utils.timezone import now

from labeling.database.jobs import OwnerLost
from labeling.database.ownership import owner_name
from labeling.preferences import figures, freezes
from labeling.preferences.errors import BadFilter
from labeling.preferences.freezes import (
    MAX_ATTEMPTS,
    claim_next_freeze,
    execute_freeze,
    start_freeze,
    sweep_freezes,
    work_off_freezes,
)
from labeling.preferences.models import Freeze, Snapshot
from labeling.preferences.services import create_snapshot, snapshots_folder
from labeling.preferences.views_out.making import made
from tests import factories
from tests.api_caller import Caller, code_of

# Freezes, and where the argument says so waits when rows are written, or behind the snapshot, until it is killed.
WORKER = """
import os, sys
import django
from django.conf import settings
django.setup()
settings.DATABASES["default"]["NAME"] = os.environ["TEST_DATABASE"]
settings.FILES = os.environ["TEST_FILES"]
from labeling.preferences import freezes
def wait(*_):
    print("there", flush=True)
    sys.stdin.read()
if sys.argv[1] == "before-the-snapshot":
    freezes._Beat.__call__ = lambda self, n_done, n_total: wait() if n_done else None
else:
    freezes.JOBS.end = lambda freeze, **fields: wait()
freezes.work_off_freezes()
"""


@pytest.fixture
def judged(project, annotator):
    factories.fill_project(project, 6)
    factories.judge_all(project, annotator)
    return project


def test_a_freeze_ends_in_its_snapshot(judged, engineer):
    freeze = start_freeze(project=judged, created_by=engineer, name="first")
    assert work_off_freezes() == 1
    freeze.refresh_from_db()
    assert freeze.state == Freeze.State.DONE and freeze.snapshot.name == "first"
    assert freeze.snapshot.created_by == engineer and freeze.n_done == freeze.n_total
    assert work_off_freezes() == 0


def test_it_holds_what_stood_when_it_was_asked_for(project, annotator, lead):
    factories.fill_project(project, 6)
    factories.judge_all(project, annotator, limit=4)
    start_freeze(project=project, created_by=lead)
    factories.judge_all(project, annotator)
    work_off_freezes()
    assert Snapshot.objects.get().n_judgements == 4


def test_a_wrong_filter_is_refused_at_once_and_an_empty_project_fails_with_the_reason(project, lead):
    with pytest.raises(BadFilter):
        start_freeze(project=project, created_by=lead, filters={"odd": 1})
    freeze = start_freeze(project=project, created_by=lead)
    work_off_freezes()
    freeze.refresh_from_db()
    assert freeze.state == Freeze.State.FAILED and "Nothing is judged yet" in freeze.problem


def test_no_more_than_five_wait_for_one_project(judged, lead):
    for _ in range(5):
        start_freeze(project=judged, created_by=lead)
    with pytest.raises(BadFilter, match="project"):
        start_freeze(project=judged, created_by=lead)


def test_one_worker_gets_a_freeze_and_a_stale_one_writes_nothing(judged, lead):
    start_freeze(project=judged, created_by=lead)
    first = claim_next_freeze(owner="elsewhere:1:a")
    assert claim_next_freeze(owner="elsewhere:2:b") is None
    Freeze.objects.filter(pk=first.pk).update(heartbeat_at=now() - timedelta(hours=1))
    assert sweep_freezes() == 1
    second = claim_next_freeze(owner="elsewhere:2:b")
    with pytest.raises(OwnerLost):
        freezes._Beat(first)(1, 6)
    execute_freeze(first)
    assert Freeze.objects.get().state == Freeze.State.FREEZING
    execute_freeze(second)
    done = Freeze.objects.get()
    assert done.state == Freeze.State.DONE and done.attempts == 2 and Snapshot.objects.count() == 1


def test_a_worker_counts_what_the_card_says(judged, lead):
    start_freeze(project=judged, created_by=lead)
    assert work_off_freezes() == 1
    snapshot = Snapshot.objects.get()
    assert made(snapshots_folder() / snapshot.folder / figures.FOLDER / "figures.json")


def test_a_snapshot_stands_though_its_card_cannot_be_counted(judged, lead, monkeypatch):
    def broken(snapshot):
        raise ValueError("no such column")

    monkeypatch.setattr(freezes, "figures_of_snapshot", broken)
    start_freeze(project=judged, created_by=lead)
    assert work_off_freezes() == 1
    assert Freeze.objects.get().state == Freeze.State.DONE


def test_a_worker_that_is_alive_is_left_alone(judged, lead):
    start_freeze(project=judged, created_by=lead)
    claim_next_freeze(owner=owner_name())
    assert sweep_freezes() == 0


def test_a_freeze_that_lost_its_worker_three_times_fails(judged, lead):
    start_freeze(project=judged, created_by=lead)
    for _ in range(MAX_ATTEMPTS):
        claim_next_freeze(owner=f"{owner_name().rpartition(':')[0]}:1")
        assert sweep_freezes() == 1
    freeze = Freeze.objects.get()
    assert freeze.state == Freeze.State.FAILED and "lost 3 times" in freeze.problem


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("moment", ["before-the-snapshot", "behind-the-snapshot"])
def test_a_worker_killed_on_the_way_leaves_a_freeze_that_ends_in_one_snapshot(judged, lead, annotator, moment):
    freeze = start_freeze(project=judged, created_by=lead, name="once")
    environment = {
        **os.environ, "DJANGO_SETTINGS_MODULE": "config.settings", "TEST_FILES": str(settings.FILES),
        "TEST_DATABASE": str(connection.settings_dict["NAME"]),
    }  # fmt: skip
    command = [sys.executable, "-c", WORKER, moment]
    with subprocess.Popen(
        command, env=environment, cwd=settings.BASE_DIR, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        try:
            assert worker.stdout.readline() == "there\n"
        finally:
            worker.kill()
    freeze.refresh_from_db()
    assert freeze.state == Freeze.State.FREEZING
    assert Snapshot.objects.count() == (moment == "behind-the-snapshot")
    factories.fill_project(judged, 2, n_completions=2)  # the project goes on meanwhile
    assert sweep_freezes() == 1
    assert work_off_freezes() == 1
    freeze.refresh_from_db()
    assert freeze.state == Freeze.State.DONE and freeze.attempts == 2
    assert freeze.snapshot == Snapshot.objects.get() and freeze.snapshot.name == "once"
    assert (Path(snapshots_folder()) / freeze.snapshot.folder / "manifest.json").exists()


# --- over REST, and on its page -----------------------------------------------------------------
def test_a_freeze_in_the_background_is_asked_after_over_rest(judged, engineer, reviewer, stranger):
    caller = Caller(engineer)
    answer = caller.post("projects/support/snapshots/?background=1", {"name": "later"})
    assert answer.status_code == 202 and answer.json()["state"] == "waiting" and answer.json()["snapshot"] is None
    path = f"freezes/{answer.json()['id']}/"
    work_off_freezes()
    done = Caller(reviewer).get(path).json()
    assert done["state"] == "done" and done["n_done"] == done["n_total"]
    assert caller.get(f"snapshots/{done['snapshot']}/").json()["name"] == "later"
    assert Caller(stranger).get(path).status_code == 404
    wrong = caller.post("projects/support/snapshots/?background=yes", {})
    assert wrong.status_code == 400 and code_of(wrong) == "invalid"
    refused = caller.post("projects/support/snapshots/?background=1", {"filters": {"odd": 1}})
    assert refused.status_code == 400 and "odd" in refused.json()["error"]["fields"]


def test_its_page_asks_by_itself_and_leads_to_the_snapshot(client, judged, lead):
    freeze = start_freeze(project=judged, created_by=lead)
    client.force_login(lead)
    url = f"/projects/support/snapshots/freezes/{freeze.pk}/"
    assert "Waiting for a worker" in client.get(url).content.decode()
    assert "is being frozen" in client.get("/projects/support/snapshots/").content.decode()
    Freeze.objects.filter(pk=freeze.pk).update(state="freezing", n_done=3, n_total=6)
    part = client.get(url, headers={"HX-Request": "true"}).content.decode()
    assert "3 of 6 tasks" in part and "<h1" not in part
    Freeze.objects.filter(pk=freeze.pk).update(state="waiting")
    work_off_freezes()
    assert client.get(url, headers={"HX-Request": "true"})["HX-Redirect"] == "/projects/support/snapshots/1/"
    assert client.get(url)["Location"] == "/projects/support/snapshots/1/"


def test_a_page_of_what_was_frozen_before_says_so(client, judged, lead):
    create_snapshot(project=judged, created_by=lead, name="earlier")
    freeze = start_freeze(project=judged, created_by=lead, name="again")
    work_off_freezes()
    client.force_login(lead)
    page = client.get(f"/projects/support/snapshots/freezes/{freeze.pk}/", follow=True).content.decode()
    assert "The same rows were frozen before: this is snapshot #1." in page
