from datetime import UTC, datetime

import pytest

from labeling.imports.records import Text
from tests.labeling.imports.formats.reading import contents, parts, reason, record, records

ASKED = [{"role": "user", "content": "Where is it?"}]
VOTE = {
    "task": "t1",
    "prompt": ASKED,
    "completions": [{"key": "a", "content": "Here.", "model": "m@1"}, {"key": "b", "content": "There.", "model": None}],
    "annotator": "p1",
    "annotator_kind": "human",
    "judgement": {"ranking": [["b"], ["a"]], "seconds": 12.5},
    "order_shown": ["b", "a"],
    "guideline_version": 2,
    "iteration": 3,
    "gold": False,
    "at": "2026-11-21T08:00:00Z",
}
PAIR = {
    "id": "5f", "group_id": "g1", "iteration": 2, "prompt": ASKED,
    "chosen": [{"role": "assistant", "content": "Here."}], "rejected": [{"role": "assistant", "content": "There."}],
    "strength": 2.0, "tie": False, "margin": None, "weight": 1.0, "agreement": 0.5, "n_votes": 2, "split": "train",
    "chosen_source": {"model": "m@2", "revision": "r", "adapter": None, "sampling": {"temperature": 1}, "seed": 7},
    "rejected_source": {"model": "m@1", "revision": None, "adapter": None, "sampling": None, "seed": None},
    "votes": [
        {"annotator": "p1", "annotator_kind": "human", "choice": "chosen", "strength": 2, "shown_order": ["b", "a"], "seconds": 3.5,
         "guideline_version": 1, "at": "2026-11-21T08:00:00Z"},
        {"annotator": "p2", "annotator_kind": "simulated", "choice": "rejected", "strength": None, "at": None},
    ],
    "reasons": ["It is right."], "flags": [], "licence": "CC0-1.0", "snapshot": "s#1", "edited": None, "adjudication": None,
}  # fmt: skip


# --- prompts and completions --------------------------------------------------------------------
def test_a_plain_text_is_one_message_of_the_user_and_lineage_is_kept():
    found = record("prompts", {"id": 7, "prompt": "Where is it?", "source": "desk", "licence": "CC0-1.0", "tags": ["x", "a", "x"]})
    assert (found.prompt, found.external_id, found.source, found.licence, found.tags) == (ASKED, "7", "desk", "CC0-1.0", ["a", "x"])


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({}, "prompt: must be a text or a list of messages that is not empty"),
        ({"prompt": ""}, "prompt: must be a text that is not empty"),
        ({"prompt": []}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": [{"role": "robot", "content": "x"}]}, "prompt[0].role"),
        ({"prompt": [{"role": ["user"], "content": "x"}]}, "prompt[0].role"),
        ({"prompt": [{"role": "user", "content": "x", "name": "y"}]}, 'prompt[0]: must be {"role", "content"}'),
        ({"prompt": [{"role": "assistant", "content": "x"}]}, "prompt: the last message must be the user's"),
        ({"prompt": "x\x00"}, "NUL"),
        ({"prompt": "x\ud800"}, "surrogate"),
        ({"prompt": "x", "extra": 1}, "unknown field 'extra'; known: group_id, id, licence, prompt, source, tags"),
        ({"prompt": "x", "tags": [""]}, "tags"),
        ({"prompt": "x", "id": "i" * 121}, "id: must be a text of at most 120 characters"),
    ],
)
def test_a_prompt_that_is_not_one_is_refused_with_the_field_that_is_wrong(row, why):
    assert why in reason("prompts", row)


def test_fields_that_are_not_known_can_be_ignored():
    assert record("prompts", {"prompt": "x", "reference": "y", "tags": "a, b"}, extra="ignore").tags == ["a", "b"]
    found = record("completions", {"prompt": "x", "completions": [{"content": "y", "score": 1}], "n": 2}, extra="ignore")
    assert contents(found) == ["y"]


def test_a_group_keeps_prompts_in_one_split():
    assert record("prompts", {"prompt": "x", "group_id": "g"}).group == "g"


def test_trl_prompts_are_prompts():
    assert record("prompts", {"prompt": [{"role": "system", "content": "Be kind."}, *ASKED]}).prompt[1] == ASKED[0]


def test_completions_are_texts_or_objects_with_their_lineage():
    row = {"prompt": "x", "completions": ["y", {"content": "z", "model": "m@1", "sampling": {"top_p": 0.9}}]}
    assert record("completions", row).completions == [Text("y"), Text("z", "m@1", {"top_p": 0.9})]


def test_a_row_may_be_one_completion():
    row = {"prompt": "x", "completion": "y", "model": "m@1", "sampling": "greedy"}
    assert record("completions", row).completions == [Text("y", "m@1", {"name": "greedy"})]


@pytest.mark.parametrize(
    ("completions", "why"),
    [
        (None, "completions: must be a list that is not empty"),
        ([], "completions: must be a list that is not empty"),
        ("y", "completions"),
        ([3], "completions[0]: must be an object or a text"),
        (["y", ""], "completions[1].content: must be a text that is not empty"),
        ([{"content": "y", "score": 1}], "completions[0]: has an unknown field 'score'"),
        ([{"content": "y", "model": 3.5}], "completions[0].model"),
        ([{"content": "y", "sampling": [1]}], "completions[0].sampling: must be an object"),
        ([{"content": "y", "sampling": {"t": float("nan")}}], "completions[0].sampling: holds what JSON cannot"),
        ([{"content": "y", "sampling": {"t": "\x00"}}], "NUL"),
        (["y"] * 65, "completions: at most 64, this row has 65"),
    ],
)
def test_completions_that_are_none_are_refused(completions, why):
    assert why in reason("completions", {"prompt": "x", "completions": completions})


def test_an_empty_completion_is_taken_where_there_is_a_word_for_it():
    row = {"prompt": "x", "completions": ["y", {"content": None, "model": "m@1"}]}
    assert contents(record("completions", row, empty="(nothing)")) == ["y", "(nothing)"]
    assert "completions[1].content" in reason("completions", row)


# --- votes --------------------------------------------------------------------------------------
def test_a_row_of_votes_keeps_who_said_what_when_and_in_which_order_it_was_shown():
    found = record("votes", VOTE)
    (vote,) = found.votes
    assert vote.judgement == {"ranking": [["b"], ["a"]], "seconds": 12.5}
    assert (vote.annotator, vote.kind, vote.order_shown, vote.guideline_version) == ("p1", "human", ["b", "a"], 2)
    assert vote.at == datetime(2026, 11, 21, 8, tzinfo=UTC)
    assert (found.external_id, found.iteration) == ("t1", 3)
    assert found.completions == [Text("Here.", "m@1"), Text("There.")]


def test_votes_from_parquet_carry_their_judgement_as_text():
    row = {**VOTE, "judgement": '{"ranking": [["a", "b"]], "rationale": "alike"}', "adjudication": None}
    assert record("votes", row).votes[0].judgement == {"ranking": [["a", "b"]], "rationale": "alike"}


def test_completions_may_have_keys_of_their_own():
    row = {
        **VOTE,
        "completions": [{"key": "x1", "content": "Here."}, {"key": "x2", "content": "There."}],
        "judgement": {"ranking": [["x2"], ["x1"]], "ratings": {"x1": {"tone": 2}}, "flags": {"x2": ["unsafe"]}},
        "order_shown": ["x2", "x1"],
    }
    (vote,) = record("votes", row).votes
    assert vote.judgement == {"ranking": [["b"], ["a"]], "ratings": {"a": {"tone": 2}}, "flags": {"b": ["unsafe"]}}
    assert vote.order_shown == ["b", "a"]


def test_imported_annotators_stay_people_and_others_what_they_are():
    kinds = [record("votes", {**VOTE, "annotator_kind": kind}).votes[0].kind for kind in ("imported", "simulated", "model", None)]
    assert kinds == ["human", "simulated", "model", "human"]


def test_every_part_of_a_judgement_is_taken():
    judgement = {
        "ranking": [["a"], ["b"]], "strength": 3, "ratings": {"a": {"tone": 4, "truth": 0.5}}, "acceptable": {"b": False},
        "flags": {"b": ["unsafe"]}, "corrections": {"b": "Over there."}, "none_acceptable": True, "rationale": "because", "seconds": 0,
        "marks": {"a": [{"start": 0, "end": 4, "label": "fact", "comment": "no"}]}, "demonstration": "Look behind you.",
    }  # fmt: skip
    assert record("votes", {**VOTE, "judgement": judgement}).votes[0].judgement == judgement


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"judgement": None}, "judgement: must be an object"),
        ({"judgement": {}}, "judgement: says nothing"),
        ({"judgement": {"seconds": 3}}, "judgement: says nothing"),
        ({"judgement": {"ranking": [["a"]]}}, "judgement.ranking: omits 'b'"),
        ({"judgement": {"ranking": [["a"], ["b"], ["c"]]}}, "judgement.ranking: names 'c'"),
        ({"judgement": {"ranking": [["a"], ["b"]], "strength": 4}}, "judgement.strength"),
        ({"judgement": {"ratings": {"a": {"tone": "good"}}}}, "judgement.ratings: of a: must be numbers"),
        ({"judgement": {"ratings": {"z": {"tone": 1}}}}, "judgement.ratings"),
        ({"judgement": {"corrections": {"a": "Here."}}}, "judgement.corrections: of a: is the completion as it was"),
        ({"judgement": {"marks": {"a": [{"start": 0, "end": 99, "label": "x"}]}}}, "judgement.marks: of a: must lie within"),
        ({"judgement": {"mood": 1}}, "judgement: has an unknown part 'mood'"),
        ({"judgement": {"ranking": [["a"], ["b"]], "seconds": -1}}, "judgement.seconds"),
        ({"order_shown": ["a"]}, "order_shown: must name every completion once"),
        ({"order_shown": ["a", "a"]}, "order_shown"),
        ({"annotator_kind": "robot"}, "annotator_kind"),
        ({"at": "yesterday"}, "at: must be a time"),
        ({"iteration": 0}, "iteration"),
        ({"completions": [{"key": "a", "content": "x"}, {"key": "a", "content": "y"}]}, "completions[1].key: 'a' is there twice"),
        ({"completions": [{"content": str(n)} for n in range(27)]}, "completions: a judgement can name at most 26"),
    ],
)
def test_a_vote_that_is_not_one_is_refused_with_the_field_that_is_wrong(changes, why):
    assert why in reason("votes", {**VOTE, **changes})


# --- pairs --------------------------------------------------------------------------------------
def test_a_row_of_pairs_gives_both_completions_and_each_vote_on_them():
    found = record("pairs", PAIR)
    assert found.completions == [Text("Here.", "m@2", {"temperature": 1, "revision": "r", "seed": 7}), Text("There.", "m@1")]
    first, second = found.votes
    assert first.judgement == {"ranking": [["a"], ["b"]], "strength": 2, "seconds": 3.5}
    assert (second.judgement, second.annotator, second.kind) == ({"ranking": [["b"], ["a"]]}, "p2", "simulated")
    assert (found.group, found.iteration, found.licence) == ("g1", 2, "CC0-1.0")


def test_one_vote_on_a_pair_also_has_the_reason_and_the_edit_of_the_row():
    row = {**PAIR, "votes": PAIR["votes"][:1], "edited": [{"role": "assistant", "content": "Right here."}]}
    judgement = record("pairs", row).votes[0].judgement
    assert (judgement["rationale"], judgement["corrections"]) == ("It is right.", {"a": "Right here."})


def test_a_pair_without_votes_is_one_vote_by_nobody_known():
    assert record("pairs", {**PAIR, "votes": []}).votes[0].judgement["ranking"] == [["a"], ["b"]]
    for tie in (True, "True"):
        assert record("pairs", {**PAIR, "votes": [], "tie": tie}).votes[0].judgement["ranking"] == [["a", "b"]]


def test_pairs_from_parquet_carry_votes_and_sampling_as_text():
    row = {**PAIR, "votes": '[{"annotator": "p1", "choice": "tie"}]', "chosen_source": {"model": "m", "sampling": '{"top_k": 5}'}}
    found = record("pairs", row)
    assert found.votes[0].judgement == {"ranking": [["a", "b"]], "rationale": "It is right."}
    assert found.completions[0].sampling == {"top_k": 5}


def test_a_vote_on_a_pair_must_say_which():
    assert reason("pairs", {**PAIR, "votes": [{"choice": "first"}]}) == "votes[0].choice: must be chosen, rejected or tie"


# --- equal texts --------------------------------------------------------------------------------
def test_nobody_can_prefer_a_text_to_itself():
    row = {**VOTE, "completions": [{"key": "a", "content": "Here."}, {"key": "b", "content": "Here. "}]}
    assert "are the same text" in reason("votes", row)


def test_two_models_that_said_the_same_may_tie():
    same = [{"key": "a", "content": "Here.", "model": "m@1"}, {"key": "b", "content": "Here.", "model": "m@2"}]
    found = record("votes", {**VOTE, "completions": same, "judgement": {"ranking": [["a", "b"]]}})
    assert len(found.completions) == 2


def test_of_more_than_two_equal_ones_become_one_at_the_better_place():
    three = [{"key": key, "content": text} for key, text in (("a", "Here."), ("b", "There."), ("c", "Here."))]
    row = {
        **VOTE, "completions": three, "order_shown": ["c", "a", "b"],
        "judgement": {"ranking": [["c"], ["b"], ["a"]], "ratings": {"a": {"tone": 1}, "b": {"tone": 2}, "c": {"tone": 3}}},
    }  # fmt: skip
    found = record("votes", row)
    assert contents(found) == ["Here.", "There."]
    (vote,) = found.votes
    assert vote.judgement == {"ranking": [["a"], ["b"]], "ratings": {"a": {"tone": 1}, "b": {"tone": 2}}}
    assert vote.order_shown == ["a", "b"]


def test_bad_rows_do_not_keep_good_ones_out():
    found = parts("prompts", {"prompt": "x"}, {"prompt": ""}, {"prompt": "y"})
    assert [part.line for part in found] == [1, 2, 3]
    assert len(records("prompts", {"prompt": "x"}, {"prompt": "x"})) == 2
