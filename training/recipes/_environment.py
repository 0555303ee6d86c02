"""What torch, transformers, datasets and TRL find when they are imported: import this module first.

Nothing already set is changed, so `HF_HUB_OFFLINE=0` in the worker's environment allows downloads.
"""

import contextlib
import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def run_dir_from(arguments: Sequence[str]) -> Path | None:
    """The value of `--run_dir` in a command line, before any parser may have looked at it."""
    for position, argument in enumerate(arguments):
        if argument == "--run_dir" and position + 1 < len(arguments):
            return Path(arguments[position + 1])
        if argument.startswith("--run_dir="):
            return Path(argument.partition("=")[2])
    return None


def keep_freed_memory() -> None:
    """Let glibc use freed memory again instead of giving it back; elsewhere nothing happens.

    A tensor of a few MB would otherwise be pages that the kernel hands out and clears anew: a fifth of the time of a
    training step on the CPU.
    """
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # M_* of malloc.h
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(top_pad, 64 * 2**20)


keep_freed_memory()
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Waiting threads soon go to sleep: beside other busy work endless spinning costs 4 to 18 times the speed.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
# Of numpy and scipy, whose matrices here are small: a second thread costs more than it brings, many times so beside other work.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TQDM_DISABLE", "1")  # progress goes to events.jsonl
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
if run_dir := run_dir_from(sys.argv):
    os.environ.setdefault("HF_DATASETS_CACHE", str(run_dir / "cache" / "datasets"))
    os.environ.setdefault("HF_MODULES_CACHE", str(run_dir / "cache" / "modules"))
