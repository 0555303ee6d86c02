"""How the processes of a run are started: commands, what is refused, and that none is left behind."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import yaml
from django.conf import settings as site
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connections

from config import environment as env
from labeling.preferences.services import create_snapshot
from tests import factories
from tests.waiting import wait_until
from training.registry.models import ModelVersion
from training.runs import joining, launchers
from training.runs.catalogue import KINDS
from training.runs.doctor import examine_launchers
from training.runs.errors import BadSpec
from training.runs.folder import run_folder, write_inputs
from training.runs.models import Run
from training.runs.options import RUN_DEFAULTS
from training.runs.services import claim_next_run, create_run
from training.runs.specs import check_spec
from training.runs.subprocesses import end_all, running, start
from training.runs.watch import watch_run

GOLDEN = {
    ("one", 1): "python -m training.recipes.dpo",
    ("torchrun", 1): "python -m torch.distributed.run --standalone --nproc-per-node 2 -m training.recipes.dpo",
    ("torchrun", 2): "python -m torch.distributed.run --nnodes 2 --node-rank 1 --master-addr gpu1 --master-port 29500 "
    "--nproc-per-node 2 -m training.recipes.dpo",
    ("fsdp2", 1): "python -m accelerate.commands.launch --config_file config/accelerate/fsdp2.yaml --num_processes 2 "
    "--num_machines 1 --machine_rank 0 --main_process_port 0 -m training.recipes.dpo",
    ("fsdp2", 2): "python -m accelerate.commands.launch --config_file config/accelerate/fsdp2.yaml --num_processes 4 "
    "--num_machines 2 --machine_rank 1 --main_process_ip gpu1 --main_process_port 29500 -m training.recipes.dpo",
    ("zero3", 1): "python -m accelerate.commands.launch --config_file config/accelerate/zero3.yaml --num_processes 2 "
    "--num_machines 1 --machine_rank 0 --main_process_port 0 -m training.recipes.dpo",
    ("zero3", 2): "python -m accelerate.commands.launch --config_file config/accelerate/zero3.yaml --num_processes 4 "
    "--num_machines 2 --machine_rank 1 --main_process_ip gpu1 --main_process_port 29500 -m training.recipes.dpo",
}  # fmt: skip


@pytest.fixture
def snapshot(project, annotator, lead):
    factories.fill_project(project, 16)
    factories.judge_all(project, annotator)
    return create_snapshot(project=project, created_by=lead)


@pytest.fixture
def base(db) -> ModelVersion:
    return ModelVersion.objects.create(key="small@1", name="small", version=1, kind="base", folder="models/small")


@pytest.mark.parametrize(("launcher", "nodes"), GOLDEN)
def test_each_launcher_is_started_by_its_command(launcher, nodes, settings):
    settings.TRAIN_NODES, settings.TRAIN_NODE_RANK, settings.TRAIN_RENDEZVOUS = nodes, nodes - 1, "gpu1:29500"
    made = launchers.command("dpo", {"launcher": launcher, "processes": 2}, Path("runs/7"))
    made = " ".join(made).replace(sys.executable, "python").replace(f"{site.BASE_DIR}/", "")
    assert made == f"{GOLDEN[launcher, nodes]} --config runs/7/spec.yaml --run_dir runs/7"


@pytest.mark.parametrize("launcher", [name for name in launchers.launcher_names() if name not in ("one", "torchrun")])
def test_accelerate_understands_each_command(launcher):
    pytest.importorskip("accelerate")
    from accelerate.commands.launch import launch_command_parser

    made = launchers.command("sft", {"launcher": launcher, "processes": 4}, Path("runs/7"))
    parsed = launch_command_parser().parse_args(made[made.index("--config_file"):])
    assert (parsed.module, parsed.training_script, parsed.num_processes) == (True, "training.recipes.sft", 4)
    assert Path(parsed.config_file).is_file()
    assert parsed.training_script_args == ["--config", "runs/7/spec.yaml", "--run_dir", "runs/7"]


def test_the_operators_configurations_are_launchers_too(settings, tmp_path):
    (tmp_path / "two-gpus.yaml").write_text("distributed_type: MULTI_GPU\nuse_cpu: false\n")
    (tmp_path / "processors.yaml").write_text("distributed_type: MULTI_CPU\nuse_cpu: true\n")
    (tmp_path / "Bad name.yaml").write_text("")
    (tmp_path / "one.yaml").write_text("")
    settings.ACCELERATE_CONFIGS = str(tmp_path)
    assert launchers.launcher_names() == ("one", "torchrun", "ddp", "fsdp2", "zero2", "zero3", "processors", "two-gpus")
    assert str(tmp_path / "two-gpus.yaml") in launchers.command("dpo", {"launcher": "two-gpus"}, Path("x"))
    assert "starts one process only" in launchers.why_not_here({"launcher": "processors"})
    settings.ACCELERATE_CONFIGS = ""
    assert "no launcher two-gpus any more" in launchers.why_not_here({"launcher": "two-gpus"})


@pytest.mark.parametrize(
    ("gpus", "spec", "said"),
    [
        (0, {"launcher": "torchrun", "processes": 4}, ""),
        (0, {"launcher": "zero3"}, "this machine has no GPU: choose torchrun for processors, or one"),
        (1, {"launcher": "fsdp2", "processes": 4}, "this machine has 1 GPU: choose processes: 1, or one"),
        (2, {"launcher": "fsdp2"}, ""),
        (2, {"launcher": "zero2"}, "DeepSpeed, which is not installed here"),
    ],
)
def test_what_the_machine_lacks_is_said_before_anything_starts(monkeypatch, gpus, spec, said):
    monkeypatch.setattr(launchers, "gpus_here", lambda: gpus)
    monkeypatch.setattr(launchers.importlib.util, "find_spec", lambda name: None)
    lacking = launchers.why_not_here(spec)
    assert said in lacking and bool(lacking) == bool(said)


@pytest.mark.parametrize(
    ("kind", "spec", "field", "said"),
    [
        ("evaluate", {"launcher": "torchrun"}, "launcher", "is not for a run of kind evaluate, which is one process"),
        ("reward_head", {"processes": 2}, "processes", "is not for a run of kind reward_head"),
        ("grpo", {"launcher": "fsdp2"}, "launcher", "needs the whole model in each process: choose ddp"),
        ("grpo", {"launcher": "torchrun", "processes": 3, "num_generations": 5}, "num_generations", "24 completions (per_device"),
        ("dpo", {"launcher": "horovod"}, "launcher", "must be one of: one, torchrun, ddp"),
        ("dpo", {"processes": 4}, "processes", "is 4, but launcher is one"),
        ("dpo", {"launcher": "torchrun", "processes": 0}, "processes", "between 1 and 64"),
        ("distill", {"launcher": "zero3"}, "launcher", "needs the whole model in each process: choose ddp"),
        ("distill", {"launcher": "ddp", "written_by": "student"}, "launcher", "one process: choose one"),
        ("reward", {"launcher": "fsdp2", "n_heads": 4}, "launcher", "several heads need the whole model"),
        ("reward", {"launcher": "zero3", "axes": ["helpfulness"]}, "launcher", "several heads need the whole model"),
        ("sft", {"launcher": "fsdp2", "quantised_base": "4bit"}, "launcher", "a base of four bits stays whole"),
    ],
)
def test_a_launcher_that_cannot_be_is_refused_by_name(kind, spec, field, said):
    assert said in check_spec(kind, spec)[f"spec.{field}"]


@pytest.mark.parametrize("kind", ["dpo", "sft", "kto", "reward", "distill", "grpo", "rloo", "ppo"])
def test_these_kinds_take_several_processes_and_their_recipes_never_hear_of_it(kind):
    spec = {"launcher": "torchrun", "processes": 4, "keep_checkpoints": True}
    assert check_spec(kind, spec) == {}
    assert set(KINDS[kind].run_options) == set(RUN_DEFAULTS) == set(spec)
    assert not set(spec) & set(KINDS[kind].options)


def test_gpus_are_refused_where_web_and_worker_share_a_machine_without(project, snapshot, base, lead, monkeypatch, settings):
    monkeypatch.setattr(launchers, "gpus_here", lambda: 0)
    wanted = {"project": project, "kind": "dpo", "created_by": lead, "snapshot": snapshot, "model": base, "spec": {"launcher": "ddp"}}
    with pytest.raises(BadSpec) as refused:
        create_run(**wanted)
    assert "this machine has no GPU" in refused.value.fields["spec.launcher"]
    settings.REDIS_URL = "redis://elsewhere"  # the worker may be on another machine: it says so itself
    monkeypatch.setattr("training.runs.services.JOBS.enqueue", lambda run: None)
    run = create_run(**wanted)
    watch_run(claim_next_run(owner="test"))
    run.refresh_from_db()
    assert run.state == Run.State.FAILED and run.error.startswith("Ddp takes a GPU for each of its 2 processes")


def test_the_form_offers_launchers_and_the_page_says_the_batch(client, project, snapshot, base, lead):
    client.force_login(lead)
    form = client.get("/projects/support/runs/new/?kind=dpo").context["form"]
    sent = {f"option_{name}": form[f"option_{name}"].value() for name in form.option_names} | {
        "kind": "dpo", "model": base.pk, "snapshot": snapshot.pk, "option_launcher": "torchrun", "option_processes": "3",
    }  # fmt: skip
    client.post("/projects/support/runs/new/", sent)
    run = Run.objects.get()
    assert run.spec == {"launcher": "torchrun", "processes": 3}
    assert not set(RUN_DEFAULTS) & set(yaml.safe_load((write_inputs(run) / "spec.yaml").read_text()))
    shown = client.get(f"/projects/support/runs/{run.pk}/").content.decode()
    batch = launchers.batch_of({"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, **run.spec})
    assert batch == {"per_device": 4, "processes": 3, "accumulation": 2, "effective": 24}
    assert "3 processes" in shown and "torchrun" in shown
    sent["option_launcher"] = "one"
    refused = client.post("/projects/support/runs/new/", sent)
    assert "launcher is one" in refused.context["form"].errors["option_processes"][0]


def test_doctor_says_of_each_launcher_what_is_missing(monkeypatch):
    monkeypatch.setattr(launchers, "gpus_here", lambda: 0)
    found = {finding.name: finding for finding in examine_launchers()}
    assert found["launchers"].state == "ok" and "one, torchrun" in found["launchers"].text
    assert "ddp, fsdp2, zero2, zero3 need GPUs" in found["launchers"].text


@pytest.mark.parametrize("value", ["gpu1", "gpu1:", ":29500", "gpu1:0", "gpu1:70000", "gpu1:x"])
def test_a_rendezvous_that_makes_no_sense_stops_the_start(monkeypatch, value):
    monkeypatch.setenv("PREFLOOP_TRAIN_RENDEZVOUS", value)
    with pytest.raises(ImproperlyConfigured, match="host:port"):
        env.address("PREFLOOP_TRAIN_RENDEZVOUS", is_needed=False)


def test_several_machines_need_a_rendezvous(monkeypatch):
    monkeypatch.delenv("PREFLOOP_TRAIN_RENDEZVOUS", raising=False)
    assert env.address("PREFLOOP_TRAIN_RENDEZVOUS", is_needed=False) == ""
    with pytest.raises(ImproperlyConfigured, match="is missing"):
        env.address("PREFLOOP_TRAIN_RENDEZVOUS", is_needed=True)


def test_threads_are_shared_by_the_processes(settings, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    settings.TORCH_THREADS = 8
    assert launchers.environment()["OMP_NUM_THREADS"] == "8"
    assert launchers.environment(4)["OMP_NUM_THREADS"] == "2"
    assert launchers.environment(64)["OMP_NUM_THREADS"] == "1"


# --- nothing is left behind ---------------------------------------------------------------------
# As torchrun: its processes are in sessions of their own, so no signal to its group reaches them.
LAUNCHER = textwrap.dedent(
    """
    import subprocess, sys
    rank = [sys.executable, "-c", sys.argv[1]]
    for one in [subprocess.Popen(rank, start_new_session=True) for _ in range(2)]:
        one.wait()
    """
)
DEAF = "import time; time.sleep(600)"
WATCHFUL = textwrap.dedent(
    """
    import os, time
    from training.recipes._eventlog import watch_parent
    watch_parent()
    open(os.environ["PREFLOOP_RUN_FOLDER"].split(" ")[0] + f"/watching-{os.getpid()}", "w")
    time.sleep(600)
    """
)


def launched(folder: Path, rank: str, epoch: int = 1) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    process = start([sys.executable, "-c", LAUNCHER, rank], folder, epoch, launchers.environment())
    wait_until(lambda: len(running(folder)) == 3)
    return process


def test_ending_a_run_ends_the_processes_of_its_launcher_and_none_of_others(tmp_path):
    ours, others = tmp_path / "1", tmp_path / "11"
    process, other = launched(ours, DEAF), launched(others, DEAF)
    end_all(ours, 2)  # an owner that lost the run ends nothing of the next one
    assert len(running(ours)) == 3
    end_all(ours, 1, process)
    assert running(ours) == [] and len(running(others)) == 3
    other.kill()  # the launcher alone, as by the kernel
    other.wait()
    assert len(running(others)) == 2
    end_all(others)
    assert running(others) == []


def test_processes_whose_launcher_is_killed_end_by_themselves(tmp_path):
    process = launched(tmp_path / "1", WATCHFUL)
    try:
        wait_until(lambda: len(list((tmp_path / "1").glob("watching-*"))) == 2)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: not running(tmp_path / "1"))
        assert running(tmp_path / "1") == []
    finally:
        end_all(tmp_path / "1")


# --- several machines ---------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_a_further_machine_takes_part_in_a_run_and_ends_its_part_with_it(project, base, settings, monkeypatch):
    settings.RUN_HEARTBEAT_SECONDS = 0
    alone = Run.objects.create(project=project, kind="dpo", model=base, state="running")
    spread = Run.objects.create(project=project, kind="dpo", model=base, state="running", epoch=3, spec={"launcher": "torchrun"})
    folder = run_folder(spread)
    said = []

    def as_launched(kind: str, spec: dict, folder: Path, *, rank: int) -> list[str]:
        said.append((kind, spec, rank))
        return [sys.executable, "-c", LAUNCHER, DEAF]

    monkeypatch.setattr(joining, "command", as_launched)
    part = threading.Thread(target=lambda: (joining.join_runs(rank=1, is_over=lambda: bool(said)), connections.close_all()))
    part.start()
    wait_until(lambda: len(running(folder, 3)) == 3)
    Run.objects.filter(pk=spread.pk).update(state="cancelled")
    part.join()
    assert running(folder) == [] and said == [("dpo", {"launcher": "torchrun"}, 1)]
    assert (folder / "log-1.txt").exists() and not run_folder(alone).exists()


def test_the_first_machine_does_not_join_itself(settings):
    with pytest.raises(CommandError, match="one machine here"):
        call_command("join_runs")
    settings.TRAIN_NODES = 2
    with pytest.raises(CommandError, match="the first machine"):
        call_command("join_runs")


@pytest.mark.recipe
def test_a_run_of_two_processes_goes_the_whole_way(project, snapshot, tiny, lead):
    spec = {"max_steps": 2, "per_device_train_batch_size": 2, "save_steps": 1, "launcher": "torchrun", "processes": 2}
    run = create_run(project=project, kind="dpo", created_by=lead, snapshot=snapshot, model=tiny, spec=spec)
    watch_run(claim_next_run(owner="test"))
    run.refresh_from_db()
    assert (run.state, run.error) == (Run.State.DONE, "")
    assert run.result["batch"] == {"per_device": 2, "processes": 2, "accumulation": 1, "effective": 4}
    assert run.output_model.lineage["options"]["processes"] == 2
    assert run.events.filter(payload__state="started").count() == run.events.filter(type="done").count() == 1
    assert running(run_folder(run)) == []
