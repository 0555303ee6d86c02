from labeling.imports.records import Text
from tests.labeling.imports.formats.reading import reason, record


def completion(model: str, score: float | None, helpfulness: str, **more) -> dict:
    return {
        "model": model, "response": f"by {model}", "fine-grained_score": score, "overall_score": 10,
        "annotations": {"helpfulness": {"Rating": helpfulness, "Rationale": "x"}, "honesty": {"Rating": "N/A", "Rationale": ""}},
        **more,
    }  # fmt: skip


ROW = {"source": "flan", "instruction": "p", "models": ["m1", "m2", "m3"], "correct_answers": ["None"], "completions": [
    completion("m1", 2.5, "2"), completion("m2", 4.75, "5", principle="honesty", custom_system_prompt="Be honest."),
    completion("m3", 2.5, "N/A"),
]}  # fmt: skip


def test_a_model_judged_so_the_vote_is_a_models():
    found = record("ultrafeedback", ROW)
    (vote,) = found.votes
    assert (vote.annotator, vote.kind) == ("gpt-4", "model")
    assert record("ultrafeedback", ROW, annotator="judge@2").votes[0].annotator == "judge@2"


def test_the_fine_grained_score_ranks_and_ratings_are_numbers_by_axis():
    found = record("ultrafeedback", ROW)
    assert found.votes[0].judgement == {
        "ranking": [["b"], ["a", "c"]], "ratings": {"a": {"helpfulness": 2}, "b": {"helpfulness": 5}}
    }  # fmt: skip
    assert found.source == "flan"
    assert found.completions[1] == Text("by m2", "m2", {"principle": "honesty", "custom_system_prompt": "Be honest."})


def test_where_one_score_is_missing_there_is_no_ranking():
    row = {**ROW, "completions": [completion("m1", None, "2"), completion("m2", 4.0, "5")]}
    assert "ranking" not in record("ultrafeedback", row).votes[0].judgement
    assert record("ultrafeedback", row, score="overall_score").votes[0].judgement["ranking"] == [["a", "b"]]


def test_completions_that_nobody_rated_are_taken_without_a_vote():
    row = {**ROW, "completions": [{"model": "m1", "response": "x"}]}
    assert record("ultrafeedback", row).votes == []


def test_what_is_wrong_is_named_by_its_place():
    bad = completion("m2", 4.0, "five")
    assert reason("ultrafeedback", {**ROW, "completions": [bad]}) == "completions[0].annotations.helpfulness.Rating: must be a number, not 'five'"
    assert reason("ultrafeedback", {**ROW, "completions": []}) == "completions: must be a list that is not empty"
    assert reason("ultrafeedback", {**ROW, "instruction": ""}) == "instruction[0].content: must be a text that is not empty"
