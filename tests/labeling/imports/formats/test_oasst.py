import copy

import pytest

from labeling.imports.records import Record, Rejected
from tests.labeling.imports.formats.reading import contents, parts, rankings, reason, records


def message(id: str, text: str, rank: int | None = None, replies: list | None = None, **more) -> dict:
    role = more.pop("role", "assistant")
    return {
        "message_id": id, "role": role, "text": text, "rank": rank, "lang": "en", "review_result": True, "deleted": False,
        "synthetic": False, "replies": replies or [], **more,
    }  # fmt: skip


def tree(*replies: dict, **more) -> dict:
    root = message("root", "Where is it?", role="prompter", replies=list(replies), **more.pop("root", {}))
    return {"message_tree_id": "t1", "tree_state": "ready_for_export", "origin": None, "prompt": root, **more}


def event(user: str, *ids: str, **more) -> dict:
    return {"type": "ranking", "user_id": user, "ranking": [1, 0, 2], "ranked_message_ids": list(ids), "ranking_parent_id": "root",
            "not_rankable": False, **more}  # fmt: skip


A, B, C = message("a", "Here.", 1), message("b", "There.", 0), message("c", "Nowhere.", 2)


def test_ranked_replies_are_a_record_by_consensus_of_nobody_in_particular():
    (found,) = records("oasst", tree(A, B, C))
    assert contents(found) == ["Here.", "There.", "Nowhere."]
    assert rankings(found) == [[["b"], ["a"], ["c"]]]
    assert found.votes[0].annotator == "consensus"
    assert (found.group, found.external_id, found.tags) == ("t1", "root", ["en"])


def test_deeper_replies_have_the_path_to_them_as_prompt():
    deep = message("d", "Really?", role="prompter", replies=[message("e", "Yes.", 0), message("f", "No.", 1)])
    upper, lower = records("oasst", tree({**A, "replies": [deep]}, B))
    assert [item["content"] for item in lower.prompt] == ["Where is it?", "Here.", "Really?"]
    assert [item["role"] for item in lower.prompt] == ["user", "assistant", "user"]
    assert (contents(lower), lower.group, lower.external_id) == (["Yes.", "No."], "t1", "d")
    assert contents(upper) == ["Here.", "There."]


def test_replies_without_a_rank_take_no_part():
    (found,) = records("oasst", tree(A, B, message("x", "Unranked.")))
    assert contents(found) == ["Here.", "There."]
    assert reason("oasst", tree(A, message("x", "Unranked."))) == "replies: none were ranked against each other"


def test_events_are_votes_in_the_order_of_the_ids_not_of_the_ranking():
    root = {"events": {"ranking": [event("u1", "c", "a", "b"), event("u2", "a", "b", "c")]}}
    (found,) = records("oasst", tree(A, B, C, root=root))
    assert rankings(found) == [[["c"], ["a"], ["b"]], [["a"], ["b"], ["c"]]]
    assert [vote.annotator for vote in found.votes] == ["u1", "u2"]


def test_those_who_ranked_other_sets_of_replies_make_a_record_of_their_own():
    root = {"events": {"ranking": [event("u1", "b", "a"), event("u2", "a", "b", "c"), event("u3", "a", "b", not_rankable=True)]}}
    two, three = records("oasst", tree(A, B, C, root=root))
    assert (contents(two), rankings(two)) == (["Here.", "There."], [[["b"], ["a"]]])
    assert (len(three.completions), rankings(three)) == (3, [[["a"], ["b"], ["c"]]])


def test_an_event_may_lie_anywhere_in_the_tree():
    away = {**C, "events": {"ranking": [event("u1", "a", "b")]}}
    (found,) = records("oasst", tree(A, B, away))
    assert rankings(found) == [[["a"], ["b"]]]


@pytest.mark.parametrize(
    ("flaw", "option"),
    [
        ({"deleted": True}, "deleted"),
        ({"review_result": False}, "failed_review"),
        ({"labels": {"spam": {"value": 0.8, "count": 3}}}, "spam"),
        ({"labels": {"name": ["quality", "spam"], "value": [0.1, 0.9], "count": [3, 3]}}, "spam"),
    ],
)
def test_messages_that_are_unfit_are_left_out_with_what_answers_them(flaw, option):
    row = tree(A, B, {**C, **flaw})
    assert [contents(found) for found in records("oasst", row)] == [["Here.", "There."]]
    assert [len(found.completions) for found in records("oasst", row, **{option: "keep"})] == [3]
    unfit_root = tree(A, B, root=flaw)
    assert "none were ranked" in reason("oasst", unfit_root)


def test_synthetic_messages_are_kept_with_their_model_unless_told_otherwise():
    row = tree(A, B, {**C, "synthetic": True, "model_name": "m@1"})
    (found,) = records("oasst", row)
    assert found.completions[2].model == "m@1"
    (found,) = records("oasst", row, synthetic="leave_out")
    assert len(found.completions) == 2


def test_trees_that_moderators_gave_up_are_refused_unless_told_otherwise():
    row = tree(A, B, tree_state="aborted_low_grade")
    assert reason("oasst", row) == "tree_state: is aborted_low_grade"
    assert len(records("oasst", row, trees="all")) == 1


def test_one_message_that_cannot_be_read_is_named_and_the_others_kept():
    found = parts("oasst", tree(A, B, message("c", " ", 2)))
    assert [type(part) for part in found] == [Rejected, Record]
    assert found[0].reason == "message c: text: must be a text that is not empty"
    assert contents(found[1]) == ["Here.", "There."]


def test_messages_without_ids_are_told_apart_all_the_same():
    bare = [{"role": "assistant", "text": text, "rank": rank} for rank, text in enumerate(["one", "two"])]
    (found,) = records("oasst", {"prompt": {"role": "prompter", "text": "p", "replies": bare}})
    assert rankings(found) == [[["a"], ["b"]]]


# --- message by message -------------------------------------------------------------------------
def flat(row: dict) -> list[dict]:
    rows = []
    waiting = [(row["prompt"], None)]
    while waiting:
        node, parent = waiting.pop()
        node = copy.deepcopy(node)
        waiting += [(reply, node["message_id"]) for reply in node.pop("replies")]
        rows.append({**node, "parent_id": parent, "message_tree_id": row["message_tree_id"], "tree_state": row["tree_state"]})
    return rows


def test_messages_that_lie_together_are_put_together_to_their_tree():
    other = tree(message("y", "Yes.", 0), message("n", "No.", 1)) | {"message_tree_id": "t2"}
    found = records("oasst", *flat(tree(A, B, C)), *flat(other))
    assert [(item.group, len(item.completions)) for item in found] == [("t1", 3), ("t2", 2)]
    assert sorted(contents(found[0])) == ["Here.", "Nowhere.", "There."]
    best = found[0].votes[0].judgement["ranking"][0][0]
    assert contents(found[0])["abc".index(best)] == "There."


def test_messages_without_their_first_one_are_refused_together():
    rows = flat(tree(A, B))[1:]
    assert len(parts("oasst", *rows)) == 2
    assert "the messages of a tree must lie together" in reason("oasst", *rows)


def test_a_tree_may_be_deep_but_not_without_end():
    node = message("last", "x", role="prompter")
    for number in range(300):
        node = message(str(number), "x", 0, [node], role=("assistant", "prompter")[number % 2])
    assert "go deeper than 200 messages" in reason("oasst", {"message_tree_id": "t", "prompt": node})
    around = [{"message_id": "a", "parent_id": "b", "text": "x", "role": "prompter", "message_tree_id": "t"},
              {"message_id": "b", "parent_id": "a", "text": "x", "role": "assistant", "message_tree_id": "t"}]  # fmt: skip
    assert "no message of this tree is its first one" in reason("oasst", *around)
