import json

import pytest

from labeling.imports.formats import FORMATS, BadOptions
from tests.labeling.imports.formats.reading import contents, rankings, reason, record

ITEM = {"prompt": "Where is it?", "items": ["Here.", "There."]}
ROW = {"instance_id": "q1", "annotator": "ann", "timestamp": 1763712000, **ITEM}


@pytest.mark.parametrize(("selection", "ranking"), [("A", [["a"], ["b"]]), ("B", [["b"], ["a"]]), ("tie", [["a", "b"]])])
def test_a_choice_between_two(selection, ranking):
    found = record("potato", {**ROW, "preference": {"selection": selection}})
    assert contents(found) == ["Here.", "There."]
    (vote,) = found.votes
    assert (vote.judgement, vote.annotator) == ({"ranking": ranking}, "ann")
    assert vote.at.isoformat() == "2025-11-21T08:00:00+00:00"
    assert found.external_id == "q1"


@pytest.mark.parametrize(
    ("value", "judgement"),
    [
        ("-2", {"ranking": [["a"], ["b"]], "strength": 2}),
        ("0", {"ranking": [["a", "b"]]}),
        ("7", {"ranking": [["b"], ["a"]]}),
    ],
)
def test_a_scale_is_negative_for_the_left(value, judgement):
    assert record("potato", {**ROW, "scale": {"scale_value": value}}).votes[0].judgement == judgement


def test_dimensions_are_ratings_and_one_of_them_may_be_the_ranking():
    said = {"helpfulness": "A", "safety": "tie", "overall": "B", "justification": json.dumps({"reasons": ["short"], "rationale": "and clear"})}
    (vote,) = record("potato", {**ROW, "dims": said}).votes
    assert vote.judgement == {
        "ranking": [["b"], ["a"]],
        "ratings": {"a": {"helpfulness": 1.0, "safety": 0.5, "overall": 0.0}, "b": {"helpfulness": 0.0, "safety": 0.5, "overall": 1.0}},
        "rationale": "short; and clear",
    }
    (vote,) = record("potato", {**ROW, "dims": said}, overall="helpfulness").votes
    assert vote.judgement["ranking"] == [["a"], ["b"]]


def test_an_order_has_ties():
    row = {**ROW, "items": ["one", "two", "three", "four"], "order": {"rank_order": "B,D=A,C"}}
    assert rankings(record("potato", row)) == [[["b"], ["d", "a"], ["c"]]]


def test_answers_may_lie_in_annotations():
    assert rankings(record("potato", {**ROW, "annotations": {"preference": {"selection": "B"}}})) == [[["b"], ["a"]]]


def test_texts_are_joined_by_the_id_of_the_item():
    answer = {"instance_id": "q1", "user": "ann", "preference": {"selection": "A"}}
    items = json.dumps({"id": "q1", **ITEM}) + "\n\n" + json.dumps({"id": 2, "text": "p", "responses": ["x", "y"]})
    assert contents(record("potato", answer, items=items)) == ["Here.", "There."]
    as_list = json.dumps([{"id": 2, "text": "p", "answers_shown": [{"text": "x", "model": "m@1"}, {"text": "y"}]}])
    found = record("potato", {**answer, "instance_id": 2}, items=as_list, items_key="answers_shown")
    assert (contents(found), found.completions[0].model) == (["x", "y"], "m@1")
    assert "item 'q1' is not in the option items" in reason("potato", answer, items=as_list)
    assert "give the items by the option items" in reason("potato", answer)


def test_exported_pairs_name_a_letter():
    row = {"instance_id": "q1", "prompt": "Where is it?", "chosen": "B", "annotator": "ann"}
    found = record("potato", row, items=json.dumps({"id": "q1", **ITEM}))
    assert rankings(found) == [[["b"], ["a"]]]


def test_texts_may_stand_in_columns_side_by_side():
    row = {"id": "q1", "prompt": "p", "response_b": "two", "response_a": "one", "preference": {"selection": "A"}}
    assert contents(record("potato", row)) == ["one", "two"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, "annotations: none says which item is better"),
        ({"preference": {"selection": "C"}}, "preference.selection: must be A, B or tie, not 'C'"),
        ({"preference": {"scale_value": "far left"}}, "preference.scale_value: must be a number"),
        ({"preference": {"rank_order": "A"}}, "preference.rank_order: must name each of the 2 completions once"),
        ({"preference": {"selection": "A"}, "items": []}, "items: must be a list of texts"),
        ({"preference": {"selection": "A"}, "items": ["x", ""]}, "items[1]: must be a text that is not empty"),
        ({"preference": {"scale_value": "1"}, "items": ["x", "y", "z"]}, "says which of two is better, and this item has 3"),
    ],
)
def test_answers_that_cannot_be_read_are_refused_with_the_place(changes, why):
    assert why in reason("potato", {**ROW, **changes})


@pytest.mark.parametrize(("items", "why"), [("{", "line 1 is not JSON"), ("[3]", "item 1: must be an object with an id"), ('{"x": 1}', "item 1"), ("[", "is not JSON")])
def test_items_that_cannot_be_read_are_refused_at_once(items, why):
    with pytest.raises(BadOptions, match=why):
        FORMATS["potato"].records([], {"items": items})
