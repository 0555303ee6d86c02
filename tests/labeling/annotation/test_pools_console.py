"""Pools, what people know, and moving tasks, as leads and readers of the console meet them."""

import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from labeling.accounts.models import User
from labeling.annotation.models import Pool, Task
from labeling.annotation.services import change_tasks, create_pool, take_lease
from labeling.projects.models import Membership
from labeling.projects.services import change_member, change_project
from tests import factories

POOLS, PEOPLE, TASKS = "/projects/support/pools/", "/projects/support/people/", "/projects/support/tasks/"
ASSIGN = f"{TASKS}assign/"


@pytest.fixture
def page(client, filled_project, lead):
    """Opens a page as the lead; `data` posts to it."""
    client.force_login(lead)

    def opened(path: str, data: dict | None = None, follow: bool = True) -> str:
        answer = client.get(path) if data is None else client.post(path, data, follow=follow)
        assert answer.status_code in (200, 422), answer.status_code
        return answer.content.decode()

    return opened


# --- people -------------------------------------------------------------------------------------
def test_languages_and_skills_are_changed_in_the_row_of_a_person(page, filled_project, annotator):
    member = filled_project.memberships.get(user=annotator)
    row = {"row": annotator.pk, "username": "annotator", "role": "annotator"}
    text = page(PEOPLE, row | {"languages": "EN-gb, de", "skills": "Law, contract  law"})
    assert 'value="en-GB, de"' in text and 'value="law, contract law"' in text
    wrong = page(PEOPLE, row | {"languages": "german", "skills": "sql"})
    assert "is not the code of a language" in wrong and 'value="german"' in wrong and 'value="sql"' in wrong
    member.refresh_from_db()
    assert (member.languages, member.skills) == (["en-GB", "de"], ["law", "contract law"])
    page(PEOPLE, {"username": "annotator", "role": "reviewer"})  # what isn't sent stays
    member.refresh_from_db()
    assert (member.role, member.languages) == ("reviewer", ["en-GB", "de"])


def test_the_page_of_people_is_paged_and_searched_in_as_many_queries_for_thousands(page, filled_project):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            page(PEOPLE)
        return len(captured)

    page(PEOPLE)
    before = queries()
    users = User.objects.bulk_create([User(username=f"crowd-{number}") for number in range(300)])
    Membership.objects.bulk_create(
        [Membership(project=filled_project, user=user, role="annotator", pseudonym=user.username) for user in users]
    )
    assert queries() == before
    text = page(PEOPLE)
    assert text.count('aria-label="Languages of') == 50 and "Older" in text
    found = page(f"{PEOPLE}?q=crowd-77")
    assert found.count('aria-label="Languages of') == 1
    assert "Nobody here has" in page(f"{PEOPLE}?q=zzz")


def test_readers_see_what_people_know_without_fields(client, filled_project, reviewer, annotator):
    change_member(membership=filled_project.memberships.get(user=annotator), languages=["de"], skills=["law"])
    client.force_login(reviewer)
    text = client.get(PEOPLE).content.decode()
    assert "<td>de</td><td>law</td>" in text and 'name="languages"' not in text


# --- pools --------------------------------------------------------------------------------------
def test_a_pool_is_made_changed_and_deleted(page, filled_project, annotator):
    assert "All tasks are for everyone" in page(POOLS)
    warned = page(f"{POOLS}new/", {"name": "Law", "languages": "de", "skills": "law", "people": ""})
    assert "Law is there; 0 people fit." in warned
    pool = Pool.objects.get()
    assert (pool.languages, pool.skills) == (["de"], ["law"])
    saved = page(f"{POOLS}{pool.pk}/", {"name": "Law", "languages": "", "skills": "", "people": "annotator, lead"})
    assert "Saved" in saved and f'href="{PEOPLE}{annotator.pk}/"' in saved
    assert f'href="{POOLS}{pool.pk}/"' in page(f"{PEOPLE}{annotator.pk}/")
    change_tasks(project=filled_project, tasks=filled_project.tasks.all(), pool=pool)
    assert "Where its 5 tasks go" in page(f"{POOLS}{pool.pk}/")
    refused = page(f"{POOLS}{pool.pk}/", {"do": "delete"})
    assert "5 tasks are in the pool" in refused and Pool.objects.exists()
    assert "isn&#x27;t there any more" in page(f"{POOLS}{pool.pk}/", {"do": "delete", "move_to": "999"})
    assert "5 tasks moved to everyone" in page(f"{POOLS}{pool.pk}/", {"do": "delete", "move_to": "everyone"})
    assert not Pool.objects.exists()


def test_what_is_wrong_with_a_pool_stands_beside_its_field(page, filled_project):
    create_pool(project=filled_project, name="Law", skills=["law"])
    for data, words in [
        ({"name": "Law", "skills": "x"}, "There is a pool &#x27;Law&#x27;"), ({"name": "x"}, "Say which languages or skills"),
        ({"name": "x", "languages": "german"}, "is not the code"), ({"name": "x", "people": "nobody"}, "There is no account"),
        ({"name": "x", "people": "engineer"}, "judges nothing here"),
        ({"name": "x", "people": "annotator", "skills": "law"}, "give one or the other"),
    ]:  # fmt: skip
        text = page(f"{POOLS}new/", data)
        assert words in text and 'role="alert"' in text
    assert Pool.objects.count() == 1


def test_the_pools_say_where_nobody_fits_in_as_many_queries_for_many(page, filled_project, annotator):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            page(POOLS)
        return len(captured)

    pool = create_pool(project=filled_project, name="Finnish", languages=["fi"])
    change_tasks(project=filled_project, tasks=filled_project.tasks.all(), pool=pool)
    text = page(POOLS)
    assert "Nobody in this project can be given the 5 open tasks" in text and "Some tasks wait for people" in text
    before = queries()
    for number in range(60):
        create_pool(project=filled_project, name=f"Pool {number}", skills=[f"skill {number}"])
    assert queries() == before
    assert "Older" in page(POOLS)
    change_member(membership=filled_project.memberships.get(user=annotator), languages=["fi"])
    assert "Nobody in this project" not in page(POOLS)


# --- tasks --------------------------------------------------------------------------------------
def test_tasks_are_made_for_a_pool_or_for_people(page, filled_project, annotator):
    law = create_pool(project=filled_project, name="Law", skills=["law"])
    made = {"completions_per_task": 2, "overlap": 1, "which": "all", "to": str(law.pk), "people": "", "priority": "4"}
    assert "5 new tasks" in page(TASKS, made)
    assert Task.objects.filter(pool=law, priority=4).count() == 5
    page(TASKS, made | {"completions_per_task": 3, "to": "people", "people": "annotator", "overlap": 1})
    wrong = page(TASKS, made | {"to": "people", "people": ""})
    assert "Name at least one person" in wrong
    assert "Choose “people by name”" in page(TASKS, made | {"people": "annotator"})
    assert "engineer judges nothing" in page(TASKS, made | {"to": "people", "people": "engineer"})
    assert "1000" in page(TASKS, made | {"priority": "1001"})


def hidden_of(text: str) -> dict[str, list[str]]:
    form = text[text.index('class="row"') :]
    fields: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form):
        fields.setdefault(name, []).append(value)
    return fields


def test_what_is_found_is_moved_after_a_word_on_how_many(page, filled_project, annotator):
    law = create_pool(project=filled_project, name="Law", skills=["law"])
    factories.judge_all(filled_project, annotator, limit=1)
    take_lease(project=filled_project, annotator=annotator)
    assert "all 4 found" in page(f"{TASKS}?state=open&tag=delivery")
    asked = page(ASSIGN, {"state": "open", "tag": "delivery", "which": "all", "to": str(law.pk), "priority": "5"})
    assert "Give 4 tasks to Law?" in asked and "0 people fit" in asked
    assert "Nobody in this project can be given the 4 open tasks" in asked and "1: whoever holds it goes on" in asked
    assert not Task.objects.filter(pool=law).exists()
    done = page(ASSIGN, hidden_of(asked) | {"confirmed": "1"})
    assert "4 tasks are now for Law and at priority 5." in done
    assert Task.objects.filter(pool=law, priority=5).count() == 4
    assert "Nothing to change" in page(ASSIGN, {"which": "all", "state": "open", "to": str(law.pk), "confirmed": "1"})


def test_ticked_tasks_go_to_people_by_name(page, filled_project, annotator, lead):
    ids = list(filled_project.tasks.values_list("public_id", flat=True)[:2])
    wanted = {"which": "ticked", "task": ids, "to": "people", "people": "annotator, lead"}
    asked = page(ASSIGN, wanted)
    assert re.search(r"Give 2 tasks to (annotator, lead|lead, annotator)\?", asked) and "2 people fit" in asked
    assert not Pool.objects.exists()
    page(ASSIGN, hidden_of(asked) | {"confirmed": "1"})
    pool = Pool.objects.get()
    assert set(pool.people.all()) == {annotator, lead} and Task.objects.filter(pool=pool).count() == 2


def test_what_cannot_be_moved_is_said_with_a_way_back(page, filled_project, stranger):
    elsewhere = factories.make_project(stranger, slug="elsewhere")
    theirs = create_pool(project=elsewhere, name="x", skills=["x"])
    ids = list(filled_project.tasks.values_list("public_id", flat=True))
    for data, words in [
        ({"which": "ticked", "to": "everyone"}, "No task is chosen"), ({"which": "ticked", "task": ids}, "Choose whom they are for"),
        ({"which": "all", "to": str(theirs.pk)}, "Select a valid choice"), ({"which": "all", "to": "people"}, "Name at least one"),
        ({"which": "all", "priority": "2000"}, "less than or equal to 1000"), ({"which": "all", "to": "everyone", "pool": "x"}, "No task is chosen"),
    ]:  # fmt: skip
        text = page(ASSIGN, data | {"confirmed": "1"})
        assert words in text and "Back to the tasks" in text, data
    assert not Task.objects.exclude(priority=0).exists()


def test_the_list_of_tasks_is_filtered_and_a_wrong_filter_finds_none(page, filled_project):
    law = create_pool(project=filled_project, name="Law", skills=["law"])
    change_tasks(project=filled_project, tasks=Task.objects.filter(pk=filled_project.tasks.first().pk), pool=law)
    for query, n in [("", 5), (f"pool={law.pk}", 1), ("pool=everyone", 4), ("state=done", 0), ("tag=delivery&iteration=1", 5)]:
        assert page(f"{TASKS}?{query}").count('name="task"') == n
    assert "Select a valid choice" in page(f"{TASKS}?pool=zzz")
    assert page(f"{TASKS}?pool=zzz").count('name="task"') == 0


# --- the bench ----------------------------------------------------------------------------------
def test_an_annotator_hears_that_what_is_left_needs_others_and_no_name_of_a_pool(client, filled_project, annotator):
    pool = create_pool(project=filled_project, name="Contract law", skills=["law"])
    change_member(membership=filled_project.memberships.get(user=annotator), languages=["de"])
    client.force_login(annotator)
    change_tasks(project=filled_project, tasks=filled_project.tasks.all(), pool=pool, priority=777)
    for text in (
        client.get("/projects/support/bench/").content.decode(),
        client.post("/projects/support/bench/next/", headers={"X-Bench": "1"}).json()["nothing"],
    ):
        assert "is for people with other languages or skills" in text and "Noted as yours" in text
        assert "Contract" not in text and not re.search(r"(^|>)[^<]*\b777\b", text) and "lead" in text
    change_tasks(project=filled_project, tasks=filled_project.tasks.all(), pool=None)
    factories.judge_all(filled_project, annotator)
    text = client.get("/projects/support/bench/").content.decode()
    assert "Every task of Support replies is judged" in text and "Noted as yours" not in text


def test_the_cap_for_each_day_is_named_before_what_is_for_others(client, filled_project, annotator):
    change_project(project=filled_project, bench={"daily_cap": 1})
    pool = create_pool(project=filled_project, name="Law", skills=["law"])
    task = filled_project.tasks.order_by("pk").last()
    change_tasks(project=filled_project, tasks=Task.objects.filter(pk=task.pk), pool=pool)
    factories.judge_all(filled_project, annotator, limit=1)
    client.force_login(annotator)
    assert "at most 1 tasks a day" in client.get("/projects/support/bench/").content.decode()
