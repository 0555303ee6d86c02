"""Who is given what next, in how many statements and how many steps."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.timezone import now

from labeling.annotation import queue
from labeling.annotation.bench import n_tasks_left
from labeling.annotation.models import Lease, Pool, Slot, Task
from labeling.annotation.queue import take_slot
from labeling.annotation.selectors import member_at_work
from labeling.annotation.services import (
    NewTask,
    close_tasks_of,
    create_tasks,
    free_expired_leases,
    skip_lease,
    submit_judgement,
    take_lease,
)
from labeling.projects.models import Completion, Membership
from tests import factories

pytestmark = pytest.mark.django_db
RANKING = {"ranking": [["a"], ["b"], ["c"]]}


@pytest.fixture
def always_remembers(monkeypatch):
    monkeypatch.setattr(queue, "REMEMBERED_EVERY", 1)


def place(member) -> dict:
    return Membership.objects.get(user=member).queue_places


def add_tasks(project, n: int, start: int, **wanted) -> list[Task]:
    """Tasks over the completions of prompts that are there, two each, in an order of their own."""
    made = []
    for prompt in project.prompts.order_by("pk")[start : start + n]:
        ids = list(prompt.completions.order_by("pk").values_list("pk", flat=True)[:2])
        create_tasks(project=project, new_tasks=[NewTask(prompt.pk, ids)], **wanted)
        made.append(project.tasks.latest("pk"))
    return made


def test_the_next_task_takes_four_statements_however_much_is_done_or_waiting(project, annotator):
    factories.fill_project(project, 30, overlap=2)
    counts = []
    for judged in (0, 12):
        factories.judge_all(project, annotator, limit=judged)
        with CaptureQueriesContext(connection) as captured:
            assert take_lease(project=project, annotator=annotator)
        statements = [query["sql"] for query in captured if "SAVEPOINT" not in query["sql"].upper()]
        counts.append(len(statements))
        submit_judgement(lease=Lease.objects.get(state="open"), submission_key=f"k{judged}", body=RANKING)
    assert counts == [4, 4]


def test_a_person_alone_in_a_queue_of_two_judgements_walks_past_nothing_twice(project, annotator, always_remembers):
    factories.fill_project(project, 20, overlap=2)
    factories.judge_all(project, annotator, limit=15)
    member = member_at_work(annotator, project)
    # What lies before the place is all theirs, so the queue begins right behind it.
    free = Slot.objects.filter(project=project, state="free", position__gt=member.queue_places[""])
    assert free.filter(task__leases__annotator=annotator).count() <= 1
    assert n_tasks_left(annotator, project) == 5
    assert factories.judge_all(project, annotator) == 5
    assert take_lease(project=project, annotator=annotator) is None


def test_tasks_that_come_in_are_met_whatever_place_was_remembered(project, annotator, always_remembers):
    factories.fill_project(project, 6)
    factories.judge_all(project, annotator, limit=4)
    assert place(annotator)["version"] == 1
    (urgent,) = add_tasks(project, 1, 0, priority=7)
    (patient,) = add_tasks(project, 1, 1, priority=-7)
    assert take_lease(project=project, annotator=annotator).task == urgent
    given = []
    while lease := take_lease(project=project, annotator=annotator):
        given.append(lease.task_id)
        keys = "abc"[: len(lease.order_shown)]
        submit_judgement(lease=lease, submission_key=f"s{lease.pk}", body={"ranking": [[key] for key in keys]})
    assert given == [urgent.pk, *sorted(set(given) - {urgent.pk, patient.pk}), patient.pk] and len(given) == 4


def test_a_place_is_forgotten_after_some_minutes(project, annotator, always_remembers, monkeypatch):
    factories.fill_project(project, 4)
    factories.judge_all(project, annotator, limit=3)
    behind = Slot.objects.filter(project=project, position=place(annotator)[""])
    # As if the taking of it by somebody else had failed.
    Slot.objects.filter(project=project, state="free").update(state="done")
    stray = behind.get()
    Lease.objects.filter(slot=stray).delete()
    Slot.objects.filter(pk=stray.pk).update(state="free", holder=None, expires_at=None)
    assert take_lease(project=project, annotator=annotator) is None
    monkeypatch.setattr(queue, "REMEMBERED_SECONDS", 0)
    assert take_lease(project=project, annotator=annotator).slot == stray


def test_what_comes_back_is_handed_out_first_and_not_to_those_who_passed(
    project, annotator, other_annotator, always_remembers
):
    factories.fill_project(project, 6)
    factories.judge_all(project, other_annotator, limit=1)
    passed = take_lease(project=project, annotator=annotator)
    skip_lease(lease=passed)
    forgotten = take_lease(project=project, annotator=annotator)
    free_expired_leases(at=forgotten.expires_at)
    assert take_lease(project=project, annotator=other_annotator).task == passed.task
    # The one who let it run out is past it too, and is given it again.
    assert take_lease(project=project, annotator=annotator).task == forgotten.task
    assert Slot.objects.get(task=passed.task).position < 0


def test_a_slot_that_comes_back_again_and_again_stays_in_the_queue(project, annotator):
    factories.fill_project(project, 1)
    for _ in range(4):
        lease = take_lease(project=project, annotator=annotator)
        free_expired_leases(at=lease.expires_at)
    slot = Slot.objects.get()
    assert slot.state == "free" and queue.position_of(slot.task_id, 0) - slot.position == 2**60


def test_nobody_is_given_a_text_of_their_own(project, annotator, other_annotator):
    factories.fill_project(project, 1)
    prompt = project.prompts.get()
    mine = Completion.objects.create(prompt=prompt, content="Mine.", content_hash="m", author=annotator)
    Task.objects.all().delete()
    theirs = prompt.completions.filter(author=None).first()
    create_tasks(project=project, new_tasks=[NewTask(prompt.pk, [mine.pk, theirs.pk])])
    assert take_lease(project=project, annotator=annotator) is None
    assert n_tasks_left(annotator, project) == 0
    assert take_lease(project=project, annotator=other_annotator)


def test_tasks_of_a_pool_go_to_its_people_and_before_those_for_everybody(project, annotator, other_annotator):
    factories.fill_project(project, 3)
    pool = Pool.objects.create(project=project, name="Law", is_named=True)
    (special,) = add_tasks(project, 1, 2, pool=pool)
    Membership.objects.filter(user=annotator, project=project).update(pool_ids=[pool.pk])
    for person in (other_annotator, annotator):
        assert n_tasks_left(person, project) == (4 if person == annotator else 3)
    assert take_lease(project=project, annotator=annotator).task == special
    given = set()
    while lease := take_lease(project=project, annotator=other_annotator):
        given.add(lease.task_id)
        submit_judgement(lease=lease, submission_key=f"s{lease.pk}", body=RANKING)
    assert len(given) == 3 and special.pk not in given


def test_a_closed_task_leaves_the_queue_and_a_lease_on_it_that_runs_out_does_not_bring_it_back(project, annotator):
    factories.fill_project(project, 2)
    lease = take_lease(project=project, annotator=annotator)
    for prompt in project.prompts.all():
        close_tasks_of(prompt=prompt)
    free_expired_leases(at=lease.expires_at)
    assert take_lease(project=project, annotator=annotator) is None
    assert n_tasks_left(annotator, project) == 0


def test_a_paused_member_keeps_what_they_hold_and_is_given_no_more(filled_project, annotator, other_annotator):
    lease = take_lease(project=filled_project, annotator=annotator)
    Membership.objects.filter(user=annotator).update(state=Membership.State.PAUSED)
    assert take_lease(project=filled_project, annotator=annotator) == lease
    assert take_lease(project=filled_project, annotator=annotator, holding=[lease.pk]) is None
    assert take_lease(project=filled_project, annotator=other_annotator)


def test_strangers_are_given_nothing(filled_project, stranger):
    assert take_lease(project=filled_project, annotator=stranger) is None
    assert n_tasks_left(stranger, filled_project) == 0


def test_naming_more_leases_than_one_can_hold_is_harmless(filled_project, annotator):
    lease = take_lease(project=filled_project, annotator=annotator)
    assert take_lease(project=filled_project, annotator=annotator, holding=[*range(10_000, 10_050), lease.pk])


@pytest.mark.parametrize("in_pool", [False, True])
def test_the_queue_of_a_project_without_statistics_is_not_read_whole(project, lead, annotator, in_pool):
    other = factories.make_project(lead, slug="other", members={annotator: "annotator"})
    factories.fill_project(other, 400, n_completions=2, overlap=2)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    factories.fill_project(project, 300, n_completions=2, overlap=2)
    if in_pool:
        pool = Pool.objects.create(project=project, name="Law", is_named=True)
        Slot.objects.filter(project=project).update(pool=pool)
        Membership.objects.filter(project=project, user=annotator).update(pool_ids=[pool.pk])

    def plan() -> str:
        member = member_at_work(annotator, project)
        with CaptureQueriesContext(connection) as captured:
            assert take_slot(member, now())
        taking = next(query["sql"] for query in captured if "COALESCE((" in query["sql"])
        with connection.cursor() as cursor:
            how = "EXPLAIN " if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN "
            cursor.execute(how + taking.replace("%", "%%"))
            return "\n".join(line for *_numbers, line in cursor.fetchall())

    found = plan()
    assert "slot_in_queue" in found and "Sort" not in found and "USE TEMP B-TREE" not in found
    if connection.vendor != "postgresql":
        return
    # Another way to a project's slots would be taken there, which plans by statistics.
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("CREATE INDEX another_way ON annotation_slot (project_id)")
    assert "Sort" in plan()
