"""What is written to the files, held against rows that are made plainly, one query after another."""

import json
import random

import pytest

from labeling.accounts.models import User
from labeling.annotation.models import Lease, Slot, Task
from labeling.annotation.services import (
    create_tasks,
    create_tasks_for_prompts,
    revise_judgement,
    set_aside_judgements,
    submit_judgement,
    take_lease,
)
from labeling.annotation.services.tasks import NewTask
from labeling.imports.services import import_rows
from labeling.preferences.services import create_snapshot, snapshots_folder
from labeling.projects.models import Completion, Project
from labeling.projects.services import add_member, change_project
from labeling.projects.text import sha256
from labeling.quality.services import adjudicate
from tests import factories
from tests.labeling.preferences.plain_rows import plain_files
from tests.labeling.quality import gold

pytestmark = pytest.mark.django_db
FORM = {
    "strength": True, "corrections": True, "demonstration": "optional", "marks": ["wrong fact"], "acceptable": True,
    "flags": ["unsafe", "rude"], "ratings": {"tone": {"low": 1, "high": 5}}, "rationale": "optional",
    "none_acceptable": True,
}  # fmt: skip
ODD = "“Ünïcode” \u2028 \U0001f600 \\ \" \t\x01 <b> ![a picture](image:ab12) e\u0301"


@pytest.fixture(autouse=True)
def files(settings, tmp_path):
    settings.FILES = tmp_path


def rows_to_import() -> list[dict]:
    talk = [
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": ODD},
    ]  # fmt: skip
    sampling = {"seed": 7, "temperature": 0.7, "adapter": "lora-1", "revision": "abc", "top_p": 1e-7, "stop": ["\n"]}
    rows = []
    for number in range(14):
        words = " ".join(sha256(f"{number} {place}") for place in range(3))  # else they are near-duplicates, in one split
        prompt = [*talk, {"role": "user", "content": words}] if number % 4 == 1 else f"{words} {ODD}"
        rows.append(
            {
                "id": f"p{number}", "prompt": prompt, "licence": ["", "CC0-1.0", "MIT"][number % 3], "tags": ["t"],
                "source": "here",
                "completions": [
                    {"content": f"{ODD} {index} of {number}", "model": ["tiny@1", None][index % 2], "sampling": {**sampling, "seed": index} if index else {}}
                    for index in range([2, 2, 3, 4][number % 4])
                ],
            }
        )  # fmt: skip
    return rows


def said_at_random(lease: Lease, chance: random.Random) -> dict:
    keys = "abcdefghi"[: len(lease.order_shown)]
    body: dict = {"seconds": chance.choice([0.0, 1.5, 40.25, 86400.0])}
    ranking: list[list[str]] = []
    for key in chance.sample(keys, len(keys)):
        if ranking and chance.random() < 0.3:
            ranking[-1].append(key)
        else:
            ranking.append([key])
    body["ranking"] = ranking
    if chance.random() < 0.6:
        body["strength"] = chance.choice([1, 2, 3])
    some = [key for key in keys if chance.random() < 0.4]
    if chance.random() < 0.3:
        body["acceptable"] = {key: chance.random() < 0.5 for key in keys}
    if some and chance.random() < 0.5:
        body["corrections"] = {key: f"Edited {ODD} {key} {lease.pk}" for key in some}
    if some and chance.random() < 0.5:
        body["flags"] = {key: chance.sample(FORM["flags"], chance.choice([1, 2])) for key in some}
    if some and chance.random() < 0.5:
        body["ratings"] = {key: {"tone": chance.randint(1, 5)} for key in some}
    if some and chance.random() < 0.3:
        body["marks"] = {key: [{"start": 0, "end": 3, "label": "wrong fact", "comment": ODD[:5]}] for key in some}
    if chance.random() < 0.2:
        body["demonstration"] = f"I would say {ODD}"
    if chance.random() < 0.3:
        body["rationale"] = f"Because {ODD}"
    if chance.random() < 0.2:
        body["none_acceptable"] = True
    return body


def judge(project: Project, person: User, chance: random.Random, *, limit: int = 100) -> list[Lease]:
    leases = []
    while len(leases) < limit and (lease := take_lease(project=project, annotator=person)):
        body = gold.body_of(lease) if lease.task.is_gold else said_at_random(lease, chance)
        submit_judgement(lease=lease, submission_key=f"k{lease.pk}", body=body)
        leases.append(lease)
    return leases


@pytest.fixture
def everything(project, annotator, other_annotator, reviewer, lead) -> Project:
    """A project in which everything happened that can happen to a judgement."""
    chance = random.Random(7)
    change_project(project=project, form=FORM, eval_share=0.4, overlap=3)
    lines = [json.dumps(row).encode() for row in rows_to_import()]
    import_rows(project=project, format="completions", lines=lines, created_by=lead)
    create_tasks_for_prompts(project=project, completions_per_task=4, overlap=3)
    robot = factories.make_user("robot", kind="simulated")
    add_member(project=project, user=robot, role="annotator")
    for person in (annotator, other_annotator):
        judge(project, person, chance)
    judge(project, robot, chance, limit=9)
    # Somebody edited a text, and others judge the edit beside the original.
    edit = Completion.objects.filter(prompt__project=project, corrects__isnull=False).first()
    again = NewTask(edit.prompt_id, [edit.pk, edit.corrects_id])
    create_tasks(project=project, new_tasks=[again], overlap=1, iteration=2, priority=9)
    # A late answer whose slot was given away.
    late = take_lease(project=project, annotator=reviewer)
    Lease.objects.filter(pk=late.pk).update(state=Lease.State.EXPIRED)
    Slot.objects.filter(pk=late.slot_id).update(state=Slot.State.FREE, holder=None, expires_at=None)
    judge(project, lead, chance)
    late.refresh_from_db()
    assert submit_judgement(lease=late, submission_key="late", body=said_at_random(late, chance)).judgement.is_surplus
    # Revised, set aside, and settled in every way.
    for judgement in project.judgements.filter(annotator=annotator, slot__isnull=False).order_by("pk")[:3]:
        revise_judgement(judgement=judgement, submission_key=f"r{judgement.pk}", body=said_at_random(judgement.lease, chance))
    assert set_aside_judgements(project=project, annotator=robot, reason="a robot") > 0
    several = [task for task in project.tasks.order_by("pk") if task.completions.count() > 2]
    settle(several[0], reviewer, "ranking")
    first = settle(several[1], reviewer, "ranking")
    settle(several[1], lead, "ranking", supersedes=first.pk, none_acceptable=True)
    settle(several[2], reviewer, "unfit")
    settle(several[3], reviewer, "left")
    # And a gold task, which is no data.
    gold.set_quality(project, gold_rate=0.5)
    gold.write(project, 2)
    judge(project, reviewer, chance)
    Task.objects.filter(pk=several[-1].pk).update(purpose=Task.Purpose.EVALUATION)
    return project


def settle(task, by, outcome, **more):
    ids = sorted(task.completions.values_list("pk", flat=True), reverse=True)
    ranking = {"ranking": [ids[:1], ids[1:]]} if outcome == "ranking" else {}
    return adjudicate(
        task=task, by=by, submission_key=f"{outcome}-{task.pk}-{by.pk}", outcome=outcome, **ranking, **more
    ).adjudication


@pytest.mark.parametrize(
    ("filters", "policy"),
    [
        ({}, {}),
        ({"purposes": ["preference", "evaluation"]}, {"ties": "soft_label", "margins": {"1": 0.5, "2": 1, "3": 2.5}}),
        ({}, {"ties": "both", "votes": "each", "adjudications": "ignore"}),
        ({"min_agreement": 0.6}, {"ties": "both", "votes": "each"}),
        ({"min_agreement": 0.5}, {"pairs": "extremes", "corrections": "leave_out"}),
        ({"without_flags": ["unsafe"]}, {"ties": "soft_label"}),
        ({"without_flags": ["unsafe", "rude"]}, {"pairs": "extremes", "votes": "each"}),
        ({"purposes": ["preference", "evaluation"]}, {"votes": "consensus", "ties": "soft_label"}),
        ({"without_flags": ["rude"]}, {"votes": "consensus", "pairs": "extremes", "ties": "both"}),
        ({"annotator_kinds": ["human"], "iterations": [1]}, {"ties": "both"}),
    ],
)  # fmt: skip
def test_the_files_are_byte_for_byte_what_a_plain_way_makes_of_the_same_judgements(everything, filters, policy):
    snapshot = create_snapshot(project=everything, created_by=None, filters=filters, policy=policy)
    plain = plain_files(everything, snapshot.filters, snapshot.policy)
    views = json.loads(plain.pop("views"))
    folder = snapshots_folder() / snapshot.folder
    for name, content in plain.items():
        assert (folder / name).read_bytes().splitlines() == content.splitlines(), name
        assert (folder / name).read_bytes() == content
    assert {name: n for name, n in snapshot.manifest["views"].items() if n} == {name: n for name, n in views.items() if n}
    assert snapshot.n_pairs > 5


def test_the_project_holds_what_it_should(everything):
    """Or the test above would say little."""
    manifest = create_snapshot(
        project=everything, created_by=None, policy={"ties": "soft_label"}, filters={"purposes": ["preference", "evaluation"]}
    ).manifest
    counts = {name: manifest[f"n_{name}"] for name in ("corrections", "demonstrations", "acceptable", "ratings", "marks")}
    assert min(counts.values()) > 3
    assert (manifest["n_unfit_tasks"], manifest["n_adjudicated_tasks"]) == (1, 2)
    assert manifest["completions_by_model"].keys() == {"tiny@1", "unknown", "written by annotators"}
    assert min(manifest["views"].values()) > 0
    superseded, surplus = everything.judgements.filter(superseded_by__isnull=False), everything.judgements.filter(slot=None)
    assert superseded.count() == 3 and surplus.count() == 1
    assert Slot.objects.filter(project=everything, state=Slot.State.VOID).exists()
