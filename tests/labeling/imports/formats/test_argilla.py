import json

import pytest

from tests.labeling.imports.formats.reading import contents, rankings, reason, record

FIELDS = {"prompt": "Where is it?", "response1": "Here.", "response2": "There."}


def ranked(first: int, second: int) -> list[dict]:
    return [{"value": "response1", "rank": first}, {"value": "response2", "rank": second}]


def response(user: str, value, status: str = "submitted", **others) -> dict:
    values = {"preference": {"value": value}, **{name: {"value": given} for name, given in others.items()}}
    return {"values": values, "status": status, "user_id": user}


def raw(*responses: dict, **more) -> dict:
    return {"id": "r1", "fields": FIELDS, "responses": list(responses), **more}


# --- as the server gives them -------------------------------------------------------------------
def test_a_submitted_ranking_is_a_vote_with_its_ranks_whatever_the_order_of_the_list():
    found = record("argilla", raw(response("u1", ranked(2, 1)), response("u2", ranked(1, 2)[::-1]), response("u3", ranked(1, 1))))
    assert found.prompt == [{"role": "user", "content": "Where is it?"}]
    assert contents(found) == ["Here.", "There."]
    assert rankings(found) == [[["b"], ["a"]], [["a"], ["b"]], [["a", "b"]]]
    assert [vote.annotator for vote in found.votes] == ["u1", "u2", "u3"]
    assert found.external_id == "r1"


def test_drafts_and_what_was_discarded_are_no_votes():
    row = raw(response("u1", ranked(1, 2), "draft"), response("u2", ranked(1, 2)[:1], "draft"), {"values": None, "status": "discarded", "user_id": "u3"})
    found = record("argilla", row)
    assert (len(found.completions), found.votes) == (2, [])


def test_other_questions_are_ratings_of_the_completion_that_they_name_and_words():
    answers = {"helpfulness_response1": 4, "response2-helpfulness": 2, "overall": 3, "why": "because", "fixed": "yes"}
    (vote,) = record("argilla", raw(response("u1", ranked(1, 2), **answers))).votes
    assert vote.judgement == {
        "ranking": [["a"], ["b"]], "ratings": {"a": {"helpfulness": 4}, "b": {"helpfulness": 2}}, "rationale": "why: because\nfixed: yes"
    }  # fmt: skip


def test_a_label_may_name_the_better_one():
    (vote,) = record("argilla", raw(response("u1", "response2"))).votes
    assert vote.judgement == {"ranking": [["b"], ["a"]]}


def test_of_one_completion_ratings_need_not_name_it_and_labels_are_flags():
    row = {"fields": {"prompt": "p", "response": "r"}, "responses": [{"values": {"tone": {"value": 3}, "issues": {"value": ["unsafe"]}}, "user_id": "u"}]}
    (vote,) = record("argilla", row).votes
    assert vote.judgement == {"ratings": {"a": {"tone": 3}}, "flags": {"a": ["unsafe"]}}


def test_chats_are_prompts_and_options_say_which_field_is_what():
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Where?"}]
    row = raw(fields={"talk": chat, "notes": "x", "first": "Here.", "second": "There."})
    assert "name it by the option prompt" in reason("argilla", row)
    found = record("argilla", row, prompt="talk", completions="first, second")
    assert (len(found.prompt), contents(found)) == (3, ["Here.", "There."])
    assert "has no 'third', which the option completions names" in reason("argilla", row, completions="third")


def test_suggestions_are_votes_of_what_made_them_only_if_asked_for():
    suggestions = [{"question_name": "preference", "value": ranked(2, 1), "score": 0.9, "agent": "judge@1", "type": "model"}]
    row = raw(response("u1", ranked(1, 2)), suggestions=suggestions)
    assert len(record("argilla", row).votes) == 1
    _, suggested = record("argilla", row, suggestions="votes").votes
    assert (suggested.annotator, suggested.kind, suggested.judgement) == ("judge@1", "model", {"ranking": [["b"], ["a"]]})


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (ranked(1, 2)[:1], "preference: does not rank the completions response1, response2"),
        ([{"value": "response1"}, {"value": "response2"}], "ranking: must name every option once, with its rank"),
        ([*ranked(1, 2), {"value": "response1", "rank": 3}], "ranking: must name every option once"),
    ],
)
def test_a_submitted_ranking_has_to_be_whole(value, why):
    assert why in reason("argilla", raw(response("u1", ranked(1, 2)), response("u2", value)))


# --- as the SDK writes them ---------------------------------------------------------------------
def test_nested_records_are_put_together_by_person():
    row = {
        "id": "r1", "fields": FIELDS, "metadata": {}, "suggestions": {}, "vectors": {}, "status": "completed", "_server_id": "x",
        "responses": {
            "preference": [{"value": ranked(1, 2), "user_id": "u1"}, {"value": ranked(2, 1), "user_id": "u2"}],
            "tone_response1": [{"value": 5, "user_id": "u2"}],
        },
    }  # fmt: skip
    first, second = record("argilla", row).votes
    assert (first.annotator, first.judgement) == ("u1", {"ranking": [["a"], ["b"]]})
    assert (second.annotator, second.judgement) == ("u2", {"ranking": [["b"], ["a"]], "ratings": {"a": {"tone": 5}}})


def test_the_flat_export_has_lost_its_ranks_and_is_refused_where_it_needs_them():
    flat = {"id": "r1", "status": "completed", "_server_id": "x", **FIELDS}
    ranking = {"preference.responses": [["response2", "response1"]], "preference.responses.users": ["u1"], "preference.responses.status": ["submitted"]}
    assert "preference.responses: has lost its ranks" in reason("argilla", flat | ranking)
    rating = {"tone_response1.responses": [4, 5], "tone_response1.responses.users": ["u1", "u2"], "tone_response1.responses.status": ["submitted", "draft"]}
    (vote,) = record("argilla", flat | rating).votes
    assert (vote.annotator, vote.judgement) == ("u1", {"ratings": {"a": {"tone": 4}}})


# --- 1.x on the Hub -----------------------------------------------------------------------------
@pytest.mark.parametrize("as_columns", [False, True])
def test_old_sets_of_the_hub_keep_their_ranks(as_columns):
    said = [
        {"user_id": "u1", "value": {"rank": [2, 1], "value": ["response1", "response2"]}, "status": "submitted"},
        {"user_id": "u2", "value": {"rank": [1, 2], "value": ["response1", "response2"]}, "status": "discarded"},
    ]
    preference = {key: [item[key] for item in said] for key in said[0]} if as_columns else said
    row = {
        **FIELDS, "preference": preference, "preference-suggestion": {"rank": [1], "value": ["response1"]},
        "preference-suggestion-metadata": {"type": "model", "score": None, "agent": "x"}, "external_id": "e1", "metadata": "{}",
    }  # fmt: skip
    found = record("argilla", row)
    assert (rankings(found), found.votes[0].annotator, found.external_id) == ([[["b"], ["a"]]], "u1", "e1")


def test_parts_may_come_as_text():
    row = raw(response("u1", ranked(1, 2)))
    found = record("argilla", {**row, "fields": json.dumps(row["fields"]), "responses": json.dumps(row["responses"])})
    assert rankings(found) == [[["a"], ["b"]]]
