"""What leaves as another tool's file comes in again as the same judgements."""

import json
from datetime import datetime
from itertools import groupby

import pytest

from labeling.imports.formats import FORMATS
from labeling.imports.records import Record, SourceRow
from labeling.preferences.services import create_snapshot
from labeling.preferences.views_of_snapshots import view_file
from labeling.projects.services import change_project
from tests.labeling.preferences.views_out.conftest import (
    FORM,
    QUESTIONS,
    add_tasks,
    files,
    judge,
    judged,
    rows_of,
    snapshot,
)

__all__ = ["files", "judged", "snapshot"]
pytestmark = pytest.mark.django_db


def records_of(snapshot, view, format, **options):
    rows = [
        SourceRow(number, row)
        for number, row in enumerate((row for split in ("train", "eval") for row in rows_of(snapshot, view, split)), 1)
    ]
    found = list(FORMATS[format].records(rows, options))
    assert [part for part in found if not isinstance(part, Record)] == []
    return found


def config_of(snapshot):
    return view_file(snapshot, split="config", view="label_studio", format="xml").read_text()


def went_in(snapshot, *, axes=None, without=()):
    """What the votes say, in the terms of records: prompt, completions, and of each vote its judgement and origin."""
    tasks = {}
    for vote in [row for split in ("train", "eval") for row in rows_of(snapshot, "votes", split)]:
        judgement = json.loads(json.dumps(vote["judgement"]))
        for given in judgement.get("ratings", {}).values():
            for axis in list(given):
                given[(axes or {}).get(axis, axis)] = given.pop(axis)
        for mark in (mark for marks in judgement.get("marks", {}).values() for mark in marks):
            if "comment" in without:
                mark.pop("comment", None)
        _, _, votes = tasks.setdefault(
            vote["task"],
            (vote["prompt"], [(item["content"], item["model"] or "") for item in vote["completions"]], []),
        )
        at = datetime.fromisoformat(vote["at"])
        kind = {"imported": "human"}.get(vote["annotator_kind"], vote["annotator_kind"])
        # Nobody knows in what order an imported judgement's completions were shown.
        votes.append(
            (judgement, vote["annotator"], kind, vote["order_shown"] or None, vote["guideline_version"], at)
        )
    return list(tasks.values())


def came_out(records):
    return [
        (
            record.prompt,
            [(text.content, text.model) for text in record.completions],
            [
                (vote.judgement, vote.annotator, vote.kind, vote.order_shown, vote.guideline_version, vote.at)
                for vote in record.votes
            ],
        )
        for record in records
    ]


def test_votes_come_in_again_as_they_went_out(snapshot):
    records = records_of(snapshot, "votes", "votes")  # one a vote, told to be of one task by its id
    together = [list(group) for _, group in groupby(records, key=lambda record: record.external_id)]
    assert [
        (prompt, completions, [votes[0] for _, _, votes in came_out(group)])
        for group in together
        for prompt, completions, _ in came_out(group[:1])
    ] == went_in(snapshot)


def test_argilla_brings_back_what_it_was_given_but_for_comments_on_marks(snapshot):
    records = records_of(snapshot, "argilla", "argilla")
    assert came_out(records) == went_in(snapshot, axes={"Helpfulness": "helpfulness", "Tone!": "tone"}, without=("comment",))
    assert {record.licence for record in records} == {"CC0-1.0"} and len({record.group for record in records}) == 3


def test_label_studio_brings_back_all_that_it_was_given(snapshot):
    records = records_of(snapshot, "label_studio", "label_studio", config=config_of(snapshot))
    assert came_out(records) == went_in(snapshot, axes={"Helpfulness": "helpfulness", "Tone!": "tone"})
    assert {record.licence for record in records} == {"CC0-1.0"} and len({record.group for record in records}) == 3


@pytest.fixture
def of_two(project, annotator, other_annotator):
    """Comparisons of two, without a tie."""
    project = change_project(project=project, form={**FORM, "ties": False}, eval_share=0.0)
    add_tasks(project, QUESTIONS, 2, overlap=2)
    for number in range(3):
        judge(project, annotator, ranking=[[number % 2], [1 - number % 2]], seconds=4.0, strength=3)
        judge(project, other_annotator, ranking=[[0], [1]], seconds=5.0, corrections={0: f"Better {number}"})
    return project


@pytest.mark.parametrize("view", ["argilla", "label_studio"])
def test_comparisons_of_two_come_back_with_the_right_side_as_the_better_one(of_two, view):
    snapshot = create_snapshot(project=of_two, created_by=None)
    options = {"config": config_of(snapshot)} if view == "label_studio" else {}
    if options:
        assert "<Pairwise" in options["config"] and "<Ranker" not in options["config"]
    assert came_out(records_of(snapshot, view, view, **options)) == went_in(snapshot)


@pytest.mark.parametrize("view", ["argilla", "label_studio"])
def test_a_tie_of_two_comes_back_as_a_tie(project, annotator, view):
    add_tasks(project, QUESTIONS[:1], 2, overlap=1)
    judge(project, annotator, ranking=[[0, 1]], rationale="The same.")
    snapshot = create_snapshot(project=project, created_by=None)
    options = {"config": config_of(snapshot)} if view == "label_studio" else {}
    [(_, _, [vote])] = came_out(records_of(snapshot, view, view, **options))
    assert vote[0]["ranking"] == [["a", "b"]] and vote[0]["rationale"] == "The same."


@pytest.mark.parametrize("view", ["argilla", "label_studio"])
def test_tasks_of_different_sizes_come_back_whole(project, annotator, view):
    change_project(project=project, form=FORM, eval_share=0.0)
    for n, question in zip((2, 3, 4), QUESTIONS, strict=True):
        add_tasks(project, [question], n, overlap=1)
        order = [[1, 0], *([number] for number in range(2, n))]
        judge(project, annotator, ranking=order, ratings={n - 1: {"Helpfulness": 3}})
    snapshot = create_snapshot(project=project, created_by=None)
    options = {"config": config_of(snapshot)} if view == "label_studio" else {}
    found = came_out(records_of(snapshot, view, view, **options))
    assert found == went_in(snapshot, axes={"Helpfulness": "helpfulness"})


@pytest.mark.parametrize("view", ["argilla", "label_studio"])
def test_ratings_without_a_ranking_come_back(project, annotator, view):
    change_project(project=project, form={**FORM, "ranking": False, "strength": False}, eval_share=0.0)
    add_tasks(project, QUESTIONS, 2, overlap=1)
    for number in range(3):
        judge(project, annotator, ratings={0: {"Helpfulness": 1 + number, "Tone!": -1}, 1: {"Helpfulness": 5}}, rationale="So.")
    snapshot = create_snapshot(project=project, created_by=None)
    options = {"config": config_of(snapshot)} if view == "label_studio" else {"completions": "a,b"}
    found = came_out(records_of(snapshot, view, view, **options))
    assert found == went_in(snapshot, axes={"Helpfulness": "helpfulness", "Tone!": "tone"})


def preferred(row):
    return row["prompt"], row["chosen"][0]["content"], row["rejected"][0]["content"], row["tie"]


def of_record(record):
    [vote] = record.votes
    ranking = vote.judgement["ranking"]
    first, second = ([text.content for text in record.completions]["ab".index(key)] for group in ranking for key in group)
    return record.prompt, first, second, len(ranking) == 1


@pytest.mark.parametrize("format", ["preference", "pairs"])
def test_pairs_come_in_again_with_their_winner(of_two, format):
    snapshot = create_snapshot(project=of_two, created_by=None)
    records = records_of(snapshot, format, format)
    out = [preferred(row) for row in rows_of(snapshot, format)]
    if format == "pairs":  # which knows the votes, so that a pair that was split is two people's word
        assert [(record.prompt, {text.content for text in record.completions}) for record in records] == [
            (prompt, {chosen, rejected}) for prompt, chosen, rejected, _ in out
        ]
        assert {len(record.votes) for record in records} == {1, 2}
    else:
        assert [of_record(record) for record in records] == out


def test_transcripts_come_in_again_as_prompt_chosen_and_rejected(of_two):
    snapshot = create_snapshot(project=of_two, created_by=None)
    records = records_of(snapshot, "hh", "hh_rlhf")
    pairs = [row for row in rows_of(snapshot, "pairs") if not row["tie"]]
    assert len(records) == len(pairs)
    for record, pair in zip(records, pairs, strict=True):
        _, chosen, rejected, _ = of_record(record)
        assert (chosen, rejected) == (pair["chosen"][0]["content"], pair["rejected"][0]["content"])
        spoken = [message for message in pair["prompt"] if message["role"] != "system"]
        assert [message["role"] for message in record.prompt] == [message["role"] for message in spoken]
