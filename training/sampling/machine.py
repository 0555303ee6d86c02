"""What the machine is on which models run: cores, memory, GPUs, and how fast it multiplies and copies.

`python -m training.sampling.machine` prints the facts as one JSON object. They are measured in a process of its own, so
that whoever asks needs no torch and holds no GPU memory afterwards.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS = 120
SIDE = 1024  # of the matrices that are multiplied on a CPU; GPUs need larger ones to be busy
SIDE_ON_GPU = 8192
COPIED_BYTES = 64_000_000
ROUNDS = 5
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

Facts = dict[str, Any]


def ask(environment: dict[str, str]) -> Facts:
    """The facts of this machine, measured in a process of its own. Raises OSError, subprocess.SubprocessError, ValueError."""
    done = subprocess.run(
        [sys.executable, "-m", "training.sampling.machine"], env=environment, capture_output=True, text=True,
        timeout=SECONDS, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(folder: str = ".") -> Facts:
    """What this process may use. Speeds are of one matrix product, in operations a second, and of copying, in bytes a second.

    The best of a few rounds counts: other work on the machine can only make one slower. `device` is where recipes would
    train; its speeds are told. `free_disk_bytes` is of `folder`.
    """
    import torch

    from training.sampling.device import bfloat16_is_fast, has_accelerator, pick_device

    device = pick_device()
    side = SIDE_ON_GPU if device.type == "cuda" else SIDE
    speeds = {"float32": _product_speed(torch.float32, device, side)}
    is_fast = bfloat16_is_fast()
    if is_fast:
        speeds["bfloat16"] = _product_speed(torch.bfloat16, device, side)
    return {
        "device": device.type if has_accelerator() else "cpu",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "processor": _processor(),
        "memory_bytes": memory_bytes(),
        "gpus": [
            {"name": found.name, "memory_bytes": found.total_memory}
            for found in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
        ],
        "bf16": is_fast,
        "flops": {name: round(speed) for name, speed in speeds.items()},
        "copied_bytes_a_second": round(_copy_speed(device)),
        "free_disk_bytes": shutil.disk_usage(folder).free,
        "torch": torch.__version__,
    }


def memory_bytes() -> int:
    """Memory that processes here may take: of the machine, or of the container where that has less."""
    import psutil

    total = psutil.virtual_memory().total
    for path in CGROUP_LIMITS:
        try:
            total = min(total, int(Path(path).read_text()))
        except (OSError, ValueError):  # none, or the word max
            continue
    return total


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")[:100]


def _product_speed(dtype: Any, device: Any, side: int) -> float:
    import torch

    left, right = (torch.ones(side, side, dtype=dtype, device=device) for _ in range(2))
    return 2.0 * side**3 / _best(lambda: left @ right, device)


def _copy_speed(device: Any) -> float:
    """Bytes read a second: what bounds writing completions one token after the other."""
    import torch

    data = torch.ones(COPIED_BYTES // 4, dtype=torch.float32, device=device)
    return COPIED_BYTES / _best(lambda: data.sum(), device)


def _best(work: Callable[[], Any], device: Any) -> float:
    """Seconds of the quickest round."""
    import torch

    best = float("inf")
    for _ in range(ROUNDS + 1):  # the first is slow: it loads the kernels
        began = time.perf_counter()
        work()
        if device.type != "cpu":
            torch.accelerator.synchronize()
        best = min(best, time.perf_counter() - began)
    return best


if __name__ == "__main__":
    print(json.dumps(measure(os.environ.get("PREFLOOP_HOME", "."))))
