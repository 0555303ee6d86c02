"""Pools, and which tasks go to whom, over REST."""

import pytest

from labeling.annotation.models import Pool, Slot, Task
from labeling.annotation.services import change_tasks, create_pool
from labeling.projects.services import change_member
from tests import factories
from tests.api_caller import Caller, code_of, numbers_of

POOLS, TASKS, ASSIGN = "projects/support/pools/", "projects/support/tasks/", "projects/support/tasks/assign/"


def fields_of(answer) -> dict:
    assert answer.status_code == 400, answer.content
    return answer.json()["error"]["fields"]


@pytest.fixture
def caller(filled_project, engineer):
    return Caller(engineer)


# --- what people know ---------------------------------------------------------------------------
def test_a_lead_notes_what_members_know(project, lead, stranger, annotator):
    caller = Caller(lead)
    new = {"username": "stranger", "role": "annotator", "languages": ["EN-gb"], "skills": ["Law"]}
    added = caller.post("projects/support/members/", new)
    assert added.status_code == 201 and (added.json()["languages"], added.json()["skills"]) == (["en-GB"], ["law"])
    moved = caller.post("projects/support/members/", {"username": "stranger", "role": "reviewer"}).json()
    assert (moved["role"], moved["languages"]) == ("reviewer", ["en-GB"])
    changed = caller.patch("projects/support/members/annotator/", {"languages": ["de"]})
    assert changed.status_code == 200 and (changed.json()["languages"], changed.json()["skills"]) == (["de"], [])
    assert "languages" in fields_of(caller.patch("projects/support/members/annotator/", {"languages": ["german"]}))
    assert "skills" in fields_of(caller.post("projects/support/members/", new | {"skills": ["a,b"]}))
    assert "skills" in fields_of(caller.patch("projects/support/members/annotator/", {"skills": [1]}))
    assert caller.patch("projects/support/members/nobody/", {}).status_code == 404


# --- pools --------------------------------------------------------------------------------------
def test_pools_are_made_read_changed_and_deleted(filled_project, caller, annotator):
    change_member(membership=filled_project.memberships.get(user=annotator), languages=["de-AT"])
    made = caller.post(POOLS, {"name": "German", "languages": ["de"]})
    assert made.status_code == 201
    pool = made.json()
    assert (pool["n_people"], pool["n_open_tasks"], pool["people"], pool["warning"]) == (1, 0, None, "")
    assert caller.get(POOLS).json()["results"] == [pool] and caller.get(f"{POOLS}{pool['id']}/").json() == pool
    named = caller.patch(f"{POOLS}{pool['id']}/", {"languages": [], "people": ["annotator", "lead"], "name": "Two"}).json()
    assert (named["people"], named["n_people"], named["name"]) == (["annotator", "lead"], 2, "Two")
    assert caller.call("DELETE", f"{POOLS}{pool['id']}/").status_code == 204
    assert caller.get(f"{POOLS}{pool['id']}/").status_code == 404


def test_wrong_pools_are_refused_by_field(filled_project, caller, engineer, stranger):
    factories.make_project(stranger, slug="elsewhere")
    for body, field in [
        ({"name": "x"}, "languages"), ({"languages": ["de"]}, "name"), ({"name": "x", "languages": ["x!"]}, "languages"),
        ({"name": "x", "people": ["nobody"]}, "people"), ({"name": "x", "people": ["stranger"]}, "people"),
        ({"name": "x", "people": ["engineer"]}, "people"), ({"name": "x", "is_named": True}, "is_named"),
        ({"name": "x", "skills": "law"}, "skills"), ({"name": 5, "skills": ["law"]}, "name"),
    ]:  # fmt: skip
        assert field in fields_of(caller.post(POOLS, body)), body
    assert not Pool.objects.exists()


def test_a_pool_with_tasks_is_deleted_only_where_it_is_said_where_they_go(filled_project, caller, stranger):
    law, other = (create_pool(project=filled_project, name=name, skills=["law"]) for name in ("Law", "Other"))
    elsewhere = create_pool(project=factories.make_project(stranger, slug="elsewhere"), name="x", skills=["x"])
    change_tasks(project=filled_project, tasks=filled_project.tasks.all(), pool=law)
    path = f"{POOLS}{law.pk}/"
    refused = caller.call("DELETE", path)
    assert refused.status_code == 409 and code_of(refused) == "pool_in_use"
    assert "5 tasks" in refused.json()["error"]["message"]
    for wrong in (law.pk, elsewhere.pk, "nothing"):
        assert "move_to" in fields_of(caller.call("DELETE", f"{path}?move_to={wrong}"))
    assert caller.call("DELETE", f"{path}?move_to={other.pk}").status_code == 204
    assert filled_project.tasks.filter(pool=other).count() == 5
    assert caller.call("DELETE", f"{POOLS}{other.pk}/?move_to=everyone").status_code == 204
    assert filled_project.tasks.filter(pool=None).count() == 5 and not Slot.objects.filter(pool__isnull=False).exists()


def test_pools_of_another_project_are_not_there(caller, stranger):
    pool = create_pool(project=factories.make_project(stranger, slug="elsewhere"), name="x", skills=["x"])
    assert caller.get(f"{POOLS}{pool.pk}/").status_code == 404
    assert "pool" in fields_of(caller.post(TASKS, {"pool": str(pool.pk)}))
    assert "pool" in fields_of(caller.post(ASSIGN, {"where": {}, "pool": str(pool.pk)}))
    assert "pool" in fields_of(caller.get(f"{TASKS}?pool={pool.pk}"))


def test_listing_pools_takes_as_many_queries_for_many_as_for_one(filled_project, caller, django_assert_max_num_queries):
    for number in range(20):
        create_pool(project=filled_project, name=str(number), skills=["law"])
    caller.get(POOLS)
    with django_assert_max_num_queries(6):
        assert len(caller.get(POOLS).json()["results"]) == 20


# --- tasks --------------------------------------------------------------------------------------
def test_tasks_are_made_for_people_with_a_priority(project, lead, annotator):
    from labeling.imports.services import import_rows

    import_rows(project=project, format="completions", lines=factories.completions_rows(2), created_by=lead)
    caller = Caller(lead)
    assert "people" in fields_of(caller.post(TASKS, {"people": ["annotator"], "pool": None}))
    made = caller.post(TASKS, {"people": ["annotator"], "priority": 7, "prompts": ["p0"]}).json()
    assert made["created"] == 1 and made["pool"]["people"] == ["annotator"]
    (task,) = caller.get(TASKS).json()["results"]
    assert (task["pool"], task["priority"], task["state"]) == (made["pool"]["id"], 7, "open")
    assert "pool" not in caller.post(TASKS, {}).json()


def test_tasks_are_listed_by_what_they_are_like_and_gold_never(filled_project, caller):
    law = create_pool(project=filled_project, name="Law", skills=["law"])
    one = filled_project.tasks.order_by("pk").first()
    change_tasks(project=filled_project, tasks=Task.objects.filter(pk=one.pk), pool=law)
    batch = filled_project.imports.get().pk
    for query, n in [
        ("", 5), (f"?pool={law.pk}", 1), ("?pool=everyone", 4), ("?state=done", 0), ("?tag=delivery&iteration=1", 5),
        (f"?batch={batch}&tag=law", 0),
    ]:  # fmt: skip
        assert len(caller.get(f"{TASKS}{query}").json()["results"]) == n, query
    for query, field in [("?state=x", "state"), ("?pool=x", "pool"), ("?iteration=x", "iteration"), ("?batch=99999", "batch")]:
        assert field in fields_of(caller.get(f"{TASKS}{query}"))
    Task.objects.filter(pk=one.pk).update(purpose="gold")
    assert len(caller.get(TASKS).json()["results"]) == 4
    assert caller.get(f"tasks/{one.public_id}/").status_code == 404
    assert "tasks" in fields_of(caller.post(ASSIGN, {"tasks": [one.public_id], "priority": 1}))


def test_one_task_is_changed(filled_project, caller, annotator):
    task = filled_project.tasks.first()
    changed = caller.patch(f"tasks/{task.public_id}/", {"people": ["annotator", "lead"], "priority": -5})
    assert changed.status_code == 200 and changed.json()["priority"] == -5
    assert Pool.objects.get(pk=changed.json()["pool"]).name == "annotator, lead"
    assert caller.patch(f"tasks/{task.public_id}/", {"pool": None}).json()["pool"] is None
    assert caller.get(f"tasks/{task.public_id}/").json()["priority"] == -5
    for body, field in [({"priority": 1001}, "priority"), ({"priority": -1001}, "priority"), ({"priority": "1"}, "priority"),
                        ({}, "pool"), ({"people": []}, "people"), ({"overlap": 2}, "overlap")]:  # fmt: skip
        assert field in fields_of(caller.patch(f"tasks/{task.public_id}/", body)), body


def test_a_batch_is_moved_and_it_is_said_when_nobody_fits(filled_project, caller, annotator):
    factories.judge_all(filled_project, annotator, limit=1)
    law = create_pool(project=filled_project, name="Law", skills=["law"])
    moved = caller.post(ASSIGN, {"where": {"tag": "delivery"}, "pool": str(law.pk), "priority": 3}).json()
    assert (moved["matched"], moved["changed"]) == (4, 4)
    assert moved["pool"]["warning"] == "Nobody in this project can be given the 4 open tasks"
    assert caller.post(ASSIGN, {"where": {}, "pool": str(law.pk)}).json()["changed"] == 0
    ids = [row["id"] for row in caller.get(f"{TASKS}?pool={law.pk}").json()["results"]][:2]
    back = caller.post(ASSIGN, {"tasks": ids, "pool": None}).json()
    assert back == {"matched": 2, "changed": 2, "pool": None}
    for body, field in [
        ({"pool": None}, "tasks"), ({"tasks": ids, "where": {}, "pool": None}, "tasks"), ({"tasks": ids}, "pool"),
        ({"tasks": ["nothing"], "pool": None}, "tasks"), ({"where": {"state": "x"}, "pool": None}, "where"),
        ({"where": {}, "people": ["nobody"]}, "people"), ({"tasks": ids, "people": ["engineer"]}, "people"),
    ]:  # fmt: skip
        assert field in fields_of(caller.post(ASSIGN, body)), body


def test_annotators_see_nothing_of_pools_and_priorities(filled_project, annotator, other_annotator):
    pool = create_pool(project=filled_project, name="Contract law", people=[annotator])
    change_tasks(project=filled_project, tasks=filled_project.tasks.all(), pool=pool, priority=777)
    caller = Caller(annotator)
    lease = caller.post("projects/support/leases/")
    submitted = caller.post(f"leases/{lease.json()['id']}/judgement/?next=1", {"ranking": [["a"], ["b"], ["c"]]}, Idempotency_Key="k")
    seen = [lease, submitted] + [caller.get(path) for path in ("projects/", "projects/support/", "projects/support/judgements/")]
    for answer in seen:
        assert answer.status_code in (200, 201)
        for word in (b"Contract law", b'"pool', b"priority", b"pool_ids"):
            assert word not in answer.content
        assert 777 not in numbers_of(answer.json())
    for path in (POOLS, TASKS, f"{POOLS}{pool.pk}/", f"tasks/{lease.json()['task']['id']}/"):
        assert caller.get(path).status_code == 403
    assert caller.post(ASSIGN, {"where": {}, "priority": 1}).status_code == 403
    assert Caller(other_annotator).post("projects/support/leases/").status_code == 204


def test_reviewers_read_pools_and_no_task(filled_project, reviewer):
    caller = Caller(reviewer)
    assert caller.get(POOLS).status_code == 200
    for answer in (caller.get(TASKS), caller.post(POOLS, {}), caller.post(ASSIGN, {})):
        assert answer.status_code == 403
