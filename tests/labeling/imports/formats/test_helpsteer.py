import pytest

from labeling.imports.formats import base
from tests.labeling.imports.formats.reading import contents, parts, rankings, reason, record, records

AXES = {"helpfulness": 4, "correctness": 3, "coherence": 4, "complexity": 1, "verbosity": 0}


def rated(prompt: str, response: str, **changes) -> dict:
    return {"prompt": prompt, "response": response, **AXES, **changes}


# --- main ---------------------------------------------------------------------------------------
def test_rows_of_one_prompt_are_one_record_with_a_rating_for_each_completion():
    found = records("helpsteer2", rated("p", "one"), rated("p", "two", helpfulness=1), rated("q", "three"))
    assert [contents(item) for item in found] == [["one", "two"], ["three"]]
    assert [item.line for item in found] == [1, 3]
    (vote,) = found[0].votes
    assert vote.judgement == {"ratings": {"a": AXES, "b": {**AXES, "helpfulness": 1}}}
    assert vote.annotator == ""


def test_a_bad_row_takes_the_other_of_its_prompt_with_it_and_no_more():
    found = parts("helpsteer2", rated("p", "one"), rated("p", ""), rated("q", "three"))
    assert [part.line for part in found] == [1, 2, 3]
    assert found[0].reason == found[1].reason == "response: must be a text that is not empty (line 2, of the rows of one prompt)"
    assert contents(found[2]) == ["three"]


def test_one_completion_given_twice_is_one():
    (found,) = records("helpsteer2", rated("p", "one"), rated("p", "one"))
    assert contents(found) == ["one"]


def test_more_rows_of_one_prompt_than_a_judgement_can_name_are_refused():
    assert "is the same in 27 rows" in reason("helpsteer2", *[rated("p", str(number)) for number in range(27)])


@pytest.mark.parametrize(
    "prompt",
    [
        "Hello\n<extra_id_1>Assistant\nHi\n<extra_id_1>User\nWhat is it?",
        "<extra_id_1>User\nHello\n<extra_id_1>Assistant\nHi\n<extra_id_1>User\nWhat is it?",
        "Hello\n<extra_id_1>\nHi\n<extra_id_1>\nWhat is it?",
    ],
)
def test_turns_behind_marks_are_messages(prompt):
    found = record("helpsteer2", rated(prompt, "one"))
    assert found.prompt == [
        {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "What is it?"}
    ]  # fmt: skip


def test_a_system_turn_is_kept_and_a_prompt_that_ends_with_the_assistant_refused():
    found = record("helpsteer2", rated("<extra_id_0>System\nBe kind.\n<extra_id_1>User\nHello", "one"))
    assert found.prompt[0] == {"role": "system", "content": "Be kind."}
    assert "last message must be the user's" in reason("helpsteer2", rated("Hello\n<extra_id_1>Assistant\nHi", "one"))


# --- preference ---------------------------------------------------------------------------------
PREFERENCE = {"split": "train", "prompt": "p", "response_1": "one", "response_2": "two", "preference_strength": -2}


def test_a_positive_strength_means_the_second():
    said = [record("helpsteer2_preference", {**PREFERENCE, "preference_strength": n}).votes[0].judgement for n in (-3, 1, 0)]
    assert said == [
        {"ranking": [["a"], ["b"]], "strength": 3}, {"ranking": [["b"], ["a"]], "strength": 1}, {"ranking": [["a", "b"]]}
    ]  # fmt: skip


def test_what_each_annotator_said_is_a_vote_of_its_own_where_the_row_holds_it():
    each = [{"strength": 1, "elaboration": "more", "statement": "s"}, {"strength": -3, "statement": "first"}, {"strength": 0}]
    found = record("helpsteer2_preference", {**PREFERENCE, "all_preferences_unprocessed": each})
    assert [vote.annotator for vote in found.votes] == ["annotator 1", "annotator 2", "annotator 3"]
    assert rankings(found) == [[["b"], ["a"]], [["a"], ["b"]], [["a", "b"]]]
    assert [vote.judgement.get("rationale") for vote in found.votes] == ["more", "first", None]


@pytest.mark.parametrize("strength", [None, 4, 1.5, "strong"])
def test_a_strength_off_the_scale_is_refused(strength):
    assert reason("helpsteer2_preference", {**PREFERENCE, "preference_strength": strength}).startswith("preference_strength: must be")


# --- HelpSteer3 ---------------------------------------------------------------------------------
THREE = {
    "domain": "code", "language": "python", "context": [{"role": "user", "content": "p"}], "response1": "one", "response2": "two",
    "overall_preference": 1,
    "individual_preference": [
        {"score": -1, "reasoning": "shorter", "feedback1": "x", "feedback2": "y"}, {"score": 0, "reasoning": ""}, {"score": 3},
    ],
}  # fmt: skip


def test_each_individual_preference_is_a_vote_and_zero_is_a_tie():
    found = record("helpsteer3", THREE)
    assert [vote.judgement for vote in found.votes] == [
        {"ranking": [["a"], ["b"]], "strength": 1, "rationale": "shorter"},
        {"ranking": [["a", "b"]]},
        {"ranking": [["b"], ["a"]], "strength": 3},
    ]
    assert found.tags == ["code", "python"]


def test_without_individual_preferences_the_overall_one_is_the_vote():
    found = record("helpsteer3", {**THREE, "individual_preference": []})
    assert [vote.judgement for vote in found.votes] == [{"ranking": [["b"], ["a"]], "strength": 1}]


def test_configurations_of_edits_are_refused_in_words():
    assert "only the configuration preference" in reason("helpsteer3", {"context": THREE["context"], "edited_response": "x"})


def test_rows_of_one_prompt_are_held_only_as_long_as_they_are_small(monkeypatch):
    monkeypatch.setattr(base, "MAX_GROUPED_CHARACTERS", 30)
    found = records("helpsteer2", *[rated("p", f"{number} " + "x" * 20) for number in range(5)])
    assert [len(item.completions) for item in found] == [2, 2, 1]
