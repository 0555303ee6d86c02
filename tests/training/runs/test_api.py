from datetime import timedelta

import pytest
from django.utils.timezone import now

from labeling.preferences.services import create_snapshot
from tests import factories
from tests.api_caller import Caller, code_of
from training.registry.models import ModelVersion
from training.runs.models import Run, RunEvent


@pytest.fixture
def model(project):
    return ModelVersion.objects.create(name="small", version=1, key="small@1", kind="base", folder="models/small")


@pytest.fixture
def caller(filled_project, engineer, model):
    return Caller(engineer)


def test_a_run_is_queued_followed_cancelled_and_resumed(caller, project, model):
    queued = caller.post("projects/support/runs/", {"kind": "sample", "model": "small@1", "spec": {"seed": 7}})
    assert queued.status_code == 201
    run = queued.json()
    assert (run["state"], run["model"]["key"], run["spec"], run["snapshot"]) == ("queued", "small@1", {"seed": 7}, None)
    assert caller.get(f"runs/{run['id']}/").json() == run
    assert [row["id"] for row in caller.get("projects/support/runs/").json()["results"]] == [run["id"]]
    cancelled = caller.post(f"runs/{run['id']}/cancel/")
    assert cancelled.status_code == 200 and cancelled.json()["state"] == "cancelled"
    again = caller.post(f"runs/{run['id']}/cancel/")
    assert again.status_code == 409 and code_of(again) == "wrong_state"
    assert caller.post(f"runs/{run['id']}/resume/").json()["state"] == "queued"


def test_events_come_in_order_page_by_page_and_after_the_last_one_seen(caller, project, model):
    run = Run.objects.create(project=project, kind="sample", model=model)
    for number in range(1, 8):
        RunEvent.objects.create(
            run=run, number=number, type="metric", step=number, at=now() + timedelta(seconds=number), payload={"loss": 1 / number, "id": 99}
        )  # fmt: skip
    first = caller.get(f"runs/{run.pk}/events/?page_size=3").json()
    assert [event["id"] for event in first["results"]] == ["1", "2", "3"] and first["next"]
    assert first["results"][1]["loss"] == 0.5
    later = caller.get(f"runs/{run.pk}/events/?after=5").json()
    assert [event["step"] for event in later["results"]] == [6, 7]
    assert caller.get(f"runs/{run.pk}/events/?after=x").status_code == 400


@pytest.mark.parametrize(
    "body, field",
    [({"kind": "shell", "model": "small@1"}, "kind"), ({}, "kind"), ({"kind": "sample"}, "model"),
     ({"kind": "sample", "model": "other@1"}, "model"), ({"kind": "dpo", "model": "small@1"}, "snapshot"),
     ({"kind": "dpo", "model": "small@1", "snapshot": "77"}, "snapshot"),
     ({"kind": "dpo", "model": "small@1", "snapshot": "../1"}, "snapshot"),
     ({"kind": "sample", "model": "small@1", "spec": {"trust_remote_code": True}}, "spec.trust_remote_code"),
     ({"kind": "sample", "model": "small@1", "spec": {"output_dir": "/etc"}}, "spec.output_dir"),
     ({"kind": "sample", "model": "small@1", "spec": {"temperature": "hot"}}, "spec.temperature"),
     ({"kind": "sample", "model": "small@1", "inputs": {"prompt_ids": "all"}}, "inputs"),
     ({"kind": "sample", "model": "small@1", "inputs": {"prompt_ids": ["x"]}}, "inputs"),
     ({"kind": "sample", "model": "small@1", "inputs": {"tags": [1]}}, "inputs"),
     ({"kind": "reward_head", "model": "small@1", "spec": {"pooling": ["mean"]}}, "spec.pooling"),
     ({"kind": "reward_head", "model": "small@1", "spec": {"pooling": {}}}, "spec.pooling"),
     ({"kind": "dpo", "model": "small@1", "spec": {"loss_type": 5}}, "spec.loss_type"),
     ({"kind": "sft", "model": "small@1", "spec": {"sources": ["gold"]}}, "spec.sources"),
     ({"kind": "sft", "model": "small@1", "spec": {"packing": True}}, "spec.packing"),
     ({"kind": "kto", "model": "small@1", "spec": {"labels_from": []}}, "spec.labels_from"),
     ({"kind": "kto", "model": "small@1"}, "snapshot"),
     ({"kind": "sample", "model": "small@1", "owner": "me"}, "owner")],
)  # fmt: skip
def test_a_run_that_cannot_start_is_refused_by_field(caller, body, field):
    answer = caller.post("projects/support/runs/", body)
    assert answer.status_code == 400 and field in answer.json()["error"]["fields"], answer.json()
    assert not Run.objects.exists()


def test_a_run_takes_no_data_or_model_of_another_project(caller, stranger, annotator):
    elsewhere = factories.make_project(stranger, slug="elsewhere", members={annotator: "annotator"})
    factories.fill_project(elsewhere, 10)
    factories.judge_all(elsewhere, annotator)
    snapshot = create_snapshot(project=elsewhere, created_by=stranger)
    theirs = ModelVersion.objects.create(name="t", version=1, key="t@1", kind="policy", project=elsewhere, folder="x")
    for body in (
        {"kind": "dpo", "model": "small@1", "snapshot": str(snapshot.pk)},
        {"kind": "sample", "model": "t@1"},
        {"kind": "sample", "model": str(theirs.pk)},
    ):
        assert caller.post("projects/support/runs/", body).status_code == 400
    foreign = elsewhere.prompts.first().pk
    answer = caller.post(
        "projects/support/runs/", {"kind": "sample", "model": "small@1", "inputs": {"prompt_ids": [str(foreign)]}}
    )
    assert answer.status_code == 400 and "inputs" in answer.json()["error"]["fields"]


def test_a_project_with_many_waiting_runs_is_told_to_wait(caller):
    body = {"kind": "sample", "model": "small@1"}
    statuses = [caller.post("projects/support/runs/", body).status_code for _ in range(22)]
    assert statuses == [201] * 20 + [429] * 2
    refused = caller.post("projects/support/runs/", body)
    assert code_of(refused) == "too_many_runs" and int(refused["Retry-After"]) > 0
