"""A policy beside its reference, as TRL's trainers of preferences hold them: one model with two adapters, or two models."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer


@contextmanager
def after_forwards(
    trainer: Trainer, model: torch.nn.Module, watch: Callable[[torch.nn.Module, object, Any], None]
) -> Iterator[None]:
    """Have `watch(module, arguments, output)` called after every forward of the policy, and of a reference of its own."""
    models = [trainer.accelerator.unwrap_model(model)]
    models += [trainer.accelerator.unwrap_model(trainer.ref_model)] if trainer.ref_model is not None else []
    handles = [watched.register_forward_hook(watch) for watched in models]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def save_policy(trainer: Trainer, folder: Path, *, is_writer: bool) -> None:
    """Write what was trained, without the adapter of the reference, which TRL saves along."""
    trainer.save_model(str(folder))
    if is_writer:
        shutil.rmtree(folder / "ref", ignore_errors=True)
