"""Machines enter themselves, are measured for real once, and are forgotten when they are gone."""

import subprocess
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.utils.timezone import now

from training.runs import machines, tasks
from training.runs.doctor import examine_machines
from training.runs.launchers import environment
from training.runs.machines import in_words, machines_there, note_machine, say_that_it_is_there
from training.runs.models import Machine, Run
from training.sampling import machine as measuring

FACTS = {"cores": 2, "memory_bytes": 24e9, "gpus": [], "flops": {"float32": 4e10, "bfloat16": 2e11}}


def test_a_process_of_its_own_measures_the_machine():
    facts = measuring.ask(environment())
    assert facts["device"] in ("cpu", "cuda") and facts["cores"] >= 1
    assert 10**8 < facts["memory_bytes"] <= 2**50
    assert all(10**8 < speed < 10**16 for speed in facts["flops"].values()) and "float32" in facts["flops"]
    assert facts["copied_bytes_a_second"] > 10**7


@pytest.mark.django_db
def test_a_worker_measures_once_a_day_and_else_says_that_it_is_there(monkeypatch):
    asked = []
    monkeypatch.setattr(measuring, "ask", lambda environment: asked.append(1) or FACTS)
    say_that_it_is_there()
    machine = Machine.objects.get()
    assert machine.facts["cores"] == 2 and len(asked) == 1
    long_ago = now() - timedelta(hours=3)
    Machine.objects.update(seen_at=long_ago)
    say_that_it_is_there()
    assert len(asked) == 1 and Machine.objects.get().seen_at > long_ago
    Machine.objects.update(measured_at=now() - timedelta(days=2))
    say_that_it_is_there()
    assert len(asked) == 2


@pytest.mark.django_db
def test_nothing_is_measured_beside_a_run(monkeypatch, project):
    monkeypatch.setattr(measuring, "ask", lambda environment: pytest.fail("measured beside a run"))
    machine = note_machine(FACTS)
    Machine.objects.update(measured_at=now() - timedelta(days=2))
    Run.objects.create(project=project, kind="sample", state=Run.State.RUNNING, owner=f"{machine.name}:7:9")
    say_that_it_is_there()
    assert Machine.objects.get().measured_at < now() - timedelta(days=1)


@pytest.mark.django_db
def test_a_machine_that_cannot_be_measured_is_not_entered(monkeypatch):
    def fail(environment):
        raise subprocess.CalledProcessError(1, "python")

    monkeypatch.setattr(measuring, "ask", fail)
    say_that_it_is_there()
    assert not Machine.objects.exists()


@pytest.mark.django_db
def test_machines_count_for_a_day_and_are_kept_for_a_month():
    for name, days in (("here", 0), ("yesterday", 2), ("long ago", 40)):
        machine = note_machine(FACTS, name)
        Machine.objects.filter(pk=machine.pk).update(seen_at=now() - timedelta(days=days))
    assert [machine.name for machine in machines_there()] == ["here"]
    note_machine(FACTS, "new")
    assert set(Machine.objects.values_list("name", flat=True)) == {"here", "yesterday", "new"}


@pytest.mark.parametrize(("queue", "says"), [("gpu", True), ("default", False)])
def test_only_workers_that_execute_runs_enter_their_machine(monkeypatch, queue, says):
    started = []
    monkeypatch.setattr(tasks, "start_saying", lambda: started.append(1))
    queues = SimpleNamespace(consume_from={queue: None})
    tasks.enter_machine(sender=SimpleNamespace(app=SimpleNamespace(amqp=SimpleNamespace(queues=queues))))
    assert bool(started) == says


@pytest.mark.django_db
def test_the_doctor_names_the_machines_or_says_that_there_is_none():
    assert [finding.state for finding in examine_machines()] == ["warning"]
    note_machine(FACTS, "gpu1")
    (finding,) = examine_machines()
    assert (finding.name, finding.state) == ("machine gpu1", "ok") and "2 cores" in finding.text


def test_a_machine_in_words():
    gpu = {**FACTS, "gpus": [{"name": "NVIDIA H100", "memory_bytes": 80e9}]}
    assert in_words(gpu) == "NVIDIA H100, 80 GB, 2 cores, 24 GB of memory, 0.2 TFLOP/s in bfloat16"
    assert in_words({}) == "1 cores, 0 GB of memory"
    assert machines.QUEUE == "gpu"
