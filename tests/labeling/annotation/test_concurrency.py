"""Overlap is exact under any concurrency: many people in threads, each with a database connection of its own."""

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils.timezone import now

from labeling.annotation.errors import AlreadyJudged, BadTasks, LeaseLost, PoolInUse
from labeling.annotation.models import Judgement, Lease, Pool, SetAside, Slot, Task
from labeling.annotation.selectors import queue_figures
from labeling.annotation.services import (
    Submission,
    change_tasks,
    create_pool,
    delete_pool,
    free_expired_leases,
    renew_lease,
    restore_judgements,
    save_draft,
    set_aside_judgements,
    skip_lease,
    submit_judgement,
    take_lease,
)
from labeling.projects.services import add_member, change_project
from tests import factories
from tests.labeling.quality import gold
from tests.services.databases import use_database_file

use_database_file()
pytestmark = pytest.mark.django_db(transaction=True)

RANKING = {"ranking": [["a"], ["b", "c"]]}


def in_thread(pool: ThreadPoolExecutor, work, *args):
    def run():
        try:
            return work(*args)
        finally:
            connection.close()

    return pool.submit(run)


@pytest.fixture
def people(project):
    people = [factories.make_user(f"person-{number}") for number in range(16)]
    for person in people:
        add_member(project=project, user=person, role="annotator")
    return people


def assert_overlap_is_exact(project, overlap: int) -> None:
    for task in Task.objects.filter(project=project).prefetch_related("judgements"):
        counted = [judgement for judgement in task.judgements.all() if judgement.slot_id]
        everyone = Counter(judgement.annotator_id for judgement in task.judgements.all())
        assert len(counted) == task.n_judged == overlap
        assert len({judgement.slot_id for judgement in counted}) == overlap
        assert max(everyone.values()) == 1
        assert task.state == Task.State.DONE
    assert not Slot.objects.exclude(state=Slot.State.DONE).exists()


def test_sixteen_people_with_retries_expiries_and_double_submits_give_each_task_exactly_two(project, people):
    factories.fill_project(project, 40, overlap=2)
    acknowledged: list[Submission] = []

    def send(lease: Lease, key: str) -> None:
        with suppress(LeaseLost, AlreadyJudged):  # said to the person, so nothing is lost
            acknowledged.append(submit_judgement(lease=lease, submission_key=key, body=RANKING))

    def work(person, seed: int) -> None:
        chance = random.Random(seed)
        far = now() + timedelta(hours=2)
        late: list[Lease] = []
        with ThreadPoolExecutor(2) as twice:
            while lease := take_lease(project=project, annotator=person, at=far if chance.random() < 0.1 else None):
                dice = chance.random()
                if dice < 0.1:
                    free_expired_leases(at=far + timedelta(hours=2))  # of everybody
                elif dice < 0.15:
                    skip_or_lose(lease)
                    continue
                elif dice < 0.25:
                    with suppress(LeaseLost):
                        save_draft(lease=lease, draft={"rationale": "..."})
                        renew_lease(lease=lease)
                elif dice < 0.35:
                    late.append(lease)  # answered at the very end
                    Lease.objects.filter(pk=lease.pk, state="open").update(expires_at=now())
                    Slot.objects.filter(pk=lease.slot_id, state="leased", holder=person).update(expires_at=now())
                    free_expired_leases()
                    if chance.random() < 0.5:
                        continue
                if chance.random() < 0.4:
                    for done in [in_thread(twice, send, lease, f"{person.pk}-{lease.pk}") for _ in range(2)]:
                        done.result()
                else:
                    send(lease, f"{person.pk}-{lease.pk}")
            for lease in late:
                send(lease, f"{person.pk}-{lease.pk}")

    def skip_or_lose(lease: Lease) -> None:
        with suppress(LeaseLost):
            skip_lease(lease=lease)

    with ThreadPoolExecutor(len(people)) as pool:
        for done in [in_thread(pool, work, person, seed) for seed, person in enumerate(people)]:
            done.result()
    for person in people:  # what was given back after everyone had gone
        free_expired_leases(at=now() + timedelta(hours=6))
        factories.judge_all(project, person)

    assert_overlap_is_exact(project, overlap=2)
    ids = {submission.judgement.pk for submission in acknowledged}
    assert ids <= set(Judgement.objects.values_list("pk", flat=True))
    new = [submission for submission in acknowledged if submission.is_new]
    assert len(new) == len({submission.judgement.pk for submission in new})
    figures = queue_figures(project)
    assert (figures.n_done, figures.n_surplus) == (80, Judgement.objects.count() - 80)


def test_one_key_sent_by_eight_requests_at_once_makes_one_judgement(project, people):
    factories.fill_project(project, 1)
    lease = take_lease(project=project, annotator=people[0])

    def send() -> Submission:
        return submit_judgement(lease=Lease.objects.get(pk=lease.pk), submission_key="k", body=RANKING)

    with ThreadPoolExecutor(8) as pool:
        sent = [done.result() for done in [in_thread(pool, send) for _ in range(8)]]
    assert Counter(submission.is_new for submission in sent) == {True: 1, False: 7}
    assert len({submission.judgement.pk for submission in sent}) == 1


def test_one_slot_wanted_by_everyone_at_once_is_given_to_one(project, people):
    factories.fill_project(project, 1)
    with ThreadPoolExecutor(16) as pool:
        leases = [
            done.result()
            for done in [
                in_thread(pool, lambda person=person: take_lease(project=project, annotator=person))
                for person in people
            ]
        ]
    assert sum(lease is not None for lease in leases) == 1


def test_two_tabs_of_one_person_never_hold_one_task_twice(project, people):
    factories.fill_project(project, 3, overlap=3)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            requests = [in_thread(pool, lambda: take_lease(project=project, annotator=people[0])) for _ in range(8)]
            assert any(request.result() for request in requests)
    held = Lease.objects.filter(annotator=people[0], state="open")
    assert held.values("task").distinct().count() == held.count() <= 3


def test_requests_at_once_give_nobody_more_tasks_a_day_than_the_cap(project, people):
    change_project(project=project, bench={"daily_cap": 2})
    factories.fill_project(project, 12)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(2):
            requests = [in_thread(pool, take_lease_beside, project, person) for person in people[:4] for _ in range(4)]
            for request in requests:
                request.result()
    given = Counter(Lease.objects.values_list("annotator__username", flat=True))
    assert given == {person.username: 2 for person in people[:4]}


def take_lease_beside(project, person) -> Lease | None:
    """A new lease, beside those that are held: as when the next task is fetched ahead."""
    held = Lease.objects.filter(annotator=person, state="open")
    return take_lease(project=project, annotator=person, holding=held.values_list("pk", flat=True))


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time")
def test_taking_a_slot_that_ran_out_never_waits_for_its_holder_who_is_submitting(project, people):
    factories.fill_project(project, 1)
    lease = take_lease(project=project, annotator=people[0])
    late = lease.expires_at + timedelta(seconds=1)
    # As a submission does first; it would then want the slot.
    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        Lease.objects.filter(pk=lease.pk).update(state=Lease.State.DONE)
        taking = in_thread(pool, lambda: take_lease(project=project, annotator=people[1], at=late))
        assert taking.result(timeout=60) is None
        Slot.objects.filter(pk=lease.slot_id).update(state=Slot.State.DONE)


def test_setting_aside_and_restoring_while_others_submit_leave_every_task_exact(project, people, lead):
    """Two leads set aside and restore what four people judge, while all sixteen go on judging."""
    factories.fill_project(project, 30, overlap=2)
    stop = threading.Event()

    def work(person, seed: int) -> None:
        chance = random.Random(seed)
        while lease := take_lease(project=project, annotator=person):
            if chance.random() < 0.1:
                free_expired_leases(at=now() + timedelta(hours=2))
            with suppress(LeaseLost, AlreadyJudged):
                submit_judgement(lease=lease, submission_key=f"{person.pk}-{lease.pk}", body=RANKING)

    def put_aside(seed: int) -> None:
        chance = random.Random(seed)
        while not stop.is_set():
            person = people[chance.randrange(4)]
            if chance.random() < 0.6:
                set_aside_judgements(project=project, annotator=person, reason="trial", by=lead)
            else:
                restore_judgements(project=project, annotator=person, by=lead)
            time.sleep(0.01)

    with ThreadPoolExecutor(len(people) + 2) as pool:
        leads = [in_thread(pool, put_aside, seed) for seed in (1, 2)]
        for done in [in_thread(pool, work, person, seed) for seed, person in enumerate(people)]:
            done.result()
        stop.set()
        for done in leads:
            done.result()
    free_expired_leases(at=now() + timedelta(hours=6))
    for person in people:
        factories.judge_all(project, person)

    set_aside = SetAside.objects.filter(restored_at=None)
    assert set_aside.count() == set_aside.values("judgement").distinct().count()
    for task in Task.objects.filter(project=project).prefetch_related("slots"):
        states = Counter(slot.state for slot in task.slots.all())
        assert states[Slot.State.DONE] == task.n_judged == 2 and task.state == Task.State.DONE
        assert set(states) <= {Slot.State.DONE, Slot.State.VOID}
        counted = Judgement.objects.filter(task=task, slot__state=Slot.State.DONE)
        assert counted.count() == counted.values("annotator").distinct().count() == 2
    # A void slot is that of a judgement set aside, or one that was opened for such a judgement and withdrawn.
    void = Judgement.objects.filter(slot__state=Slot.State.VOID, supersedes=None)
    assert set(void.values_list("pk", flat=True)) == set(
        set_aside.filter(judgement__slot__isnull=False).values_list("judgement", flat=True)
    )


def test_two_requests_of_one_person_never_bring_the_same_gold_task(project, people):
    factories.fill_project(project, 20)
    gold.write(project, 3)
    gold.set_quality(project, gold_rate=0.5)
    with ThreadPoolExecutor(8) as pool:
        for _round in range(6):
            asked = [in_thread(pool, take_and_submit, project, people[0]) for _ in range(8)]
            for done in asked:
                done.result()
    shown = Task.objects.filter(purpose=Task.Purpose.GOLD, leases__annotator=people[0]).values_list("repeats", flat=True)
    assert len(shown) == len(set(shown)) == 3


def take_and_submit(project, person) -> None:
    lease = take_lease(project=project, annotator=person)
    if lease is not None:
        with suppress(LeaseLost, AlreadyJudged):
            submit_judgement(lease=lease, submission_key=f"{person.pk}-{lease.pk}-{random.random()}", body=RANKING)


def test_moving_tasks_while_others_take_them_gives_nobody_outside_a_pool_a_slot_of_it(project, people, lead):
    """Two leads move tasks between everyone and two pools and back, and set aside, while sixteen people judge."""
    factories.fill_project(project, 30, overlap=2)
    tasks = list(project.tasks.order_by("pk"))
    pools = [create_pool(project=project, name=name, people=chosen) for name, chosen in (("a", people[:5]), ("b", people[5:9]))]
    # These are moved before anyone works, and stay: of them it is known who may be given them at any time.
    kept = {task.pk: pool for task, pool in zip(tasks[:8], [*pools] * 4, strict=True)}
    for task_id, pool in kept.items():
        change_tasks(project=project, tasks=Task.objects.filter(pk=task_id), pool=pool)
    others = [task.pk for task in tasks[8:]]
    stop = threading.Event()

    def work(person, seed: int) -> None:
        chance = random.Random(seed)
        for _round in range(200):
            lease = take_lease(project=project, annotator=person)
            if lease is None:
                if stop.is_set():
                    return
                time.sleep(0.005)
                continue
            if chance.random() < 0.1:
                free_expired_leases(at=now() + timedelta(hours=2))
            with suppress(LeaseLost, AlreadyJudged):
                submit_judgement(lease=lease, submission_key=f"{person.pk}-{lease.pk}", body=RANKING)

    def move(seed: int) -> None:
        chance = random.Random(seed)
        for _round in range(15):
            some = Task.objects.filter(pk__in=chance.sample(others, 12))
            change_tasks(project=project, tasks=some, pool=chance.choice([*pools, None]), priority=chance.randint(-9, 9))
            if chance.random() < 0.2:
                set_aside_judgements(project=project, annotator=people[chance.randrange(4)], reason="trial", by=lead)
        change_tasks(project=project, tasks=Task.objects.filter(pk__in=others[seed - 1 :: 2]), pool=pools[seed - 1])

    with ThreadPoolExecutor(len(people) + 2) as pool:
        leads = [in_thread(pool, move, seed) for seed in (1, 2)]
        workers = [in_thread(pool, work, person, seed) for seed, person in enumerate(people)]
        for done in leads:
            done.result()
        stop.set()
        for done in workers:
            done.result()
    moved_at = Lease.objects.order_by("-pk").values_list("pk", flat=True).first()
    free_expired_leases(at=now() + timedelta(hours=6))
    for person in people:
        factories.judge_all(project, person)

    named = {pool.pk: set(pool.people.values_list("pk", flat=True)) for pool in pools}
    now_in = dict(project.tasks.values_list("pk", "pool"))
    for lease in Lease.objects.all():
        of = kept[lease.task_id].pk if lease.task_id in kept else now_in[lease.task_id] if lease.pk > moved_at else None
        assert of is None or lease.annotator_id in named[of]
    for slot in Slot.objects.select_related("task"):
        assert slot.pool_id == slot.task.pool_id
    for task in Task.objects.filter(project=project).prefetch_related("slots"):
        assert Counter(slot.state for slot in task.slots.all())[Slot.State.DONE] == task.n_judged <= 2
        assert task.n_judged == 2 or set(task.slots.values_list("state", flat=True)) <= {"free", "done", "void"}
        counted = Judgement.objects.filter(task=task, slot__state=Slot.State.DONE)
        assert counted.count() == counted.values("annotator").distinct().count() == task.n_judged


def test_a_pool_and_a_member_made_at_once_fit_each_other(project, people):
    with ThreadPoolExecutor(8) as pool:
        for number in range(5):
            newcomer = factories.make_user(f"newcomer-{number}")
            begun = [
                in_thread(pool, lambda n=number: create_pool(project=project, name=f"de {n}", languages=["de"])),
                in_thread(pool, lambda who=newcomer: add_member(project=project, user=who, role="annotator", languages=["de"])),
                in_thread(pool, lambda n=number: create_pool(project=project, name=f"de again {n}", languages=["de"])),
            ]
            for done in begun:
                done.result()
    ids = set(Pool.objects.values_list("pk", flat=True))
    for member in project.memberships.filter(user__username__startswith="newcomer"):
        assert set(member.pool_ids) == ids and len(ids) == 10


def test_a_pool_deleted_while_tasks_are_moved_to_it_leaves_them_whole(project, people):
    factories.fill_project(project, 12)
    tasks = project.tasks.all()
    for number in range(8):
        pool_id = create_pool(project=project, name=f"law {number}", skills=["law"]).pk

        def move(pk: int) -> None:
            with suppress(BadTasks):
                change_tasks(project=project, tasks=tasks, pool=Pool(pk=pk, project=project))

        def delete(pk: int) -> None:
            with suppress(PoolInUse):
                delete_pool(pool=Pool.objects.get(pk=pk))

        with ThreadPoolExecutor(3) as threads:
            for done in [in_thread(threads, what, pool_id) for what in (move, delete, move)]:
                done.result()
        for slot in Slot.objects.select_related("task", "pool"):
            assert slot.pool_id == slot.task.pool_id and (slot.pool is None or slot.pool.pk)
    assert set(tasks.values_list("pool", flat=True)) <= {None, *Pool.objects.values_list("pk", flat=True)}
