import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling.imports import mapping
from labeling.imports.formats import FORMATS
from labeling.imports.records import SourceRow


# --- proposing ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("columns", "format", "proposed"),
    [
        (["prompt", "answer_a", "answer_b", "better", "annotator"], "comparison",
         {"completion_a": "answer_a", "completion_b": "answer_b", "winner": "better"}),
        (["Question", "Answer A", "Answer B", "Answer C", "Best?", "Rater"], "comparison",
         {"prompt": "Question", "completion_a": "Answer A", "completion_b": "Answer B", "completion_c": "Answer C", "winner": "Best?",
          "annotator": "Rater"}),
        (["q_text", "responseA", "responseB", "choice"], "comparison",
         {"completion_a": "responseA", "completion_b": "responseB", "winner": "choice"}),
        (["question", "model_1", "model_2", "output_1", "output_2", "label"], "comparison",
         {"prompt": "question", "completion_a": "output_1", "completion_b": "output_2", "winner": "label", "model_a": "model_1",
          "model_b": "model_2"}),
        (["prompt", "left_summary", "right_summary", "winner"], "comparison", {"completion_a": "left_summary", "completion_b": "right_summary"}),
        (["prompt", "a", "b", "winner"], "comparison", {"completion_a": "a", "completion_b": "b"}),
        (["query", "answers.0", "answers.1", "vote"], "comparison",
         {"prompt": "query", "completion_a": "answers.0", "completion_b": "answers.1", "winner": "vote"}),
        (["question", "preferred", "dispreferred", "license"], "preference",
         {"prompt": "question", "chosen": "preferred", "rejected": "dispreferred", "licence": "license"}),
        (["question", "answer", "thumbs_up", "user_id"], "unpaired",
         {"prompt": "question", "completion": "answer", "label": "thumbs_up", "annotator": "user_id"}),
        (["instruction", "input", "output"], "sft", {"prompt": "instruction + input", "completion": "output"}),
        (["question", "dataset"], "prompts", {"prompt": "question", "source": "dataset"}),
        (["prompt", "sampling_config", "completion"], "completions", {"sampling": "sampling_config"}),
        (["colour", "size"], "preference", {}),
        (["prompt", "chosen"], "oasst", {}),
    ],
)  # fmt: skip
def test_columns_are_proposed_by_their_names(columns, format, proposed):
    assert mapping.propose(columns, format) == proposed


def test_a_column_stands_for_one_thing_only():
    proposed = mapping.propose(["text", "label", "answer", "response"], "unpaired")
    assert len(set(proposed.values())) == len(proposed)


# --- applying -----------------------------------------------------------------------------------
ROW = {"question": "q", "answers": [{"text": "x"}, {"text": "y"}], "meta": {"by": "ann", "a.b": 1}, "a.b": 2, "note": "n"}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("question", "q"), ("answers.1.text", "y"), ("meta.by", "ann"), ("a.b", 2), ("answers.2.text", None), ("answers.x", None),
        ("question.x", None), ("nowhere", None), ("answers.99999999999", None), ("question + note", "q\n\nn"), ("question + nowhere", "q"),
        ("nowhere + answers", None),
    ],
)  # fmt: skip
def test_a_place_is_a_column_a_path_or_several_put_together(place, value):
    assert mapping.value_at(ROW, place) == value


def test_other_columns_keep_their_names_and_used_ones_do_not():
    row = mapping.apply({"prompt": "question", "completion_a": "answers.0.text", "completion_b": "answers.1.text"}, ROW)
    assert row == {"prompt": "q", "completion_a": "x", "completion_b": "y", "meta": ROW["meta"], "a.b": 2, "note": "n"}


def test_formats_that_refuse_unknown_fields_are_given_none():
    rows = [SourceRow(1, {"question": "q", "note": "n", "source": "s"}), SourceRow(2, None, "is not JSON")]
    found = list(mapping.mapped(rows, {"prompt": "question"}, FORMATS["prompts"]))
    assert found == [SourceRow(1, {"prompt": "q", "source": "s"}), rows[1]]
    taken = list(FORMATS["prompts"].records(found))
    assert (taken[0].prompt[0]["content"], taken[1].reason) == ("q", "is not JSON")


def test_columns_may_change_places():
    assert mapping.apply({"chosen": "rejected", "rejected": "chosen"}, {"prompt": "p", "chosen": "x", "rejected": "y"}) == {
        "prompt": "p", "chosen": "y", "rejected": "x"
    }  # fmt: skip


# --- checking -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "format", "field"),
    [
        ([], "prompts", "mapping"),
        ({"prompt": 3}, "prompts", "prompt"),
        ({"prompt": "x" * 501}, "prompts", "prompt"),
        ({"colour": "x"}, "prompts", "colour"),
        ({"completion_aa": "x"}, "comparison", "completion_aa"),
        ({"prompt": "x"}, "oasst", "mapping"),
    ],
)
def test_a_mapping_that_the_format_does_not_know_is_refused_by_its_field(given, format, field):
    with pytest.raises(mapping.BadMapping) as refused:
        mapping.check(given, format)
    assert list(refused.value.fields) == [field]


def test_empty_places_are_left_out():
    assert mapping.check({"prompt": "question", "source": ""}, "prompts") == {"prompt": "question"}
    assert mapping.check({"completion_c": "x"}, "comparison") == {"completion_c": "x"}


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=30)
@given(columns=st.lists(st.text(max_size=12) | st.sampled_from(["a", "answer_0", "Answer B", "prompt", "²", "x_1", "left_x"]), max_size=8))
def test_any_columns_give_a_mapping_that_holds(format, columns):
    proposed = mapping.propose(columns, format)
    assert set(proposed.values()) <= {part for column in columns for part in (column, "instruction + input")}
    assert mapping.check(proposed, format) == {name: place for name, place in proposed.items() if place}
    mapping.apply(proposed, dict.fromkeys(columns, "x"), FORMATS[format])
