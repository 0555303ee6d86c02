import hashlib
import json

import pytest

from labeling.annotation.services import revise_judgement, submit_judgement, take_lease
from labeling.preferences.errors import BadFilter, NothingToFreeze
from labeling.preferences.models import Snapshot
from labeling.preferences.services import create_snapshot, snapshots_folder
from labeling.preferences.views_of_snapshots import read_rows
from labeling.projects.services import add_member, change_project
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def files(settings, tmp_path):
    settings.FILES = tmp_path


@pytest.fixture
def judged(project, annotator, other_annotator):
    """Twelve tasks of three completions, each judged by two."""
    factories.fill_project(project, 12, overlap=2)
    for person in (annotator, other_annotator):
        factories.judge_all(project, person)
    return project


def rows_of(snapshot: Snapshot, kind: str) -> dict[str, list[dict]]:
    folder = snapshots_folder() / snapshot.folder
    return {split: list(read_rows(folder / f"{kind}.{split}.jsonl")) for split in ("train", "eval")}


def test_the_same_filter_on_the_same_data_is_the_same_snapshot(judged, lead, engineer):
    first = create_snapshot(project=judged, created_by=lead, name="one")
    assert create_snapshot(project=judged, created_by=engineer, name="two") == first
    assert Snapshot.objects.count() == 1
    assert (first.n_judgements, first.n_pairs) == (24, 36)


def test_what_is_frozen_verifies_against_its_manifest(judged):
    snapshot = create_snapshot(project=judged, created_by=None)
    folder = snapshots_folder() / snapshot.folder
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest == snapshot.manifest
    for name, facts in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == facts["sha256"]
        assert content.count(b"\n") == facts["rows"]
    whole = "".join(f"{name} {facts['sha256']}\n" for name, facts in sorted(manifest["files"].items()))
    assert hashlib.sha256(whole.encode()).hexdigest() == snapshot.content_hash


def test_new_judgements_make_a_new_snapshot_and_leave_the_old_one_alone(judged, reviewer):
    old = create_snapshot(project=judged, created_by=None)
    before = {path.name: path.read_bytes() for path in (snapshots_folder() / old.folder).glob("*.jsonl")}
    factories.fill_project(judged, 13, overlap=1)
    factories.judge_all(judged, reviewer)
    new = create_snapshot(project=judged, created_by=None)
    assert (new.number, new.n_judgements) == (2, 25)
    assert new.content_hash != old.content_hash
    assert {path.name: path.read_bytes() for path in (snapshots_folder() / old.folder).glob("*.jsonl")} == before
    # Asked again as of then, it is the old one.
    assert create_snapshot(project=judged, created_by=None, filters=old.filters) == old


def test_prompts_alike_never_cross_the_split(project, annotator):
    change_project(project=project, eval_share=0.5)
    rows = []
    for group in range(20):
        for number in range(3):
            word = "".join(chr(97 + int(digit)) for digit in str(group))
            rows.append(
                json.dumps({"prompt": f"Where is parcel {word} {number}?", "completions": [f"A{number}", f"B{group}"]})
            )
    from labeling.annotation.services import create_tasks_for_prompts
    from labeling.projects.imports import import_rows

    import_rows(project=project, format="completions", lines=[row.encode() for row in rows], created_by=None)
    create_tasks_for_prompts(project=project, completions_per_task=2, overlap=1)
    factories.judge_all(project, annotator)
    pairs = rows_of(create_snapshot(project=project, created_by=None), "pairs")
    groups = {split: {row["group_id"] for row in found} for split, found in pairs.items()}
    assert not groups["train"] & groups["eval"]
    assert len(groups["train"]) + len(groups["eval"]) == 20
    assert min(len(groups["train"]), len(groups["eval"])) >= 3


def test_superseded_and_surplus_judgements_and_gold_tasks_stay_out(judged, annotator):
    judgement = judged.judgements.filter(annotator=annotator).first()
    task = judgement.task
    revise_judgement(judgement=judgement, submission_key="r", body={"ranking": [["a", "b", "c"]]})
    other = judged.tasks.exclude(pk=task.pk).first()
    other.purpose = "gold"
    other.save(update_fields=["purpose"])
    snapshot = create_snapshot(project=judged, created_by=None, policy={"ties": "keep"})
    votes = [vote for found in rows_of(snapshot, "votes").values() for vote in found]
    assert len(votes) == 22
    mine = [vote["judgement"]["ranking"] for vote in votes if vote["task"] == task.public_id]
    assert [["a", "b", "c"]] in mine and len(mine) == 2
    assert other.public_id not in {vote["task"] for vote in votes}


def test_ties_are_dropped_or_kept_as_the_policy_says(project, annotator):
    factories.fill_project(project, 4)
    while lease := take_lease(project=project, annotator=annotator):
        submit_judgement(lease=lease, submission_key=str(lease.pk), body={"ranking": [["a"], ["b", "c"]]})
    dropped = create_snapshot(project=project, created_by=None)
    kept = create_snapshot(project=project, created_by=None, policy={"ties": "keep"})
    assert (dropped.n_pairs, kept.n_pairs) == (8, 12)
    pairs = [pair for found in rows_of(kept, "pairs").values() for pair in found]
    assert sum(pair["tie"] for pair in pairs) == 4
    assert {pair["weight"] for pair in pairs} == {1 / 3}


def test_votes_name_completions_alike_whatever_order_was_shown(judged):
    votes = [vote for found in rows_of(create_snapshot(project=judged, created_by=None), "votes").values() for vote in found]
    # Everyone ranked by completion id, and keys of a task follow the ids.
    assert {json.dumps(vote["judgement"]["ranking"]) for vote in votes} == {'[["a"], ["b"], ["c"]]'}
    assert len({tuple(vote["order_shown"]) for vote in votes}) > 1
    assert {vote["annotator_kind"] for vote in votes} == {"human"}
    assert all(vote["annotator"].startswith("annotator-") for vote in votes)


def test_simulated_annotators_can_be_filtered_out(judged):
    simulated = factories.make_user("robot", kind="simulated")
    add_member(project=judged, user=simulated, role="annotator")
    factories.fill_project(judged, 14, overlap=1)
    factories.judge_all(judged, simulated)
    everyone = create_snapshot(project=judged, created_by=None)
    people = create_snapshot(project=judged, created_by=None, filters={"annotator_kinds": ["human"]})
    assert everyone.manifest["annotator_kinds"] == {"human": 24, "simulated": 2}
    assert people.manifest["annotator_kinds"] == {"human": 24}


@pytest.mark.parametrize(
    ("filters", "policy"),
    [
        ({"people": ["ada"]}, None), ({"iterations": "1"}, None), ({"iterations": [True]}, None),
        ({"annotator_kinds": ["ghost"]}, None), ({"up_to_judgement": "9"}, None), (None, {"ties": "maybe"}),
        (None, {"pairs": "best"}), (None, {"margins": {"4": 1.0}}), (None, {"shape": 1}),
    ],
)  # fmt: skip
def test_a_filter_or_policy_that_makes_no_sense_is_refused(project, filters, policy):
    with pytest.raises(BadFilter):
        create_snapshot(project=project, created_by=None, filters=filters, policy=policy)


def test_nothing_judged_is_nothing_to_freeze_and_leaves_no_files(filled_project):
    with pytest.raises(NothingToFreeze):
        create_snapshot(project=filled_project, created_by=None)
    assert list(snapshots_folder().iterdir()) == []
