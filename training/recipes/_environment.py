"""Variables that torch, transformers, datasets and TRL read while they are imported: import this module first.

Nothing already set is changed, so `HF_HUB_OFFLINE=0` in the worker's environment allows downloads.
"""

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


os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Waiting threads soon go to sleep: beside other busy work endless spinning costs 4 to 18 times the speed.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TQDM_DISABLE", "1")  # progress goes to events.jsonl
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
if run_dir := run_dir_from(sys.argv):
    os.environ.setdefault("HF_DATASETS_CACHE", str(run_dir / "cache" / "datasets"))
    os.environ.setdefault("HF_MODULES_CACHE", str(run_dir / "cache" / "modules"))
