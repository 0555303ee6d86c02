import hashlib
import json
from collections import Counter

import pyarrow.parquet as pq
import pytest

from labeling.annotation.services import revise_judgement, submit_judgement, take_lease
from labeling.preferences.console import counts
from labeling.preferences.errors import BadFilter, NothingToFreeze
from labeling.preferences.models import Snapshot
from labeling.preferences.services import create_snapshot, snapshots_folder
from labeling.preferences.supervised import sft_rows
from labeling.preferences.views_of_snapshots import read_rows, view_file
from labeling.projects.services import add_member, change_project, pseudonym_of
from labeling.quality.services import adjudicate
from tests import factories
from tests.labeling.quality import gold

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


def test_gold_answers_and_repeats_never_enter_a_snapshot(project, annotator, lead):
    gold.set_quality(project, gold_rate=0.5, repeat_rate=0.5, repeat_after=2, repeat_hours=0, gold_bound=0)
    gold.write(project, 4)
    factories.fill_project(project, 12)
    while lease := take_lease(project=project, annotator=annotator):
        gold.answer(lease)
    purposes = Counter(project.judgements.values_list("task__purpose", flat=True))
    assert purposes["gold"] and purposes["repeat"] and purposes["preference"] == 12
    snapshot = create_snapshot(project=project, created_by=lead)
    assert (snapshot.n_judgements, snapshot.n_pairs) == (12, 36)
    rows = [row for found in rows_of(snapshot, "votes").values() for row in found]
    assert not any("golden" in row["prompt"][-1]["content"] or row["gold"] for row in rows)
    for purpose in ("gold", "repeat"):
        with pytest.raises(BadFilter):
            create_snapshot(project=project, created_by=lead, filters={"purposes": ["preference", purpose]})


# --- what reviewers settled -----------------------------------------------------------------------
def settle(task, by, places, **more):
    """`[[2], [0, 1]]` puts the task's third completion first and ties the others."""
    ids = sorted(task.completions.values_list("pk", flat=True))
    return adjudicate(
        task=task, by=by, submission_key=f"settle-{task.pk}-{more.get('supersedes')}", outcome="ranking",
        ranking=[[ids[place] for place in group] for group in places], **more,
    ).adjudication  # fmt: skip


def pairs_and_votes(snapshot, task):
    votes = [row for found in rows_of(snapshot, "votes").values() for row in found if row["task"] == task.public_id]
    prompt = task.prompt.messages
    pairs = [row for found in rows_of(snapshot, "pairs").values() for row in found if row["prompt"] == prompt]
    return pairs, votes


def test_what_a_reviewer_settled_decides_the_pairs_of_its_task(judged, reviewer):
    before = create_snapshot(project=judged, created_by=None)
    task, other = judged.tasks.order_by("pk")[:2]
    unchanged = pairs_and_votes(before, other)
    settle(task, reviewer, [[2], [0, 1]])
    snapshot = create_snapshot(project=judged, created_by=None, policy={"ties": "keep"})
    pairs, votes = pairs_and_votes(snapshot, task)
    texts = [item["content"] for item in votes[0]["completions"]]
    said = {(pair["chosen"][0]["content"], pair["rejected"][0]["content"], pair["tie"]) for pair in pairs}
    assert said == {(texts[2], texts[0], False), (texts[2], texts[1], False), (texts[0], texts[1], True)}
    # Both had ranked them by id, so no vote says what was settled; the votes stay in the row.
    assert {(pair["n_votes"], pair["agreement"], pair["weight"]) for pair in pairs} == {(2, 0.0, 1 / 3)}
    assert {vote["choice"] for pair in pairs if not pair["tie"] for vote in pair["votes"]} == {"rejected"}
    who = {"annotator": pseudonym_of(judged, reviewer), "annotator_kind": "human", "blind": False}
    for row in pairs:
        assert row["adjudication"] | {"at": ""} == {**who, "at": ""} and row["adjudication"]["at"].endswith("Z")
    assert votes[0]["adjudication"]["ranking"] == [["c"], ["a", "b"]]
    assert votes[0]["judgement"]["ranking"] != votes[0]["adjudication"]["ranking"]
    # What was not settled is byte for byte what it was.
    assert pairs_and_votes(snapshot, other) == unchanged
    manifest = snapshot.manifest
    assert (manifest["n_adjudicated_tasks"], manifest["n_adjudicated_pairs"]) == (1, 3)
    assert manifest["adjudication_ids_sha256"] != before.manifest["adjudication_ids_sha256"]


def test_a_task_found_unfit_is_left_out_unless_the_policy_leaves_all_to_the_votes(judged, reviewer, lead):
    before = create_snapshot(project=judged, created_by=None)
    task = judged.tasks.first()
    unfit = adjudicate(task=task, by=reviewer, submission_key="u", outcome="unfit").adjudication
    snapshot = create_snapshot(project=judged, created_by=None)
    assert pairs_and_votes(snapshot, task) == ([], []) and pairs_and_votes(before, task) != ([], [])
    assert snapshot.manifest["n_unfit_tasks"] == 1 and before.manifest["n_unfit_tasks"] == 0
    assert snapshot.n_judgements == before.n_judgements - 2
    assert snapshot.manifest["judgement_ids_sha256"] != before.manifest["judgement_ids_sha256"]
    assert counts(judged, {}, {})["unfit"] == 1 and counts(judged, {}, {})["judgements"] == snapshot.n_judgements
    assert counts(judged, {}, {"adjudications": "ignore"})["unfit"] == 0
    assert create_snapshot(project=judged, created_by=None, policy={"adjudications": "ignore"}) == before
    # As of before it was found unfit, it is there; nobody judged it in another iteration.
    assert create_snapshot(project=judged, created_by=None, filters=before.filters) == before
    assert counts(judged, {"iterations": [7]}, {})["unfit"] == 0
    # What another reviewer settles instead counts again.
    settle(task, lead, [[2], [1], [0]], supersedes=unfit.pk)
    assert pairs_and_votes(create_snapshot(project=judged, created_by=None), task)[0]
    assert create_snapshot(project=judged, created_by=None, filters=snapshot.filters) == snapshot


def test_a_policy_can_leave_everything_to_the_votes(judged, reviewer):
    before = create_snapshot(project=judged, created_by=None)
    settle(judged.tasks.first(), reviewer, [[2], [1], [0]])
    assert create_snapshot(project=judged, created_by=None, policy={"adjudications": "ignore"}) == before
    assert create_snapshot(project=judged, created_by=None).content_hash != before.content_hash
    with pytest.raises(BadFilter) as caught:
        create_snapshot(project=judged, created_by=None, policy={"adjudications": "maybe"})
    assert caught.value.fields == {"adjudications": "must be use or ignore"}


def test_a_snapshot_as_of_then_knows_what_stood_then(judged, reviewer, lead):
    task = judged.tasks.first()
    old = create_snapshot(project=judged, created_by=None)
    first = settle(task, reviewer, [[2], [1], [0]])
    one = create_snapshot(project=judged, created_by=None)
    settle(task, lead, [[1], [0], [2]], supersedes=first.pk)
    two = create_snapshot(project=judged, created_by=None)
    assert len({old.content_hash, one.content_hash, two.content_hash}) == 3
    for snapshot in (old, one, two):
        assert create_snapshot(project=judged, created_by=None, filters=snapshot.filters) == snapshot


def test_extremes_and_the_text_to_imitate_follow_what_was_settled(judged, reviewer):
    task = judged.tasks.first()
    settle(task, reviewer, [[2], [1], [0]])
    snapshot = create_snapshot(project=judged, created_by=None, policy={"pairs": "extremes"})
    pairs, votes = pairs_and_votes(snapshot, task)
    texts = [item["content"] for item in votes[0]["completions"]]
    assert [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in pairs] == [(texts[2], texts[0])]
    assert [row["messages"][-1]["content"] for row in sft_rows(votes)] == [texts[2]]
    none_good = [row | {"adjudication": row["adjudication"] | {"none_acceptable": True}} for row in votes]
    assert sft_rows(none_good) == []


@pytest.mark.parametrize("view", ["pairs", "votes"])
def test_both_file_formats_say_what_was_settled(judged, reviewer, view):
    settle(judged.tasks.first(), reviewer, [[2], [1], [0]])
    snapshot = create_snapshot(project=judged, created_by=None)
    for split in ("train", "eval"):
        lines = list(read_rows(view_file(snapshot, split=split, view=view, format="jsonl")))
        table = pq.read_table(view_file(snapshot, split=split, view=view, format="parquet")).to_pylist()
        found = [row["adjudication"] for row in table]
        assert [json.loads(row) if view == "votes" and row else row for row in found] == [
            row.get("adjudication") for row in lines
        ]
        assert None in found
