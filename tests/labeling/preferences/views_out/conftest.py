"""A snapshot of tasks on which everything that can be said was said, with ties and several turns."""

import json

import pytest

from labeling.annotation.services import create_tasks_for_prompts, submit_judgement, take_lease
from labeling.imports.services import import_rows
from labeling.preferences.services import create_snapshot
from labeling.preferences.views_of_snapshots import read_rows, view_file
from labeling.projects.models import Prompt
from labeling.projects.services import change_project

FORM = {
    "strength": True,
    "acceptable": True,
    "flags": ["rude", "off topic"],
    "ratings": {"Helpfulness": {"low": 1, "high": 5}, "Tone!": {"low": -2, "high": 2}},
    "corrections": True,
    "marks": ["wrong fact"],
    "demonstration": "optional",
}
QUESTIONS = [
    [{"role": "user", "content": "=1+1, or what?"}],
    [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Where is my parcel?"}],
    [
        {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day."},
        {"role": "user", "content": "“Where” is\tmy 📦?\n\nHuman: is not a turn"},
    ],
]  # fmt: skip


@pytest.fixture(autouse=True)
def files(settings, tmp_path):
    settings.FILES = tmp_path / "files"


def add_tasks(project, prompts, n_completions, overlap):
    lines = [
        json.dumps(
            {
                "prompt": prompt, "licence": "CC0-1.0",
                "completions": [{"content": f"{'-=@'[n % 3]}Answer {n}", "model": f"tiny@{n}"} for n in range(n_completions)],
            }
        ).encode()
        for prompt in prompts
    ]  # fmt: skip
    known = set(Prompt.objects.filter(project=project).values_list("pk", flat=True))
    import_rows(project=project, format="completions", lines=lines, created_by=None)
    new = Prompt.objects.filter(project=project).exclude(pk__in=known)
    create_tasks_for_prompts(project=project, prompts=new, completions_per_task=n_completions, overlap=overlap)


def judge(project, annotator, **parts):
    """Judge the next task; ranking and parts name completions by number, 0 being the one entered first."""
    lease = take_lease(project=project, annotator=annotator)
    key = {n: "abcdefghi"[lease.order_shown.index(pk)] for n, pk in enumerate(sorted(lease.order_shown))}
    body = {
        name: [[key[n] for n in group] for group in value]
        if name == "ranking"
        else {key[n]: item for n, item in value.items()}
        if isinstance(value, dict)
        else value
        for name, value in parts.items()
    }
    return submit_judgement(lease=lease, submission_key=f"{annotator.pk}-{lease.pk}", body=body).judgement


@pytest.fixture
def judged(project, annotator, other_annotator):
    """Three tasks of three completions, each judged by two people who do not always agree."""
    project = change_project(project=project, form=FORM, eval_share=0.0)
    add_tasks(project, QUESTIONS, 3, overlap=2)
    for number in range(3):
        judge(
            project, annotator, ranking=[[0], [1, 2]], strength=2, acceptable={0: True, 2: False},
            ratings={0: {"Helpfulness": 5, "Tone!": -2}, 1: {"Helpfulness": 2}}, flags={2: ["rude", "off topic"]},
            corrections={1: f"=Edited {number}"}, rationale="\t@why", seconds=12.5,
            marks={0: [{"start": 1, "end": 7, "label": "wrong fact", "comment": "no"}]},
        )  # fmt: skip
        judge(
            project, other_annotator, ranking=[[0], [2], [1]], ratings={0: {"Helpfulness": 4}}, acceptable={0: True},
            demonstration=f"+Mine {number}", none_acceptable=number == 2, seconds=3.0,
        )  # fmt: skip
    return project


@pytest.fixture
def snapshot(judged):
    return create_snapshot(project=judged, created_by=None, policy={"ties": "soft_label"})


def rows_of(snapshot, view, split="train"):
    return list(read_rows(view_file(snapshot, split=split, view=view, format="jsonl")))
