"""What the recipes' settings have in common: a small model on one machine."""

from dataclasses import dataclass
from pathlib import Path

from transformers import TrainingArguments

from training.recipes._cpu import score_labelled_positions_only
from training.sampling.device import bfloat16_is_fast, has_accelerator


@dataclass
class SmallMachine:
    """Defaults to put before one of TRL's configurations; the CPU where nothing else is.

    `class DPOSettings(SmallMachine, DPOConfig)` has all fields of DPOConfig, these among them with these defaults.
    """

    output_dir: str | None = None  # set to checkpoints/ in the run folder
    learning_rate: float = 1e-4
    num_train_epochs: float = 1.0
    per_device_train_batch_size: int = 8
    gradient_checkpointing: bool = False
    logging_steps: float = 1
    save_steps: float = 20
    save_total_limit: int | None = 2  # the newest may be half written
    disable_tqdm: bool | None = True
    report_to: str = "none"

    def __post_init__(self) -> None:
        self.use_cpu = self.use_cpu or not has_accelerator()
        if self.bf16 is None:
            self.bf16 = bfloat16_is_fast()
        super().__post_init__()


def settle(config: TrainingArguments, run_dir: Path) -> None:
    """Put checkpoints into the run folder, and let TRL work as a CPU likes it. Raises ValueError where the settings would run code of the model's folder."""
    config.output_dir = str(run_dir / "checkpoints")
    if getattr(config, "trust_remote_code", False):
        raise ValueError("trust_remote_code is not supported: it would run code from the model's folder")
    score_labelled_positions_only()
