from datetime import UTC, datetime

import pytest

from labeling.imports.records import Text
from tests.labeling.imports.formats.reading import contents, rankings, reason, record

ASKED = {"role": "user", "content": "Which colour is the sky?"}
BLUE = {"role": "assistant", "content": "Blue."}
GREEN = {"role": "assistant", "content": "Green."}
MORE = {"role": "user", "content": "And at night?"}


# --- preference ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Which colour is the sky?", "chosen": "Blue.", "rejected": "Green."},
        {"prompt": [ASKED], "chosen": [BLUE], "rejected": [GREEN]},
        {"chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]},
        # What UltraFeedback's derivatives do: the prompt beside both, and in them.
        {"prompt": "Which colour is the sky?", "chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]},
        # CSV has texts only.
        {"prompt": '[{"role": "user", "content": "Which colour is the sky?"}]', "chosen": '[{"role": "assistant", "content": "Blue."}]',
         "rejected": '[{"role": "assistant", "content": "Green."}]'},
        {"chosen": "\n\nHuman: Which colour is the sky?\n\nAssistant: Blue.", "rejected": "\n\nHuman: Which colour is the sky?\n\nAssistant: Green."},
        {"prompt": "\n\nHuman: Which colour is the sky?\n\nAssistant:", "chosen": "Blue.", "rejected": "Green."},
        {"prompt": "User: Which colour is the sky?\n\nAssistant:", "chosen": " Blue.", "rejected": " Green."},
    ],
)  # fmt: skip
def test_every_way_of_writing_a_preference_gives_the_same(row):
    found = record("preference", row)
    assert found.prompt == [ASKED]
    assert contents(found) == ["Blue.", "Green."]
    assert rankings(found) == [[["a"], ["b"]]]
    assert (found.votes[0].annotator, found.votes[0].kind) == ("", "human")


def test_texts_without_a_prompt_share_whole_words():
    found = record("preference", {"chosen": "The sky is blue.", "rejected": "The sky is blooming."})
    assert found.prompt == [{"role": "user", "content": "The sky is"}]
    assert contents(found) == ["blue.", "blooming."]
    assert reason("preference", {"chosen": "Yes.", "rejected": "No."}) == "prompt: is missing, and chosen and rejected do not begin alike"


def test_a_system_message_and_earlier_turns_belong_to_the_prompt():
    before = [{"role": "system", "content": "Be kind."}, ASKED, BLUE, MORE]
    found = record("preference", {"chosen": [*before, BLUE], "rejected": [*before, GREEN]})
    assert found.prompt == before
    assert contents(found) == ["Blue.", "Green."]


def test_conversations_that_part_early_are_compared_where_they_part():
    row = {"chosen": [ASKED, BLUE, MORE, GREEN], "rejected": [ASKED, GREEN, MORE, BLUE]}
    found = record("preference", row)
    assert (found.prompt, contents(found)) == ([ASKED], ["Blue.", "Green."])
    assert reason("preference", row, early="reject") == "chosen and rejected: part in turn 2, before the last one"


def test_margins_scores_and_ties_are_kept():
    found = record("preference", {"prompt": "x", "chosen": "y", "rejected": "z", "margin": "1.5", "chosen_score": 8, "rejected_score": 6.5})
    assert found.votes[0].judgement["ratings"] == {"a": {"score": 8, "margin": 1.5}, "b": {"score": 6.5, "margin": 0}}
    for tied in ({"tie": True, "margin": None, "strength": 2}, {"soft_label": 0.5, "margin": 0.0}):
        tie = record("preference", {"prompt": "x", "chosen": "y", "rejected": "z", **tied})
        assert tie.votes[0].judgement == {"ranking": [["a", "b"]]}
    assert rankings(record("preference", {"prompt": "x", "chosen": "y", "rejected": "z", "soft_label": 0.8})) == [[["a"], ["b"]]]


def test_what_a_row_says_of_its_origin_is_kept():
    row = {
        "prompt": "x", "chosen": "y", "rejected": "z", "annotator": "ann", "annotator_kind": "model", "at": 1763712000, "strength": "2",
        "chosen_model": "m@1", "id": "r1", "source": "desk", "license": "MIT", "tags": "a,b", "group_id": "g", "rationale": " why ",
    }  # fmt: skip
    found = record("preference", row)
    (vote,) = found.votes
    assert vote.judgement == {"ranking": [["a"], ["b"]], "strength": 2, "rationale": "why"}
    assert (vote.annotator, vote.kind, vote.at) == ("ann", "model", datetime(2025, 11, 21, 8, tzinfo=UTC))
    assert found.completions == [Text("y", "m@1"), Text("z")]
    assert (found.external_id, found.source, found.licence, found.tags, found.group) == ("r1", "desk", "MIT", ["a", "b"], "g")


def test_columns_of_others_that_hold_something_else_are_left_alone():
    row = {"prompt": "x", "chosen": "y", "rejected": "z", "source": {"name": "x"}, "tags": {"a": 1}, "id": [1], "weight": 3}
    found = record("preference", row)
    assert (found.source, found.tags, found.external_id) == ("", [], "")


def test_a_whole_set_can_be_said_to_be_judged_by_a_model():
    row = {"prompt": "x", "chosen": "y", "rejected": "z"}
    assert record("preference", row, annotator_kind="model").votes[0].kind == "model"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"chosen": None}, "chosen: must be a text that is not empty"),
        ({"chosen": ""}, "chosen: must be a text that is not empty"),
        ({"chosen": []}, "chosen: must be a text or a list of messages that is not empty"),
        ({"rejected": "Blue."}, "chosen and rejected: are the same text, so that none can be the better one"),
        ({"chosen": [BLUE, GREEN], "rejected": "x"}, "chosen: must be one message of the assistant, this has 2"),
        ({"chosen": [ASKED], "rejected": [GREEN]}, "chosen[0].role: must be assistant"),
        ({"chosen": [ASKED, BLUE], "rejected": [MORE, GREEN]}, "differ in turn 1, which is not the assistant's in both"),
        ({"chosen": [ASKED, BLUE, MORE], "rejected": [ASKED, BLUE]}, "one ends where the other goes on"),
        ({"prompt": [ASKED, BLUE]}, "prompt: the last message must be the user's"),
        ({"prompt": [{"role": "tool", "content": "x"}]}, "prompt[0]: is a call of a tool or its result"),
        ({"chosen": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]}, "chosen[0]: is a call of a tool"),
        ({"chosen": [{"role": "assistant", "content": [{"type": "image"}]}]}, "chosen[0].content: holds a part that is not text"),
        ({"margin": "wide"}, "margin: must be a number, not 'wide'"),
        ({"strength": 5}, "strength: must be 1"),
        ({"tie": "perhaps"}, "tie: must be true or false"),
        ({"at": "1e400"}, "at"),
        ({"prompt": "Another question?", "chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]}, "does not begin with prompt"),
    ],
)
def test_a_preference_that_is_not_one_is_refused_with_the_field_that_is_wrong(changes, why):
    row = {"prompt": "Which colour is the sky?", "chosen": "Blue.", "rejected": "Green.", **changes}
    assert why in reason("preference", row)


def test_roles_by_other_names_parts_of_text_and_empty_system_messages_are_understood():
    row = {
        "prompt": [{"role": "system", "content": ""}, {"from": "human", "value": "Hi"}, {"role": "bot", "content": "Hello"},
                   {"role": "prompter", "content": [{"type": "text", "text": "Well?"}]}],
        "chosen": [{"role": "gpt", "content": "Fine."}], "rejected": [{"role": "Assistant", "content": "Bad."}],
    }  # fmt: skip
    found = record("preference", row)
    assert [message["role"] for message in found.prompt] == ["user", "assistant", "user"]
    assert found.prompt[-1]["content"] == "Well?"


# --- unpaired -----------------------------------------------------------------------------------
@pytest.mark.parametrize(("label", "said"), [(True, True), (False, False), ("yes", True), ("0", False), (1, True)])
def test_a_label_says_whether_the_completion_is_acceptable(label, said):
    found = record("unpaired", {"prompt": [ASKED], "completion": [BLUE], "label": label, "model": "m@1"})
    assert found.votes[0].judgement == {"acceptable": {"a": said}}
    assert found.completions == [Text("Blue.", "m@1")]


def test_a_label_must_be_one():
    row = {"prompt": "x", "completion": "y"}
    assert reason("unpaired", row) == "label: must be true or false"
    assert reason("unpaired", {**row, "label": 0.7}) == "label: must be true or false"


@pytest.mark.parametrize("format", ["unpaired", "sft"])
def test_stepwise_supervision_is_refused_in_words(format):
    row = {"prompt": "x", "completions": ["s1", "s2"], "labels": [True, False]}
    assert "steps of one solution" in reason(format, row)


# --- supervised ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "row",
    [
        {"messages": [ASKED, BLUE]},
        {"prompt": [ASKED], "completion": [BLUE]},
        {"prompt": "Which colour is the sky?", "completion": "Blue."},
        # A table has every column in every row.
        {"prompt": "Which colour is the sky?", "completion": "Blue.", "messages": "", "model": "", "annotator_kind": "", "at": ""},
        {"conversations": [{"from": "human", "value": "Which colour is the sky?"}, {"from": "gpt", "value": "Blue."}]},
    ],
)
def test_a_conversation_that_ends_with_the_assistant_is_a_prompt_with_a_completion(row):
    found = record("sft", row)
    assert (found.prompt, contents(found), found.votes) == ([ASKED], ["Blue."], [])


def test_what_an_annotator_wrote_is_a_demonstration():
    found = record("sft", {"messages": [ASKED, BLUE], "source": "correction", "annotator": "p1", "annotator_kind": "simulated"})
    assert (found.completions, found.source) == ([], "")
    (vote,) = found.votes
    assert (vote.judgement, vote.annotator, vote.kind) == ({"demonstration": "Blue."}, "p1", "simulated")
    whole = record("sft", {"messages": [ASKED, BLUE], "source": "desk"}, **{"as": "demonstration"})
    assert (whole.votes[0].judgement, whole.source) == ({"demonstration": "Blue."}, "desk")


def test_our_own_best_completions_stay_completions_of_their_model():
    found = record("sft", {"messages": [ASKED, BLUE], "source": "best", "model": "m@1", "annotator": None, "group_id": "g"})
    assert (found.completions, found.group, found.source) == ([Text("Blue.", "m@1")], "g", "")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"messages": [ASKED]}, "messages: must end with the assistant's message"),
        ({"messages": [BLUE]}, "messages: must end with the assistant's message, and hold the user's before it"),
        ({"messages": [ASKED, BLUE, GREEN]}, "messages: the message before the last must be the user's"),
        ({"text": "The sky is blue."}, "text: is one text without a prompt"),
        ({"prompt": "x"}, "completion: must be a text that is not empty"),
    ],
)
def test_what_cannot_be_imitated_is_refused(row, why):
    assert why in reason("sft", row)
