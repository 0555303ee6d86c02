"""Who may be given which tasks: pools by languages and skills, pools of people named, and moving tasks between them."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from labeling.accounts.models import User
from labeling.annotation import queue
from labeling.annotation.bench import n_tasks_left
from labeling.annotation.errors import BadPool, BadTasks, PoolInUse
from labeling.annotation.models import Lease, Pool, Slot, Task
from labeling.annotation.pools import assignable_tasks, figures_of_pools, tasks_like, waits_for_others
from labeling.annotation.services import (
    assigning,
    change_pool,
    change_tasks,
    close_tasks_of,
    create_pool,
    create_tasks_for_prompts,
    delete_pool,
    empty_and_delete_pool,
    free_expired_leases,
    pause_member,
    pool_of_people,
    set_aside_judgements,
    take_lease,
)
from labeling.annotation.services.pools import MOST_POOLS_OF_ONE
from labeling.imports.services import import_rows
from labeling.projects.errors import BadSkills
from labeling.projects.models import Membership
from labeling.projects.services import add_member, change_member
from labeling.projects.skills import checked_languages, checked_skills, in_list
from tests import factories

pytestmark = pytest.mark.django_db


def knows(project, user, languages=(), skills=()) -> None:
    change_member(membership=project.memberships.get(user=user), languages=list(languages), skills=list(skills))


def pools_of(project, user) -> list[int]:
    return project.memberships.get(user=user).pool_ids


def assert_slots_follow_their_tasks(project) -> None:
    for slot in Slot.objects.filter(project=project).select_related("task"):
        assert slot.pool_id == slot.task.pool_id
        usual = queue.position_of(slot.task_id, slot.task.priority)
        assert slot.position in (None, usual, usual - 2**60)


# --- languages and skills -----------------------------------------------------------------------
def test_languages_and_skills_are_kept_in_one_way_of_writing():
    assert checked_languages(["EN-gb", "de", "DE", "zh-hant-tw"]) == (["en-GB", "de", "zh-Hant-TW"], "")
    assert checked_skills([" Contract  Law ", "contract law"]) == (["contract law"], "")
    assert in_list("de, en-GB;\n fr ,") == ["de", "en-GB", "fr"]


@pytest.mark.parametrize("wrong", [["german"], ["d"], ["de_AT"], [""], [1], "de", ["de\n", "x!"], None, [f"a{c}{d}" for c in "abcdef" for d in "abcdef"]])
def test_a_malformed_language_is_refused_by_name(project, annotator, wrong):
    assert checked_languages(wrong)[1]
    if wrong is not None:
        with pytest.raises(BadSkills) as refused:
            change_member(membership=project.memberships.get(user=annotator), languages=wrong)
        assert list(refused.value.fields) == ["languages"]


@pytest.mark.parametrize("wrong", [["a,b"], [""], ["x" * 41], ["tab\tin\x00it"], [None]])
def test_a_malformed_skill_is_refused(wrong):
    assert checked_skills(wrong)[1]


# --- who fits -----------------------------------------------------------------------------------
def test_all_languages_and_skills_of_a_pool_are_needed_and_a_region_has_its_language(project, annotator, other_annotator):
    knows(project, annotator, ["en-GB", "de"], ["law"])
    english = create_pool(project=project, name="English", languages=["en"])
    lawyers = create_pool(project=project, name="English law", languages=["en"], skills=["Law"])
    british = create_pool(project=project, name="British", languages=["en-GB"])
    knows(project, other_annotator, ["en"], ["law"])
    # Those that ask for most come first.
    assert pools_of(project, annotator) == [lawyers.pk, english.pk, british.pk]
    assert pools_of(project, other_annotator) == [lawyers.pk, english.pk]
    knows(project, other_annotator, [], ["law"])
    assert pools_of(project, other_annotator) == []


def test_whoever_joins_changes_role_or_comes_back_fits_at_once(project, stranger, annotator):
    law = create_pool(project=project, name="Law", skills=["law"])
    add_member(project=project, user=stranger, role="annotator", skills=["law"])
    assert pools_of(project, stranger) == [law.pk]
    add_member(project=project, user=stranger, role="engineer")
    assert pools_of(project, stranger) == []
    add_member(project=project, user=stranger, role="reviewer")
    assert pools_of(project, stranger) == [law.pk]
    mine = create_pool(project=project, name="Theirs", people=[stranger])
    project.memberships.get(user=stranger).delete()
    add_member(project=project, user=stranger, role="annotator")
    assert pools_of(project, stranger) == [mine.pk]


def test_a_change_of_a_pool_changes_who_fits(project, annotator, other_annotator):
    pool = create_pool(project=project, name="Some", people=[annotator])
    change_pool(pool=pool, people=[other_annotator])
    assert (pools_of(project, annotator), pools_of(project, other_annotator)) == ([], [pool.pk])
    knows(project, annotator, ["fr"])
    change_pool(pool=pool, people=[], languages=["fr"], name="French")
    assert (pools_of(project, annotator), pools_of(project, other_annotator)) == ([pool.pk], [])
    delete_pool(pool=pool)
    assert pools_of(project, annotator) == []


def test_wrong_pools_are_refused_by_field(project, annotator, engineer, stranger):
    create_pool(project=project, name="Law", skills=["law"])
    for wanted, field in [
        ({"name": "Law", "skills": ["x"]}, "name"), ({"name": " ", "skills": ["x"]}, "name"),
        ({"name": "x" * 121, "skills": ["x"]}, "name"), ({"name": "a\x00", "skills": ["x"]}, "name"),
        ({"name": "x"}, "languages"), ({"name": "x", "languages": ["!"]}, "languages"),
        ({"name": "x", "skills": ["a,b"]}, "skills"), ({"name": "x", "people": [stranger]}, "people"),
        ({"name": "x", "people": [engineer]}, "people"), ({"name": "x", "people": [annotator], "skills": ["x"]}, "people"),
    ]:  # fmt: skip
        with pytest.raises(BadPool) as refused:
            create_pool(project=project, **wanted)
        assert list(refused.value.fields) == [field]
    assert Pool.objects.count() == 1


def test_a_person_in_too_many_pools_is_named(project, annotator, other_annotator):
    for number in range(MOST_POOLS_OF_ONE):
        create_pool(project=project, name=str(number), people=[annotator])
    with pytest.raises(BadPool, match="annotator would fit 26"):
        create_pool(project=project, name="one more", people=[annotator, other_annotator])
    assert not Pool.objects.filter(name="one more").exists()
    create_pool(project=project, name="others", people=[other_annotator])


def test_the_pool_of_the_same_people_is_made_once(project, annotator, other_annotator):
    both = pool_of_people(project=project, people=[annotator, other_annotator])
    assert pool_of_people(project=project, people=[other_annotator, annotator]) == both
    alone = pool_of_people(project=project, people=[annotator])
    assert alone != both and (both.name, alone.name) == ("annotator, other-annotator", "annotator")
    change_pool(pool=alone, people=[other_annotator])
    assert pool_of_people(project=project, people=[annotator]).name == "annotator (2)"
    with pytest.raises(BadPool):
        pool_of_people(project=project, people=[])


def test_all_members_are_noted_anew_in_few_statements(project):
    people = [factories.make_user(f"person-{number}") for number in range(60)]
    for person in people:
        add_member(project=project, user=person, role="annotator", languages=["de"])
    with CaptureQueriesContext(connection) as captured:
        create_pool(project=project, name="German", languages=["de"])
    assert len(captured) <= 14
    assert Membership.objects.exclude(pool_ids=[]).count() == 60


# --- moving tasks -------------------------------------------------------------------------------
def test_moved_tasks_go_to_the_people_of_their_pool_alone(filled_project, annotator, other_annotator):
    def waits(user) -> bool:
        return waits_for_others(filled_project.memberships.get(user=user))

    pool = create_pool(project=filled_project, name="Named", people=[annotator])
    tasks = Task.objects.filter(pk__in=[task.pk for task in filled_project.tasks.order_by("-pk")[:2]])
    assert change_tasks(project=filled_project, tasks=tasks, pool=pool) == 2
    assert change_tasks(project=filled_project, tasks=tasks, pool=pool) == 0
    assert_slots_follow_their_tasks(filled_project)
    assert (n_tasks_left(annotator, filled_project), n_tasks_left(other_annotator, filled_project)) == (5, 3)
    assert factories.judge_all(filled_project, other_annotator) == 3
    assert waits(other_annotator) and not waits(annotator)
    assert change_tasks(project=filled_project, tasks=tasks, pool=None) == 2
    assert not waits(other_annotator)
    assert factories.judge_all(filled_project, other_annotator) == 2


def test_a_move_is_met_by_those_who_were_past_it(filled_project, annotator, monkeypatch):
    monkeypatch.setattr(queue, "REMEMBERED_EVERY", 1)
    pool = create_pool(project=filled_project, name="Law", skills=["law"])
    first = filled_project.tasks.order_by("pk")[:2]
    change_tasks(project=filled_project, tasks=Task.objects.filter(pk__in=[task.pk for task in first]), pool=pool)
    assert factories.judge_all(filled_project, annotator, limit=2) == 2
    change_tasks(project=filled_project, tasks=Task.objects.filter(pool=pool), pool=None)
    assert take_lease(project=filled_project, annotator=annotator).task == first[0]


def test_a_leased_task_comes_back_to_its_new_pool_and_priority(filled_project, annotator, other_annotator):
    lease = take_lease(project=filled_project, annotator=other_annotator)
    pool = create_pool(project=filled_project, name="Named", people=[annotator])
    changed = change_tasks(project=filled_project, tasks=Task.objects.filter(pk=lease.task_id), pool=pool, priority=9)
    assert changed == 1 and Lease.objects.get(pk=lease.pk).state == "open"
    free_expired_leases(at=lease.expires_at)
    assert_slots_follow_their_tasks(filled_project)
    assert Slot.objects.get(pk=lease.slot_id).position == queue.front_position_of(lease.task_id, 9)
    again = take_lease(project=filled_project, annotator=other_annotator)
    assert again.task_id != lease.task_id
    assert take_lease(project=filled_project, annotator=annotator).task_id == lease.task_id


def test_a_change_of_priority_leaves_what_came_back_in_front_and_what_is_closed_out(filled_project, annotator):
    tasks = list(filled_project.tasks.order_by("pk"))
    lease = take_lease(project=filled_project, annotator=annotator)
    free_expired_leases(at=lease.expires_at)
    close_tasks_of(prompt=tasks[4].prompt)
    change_tasks(project=filled_project, tasks=filled_project.tasks.all(), priority=-3)
    change_tasks(project=filled_project, tasks=Task.objects.filter(pk=tasks[3].pk), priority=4)
    assert_slots_follow_their_tasks(filled_project)
    order = list(Slot.objects.filter(position__isnull=False).order_by("position").values_list("task", flat=True))
    assert order == [lease.task_id, *(task.pk for task in (tasks[3], *tasks[1:3]))]


def test_a_judgement_set_aside_is_asked_of_the_pool_that_its_task_has_by_then(filled_project, annotator, other_annotator, lead):
    factories.judge_all(filled_project, annotator)
    pool = create_pool(project=filled_project, name="Named", people=[lead])
    change_tasks(project=filled_project, tasks=filled_project.tasks.all(), pool=pool)
    set_aside_judgements(project=filled_project, annotator=annotator, reason="trial")
    assert take_lease(project=filled_project, annotator=other_annotator) is None
    assert factories.judge_all(filled_project, lead) == 5


def test_many_tasks_take_as_many_statements_as_there_are_parts(filled_project, monkeypatch):
    pool = create_pool(project=filled_project, name="Law", skills=["law"])
    counts = []
    for chunk in (100, 2):
        monkeypatch.setattr(assigning, "CHUNK", chunk)
        change_tasks(project=filled_project, tasks=filled_project.tasks.all(), pool=None, priority=0)
        with CaptureQueriesContext(connection) as captured:
            assert change_tasks(project=filled_project, tasks=filled_project.tasks.all(), pool=pool, priority=1) == 5
        counts.append(sum("UPDATE" in query["sql"].split()[0] for query in captured))
    assert counts == [3, 9]
    assert_slots_follow_their_tasks(filled_project)


def test_a_pool_of_another_project_and_a_priority_beyond_measure_are_refused(filled_project, stranger):
    elsewhere = factories.make_project(stranger, slug="elsewhere")
    pool = create_pool(project=elsewhere, name="Law", skills=["law"])
    for changes in ({"pool": pool}, {"priority": 1001}, {"priority": -1001}):
        with pytest.raises(BadTasks):
            change_tasks(project=filled_project, tasks=filled_project.tasks.all(), **changes)
    other = Task.objects.filter(project=filled_project)
    assert change_tasks(project=elsewhere, tasks=other, priority=5) == 0


def test_tasks_can_be_made_for_a_pool(project, annotator, other_annotator, lead):
    import_rows(project=project, format="completions", lines=factories.completions_rows(2), created_by=lead)
    pool = create_pool(project=project, name="Named", people=[annotator])
    create_tasks_for_prompts(project=project, pool=pool, priority=3)
    assert_slots_follow_their_tasks(project)
    assert (n_tasks_left(annotator, project), n_tasks_left(other_annotator, project)) == (2, 0)


# --- deleting -----------------------------------------------------------------------------------
def test_a_pool_with_tasks_is_deleted_only_once_they_are_elsewhere(filled_project, annotator):
    pool = create_pool(project=filled_project, name="Law", skills=["law"])
    other = create_pool(project=filled_project, name="Named", people=[annotator])
    factories.judge_all(filled_project, annotator, limit=1)
    change_tasks(project=filled_project, tasks=filled_project.tasks.all(), pool=pool)
    with pytest.raises(PoolInUse, match="5 tasks are in the pool 'Law', 4 of them open"):
        delete_pool(pool=pool)
    with pytest.raises(BadPool):
        empty_and_delete_pool(pool=pool, to=pool)
    assert empty_and_delete_pool(pool=pool, to=other) == 5
    assert_slots_follow_their_tasks(filled_project)
    assert not Pool.objects.filter(name="Law").exists() and filled_project.tasks.filter(pool=other).count() == 5
    assert empty_and_delete_pool(pool=other, to=None) == 5
    assert pools_of(filled_project, annotator) == []


# --- what is known of them ----------------------------------------------------------------------
def test_figures_say_who_fits_and_what_nobody_can_be_given(filled_project, annotator, other_annotator):
    create_tasks_for_prompts(project=filled_project, prompts=filled_project.prompts.all(), completions_per_task=2, overlap=2)
    alone = create_pool(project=filled_project, name="Named", people=[annotator])
    nobody = create_pool(project=filled_project, name="Finnish", languages=["fi"])
    twice = Task.objects.filter(overlap=2).order_by("pk")
    change_tasks(project=filled_project, tasks=twice.filter(pk__lt=twice[3].pk), pool=alone)
    change_tasks(project=filled_project, tasks=twice.filter(pk=twice[3].pk), pool=nobody)
    figures = figures_of_pools(filled_project)
    everyone = figures[None]
    assert (everyone.n_people, everyone.n_open, everyone.n_wanted, everyone.warning) == (4, 6, 7, "")
    assert (figures[alone.pk].n_people, figures[alone.pk].n_open) == (1, 3)
    assert figures[alone.pk].warning == "3 open tasks want judgements by more than the one person who fits"
    assert figures[nobody.pk].warning == "Nobody in this project can be given the one open task"
    pause_member(membership=filled_project.memberships.get(user=annotator), reason="x")
    assert figures_of_pools(filled_project)[alone.pk].warning == "Nobody in this project can be given the 3 open tasks"


def test_tasks_are_chosen_by_what_is_known_of_them(project, lead, annotator):
    lines = [
        b'{"id": "1", "prompt": "a?", "tags": ["law", "m\\u00fcnchen"], "completions": [{"content": "x"}, {"content": "y"}]}',
        b'{"id": "2", "prompt": "b?", "tags": ["lawn"], "completions": [{"content": "x"}, {"content": "y"}]}',
    ]
    factories.fill_project(project, 2)
    record = import_rows(project=project, format="completions", lines=lines, created_by=lead)
    create_tasks_for_prompts(project=project, iteration=2)
    pool = create_pool(project=project, name="Law", skills=["law"])
    law = tasks_like(project, tag="law")
    assert [task.prompt.external_id for task in law] == ["1"] and list(tasks_like(project, tag="münchen")) == list(law)
    change_tasks(project=project, tasks=law, pool=pool)
    factories.judge_all(project, annotator, limit=1)
    counts = [
        tasks_like(project, **where).count()
        for where in ({}, {"pool": pool}, {"pool": None}, {"iteration": 2}, {"batch": record.pk}, {"state": "open"}, {"tag": "x", "state": "open"})
    ]
    assert counts == [4, 1, 3, 2, 2, 3, 0]
    assert assignable_tasks(project).count() == 4


def test_a_named_person_whose_account_is_gone_leaves_the_pool_to_nobody(filled_project, stranger, annotator):
    add_member(project=filled_project, user=stranger, role="annotator")
    pool = create_pool(project=filled_project, name="Named", people=[stranger])
    change_tasks(project=filled_project, tasks=filled_project.tasks.all(), pool=pool)
    User.objects.filter(pk=stranger.pk).delete()
    knows(filled_project, annotator, ["de"])
    assert pools_of(filled_project, annotator) == [] and take_lease(project=filled_project, annotator=annotator) is None
