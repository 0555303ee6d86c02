import pytest

from labeling.imports.formats.checks import RowRejected
from labeling.imports.formats.choices import choice_of, order_of
from tests.labeling.imports.formats.reading import contents, rankings, reason, record

ROW = {"prompt": "Where is it?", "completion_a": "Here.", "completion_b": "There.", "winner": "b", "annotator": "ann"}
THREE = {**ROW, "completion_c": "Nowhere.", "winner": None}


@pytest.mark.parametrize("said", ["a", "A", " a ", "1", 1, 1.0, "left", "first", "model_a", "Response A", "A is better", "answer 1", "completion_a", "m@1"])
def test_the_first_is_called_by_many_names(said):
    assert rankings(record("comparison", {**ROW, "winner": said, "model_a": "m@1"})) == [[["a"], ["b"]]]


@pytest.mark.parametrize("said", ["tie", "Tie", "0", 0, "equal", "both good", "no preference", "same"])
def test_a_tie_is_called_by_many_names(said):
    assert rankings(record("comparison", {**ROW, "winner": said})) == [[["a", "b"]]]


@pytest.mark.parametrize("said", ["both bad", "tie (bothbad)", "both_bad", "neither is good"])
def test_two_bad_ones_tie_and_none_is_acceptable(said):
    assert record("comparison", {**ROW, "winner": said}).votes[0].judgement == {"ranking": [["a", "b"]], "none_acceptable": True}


@pytest.mark.parametrize("said", ["c", "3", 3, -1, "-1", "maybe", "a or b", True, 1.5, float("inf"), 10**30, ["a"], "²", "m@1"])
def test_what_names_neither_is_refused(said):
    why = reason("comparison", {**ROW, "winner": said, "model_a": "m@1", "model_b": "m@1"})
    assert why.startswith("winner: must name a completion, such as a, 1 or its model, or tie, not ")


def test_numbers_may_count_from_0():
    assert rankings(record("comparison", {**ROW, "winner": 0}, first="0")) == [[["a"], ["b"]]]
    assert rankings(record("comparison", {**ROW, "winner": "1"}, first="0")) == [[["b"], ["a"]]]


def test_a_row_says_who_said_so_and_how_sure():
    row = {**ROW, "strength": "3", "rationale": "clear", "model_a": "m@1", "score_a": "7", "score_b": 2.5, "at": "2026-11-21"}
    (vote,) = record("comparison", row).votes
    assert vote.judgement == {
        "ranking": [["b"], ["a"]], "strength": 3, "ratings": {"a": {"score": 7}, "b": {"score": 2.5}}, "rationale": "clear"
    }  # fmt: skip
    assert (vote.annotator, vote.at.isoformat()) == ("ann", "2026-11-21T00:00:00+00:00")


@pytest.mark.parametrize("order", ["C,A=B", "c > a = b", '[["c"], ["a", "b"]]', [["c"], ["a", "b"]], "C ; A~B"])
def test_an_order_of_three_is_written_in_many_ways(order):
    assert rankings(record("comparison", {**THREE, "ranking": order})) == [[["c"], ["a", "b"]]]


@pytest.mark.parametrize("order", ["A,B", "A,B,C,D", "A,A,B,C", "best first", [[]], [1, 2, 3], {"a": 1}])
def test_an_order_must_name_each_once(order):
    assert reason("comparison", {**THREE, "ranking": order}).startswith("ranking: ")


def test_ranks_and_signed_scales_rank_too():
    assert rankings(record("comparison", {**THREE, "rank_a": 2, "rank_b": "1", "rank_c": 2})) == [[["b"], ["a", "c"]]]
    scale = record("comparison", {**ROW, "winner": "", "scale": "-2"})
    assert scale.votes[0].judgement == {"ranking": [["a"], ["b"]], "strength": 2}
    assert reason("comparison", {**THREE, "rank_a": 1}) == "rank: every completion needs one"
    assert "says which of two is better" in reason("comparison", {**THREE, "scale": 1})


def test_of_three_the_others_tie_behind_the_winner():
    assert rankings(record("comparison", {**THREE, "winner": "c"})) == [[["c"], ["a", "b"]]]


def test_a_letter_that_a_row_leaves_out_is_not_counted():
    row = {**ROW, "completion_c": "", "completion_d": "Behind you.", "winner": "d"}
    found = record("comparison", row)
    assert contents(found) == ["Here.", "There.", "Behind you."]
    assert rankings(found) == [[["c"], ["a", "b"]]]
    assert rankings(record("comparison", {**row, "winner": "", "ranking": "d,b,a"})) == [[["c"], ["b"], ["a"]]]


def test_columns_may_each_hold_one_annotators_winner():
    row = {**ROW, "winner": None, "ann": "a", "bob": "tie", "cem": "  "}
    found = record("comparison", row, annotators="ann, bob, cem")
    assert [(vote.annotator, vote.judgement["ranking"]) for vote in found.votes] == [("ann", [["a"], ["b"]]), ("bob", [["a", "b"]])]
    assert reason("comparison", {**row, "bob": "?"}, annotators="ann,bob").startswith("bob: must name a completion")


def test_a_row_that_nobody_judged_yet_is_taken_without_a_vote():
    assert record("comparison", {**ROW, "winner": ""}).votes == []


def test_both_completions_are_needed_and_may_not_be_the_same():
    assert reason("comparison", {**ROW, "completion_b": ""}) == "completion_b: must be a text that is not empty"
    assert "are the same text" in reason("comparison", {**ROW, "completion_b": "Here."})


def test_a_choice_is_only_read_where_it_is_clear():
    assert choice_of("a b", 2) is None
    assert choice_of("b", 2, letters=["a", "c"]) is None
    assert choice_of("x" * 1000, 2) is None
    with pytest.raises(RowRejected, match="names 'z'"):
        order_of("a,z", "ab", "order")
