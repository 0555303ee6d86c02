import hashlib
import json
import os
import resource
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy
import pyarrow.parquet as pq
import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from labeling.annotation.services import revise_judgement, submit_judgement, take_lease
from labeling.preferences import chunks
from labeling.preferences.errors import BadFilter, NoRoom, NothingToFreeze
from labeling.preferences.models import Snapshot
from labeling.preferences.preview import preview_of
from labeling.preferences.services import create_snapshot, snapshots_folder
from labeling.preferences.supervised import sft_rows
from labeling.preferences.views_of_snapshots import read_rows, view_file
from labeling.projects.grouping import regroup
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
            words = " ".join(hashlib.sha256(f"{group} {word}".encode()).hexdigest() for word in range(3))
            rows.append(
                json.dumps({"prompt": f"{words} {number}?", "completions": [f"A{number}", f"B{group}"]})
            )
    from labeling.annotation.services import create_tasks_for_prompts
    from labeling.imports.services import import_rows

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
    assert preview_of(judged, {}, {})["unfit"] == 1 and preview_of(judged, {}, {})["judgements"] == snapshot.n_judgements
    assert preview_of(judged, {}, {"adjudications": "ignore"})["unfit"] == 0
    assert create_snapshot(project=judged, created_by=None, policy={"adjudications": "ignore"}) == before
    # As of before it was found unfit, it is there; nobody judged it in another iteration.
    assert create_snapshot(project=judged, created_by=None, filters=before.filters) == before
    assert preview_of(judged, {"iterations": [7]}, {})["unfit"] == 0
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


# --- what stands beside the rows ------------------------------------------------------------------
def test_who_and_what_it_is_made_of_stands_beside_the_rows(judged, annotator, other_annotator):
    snapshot = create_snapshot(project=judged, created_by=None, filters={"tags": ["delivery"]})
    folder = snapshots_folder() / snapshot.folder
    judgements = numpy.fromfile(folder / "judgements.u64", dtype="<u8").tolist()
    assert judgements == sorted(judged.judgements.values_list("pk", flat=True))
    whole = "".join(f"{pk}\n" for pk in judgements).encode()
    assert hashlib.sha256(whole).hexdigest() == snapshot.manifest["judgement_ids_sha256"]
    prompts = numpy.fromfile(folder / "prompts.u64", dtype="<u8").tolist()
    assert prompts == sorted(judged.prompts.values_list("pk", flat=True))
    assert json.loads((folder / "annotators.json").read_text()) == {str(annotator.pk): 12, str(other_annotator.pk): 12}
    assert "near-duplicates" in snapshot.manifest["groups"]


def test_how_far_it_is_is_told_task_by_task(judged, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_TASKS", 5)
    heard: list[tuple[int, int]] = []
    create_snapshot(project=judged, created_by=None, report=lambda done, of: heard.append((done, of)))
    assert heard == [(0, 12), (5, 12), (10, 12), (12, 12)]


def test_a_chunk_takes_three_statements_whatever_is_in_it(judged, monkeypatch):
    create_snapshot(project=judged, created_by=None)  # prompts are grouped

    def statements(n_tasks: int) -> int:
        monkeypatch.setattr(chunks, "CHUNK_TASKS", n_tasks)
        with CaptureQueriesContext(connection) as captured:
            create_snapshot(project=judged, created_by=None)
        return len(captured)

    assert statements(3) - statements(12) == 3 * 3
    assert statements(1) - statements(12) == 11 * 3


# --- while others write, and when it breaks -------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_what_is_judged_meanwhile_waits_for_nobody_and_is_not_in_it(judged, reviewer, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_TASKS", 2)
    factories.fill_project(judged, 24, overlap=1)
    calm = create_snapshot(project=judged, created_by=None)
    n = judged.judgements.count()
    judgement = judged.judgements.earliest("pk")

    def write(done: int, of: int) -> None:
        # On the caller's own connection, in the middle of the reading: a write that had to wait would wait for itself.
        assert factories.judge_all(judged, reviewer, limit=1) == 1
        if done == 2:
            body = {"ranking": [["c"], ["b"], ["a"]]}
            revise_judgement(judgement=judgement, submission_key="in between", body=body)

    again = create_snapshot(project=judged, created_by=None, report=write)
    assert again == calm and judged.judgements.count() == n + 8
    assert create_snapshot(project=judged, created_by=None, filters=calm.filters) == calm
    assert create_snapshot(project=judged, created_by=None) != calm


@pytest.mark.django_db(transaction=True)
def test_writers_in_many_transactions_change_nothing_of_what_is_frozen_up_to_then(judged, reviewer):
    """Each freeze is held against one of the same bounds when all is quiet."""
    factories.fill_project(judged, 60, overlap=1)
    stop = threading.Event()

    def judge() -> None:
        try:
            while not stop.is_set() and factories.judge_all(judged, reviewer, limit=1):
                pass
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(judge)
        frozen = [create_snapshot(project=judged, created_by=None) for _ in range(4)]
        stop.set()
        writer.result()
    for snapshot in frozen:
        assert create_snapshot(project=judged, created_by=None, filters=snapshot.filters) == snapshot
        ids = numpy.fromfile(snapshots_folder() / snapshot.folder / "judgements.u64", dtype="<u8")
        assert ids.tolist() == sorted(judged.judgements.filter(pk__lte=ids.max()).values_list("pk", flat=True))


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one writer at a time")
def test_a_judgement_with_a_lower_id_that_is_committed_later_is_waited_for(judged, reviewer, lead):
    factories.fill_project(judged, 14, overlap=1)
    drawn, may_commit = threading.Event(), threading.Event()

    def judge_slowly() -> None:
        try:
            with transaction.atomic():
                factories.judge_all(judged, reviewer, limit=1)
                drawn.set()
                may_commit.wait(30)
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(judge_slowly)
        assert drawn.wait(30)
        factories.judge_all(judged, lead, limit=1)
        freezing = pool.submit(lambda: (create_snapshot(project=judged, created_by=None), connection.close())[0])
        # It has seen the newer one and waits for the older one.
        with connection.cursor() as cursor:
            waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s AND state = 'idle'"
            while not freezing.done():
                cursor.execute(waits, ["SELECT virtualtransaction FROM pg_locks%"])
                if cursor.fetchone()[0]:
                    break
        assert not freezing.done()
        may_commit.set()
        snapshot = freezing.result()
        slow.result()
    assert snapshot.n_judgements == judged.judgements.count()
    assert create_snapshot(project=judged, created_by=None, filters=snapshot.filters) == snapshot


def in_a_child(work) -> int:
    """Runs it in a process of its own; gives how that ended, as `waitpid` says it."""
    connection.close()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if work() is None else 2
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


@pytest.mark.django_db(transaction=True)
def test_a_freeze_that_is_killed_leaves_a_folder_that_a_later_one_sweeps_away(judged, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_TASKS", 5)
    regroup(judged)

    def die(done: int, of: int) -> None:
        if done == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_a_child(lambda: create_snapshot(project=judged, created_by=None, report=die)) == signal.SIGKILL
    [left] = snapshots_folder().iterdir()
    assert left.name.startswith(".freezing-") and not Snapshot.objects.exists()
    first = create_snapshot(project=judged, created_by=None)
    assert left.exists()  # it might be another's that is under way
    long_ago = time.time() - 24 * 3600
    for path in (*left.iterdir(), left):
        os.utime(path, (long_ago, long_ago))
    assert create_snapshot(project=judged, created_by=None) == first
    assert [path.name for path in snapshots_folder().iterdir()] == [first.folder]


@pytest.mark.django_db(transaction=True)
def test_a_full_disk_is_said_so_and_nothing_is_registered(judged, annotator):
    factories.fill_project(judged, 60)
    factories.judge_all(judged, annotator)
    regroup(judged)

    def freeze() -> None:
        # No file may grow beyond this: the same error as of a disk without room, but for its number. What SQLite needs
        # to read takes 32 kB.
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
        with pytest.raises(NoRoom, match="full"):
            create_snapshot(project=judged, created_by=None)

    assert in_a_child(freeze) == 0
    assert list(snapshots_folder().iterdir()) == [] and not Snapshot.objects.exists()
    assert create_snapshot(project=judged, created_by=None).n_judgements == 72


def test_a_folder_of_a_freeze_that_was_killed_before_it_was_registered_is_taken(judged):
    snapshot = create_snapshot(project=judged, created_by=None)
    folder = snapshots_folder() / snapshot.folder
    (folder / "annotators.json").unlink()
    content = (folder / "pairs.train.jsonl").read_bytes()
    snapshot.delete()
    again = create_snapshot(project=judged, created_by=None)
    assert again.folder == folder.name and (folder / "annotators.json").exists()
    assert (folder / "pairs.train.jsonl").read_bytes() == content
    assert [path.name for path in snapshots_folder().iterdir()] == [folder.name]
