from datetime import UTC, datetime

import pytest

from tests.labeling.imports.formats.reading import contents, reason, record


def said(*texts: str) -> list[dict]:
    return [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 4, texts, strict=False)]


ROW = {
    "question_id": "q1", "model_a": "alpaca", "model_b": "koala", "winner": "model_b", "judge": "arena_user_1", "turn": 1, "anony": True,
    "conversation_a": said("Hello", "Hi"), "conversation_b": said("Hello", "Good day"), "language": "English", "tstamp": 1682351591.1322,
    "openai_moderation": {"flagged": False}, "toxic_chat_tag": {"roberta-large": {"flagged": False}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("winner", "judgement"),
    [
        ("model_a", {"ranking": [["a"], ["b"]]}),
        ("model_b", {"ranking": [["b"], ["a"]]}),
        ("tie", {"ranking": [["a", "b"]]}),
        ("tie (bothbad)", {"ranking": [["a", "b"]], "none_acceptable": True}),
        ("both_bad", {"ranking": [["a", "b"]], "none_acceptable": True}),
        ("koala", {"ranking": [["b"], ["a"]]}),
    ],
)
def test_every_verdict_is_read(winner, judgement):
    assert record("arena", {**ROW, "winner": winner}).votes[0].judgement == judgement


def test_the_judge_is_the_annotator_and_saw_a_on_the_left():
    found = record("arena", ROW)
    (vote,) = found.votes
    assert (vote.annotator, vote.kind, vote.order_shown) == ("arena_user_1", "human", ["a", "b"])
    assert vote.at == datetime(2023, 4, 24, 15, 53, 11, 132200, tzinfo=UTC)
    assert [item.model for item in found.completions] == ["alpaca", "koala"]
    assert (found.external_id, found.tags) == ("q1", ["English"])


@pytest.mark.parametrize(("judge", "annotator", "kind"), [("[deleted]", "", "human"), (None, "", "human"), ("gpt4_pair", "gpt4_pair", "model")])
def test_judges_who_are_gone_have_no_name_and_models_are_no_people(judge, annotator, kind):
    (vote,) = record("arena", {**ROW, "judge": judge}).votes
    assert (vote.annotator, vote.kind) == (annotator, kind)


def test_of_threads_that_differ_after_turn_one_only_that_turn_is_compared():
    row = {**ROW, "conversation_a": said("Hello", "Hi", "Why?", "So"), "conversation_b": said("Hello", "Good day", "Why?", "No")}
    found = record("arena", row)
    assert (len(found.prompt), contents(found)) == (1, ["Hi", "Good day"])
    assert "part in turn 2" in reason("arena", row, early="reject")


def test_threads_alike_but_for_the_last_turn_are_compared_there():
    row = {**ROW, "conversation_a": said("Hello", "Hi", "Why?", "So"), "conversation_b": said("Hello", "Hi", "Why?", "No")}
    found = record("arena", row)
    assert (len(found.prompt), contents(found)) == (3, ["So", "No"])


def test_two_models_that_said_the_same_can_only_tie():
    row = {**ROW, "conversation_b": ROW["conversation_a"]}
    assert "conversation_a and conversation_b: are the same text" in reason("arena", row)
    assert contents(record("arena", {**row, "winner": "tie"})) == ["Hi", "Hi"]


def test_replies_that_say_who_wrote_them_and_flagged_ones_can_be_left_out():
    row = {**ROW, "conversation_a": said("Hello", "I am Vicuna, trained by LMSYS.")}
    assert len(record("arena", row).completions) == 2
    assert "says who wrote it" in reason("arena", row, identities="reject")
    row = {**ROW, "openai_moderation": {"flagged": True}}
    assert len(record("arena", row).completions) == 2
    assert "openai_moderation" in reason("arena", row, flagged="reject")


def test_a_winner_in_three_columns_is_read_too():
    row = {name: value for name, value in ROW.items() if name != "winner"} | {"winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}
    assert record("arena", row).votes[0].judgement["ranking"] == [["b"], ["a"]]


def test_what_is_none_is_refused():
    assert reason("arena", {**ROW, "winner": "nobody"}) == "winner: must be model_a, model_b, tie or tie (bothbad), not 'nobody'"
    assert "conversation_b: must be a text or a list of messages" in reason("arena", {**ROW, "conversation_b": None})
    assert "raw server log" in reason("arena", {"tstamp": 1, "type": "leftvote", "models": ["a", "b"], "states": [{}, {}]})


# --- WebGPT -------------------------------------------------------------------------------------
WEBGPT = {
    "question": {"dataset": "eli5", "id": "q1", "full_text": "p"}, "quotes_0": {"title": ["t"], "extract": ["e"]},
    "answer_0": "one", "tokens_0": {}, "score_0": -0.5, "answer_1": "two", "score_1": 0.5,
}  # fmt: skip


def test_the_higher_score_wins_and_zero_is_a_tie():
    found = record("webgpt", WEBGPT)
    assert found.votes[0].judgement == {"ranking": [["b"], ["a"]], "ratings": {"a": {"score": -0.5}, "b": {"score": 0.5}}}
    assert (found.external_id, found.tags) == ("q1", ["eli5"])
    tie = record("webgpt", {**WEBGPT, "score_0": 0.0, "score_1": 0.0})
    assert tie.votes[0].judgement["ranking"] == [["a", "b"]]


def test_a_comparison_without_a_score_or_an_answer_is_refused():
    assert reason("webgpt", {**WEBGPT, "score_1": None}) == "score_1: must be a number"
    assert reason("webgpt", {**WEBGPT, "answer_0": ""}) == "answer_0: must be a text that is not empty"
