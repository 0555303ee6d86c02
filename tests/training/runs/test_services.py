"""Runs on a tiny model, each recipe a real process; workers really killed."""

import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection
from django.utils.timezone import now

from labeling.database.jobs import OwnerLost
from labeling.preferences.services import create_snapshot
from labeling.projects.models import Completion
from tests import factories
from tests.labeling.quality import gold
from tests.waiting import wait_until
from training.registry.models import ModelVersion
from training.registry.services import folder_of
from training.registry.verification import verify
from training.runs.errors import BadSpec, RunError
from training.runs.folder import prompts_to_sample, run_folder
from training.runs.models import Run, RunEvent
from training.runs.services import (
    JOBS,
    claim_next_run,
    create_run,
    heartbeat,
    request_cancel,
    resume_run,
    sweep_runs,
)
from training.runs.watch import EventReader, environment, watch_run

FAST_DPO = {"max_steps": 2, "per_device_train_batch_size": 2, "sample_every_steps": 0, "save_steps": 1}


@pytest.fixture
def snapshot(project, annotator, lead):
    factories.fill_project(project, 16)
    factories.judge_all(project, annotator)
    return create_snapshot(project=project, created_by=lead)


def execute(run: Run) -> Run:
    claimed = claim_next_run(owner="test")
    assert claimed == run
    watch_run(claimed)
    run.refresh_from_db()
    return run


def test_a_dpo_run_registers_a_policy_with_its_lineage(project, snapshot, tiny, lead):
    run = create_run(project=project, kind="dpo", created_by=lead, snapshot=snapshot, model=tiny, spec=FAST_DPO)
    execute(run)
    assert (run.state, run.error) == (Run.State.DONE, "")
    policy = run.output_model
    assert (policy.kind, policy.parent, policy.base, policy.snapshot) == ("policy", tiny, tiny, snapshot)
    assert policy.lineage["snapshot_hash"] == snapshot.content_hash
    assert policy.lineage["run"] == run.pk
    assert any(name.endswith(".safetensors") for name in policy.files)
    assert snapshot.content_hash in (folder_of(policy) / "README.md").read_text() and "README.md" in policy.files
    assert [one.problem for one in verify(policy) if one.problem] == []
    assert run.events.filter(type="metric").exists()
    numbers = list(run.events.order_by("number").values_list("number", flat=True))
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.recipe
def test_a_policy_with_an_adapter_is_sampled_and_its_completions_know_their_lineage(project, snapshot, tiny, lead):
    dpo = create_run(project=project, kind="dpo", created_by=lead, snapshot=snapshot, model=tiny, spec=FAST_DPO)
    policy = execute(dpo).output_model
    spec = {"completions_per_prompt": 2, "max_new_tokens": 6, "temperature": 1.0, "seed": 3}
    run = execute(create_run(project=project, kind="sample", created_by=lead, model=policy, spec=spec))
    assert (run.state, run.error) == (Run.State.DONE, "")
    made = Completion.objects.filter(model_key=policy.key)
    assert 0 < made.count() <= 32
    assert {row.sampling["run"] for row in made} == {run.pk}
    assert all(row.sampling["max_new_tokens"] == 6 and "seed" in row.sampling for row in made)


@pytest.mark.recipe
def test_a_policy_is_trained_further_from_its_adapter(project, snapshot, tiny, lead):
    first = execute(
        create_run(project=project, kind="dpo", created_by=lead, snapshot=snapshot, model=tiny, spec=FAST_DPO)
    )
    spec = {**FAST_DPO, "max_eval_pairs": 2}
    run = create_run(
        project=project, kind="dpo", created_by=lead, snapshot=snapshot, model=first.output_model, spec=spec
    )
    execute(run)
    assert (run.state, run.error) == (Run.State.DONE, "")
    second = run.output_model
    assert (second.version, second.parent, second.base) == (2, first.output_model, tiny)
    # One adapter on the same base, with other weights; the reference copy stays out of it.
    assert set(second.files) == set(first.output_model.files)
    assert second.files["adapter_model.safetensors"] != first.output_model.files["adapter_model.safetensors"]
    assert run.result["dataset"]["n_eval"] == 2


@pytest.mark.recipe
def test_a_reward_head_reports_accuracy_with_its_interval(project, snapshot, tiny, lead):
    run = create_run(
        project=project, kind="reward_head", created_by=lead, snapshot=snapshot, model=tiny, spec={"layer": 1}
    )
    execute(run)
    assert (run.state, run.error) == (Run.State.DONE, "")
    accuracy = run.output_model.metrics["accuracy"]
    assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
    assert accuracy["n"] > 0


def test_a_run_that_cannot_start_is_refused_with_the_field_named(project, snapshot, tiny, lead):
    with pytest.raises(BadSpec) as refusal:
        create_run(project=project, kind="dpo", created_by=lead, model=None, spec={"hub_token": "x", "beta": -1})
    assert set(refusal.value.fields) == {"spec.hub_token", "spec.beta", "model", "snapshot"}
    with pytest.raises(BadSpec) as refusal:
        create_run(project=project, kind="mystery", created_by=lead)
    assert "kind" in refusal.value.fields
    assert not Run.objects.exists()


def test_a_snapshot_without_pairs_trains_nothing_and_says_so(project, snapshot, tiny, lead):
    snapshot.n_pairs = 0
    with pytest.raises(BadSpec) as refused:
        create_run(project=project, kind="dpo", created_by=lead, snapshot=snapshot, model=tiny)
    assert "holds no pairs" in refused.value.fields["snapshot"]


def test_prompts_written_for_gold_are_never_sampled_not_even_by_name(project, tiny, lead):
    factories.fill_project(project, 3)
    ordinary = set(project.prompts.all())
    of_gold = [answer.task.prompt for answer in gold.write(project, 2)]
    # Somebody writes tags on one in the administration.
    project.prompts.filter(pk=of_gold[0].pk).update(tags=["delivery"])
    assert set(prompts_to_sample(project, {})) == set(prompts_to_sample(project, {"tags": ["delivery"]})) == ordinary
    named = {"prompt_ids": [prompt.pk for prompt in of_gold]}
    with pytest.raises(BadSpec) as caught:
        create_run(project=project, kind="sample", created_by=lead, model=tiny, inputs=named)
    assert "inputs" in caught.value.fields


@pytest.mark.recipe
def test_a_recipe_that_fails_leaves_the_run_failed_with_its_reason(project, snapshot, tiny, lead):
    run = create_run(project=project, kind="dpo", created_by=lead, snapshot=snapshot, model=tiny, spec=FAST_DPO)
    ModelVersion.objects.filter(pk=tiny.pk).update(folder="models/nowhere")
    execute(run)
    assert run.state == Run.State.FAILED
    assert "nowhere" in run.error
    with pytest.raises(RunError):
        request_cancel(run=run)
    ModelVersion.objects.filter(pk=tiny.pk).update(folder="models/tiny")
    resume_run(run=run)
    run.refresh_from_db()
    assert execute(run).state == Run.State.DONE


def test_a_queued_run_is_cancelled_at_once_and_never_claimed(project, snapshot, tiny, lead):
    run = create_run(project=project, kind="dpo", created_by=lead, snapshot=snapshot, model=tiny)
    request_cancel(run=run)
    run.refresh_from_db()
    assert run.state == Run.State.CANCELLED
    assert claim_next_run(owner="test") is None


def test_a_stale_owner_writes_nothing(project, snapshot, tiny, lead):
    create_run(project=project, kind="dpo", created_by=lead, snapshot=snapshot, model=tiny)
    stale = claim_next_run(owner="first")
    Run.objects.filter(pk=stale.pk).update(heartbeat_at=now() - timedelta(hours=1))
    assert sweep_runs() == 1
    fresh = claim_next_run(owner="second")
    assert fresh.pk == stale.pk and fresh.epoch > stale.epoch
    with pytest.raises(OwnerLost):
        heartbeat(run=stale)
    with pytest.raises(OwnerLost):
        JOBS.end(stale, state=Run.State.DONE)
    assert heartbeat(run=fresh) is False


def test_a_run_that_loses_its_worker_too_often_fails_with_the_reason(project, snapshot, tiny, lead):
    run = create_run(project=project, kind="dpo", created_by=lead, snapshot=snapshot, model=tiny)
    for _ in range(settings.RUN_MAX_ATTEMPTS):
        claimed = claim_next_run(owner="mortal")
        assert claimed is not None
        Run.objects.filter(pk=run.pk).update(heartbeat_at=now() - timedelta(hours=1))
        sweep_runs()
    run.refresh_from_db()
    assert run.state == Run.State.FAILED
    assert "lost" in run.error


def test_a_run_alive_is_not_swept(project, snapshot, tiny, lead):
    create_run(project=project, kind="dpo", created_by=lead, snapshot=snapshot, model=tiny)
    claim_next_run(owner="alive")
    assert sweep_runs() == 0


def test_events_are_stored_once_even_if_read_by_two_workers_and_torn_lines_wait(project, snapshot, tiny, lead):
    run = create_run(project=project, kind="dpo", created_by=lead, snapshot=snapshot, model=tiny)
    folder = run_folder(run)
    folder.mkdir(parents=True)
    line = json.dumps({"type": "metric", "step": 1, "at": "2026-11-21T08:00:00+00:00", "metrics": {"loss": 0.5}})
    (folder / "events.jsonl").write_text(f"{line}\n{line}\n" + line[:20])
    first, second = EventReader(run, folder), EventReader(run, folder)
    first.read()
    second.read()
    assert RunEvent.objects.filter(run=run).count() == 2
    with open(folder / "events.jsonl", "a") as file:
        file.write(line[20:] + "\n")
    EventReader(run, folder).read()
    assert RunEvent.objects.filter(run=run, type="metric").count() == 3


def test_a_recipe_sees_none_of_the_sites_secrets(monkeypatch):
    monkeypatch.setenv("PREFLOOP_DATABASE_URL", "postgres://secret")
    monkeypatch.setenv("PREFLOOP_SECRET_KEY", "x" * 50)
    assert not [name for name in environment() if name.startswith("PREFLOOP_") and name != "PREFLOOP_WATCHER_PID"]


WORKER = """
import django, os
django.setup()
from django.conf import settings
settings.DATABASES["default"]["NAME"] = os.environ["TEST_DATABASE"]
from training.runs.tasks import execute_runs
print(execute_runs.apply().get())
"""


def start_worker() -> subprocess.Popen:
    """A worker in a process of its own, on the test's database."""
    environment = {
        **os.environ, "DJANGO_SETTINGS_MODULE": "config.settings", "TEST_DATABASE": connection.settings_dict["NAME"],
    }  # fmt: skip
    return subprocess.Popen([sys.executable, "-c", WORKER], env=environment, cwd=settings.BASE_DIR)



def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.django_db(transaction=True)
def test_a_killed_worker_takes_its_recipe_along_and_another_finishes_the_run(project, snapshot, tiny, lead, settings):
    spec = {**FAST_DPO, "max_steps": 400}
    run = create_run(project=project, kind="dpo", created_by=lead, snapshot=snapshot, model=tiny, spec=spec)
    worker = start_worker()
    try:
        wait_until(lambda: RunEvent.objects.filter(run=run, type="checkpoint").count() >= 2)
        recipe_pid = RunEvent.objects.filter(run=run, payload__state="started").first().payload["pid"]
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        wait_until(lambda: not is_alive(recipe_pid))
        assert not (run_folder(run) / "result.json").exists()
        settings.RUN_LOST_AFTER_SECONDS = 0
        wait_until(lambda: sweep_runs() == 1)
        run.refresh_from_db()
        assert run.state == Run.State.QUEUED
        # Now only a few steps are left to do, from the last checkpoint on.
        settings.RUN_LOST_AFTER_SECONDS = 30
        Run.objects.filter(pk=run.pk).update(spec={**FAST_DPO, "max_steps": 12})
        done = RunEvent.objects.filter(run=run, type="checkpoint").count()
        run.refresh_from_db()
        execute(run)
    finally:
        worker.kill()
        worker.wait()
    assert run.state == Run.State.DONE, run.error
    assert run.attempts == 2
    assert done >= 2
    assert RunEvent.objects.filter(run=run, type="status", payload__state="resumed").exists()


@pytest.mark.django_db(transaction=True)
def test_a_running_run_is_cancelled_at_its_next_step_and_can_go_on(project, snapshot, tiny, lead):
    spec = {**FAST_DPO, "max_steps": 400}
    run = create_run(project=project, kind="dpo", created_by=lead, snapshot=snapshot, model=tiny, spec=spec)
    worker = start_worker()
    try:
        wait_until(lambda: RunEvent.objects.filter(run=run, type="checkpoint").exists())
        request_cancel(run=run)
        assert worker.wait(timeout=60) == 0
    finally:
        worker.kill()
        worker.wait()
    run.refresh_from_db()
    assert run.state == Run.State.CANCELLED
    assert run.output_model is None
    resume_run(run=run)
    run.refresh_from_db()
    assert run.state == Run.State.QUEUED
