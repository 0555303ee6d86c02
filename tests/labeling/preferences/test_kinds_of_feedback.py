"""What corrections, demonstrations, marks and acceptances become in a snapshot, from the submit to the file."""

import hashlib
import json

import pyarrow.parquet as pq
import pytest

from labeling.annotation.models import Task
from labeling.annotation.services import create_tasks, open_leased_task, revise_judgement, submit_judgement, take_lease
from labeling.annotation.services.tasks import NewTask
from labeling.imports.services import import_rows
from labeling.preferences.errors import BadFilter, NothingToFreeze
from labeling.preferences.services import create_snapshot
from labeling.preferences.views_of_snapshots import VIEWS, read_rows, rows_in, view_file
from labeling.projects.models import Completion
from labeling.projects.services import change_project, pseudonym_of
from tests import factories

pytestmark = pytest.mark.django_db
FORM = {
    "corrections": True,
    "demonstration": "optional",
    "marks": ["wrong fact"],
    "acceptable": True,
    "flags": ["rude"],
    "ratings": {"helpfulness": {"low": 1, "high": 5}},
}


@pytest.fixture(autouse=True)
def files(settings, tmp_path):
    settings.FILES = tmp_path


@pytest.fixture
def asking(project):
    """The project asks for every part; everything is in the split train."""
    return change_project(project=project, form=FORM, eval_share=0.0)


def judge(project, annotator, lease=None, **parts):
    """Judge the next task; parts and ranking name completions by number, 0 being the one entered first."""
    lease = lease or take_lease(project=project, annotator=annotator)
    order = sorted(lease.order_shown)
    key = {number: "abcdefghi"[lease.order_shown.index(pk)] for number, pk in enumerate(order)}
    body = {
        name: [[key[n] for n in group] for group in value]
        if name == "ranking"
        else {key[n]: item for n, item in value.items()}
        if isinstance(value, dict)
        else value
        for name, value in parts.items()
    }
    return submit_judgement(lease=lease, submission_key=f"{annotator.pk}-{lease.pk}", body=body).judgement


def rows_of(snapshot, view):
    return [
        row
        for split in ("train", "eval")
        for row in read_rows(view_file(snapshot, split=split, view=view, format="jsonl"))
    ]


def answers(project):
    """The texts that were judged, by the numbers that `judge` takes."""
    found = Completion.objects.filter(prompt__project=project, author=None)
    return list(found.order_by("pk").values_list("content", flat=True))


def texts(row):
    return row["chosen"][0]["content"], row["rejected"][0]["content"]


def test_an_edit_beats_what_it_corrects_and_all_that_is_ranked_below_that(asking, annotator):
    factories.fill_project(asking, 1, n_completions=4)
    # The second is corrected: the edit beats it, the third and the fourth, and says nothing of the first.
    judge(asking, annotator, ranking=[[0], [1], [2], [3]], corrections={1: "Edited."}, rationale="Wrong day.")
    snapshot = create_snapshot(project=asking, created_by=None)
    edits = [row for row in rows_of(snapshot, "pairs") if row["chosen_source"]["author"]]
    assert [texts(row) for row in edits] == [("Edited.", text) for text in answers(asking)[1:]]
    assert sum(row["weight"] for row in edits) == pytest.approx(1)
    who = {"annotator": pseudonym_of(asking, annotator), "annotator_kind": "human"}
    for row in edits:
        source = {"model": None, "revision": None, "adapter": None, "sampling": None, "seed": None, "author": who}
        assert row["chosen_source"] == source and row["rejected_source"]["model"] == "tiny@1"
        assert (row["tie"], row["strength"], row["margin"], row["n_votes"], row["agreement"]) == (
            False,
            None,
            None,
            1,
            1.0,
        )
        assert row["edited"] == row["chosen"] and row["reasons"] == ["Wrong day."]
        assert row["votes"][0]["choice"] == "chosen" and row["votes"][0]["annotator"] == who["annotator"]
    assert len({row["id"] for row in rows_of(snapshot, "pairs")}) == 9
    assert (snapshot.n_pairs, snapshot.manifest["n_correction_pairs"], snapshot.manifest["n_corrections"]) == (9, 3, 1)
    assert snapshot.manifest["completions_by_model"] == {"tiny@1": 15, "written by annotators": 3}


def test_the_pair_of_the_original_carries_its_edit_so_that_edited_chosen_rejected_is_one_row(asking, annotator):
    factories.fill_project(asking, 1)
    judge(asking, annotator, ranking=[[0], [1], [2]], corrections={0: "Edited."})
    pairs = rows_of(create_snapshot(project=asking, created_by=None), "pairs")
    first, second, third = answers(asking)
    ranked = {texts(row): row["edited"] for row in pairs if row["chosen_source"]["author"] is None}
    edit = [{"role": "assistant", "content": "Edited."}]
    assert ranked == {(first, second): edit, (first, third): edit, (second, third): None}


def test_what_is_tied_with_the_corrected_one_is_not_beaten_by_its_edit(asking, annotator):
    factories.fill_project(asking, 1)
    judge(asking, annotator, ranking=[[0, 1], [2]], corrections={0: "Edited."})
    pairs = rows_of(create_snapshot(project=asking, created_by=None), "pairs")
    edits = [texts(row) for row in pairs if row["edited"] == row["chosen"]]
    first, _second, third = answers(asking)
    assert edits == [("Edited.", first), ("Edited.", third)]


def test_an_edit_does_not_beat_a_completion_of_the_same_text(asking, annotator):
    factories.fill_project(asking, 1)
    first, second, third = answers(asking)
    judge(asking, annotator, ranking=[[0], [1], [2]], corrections={0: third})
    pairs = rows_of(create_snapshot(project=asking, created_by=None), "pairs")
    edits = [row for row in pairs if row["edited"] == row["chosen"]]
    assert [texts(row)[1] for row in edits] == [first, second]
    assert all(row["weight"] == 0.5 for row in edits)


def test_edits_of_two_people_stay_apart_and_a_revision_takes_the_place_of_the_first(asking, annotator, other_annotator):
    factories.fill_project(asking, 1, n_completions=2, overlap=2)
    first = judge(asking, annotator, ranking=[[0], [1]], corrections={1: "First."})
    judge(asking, other_annotator, ranking=[[1], [0]], corrections={1: "Other."})
    key = "ab"[first.order_shown.index(max(first.order_shown))]
    order = [[key], ["b" if key == "a" else "a"]]
    revise_judgement(judgement=first, submission_key="r", body={"ranking": order, "corrections": {key: "Second."}})
    pairs = rows_of(create_snapshot(project=asking, created_by=None), "pairs")
    edits = [(*texts(row), row["weight"]) for row in pairs if row["edited"] == row["chosen"]]
    other, original = answers(asking)
    assert sorted(edits) == sorted([
        ("Other.", original, 0.5), ("Other.", other, 0.5), ("Second.", original, 0.5), ("Second.", other, 0.5),
    ])  # fmt: skip


def test_left_out_corrections_leave_pairs_and_sft_rows_as_if_nobody_had_edited(asking, annotator):
    factories.fill_project(asking, 2)
    for _ in range(2):
        judge(asking, annotator, ranking=[[0], [1], [2]], corrections={0: "Edited."})
    included = create_snapshot(project=asking, created_by=None)
    left_out = create_snapshot(project=asking, created_by=None, policy={"corrections": "leave_out"})
    assert (included.n_pairs, left_out.n_pairs) == (12, 6)
    assert {row["edited"] is None for row in rows_of(left_out, "pairs")} == {True}
    assert {row["source"] for row in rows_of(left_out, "sft")} == {"best"}
    assert {row["source"] for row in rows_of(included, "sft")} == {"correction"}
    assert left_out.manifest["n_corrections"] == 2  # they are still in its votes
    with pytest.raises(BadFilter):
        create_snapshot(project=asking, created_by=None, policy={"corrections": "maybe"})


def test_a_project_without_the_new_parts_freezes_the_rows_it_always_froze(project, annotator, settings):
    factories.fill_project(project, 3)
    factories.judge_all(project, annotator)
    default = create_snapshot(project=project, created_by=None)
    assert create_snapshot(project=project, created_by=None, policy={"corrections": "leave_out"}) == default
    frozen = settings.FILES / "snapshots" / default.folder
    [row, *_] = [*read_rows(frozen / "pairs.train.jsonl"), *read_rows(frozen / "pairs.eval.jsonl")]
    assert row["edited"] is None and set(row["chosen_source"]) == {"model", "revision", "adapter", "sampling", "seed"}
    assert set(default.manifest["files"]) == {
        f"{kind}.{split}.jsonl" for kind in ("pairs", "votes") for split in ("train", "eval")
    }


def test_votes_carry_every_part_under_the_keys_of_the_task(asking, annotator):
    factories.fill_project(asking, 6)
    mark = {"start": 0, "end": 6, "label": "wrong fact", "comment": "no"}
    for _ in range(6):
        judge(
            asking, annotator, ranking=[[0], [1], [2]], corrections={1: "Edited."}, marks={2: [mark]},
            acceptable={0: True, 1: False}, flags={2: ["rude"]}, demonstration="Mine.",
        )  # fmt: skip
    snapshot = create_snapshot(project=asking, created_by=None)
    votes = rows_of(snapshot, "votes")
    assert len({tuple(vote["order_shown"]) for vote in votes}) > 1  # else this test would prove nothing
    for vote in votes:
        assert vote["judgement"] == {
            "ranking": [["a"], ["b"], ["c"]], "corrections": {"b": "Edited."}, "marks": {"c": [mark]},
            "acceptable": {"a": True, "b": False}, "flags": {"c": ["rude"]}, "demonstration": "Mine.",
        }  # fmt: skip
    manifest = snapshot.manifest
    assert [manifest[f"n_{part}"] for part in ("rankings", "corrections", "demonstrations", "acceptable", "marks")] == [
        6,
        6,
        6,
        12,
        6,
    ]


def test_a_project_of_demonstrations_alone_is_freezable(project, annotator):
    change_project(project=project, form={"ranking": False, "demonstration": "required"}, eval_share=0.0)
    import_rows(project=project, format="prompts", lines=[b'{"prompt": "Greet me", "licence": "MIT"}'], created_by=None)
    prompt = project.prompts.get()
    create_tasks(project=project, new_tasks=[NewTask(prompt.pk, [])])
    judge(project, annotator, demonstration="Good morning!")
    snapshot = create_snapshot(project=project, created_by=None)
    assert (snapshot.n_pairs, snapshot.n_judgements, snapshot.manifest["n_demonstrations"]) == (0, 1, 1)
    [row] = rows_of(snapshot, "sft")
    assert row == {
        "messages": [{"role": "user", "content": "Greet me"}, {"role": "assistant", "content": "Good morning!"}],
        "source": "demonstration", "model": None, "annotator": pseudonym_of(project, annotator), "annotator_kind": "human",
        "group_id": prompt.group_id, "licence": "MIT",
    }  # fmt: skip
    assert [row["label"] for row in rows_of(snapshot, "unpaired")] == [True]
    assert rows_of(snapshot, "preference") == rows_of(snapshot, "pairs") == []
    assert snapshot.manifest["n_groups"] == {"train": 1, "eval": 0}


def test_single_completions_that_are_accepted_or_not_become_unpaired_rows(project, annotator, other_annotator):
    change_project(project=project, form={"ranking": False, "acceptable": True}, eval_share=0.0)
    import_rows(project=project, format="completions", lines=factories.completions_rows(2, 1), created_by=None)
    create_tasks(
        project=project, overlap=2,
        new_tasks=[NewTask(item.prompt_id, [item.pk]) for item in Completion.objects.filter(prompt__project=project)],
    )  # fmt: skip
    judge(project, annotator, acceptable={0: True})
    judge(project, other_annotator, acceptable={0: True})
    judge(project, annotator, acceptable={0: False})
    snapshot = create_snapshot(project=project, created_by=None)
    rows = rows_of(snapshot, "unpaired")
    assert sorted((row["label"], row["acceptable_share"], row["n_votes"]) for row in rows) == [
        (False, 0.0, 1),
        (True, 1.0, 2),
    ]
    assert {row["model"] for row in rows} == {"tiny@1"} and {row["licence"] for row in rows} == {"CC0-1.0"}
    assert [row["source"] for row in rows_of(snapshot, "sft")] == ["best"]


def test_a_completion_written_by_an_annotator_names_them_when_others_rank_it(asking, annotator, other_annotator):
    factories.fill_project(asking, 1, n_completions=2)
    judge(asking, annotator, ranking=[[0], [1]], corrections={1: "Edited."})
    prompt = asking.prompts.get()
    edit = prompt.completions.get(author=annotator)
    old = prompt.completions.filter(author=None).first()
    create_tasks(project=asking, new_tasks=[NewTask(prompt.pk, [old.pk, edit.pk])], iteration=2)
    judge(asking, other_annotator, ranking=[[1], [0]])
    snapshot = create_snapshot(project=asking, created_by=None, filters={"iterations": [2]})
    who = {"annotator": pseudonym_of(asking, annotator), "annotator_kind": "human"}
    [row] = rows_of(snapshot, "pairs")
    assert (row["chosen_source"]["author"], row["rejected_source"]["author"], row["edited"]) == (who, None, None)
    [vote] = rows_of(snapshot, "votes")
    assert [item.get("author") for item in vote["completions"]] == [None, who]
    assert rows_of(snapshot, "sft")[0]["annotator"] == who["annotator"]


def test_every_view_says_how_many_rows_it_has_and_both_formats_hold_them(asking, annotator, tmp_path):
    factories.fill_project(asking, 8)
    for number in range(8):
        judge(
            asking,
            annotator,
            ranking=[[0], [1], [2]],
            acceptable={0: True, 2: False},
            ratings={1: {"helpfulness": 4}, 2: {"helpfulness": 1}},
            **({"demonstration": "Mine."} if number % 2 else {"corrections": {0: "Edited."}}),
        )
    snapshot = create_snapshot(project=asking, created_by=None)
    for view in VIEWS:
        lines = [
            json.loads(line)
            for line in view_file(snapshot, split="train", view=view, format="jsonl").read_bytes().splitlines()
        ]
        assert len(lines) == rows_in(snapshot, view, "train") > 0
        if not VIEWS[view].columns:
            continue
        table = pq.read_table(view_file(snapshot, split="train", view=view, format="parquet"))
        assert table.num_rows == len(lines)
        for name in ("messages", "completion", "label", "edited", "annotator", "chosen"):
            if name in lines[0]:
                assert table.column(name).to_pylist() == [line[name] for line in lines]
        # Nobody settled a task here: there is a column for it all the same, as all rows have one shape.
        assert set(lines[0]) == set(table.column_names), view


def test_a_view_is_the_same_file_whoever_asks_and_takes_few_queries(asking, annotator, django_assert_max_num_queries):
    factories.fill_project(asking, 30)
    for _ in range(30):
        judge(asking, annotator, ranking=[[0], [1], [2]], acceptable={0: True})
    snapshot = create_snapshot(project=asking, created_by=None)
    with django_assert_max_num_queries(2):
        first = view_file(snapshot, split="train", view="sft", format="jsonl")
        digest = hashlib.sha256(first.read_bytes()).hexdigest()
        first.unlink()
        again = view_file(snapshot, split="train", view="sft", format="jsonl")
    assert hashlib.sha256(again.read_bytes()).hexdigest() == digest


def test_nothing_judged_and_filters_that_leave_nothing_are_told_apart(asking, annotator):
    factories.fill_project(asking, 1)
    with pytest.raises(NothingToFreeze, match="Nothing is judged yet"):
        create_snapshot(project=asking, created_by=None)
    judge(asking, annotator, ranking=[[0], [1], [2]])
    with pytest.raises(NothingToFreeze, match="None of the 1 judgements"):
        create_snapshot(project=asking, created_by=None, filters={"annotator_kinds": ["model"]})


def test_a_turn_of_a_conversation_is_frozen_like_any_comparison(asking, annotator):
    factories.fill_project(asking, 1, n_completions=2)
    prompt = asking.prompts.get()
    ids = list(prompt.completions.values_list("pk", flat=True))
    lease = open_leased_task(
        project=asking, prompt=prompt, completion_ids=ids,
        annotator=annotator, kind=Task.CONVERSATION, order=ids,
    )  # fmt: skip
    judge(asking, annotator, lease=lease, ranking=[[0], [1]], corrections={0: "Edited."})
    snapshot = create_snapshot(project=asking, created_by=None)
    assert (snapshot.n_pairs, snapshot.manifest["n_correction_pairs"]) == (3, 2)
