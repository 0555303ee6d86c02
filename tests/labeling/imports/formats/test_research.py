import pytest

from tests.labeling.imports.formats.reading import rankings, reason, record, records

ROW = {
    "idx": 3, "motivation_app": "x", "cmp_key": "small-7b_tiny-7b", "instruction": "Explain it.", "input": "The sky", "response1": "one",
    "response2": "two", "annotator1": 1, "annotator2": 2, "annotator10": 0,
}  # fmt: skip


def test_pandalm_gives_a_vote_for_each_annotator():
    found = record("pandalm", ROW)
    assert [vote.annotator for vote in found.votes] == ["annotator1", "annotator2", "annotator10"]
    assert rankings(found) == [[["a"], ["b"]], [["b"], ["a"]], [["a", "b"]]]
    assert found.prompt == [{"role": "user", "content": "Explain it.\n\nThe sky"}]
    assert ([item.model for item in found.completions], found.external_id) == (["small-7b", "tiny-7b"], "3")


def test_pandalm_without_an_input_or_names_of_models():
    found = record("pandalm", {**ROW, "input": "", "cmp_key": "a_b_c", "annotator2": None})
    assert found.prompt[0]["content"] == "Explain it."
    assert ([item.model for item in found.completions], len(found.votes)) == (["", ""], 2)


def test_a_label_of_pandalm_off_its_scale_is_refused():
    assert reason("pandalm", {**ROW, "annotator2": 3}) == "annotator2: must be 0 (a tie), 1 (the first is better) or 2"


# --- SQuALITY -----------------------------------------------------------------------------------
def review(worker: str, rank: int, rating: int, **more) -> dict:
    return {"worker_id": worker, "overall-rank": rank, "overall-rating": rating, "correctness-rank": 3 - rank, "annotations": [], **more}


QUESTIONS = {
    "passage-id": "p1",
    "questions": {
        "0": {
            "small": {"response": "The crew lands. All well.", "overall": {"overall-rating": 70},
                      "reviews": [review("3", 1, 70), review("6", 2, 40)]},
            "tiny": {"response": "They stay.", "reviews": [review("3", 2, 20), review("6", 1, 60)]},
        },
        "1": {"small": {"response": "Yes.", "reviews": [review("3", 1, 5)]}, "tiny": {"response": "No.", "reviews": []}},
    },
}  # fmt: skip


def test_squality_gives_a_record_a_question_with_a_vote_for_each_reviewer():
    first, second = records("squality", QUESTIONS)
    assert (first.group, first.external_id, first.prompt[0]["content"]) == ("p1", "p1/0", "SQuALITY passage p1, question 0")
    assert [item.model for item in first.completions] == ["small", "tiny"]
    assert [vote.judgement for vote in first.votes] == [
        {"ranking": [["a"], ["b"]], "ratings": {"a": {"overall": 70}, "b": {"overall": 20}}},
        {"ranking": [["b"], ["a"]], "ratings": {"a": {"overall": 40}, "b": {"overall": 60}}},
    ]
    # Whoever reviewed one of two ranked nothing.
    assert second.votes[0].judgement == {"ratings": {"a": {"overall": 5}}}


def test_another_of_squalitys_ranks_can_be_the_ranking():
    first, _ = records("squality", QUESTIONS, rank="correctness")
    assert rankings(first) == [[["b"], ["a"]], [["a"], ["b"]]]


def test_passages_with_a_comment_are_marks_where_they_are_found():
    said = [{"selection": "All well.", "annotation": ["not", "so"]}, {"selection": "elsewhere", "annotation": ["x"]}]
    row = {"passage-id": "p", "questions": {"0": {"small": {"response": "The crew lands. All well.", "reviews": [review("3", 1, 7, annotations=said)]}}}}
    (found,) = records("squality", row)
    assert found.votes[0].judgement["marks"] == {"a": [{"start": 16, "end": 25, "label": "comment", "comment": "not\nso"}]}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"passage-id": "p"}, "questions: must be an object"),
        ({"passage-id": "p", "questions": {"0": {"small": {"response": ""}}}}, "questions.0.small.response: must be a text"),
        ({"passage-id": "p", "questions": {"0": {"small": {"response": "x", "reviews": [3]}}}}, "questions.0.small.reviews[0]: must be an object"),
    ],
)
def test_squality_names_the_place_of_what_is_wrong(row, why):
    assert why in reason("squality", row)
