import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.projects.feedback import BadAnswer, check_answer, complete_form, least_completions, ranking_problem

KEYS = ["a", "b", "c"]
RANKED = [["b"], ["a", "c"]]


def form(**parts):
    full, wrong = complete_form(parts)
    assert wrong == {}
    return full


def fields_refused(asked: dict, body: object) -> set[str]:
    with pytest.raises(BadAnswer) as refusal:
        check_answer(form(**asked), KEYS, body)
    return set(refusal.value.fields)


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ({"stars": 5}, "stars"), ({"ranking": 1}, "ranking"), ({"rationale": "maybe"}, "rationale"),
        ({"flags": ["a", "a"]}, "flags"), ({"flags": "unsafe"}, "flags"), ({"flags": [""]}, "flags"),
        ({"ratings": {"x": {"low": 5, "high": 1}}}, "ratings"), ({"ratings": {"x": {"low": 1, "high": True}}}, "ratings"),
        ({"ratings": []}, "ratings"), ({"ranking": False}, "ranking"),
    ],
)  # fmt: skip
def test_a_form_that_makes_no_sense_is_refused_by_field(parts, field):
    assert field in complete_form(parts)[1]


def test_a_form_that_is_no_object_is_refused():
    assert "form" in complete_form([])[1]


@pytest.mark.parametrize(
    ("asked", "body", "refused"),
    [
        ({}, {}, {"ranking"}),
        ({}, [], {"judgement"}),
        ({}, {"ranking": RANKED, "winner": "a"}, {"winner"}),
        ({}, {"ranking": [["a"], ["b"]]}, {"ranking"}),
        ({}, {"ranking": [["a"], ["b"], ["c"], ["a"]]}, {"ranking"}),
        ({}, {"ranking": [["a"], ["b"], ["c"], ["d"]]}, {"ranking"}),
        ({}, {"ranking": [["a"], [], ["b"], ["c"]]}, {"ranking"}),
        ({}, {"ranking": ["a", "b", "c"]}, {"ranking"}),
        ({}, {"ranking": [["a"], ["b"], [3]]}, {"ranking"}),
        ({"ties": False}, {"ranking": RANKED}, {"ranking"}),
        ({}, {"ranking": RANKED, "strength": 2}, {"strength"}),
        ({"strength": True}, {"ranking": RANKED, "strength": 4}, {"strength"}),
        ({"strength": True}, {"ranking": RANKED, "strength": True}, {"strength"}),
        ({"rationale": "required"}, {"ranking": RANKED, "rationale": "  "}, {"rationale"}),
        ({"rationale": "off"}, {"ranking": RANKED, "rationale": "why"}, {"rationale"}),
        ({"none_acceptable": False}, {"ranking": RANKED, "none_acceptable": True}, {"none_acceptable"}),
        ({}, {"ranking": RANKED, "seconds": -1}, {"seconds"}),
        ({}, {"ranking": RANKED, "seconds": float("nan")}, {"seconds"}),
        ({}, {"ranking": RANKED, "seconds": True}, {"seconds"}),
        ({}, {"ranking": RANKED, "acceptable": {"a": True}}, {"acceptable"}),
        ({"acceptable": True}, {"ranking": RANKED, "acceptable": {"a": "yes"}}, {"acceptable.a"}),
        ({"acceptable": True}, {"ranking": RANKED, "acceptable": {"z": True}}, {"acceptable.z"}),
        ({"flags": ["unsafe"]}, {"ranking": RANKED, "flags": {"a": ["rude"]}}, {"flags.a"}),
        ({"ratings": {"x": {"low": 1, "high": 5}}}, {"ranking": RANKED, "ratings": {"a": {"x": 6}}}, {"ratings.a"}),
        ({"ratings": {"x": {"low": 1, "high": 5}}}, {"ranking": RANKED, "ratings": {"a": {"y": 1}}}, {"ratings.a"}),
        ({"ranking": False, "acceptable": True}, {"ranking": RANKED}, {"ranking"}),
        ({}, {"seconds": "x", "strength": 1}, {"ranking", "seconds", "strength"}),
    ],
)  # fmt: skip
def test_an_answer_that_does_not_fit_its_form_is_refused_part_by_part(asked, body, refused):
    assert fields_refused(asked, body) == refused


def test_an_answer_keeps_what_was_said_and_leaves_out_what_was_not():
    asked = form(strength=True, acceptable=True, flags=["unsafe"], ratings={"x": {"low": 1, "high": 5}}, corrections=True)
    body = {
        "ranking": RANKED, "strength": 3, "acceptable": {"a": False}, "flags": {"c": ["unsafe"]},
        "ratings": {"b": {"x": 5}}, "corrections": {"a": "better"}, "rationale": " because ", "seconds": 4,
        "none_acceptable": False,
    }  # fmt: skip
    answer = check_answer(asked, KEYS, body)
    assert answer.ranking == RANKED
    assert answer.seconds == 4.0
    assert answer.parts == {
        "strength": 3, "acceptable": {"a": False}, "flags": {"c": ["unsafe"]}, "ratings": {"b": {"x": 5}},
        "corrections": {"a": "better"}, "rationale": "because",
    }  # fmt: skip


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
PARTS = ["ranking", "strength", "ratings", "acceptable", "flags", "corrections", "none_acceptable", "rationale", "seconds"]


@given(st.dictionaries(st.sampled_from(PARTS), JSON, max_size=9))
def test_whatever_comes_in_is_taken_or_refused_with_reasons(body):
    asked = form(strength=True, acceptable=True, flags=["unsafe"], ratings={"x": {"low": 1, "high": 5}}, corrections=True)
    try:
        check_answer(asked, KEYS, body)
    except BadAnswer as refusal:
        assert refusal.fields


@given(st.permutations(KEYS), st.lists(st.booleans(), min_size=2, max_size=2))
def test_every_ordered_partition_is_a_ranking(order, cuts):
    ranking = [[order[0]]]
    for key, cut in zip(order[1:], cuts, strict=True):
        if cut:
            ranking.append([key])
        else:
            ranking[-1].append(key)
    assert ranking_problem(ranking, KEYS, ties_allowed=True) == ""


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ({"marks": "wrong"}, "marks"),
        ({"marks": ["a", "a"]}, "marks"),
        ({"demonstration": True}, "demonstration"),
        ({"required": ["ratings"]}, "required"),
        ({"required": ["rationale"]}, "required"),
        ({"ranking": False, "strength": True, "acceptable": True}, "strength"),
        ({"ratings": {"x": {"low": 0, "high": 200}}}, "ratings"),
        ({"ratings": {"x": {"low": 1, "high": 5, "labels": {"9": "off"}}}}, "ratings"),
        ({"ratings": {"x": {"low": 1, "high": 5, "help": 5}}}, "ratings"),
        ({"ratings": {"x": {"low": 1, "high": 5, "colour": "red"}}}, "ratings"),
    ],
)
def test_a_wrong_new_part_of_a_form_is_named(parts, field):
    assert field in complete_form(parts)[1]


@pytest.mark.parametrize(
    ("parts", "least"),
    [
        ({}, 2),
        ({"ranking": False, "acceptable": True}, 1),
        ({"ranking": False, "marks": ["x"]}, 1),
        ({"ranking": False, "demonstration": "required"}, 0),
    ],
)
def test_a_form_says_how_many_completions_it_needs(parts, least):
    full, wrong = complete_form(parts)
    assert not wrong and least_completions(full) == least


def test_what_is_required_must_be_given_for_every_completion():
    asked, _ = complete_form(
        {"ratings": {"tone": {"low": 1, "high": 5}}, "acceptable": True, "required": ["ratings", "acceptable"]}
    )
    body = {"ranking": [["a"], ["b"]], "ratings": {"a": {"tone": 1}, "b": {}}, "acceptable": {"b": True}}
    with pytest.raises(BadAnswer) as refused:
        check_answer(asked, ["a", "b"], body)
    assert refused.value.fields == {"ratings.b": "is required: tone", "acceptable.a": "is required"}


def test_a_judgement_that_says_nothing_is_refused():
    asked, _ = complete_form({"ranking": False, "acceptable": True})
    with pytest.raises(BadAnswer) as refused:
        check_answer(asked, ["a"], {"seconds": 3.0})
    assert list(refused.value.fields) == ["judgement"]


def test_a_single_completion_needs_no_ranking_where_others_do():
    asked, _ = complete_form({"acceptable": True})
    assert check_answer(asked, ["a"], {"acceptable": {"a": True}}).ranking == []


@pytest.mark.parametrize("parts", [{"marks": ["wrong"]}, {"flags": ["rude"]}, {"corrections": True}])
def test_nothing_to_mark_flag_or_correct_is_an_answer(parts):
    asked, _ = complete_form({"ranking": False, **parts})
    assert check_answer(asked, ["a"], {"seconds": 3.0}).parts == {}
    with pytest.raises(BadAnswer):
        check_answer({**asked, "acceptable": True}, ["a"], {"seconds": 3.0})
