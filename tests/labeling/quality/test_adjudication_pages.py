"""The pages of reviewers, and the same over REST."""

import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from labeling.annotation.models import Lease, Task
from labeling.annotation.services import take_lease
from labeling.quality.models import Adjudication, Review
from labeling.quality.services import adjudicate, refresh_disagreements, set_adjudication_mode
from tests import factories
from tests.api_caller import Caller, code_of
from tests.labeling.quality.judged import completion_ids, judge

QUEUE = "/projects/support/adjudication/"
A, B = [[0], [1], [2]], [[2], [1], [0]]


@pytest.fixture
def task(project, annotator, other_annotator):
    factories.fill_project(project, 1, overlap=2)
    judge(project, annotator, A, rationale="The first is <b>kind</b>")
    judge(project, other_annotator, B)
    refresh_disagreements()
    return project.tasks.get()


@pytest.fixture
def page(client, reviewer, task):
    client.force_login(reviewer)
    return f"{QUEUE}{task.public_id}/"


def sent(page_text: str, **more: str) -> dict[str, str]:
    """The form with its key, everything ranked in the order shown."""
    key = re.search(r'name="submission_key" value="(\w+)"', page_text)[1]
    standing = re.search(r'name="supersedes" value="(\d+)"', page_text)
    ranks = {f"rank.{letter}": str(number) for number, letter in enumerate("abc", 1)}
    return ranks | {"submission_key": key} | ({"supersedes": standing[1]} if standing else {}) | more


def two_tasks_of(project, person) -> list[Task]:
    first = take_lease(project=project, annotator=person)
    return [first.task, take_lease(project=project, annotator=person, holding=[first.pk]).task]


def text_of(answer) -> str:
    return answer.content.decode()


# --- pages --------------------------------------------------------------------------------------
def test_the_queue_of_a_blind_project_says_neither_how_nor_why_they_differ(client, reviewer, lead, task, project):
    client.force_login(reviewer)
    blind = text_of(client.get(QUEUE))
    assert "Where is my amber parcel" in blind and "1 to settle" in blind
    assert "rankings differ" not in blind
    assert 'value="blind"' not in blind  # a reviewer can't change it
    set_adjudication_mode(project=project, mode="open")
    assert "rankings differ" in text_of(client.get(QUEUE))
    client.force_login(lead)
    assert 'value="blind"' in text_of(client.get(QUEUE))


def test_votes_stay_hidden_until_the_reviewer_has_ranked(client, page, task, annotator):
    first = text_of(client.get(page))
    assert "other-annotator" not in first and "The first is" not in first and "See the votes" in first
    assert client.post(page, sent(first, rationale="Mine")).status_code == 302
    shown = text_of(client.get(page))
    assert "You, blind" in shown and "other-annotator" in shown and "Mine" in shown
    assert "The first is &lt;b&gt;kind&lt;/b&gt;" in shown
    assert "rankings differ" not in shown
    order = Review.objects.get().order_shown
    letters = dict(zip(order, "abc", strict=True))
    assert f'<td class="vote-ranking">{" › ".join(letters[pk] for pk in completion_ids(task))}' in shown
    answer = client.post(page, sent(shown, note_to_guideline="Emoji?", becomes_gold="1"))
    assert (answer.status_code, answer["Location"]) == (302, QUEUE)
    found = Adjudication.objects.get()
    assert (found.ranking, found.blind, found.becomes_gold) == ([[pk] for pk in order], True, True)
    after = text_of(client.get(page))
    assert "rankings differ" in after and "What you settle below takes its place" in after


def test_nothing_of_a_task_names_a_model(client, page, task, project):
    set_adjudication_mode(project=project, mode="open")
    assert "tiny@1" not in text_of(client.get(page))


def test_an_incomplete_ranking_is_told_and_kept(client, page):
    form = sent(text_of(client.get(page)), rationale="Half of it")
    del form["rank.b"]
    answer = client.post(page, form)
    assert answer.status_code == 422
    assert "every completion must be ranked exactly once" in text_of(answer) and "Half of it" in text_of(answer)


def test_a_task_can_be_closed_without_seeing_the_votes(client, page, task):
    client.post(page, sent(text_of(client.get(page)), outcome="unfit"))
    found = Adjudication.objects.get()
    assert (found.outcome, found.blind, found.votes_seen_at) == ("unfit", True, None)
    task.refresh_from_db()
    assert task.state == Task.State.CLOSED


def test_leaving_it_needs_the_votes(client, page):
    """In a blind project the first word is a ranking, whatever button was pressed."""
    client.post(page, sent(text_of(client.get(page)), outcome="left"))
    assert Adjudication.objects.count() == 0
    assert Review.objects.get().said is not None
    client.post(page, sent(text_of(client.get(page)), outcome="left"))
    assert Adjudication.objects.get().outcome == "left"


def test_the_second_of_two_reviewers_is_told_who_was_first_and_loses_nothing(client, page, task, lead):
    client.post(page, sent(text_of(client.get(page))))
    form = sent(
        text_of(client.get(page)), rationale="Long and\nthoughtful", note_to_guideline="Emoji?", becomes_gold="1"
    )
    first = adjudicate(
        task=task, by=lead, submission_key="lead-key", outcome="left", rationale="Both fine"
    ).adjudication
    answer = client.post(page, form)
    told = text_of(answer)
    assert answer.status_code == 409
    assert "lead was first" in told and "just now" in told and "Both fine" in told
    for kept in ("Long and\nthoughtful", "Emoji?", 'value="1" data-gold checked', 'name="rank.a" value="1"'):
        assert kept in told, kept
    assert Adjudication.objects.count() == 1
    assert client.post(page, form | {"supersedes": str(first.pk)}).status_code == 302
    assert Adjudication.objects.get(superseded_by=None).rationale == "Long and\nthoughtful"


def test_a_double_submit_settles_once(client, page, project):
    set_adjudication_mode(project=project, mode="open")
    form = sent(text_of(client.get(page)))
    assert [client.post(page, form).status_code for _ in range(2)] == [302, 302]
    assert Adjudication.objects.count() == 1


def test_only_leads_change_the_mode_and_tick_off_notes(client, reviewer, lead, task, project):
    done = adjudicate(task=task, by=reviewer, submission_key="reviewer-key", outcome="left", note_to_guideline="Emoji?")
    note = f"/projects/support/guidelines/notes/{done.adjudication.pk}/"
    client.force_login(reviewer)
    assert client.post(f"{QUEUE}mode/", {"adjudication": "open"}).status_code == 403
    assert client.post(note).status_code == 403
    assert "Emoji?" in text_of(client.get("/projects/support/guidelines/"))
    client.force_login(lead)
    assert client.post(f"{QUEUE}mode/", {"adjudication": "open"}).status_code == 302
    project.refresh_from_db()
    assert project.quality["adjudication"] == "open"
    assert client.post(note).status_code == 302
    assert "Emoji?" not in text_of(client.get("/projects/support/guidelines/"))


def test_pages_take_as_many_queries_for_few_rows_as_for_many(client, reviewer, project, annotator, other_annotator):
    set_adjudication_mode(project=project, mode="open")
    factories.fill_project(project, 10, overlap=2)
    client.force_login(reviewer)
    counts = []
    for n in (4, 6):
        for _task in range(n):
            judge(project, annotator, A)
            judge(project, other_annotator, B)
        refresh_disagreements()
        for number, task in enumerate(project.tasks.filter(disagreement__urgency__isnull=False)[:1]):
            adjudicate(task=task, by=reviewer, submission_key=f"{n}-{number}-key", outcome="left")
        one = project.tasks.filter(disagreement__urgency__isnull=False).first()
        client.get(f"{QUEUE}{one.public_id}/")
        found = []
        for path in (QUEUE, f"{QUEUE}?state=settled", f"{QUEUE}{one.public_id}/"):
            with CaptureQueriesContext(connection) as queries:
                assert client.get(path).status_code == 200
            found.append(len(queries))
        counts.append(found)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("after", ["x", "1_", "_1", "nan_1", "1e999_1", "0.5_99999999999999999999999", "١_١"])
def test_an_odd_place_in_the_queue_is_its_beginning_or_nothing(client, reviewer, task, after):
    client.force_login(reviewer)
    assert client.get(QUEUE, {"after": after}).status_code == 200


# --- REST ---------------------------------------------------------------------------------------
def test_settling_over_rest(project, task, reviewer, lead, engineer):
    caller, address = Caller(reviewer), f"tasks/{task.public_id}/adjudication/"
    shown = caller.get(address).json()
    ids = [completion["id"] for completion in shown["completions"]]
    assert shown["adjudication"] is None and len(ids) == 3 and "tiny@1" not in str(shown)
    body = {"outcome": "ranking", "ranking": [[ids[1]], [ids[0], ids[2]]], "rationale": "So", "none_acceptable": True}
    made = caller.post(address, body)
    assert (made.status_code, made.json()["ranking"], made.json()["blind"]) == (201, body["ranking"], False)
    assert caller.post(address, body).status_code == 200
    refused = Caller(lead).post(address, {"outcome": "left"})
    assert (refused.status_code, code_of(refused)) == (409, "already_adjudicated")
    assert caller.get(address).json()["adjudication"]["id"] == made.json()["id"]
    replaced = Caller(lead).post(address, {"outcome": "left", "supersedes": made.json()["id"]})
    assert (replaced.status_code, replaced.json()["supersedes"]) == (201, made.json()["id"])
    listed = Caller(engineer).get("projects/support/adjudications/").json()["results"]
    assert [row["id"] for row in listed] == [replaced.json()["id"]]
    assert listed[0]["completions"][0].keys() == {"id", "content"}


def test_an_annotator_cannot_tell_a_gold_task_by_the_refusal(task, annotator, reviewer):
    address = f"tasks/{task.public_id}/adjudication/"
    ordinary = [Caller(annotator).get(address), Caller(annotator).post(address, {"outcome": "left"})]
    Task.objects.update(purpose=Task.Purpose.GOLD)
    gold = [Caller(annotator).get(address), Caller(annotator).post(address, {"outcome": "left"})]
    assert [(answer.status_code, answer.content) for answer in gold] == [
        (answer.status_code, answer.content) for answer in ordinary
    ]
    assert Caller(reviewer).get(address).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {}, {"outcome": "maybe"}, {"outcome": "ranking"}, {"outcome": "ranking", "ranking": [["1"]]}, {"outcome": "ranking", "ranking": [["x"]]},
        {"outcome": "left", "supersedes": "-1"}, {"outcome": "left", "note_to_guideline": "x" * 5001}, {"outcome": "left", "by": 1},
    ],
)  # fmt: skip
def test_a_wrong_outcome_is_refused_by_name(task, reviewer, body):
    answer = Caller(reviewer).post(f"tasks/{task.public_id}/adjudication/", body)
    assert (answer.status_code, code_of(answer)) == (400, "invalid")
    assert answer.json()["error"]["fields"]


def test_one_key_for_two_tasks_is_refused(project, task, reviewer):
    other = factories.fill_project(project, 2)[1]
    caller = Caller(reviewer)
    assert (
        caller.post(f"tasks/{task.public_id}/adjudication/", {"outcome": "left"}, Idempotency_Key="k").status_code
        == 201
    )
    answer = caller.post(f"tasks/{other.public_id}/adjudication/", {"outcome": "left"}, Idempotency_Key="k")
    assert (answer.status_code, code_of(answer)) == (409, "key_reused")


def test_contradictions_come_in_over_rest(project, task, engineer):
    first, second, _ = map(str, completion_ids(task))
    belief = {"task": task.public_id, "pairs": [{"better": first, "worse": second, "probability": 0.02}]}
    body = {"model_key": "rm@1", "calibrated": True, "tasks": [belief]}
    caller = Caller(engineer)
    answer = caller.post("projects/support/contradictions/", body)
    assert (answer.status_code, answer.json()) == (201, {"recorded": 1, "queued": 0})  # the two people are split
    for wrong in (
        {"task": "nowhere"},
        {"pairs": []},
        {"pairs": [{"better": first, "worse": first, "probability": 0.1}]},
        {"pairs": [{"better": "x", "worse": first, "probability": 0.1}]},
    ):
        assert caller.post("projects/support/contradictions/", body | {"tasks": [belief | wrong]}).status_code == 400


def test_the_list_over_rest_takes_as_many_queries_for_many(project, reviewer, engineer):
    tasks = factories.fill_project(project, 6)
    caller, counts = Caller(engineer), []
    caller.get("projects/support/adjudications/")
    for some in (tasks[:1], tasks[1:]):
        for task in some:
            adjudicate(task=task, by=reviewer, submission_key=f"key-{task.pk}", outcome="left")
        with CaptureQueriesContext(connection) as queries:
            caller.get("projects/support/adjudications/")
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_a_reviewer_cannot_tell_which_of_their_own_tasks_checks_them(project, task, reviewer, lead, client):
    factories.fill_project(project, 3)
    mine, gold = two_tasks_of(project, reviewer)
    Task.objects.filter(pk=gold.pk).update(purpose=Task.Purpose.GOLD)
    client.force_login(reviewer)
    for ending in (f"tasks/{mine.public_id}/adjudication/", f"tasks/{gold.public_id}/adjudication/"):
        assert Caller(reviewer).get(ending).status_code == 404
        assert Caller(reviewer).post(ending, {"outcome": "left"}).status_code == 404
    for each in (mine, gold):
        assert client.get(f"{QUEUE}{each.public_id}/").status_code == 404
    assert Caller(lead).get(f"tasks/{mine.public_id}/adjudication/").status_code == 200
    # What waits for reviewers is no secret to them, whoever judged it.
    Lease.objects.filter(task=mine).update(task=task)
    assert Caller(reviewer).get(f"tasks/{task.public_id}/adjudication/").status_code == 200
    assert client.get(f"{QUEUE}{task.public_id}/").status_code == 200
