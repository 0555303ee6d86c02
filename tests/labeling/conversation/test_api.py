"""A whole conversation held by a program, and what each caller may and may not."""

import json

import pytest

from labeling.conversation.models import Conversation, Turn
from labeling.conversation.services import Outcome, change_settings, claim_turn, fail_turn, finish_turn
from labeling.projects.services import change_project
from tests.api_caller import Caller, code_of
from tests.labeling.conversation.conftest import SERVER_NAME, TOLD, speakers
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db
P = "projects/support/"


@pytest.fixture
def caller(talking, annotator) -> Caller:
    return Caller(annotator)


def begin(caller: Caller, key: str = "c1") -> str:
    response = caller.post(f"{P}conversations/", {}, Idempotency_Key=key)
    assert response.status_code == 201, response.content
    return response.json()["id"]


def say(caller: Caller, id: str, content: str, key: str):
    return caller.post(f"conversations/{id}/turns/", {"content": content}, Idempotency_Key=key)


def generate(first: str = "One", second: str = "Two") -> None:
    for turn in Turn.objects.filter(state="generating"):
        claim = claim_turn(turn_id=turn.pk, owner="t")
        finish_turn(claim=claim, outcomes=[Outcome(first, "stop"), Outcome(second, "stop")])


@pytest.mark.django_db(transaction=True)
def test_a_program_holds_a_conversation_of_three_turns(live, caller, lead):
    id = begin(caller)
    chosen = []
    for number in (1, 2, 3):
        response = say(caller, id, f"Question {number}", f"k{number}")
        assert response.status_code == 202 and response.json()["state"] == "generating"

        def ready(number=number):
            answer = caller.get(f"conversations/{id}/turns/{number}/").json()
            return answer if answer["state"] == "ready" else None

        turn = wait_until(ready)
        assert set(turn["completions"]) == {"a", "b"}
        order = [["b"], ["a"]] if number == 2 else [["a"], ["b"]]
        chosen.append(turn["completions"][order[0][0]])
        body = {"ranking": order, "seconds": 2.5}
        judged = caller.post(f"leases/{turn['lease']}/judgement/", body, Idempotency_Key=f"j{number}")
        assert judged.status_code == 201
        after = caller.get(f"conversations/{id}/turns/{number}/").json()
        assert (after["state"], after["continued_with"]) == ("judged", order[0][0])
    # Read back: the judgements, and the prompts that the comparisons share.
    found = caller.get(f"{P}judgements/").json()["results"]
    assert [row["judgement"]["ranking"] for row in reversed(found)] == [[["a"], ["b"]], [["b"], ["a"]], [["a"], ["b"]]]
    messages = Turn.objects.get(number=3).lease.task.prompt.messages
    assert [one["content"] for one in messages] == ["Question 1", chosen[0], "Question 2", chosen[1], "Question 3"]
    whole = caller.get(f"conversations/{id}/").json()
    assert [turn["content"] for turn in whole["turns"]] == ["Question 1", "Question 2", "Question 3"]
    ended = caller.post(f"conversations/{id}/end/", {"reason": "done"})
    assert ended.status_code == 200 and ended.json()["state"] == "ended"
    assert code_of(say(caller, id, "More", "k9")) == "conversation_over"


def test_a_message_sent_twice_is_one_turn(caller):
    id = begin(caller)
    assert begin(caller) == id
    first, second = say(caller, id, "Hello", "k"), say(caller, id, "Hello", "k")
    assert first.status_code == second.status_code == 202 and first.json() == second.json()
    assert Turn.objects.count() == 1
    other = say(caller, id, "Other", "k")
    assert (other.status_code, code_of(other)) == (409, "key_reused")
    open_turn = say(caller, id, "Other", "k2")
    assert (open_turn.status_code, code_of(open_turn)) == (409, "turn_open")


def test_a_failed_turn_says_why_and_can_be_tried_again(caller):
    id = begin(caller)
    say(caller, id, "Hello", "k")
    turn = Turn.objects.get()
    detail = f"{SERVER_NAME}: HTTP 500: model-one"
    fail_turn(claim=claim_turn(turn_id=turn.pk, owner="t"), problem="unreachable", detail=detail)
    answer = caller.get(f"conversations/{id}/turns/1/")
    body = answer.json()
    assert (body["state"], body["problem"], body["content"]) == ("failed", "unreachable", "Hello")
    assert "Try again" in body["message"]
    assert SERVER_NAME not in answer.content.decode() and "model-one" not in answer.content.decode()
    assert caller.post(f"conversations/{id}/turns/1/again/", {}).json()["state"] == "generating"
    assert caller.post(f"conversations/{id}/turns/1/stop/", {}).status_code == 202
    turn.refresh_from_db()
    assert turn.stop_requested


def test_no_answer_to_an_annotator_names_models_servers_or_parameters(caller, telling, annotator):
    id = begin(caller)
    said = [say(caller, id, "Hello", "k")]
    generate()
    said += [
        caller.get(f"conversations/{id}/"),
        caller.get(f"conversations/{id}/turns/1/"),
        caller.get(f"{P}conversations/"),
    ]
    lease = said[2].json()["lease"]
    said.append(caller.post(f"leases/{lease}/judgement/", {"ranking": [["a"], ["b"]]}, Idempotency_Key="j"))
    said += [caller.get(f"conversations/{id}/"), caller.get(f"{P}judgements/")]
    for answer in said:
        assert answer.status_code in (200, 201, 202)
        for secret in (SERVER_NAME, "model-one", "key-of-model", *TOLD, "127.0.0.1", "seed", "secret-key"):
            assert secret not in answer.content.decode()
    assert caller.get(f"{P}conversation/").status_code == 403


def test_a_hidden_system_prompt_stays_hidden(caller, talking):
    change_settings(project=talking, system="Be terse.")
    assert caller.get(f"conversations/{begin(caller, 'one')}/").json()["opening"] == [
        {"role": "system", "content": "Be terse."}
    ]
    change_project(project=talking, bench={**talking.bench, "system_prompts": "hidden"})
    assert caller.get(f"conversations/{begin(caller, 'two')}/").json()["opening"] == []


def test_nobody_reads_another_persons_conversation(caller, other_annotator, lead, stranger):
    id = begin(caller)
    say(caller, id, "Hello", "k")
    for user in (other_annotator, lead, stranger):
        other = Caller(user)
        for path in (f"conversations/{id}/", f"conversations/{id}/turns/1/"):
            assert other.get(path).status_code == 404
        assert say(other, id, "x", "k").status_code == 404
        for path in ("end/", "turns/1/again/", "turns/1/stop/"):
            assert other.post(f"conversations/{id}/{path}", {}).status_code == 404
    assert Conversation.objects.get().is_open


@pytest.mark.parametrize(
    ("body", "status"),
    [({"content": ""}, 400), ({"content": "  \n"}, 400), ({"content": 5}, 400), ({}, 400), ({"content": "x", "model": "y"}, 400), ({"content": "x" * 20_001}, 400)],
)  # fmt: skip
def test_a_message_that_is_none_is_refused(caller, body, status):
    id = begin(caller)
    assert caller.post(f"conversations/{id}/turns/", body, Idempotency_Key="k").status_code == status
    assert not Turn.objects.exists()


def test_keys_are_required(caller):
    assert caller.post(f"{P}conversations/", {}).status_code == 400
    id = begin(caller)
    assert caller.post(f"conversations/{id}/turns/", {"content": "x"}).status_code == 400


def test_too_many_at_once_are_asked_to_wait(caller):
    for number in range(4):
        answer = say(caller, begin(caller, f"c{number}"), "Hello", f"k{number}")
    assert answer.status_code == 429 and code_of(answer) == "too_much_at_once" and answer["Retry-After"]


def test_settings_are_read_and_set(project, servers, lead, engineer, annotator):
    assert Caller(annotator).get(f"{P}conversation/").status_code == 403
    body = {"is_on": True, "speakers": speakers("model-one", "model-two"), "max_turns": 3, "note": "Parcels"}
    assert Caller(engineer).patch(f"{P}conversation/", body).status_code == 403
    answer = Caller(lead).patch(f"{P}conversation/", body)
    assert answer.status_code == 200, answer.content
    assert answer.json() == Caller(engineer).get(f"{P}conversation/").json()
    assert answer.json()["servers"] == [SERVER_NAME] and answer.json()["speakers"][0]["top_p"] == 0.95
    assert "secret-key" not in answer.content.decode() and "127.0.0.1" not in answer.content.decode()
    for wrong in (
        {"speakers": []},
        {"max_turns": 0},
        {"speakers": [{**one, "url": "http://x"} for one in body["speakers"]]},
        {"nonsense": 1},
    ):
        refusal = Caller(lead).patch(f"{P}conversation/", wrong)
        assert refusal.status_code == 400 and code_of(refusal) == "invalid", json.dumps(wrong)
