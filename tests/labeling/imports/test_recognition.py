import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling.imports.formats import FORMATS
from labeling.imports.recognition import recognise
from labeling.imports.records import SourceRow
from tests.labeling.imports.formats.reading import records


def seen(*rows, kind: str = "jsonl", filename: str = ""):
    return recognise([SourceRow(number, row) for number, row in enumerate(rows, 1)], kind=kind, filename=filename)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_known_by_its_example(format):
    example = FORMATS[format].example
    found = seen(*copy.deepcopy(example if isinstance(example, list) else [example]))
    assert found.format == format
    assert found.certainty == ("likely" if format == "prompts" else "sure")
    assert len(found.reasons) == 1
    assert found.mapping == {}


@pytest.mark.parametrize(
    ("row", "format", "reason"),
    [
        ({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}, "hh_rlhf", r"has chosen and rejected that begin with \n\nHuman:"),
        ({"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
          "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]}, "preference", "has chosen and rejected as messages"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "preference", "has prompt, chosen and rejected as texts"),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, "sft", "has conversations, a conversation"),
        ({"message_id": "m", "parent_id": None, "role": "prompter", "text": "q", "message_tree_id": "t"}, "oasst", "has message_id, parent_id, role and text: messages of trees"),
        ({"annotation_id": 1, "annotator": 2, "lead_time": 3.0, "prompt": "q"}, "label_studio", "has annotator, annotation_id and lead_time: JSON_MIN"),
        ({"prompt": "q", "response1": "a", "preference": [{"user_id": "u", "value": 1, "status": "submitted"}]}, "argilla", "has a column of answers"),
        ({"instance_id": "i", "prompt": "q", "chosen": "A", "annotator": "x"}, "potato", "has instance_id and the letter of what was chosen"),
        ({"prompt": "q", "completion": "a", "model": "m", "sample": 3}, "completions", "has prompt, completion and the model that wrote it"),
    ],
)  # fmt: skip
def test_a_file_is_known_by_its_columns_and_the_person_is_told_by_which(row, format, reason):
    found = seen(row)
    assert found.format == format
    assert found.reasons[0].startswith(reason)


def test_others_that_would_do_are_named():
    row = {"prompt": "q", "chosen": [{"role": "assistant", "content": "a"}], "rejected": [{"role": "assistant", "content": "b"}],
           "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}  # fmt: skip
    found = seen(row)
    assert (found.format, found.also) == ("preference", ["sft"])


def test_what_reads_more_of_the_rows_comes_first():
    good = {"prompt": "q", "completion": "a", "label": True}
    rows = [{**good, "chosen": "", "rejected": "x"} for _ in range(5)]
    found = seen(*rows)
    assert (found.format, found.also) == ("unpaired", ["preference"])


def test_rows_that_cannot_be_taken_are_counted_and_the_first_reason_given():
    good, bad = {"prompt": "q", "chosen": "a", "rejected": "b"}, {"prompt": "q", "chosen": "a", "rejected": "a"}
    found = seen(good, good, good, bad)
    assert (found.format, found.certainty) == ("preference", "likely")
    assert found.reasons[1] == (
        "1 of the first 4 rows cannot be taken: chosen and rejected: are the same text, so that none can be the better one"
    )


def test_a_spreadsheet_of_comparisons_is_read_by_mapping_its_columns():
    row = {"prompt": "q", "answer_a": "x", "answer_b": "y", "better": "a", "annotator": "ann"}
    found = seen(row, kind="csv")
    assert (found.format, found.certainty) == ("comparison", "likely")
    assert found.mapping == {"completion_a": "answer_a", "completion_b": "answer_b", "winner": "better"}
    assert "answer_a is read as completion_a" in found.reasons
    assert "prompts" in found.also


def test_winners_that_count_from_0_are_noticed():
    rows = [{"question": "q", "answer_0": "x", "answer_1": "y", "winner": n} for n in (0, 1)]
    found = seen(*rows)
    assert (found.format, found.options) == ("comparison", {"first": "0"})
    assert "winner counts from 0" in found.reasons


def test_prompts_with_other_columns_are_read_without_those():
    found = seen({"id": "s1", "prompt": "q", "reference": "a", "is_classification": False})
    assert (found.format, found.options) == ("prompts", {"extra": "ignore"})
    assert "other columns are ignored" in found.reasons
    assert len(records("prompts", {"prompt": "q", "reference": "a"}, **found.options)) == 1


def test_an_instruction_and_its_input_are_one_prompt():
    found = seen({"instruction": "Translate.", "input": "Hello", "output": "Hallo"})
    assert (found.format, found.mapping) == ("sft", {"prompt": "instruction + input", "completion": "output"})


def test_stepwise_supervision_is_known_and_refused_in_words():
    found = seen({"prompt": "q", "completions": ["a", "b"], "labels": [True, False]})
    assert found.format is None
    assert "stepwise supervision" in found.reasons[0]


def test_what_is_nothing_we_know_is_said_to_be_so_with_what_to_do():
    found = seen({"foo": 1, "bar": 2})
    assert (found.format, found.certainty) == (None, "none")
    assert found.reasons[0] == "no format has these columns: foo, bar"
    assert "which column is which" in found.reasons[1]
    assert "separated by something other than commas" in seen({"a;b;c": "1;2;3"}, kind="csv").reasons[2]
    assert recognise([], kind="csv", filename="").reasons == ["there are no rows"]
    broken = recognise([SourceRow(1, None, "is not JSON")], kind="jsonl", filename="x.jsonl")
    assert broken.reasons == ["no row can be read: is not JSON"]


def test_of_equals_the_name_of_the_file_decides():
    row = {"prompt": "q", "completion": "a", "label": True, "chosen": "x", "rejected": "y"}
    assert seen(row, filename="unpaired-train.jsonl").format == "unpaired"
    assert seen(row, filename="train.jsonl").format == "preference"


names = st.sampled_from(
    ["prompt", "chosen", "rejected", "messages", "completions", "label", "winner", "data", "annotations", "fields", "responses", "question",
     "answer_0", "answer_1", "instruction", "completion", "labels", "judgement", "text", "role", "message_id", "parent_id", "", "x"]
)  # fmt: skip
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=8)


@settings(max_examples=150)
@given(st.lists(st.dictionaries(names, values, max_size=6), max_size=3), st.sampled_from(["csv", "jsonl"]))
def test_any_rows_are_recognised_or_not_and_nothing_else_happens(rows, kind):
    found = seen(*rows, kind=kind)
    assert found.format is None or found.format in FORMATS
    assert found.reasons
