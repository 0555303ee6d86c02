"""Gold tasks in the console and over REST."""

import pytest

from labeling.annotation.models import Task
from labeling.annotation.services import take_lease
from labeling.projects.models import Completion
from labeling.projects.services import change_project
from labeling.quality.models import GoldAnswer
from tests import factories
from tests.api_caller import Caller
from tests.labeling.quality import gold

PATH = "/projects/support/gold/"
WRITTEN = {
    "text": "Where is my golden parcel?", "text.a": "It is lost.", "text.b": "It comes today.", "text.c": "",
    "rank.a": "2", "rank.b": "1", "explanation": "The second helps.",
}  # fmt: skip


@pytest.fixture
def everything_asked(project):
    change_project(
        project=project, form={"ratings": {"tone": {"low": 1, "high": 5}}, "acceptable": True, "rationale": "off"}
    )


# --- the console --------------------------------------------------------------------------------
def test_a_lead_writes_one_and_sees_how_it_is_answered(client, project, lead, annotator):
    client.force_login(lead)
    assert "There is none yet" in client.get(PATH).content.decode()
    assert client.post(f"{PATH}new/", WRITTEN).status_code == 302
    made = GoldAnswer.objects.select_related("task__prompt").get()
    assert made.task.prompt.messages == [{"role": "user", "content": "Where is my golden parcel?"}]
    by_text = dict(Completion.objects.values_list("content", "pk"))
    assert made.expected["ranking"] == [[by_text["It comes today."]], [by_text["It is lost."]]]
    assert set(Completion.objects.values_list("author", flat=True)) == {lead.pk}
    factories.fill_project(project, 3, n_completions=2)
    gold.set_quality(project, gold_rate=0.5)
    for _number in range(40):
        lease = take_lease(project=project, annotator=annotator)
        if lease is None or gold.is_gold(lease):
            break
    page = client.get(PATH).content.decode()
    assert "golden parcel" in page and "b › a" in page
    # What was written for it comes up in no other task.
    assert Task.objects.filter(completions__author=lead).exclude(purpose="gold").count() == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rank.b": ""}, "every completion once"),
        ({"text.b": "It is lost."}, "must differ"),
        ({"text": " "}, "required"),
        ({"rank.a": "", "rank.b": ""}, "must say something"),
        ({"text.b": ""}, "shows 2 to 9"),
    ],
)
def test_what_is_wrong_is_said_beside_what_was_typed(client, project, lead, changes, said):
    client.force_login(lead)
    answer = client.post(f"{PATH}new/", WRITTEN | changes)
    assert answer.status_code == 422
    page = answer.content.decode()
    assert said in page and "The second helps." in page
    assert not GoldAnswer.objects.exists() and not project.prompts.exists()


def test_a_prompt_that_is_there_with_some_of_its_completions(client, everything_asked, filled_project, lead):
    client.force_login(lead)
    prompt = gold.prompts(filled_project)[0]
    ids = list(prompt.completions.order_by("pk").values_list("pk", flat=True))
    path = f"{PATH}new/?prompt={prompt.pk}"
    assert "Answer 2 about parcel 0" in client.get(path).content.decode()
    sent = {
        "use.a": "on", "use.c": "on", "rank.a": "1", "rank.b": "2", "rank.c": "1", "acceptable.c": "no",
        "rating.a.tone": "4", "within.a.tone": "1",
    }  # fmt: skip
    assert client.post(path, sent).status_code == 302
    assert GoldAnswer.objects.get().expected == {
        "ranking": [[ids[0], ids[2]]],
        "ratings": {str(ids[0]): {"tone": {"value": 4, "within": 1}}},
        "acceptable": {str(ids[2]): False},
    }
    assert client.get(f"{PATH}new/?prompt=999999").status_code == 302


def test_one_is_changed_retired_and_taken_back(client, project, lead):
    made = gold.write(project, 1)[0]
    ids = [group[0] for group in made.expected["ranking"]]
    client.force_login(lead)
    path = f"{PATH}{made.pk}/"
    page = client.get(path).content.decode()
    assert "The *first* is kind." in page and '<option value="3" selected>' in page
    assert client.post(path, {"rank.a": "1", "rank.b": "1", "rank.c": "2", "explanation": "New"}).status_code == 302
    made.refresh_from_db()
    assert (made.expected["ranking"], made.explanation) == ([ids[:2], ids[2:]], "New")
    for do, state, said in (("retire", "closed", "retired"), ("use", "open", "in use")):
        assert client.post(path, {"do": do}).status_code == 302
        assert Task.objects.get(pk=made.task_id).state == state
        assert f">{said}</span>" in client.get(PATH).content.decode()


def test_tasks_judged_alike_are_promoted_by_one_click(client, project, lead, reviewer, annotator, other_annotator):
    tasks = factories.fill_project(project, 1, overlap=3)
    for person in (annotator, other_annotator, reviewer):
        factories.judge_all(project, person)
    client.force_login(lead)
    assert "a › b › c" in client.get(PATH).content.decode()
    page = client.post(PATH, {"task": tasks[0].public_id}, follow=True).content.decode()
    assert "Promoted." in page and "None that isn" in page
    assert "Not promoted" in client.post(PATH, {"task": tasks[0].public_id}, follow=True).content.decode()
    assert GoldAnswer.objects.get().promoted_from == tasks[0]


def test_too_few_for_the_round_is_said(client, project, lead):
    gold.write(project, 1)
    gold.set_quality(project, qualification={"n": 3, "pass": 0.5})
    client.force_login(lead)
    assert "there is 1" in client.get(PATH).content.decode()


def test_whoever_judges_for_a_living_sees_none_of_it(client, project, reviewer, annotator, engineer):
    made = gold.write(project, 1)[0]
    for person, status in ((annotator, 404), (reviewer, 403), (engineer, 200)):
        client.force_login(person)
        for path in (PATH, f"{PATH}new/", f"{PATH}{made.pk}/"):
            assert client.get(path).status_code == status, (person, path)
    client.force_login(reviewer)
    assert "Gold tasks" not in client.get("/projects/support/quality/").content.decode()
    prompt = made.task.prompt_id
    assert made.task.public_id not in client.get(f"/projects/support/prompts/{prompt}/").content.decode()


# --- REST ---------------------------------------------------------------------------------------
def test_gold_tasks_over_rest(project, lead, annotator, reviewer):
    caller = Caller(lead)
    sent = {
        "text": "Where is my golden parcel?", "texts": ["It is lost.", "It comes today."],
        "expected": {"ranking": [["b"], ["a"]]}, "explanation": "The second helps.",
    }  # fmt: skip
    made = caller.post("projects/support/gold/", sent)
    assert made.status_code == 201
    row = made.json()
    assert [one["content"] for one in row["completions"]] == sent["texts"]
    assert row["expected"] == {"ranking": [["b"], ["a"]], "ratings": {}, "acceptable": {}}
    changed = caller.patch(f"gold/{row['id']}/", {"expected": {"ranking": [["a", "b"]]}, "retired": True}).json()
    assert changed["expected"]["ranking"] == [["a", "b"]] and changed["retired_at"]
    listed = caller.get("projects/support/gold/").json()["results"]
    assert [one["id"] for one in listed] == [row["id"]] and listed[0]["results"] is None
    for person in (annotator, reviewer):
        assert Caller(person).get("projects/support/gold/").status_code == 403
        assert Caller(person).patch(f"gold/{row['id']}/", {}).status_code == 404


def test_what_is_there_becomes_gold_over_rest(filled_project, lead, reviewer, annotator, other_annotator):
    caller = Caller(lead)
    prompt = gold.prompts(filled_project)[0]
    ids = list(map(str, prompt.completions.order_by("pk").values_list("pk", flat=True)))
    sent = {"prompt": str(prompt.pk), "completions": ids[::-1], "expected": {"ranking": [["a"], ["b"], ["c"]]}}
    made = caller.post("projects/support/gold/", sent).json()
    assert made["expected"]["ranking"] == [["c"], ["b"], ["a"]]  # keys are in the order of the ids from now on
    again = caller.post("projects/support/gold/", sent)
    assert again.status_code == 400 and "completions" in again.json()["error"]["fields"]
    assert caller.get("projects/support/gold/candidates/").json() == []


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"text": "a", "prompt": "1"},
        {"text": "a", "texts": ["x", "y"], "expected": {"ranking": [["a"], ["z"]]}},
        {"text": "a", "texts": ["x", "y"], "expected": {"ranking": "ab"}},
        {"text": "a", "texts": ["x", "y"], "expected": {"ratings": {"a": 3}}},
        {"text": "a", "texts": ["x", "y"], "expected": {"other": 1}},
        {"text": "a", "texts": ["x", "x"], "expected": {"ranking": [["a"], ["b"]]}},
        {"text": "a", "texts": ["x", "y"], "expected": {"ranking": [[["a"]], ["b"]]}},
        {"text": "a", "texts": ["x", "y"], "expected": {"acceptable": {"a": True}}},
    ],
)
def test_what_makes_no_gold_task_is_refused_with_reasons(project, lead, sent):
    answer = Caller(lead).post("projects/support/gold/", sent)
    assert answer.status_code == 400 and answer.json()["error"]["fields"]
    assert not GoldAnswer.objects.exists()
