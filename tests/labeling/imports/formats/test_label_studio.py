import re

import pytest

from labeling.imports.formats import FORMATS, BadOptions
from tests.labeling.imports.formats.reading import contents, parts, rankings, reason, record

CONFIG = """<View>
  <Text name="question" value="$prompt"/>
  <Text name="a1" value="$answer1"/><Text name="a2" value="$answer2"/>
  <Pairwise name="better" toName="a1,a2"/>
  <Rating name="tone_a1" toName="a1"/><Rating name="tone_a2" toName="a2"/>
  <Choices name="issues" toName="a2"><Choice value="unsafe"/><Choice value="wrong"/></Choices>
  <Choices name="overall" toName="question"><Choice value="Left is better"/><Choice value="Both bad"/></Choices>
  <TextArea name="why" toName="question"/><TextArea name="corrected" toName="a2"/>
</View>"""
RANKER = """<View>
  <Text name="question" value="$prompt"/>
  <List name="answers" value="$items"/>
  <Ranker name="rank" toName="answers"><Bucket name="best" title="Best"/><Bucket name="bad" title="Bad"/></Ranker>
</View>"""
RATED = """<View>
  <Paragraphs name="talk" value="$dialogue" nameKey="who" textKey="says"/>
  <Text name="answer" value="$answer"/>
  <Rating name="tone" toName="answer"/>
</View>"""
DATA = {"prompt": "Where is it?", "answer1": "Here.", "answer2": "There."}


def annotation(*results: dict, **more) -> dict:
    return {
        "id": 7, "completed_by": 3, "was_cancelled": False, "ground_truth": False, "lead_time": 12.4,
        "created_at": "2026-11-21T08:00:00.123456Z", "result": list(results), **more,
    }  # fmt: skip


def pairwise(selected: str) -> dict:
    return {"from_name": "better", "to_name": "better", "type": "pairwise", "value": {"selected": selected}}


def result(type: str, from_name: str, to_name: str, value) -> dict:
    return {"from_name": from_name, "to_name": to_name, "type": type, "value": {type if type != "textarea" else "text": value}}


def ranker(value) -> dict:
    return result("ranker", "rank", "answers", value)


def task(*annotations: dict, **data) -> dict:
    return {"id": 1, "data": {**DATA, **data}, "annotations": list(annotations), "predictions": []}


# --- comparisons --------------------------------------------------------------------------------
def test_left_is_the_first_that_the_configuration_names():
    found = record("label_studio", task(annotation(pairwise("left")), annotation(pairwise("right"), completed_by=4)), config=CONFIG)
    assert found.prompt == [{"role": "user", "content": "Where is it?"}]
    assert contents(found) == ["Here.", "There."]
    assert rankings(found) == [[["a"], ["b"]], [["b"], ["a"]]]
    assert [vote.annotator for vote in found.votes] == ["3", "4"]
    assert found.votes[0].judgement["seconds"] == 12.4
    assert found.votes[0].at.isoformat() == "2026-11-21T08:00:00.123456+00:00"
    assert found.external_id == "1"


def test_turned_around_in_the_configuration_it_is_turned_around_in_the_votes():
    turned = CONFIG.replace('toName="a1,a2"', 'toName="a2,a1"')
    found = record("label_studio", task(annotation(pairwise("left"))), config=turned)
    assert contents(found)["ab".index(found.votes[0].judgement["ranking"][0][0])] == "There."


def test_cancelled_and_empty_annotations_are_no_votes():
    found = record("label_studio", task(annotation(pairwise("left"), was_cancelled=True), annotation()), config=CONFIG)
    assert (len(found.completions), found.votes) == (2, [])


def test_ratings_choices_words_and_corrections_go_to_the_completion_they_are_of():
    results = [
        result("rating", "tone_a1", "a1", 4), result("rating", "tone_a2", "a2", 1), result("choices", "issues", "a2", ["unsafe", "wrong"]),
        result("textarea", "why", "question", ["because", "so"]), result("textarea", "corrected", "a2", ["Over there."]),
    ]  # fmt: skip
    (vote,) = record("label_studio", task(annotation(pairwise("left"), *results, lead_time=None)), config=CONFIG).votes
    assert vote.judgement == {
        "ranking": [["a"], ["b"]], "ratings": {"a": {"tone": 4}, "b": {"tone": 1}}, "flags": {"b": ["unsafe", "wrong"]},
        "rationale": "because\nso", "corrections": {"b": "Over there."},
    }  # fmt: skip


def test_a_choice_on_the_whole_may_say_which_is_better():
    found = record("label_studio", task(annotation(result("choices", "overall", "question", ["Left is better"]))), config=CONFIG)
    assert rankings(found) == [[["a"], ["b"]]]
    found = record("label_studio", task(annotation(result("choices", "overall", "question", ["Both bad"]))), config=CONFIG)
    assert found.votes[0].judgement["none_acceptable"] is True


# --- rankers ------------------------------------------------------------------------------------
ITEMS = [{"id": "x", "title": "1", "body": "Here."}, {"id": "y", "title": "2", "body": "There."}, {"id": "z", "html": "Nowhere."}]
LIST = RANKER.replace('<Bucket name="best" title="Best"/><Bucket name="bad" title="Bad"/>', "")


@pytest.mark.parametrize("value", [["z", "x", "y"], {"rank": ["z", "x", "y"]}, {"rank": ["z", "x", "y"], "_": []}])
def test_a_list_is_a_ranking_bare_or_under_the_name_of_its_control(value):
    found = record("label_studio", task(annotation(ranker(value)), items=ITEMS), config=LIST)
    assert contents(found) == ["Here.", "There.", "Nowhere."]
    assert rankings(found) == [[["c"], ["a"], ["b"]]]


def test_buckets_are_grades_in_the_order_of_the_configuration():
    row = task(annotation(ranker({"bad": ["y"], "best": ["z", "x"], "_": []})), items=ITEMS)
    assert rankings(record("label_studio", row, config=RANKER)) == [[["c", "a"], ["b"]]]
    assert rankings(record("label_studio", row, config=RANKER, buckets="order")) == [[["c"], ["a"], ["b"]]]


def test_items_that_were_not_sorted_make_no_ranking():
    assert record("label_studio", task(annotation(ranker({"_": ["x", "y", "z"]})), items=ITEMS), config=RANKER).votes == []
    half = annotation(ranker({"best": ["z"], "_": ["x", "y"]}))
    why = "annotations[0].result[0].value.ranker: leaves 2 items unsorted"
    assert reason("label_studio", task(half, items=ITEMS), config=RANKER) == why


def test_an_annotation_that_says_too_little_keeps_nobody_elses_out():
    whole = annotation(ranker({"best": ["z"], "bad": ["x", "y"]}), completed_by=4)
    for missing in ({"best": ["z"], "_": ["x", "y"]}, {"best": ["z"], "bad": ["x"]}):
        problem, found = parts("label_studio", task(annotation(ranker(missing)), whole, items=ITEMS), config=RANKER)
        assert problem.reason.startswith("annotations[0].")
        assert [vote.annotator for vote in found.votes] == ["4"]


# --- conversations ------------------------------------------------------------------------------
def test_paragraphs_are_the_turns_of_the_prompt_under_the_keys_of_the_configuration():
    turns = [{"who": "user", "says": "Hi"}, {"who": "assistant", "says": "Hello"}, {"who": "user", "says": "Where?"}]
    row = {"id": 1, "data": {"dialogue": turns, "answer": "Here."}, "annotations": [annotation(result("rating", "tone", "answer", 3))]}
    found = record("label_studio", row, config=RATED)
    assert [message["role"] for message in found.prompt] == ["user", "assistant", "user"]
    assert found.votes[0].judgement["ratings"] == {"a": {"tone": 3}}


def test_a_chat_that_is_judged_as_a_whole_ends_with_the_completion():
    config = '<View><Chat name="chat" value="$chat"/><Rating name="quality" toName="chat"/></View>'
    chat = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]
    row = {"id": 1, "data": {"chat": chat}, "annotations": [annotation(result("rating", "quality", "chat", 5))]}
    found = record("label_studio", row, config=config)
    assert (found.prompt, contents(found)) == (chat[:1], ["Here."])
    assert found.votes[0].judgement["ratings"] == {"a": {"quality": 5}}


# --- what is refused ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("", "is needed to know what left and right are"),
        ("<View>", "is not XML"),
        ("not XML", "is not XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><View/>', "declares a document type or entities"),
        ('<!DOCTYPE x SYSTEM "file:///etc/passwd"><View/>', "declares a document type or entities"),
        ("<View>&a;</View>", "is not XML"),
        ("<View/>", "cannot be told from the configuration"),
        (CONFIG.replace('toName="a1,a2"', 'toName="a1"'), "has a Pairwise whose toName does not name two objects"),
        (CONFIG.replace('value="$answer2"', ""), "asks of 'a2', which no tag with a value such as $answer shows"),
        ("<View>" + "x" * 300_000 + "</View>", "has more than 200,000 characters"),
    ],
)
def test_a_configuration_that_says_nothing_of_completions_is_refused_at_once(config, why):
    with pytest.raises(BadOptions, match=re.escape(why)):
        FORMATS["label_studio"].records([], {"config": config})


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"id": 1, "prompt": "x", "better": "left", "annotator": 3, "annotation_id": 7, "lead_time": 1}, "this is JSON_MIN or CSV"),
        ({"id": 1, "data": DATA}, "annotations: must be a list, as in the export named JSON"),
        ({"id": 1, "annotations": []}, "data: must be an object"),
        (task(answer2=None), "data.answer2: must be a text that is not empty"),
        (task(annotation(pairwise("middle"))), "annotations[0].result[0].value.selected: must be left or right, not 'middle'"),
        (task(annotation({**pairwise("left"), "from_name": "other"})), "result[0].from_name: is not a Pairwise of the configuration"),
        (task(annotation(result("rating", "tone_a1", "a1", "high"))), "result[0].value.rating: must be a number"),
    ],
)
def test_tasks_that_cannot_be_read_are_refused_with_the_place(row, why):
    assert why in reason("label_studio", row, config=CONFIG)


def test_items_of_a_list_need_ids_of_their_own():
    row = task(items=[{"id": "x", "body": "Here."}, {"id": "x", "body": "There."}])
    assert reason("label_studio", row, config=LIST) == "data: two items have one id"
