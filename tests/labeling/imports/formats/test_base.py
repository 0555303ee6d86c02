"""What holds of every format: options, counting, rows that cannot be read, and that no JSON brings one down."""

import copy
import json
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labeling.imports.formats import FORMATS, BadOptions, Counted
from labeling.imports.records import Record, Rejected, SourceRow
from tests.labeling.imports.formats import (
    test_arena,
    test_argilla,
    test_label_studio,
    test_oasst,
    test_own,
    test_potato,
)
from tests.labeling.imports.formats.reading import parts, records
from tests.labeling.imports.formats.test_label_studio import CONFIG, RANKER

NEEDED = {"label_studio": {"config": CONFIG}}
GOOD = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}


# More that is worth changing than the one example of each format.
RATING = {"from_name": "strength", "to_name": "question", "type": "rating", "value": {"rating": 2}}
MARKED = {"from_name": "marks_a1", "to_name": "a1", "type": "labels", "value": {"start": 0, "end": 1, "labels": ["x"]}}
KNOWN = {"user_id": "u1", "unique_id": "u1", "annotator": "x", "order_shown": ["b", "a"], "guideline_version": 1, "seconds": 3}
ANSWERS = {"strength": 2, "none_acceptable": "yes", "acceptable_response1": "no", "correction_response2": "Over there.",
           "marks_response1": [{"start": 0, "end": 1, "label": "x"}], "tone_response1": 3, "flags_response2": ["x"]}  # fmt: skip
ALSO: dict[str, list[dict]] = {
    "votes": [test_own.VOTE],
    "pairs": [test_own.PAIR],
    "preference": [
        {"chosen": "The sky is blue.", "rejected": "The sky is green.", "annotator": "x", "at": "2026-01-01", "margin": 1, "strength": 2},
        {"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
         "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]},
    ],
    "sft": [{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, {"prompt": "q", "completion": "a"}],
    "comparison": [{"prompt": "q", "completion_a": "x", "completion_b": "y", "completion_c": "z", "ranking": "C,A=B", "score_a": 1},
                   {"prompt": "q", "completion_a": "x", "completion_b": "y", "scale": -2, "rank_a": 1, "rank_b": 2}],
    "arena": [test_arena.ROW],
    "oasst": [test_oasst.tree(test_oasst.A, test_oasst.B, root={"events": {"ranking": [test_oasst.event("u", "b", "a")]}}),
              *test_oasst.flat(test_oasst.tree(test_oasst.A))],
    "argilla": [
        test_argilla.raw(test_argilla.response("u1", test_argilla.ranked(1, 2), **ANSWERS), metadata={"judgements": [KNOWN], "models": {}}),
        {**test_argilla.FIELDS, "preference": [{"user_id": "u", "value": {"rank": [1, 2], "value": ["response1", "response2"]}, "status": "submitted"}]},
        {**test_argilla.FIELDS, "tone.responses": [1], "tone.responses.users": ["u"], "tone.responses.status": ["submitted"]},
    ],
    "label_studio": [
        test_label_studio.task(test_label_studio.annotation(test_label_studio.pairwise("left"), RATING, MARKED, unique_id="u1"), judgements=[KNOWN]),
        test_label_studio.task(test_label_studio.annotation(test_label_studio.ranker({"best": ["x"], "bad": ["y", "z"]})), items=test_label_studio.ITEMS),
    ],
    "potato": [{**test_potato.ROW, "annotations": {"x": {"scale_value": "-2"}, "y": {"rank_order": "B,A"}, "z": {"tone": "A", "justification": "[]"}}}],
}  # fmt: skip


def examples(format: str) -> list[dict]:
    example = FORMATS[format].example
    return example if isinstance(example, list) else [example]


def check(record: Record) -> None:
    """What is promised of a record, whatever it came from."""
    assert record.prompt[-1]["role"] == "user"
    for message in record.prompt:
        assert message.keys() == {"role", "content"}
        assert message["role"] in ("system", "user", "assistant")
    assert len(record.completions) <= 64
    texts = [message["content"] for message in record.prompt] + [item.content for item in record.completions]
    assert all(text.strip() for text in texts)
    names = [record.external_id, record.source, record.licence, record.group, *record.tags]
    names += [item.model for item in record.completions] + [vote.annotator for vote in record.votes]
    for text in texts + names:
        text.encode("utf-8")
        assert "\x00" not in text
    keys = list(string.ascii_lowercase[: len(record.completions)])
    for vote in record.votes:
        assert vote.kind in ("human", "simulated", "model")
        assert vote.at is None or vote.at.tzinfo is not None
        assert vote.order_shown is None or sorted(vote.order_shown) == keys
        assert vote.judgement
        json.dumps(vote.judgement, allow_nan=False, ensure_ascii=False).encode("utf-8")
        if ranking := vote.judgement.get("ranking"):
            assert sorted(key for group in ranking for key in group) == keys
    json.dumps([item.sampling for item in record.completions], allow_nan=False, ensure_ascii=False).encode("utf-8")


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_reads_its_own_example_and_names_its_columns(format):
    found = records(format, *copy.deepcopy(examples(format)), **NEEDED.get(format, {}))
    assert len(found) == 1
    check(found[0])
    known = FORMATS[format]
    assert known.name == format
    assert known.title and known.describe.endswith(".") and known.columns
    assert {name for row in examples(format) for name in row} >= {column.name for column in known.columns if column.required}
    for option in known.options:
        assert option.help.endswith(".")
        assert not option.choices or option.default in option.choices


@pytest.mark.parametrize("format", FORMATS)
def test_options_that_a_format_does_not_know_are_refused_at_once(format):
    options = NEEDED.get(format, {})
    with pytest.raises(BadOptions) as refused:
        FORMATS[format].records([], {**options, "colour": "red"})
    assert "colour" in refused.value.fields
    for option in FORMATS[format].options:
        if option.choices:
            with pytest.raises(BadOptions, match=option.name):
                FORMATS[format].records([], {**options, option.name: "something else"})
    with pytest.raises(BadOptions):
        FORMATS[format].records([], {**options, **dict.fromkeys(["empty"], 3)})


def test_rows_that_a_source_could_not_read_come_out_as_rejected_in_their_place():
    rows = [SourceRow(1, GOOD), SourceRow(2, None, "is not JSON"), SourceRow(3, {"prompt": ""}), SourceRow(4, GOOD)]
    found = list(FORMATS["preference"].records(rows))
    assert [type(part) for part in found] == [Record, Rejected, Rejected, Record]
    assert [part.line for part in found] == [1, 2, 3, 4]
    assert found[1].reason == "is not JSON"


def test_a_reading_says_how_many_rows_to_skip_so_that_nothing_is_left_out_or_half():
    rating = {"helpfulness": 1, "response": "x"}
    rows = [
        SourceRow(1, {"prompt": "one", **rating}), SourceRow(2, {"prompt": "one", **rating, "response": "y"}),
        SourceRow(3, None, "is not JSON"),
        SourceRow(4, {"prompt": "two", **rating}), SourceRow(5, {"prompt": "two", **rating, "response": "y"}),
    ]  # fmt: skip
    counted = Counted()
    stream = FORMATS["helpsteer2"].records(rows, None, counted)
    seen = [(part.line, counted.rows) for part in stream]
    assert seen == [(1, 2), (3, 3), (4, 5)]
    again = list(FORMATS["helpsteer2"].records(rows[2:]))
    assert [part.line for part in again] == [3, 4]


def test_a_row_counts_once_the_last_of_what_it_gives_was_handed_out():
    tree = {
        "message_tree_id": "t",
        "prompt": {
            "message_id": "1", "role": "prompter", "text": "q", "replies": [
                {"message_id": "2", "role": "assistant", "text": "a", "rank": 0, "replies": [
                    {"message_id": "4", "role": "prompter", "text": "r", "replies": [
                        {"message_id": "5", "role": "assistant", "text": "c", "rank": 1, "replies": []},
                        {"message_id": "6", "role": "assistant", "text": "d", "rank": 0, "replies": []},
                    ]},
                ]},
                {"message_id": "3", "role": "assistant", "text": "b", "rank": 1, "replies": []},
            ],
        },
    }  # fmt: skip
    counted = Counted()
    assert [counted.rows for _ in FORMATS["oasst"].records([SourceRow(1, tree)], None, counted)] == [0, 1]


def test_reading_streams_one_row_at_a_time():
    def endless():
        number = 0
        while True:
            number += 1
            yield SourceRow(number, GOOD)

    stream = FORMATS["preference"].records(endless())
    assert [next(stream).line for _ in range(3)] == [1, 2, 3]


def test_a_reason_is_short_enough_to_show_whatever_the_row_holds():
    long = "x" * 100_000
    for row in ({long: 1}, {"prompt": long, long: 1}, {"prompt": [{"role": long, "content": "x"}]}, {"prompt": "x", "\x00\ud800": 1}):
        (part,) = parts("prompts", row)
        assert isinstance(part, Rejected)
        assert len(part.reason) <= 500
        assert "\x00" not in part.reason
        part.reason.encode("utf-8")


# --- any JSON -----------------------------------------------------------------------------------
WORDS = (
    "", " ", "a", "b", "A", "tie", "left", "model_a", "\x00", "\ud800", "[", "[]", "{}", '[{"role": "user", "content": "x"}]', "1", "-2",
    "1e999", "nan", "²", "true", "2026-01-01", "0001-01-01T00:00:00+10:00", "\n\nHuman:", "\n\nHuman: a\n\nAssistant: b",
    "<extra_id_1>", "response1", "submitted", "user", "assistant", "system", "tool", "prompter", "gpt", "B,A", "x" * 700,
)  # fmt: skip
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), st.sampled_from(WORDS), st.text(max_size=8)
)


def columns_of(format: str) -> st.SearchStrategy[str]:
    inner: set[str] = {"role", "content", "from", "value", "rank", "user_id", "status", "text", "id", "a", "b"}
    waiting = list(examples(format))
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            inner |= item.keys()
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return st.sampled_from(sorted(inner | {column.name for column in FORMATS[format].columns}))


def any_json(format: str) -> st.SearchStrategy[dict]:
    names = columns_of(format) | st.text(max_size=5)
    values = st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=12
    )
    return st.dictionaries(names, values, max_size=8)


def changed(format: str) -> st.SearchStrategy[dict]:
    """The example with some of its parts put out, or another in their place."""

    @st.composite
    def draw(draw):
        row = copy.deepcopy(draw(st.sampled_from(examples(format) + ALSO.get(format, []))))
        for _ in range(draw(st.integers(1, 3))):
            at = row
            while True:
                place = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
                if isinstance(at[place], dict | list) and at[place] and draw(st.booleans()):
                    at = at[place]
                    continue
                at[place] = draw(scalars | st.lists(scalars, max_size=2) | st.just({}))
                break
            if not row:
                break
        return row

    return draw()


def holds(format: str, rows: list[dict], options: dict[str, str]) -> None:
    for part in parts(format, *rows, **options):
        if isinstance(part, Record):
            check(part)
        else:
            assert part.reason and len(part.reason) <= 500
            part.reason.encode("utf-8")


def options_of(format: str) -> st.SearchStrategy[dict[str, str]]:
    if format == "label_studio":
        return st.sampled_from([{"config": CONFIG}, {"config": RANKER}, {"config": RANKER, "buckets": "order"}])
    known = {option.name: st.sampled_from(option.choices) for option in FORMATS[format].options if option.choices}
    if format == "comparison":
        known["annotators"] = st.sampled_from(["", "winner,annotator"])
    return st.fixed_dictionaries({}, optional=known)


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_json_object_is_taken_or_rejected_with_a_reason(format, data):
    holds(format, data.draw(st.lists(any_json(format), min_size=1, max_size=2)), data.draw(options_of(format)))


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_good_row_with_something_wrong_in_it_is_taken_or_rejected_with_a_reason(format, data):
    holds(format, data.draw(st.lists(changed(format), min_size=1, max_size=2)), data.draw(options_of(format)))
