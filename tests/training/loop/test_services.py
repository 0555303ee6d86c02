"""The loop's stages, with runs ended by hand: what each waits for, and that two callers do no harm."""

import pytest
from django.utils.timezone import now

from labeling.annotation.models import Judgement, Task
from labeling.imports.services import import_rows
from labeling.projects.models import Completion, Prompt
from labeling.projects.text import canonical_json, sha256
from tests import factories
from training.loop.errors import BadIteration, WrongStage
from training.loop.models import Iteration
from training.loop.selectors import collected, iterations_visible_to, win_rate
from training.loop.services import (
    advance_iteration,
    cancel_iteration,
    proceed_iteration,
    retry_iteration,
    start_iteration,
)
from training.registry.models import ModelVersion
from training.runs.models import Run

Stage = Iteration.Stage


@pytest.fixture
def base(db) -> ModelVersion:
    return ModelVersion.objects.create(key="base@1", name="base", version=1, kind="base", folder="models/base")


@pytest.fixture
def prompts(project) -> list[Prompt]:
    lines = [
        canonical_json({"prompt": f"Question {'x' * number}?", "tags": ["heldout"] if number % 3 == 0 else ["train"]})
        for number in range(1, 13)
    ]
    import_rows(project=project, format="prompts", lines=[line.encode() for line in lines], created_by=None)
    return list(project.prompts.order_by("pk"))


@pytest.fixture
def iteration(project, prompts, base, lead) -> Iteration:
    config = {"completions_per_task": 2, "n_compare_train": 2}
    return start_iteration(project=project, policy_before=base, created_by=lead, config=config)


def end(run: Run, **fields: object) -> None:
    Run.objects.filter(pk=run.pk).update(state=Run.State.DONE, finished_at=now(), **fields)


def answer(run: Run, model: ModelVersion, n: int = 2) -> None:
    """What a sample run leaves behind."""
    for pk in run.inputs["prompt_ids"]:
        for index in range(n):
            text = f"{model.key} {run.pk} {index}"
            Completion.objects.create(
                prompt_id=pk, content=text, content_hash=sha256(text), model_key=model.key, sampling={"run": run.pk}
            )
    end(run)


def made(project, kind: str, parent: ModelVersion) -> ModelVersion:
    key = f"{kind}-{ModelVersion.objects.count()}@1"
    return ModelVersion.objects.create(
        key=key, name=key[:-2], version=1, kind=kind, project=project, parent=parent, base=parent, folder="x"
    )


def test_an_iteration_goes_from_prompts_to_a_comparison_of_policies(iteration, project, base, annotator):
    iteration = advance_iteration(iteration)
    assert (iteration.stage, iteration.sample_run.kind) == (Stage.SAMPLING, "sample")
    n_train = sum("heldout" not in prompt.tags for prompt in project.prompts.all())
    assert len(iteration.sample_run.inputs["prompt_ids"]) == n_train == 8
    assert advance_iteration(iteration).sample_run == iteration.sample_run  # asked again, one run

    answer(iteration.sample_run, base)
    iteration = advance_iteration(iteration)
    assert iteration.stage == Stage.COLLECTING
    assert collected(iteration).n_slots == 8
    assert advance_iteration(iteration).stage == Stage.COLLECTING  # it waits for people

    factories.judge_all(project, annotator)
    iteration = advance_iteration(advance_iteration(iteration))
    assert iteration.stage == Stage.REWARD
    assert iteration.snapshot.n_judgements == 8

    iteration = advance_iteration(iteration)
    end(iteration.reward_run, output_model=made(project, "reward", base))
    iteration = advance_iteration(advance_iteration(iteration))
    assert iteration.stage == Stage.POLICY and iteration.reward_model
    assert iteration.policy_run.snapshot == iteration.snapshot
    policy = made(project, "policy", base)
    end(iteration.policy_run, output_model=policy)
    iteration = advance_iteration(advance_iteration(iteration))
    assert iteration.stage == Stage.RESAMPLING
    answer(iteration.resample_run, policy, 1)
    iteration = advance_iteration(iteration)
    answer(iteration.baseline_run, base, 1)
    iteration = advance_iteration(iteration)
    assert iteration.stage == Stage.COMPARING
    comparisons = project.tasks.filter(purpose=Task.Purpose.EVALUATION)
    assert comparisons.count() == 4 + 2  # held out, and two of the training side
    for task in comparisons:
        assert {row.model_key for row in task.completions.all()} == {base.key, policy.key}
    assert win_rate(iteration)["value"] is None

    # The later completion, the new policy's, is ranked second by judge_all.
    factories.judge_all(project, annotator)
    iteration = advance_iteration(iteration)
    assert iteration.stage == Stage.DONE
    figure = win_rate(iteration, tag="heldout")
    assert (figure["n"], figure["wins"] + figure["losses"]) == (4, 4)
    assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
    assert [entry["stage"] for entry in iteration.stage_log] == [
        "sampling", "collecting", "freezing", "reward", "policy", "resampling", "comparing", "done",
    ]  # fmt: skip


def test_comparisons_never_enter_a_training_snapshot(iteration, project, base, annotator, lead):
    iteration = advance_iteration(iteration)
    answer(iteration.sample_run, base)
    advance_iteration(iteration)
    factories.judge_all(project, annotator)
    project.tasks.filter(pk__in=project.tasks.order_by("pk").values("pk")[:3]).update(purpose=Task.Purpose.EVALUATION)
    from labeling.preferences.services import create_snapshot

    assert create_snapshot(project=project, created_by=lead).n_judgements == 5
    assert Judgement.objects.count() == 8


def test_a_lead_may_say_that_what_was_collected_is_enough(iteration, project, base, annotator):
    iteration = advance_iteration(iteration)
    answer(iteration.sample_run, base)
    iteration = advance_iteration(iteration)
    with pytest.raises(WrongStage):
        proceed_iteration(iteration=iteration)
    factories.judge_all(project, annotator, limit=3)
    iteration.refresh_from_db()
    proceed_iteration(iteration=iteration)
    assert advance_iteration(iteration).stage == Stage.FREEZING


def test_a_failed_run_fails_the_iteration_with_its_reason_and_it_can_be_taken_up_again(iteration):
    iteration = advance_iteration(iteration)
    Run.objects.filter(pk=iteration.sample_run.pk).update(state=Run.State.FAILED, error="no memory left")
    iteration = advance_iteration(iteration)
    assert iteration.stage == Stage.FAILED
    assert "no memory left" in iteration.error
    retry_iteration(iteration=iteration)
    iteration.refresh_from_db()
    iteration.sample_run.refresh_from_db()
    assert (iteration.stage, iteration.error) == (Stage.SAMPLING, "")
    assert iteration.sample_run.state == Run.State.QUEUED


def test_a_cancelled_iteration_cancels_its_runs(iteration):
    iteration = advance_iteration(iteration)
    cancel_iteration(iteration=iteration)
    iteration.refresh_from_db()
    iteration.sample_run.refresh_from_db()
    assert (iteration.stage, iteration.sample_run.state) == (Stage.FAILED, Run.State.CANCELLED)


def test_one_iteration_at_a_time_and_a_wrong_configuration_names_its_fields(iteration, project, base, lead):
    with pytest.raises(BadIteration) as refusal:
        start_iteration(project=project, policy_before=base, created_by=lead)
    assert "project" in refusal.value.fields
    bad = {"quota": 2, "completions_per_task": 1, "policy": {"beta": "x"}, "surprise": 1, "snapshot_policy": {"ties": "?"}}
    with pytest.raises(BadIteration) as refusal:
        start_iteration(project=project, policy_before=base, created_by=lead, config=bad)
    assert set(refusal.value.fields) == {
        "quota", "completions_per_task", "policy.beta", "surprise", "snapshot_policy.ties",
    }  # fmt: skip


def test_iterations_are_seen_by_those_who_read_the_console_alone(iteration, lead, engineer, annotator, stranger):
    assert [iterations_visible_to(user).count() for user in (lead, engineer, annotator, stranger)] == [1, 1, 0, 0]
