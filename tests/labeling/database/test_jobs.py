"""Rows that workers take in turn, through the kind of them that has the fewest fields of its own."""

from datetime import timedelta

import pytest
from django.utils.timezone import now

from labeling.database.jobs import OwnerLost
from labeling.imports.services import JOBS, start_import
from labeling.live.models import Event
from labeling.projects.models import Import

HOUR = timedelta(hours=1)


@pytest.fixture
def job(project, tmp_path) -> Import:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "Which mug?"}\n')
    return start_import(project=project, path=path, format="prompts")


def claimed(owner: str) -> Import | None:
    return JOBS.claim_first(Import.objects.order_by("pk"), owner=owner)


def states_told() -> list[str]:
    return [state for state in (event.payload.get("state") for event in Event.objects.order_by("pk")) if state]


def test_one_of_several_claims_it_and_the_first_epoch_is_one(job):
    mine = claimed("elsewhere:1:a")
    assert claimed("elsewhere:2:b") is None
    assert (mine.pk, mine.state, mine.owner, mine.epoch, mine.attempts) == (job.pk, "running", "elsewhere:1:a", 1, 1)


def test_who_lost_it_can_neither_beat_nor_end_nor_give_it_back(job):
    stale = claimed("elsewhere:1:a")
    Import.objects.update(heartbeat_at=now() - HOUR)
    assert JOBS.hand_on(stale, silent_for=HOUR / 2, state=Import.State.WAITING)
    fresh = claimed("elsewhere:2:b")
    with pytest.raises(OwnerLost, match=str(job.pk)):
        JOBS.beat(stale, n_rows=5)
    assert not JOBS.end_quietly(stale, state=Import.State.FAILED, problem="of the stale one")
    JOBS.give_back(stale)
    row = Import.objects.get()
    assert (row.state, row.owner, row.epoch, row.n_rows, row.problem) == ("running", fresh.owner, 3, 0, "")


def test_one_that_beats_is_not_handed_on(job):
    mine = claimed("elsewhere:1:a")
    assert not JOBS.hand_on(mine, silent_for=HOUR, state=Import.State.WAITING)
    assert not JOBS.sweep(silent_for=HOUR, then=lambda row: {"state": Import.State.WAITING})
    assert Import.objects.get().state == Import.State.RUNNING


def test_what_is_given_back_costs_no_attempt(job):
    JOBS.give_back(claimed("elsewhere:1:a"))
    assert Import.objects.get().attempts == 0 and claimed("elsewhere:2:b").attempts == 1


def test_a_waiting_one_is_cancelled_at_once_a_running_one_soon_and_one_that_is_over_not(job):
    claimed("elsewhere:1:a")
    assert JOBS.request_cancel(job, cancelled=Import.State.CANCELLED) == Import.State.RUNNING
    row = Import.objects.get()
    assert row.cancel_requested_at and row.finished_at is None
    JOBS.give_back(row)
    assert JOBS.request_cancel(job, cancelled=Import.State.CANCELLED) == Import.State.CANCELLED
    assert Import.objects.get().finished_at
    assert JOBS.request_cancel(job, cancelled=Import.State.CANCELLED) == ""


def test_every_change_of_state_is_told(job):
    mine = claimed("elsewhere:1:a")
    Import.objects.update(heartbeat_at=now() - HOUR)
    JOBS.sweep(silent_for=HOUR / 2, then=lambda row: {"state": Import.State.FAILED})
    assert not JOBS.held(mine).exists()
    assert states_told() == ["waiting", "running", "failed"]
    assert Import.objects.get().finished_at
