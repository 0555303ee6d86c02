"""The annotators' pages and the lead's, without a browser."""

import re

import pytest
from django.test import Client
from django.urls import reverse

from labeling.annotation.services import submit_judgement
from labeling.conversation.models import Conversation, Turn
from labeling.conversation.selectors import settings_of
from labeling.conversation.services import (
    Outcome,
    change_settings,
    claim_turn,
    end_conversation,
    fail_turn,
    finish_turn,
)
from labeling.projects.services import change_project, publish_guideline
from tests import factories
from tests.labeling.conversation.conftest import SERVER_NAME, TOLD, speakers
from tests.labeling.conversation.model_server import refuse, say

pytestmark = pytest.mark.django_db
BENCH = "/projects/support/bench/"
LIST = f"{BENCH}conversations/"
CONSOLE = "/projects/support/conversation/"


@pytest.fixture
def page(annotator) -> Client:
    client = Client()
    client.force_login(annotator)
    return client


@pytest.fixture
def console(lead) -> Client:
    client = Client()
    client.force_login(lead)
    return client


def speak(page: Client, conversation: Conversation, content: str, key: str = "12345678"):
    return page.post(f"{LIST}{conversation.public_id}/turns/", {"content": content, "client_key": key})


def generate(first: str = "One *says* this.", second: str = "<script>Two</script>"):
    turn = Turn.objects.get(state="generating")
    claim = claim_turn(turn_id=turn.pk, owner="t")
    return finish_turn(claim=claim, outcomes=[Outcome(first, "stop"), Outcome(second, "stop")])


def test_the_bench_of_a_project_with_conversations_leads_there(page, talking, annotator):
    assert page.get(BENCH)["Location"] == LIST
    begun = page.post(LIST, {"client_key": "abcdefgh"})
    there = begun["Location"]
    assert page.post(LIST, {"client_key": "abcdefgh"})["Location"] == there
    assert page.get(BENCH)["Location"] == there
    assert page.get(f"{BENCH}?tasks=1").status_code == 200
    end_conversation(conversation=Conversation.objects.get())
    assert page.get(BENCH)["Location"] == LIST
    change_settings(project=talking, is_on=False)
    assert page.get(BENCH).status_code == 200


def test_other_projects_keep_their_bench(page, filled_project):
    assert page.get(BENCH).status_code == 200 and b"data-task" in page.get(BENCH).content
    assert page.get(LIST).status_code == 200
    assert page.post(LIST).status_code == 302 and not Conversation.objects.exists()


def test_what_is_said_comes_back_as_state(page, conversation):
    there = f"{LIST}{conversation.public_id}/"
    assert page.get(there).status_code == 200
    said = speak(page, conversation, "Hello **there**")
    assert said.status_code == 202 and said.json()["turn"]["state"] == "generating"
    assert "<strong>there</strong>" in said.json()["thread"]
    lease = generate()
    state = page.get(f"{there}state/").json()
    assert state["turn"]["state"] == "ready" and f'data-task="{lease.pk}"' in state["task"]
    assert "<script>" not in state["task"] and "&lt;script&gt;" in state["task"]
    submit_judgement(lease=lease, submission_key="s", body={"ranking": [["a"], ["b"]], "none_acceptable": True})
    state = page.get(f"{there}state/").json()
    assert state["turn"]["none_good"] and state["task"] is None
    assert "<em>says</em>" in state["thread"]
    again = page.post(f"{there}turns/1/again/").json()
    assert again["turn"]["state"] == "generating"
    page.post(f"{there}turns/1/stop/")
    assert Turn.objects.get(attempt=2).stop_requested
    assert page.post(f"{there}end/", {"reason": "tired"})["Location"] == LIST
    assert b"tired" in page.get(LIST).content


def test_what_cannot_be_said_is_refused_with_the_state_there_is(page, conversation):
    for content, key in (
        ("", "12345678"),
        ("  ", "12345678"),
        ("x", "short"),
        ("x", "with space 1"),
        ("x" * 20_001, "12345678"),
    ):
        assert speak(page, conversation, content, key).status_code == 422
    speak(page, conversation, "Hello", "12345678")
    refused = speak(page, conversation, "More", "abcdefgh")
    assert (
        refused.status_code == 409
        and refused.json()["refused"] == "turn_open"
        and refused.json()["turn"]["number"] == 1
    )
    assert page.post(f"{LIST}{conversation.public_id}/turns/7/again/").status_code == 404


def test_a_failure_is_told_without_the_server(page, conversation):
    speak(page, conversation, "Hello")
    detail = f"{SERVER_NAME}: broken model-one"
    fail_turn(claim=claim_turn(turn_id=Turn.objects.get().pk, owner="t"), problem="stalled", detail=detail)
    answer = page.get(f"{LIST}{conversation.public_id}/state/")
    assert "Try again" in answer.json()["turn"]["message"]
    assert SERVER_NAME not in answer.content.decode() and "model-one" not in answer.content.decode()


def test_no_page_of_an_annotator_names_models_servers_or_parameters(page, telling, conversation):
    there = f"{LIST}{conversation.public_id}/"
    said = [speak(page, conversation, "Hello"), page.get(there)]
    generate()
    said += [page.get(there), page.get(f"{there}state/"), page.get(LIST)]
    for answer in said:
        for secret in (SERVER_NAME, "model-one", "key-of-model", *TOLD, "secret-key", "seed"):
            assert not re.search(rf"\b{re.escape(secret)}\b", answer.content.decode())


def test_a_content_warning_comes_first(page, talking, conversation, annotator):
    change_project(project=talking, bench={**talking.bench, "content_warning": "Hard to read."})
    assert b"Hard to read." in page.get(BENCH).content
    assert page.get(f"{LIST}{conversation.public_id}/")["Location"] == BENCH
    page.post(reverse("annotation:agree", args=["support"]))
    assert page.get(f"{LIST}{conversation.public_id}/").status_code == 200


def test_others_find_nothing(conversation, other_annotator, stranger, lead):
    for user in (other_annotator, stranger, lead):
        client = Client()
        client.force_login(user)
        there = f"{LIST}{conversation.public_id}/"
        assert client.get(there).status_code == client.get(f"{there}state/").status_code == 404
        assert client.post(f"{there}end/").status_code == speak(client, conversation, "x").status_code == 404


# --- the lead's page ------------------------------------------------------------------------------
def form(rows: list[dict], **more: object) -> dict[str, object]:
    found = {
        "speaker-TOTAL_FORMS": len(rows),
        "speaker-INITIAL_FORMS": 0,
        "max_turns": 4,
        "opening": "free",
        "is_on": "on",
    }
    for number, row in enumerate(rows):
        found |= {f"speaker-{number}-{name}": value for name, value in row.items()}
    return found | more


def test_a_lead_sets_it_up_by_form(console, project, servers):
    assert console.get(CONSOLE).status_code == 200
    empty = {"server": SERVER_NAME, "model": "", "temperature": 0.8, "top_p": 0.95, "max_tokens": 256}
    saved = console.post(
        CONSOLE, form([*speakers("model-one", "model-two", top_p=0.9, max_tokens=64), empty], note="Parcels")
    )
    assert saved.status_code == 302, saved.content.decode()[-3000:]
    found = settings_of(project)
    assert found.is_on and found.note == "Parcels" and found.max_turns == 4
    assert [one["model"] for one in found.speakers] == ["model-one", "model-two"]
    page = console.get(CONSOLE).content.decode()
    assert "model-one" in page and "secret-key" not in page and "127.0.0.1" not in page


def test_what_does_not_work_is_said_beside_its_field(console, project, servers):
    refused = console.post(CONSOLE, form(speakers("model-one", top_p=0.9, max_tokens=64)))
    assert refused.status_code == 422 and "needs 2 to 12 speakers" in refused.content.decode()
    strange = [{**one, "server": "evil", "top_p": 1, "max_tokens": 5} for one in speakers("a", "b")]
    assert console.post(CONSOLE, form(strange)).status_code == 422
    assert settings_of(project).pk is None


def test_a_lead_sees_the_servers_and_tries_a_speaker(console, project, servers, scripted, settings):
    settings.MODEL_SERVERS = {**servers, "gone": {"url": "http://127.0.0.1:1/v1", "key": ""}}
    page = console.get(f"{CONSOLE}servers/").content.decode()
    assert "model-one, model-two" in page and "can&#x27;t be reached" in page and "127.0.0.1" not in page
    scripted.script("model-one", say("Hello", " you"))
    rows = speakers("model-one", "model-two", top_p=1, max_tokens=50)
    tried = console.post(CONSOLE, form(rows, **{"try": "speaker-0"}))
    assert tried.status_code == 200 and "Hello you" in tried.content.decode()
    scripted.script("model-two", refuse(401))
    assert "HTTP 401" in console.post(CONSOLE, form(rows, **{"try": "speaker-1"})).content.decode()
    assert settings_of(project).pk is None  # trying saves nothing


def test_without_a_server_the_page_says_what_to_do(console, project, settings):
    settings.MODEL_SERVERS = {}
    assert "PREFLOOP_MODEL_SERVERS" in console.get(f"{CONSOLE}servers/").content.decode()
    assert console.post(CONSOLE, form([])).status_code == 422


def test_readers_see_and_do_not_change(project, servers, engineer, annotator):
    client = Client()
    client.force_login(engineer)
    assert client.get(CONSOLE).status_code == 200
    assert client.post(CONSOLE, form(speakers("a", "b"))).status_code == 403
    client.force_login(annotator)
    assert client.get(CONSOLE).status_code == client.get(f"{CONSOLE}servers/").status_code == 404


def test_conversation_turns_do_not_disturb_the_figures(page, talking, conversation):
    factories.fill_project(talking, 2)
    speak(page, conversation, "Hello")
    generate()
    assert page.get(f"{BENCH}?tasks=1").status_code == 200


def test_a_changed_guideline_is_read_before_another_conversation(page, talking, annotator, lead):
    there = page.post(LIST, {"client_key": "abcdefgh"})["Location"]
    page.get(LIST)
    publish_guideline(project=talking, markdown="Talk of mugs.", created_by=lead)
    assert page.get(BENCH)["Location"] == there  # the one in hand goes on
    reading = page.post(LIST, {"client_key": "hgfedcba"})["Location"]
    assert Conversation.objects.count() == 1
    assert "The guideline has changed" in page.get(reading).content.decode()
    end_conversation(conversation=Conversation.objects.get())
    assert "Talk of mugs." in page.get(BENCH).content.decode()
    page.post(f"{BENCH}guideline/", {"version": "2"})
    assert page.get(BENCH)["Location"] == LIST
    page.post(LIST, {"client_key": "hgfedcba"})
    assert Conversation.objects.count() == 2
