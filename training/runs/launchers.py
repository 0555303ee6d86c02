"""How the processes of a run are started: one, several on processors, or one for each GPU. No torch here.

Several on processors are started by torchrun, for `accelerate launch` starts only one there, silently. GPUs are used by a
configuration of accelerate: those in `config/accelerate/`, and the operator's own in PREFLOOP_ACCELERATE_CONFIGS.
"""

import importlib.util
import os
import re
import sys
from glob import glob
from pathlib import Path
from typing import Any

import yaml
from django.conf import settings

ONE, TORCHRUN = "one", "torchrun"
OURS = Path(settings.BASE_DIR) / "config" / "accelerate"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
# A recipe gets what it needs to compute, and none of the site's secrets.
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "USER", "LOGNAME", "TZ")
PASSED_ON_PREFIXES = ("CUDA_", "NVIDIA_", "NCCL_", "GLOO_", "HF_", "OMP_", "MKL_", "TORCH_", "PYTORCH_", "ACCELERATE_")


def configurations() -> dict[str, Path]:
    """Accelerate's configurations by name; the operator's come before ours of the same name."""
    folders = [OURS, *([Path(settings.ACCELERATE_CONFIGS)] if settings.ACCELERATE_CONFIGS else [])]
    found = {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}
    return {name: path for name, path in found.items() if NAME.fullmatch(name) and name not in (ONE, TORCHRUN)}


def launcher_names() -> tuple[str, ...]:
    return (ONE, TORCHRUN, *configurations())


def shards(launcher: str) -> bool:
    """Whether each process holds a part of the weights alone, rather than a copy of them."""
    if launcher in (ONE, TORCHRUN):
        return False
    kind = str(_read(launcher).get("distributed_type")).upper()
    stage = (_read(launcher).get("deepspeed_config") or {}).get("zero_stage")
    return kind == "FSDP" or (kind == "DEEPSPEED" and stage == 3)


def processes_here(spec: dict[str, Any]) -> int:
    """Processes of a run with these options on each machine."""
    return 1 if spec.get("launcher", ONE) == ONE else spec.get("processes", 2)


def processes_of(spec: dict[str, Any]) -> int:
    """On all machines together."""
    return processes_here(spec) * (1 if spec.get("launcher", ONE) == ONE else settings.TRAIN_NODES)


def batch_of(options: dict[str, Any]) -> dict[str, int] | None:
    """How many rows one step learns from, and of what that is the product; None for kinds without batches."""
    if "per_device_train_batch_size" not in options:
        return None
    rows, sums = options["per_device_train_batch_size"], options.get("gradient_accumulation_steps") or 1
    processes = processes_of(options)
    return {"per_device": rows, "processes": processes, "accumulation": sums, "effective": rows * processes * sums}


def why_not_here(spec: dict[str, Any]) -> str:
    """What this machine lacks to start a run with these options, and what to do, in words; empty: nothing."""
    launcher, processes = spec.get("launcher", ONE), processes_here(spec)
    if launcher in (ONE, TORCHRUN):
        return ""
    if launcher not in configurations():
        return f"there is no launcher {launcher} any more: choose from {', '.join(launcher_names())}"
    configuration = _read(launcher)
    if configuration.get("use_cpu"):
        return f"{launcher} is for processors, where accelerate starts one process only: choose {TORCHRUN}"
    n_gpus = gpus_here()
    if n_gpus < processes:
        there = "no GPU" if not n_gpus else f"{n_gpus} GPU{'s' if n_gpus > 1 else ''}"
        or_else = f"{TORCHRUN} for processors" if not n_gpus else f"processes: {n_gpus}"
        return f"{launcher} takes a GPU for each of its {processes} processes, and this machine has {there}: choose {or_else}, or {ONE}"
    if str(configuration.get("distributed_type")).upper() == "DEEPSPEED" and not importlib.util.find_spec("deepspeed"):
        return f"{launcher} needs DeepSpeed, which is not installed here: pip install deepspeed, or choose fsdp2"
    return ""


def gpus_here() -> int:
    """NVIDIA GPUs that a process of this machine may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = len([path for path in glob("/dev/nvidia*") if path.removeprefix("/dev/nvidia").isdigit()])
    if visible is None:
        return there
    return min(there, len([one for one in visible.split(",") if one.strip() not in ("", "-1")]))


def command(kind: str, spec: dict[str, Any], folder: Path, *, rank: int | None = None) -> list[str]:
    """What starts the recipe on the machine of number `rank`; None: this one's."""
    recipe = ["-m", f"training.recipes.{kind}", "--config", str(folder / "spec.yaml"), "--run_dir", str(folder)]
    launcher, nodes = spec.get("launcher", ONE), settings.TRAIN_NODES
    if launcher == ONE:  # directly: a launcher would import torch once more just to start it
        return [sys.executable, *recipe]
    here = str(settings.TRAIN_NODE_RANK if rank is None else rank)
    host, _, port = settings.TRAIN_RENDEZVOUS.rpartition(":")
    if launcher == TORCHRUN:
        several = ["--nnodes", str(nodes), "--node-rank", here, "--master-addr", host, "--master-port", port]
        where = several if nodes > 1 else ["--standalone"]
        each = str(processes_here(spec))
        return [sys.executable, "-m", "torch.distributed.run", *where, "--nproc-per-node", each, *recipe]
    where = ["--num_machines", str(nodes), "--machine_rank", here if nodes > 1 else "0"]
    where += ["--main_process_ip", host, "--main_process_port", port] if nodes > 1 else ["--main_process_port", "0"]
    return [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(configurations()[launcher]),
        "--num_processes", str(processes_of(spec)), *where, *recipe,
    ]  # fmt: skip


def environment(processes: int = 1) -> dict[str, str]:
    """Of a recipe that has `processes` on this machine, which share its cores."""
    kept = {key: value for key, value in os.environ.items() if key in PASSED_ON or key.startswith(PASSED_ON_PREFIXES)}
    threads = max(1, (settings.TORCH_THREADS or os.cpu_count() or 1) // processes)
    return {
        **kept,
        "OMP_NUM_THREADS": kept.get("OMP_NUM_THREADS", str(threads)),
        "HF_HUB_OFFLINE": kept.get("HF_HUB_OFFLINE", "1"),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": str(settings.BASE_DIR),
        "PYTHONUNBUFFERED": "1",
        **({"PREFLOOP_REWARD_FUNCTIONS": ",".join(settings.REWARD_FUNCTIONS)} if settings.REWARD_FUNCTIONS else {}),
        "PREFLOOP_WATCHER_PID": str(os.getpid()),
    }


def _read(launcher: str) -> dict[str, Any]:
    return yaml.safe_load(configurations()[launcher].read_text()) or {}
