"""Setting judgements aside keeps them, asks others in their place, and leaves every count exact."""

from datetime import timedelta

import pytest
from django.utils.timezone import now

from labeling.annotation.errors import NotRestorable
from labeling.annotation.models import Judgement, Lease, SetAside, Slot, Task
from labeling.annotation.selectors import queue_figures, standing_judgements
from labeling.annotation.services import (
    free_expired_leases,
    pause_member,
    reinstate_member,
    restore_judgement,
    restore_judgements,
    revise_judgement,
    set_aside_judgements,
    submit_judgement,
    take_lease,
)
from labeling.live.models import Event
from labeling.preferences.filters import complete_filters, complete_policy, judgements_chosen
from labeling.projects.models import Membership
from tests import factories
from tests.api_caller import Caller

RANKING = {"ranking": [["a"], ["b", "c"]]}
ALL = complete_filters({})


def put_aside(project, annotator, **more) -> int:
    return set_aside_judgements(project=project, annotator=annotator, reason="in a hurry", **more)


def member_of(project, user) -> Membership:
    return Membership.objects.select_related("project", "user").get(project=project, user=user)


@pytest.fixture
def judged(project, annotator, other_annotator):
    """Three tasks of two judgements each, all done."""
    tasks = factories.fill_project(project, 3, overlap=2)
    factories.judge_all(project, annotator)
    factories.judge_all(project, other_annotator)
    return tasks


def test_the_judgement_stays_and_its_task_is_open_again(project, lead, annotator, judged):
    before = list(Judgement.objects.order_by("pk").values())
    assert put_aside(project, annotator, by=lead) == 3
    assert list(Judgement.objects.order_by("pk").values()) == before
    for task in Task.objects.all():
        assert (task.state, task.n_judged) == (Task.State.OPEN, 1)
        slots = dict(task.slots.values_list("number", "state"))
        assert slots == {1: "void", 2: "done", 3: "free"}
    row = SetAside.objects.first()
    assert (row.by, row.reason, row.judgement.annotator) == (lead, "in a hurry", annotator)
    figures = queue_figures(project)
    assert (figures.n_tasks_done, figures.n_slots, figures.n_done, figures.n_free) == (0, 6, 3, 3)
    assert standing_judgements(project).count() == judgements_chosen(project, ALL, complete_policy({})).count() == 3


def test_somebody_else_is_given_it_first_and_never_the_same_person(project, reviewer, annotator, judged):
    factories.import_rows(project=project, format="completions", lines=factories.completions_rows(5, start=50), created_by=None)
    factories.create_tasks_for_prompts(project=project, completions_per_task=3, overlap=1)
    put_aside(project, annotator)
    taken = [take_lease(project=project, annotator=reviewer) for _ in range(1)]
    assert taken[0].task in judged
    while lease := take_lease(project=project, annotator=annotator):
        assert lease.task not in judged
        submit_judgement(lease=lease, submission_key=f"k-{lease.pk}", body=RANKING)
    factories.judge_all(project, reviewer)
    assert all((task.n_judged, task.state) == (2, "done") for task in Task.objects.filter(pk__in=[t.pk for t in judged]))


def test_again_it_changes_nothing_and_times_limit_it(project, annotator, judged):
    first = Judgement.objects.filter(annotator=annotator).order_by("pk").first()
    assert put_aside(project, annotator, since=now() + timedelta(hours=1)) == 0
    assert put_aside(project, annotator, until=first.created_at) == 1
    assert put_aside(project, annotator) == 2
    assert put_aside(project, annotator) == 0
    assert SetAside.objects.count() == 3
    assert Slot.objects.filter(state="void").count() == 3


def test_revisions_are_set_aside_with_what_they_revise(project, annotator, judged):
    first = Judgement.objects.filter(annotator=annotator).first()
    revise_judgement(judgement=first, submission_key="again-1", body={"ranking": [["a", "b", "c"]]})
    assert put_aside(project, annotator) == 3
    revision = revise_judgement(
        judgement=first.superseded_by, submission_key="again-2", body={"ranking": [["b"], ["a", "c"]]}
    ).judgement
    assert not standing_judgements(project).filter(annotator=annotator).exists()
    assert not judgements_chosen(project, ALL, complete_policy({})).filter(pk=revision.pk).exists()


def test_late_answers_are_set_aside_without_another_in_their_place(project, annotator, other_annotator):
    factories.fill_project(project, 1)
    lease = take_lease(project=project, annotator=annotator)
    free_expired_leases(at=now() + timedelta(days=1))
    factories.judge_all(project, other_annotator)
    lease.refresh_from_db()
    assert submit_judgement(lease=lease, submission_key="late", body=RANKING).judgement.is_surplus
    assert put_aside(project, annotator) == 1
    assert queue_figures(project).n_surplus == 0 and Slot.objects.count() == 1
    restore_judgement(set_aside=SetAside.objects.get(), by=None)
    assert queue_figures(project).n_surplus == 1


def test_a_closed_task_stays_closed(project, annotator):
    factories.fill_project(project, 1, overlap=2)
    factories.judge_all(project, annotator)
    Task.objects.update(state=Task.State.CLOSED)
    assert put_aside(project, annotator) == 1
    assert Task.objects.get().state == Task.State.CLOSED
    assert Slot.objects.get(number=3).position is None


def test_a_lead_restores_what_nobody_has_taken_on(project, lead, reviewer, annotator, judged):
    put_aside(project, annotator)
    lease = take_lease(project=project, annotator=reviewer)
    assert restore_judgements(project=project, annotator=annotator, by=lead) == (2, 1)
    figures = queue_figures(project)
    assert (figures.n_tasks_done, figures.n_slots, figures.n_done, figures.n_leased) == (2, 6, 5, 1)
    submit_judgement(lease=lease, submission_key="instead", body=RANKING)
    with pytest.raises(NotRestorable):
        restore_judgement(set_aside=SetAside.objects.get(restored_at=None), by=lead)
    with pytest.raises(NotRestorable):
        restore_judgement(set_aside=SetAside.objects.exclude(restored_at=None).first(), by=lead)
    assert queue_figures(project).n_tasks_done == 3
    # And set aside once more.
    assert put_aside(project, annotator) == 2
    assert queue_figures(project).n_tasks_done == 1


# --- members ------------------------------------------------------------------------------------
def test_a_paused_member_is_given_nothing_and_what_they_hold_goes_back(project, annotator, other_annotator):
    factories.fill_project(project, 1)
    lease = take_lease(project=project, annotator=annotator)
    member = member_of(project, annotator)
    assert pause_member(membership=member, reason="Away")
    assert not pause_member(membership=member, reason="Twice")
    assert (member.state, member.state_reason) == ("paused", "Away")
    assert Event.objects.filter(name="members", payload={"paused": member.pk}).count() == 1
    assert take_lease(project=project, annotator=annotator) is None
    # What they send all the same is kept, and somebody else still judges the task.
    late = Lease.objects.get(pk=lease.pk)
    assert submit_judgement(lease=late, submission_key="late", body=RANKING).judgement.is_surplus
    assert factories.judge_all(project, other_annotator) == 1
    reinstate_member(membership=member)
    assert member_of(project, annotator).state == "active"


def test_leads_pause_set_aside_and_reinstate_over_rest(project, lead, reviewer, annotator, judged):
    caller, path = Caller(lead), "projects/support/members/annotator/"
    paused = caller.post(f"{path}pause/", {"reason": "Away until Monday"})
    assert paused.status_code == 200
    assert (paused.json()["state"], paused.json()["state_reason"]) == ("paused", "Away until Monday")
    assert caller.post(f"{path}set-aside/", {"reason": "in a hurry"}).json() == {"set_aside": 3}
    assert caller.post(f"{path}set-aside/", {"reason": "in a hurry"}).json() == {"set_aside": 0}
    listed = caller.get("projects/support/judgements/").json()["results"]
    assert sorted(row["set_aside"] for row in listed) == [False] * 3 + [True] * 3
    take_lease(project=project, annotator=reviewer)
    back = caller.post(f"{path}reinstate/", {"restore": True}).json()
    assert (back["state"], back["restored"], back["kept_aside"]) == ("active", 2, 1)
    assert caller.post(f"{path}reinstate/", {"to_qualify": True}).json()["state"] == "qualifying"


def test_what_is_wrong_with_such_a_request_is_said(project, lead, stranger):
    caller = Caller(lead)
    assert caller.post("projects/support/members/nobody/pause/", {"reason": "x"}).status_code == 404
    assert caller.post("projects/support/members/stranger/pause/", {"reason": "x"}).status_code == 404
    assert caller.post("projects/support/members/annotator/pause/", {}).status_code == 400
    times = {"reason": "x", "since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}
    refused = caller.post("projects/support/members/annotator/set-aside/", times)
    assert refused.status_code == 400 and "until" in refused.json()["error"]["fields"]


def test_leads_do_it_on_the_page_of_the_person(client, project, lead, annotator, judged):
    client.force_login(lead)
    path = f"/projects/support/people/{annotator.pk}/"
    assert client.post(path, {"do": "pause", "reason": ""}).status_code == 422
    assert client.post(path, {"do": "pause", "reason": "Away until Monday"}).status_code == 302
    assert "Away until Monday" in client.get(path).content.decode()
    assert "‖" in client.get("/projects/support/people/").content.decode()
    assert client.post(path, {"do": "set_aside", "since": "2026-02-01T10:00", "until": "2026-01-01T10:00", "reason": "x"}).status_code == 422
    page = client.post(path, {"do": "set_aside", "reason": "in a hurry"}, follow=True).content.decode()
    assert "3 judgements set aside" in page and "waits for somebody else" in page
    prompt = judged[0].prompt_id
    assert "set aside" in client.get(f"/projects/support/prompts/{prompt}/").content.decode()
    row = SetAside.objects.first()
    assert "counts again" in client.post(path, {"do": "restore", "set_aside": row.pk}, follow=True).content.decode()
    page = client.post(path, {"do": "reinstate", "restore": "on"}, follow=True).content.decode()
    assert "2 judgements count again, 0 stay aside" in page
    assert not SetAside.objects.filter(restored_at=None).exists()


def test_the_bench_says_why_somebody_is_paused_and_whom_to_ask(client, project, lead, annotator):
    factories.fill_project(project, 1)
    pause_member(membership=member_of(project, annotator), reason="Please call me first")
    client.force_login(annotator)
    page = client.get("/projects/support/bench/").content.decode()
    assert "You are paused in this project" in page and "Please call me first" in page and ": lead." in page
    answer = client.post("/projects/support/bench/next/", headers={"X-Bench": "1"}).json()
    assert answer["task"] is None and "Please call me first" in answer["nothing"]
