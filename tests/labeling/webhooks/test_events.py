"""What happens becomes messages: all of it, once, in ids and counts."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from labeling.accounts.models import User
from labeling.annotation.models import Judgement
from labeling.annotation.services import revise_judgement, submit_judgement, take_lease
from labeling.live.models import Event
from labeling.live.services import notify
from labeling.preferences.services import create_snapshot
from labeling.projects.models import Project
from labeling.webhooks import tail
from labeling.webhooks.events import collect
from labeling.webhooks.models import Cursor, Delivery, Webhook
from labeling.webhooks.services import change_webhook, create_webhook
from tests import factories
from tests.labeling.webhooks.conftest import EVENTS
from tests.services.databases import use_database_file
from tests.waiting import wait_until
from training.loop.models import Iteration
from training.loop.services import start_iteration
from training.registry.models import ModelVersion
from training.registry.services import change_stage
from training.runs.services import JOBS, claim_next_run, create_run

use_database_file()
pytestmark = pytest.mark.django_db


def told(event: str) -> list[dict]:
    return [json.loads(row.body) for row in Delivery.objects.filter(event=event).order_by("pk")]


def judged_ids() -> list[str]:
    return [one["id"] for body in told("judgement") for one in body["data"]["judgements"]]


@pytest.fixture
def base(db):
    return ModelVersion.objects.create(name="small", version=1, key="small@1", kind="base", folder="x")


def test_each_judgement_is_told_once_by_its_id_and_revisions_name_what_they_supersede(filled_project, annotator, webhook):
    lease = take_lease(project=filled_project, annotator=annotator)
    first = submit_judgement(lease=lease, submission_key="k", body={"ranking": [["a"], ["b"], ["c"]]}).judgement
    assert collect() == 1
    second = revise_judgement(judgement=first, submission_key="l", body={"ranking": [["b"], ["a"], ["c"]]}).judgement
    assert collect() == 1 and collect() == 0
    bodies = told("judgement")
    task = lease.task.public_id
    assert [body["data"]["judgements"] for body in bodies] == [
        [{"id": str(first.pk), "task": task, "supersedes": None}],
        [{"id": str(second.pk), "task": task, "supersedes": str(first.pk)}],
    ]
    assert bodies[0]["project"] == "support" and bodies[0]["event"] == "judgement"
    assert bodies[0]["data"]["url"] == "/api/v1/projects/support/judgements/"
    assert [body["id"] for body in bodies] == list(Delivery.objects.order_by("pk").values_list("message_id", flat=True))


def test_many_judgements_come_a_hundred_at_a_time(project, annotator, webhook):
    factories.fill_project(project, 205)
    factories.judge_all(project, annotator)
    collect()
    assert [body["data"]["n"] for body in told("judgement")] == [100, 100, 5]
    assert judged_ids() == [str(pk) for pk in Judgement.objects.order_by("pk").values_list("pk", flat=True)]


def test_imported_judgements_are_told_of_as_the_import_alone(filled_project, annotator, webhook):
    User.objects.filter(pk=annotator.pk).update(kind=User.Kind.IMPORTED)
    factories.judge_all(filled_project, User.objects.get(pk=annotator.pk))
    assert Judgement.objects.filter(annotator_kind="imported").count() == 5
    collect()
    assert told("judgement") == []


def test_a_snapshot_a_run_and_an_iteration_are_told_with_their_states_and_addresses(filled_project, annotator, lead, webhook, base):
    factories.judge_all(filled_project, annotator)
    snapshot = create_snapshot(project=filled_project, created_by=lead)
    run = create_run(project=filled_project, kind="sample", created_by=lead, model=base, spec={}, inputs={})
    JOBS.end(claim_next_run(owner="w"), state="done")
    iteration = start_iteration(project=filled_project, policy_before=base, created_by=lead)
    collect()
    [frozen] = told("snapshot")
    assert frozen["data"] == {
        "id": str(snapshot.pk), "number": 1, "content_hash": snapshot.content_hash, "n_judgements": 5,
        "n_pairs": snapshot.n_pairs, "url": f"/api/v1/snapshots/{snapshot.pk}/",
    }  # fmt: skip
    assert [body["data"] for body in told("run")] == [
        {"id": str(run.pk), "state": state, "url": f"/api/v1/runs/{run.pk}/"} for state in ("queued", "running", "done")
    ]
    [begun] = told("iteration")
    assert begun["data"] == {
        "id": str(iteration.pk), "number": 1, "state": Iteration.Stage.SAMPLING.value,
        "url": f"/api/v1/iterations/{iteration.pk}/",
    }  # fmt: skip


def test_an_import_is_told_with_what_it_brought(project, lead, webhook):
    factories.fill_project(project, 3)
    collect()
    record = project.imports.get()
    ended = told("import")[-1]["data"]
    assert (ended["id"], ended["state"], ended["url"]) == (str(record.pk), "done", f"/api/v1/imports/{record.pk}/")
    assert (ended["n_rows"], ended["n_taken"], ended["n_prompts"], ended["n_completions"]) == (3, 3, 3, 9)


def test_a_model_is_told_of_when_it_comes_into_production_and_so_is_the_one_that_makes_place(project, lead, webhook):
    first, second = (
        ModelVersion.objects.create(name="support", version=n, key=f"support@{n}", kind="policy", project=project, folder="x") for n in (1, 2)
    )
    notify(project.live_group, "model", model=first.pk)  # entered, which is told of as its run
    for model in (first, second):
        change_stage(model=model, to_stage="production", reason="it wins", changed_by=lead)
    collect()
    url = "/api/v1/models/"
    assert [message["data"] for message in told("model")] == [
        {"id": str(first.pk), "state": "production", "before": "candidate", "url": f"{url}{first.pk}/"},
        {"id": str(first.pk), "state": "candidate", "before": "production", "url": f"{url}{first.pk}/"},
        {"id": str(second.pk), "state": "production", "before": "candidate", "url": f"{url}{second.pk}/"},
    ]


def test_no_message_holds_a_text_or_a_model(filled_project, annotator, lead, webhook, base):
    factories.judge_all(filled_project, annotator)
    create_snapshot(project=filled_project, created_by=lead)
    create_run(project=filled_project, kind="sample", created_by=lead, model=base, spec={}, inputs={})
    collect()
    sent = " ".join(Delivery.objects.values_list("body", flat=True))
    assert sent
    for secret in ("parcel", "Answer", "tiny@1", "small@1", annotator.username, "kind"):
        assert secret not in sent


def test_each_webhook_hears_of_its_own_project_and_its_own_events(project, lead, stranger, listed):
    elsewhere = factories.make_project(stranger, slug="elsewhere")
    runs, _ = create_webhook(project=project, url=listed.url, events=["run"])
    create_webhook(project=elsewhere, url=listed.url, events=EVENTS)
    paused, _ = create_webhook(project=project, url=listed.url, events=EVENTS)
    change_webhook(webhook=paused, state="paused")
    notify(project.live_group, "run", run=1, state="done")
    notify(project.live_group, "iteration", iteration=1, number=1, stage="done")
    notify("run.1", "run", run=1, state="done")
    assert collect() == 1
    assert Delivery.objects.get().webhook == runs


def test_a_new_webhook_hears_nothing_of_the_past_nor_does_one_of_its_pause(filled_project, annotator, listed):
    factories.judge_all(filled_project, annotator, limit=2)
    webhook, _ = create_webhook(project=filled_project, url=listed.url, events=EVENTS)
    assert collect() == 0
    change_webhook(webhook=webhook, state="paused")
    factories.judge_all(filled_project, annotator, limit=2)
    assert collect() == 0
    change_webhook(webhook=webhook, state="active")
    assert collect() == 0
    factories.judge_all(filled_project, annotator)
    assert collect() == 1 and len(judged_ids()) == 1


def test_the_same_word_twice_in_a_row_is_one_message(project, webhook):
    for state in ("queued", "queued", "running", "running", "queued"):
        notify(project.live_group, "run", run=1, state=state)
    collect()
    assert [body["data"]["state"] for body in told("run")] == ["queued", "running", "queued"]


def test_submitting_a_judgement_asks_and_writes_nothing_for_webhooks(filled_project, annotator, listed):
    counted = []
    for is_listening in (False, True):
        if is_listening:
            create_webhook(project=filled_project, url=listed.url, events=EVENTS)
        factories.judge_all(filled_project, annotator, limit=1)  # what is compiled once
        lease = take_lease(project=filled_project, annotator=annotator)
        with CaptureQueriesContext(connection) as queries:
            submit_judgement(lease=lease, submission_key=f"k{is_listening}", body={"ranking": [["a"], ["b"], ["c"]]})
        counted.append(len(queries))
        assert not [query for query in queries if "webhooks_" in query["sql"]]
    assert counted[0] == counted[1]


def test_where_nobody_listens_a_look_is_one_question(filled_project, annotator, django_assert_num_queries):
    factories.judge_all(filled_project, annotator)
    with django_assert_num_queries(1):
        assert collect() == 0


def test_reading_goes_on_in_batches_where_much_happened(project, webhook, monkeypatch):
    monkeypatch.setattr(tail, "BATCH", 7)
    for number in range(40):
        notify(project.live_group, "run", run=number, state="done")
    collect()
    assert [int(body["data"]["id"]) for body in told("run")] == list(range(40))


# --- ids that are committed late ----------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_what_is_committed_late_below_what_was_read_is_not_missed(project, webhook):
    """One transaction takes an id and waits; another takes the next, commits and is read; then the first commits."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    has_id, may_commit = threading.Event(), threading.Event()

    def slow() -> None:
        try:
            with transaction.atomic():
                notify(project.live_group, "run", run=1, state="done")
                has_id.set()
                assert may_commit.wait(60)
        finally:
            connection.close()

    thread = threading.Thread(target=slow)
    thread.start()
    assert has_id.wait(60)
    notify(project.live_group, "run", run=2, state="done")
    collect()
    assert [body["data"]["id"] for body in told("run")] == ["2"]
    for _ in range(3):  # however often it looks meanwhile
        collect()
    may_commit.set()
    thread.join()
    collect()
    collect()
    assert [body["data"]["id"] for body in told("run")] == ["2", "1"]


@pytest.mark.django_db(transaction=True)
def test_what_was_under_way_when_the_first_webhook_came_is_not_missed(project, listed):
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    has_id, may_commit = threading.Event(), threading.Event()

    def slow() -> None:
        try:
            with transaction.atomic():
                notify(project.live_group, "run", run=1, state="done")
                has_id.set()
                assert may_commit.wait(60)
        finally:
            connection.close()

    thread = threading.Thread(target=slow)
    thread.start()
    assert has_id.wait(60)
    notify(project.live_group, "run", run=2, state="done")
    create_webhook(project=project, url=listed.url, events=EVENTS)
    may_commit.set()
    thread.join()
    collect()
    assert [body["data"]["id"] for body in told("run")] == ["1"]


@pytest.mark.django_db(transaction=True)
def test_gaps_are_given_up_when_all_who_ran_are_over(project, webhook, monkeypatch):
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    monkeypatch.setattr(tail, "LEAST_SECONDS", 0.0)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        notify(project.live_group, "run", run=1, state="done")
        raise ZeroDivisionError
    notify(project.live_group, "run", run=2, state="done")
    collect()
    assert Cursor.objects.get(name="events").gaps
    # Transactions of whoever else uses this server count as well: it may be some looks until they are over.
    wait_until(lambda: (collect(), Cursor.objects.get(name="events").gaps == [])[1])


@pytest.mark.django_db(transaction=True)
def test_a_gap_is_kept_for_a_transaction_younger_than_those_that_are_over(project, webhook, monkeypatch):
    """The number of the one that fills the gap is above those of all that have ended when the gap is noticed."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    monkeypatch.setattr(tail, "LEAST_SECONDS", 0.0)
    older_began, has_id, older_may, may_commit = (threading.Event() for _ in range(4))

    def older() -> None:
        try:
            with transaction.atomic():
                Project.objects.filter(pk=project.pk).update(name="Support")  # takes its number
                older_began.set()
                assert older_may.wait(60)
                notify(project.live_group, "run", run=2, state="done")
        finally:
            connection.close()

    def younger() -> None:
        try:
            with transaction.atomic():
                notify(project.live_group, "run", run=1, state="done")
                has_id.set()
                assert may_commit.wait(60)
        finally:
            connection.close()

    threads = [threading.Thread(target=older), threading.Thread(target=younger)]
    threads[0].start()
    assert older_began.wait(60)
    threads[1].start()
    assert has_id.wait(60)
    older_may.set()
    threads[0].join()
    for _ in range(4):
        collect()
    assert [body["data"]["id"] for body in told("run")] == ["2"]
    may_commit.set()
    threads[1].join()
    collect()
    assert [body["data"]["id"] for body in told("run")] == ["2", "1"]


def test_a_gap_that_fills_in_part_stays_open_for_the_rest(monkeypatch):
    assert tail._missing([3, 4, 7], 1) == [(2, 2), (5, 6)]
    monkeypatch.setattr(tail.time, "time", lambda: 1000.0)
    gaps = [[5, 9, 50, 999.0], [20, 20, 50, 0.0], [30, 30, 99, 0.0]]
    assert tail._left_of(gaps, [6, 7], 60, None) == [[5, 5, 50, 999.0], [8, 9, 50, 999.0], [30, 30, 99, 0.0]]
    # Reading stopped at 7: the gap at 20 was not looked into, so it stays although its time is over.
    assert [20, 20, 50, 0.0] in tail._left_of(gaps, [6, 7], 60, 7)


@pytest.mark.django_db(transaction=True)
def test_many_writers_and_two_readers_at_once_miss_nothing_and_double_nothing(project, webhook):
    """Eight threads write events, some of them rolled back, while two workers look without a pause."""
    n, done = 400, threading.Event()

    def write(number: int) -> None:
        try:
            with transaction.atomic():
                notify(project.live_group, "run", run=number, state="done")
                if number % 7 == 0:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        finally:
            connection.close()

    def look() -> None:
        try:
            while not done.is_set():
                collect()
        finally:
            connection.close()

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(n)))
    done.set()
    for reader in readers:
        reader.join()
    collect()
    heard = [int(body["data"]["id"]) for body in told("run")]
    assert sorted(heard) == [number for number in range(n) if number % 7]
    assert Event.objects.filter(name="run").count() == len(heard)


def test_a_deleted_project_leaves_nobody_to_tell(project, webhook):
    notify(project.live_group, "run", run=1, state="done")
    Webhook.objects.all().delete()
    assert collect() == 0
