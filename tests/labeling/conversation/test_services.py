"""A turn becomes an ordinary comparison; who generates it, and what goes on, is decided by the database."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection
from django.utils.timezone import now

from labeling.annotation.models import Judgement, Task
from labeling.annotation.services import revise_judgement, skip_lease, submit_judgement, take_lease
from labeling.conversation.errors import (
    BadSettings,
    ClaimLost,
    ConversationOver,
    KeyReused,
    NothingToRepeat,
    NotSetUp,
    TooMuchAtOnce,
    TurnOpen,
)
from labeling.conversation.models import Conversation, Turn
from labeling.conversation.selectors import messages_before, settings_of, turns_to_generate
from labeling.conversation.services import (
    MAX_GENERATING,
    Claim,
    Outcome,
    change_settings,
    claim_turn,
    end_conversation,
    fail_turn,
    finish_turn,
    give_up_claim,
    keep_claim,
    request_stop,
    sample_again,
    settle,
    start_conversation,
    start_turn,
)
from labeling.projects.models import Completion, Prompt
from labeling.projects.services import change_project
from labeling.projects.text import group_id, split_of
from tests import factories
from tests.labeling.conversation.conftest import SERVER_NAME, speakers

pytestmark = pytest.mark.django_db


def say(conversation: Conversation, content: str, key: str = "") -> Turn:
    return start_turn(conversation=conversation, content=content, client_key=key or f"key of {content}")


def generate(turn: Turn, first: str = "One says this.", second: str = "Two says that.", reason: str = "stop"):
    """What a live process does, without one."""
    claim = claim_turn(turn_id=turn.pk, owner="test")
    assert claim is not None
    lease = finish_turn(claim=claim, outcomes=[Outcome(first, reason), Outcome(second, reason)])
    turn.refresh_from_db()
    return lease


def judge(lease, *ranking: str, **parts):
    body = {"ranking": [list(group) for group in ranking], "seconds": 3.0, **parts}
    return submit_judgement(lease=lease, submission_key=f"s{lease.pk}", body=body).judgement


def test_a_turn_becomes_a_prompt_two_completions_a_task_and_a_lease(conversation, annotator):
    turn = say(conversation, "Where is my parcel?")
    lease = generate(turn)
    assert turn.state == Turn.State.READY and turn.lease_id == lease.pk
    task = lease.task
    assert (task.kind, task.overlap, task.purpose) == (Task.CONVERSATION, 1, Task.Purpose.PREFERENCE)
    assert lease.annotator == annotator and task.slots.get().holder == annotator
    assert task.prompt.messages == [{"role": "user", "content": "Where is my parcel?"}]
    shown = [Completion.objects.get(pk=pk) for pk in lease.order_shown]
    assert [one.content for one in shown] == ["One says this.", "Two says that."]
    assert [one.model_key for one in shown] == [one["model_key"] for one in turn.speakers]
    facts = shown[0].sampling
    assert {name: facts[name] for name in ("temperature", "top_p", "max_new_tokens", "seed", "server", "finished", "turn")} == {
        "temperature": turn.speakers[0]["temperature"], "top_p": 0.95, "max_new_tokens": 256,
        "seed": turn.speakers[0]["seed"], "server": SERVER_NAME, "finished": True, "turn": 1,
    }  # fmt: skip


def test_the_queue_hands_it_to_nobody(conversation, talking, annotator, other_annotator):
    generate(say(conversation, "Hello"))
    assert take_lease(project=talking, annotator=annotator) is None
    assert take_lease(project=talking, annotator=other_annotator) is None


def test_the_chosen_completion_goes_on_and_all_turns_share_one_group(conversation, talking):
    lease = generate(say(conversation, "Where is my parcel?"))
    judge(lease, "b", "a")
    second = say(conversation, "Thanks! And how much is it?")
    messages = [
        {"role": "user", "content": "Where is my parcel?"},
        {"role": "assistant", "content": "Two says that."},
        {"role": "user", "content": "Thanks! And how much is it?"},
    ]
    lease = generate(second, "Five.", "Six.")
    assert lease.task.prompt.messages == messages
    judge(lease, "a", "b")
    third = generate(say(conversation, "Bye"), "Bye!", "So long.")
    prompts = list(Prompt.objects.filter(tasks__kind=Task.CONVERSATION).order_by("pk"))
    assert len(prompts) == 3
    assert {prompt.group_id for prompt in prompts} == {group_id(messages[:1])}
    assert len({split_of(prompt.group_id, talking.eval_share) for prompt in prompts}) == 1
    assert [turn.state for turn in conversation.turns.order_by("number")] == ["judged", "judged", "ready"]
    assert third.task.prompt.messages[:3] == messages


def test_two_conversations_that_begin_alike_share_prompt_and_group(conversation, talking, other_annotator):
    other = start_conversation(project=talking, annotator=other_annotator, client_key="x")
    first, second = generate(say(conversation, "Hello")), generate(say(other, "Hello"))
    assert first.task.prompt == second.task.prompt and first.task != second.task
    # Which speaker said which is drawn anew, so the completions may be the same rows or others with the same words.
    words = [set(lease.task.completions.values_list("content", flat=True)) for lease in (first, second)]
    assert words[0] == words[1] and len(words[0]) == 2


def test_of_equals_the_first_shown_goes_on(conversation):
    judge(generate(say(conversation, "Hello")), "ab")
    turn = settle(conversation)
    assert (turn.state, turn.continued_text) == (Turn.State.JUDGED, "One says this.")


def test_a_corrected_text_goes_on_in_its_corrected_words(conversation, talking):
    change_project(project=talking, form={**talking.form, "corrections": True})
    lease = generate(say(conversation, "Hello"))
    lease.task.project.refresh_from_db()
    judge(lease, "b", "a", corrections={"b": "Two says it better."})
    assert settle(conversation).continued_text == "Two says it better."
    assert messages_before(conversation, 2)[-1] == {"role": "assistant", "content": "Two says it better."}


def test_a_revised_judgement_changes_what_goes_on_until_something_was_said(conversation):
    lease = generate(say(conversation, "Hello"))
    judgement = judge(lease, "a", "b")
    assert settle(conversation).continued_text == "One says this."
    revised = revise_judgement(judgement=judgement, submission_key="r1", body={"ranking": [["b"], ["a"]]}).judgement
    assert settle(conversation).continued_text == "Two says that."
    say(conversation, "More")
    revise_judgement(judgement=revised, submission_key="r2", body={"ranking": [["a"], ["b"]]})
    settle(conversation)
    assert messages_before(conversation, 2)[-1]["content"] == "Two says that."


def test_both_bad_can_be_sampled_again_and_both_comparisons_stay(conversation):
    turn = say(conversation, "Hello")
    judge(generate(turn), "a", "b", none_acceptable=True)
    again = sample_again(turn=turn)
    assert (again.number, again.attempt, again.state) == (1, 2, Turn.State.GENERATING)
    assert sample_again(turn=turn) == again  # asked twice
    judge(generate(again, "Three", "Four"), "b", "a")
    assert Judgement.objects.count() == 2
    assert Prompt.objects.filter(source="conversation").count() == 1
    say(conversation, "And now?")
    assert [message["content"] for message in messages_before(conversation, 2)] == ["Hello", "Four"]


def test_after_both_bad_the_better_one_goes_on_by_saying_something(conversation):
    judge(generate(say(conversation, "Hello")), "b", "a", none_acceptable=True)
    turn = say(conversation, "Go on")
    assert turn.number == 2 and messages_before(conversation, 2)[-1]["content"] == "Two says that."


@pytest.mark.parametrize(
    ("texts", "problem"), [(("Same.", "Same. "), "equal"), (("", "Something"), "empty"), ((" \n", " "), "empty")]
)
def test_nothing_is_stored_where_there_is_nothing_to_compare(conversation, texts, problem):
    turn = say(conversation, "Hello")
    assert generate(turn, *texts) is None
    assert (turn.state, turn.problem) == (Turn.State.FAILED, problem)
    assert not Task.objects.exists() and not Completion.objects.exists()
    earlier = [one["seed"] for one in turn.speakers]
    again = sample_again(turn=turn)
    assert again.pk == turn.pk and again.state == Turn.State.GENERATING and again.content == "Hello"
    assert [one["seed"] for one in again.speakers] != earlier
    assert generate(again).state == "open"


def test_a_message_sent_twice_is_one_turn(conversation):
    turn = say(conversation, "Hello", "k1")
    assert say(conversation, "Hello", "k1") == turn
    with pytest.raises(KeyReused):
        say(conversation, "Something else", "k1")
    with pytest.raises(TurnOpen):
        say(conversation, "Hello again", "k2")
    generate(turn)
    assert say(conversation, "Hello", "k1") == turn
    with pytest.raises(TurnOpen):
        say(conversation, "Hello again", "k2")
    assert conversation.turns.count() == 1


def test_after_a_failure_another_message_takes_the_place_of_the_first(conversation):
    turn = say(conversation, "Helo")
    fail_turn(claim=claim_turn(turn_id=turn.pk, owner="x"), problem="unreachable", detail="server down")
    second = say(conversation, "Hello")
    assert (second.number, second.attempt) == (1, 2)
    with pytest.raises(NothingToRepeat):
        sample_again(turn=turn)


def test_a_comparison_passed_over_can_be_sampled_again(conversation):
    turn = say(conversation, "Hello")
    skip_lease(lease=generate(turn), reason="x")
    assert settle(conversation).problem == "skipped"
    assert generate(sample_again(turn=turn), "New", "Other").state == "open"


def test_a_conversation_has_so_many_turns_and_an_end(conversation, talking, annotator):
    Conversation.objects.filter(pk=conversation.pk).update(max_turns=1)
    conversation.refresh_from_db()
    judge(generate(say(conversation, "Hello")), "a", "b")
    with pytest.raises(ConversationOver):
        say(conversation, "One more")
    end_conversation(conversation=conversation, reason="said all")
    assert (conversation.state, conversation.ending) == ("ended", "said all")
    end_conversation(conversation=conversation, reason="again")
    assert conversation.ending == "said all"
    other = start_conversation(project=talking, annotator=annotator, client_key="other")
    turn = say(other, "Hello")
    end_conversation(conversation=other)
    turn.refresh_from_db()
    assert (turn.state, turn.problem) == ("failed", "stopped")
    with pytest.raises(ConversationOver):
        sample_again(turn=turn)


def test_paused_projects_and_those_without_conversations_begin_none(talking, annotator, conversation):
    change_project(project=talking, state="paused")
    with pytest.raises(NotSetUp):
        say(Conversation.objects.get(pk=conversation.pk), "Hello")
    change_project(project=talking, state="open")
    change_settings(project=talking, is_on=False)
    with pytest.raises(NotSetUp):
        start_conversation(project=talking, annotator=annotator, client_key="new")
    assert start_conversation(project=talking, annotator=annotator, client_key="first") == conversation


def test_nobody_keeps_the_model_busy_with_many_turns_at_once(talking, annotator):
    for number in range(MAX_GENERATING):
        say(start_conversation(project=talking, annotator=annotator, client_key=f"c{number}"), "Hello")
    with pytest.raises(TooMuchAtOnce):
        say(start_conversation(project=talking, annotator=annotator, client_key="one more"), "Hello")


def test_a_daily_cap_holds_for_conversations_too(talking, annotator, conversation):
    change_project(project=talking, bench={**talking.bench, "daily_cap": 1})
    judge(generate(say(conversation, "Hello")), "a", "b")
    with pytest.raises(TooMuchAtOnce):
        say(Conversation.objects.get(pk=conversation.pk), "More")


def test_a_conversation_may_begin_from_a_prompt_of_the_project(talking, annotator):
    factories.fill_project(talking, 2)
    change_settings(project=talking, opening="prompts", system="Be kind.")
    seen = {
        start_conversation(project=talking, annotator=annotator, client_key=f"p{number}").prompt for number in range(3)
    }
    assert len(seen - {None}) == 2  # each once
    found = Conversation.objects.get(client_key="p0")
    assert found.suggestion == found.prompt.messages[-1]["content"]
    assert found.opening == [{"role": "system", "content": "Be kind."}]
    lease = generate(say(found, found.suggestion))
    assert lease.task.prompt.group_id == found.prompt.group_id
    assert lease.task.prompt.messages[0]["role"] == "system"


# --- who generates --------------------------------------------------------------------------------
def test_only_one_process_generates_a_turn(conversation):
    turn = say(conversation, "Hello")
    assert turns_to_generate() == [turn.pk]
    claim = claim_turn(turn_id=turn.pk, owner="one")
    assert claim is not None and claim.messages == [{"role": "user", "content": "Hello"}]
    assert claim_turn(turn_id=turn.pk, owner="two") is None
    assert turns_to_generate() == []
    assert keep_claim(claim=claim, texts=["a", "b"]) is False
    request_stop(turn=turn)
    assert keep_claim(claim=claim, texts=["ab", "bc"]) is True


def test_a_turn_whose_process_died_is_taken_over_and_the_dead_one_can_write_nothing_more(conversation):
    turn = say(conversation, "Hello")
    old = claim_turn(turn_id=turn.pk, owner="one", at=now() - timedelta(minutes=1))
    assert turns_to_generate() == [turn.pk]
    new = claim_turn(turn_id=turn.pk, owner="two")
    assert new is not None and new.epoch > old.epoch
    for late in (
        lambda: keep_claim(claim=old, texts=["x", "y"]),
        lambda: fail_turn(claim=old, problem="cut"),
        lambda: finish_turn(claim=old, outcomes=[Outcome("x", "stop"), Outcome("y", "stop")]),
    ):
        with pytest.raises(ClaimLost):
            late()
    assert not Completion.objects.exists()
    assert finish_turn(claim=new, outcomes=[Outcome("x", "stop"), Outcome("y", "stop")]) is not None
    with pytest.raises(ClaimLost):
        finish_turn(claim=new, outcomes=[Outcome("x", "stop"), Outcome("y", "stop")])


def test_a_process_that_ends_gives_its_turns_back_at_once(conversation):
    turn = say(conversation, "Hello")
    claim = claim_turn(turn_id=turn.pk, owner="one")
    give_up_claim(claim=claim)
    assert isinstance(claim_turn(turn_id=turn.pk, owner="two"), Claim)


@pytest.mark.django_db(transaction=True)
def test_of_many_that_claim_or_send_at_once_one_wins(conversation):
    def attempt(number: int) -> object:
        try:
            return start_turn(
                conversation=Conversation.objects.get(pk=conversation.pk), content="Hi", client_key="same"
            ).pk
        finally:
            connection.close()

    def claim(number: int) -> object:
        try:
            return claim_turn(turn_id=Turn.objects.get().pk, owner=f"p{number}")
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as threads:
        assert len(set(threads.map(attempt, range(12)))) == 1
        assert sum(found is not None for found in threads.map(claim, range(12))) == 1


# --- settings -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"speakers": speakers("model-one")}, "speakers"),
        ({"speakers": "model-one"}, "speakers"),
        ({"speakers": [*speakers("model-one"), *speakers("model-one")]}, "speakers"),
        ({"speakers": [{**one, "server": "http://169.254.169.254/"} for one in speakers("a", "b")]}, "speakers"),
        ({"speakers": speakers("a", "b", url="http://evil.example")}, "speakers"),
        ({"speakers": speakers("a", "b", top_p=0)}, "speakers"),
        ({"speakers": speakers("a", "b", max_tokens=10**9)}, "speakers"),
        ({"speakers": [{**one, "temperature": float("nan")} for one in speakers("a", "b")]}, "speakers"),
        ({"speakers": [{**one, "temperature": "hot"} for one in speakers("a", "b")]}, "speakers"),
        ({"speakers": [{**one, "model": ""} for one in speakers("a", "b")]}, "speakers"),
        ({"is_on": True}, "speakers"),
        ({"max_turns": 0}, "max_turns"),
        ({"max_turns": 1000}, "max_turns"),
        ({"opening": "nonsense"}, "opening"),
        ({"note": "x" * 20_001}, "note"),
        ({"system": "\x00"}, "system"),
    ],
)
def test_settings_that_cannot_work_are_refused(project, servers, changes, field):
    with pytest.raises(BadSettings) as refusal:
        change_settings(project=project, **changes)
    assert list(refusal.value.fields) == [field]
    assert settings_of(project).pk is None


def test_conversations_need_a_form_that_says_which_is_better(project, servers):
    change_project(project=project, form={"ranking": False, "acceptable": True})
    with pytest.raises(BadSettings, match="ranking"):
        change_settings(project=project, is_on=True, speakers=speakers("a", "b"))


def test_the_same_model_at_two_temperatures_is_two_speakers(project, servers):
    both = speakers("model-one", "model-one")
    assert [one["temperature"] for one in both] == [0.3, 0.4]
    assert change_settings(project=project, is_on=True, speakers=both).is_on
