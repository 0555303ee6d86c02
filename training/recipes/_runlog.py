"""The log of a recipe that trains: events out of a trainer's callbacks, checkpoints, and gradients that are numbers.

What the events and the result look like is in `_eventlog.py`.
"""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.recipes._eventlog import (  # noqa: F401  some for the recipes, which take all of the log from here
    COMPLETE_FILE,
    EXIT_FAILED,
    EXIT_ORPHANED,
    EXIT_STOPPED,
    STOP_FILE,
    EventLog,
    Stopped,
    append_event,
    describe_files,
    explain,
    is_process_zero,
    launch,
    read_events,
    watch_parent,
    write_json,
)


class NotANumber(Exception):
    """A step would have made weights of no value; it was not taken."""


class RunLog(EventLog, TrainerCallback):
    """An event log that a trainer tells what it does; works without a trainer, too."""

    def _agree(self, wanted: bool) -> bool:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # One process may see the file a step before the others; they must leave the loop together.
            flag = torch.tensor(int(wanted), device=_collective_device())
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
            wanted = bool(flag.item())
        return wanted

    def wait_for_others(self) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()

    # Trainer callbacks

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.step = state.global_step
        rows, sums = args.per_device_train_batch_size, args.gradient_accumulation_steps
        self.batch = {
            "per_device": rows, "processes": args.world_size, "accumulation": sums, "effective": rows * args.world_size * sums,
        }  # fmt: skip
        self.status("training", total=state.max_steps, processes=args.world_size, batch=self.batch["effective"])

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module,
        **kwargs: Any,
    ) -> None:
        """Raises NotANumber before gradients that are none, or infinite, reach the weights."""
        if args.fp16:
            return  # its scaler leaves out such steps by design
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if math.isfinite(float(norm.full_tensor() if isinstance(norm, DTensor) else norm)):  # where weights are sharded
            return
        kept = newest_checkpoint(Path(args.output_dir))
        learned = f"{kept.name} is kept, and the run resumes from it" if kept else "No checkpoint was made before"
        raise NotANumber(
            f"The gradient of step {state.global_step + 1} is not a number, so training stopped before it spoilt the "
            f"weights. {learned}. Mostly the learning rate is too high (its peak is {args.learning_rate:g}): start a run "
            "with a lower one; else look for rows without content, or set bf16: false."
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.step = state.global_step
        self.progress(state.global_step, state.max_steps, "steps")
        if state.global_step < state.max_steps and self.stop_requested():
            self.status("stopping")
            control.should_save = True
            control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.metrics(logs or {}, step=state.global_step)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.wait_for_others()  # their part of the checkpoint must be there to be listed
        if self.is_writer:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            seal_checkpoint(folder)
            self.event("checkpoint", path=str(folder.relative_to(self.run_dir)))


# Checkpoints


def seal_checkpoint(folder: Path) -> None:
    """Write the list of a checkpoint's files and their SHA-256, last and atomically: now it is complete."""
    write_json(folder / COMPLETE_FILE, {"files": describe_files(folder)})


def newest_checkpoint(checkpoints: Path) -> Path | None:
    """The newest checkpoint whose files are all there and unchanged, or None.

    Half-written ones, left by a kill, are deleted: the trainer would count them when it rotates.
    """
    found = None
    folders = [path for path in checkpoints.glob("checkpoint-*") if path.name.split("-")[-1].isdigit()]
    for folder in sorted(folders, key=lambda path: int(path.name.split("-")[-1]), reverse=True):
        if found is None and is_sealed(folder):
            found = folder
        elif not is_sealed(folder) and is_process_zero():
            shutil.rmtree(folder, ignore_errors=True)
    return found


def is_sealed(folder: Path) -> bool:
    """Whether a checkpoint is complete, by its list of checksums."""
    try:
        listed = json.loads((folder / COMPLETE_FILE).read_text())["files"]
        return bool(listed) and listed == describe_files(folder)
    except (OSError, ValueError, KeyError):
        return False


def resume_from(run_dir: Path, run_log: RunLog) -> str | None:
    """What to pass to `Trainer.train`: the newest complete checkpoint of this run, or None to begin anew."""
    checkpoint = newest_checkpoint(run_dir / "checkpoints")
    if checkpoint is None:
        return None
    run_log.status("resumed", checkpoint=str(checkpoint.relative_to(run_dir)))
    return str(checkpoint)


def _collective_device() -> torch.device:
    if torch.distributed.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
