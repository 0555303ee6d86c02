"""What a reward model's run folder says of the pairs its report is on: frozen facts, found again beside the pairs."""

import json

import pytest

from labeling.accounts.roles import Role
from labeling.annotation.services import submit_judgement, take_lease
from labeling.preferences.models import Snapshot
from labeling.preferences.services import create_snapshot
from labeling.preferences.views_of_snapshots import compared_in, preference_rows
from labeling.projects.services import add_member
from tests import factories
from training.runs.folder import write_inputs
from training.runs.reported import rows_to_report_on
from training.runs.services import create_run


@pytest.fixture
def people(project, annotator, other_annotator):
    """Three people judge every task: two like the longest best, the third the shortest; and one edits a completion."""
    third = factories.make_user("third")
    add_member(project=project, user=third, role=Role.ANNOTATOR)
    return [annotator, other_annotator, third]


@pytest.fixture
def judged(project, people):
    project.overlap = 3
    project.eval_share = 0.5
    project.form = {**project.form, "strength": True, "corrections": True}
    project.save()
    factories.fill_project(project, 12, overlap=3)
    for prompt in project.prompts.all():
        prompt.tags = ["even" if prompt.pk % 2 == 0 else "odd"]
        prompt.save()
    for number, person in enumerate(people):
        while lease := take_lease(project=project, annotator=person):
            keys = "abc"[: len(lease.order_shown)]
            order = sorted(keys, key=lambda key: lease.texts[lease.order_shown[keys.index(key)]])
            if number == 2:
                order.reverse()
            body = {"ranking": [[key] for key in order], "strength": 1 + number}
            if number == 0:
                body["corrections"] = {order[-1]: "An edit by the first of them."}
            submit_judgement(lease=lease, submission_key=f"{person.pk}-{lease.pk}", body=body)


def rows_of(snapshot: Snapshot) -> list[dict]:
    return [row for split in ("train", "eval") for row in rows_to_report_on(snapshot, split)]


@pytest.mark.parametrize("votes", ["majority", "each"])
def test_each_pair_is_found_with_its_task_people_and_places(project, judged, lead, votes):
    snapshot = create_snapshot(project=project, created_by=lead, policy={"votes": votes})
    rows = rows_of(snapshot)
    plain = [row for split in ("train", "eval") for row in preference_rows(snapshot, split)]
    assert [{name: row[name] for name in one} for one, row in zip(plain, rows, strict=True)] == plain

    ranked = [row for row in rows if "people" in row]
    edits = [row for row in rows if "people" not in row]
    assert len(ranked) == 12 * 3 * (3 if votes == "each" else 1)
    assert edits and all(row["chosen"][0]["content"] == "An edit by the first of them." for row in edits)
    assert all(row["chosen_first"] is None and row["task"] for row in edits)
    by_task = dict(project.tasks.values_list("public_id", "prompt__tags"))
    for row in ranked:
        assert row["tags"] == by_task[row["task"]] and row["tags"] in (["even"], ["odd"])
        assert not row["is_settled"]
        counts = [row["people"][choice] for choice in ("chosen", "rejected", "tie")]
        assert sorted(counts) == [0, 1, 2]
        if votes == "majority":
            assert counts == [2, 1, 0] and len(row["votes"]) == 3
        else:
            assert len(row["votes"]) == 1 and row["chosen_first"] in (0, 1)
            assert row["strength"] == (3 if counts == [1, 2, 0] else row["strength"])
    assert len({row["comparison"] for row in ranked}) == 12 * 3
    if votes == "majority":  # the keys that are found are those of the pair's id
        known = {id: task for id, task, _, _ in compared_in(snapshot, {row["id"] for row in ranked})}
        assert known == {row["id"]: row["task"] for row in ranked}


def test_the_share_who_saw_chosen_first_is_of_the_places_shown(project, judged, lead):
    snapshot = create_snapshot(project=project, created_by=lead)
    shown = {}
    for judgement in project.judgements.select_related("task"):
        keys = dict(zip(sorted(judgement.order_shown), "abc", strict=False))
        shown.setdefault(judgement.task.public_id, []).append([keys[pk] for pk in judgement.order_shown])
    rows = {row["id"]: row for row in rows_of(snapshot)}
    found = list(compared_in(snapshot, rows))
    assert found
    for id, task, chosen, rejected in found:
        first = [order.index(chosen) < order.index(rejected) for order in shown[task]]
        assert rows[id]["chosen_first"] == pytest.approx(sum(first) / 3)


def test_votes_of_machines_are_no_peoples(project, people, lead, request):
    people[2].kind = "simulated"  # a judgement keeps what its annotator was
    people[2].save()
    request.getfixturevalue("judged")
    snapshot = create_snapshot(project=project, created_by=lead)
    for row in rows_of(snapshot):
        if "people" in row:
            assert sum(row["people"].values()) == 2 and len(row["votes"]) == 3


@pytest.mark.parametrize(("kind", "eval_share", "reported"), [("reward_head", 0.5, "eval"), ("reward", 0.0, "train"), ("dpo", 0.5, None)])
def test_only_what_is_reported_on_gets_the_columns(project, judged, tiny, lead, kind, eval_share, reported):
    project.eval_share = eval_share
    project.save()
    snapshot = create_snapshot(project=project, created_by=lead)
    run = create_run(project=project, kind=kind, created_by=lead, snapshot=snapshot, model=tiny, spec={"layer": 1} if kind == "reward_head" else {})
    dataset = write_inputs(run) / "dataset"
    for split in ("train", "eval"):
        for line in (dataset / f"{split}.jsonl").read_text().splitlines():
            assert ("votes" in json.loads(line)) == (split == reported)
