"""A reward model that is sure that people are wrong brings the task before reviewers. Real runs on a tiny model."""

import json

import pytest

from labeling.annotation.models import Task
from labeling.annotation.services import NewTask, create_tasks, submit_judgement, take_lease
from labeling.preferences.services import create_snapshot
from labeling.projects.models import Completion, Prompt
from labeling.projects.text import sha256
from labeling.quality.models import Contradiction, Disagreement
from labeling.quality.services import adjudicate
from training.runs.beliefs import beliefs_against
from training.runs.folder import run_folder
from training.runs.models import Run
from training.runs.services import claim_next_run, create_run
from training.runs.watch import watch_run

N_TASKS, TURNED = 120, (0, 40, 80)  # in the latter, people prefer what they refuse everywhere else


@pytest.fixture
def judged(project, annotator, other_annotator):
    """Thanks are better: two people say so of every task, but for a few of which both say the opposite."""
    project.overlap = 2
    project.save()
    tasks = []
    for number in range(N_TASKS):
        page = "".join(chr(97 + int(digit, 16)) for digit in sha256(str(number)))  # alike, they would be one group
        prompt = Prompt.objects.create(
            project=project, messages=[{"role": "user", "content": f"How do I reset {page}?"}],
            content_hash=f"h{number}", group_id=f"g{number}",
        )  # fmt: skip
        texts = [f"{'Thank you! ' * times}Open page {7 * number % 99}." for times in (0, 4, 1)]
        rows = [Completion.objects.create(prompt=prompt, content=text, content_hash=text) for text in texts]
        tasks.append(NewTask(prompt.pk, [row.pk for row in rows]))
    create_tasks(project=project, new_tasks=tasks)
    turned = {task.pk for number, task in enumerate(project.tasks.order_by("pk")) if number in TURNED}
    for person in (annotator, other_annotator):
        while lease := take_lease(project=project, annotator=person):
            order = sorted("abc", key=lambda key: -lease.texts[lease.order_shown["abc".index(key)]].count("Thank"))
            ranking = [[key] for key in (reversed(order) if lease.task_id in turned else order)]
            submit_judgement(lease=lease, submission_key=f"{person.pk}-{lease.pk}", body={"ranking": ranking})
    return turned


def train(project, tiny, lead, **spec) -> Run:
    snapshot = create_snapshot(project=project, created_by=lead)
    run = create_run(
        project=project, kind="reward_head", created_by=lead, snapshot=snapshot, model=tiny, spec={"layer": 2, **spec}
    )
    watch_run(claim_next_run(owner="test"))
    run.refresh_from_db()
    assert (run.state, run.error) == (Run.State.DONE, "")
    return run


def contradicted() -> set[int]:
    return set(Disagreement.objects.exclude(contradiction=None).exclude(urgency=None).values_list("task", flat=True))


def test_a_sure_model_contradicts_a_confident_majority(project, judged, tiny, lead, reviewer):
    run = train(project, tiny, lead)
    assert contradicted() == judged
    assert "sure that people are wrong on 3 tasks" in run.status_text
    row = Disagreement.objects.get(task=min(judged))
    assert row.contradicted_by == run.output_model.key and row.contradiction >= 0.9 and row.share == 0

    # Settled, it waits no more; and the next model speaks in the place of the first.
    task = Task.objects.get(pk=min(judged))
    best_first = sorted(task.completions.all(), key=lambda row: -row.content.count("Thank"))
    adjudicate(task=task, by=reviewer, submission_key="s", outcome="ranking", ranking=[[row.pk] for row in best_first])
    again = train(project, tiny, lead, seed=1)
    assert contradicted() == judged - {task.pk}
    assert set(Contradiction.objects.values_list("model_key", flat=True)) == {again.output_model.key}
    assert not Contradiction.objects.filter(task=task).exists()  # what was settled is what it was trained on


def test_a_model_that_is_not_calibrated_says_nothing(project, judged, tiny, lead):
    run = train(project, tiny, lead)
    result = {**run.result, "calibration": {**run.result["calibration"], "is_calibrated": False}}
    assert beliefs_against(run, run_folder(run), result) is None
    assert beliefs_against(run, run_folder(run), {"calibration": None}) is None
    # Tasks and completions are found again by the ids of pairs; what is gone is left out.
    found = beliefs_against(run, run_folder(run), run.result)
    assert {belief.task_id for belief in found} == judged
    for belief in found:
        texts = dict(Completion.objects.values_list("pk", "content"))
        for better, worse, probability in belief.pairs:
            assert texts[better].count("Thank") < texts[worse].count("Thank") and probability <= 0.1
    with open(run_folder(run) / "beliefs.jsonl", "a") as file:
        file.write(json.dumps({"id": "of a task that is gone", "probability": 0.01}) + "\n")
    assert beliefs_against(run, run_folder(run), run.result) == found
