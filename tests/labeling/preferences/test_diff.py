"""What two snapshots differ in, held to their rows read whole."""

import json

import pytest

from labeling.annotation.models import Judgement
from labeling.annotation.services import revise_judgement, submit_judgement, take_lease
from labeling.preferences.diff import difference, pairs_in
from labeling.preferences.models import Snapshot
from labeling.preferences.services import create_snapshot, snapshots_folder
from labeling.preferences.withdrawal import remove_prompt
from labeling.projects.models import Project
from tests import factories
from tests.api_caller import Caller


def rows_of(snapshot, name="pairs"):
    folder = snapshots_folder() / snapshot.folder
    return [json.loads(line) for split in ("train", "eval") for line in (folder / f"{name}.{split}.jsonl").open()]


@pytest.fixture
def first(project, annotator, lead):
    """Eight tasks of two completions, judged by one person, of the two that are wanted."""
    factories.fill_project(project, 8, n_completions=2, overlap=2)
    factories.judge_all(project, annotator)
    return create_snapshot(project=project, created_by=lead, name="first")


def judge_other_way(project, annotator, n):
    for _ in range(n):
        lease = take_lease(project=project, annotator=annotator)
        keys = "ab" if lease.order_shown[0] > lease.order_shown[1] else "ba"
        submit_judgement(lease=lease, submission_key=str(lease.pk), body={"ranking": [[key] for key in keys]})


def revise_all(project, n):
    """The annotator turns round what they said of the first tasks."""
    for judgement in Judgement.objects.filter(project=project).order_by("task")[:n]:
        keys = "ab" if judgement.order_shown[0] > judgement.order_shown[1] else "ba"
        body = {"ranking": [[key] for key in keys]}
        revise_judgement(judgement=judgement, submission_key=f"again-{judgement.pk}", body=body)


def test_a_snapshot_does_not_differ_from_itself(first):
    found = difference(first, first)
    assert found["pairs"] == {"before": 8, "after": 8, "same": 8, "added": 0, "removed": 0, "flipped": 0, "changed": 0}
    assert not any(found["examples"].values()) and not found["filters"] and not found["policy"]


def test_what_came_went_changed_and_turned_round_is_counted_and_shown(project, first, other_annotator, lead):
    revise_all(project, 2)
    factories.judge_all(project, other_annotator, limit=3)  # two of these agree with the others' first word
    remove_prompt(project=project, prompt=project.prompts.order_by("-pk").first(), by=lead)
    factories.fill_project(project, 10, n_completions=2, overlap=1)
    factories.judge_all(project, other_annotator, limit=100)
    second = create_snapshot(project=project, created_by=lead)
    found = difference(first, second)
    old, new = ({row["id"]: row for row in rows_of(snapshot)} for snapshot in (first, second))
    def sides(row):
        return row["chosen"][0]["content"], row["rejected"][0]["content"]

    turned = {sides(row)[::-1] for key, row in old.items() if key not in new} & {
        sides(row) for key, row in new.items() if key not in old
    }
    assert found["pairs"]["flipped"] == len(turned)
    assert found["pairs"]["same"] == sum(old[key] == new[key] for key in old.keys() & new.keys())
    assert found["pairs"]["changed"] == sum(old[key] != new[key] for key in old.keys() & new.keys())
    assert found["pairs"]["added"] == len(new.keys() - old.keys()) - len(turned)
    assert found["pairs"]["removed"] == len(old.keys() - new.keys()) - len(turned)
    for kind, pairs in (("added", new), ("changed", new), ("removed", old), ("flipped", old)):
        shown = found["examples"][kind]
        assert len(shown) == min(20, found["pairs"][kind])
        assert all(pairs[row["id"]]["chosen"] == row["chosen"] for row in shown)
    assert found["prompts"]["removed"] == 1 and found["prompts"]["added"] == 2
    assert found["judgements"]["added"] - found["judgements"]["removed"] == second.n_judgements - first.n_judgements


def test_pairs_turned_round_are_found_both_by_majority_and_by_each_vote(project, first, annotator, lead):
    each = create_snapshot(project=project, created_by=lead, policy={"votes": "each"})
    revise_all(project, 3)
    for before, policy in ((first, {}), (each, {"votes": "each"})):
        after = create_snapshot(project=project, created_by=lead, policy=policy)
        found = difference(before, after)
        assert found["pairs"]["flipped"] == 3 and found["pairs"]["same"] == 5
        assert found["pairs"]["added"] == found["pairs"]["removed"] == 0
        assert found["judgements"] == {"before": 8, "after": 8, "added": 3, "removed": 3}


def test_prompts_that_moved_between_splits_are_named_and_their_pairs_are_the_same(project, first, lead):
    Project.objects.filter(pk=project.pk).update(eval_share=0.7)
    project.refresh_from_db()
    second = create_snapshot(project=project, created_by=lead)
    found = difference(first, second)
    n_eval = [snapshot.manifest["files"]["pairs.eval.jsonl"]["rows"] for snapshot in (first, second)]
    assert found["prompts"]["to_eval"] == n_eval[1] - n_eval[0] > 0 and found["prompts"]["to_train"] == 0
    assert len(found["moved"]) == found["prompts"]["to_eval"] and {row["to"] for row in found["moved"]} == {"eval"}
    assert found["pairs"]["same"] == 8 and found["eval_share"] == [0.2, 0.7]


def test_settings_that_differ_are_named_and_those_an_older_snapshot_lacks_are_as_by_default(project, first, lead):
    second = Snapshot.objects.get(pk=first.pk)
    first.policy.pop("votes")
    second.policy["pairs"], second.filters["iterations"] = "extremes", [1]
    found = difference(first, second)
    assert found["policy"] == [{"name": "pairs", "before": "all", "after": "extremes"}]
    assert {"name": "iterations", "before": [], "after": [1]} in found["filters"]


def test_ids_are_kept_beside_the_rows_in_their_order(first):
    ids = pairs_in(first)["id"]
    assert sorted(f"{number:016x}" for number in ids.tolist()) == sorted(row["id"] for row in rows_of(first))
    assert ids.tolist() == sorted(ids.tolist())


def test_snapshots_without_pairs_are_compared_too(project, lead, annotator):
    factories.fill_project(project, 2)
    lease = take_lease(project=project, annotator=annotator)
    tied = {"ranking": [list("abc")]}
    submit_judgement(lease=lease, submission_key="k1", body=tied)
    before = create_snapshot(project=project, created_by=lead)
    assert difference(before, before)["pairs"]["before"] == 0


def test_over_rest_the_other_snapshot_is_one_of_the_same_project(project, first, engineer, stranger, annotator, lead):
    revise_all(project, 1)
    second = create_snapshot(project=project, created_by=lead)
    caller = Caller(engineer)
    answer = caller.get(f"snapshots/{first.pk}/diff/?to={second.pk}")
    assert answer.status_code == 200 and answer.json()["pairs"]["flipped"] == 1
    for wrong in ("", "?to=", "?to=x", f"?to={second.pk}0"):
        refused = caller.get(f"snapshots/{first.pk}/diff/{wrong}")
        assert refused.status_code == 400 and "to" in refused.json()["error"]["fields"]
    assert Caller(stranger).get(f"snapshots/{first.pk}/diff/?to={second.pk}").status_code == 404


def test_the_page_compares_two_that_one_chooses(client, project, first, lead):
    client.force_login(lead)
    assert "One snapshot alone" in client.get("/projects/support/snapshots/compare/").content.decode()
    revise_all(project, 1)
    create_snapshot(project=project, created_by=lead, policy={"ties": "soft_label"})
    page = client.get("/projects/support/snapshots/compare/")  # the two newest
    assert [page.context["before"].number, page.context["after"].number] == [1, 2]
    part = client.get("/projects/support/snapshots/compare/?from=1&to=2", headers={"HX-Request": "true"}).content.decode()
    assert "flipped" in part and "soft_label" in part and "Answer" in part
    assert client.get("/projects/support/snapshots/compare/?from=1&to=9").status_code == 404
