import pytest

from tests.labeling.imports.formats.reading import contents, rankings, reason, record

START = "\n\nHuman: Hello\n\nAssistant: Hi\n\nHuman: Which colour is the sky?"


def pair(chosen: str, rejected: str) -> dict[str, str]:
    return {"chosen": chosen, "rejected": rejected}


def test_a_transcript_is_split_at_its_marks_and_the_last_turns_are_compared():
    found = record("hh_rlhf", pair(f"{START}\n\nAssistant: Blue.\n\nMostly.", f"{START}\n\nAssistant: Green."))
    assert found.prompt == [
        {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "Which colour is the sky?"},
    ]  # fmt: skip
    assert contents(found) == ["Blue.\n\nMostly.", "Green."]
    assert rankings(found) == [[["a"], ["b"]]]


def test_turns_are_kept_to_the_last_space():
    row = pair("\n\nHuman:  one \n\nAssistant:  two ", "\n\nHuman:  one \n\nAssistant: three")
    found = record("hh_rlhf", row)
    assert found.prompt[0]["content"] == " one "
    assert contents(found) == [" two ", "three"]


def test_pairs_that_part_early_are_compared_at_the_first_turn_that_differs():
    row = pair(
        "\n\nHuman: Hello\n\nAssistant: Hi\n\nHuman: How are you?\n\nAssistant: Fine.",
        "\n\nHuman: Hello\n\nAssistant: Go away\n\nHuman: Why?\n\nAssistant: Because.",
    )
    found = record("hh_rlhf", row)
    assert (len(found.prompt), contents(found)) == (1, ["Hi", "Go away"])
    assert "part in turn 2, before the last one" in reason("hh_rlhf", row, early="reject")


@pytest.mark.parametrize(
    ("chosen", "rejected", "why"),
    [
        (f"{START}\n\nAssistant: Blue.", f"{START}\n\nAssistant: Blue.", "are the same text"),
        (f"{START}\n\nAssistant: Blue.", START, "one ends where the other goes on"),
        (f"{START}\n\nAssistant: Blue.", f"{START} Say!\n\nAssistant: Blue.", "differ in turn 3, which is not the assistant's"),
        (f"{START}\n\nAssistant: Blue.", f"{START}\n\nAssistant:", "rejected: must be a text that is not empty"),
        (f"{START}\n\nAssistant:\n\nHuman: What?\n\nAssistant: Blue.", START, "chosen: turn 4 is empty"),
        ("Assistant: Blue.", "Assistant: Green.", "share no prompt"),
        ("Blue.", "Green.", r"chosen: must begin with a turn, such as \n\nHuman:"),
        ("", "x", "chosen: must be a text that is not empty"),
        ("\n\nHuman: a\x00\n\nAssistant: b", "x", "NUL"),
        (f"{START}\n\nAssistant: Well\n\nAssistant: Blue.", f"{START}\n\nAssistant: Well\n\nAssistant: No.", "does not end with the user's"),
    ],
)
def test_transcripts_that_cannot_be_compared_are_refused_with_the_reason(chosen, rejected, why):
    assert why in reason("hh_rlhf", pair(chosen, rejected))


def test_a_red_team_attempt_holds_nothing_to_compare():
    assert "chosen: is missing; a transcript alone" in reason("hh_rlhf", {"transcript": START, "rating": 3})
