"""What each view's rows say of the judgements that were frozen."""

import csv
import io
import json

import orjson
import pyarrow.parquet as pq
import pytest

from labeling.preferences.services import create_snapshot, snapshots_folder
from labeling.preferences.views_of_snapshots import VIEWS, preference_rows, rows_in, view_file
from labeling.preferences.views_out import making
from labeling.preferences.views_out.axes import pairs_by_axis
from labeling.preferences.views_out.columns import JSON, NUMBER, WORD, cell
from labeling.projects.services import pseudonym_of
from tests.labeling.preferences.views_out.conftest import QUESTIONS, add_tasks, judge, rows_of

pytestmark = pytest.mark.django_db
TABLES = [name for name, view in VIEWS.items() if view.columns]


def test_standard_preferences_are_texts_that_follow_each_other_after_a_space(snapshot):
    rows = rows_of(snapshot, "preference_standard")
    assert len(rows) == snapshot.n_pairs and {row["chosen"][0] for row in rows} == {" "}
    assert {row["prompt"] for row in rows} == {
        "=1+1, or what?",
        "System: Be short.\n\nUser: Where is my parcel?\n\nAssistant:",
        "User: Hello\n\nAssistant: Good day.\n\nUser: “Where” is\tmy 📦?\n\nHuman: is not a turn\n\nAssistant:",
    }
    conversational = rows_of(snapshot, "preference")
    assert [row["chosen"][1:] for row in rows] == [row["chosen"][0]["content"] for row in conversational]
    for name in ("margin", "weight", "soft_label", "group_id", "tie"):
        assert [row[name] for row in rows] == [row[name] for row in conversational]


def test_hh_rows_are_transcripts_that_part_at_the_last_turn_and_hold_no_ties(snapshot):
    pairs = [row for row in rows_of(snapshot, "pairs") if not row["tie"]]
    rows = rows_of(snapshot, "hh")
    assert len(rows) == len(pairs) and set(rows[0]) == {"chosen", "rejected"}
    for row, pair in zip(rows, pairs, strict=True):
        before, _, last = row["chosen"].rpartition("\n\nAssistant: ")
        assert row["rejected"].startswith(before + "\n\nAssistant: ") and last == pair["chosen"][0]["content"]
    by_prompt = {row["chosen"].rpartition("\n\nAssistant: ")[0] for row in rows}
    assert by_prompt == {
        "\n\nHuman: =1+1, or what?",
        "\n\nHuman: Be short.\n\nWhere is my parcel?",
        # A marker in somebody's text is no turn.
        "\n\nHuman: Hello\n\nAssistant: Good day.\n\nHuman: “Where” is\tmy 📦?\n\n Human: is not a turn",
    }


def test_each_prompt_is_there_once_with_its_group_and_licence(snapshot, judged):
    rows = rows_of(snapshot, "prompt")
    assert [row["prompt"] for row in rows] == QUESTIONS
    assert [row["group_id"] for row in rows] == list(judged.prompts.order_by("pk").values_list("group_id", flat=True))
    assert {row["licence"] for row in rows} == {"CC0-1.0"}


def test_a_ranking_is_the_consensus_of_the_votes_with_ties_in_one_group(snapshot, judged, annotator, other_annotator):
    [row, *_] = rows_of(snapshot, "ranking")
    # By mean rank: b is tied for 1.5 and last, 1.75; c tied for 1.5 and second, 1.25.
    assert row["ranking"] == [["a"], ["c"], ["b"]] and row["ranks"] == [0, 2, 1]
    assert row["mean_ranks"] == [0, 1.75, 1.25]
    assert (row["n_votes"], row["weight"], row["pair_weight"], row["settled"]) == (2, 1.0, 1 / 3, False)
    assert row["agreement"] == 5 / 6  # one of six votes on pairs, the tie, says something else
    [vote, *_] = rows_of(snapshot, "votes")
    assert row["completions"] == [{**item, "author": None} for item in vote["completions"]]
    assert row["rankings"] == [
        {"annotator": pseudonym_of(judged, annotator), "annotator_kind": "human", "ranking": [["a"], ["b", "c"]]},
        {"annotator": pseudonym_of(judged, other_annotator), "annotator_kind": "human", "ranking": [["a"], ["c"], ["b"]]},
    ]


def test_equal_mean_ranks_share_a_group(project, annotator, other_annotator):
    add_tasks(project, [[{"role": "user", "content": "Which?"}]], 3, overlap=2)
    judge(project, annotator, ranking=[[0], [1], [2]])
    judge(project, other_annotator, ranking=[[1], [0], [2]])
    snapshot = create_snapshot(project=project, created_by=None)
    [row] = rows_of(snapshot, "ranking") + rows_of(snapshot, "ranking", "eval")
    assert row["ranking"] == [["a", "b"], ["c"]] and row["ranks"] == [0, 0, 1]


def test_ratings_have_a_row_for_each_completion_and_axis(snapshot, judged, annotator, other_annotator):
    rows = [row for row in rows_of(snapshot, "ratings") if row["prompt"] == QUESTIONS[0]]
    assert [(row["key"], row["axis"], row["mean"], row["n"]) for row in rows] == [
        ("a", "Helpfulness", 4.5, 2), ("a", "Tone!", -2.0, 1), ("b", "Helpfulness", 2.0, 1),
    ]  # fmt: skip
    assert [(who["annotator"], who["value"]) for who in rows[0]["values"]] == [
        (pseudonym_of(judged, annotator), 5), (pseudonym_of(judged, other_annotator), 4),
    ]  # fmt: skip
    [vote, *_] = rows_of(snapshot, "votes")
    first = vote["completions"][0]
    assert rows[0]["completion"] == [{"role": "assistant", "content": first["content"]}]
    assert rows[0]["model"] == first["model"]


def test_votes_that_nobody_settled_say_so(snapshot):
    assert {row["adjudication"] for row in rows_of(snapshot, "votes")} == {None}
    assert {row["adjudication"] for row in rows_of(snapshot, "pairs")} == {None}


def in_parquet(value, shape):
    """A value of JSON lines as Parquet holds it: every field there, and what varies as text."""
    if value is None:
        return None
    if isinstance(shape, dict):
        return {key: in_parquet(value.get(key), inner) for key, inner in shape.items()}
    if isinstance(shape, list):
        return [in_parquet(item, shape[0]) for item in value]
    if shape is JSON or (shape is WORD and not isinstance(value, str)):
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    return value if shape is not NUMBER or (type(value) is int and abs(value) < 2**63) else None


@pytest.mark.parametrize("view", TABLES)
def test_all_kinds_of_a_view_hold_the_same_rows(snapshot, view):
    lines = rows_of(snapshot, view)
    columns = VIEWS[view].columns
    table = pq.read_table(view_file(snapshot, split="train", view=view, format="parquet"))
    assert table.to_pylist() == [in_parquet(row, columns) for row in lines]
    content = view_file(snapshot, split="train", view=view, format="csv").read_text()
    first, *rest = csv.reader(io.StringIO(content, newline=""))
    assert first == list(columns)
    assert rest == [[cell(row.get(name)) for name in columns] for row in lines]
    assert rows_in(snapshot, view, "train") == len(lines) > 0


def test_arrays_hold_the_rows_of_the_lines(snapshot):
    for view in ("argilla", "label_studio"):
        array = json.loads(view_file(snapshot, split="train", view=view, format="json").read_bytes())
        assert array == rows_of(snapshot, view) and len(array) == 3
        assert json.loads(view_file(snapshot, split="eval", view=view, format="json").read_bytes()) == []


def test_views_of_no_rows_are_files_all_the_same(snapshot):
    for name, view in VIEWS.items():
        for kind in view.kinds:
            path = view_file(snapshot, split="eval", view=name, format=kind)
            if kind == "parquet":
                assert pq.read_table(path).num_rows == 0 and set(pq.read_table(path).column_names) == set(view.columns)
            if kind == "csv":
                assert path.read_text().strip() == ",".join(view.columns)


def test_snapshots_from_before_soft_labels_and_frozen_groups_still_export(snapshot, judged):
    expected = {view: rows_of(snapshot, view) for view in VIEWS}
    of_pairs = [*preference_rows(snapshot, "train")]
    for path in (snapshots_folder() / snapshot.folder).glob("*.jsonl"):
        rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        newer = ("soft_label", "group_id" if path.name.startswith("votes") else "", "licence" if path.name.startswith("votes") else "")
        older = [{key: value for key, value in row.items() if key not in newer} for row in rows]
        path.write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in older))
    for path in (snapshots_folder() / snapshot.folder / "views-2").iterdir():
        path.unlink()
    for name, view in VIEWS.items():
        if name != "votes":
            assert rows_of(snapshot, name) == expected[name], name
        if "parquet" in view.kinds:
            table = pq.read_table(view_file(snapshot, split="train", view=name, format="parquet"))
            assert table.num_rows == len(expected[name])
            if "soft_label" in view.columns:
                assert table.column("soft_label").to_pylist() == [row["soft_label"] for row in expected[name]]
    assert [*preference_rows(snapshot, "train")] == of_pairs
    assert {row["soft_label"] for row in of_pairs} <= {0.5, 1.0}


def test_a_row_longer_than_a_block_and_texts_of_every_kind_come_through_parquet(project, annotator, monkeypatch):
    monkeypatch.setattr(making, "PARSE_BYTES", 1000)
    monkeypatch.setattr(making, "BLOCK_BYTES", 3000)
    texts = ["x" * 5000, "a\u2028b\\u0000\"'\n\t" + "é漢🙂", "\ufeff{\"prompt\":[]}"]
    add_tasks(project, [[{"role": "user", "content": text}] for text in texts], 2, overlap=1)
    for _ in texts:
        judge(project, annotator, ranking=[[0], [1]])
    snapshot = create_snapshot(project=project, created_by=None)
    for view in ("preference", "pairs", "votes"):
        found = [
            row["prompt"][0]["content"]
            for split in ("train", "eval")
            for row in pq.read_table(view_file(snapshot, split=split, view=view, format="parquet")).to_pylist()
        ]
        assert sorted(found) == sorted(texts)


def test_seeds_and_revisions_of_any_kind_do_not_stop_parquet(project, annotator):
    samplings = [{"seed": 2**70, "revision": 3, "temperature": 1}, {"seed": "x", "adapter": ["a"], "tie": {"prompt": []}}]
    add_tasks(project, QUESTIONS[:1], 2, overlap=1)
    for completion, sampling in zip(project.prompts.get().completions.order_by("pk"), samplings, strict=True):
        completion.sampling = sampling
        completion.save()
    judge(project, annotator, ranking=[[0], [1]])
    snapshot = create_snapshot(project=project, created_by=None)
    split = "train" if rows_of(snapshot, "pairs") else "eval"
    [row] = pq.read_table(view_file(snapshot, split=split, view="pairs", format="parquet")).to_pylist()
    sources = [(row[side]["seed"], row[side]["revision"], row[side]["adapter"]) for side in ("chosen_source", "rejected_source")]
    assert sources == [(None, "3", None), (None, None, '["a"]')]
    [line] = rows_of(snapshot, "pairs", split)
    assert line["rejected_source"]["seed"] == "x" and json.loads(row["rejected_source"]["sampling"]) == {"tie": {"prompt": []}}


def test_ratings_are_pairs_of_their_axis(snapshot):
    rows = rows_of(snapshot, "preference_by_axis")
    # Only the first of two people rated two completions, and those on one axis alone.
    assert [row["axis"] for row in rows] == ["Helpfulness"] * 3
    assert [(row["chosen_mean"], row["rejected_mean"], row["n_votes"], row["tie"]) for row in rows] == [(5, 2, 1, False)] * 3
    assert {row["weight"] for row in rows} == {1.0} and len({row["id"] for row in rows}) == 3
    assert {row["chosen"][0]["content"] for row in rows} == {"-Answer 0"}


def rated(*ratings, **more):
    """Rows of votes on one task, each rating completions a, b and c on axes."""
    completions = [{"key": key, "content": key.upper(), "model": None} for key in "abc"]
    task = {"task": "t", "prompt": [], "completions": completions, "iteration": 1}
    return [task | {"judgement": {"ratings": given, **more}} for given in ratings]


def test_pairs_of_an_axis_follow_the_means_of_those_who_rated_both():
    votes = rated(
        {"a": {"tone": 5, "facts": 1}, "b": {"tone": 1}, "c": {"tone": 3}},
        {"a": {"tone": 2}, "b": {"tone": 3}},
        {"c": {"tone": 5}},
    )
    rows = pairs_by_axis(votes)
    found = {(row["chosen"][0]["content"], row["rejected"][0]["content"]): row for row in rows}
    assert set(found) == {("A", "B"), ("A", "C"), ("C", "B")}  # c's 5 was given by somebody who rated nothing else
    assert (found["A", "B"]["chosen_mean"], found["A", "B"]["rejected_mean"]) == (3.5, 2.0)
    assert found["A", "B"]["agreement"] == 0.5 and found["A", "B"]["n_votes"] == 2
    assert sum(row["weight"] for row in rows) == pytest.approx(1)
    assert [row["axis"] for row in rows] == ["tone"] * 3  # of facts there is one rating, which compares nothing


@pytest.mark.parametrize("ties, n, label", [("drop", 0, None), ("soft_label", 1, 0.5), ("both", 2, 0.5)])
def test_equal_ratings_are_ties_by_the_policy(ties, n, label):
    rows = pairs_by_axis(rated({"a": {"tone": 2}, "b": {"tone": 2}}), ties=ties)
    assert len(rows) == n and {row["soft_label"] for row in rows} == ({label} if n else set())
    assert sum(row["weight"] for row in rows) == (1.0 if n else 0)


def test_what_was_flagged_is_compared_on_no_axis():
    votes = rated({"a": {"tone": 5}, "b": {"tone": 1}, "c": {"tone": 3}}, flags={"b": ["unsafe"]})
    assert len(pairs_by_axis(votes)) == 3
    [row] = pairs_by_axis(votes, without_flags=["unsafe"])
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"], row["weight"]) == ("A", "C", 1.0)
