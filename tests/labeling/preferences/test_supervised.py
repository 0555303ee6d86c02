"""Each rule of the views `sft` and `unpaired` on votes written out by hand."""

from labeling.preferences.supervised import sft_rows, unpaired_rows

PROMPT = [{"role": "user", "content": "Where is my parcel?"}]


def votes(*judgements: dict, n_completions: int = 3) -> list[dict]:
    """Rows of `votes` of one task with completions a, b, c."""
    completions = [{"key": key, "content": f"text {key}", "model": "tiny@1"} for key in "abcdefghi"[:n_completions]]
    return [
        {
            "task": "t", "prompt": PROMPT, "completions": completions, "annotator": f"annotator-{number}",
            "annotator_kind": "human", "judgement": judgement,
        }
        for number, judgement in enumerate(judgements)
    ]  # fmt: skip


def said(rows: list[dict]) -> list[tuple[str, str]]:
    return [(row["source"], row["messages"][-1]["content"]) for row in rows]


def labels(rows: list[dict]) -> list[tuple]:
    return [(row["source"], row["completion"][0]["content"], row["label"], row["n_votes"]) for row in rows]


ABC = {"ranking": [["a"], ["b"], ["c"]]}


def test_the_best_completion_follows_the_prompt_as_messages():
    [row] = sft_rows(votes(ABC))
    assert row["messages"] == [*PROMPT, {"role": "assistant", "content": "text a"}]
    assert (row["source"], row["model"], row["annotator"]) == ("best", "tiny@1", None)


def test_an_edit_takes_the_place_of_the_best_completion_and_stands_beside_it_if_another_was_edited():
    edited_best = votes(ABC | {"corrections": {"a": "better"}})
    assert said(sft_rows(edited_best)) == [("correction", "better")]
    edited_other = votes(ABC | {"corrections": {"c": "better"}})
    assert said(sft_rows(edited_other)) == [("correction", "better"), ("best", "text a")]
    assert said(sft_rows(edited_best, corrections=False)) == [("best", "text a")]


def test_who_wrote_a_text_is_named_and_no_model():
    [first, second] = sft_rows(votes({"demonstration": "mine"}, {"demonstration": "yours"}, n_completions=0))
    assert (first["annotator"], first["annotator_kind"], first["model"]) == ("annotator-0", "human", None)
    assert said([first, second]) == [("demonstration", "mine"), ("demonstration", "yours")]


def test_equal_texts_are_one_row():
    found = sft_rows(votes(ABC | {"corrections": {"b": "text a"}}, ABC | {"demonstration": "text a"}))
    assert said(found) == [("correction", "text a")]


def test_no_completion_is_best_if_two_share_the_first_place_or_half_say_that_none_is_good():
    assert sft_rows(votes({"ranking": [["a", "b"], ["c"]]})) == []
    assert sft_rows(votes(ABC, {"ranking": [["b"], ["a"], ["c"]]})) == []
    assert sft_rows(votes(ABC, ABC | {"none_acceptable": True})) == []
    assert said(sft_rows(votes(ABC, ABC, ABC | {"none_acceptable": True}))) == [("best", "text a")]


def test_the_best_is_left_out_where_no_more_than_half_accept_it():
    refused = ABC | {"acceptable": {"a": False, "b": True}}
    assert sft_rows(votes(refused)) == []
    assert sft_rows(votes(refused, ABC | {"acceptable": {"a": True}})) == []
    assert said(sft_rows(votes(refused, *[ABC | {"acceptable": {"a": True}}] * 2))) == [("best", "text a")]


def test_the_only_completion_of_a_task_is_imitated_if_it_is_accepted():
    assert said(sft_rows(votes({"acceptable": {"a": True}}, n_completions=1))) == [("best", "text a")]
    assert sft_rows(votes({"acceptable": {"a": False}}, n_completions=1)) == []
    assert sft_rows(votes({"ratings": {"a": {"help": 5}}}, n_completions=1)) == []


def test_labels_follow_the_majority_and_an_even_split_has_none():
    found = unpaired_rows(
        votes(
            {"acceptable": {"a": True, "b": False}},
            {"acceptable": {"a": True, "b": True}},
            {"acceptable": {"a": False}},
        )
    )
    assert labels(found) == [("completion", "text a", True, 3)]
    assert found[0]["acceptable_share"] == 2 / 3
    assert (found[0]["prompt"], found[0]["completion"]) == (PROMPT, [{"role": "assistant", "content": "text a"}])


def test_what_annotators_wrote_is_acceptable_and_counts_no_votes_of_others():
    found = unpaired_rows(
        votes({"acceptable": {"a": False}, "corrections": {"a": "better"}}, {"demonstration": "best of all"})
    )
    assert labels(found) == [
        ("completion", "text a", False, 1), ("correction", "better", True, 1), ("demonstration", "best of all", True, 1),
    ]  # fmt: skip
    assert found[1]["acceptable_share"] is None
    assert labels(unpaired_rows(votes({"corrections": {"a": "better"}}), corrections=False)) == []


def test_a_ranking_and_none_acceptable_label_nothing():
    assert unpaired_rows(votes(ABC | {"none_acceptable": True})) == []


def test_a_completion_that_an_annotator_wrote_earlier_keeps_its_author():
    rows = votes(ABC)
    rows[0]["completions"][0] |= {"model": None, "author": {"annotator": "annotator-9", "annotator_kind": "model"}}
    [row] = sft_rows(rows)
    assert (row["source"], row["annotator"], row["annotator_kind"], row["model"]) == (
        "best",
        "annotator-9",
        "model",
        None,
    )
