"""REINFORCE Leave-One-Out: the mean reward of a prompt's other completions is the baseline of each.

Paper: Ahmadian et al. 2024, arXiv:2402.14740, section 2.3, after Kool et al. 2019. TRL's RLOOTrainer: a completion is one
action, and the KL penalty (`beta`) is part of its reward, where GRPO has it in the loss.

Prompts come from `dataset/prompts.jsonl`, rewards from `rewards` (see `_rewards.py`). With a LoRA adapter, the reference
of the KL penalty is the policy where it started. On the prompts of `dataset/eval_prompts.jsonl` the mean reward before and
after is given with intervals by prompt group.

Run: accelerate launch -m training.recipes.rloo --config runs/42/spec.yaml --run_dir runs/42
"""

import sys
from dataclasses import dataclass

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
from trl import RLOOConfig, RLOOTrainer

from training.recipes._cpu import QuickRollouts
from training.recipes._online import OnlineArguments, train_online
from training.recipes._order import ExactOrder
from training.recipes._runlog import launch
from training.recipes._settings import SmallMachine

KIND = "rloo"


@dataclass
class RLOOSettings(SmallMachine, RLOOConfig):
    """TRL's settings with the defaults of a small model on one machine; the CPU where nothing else is."""

    learning_rate: float = 1e-5
    beta: float = 0.05
    num_generations: int | None = 4
    max_completion_length: int | None = 64


class OrderedRLOOTrainer(QuickRollouts, ExactOrder, RLOOTrainer):
    """TRL's trainer, whose prompts come in an order that survives a resume."""


def main(args: OnlineArguments, config: RLOOSettings) -> None:
    """Train and evaluate one policy in `args.run_dir`."""
    train_online(KIND, args, config, OrderedRLOOTrainer)


if __name__ == "__main__":
    sys.exit(launch(KIND, main, (OnlineArguments, RLOOSettings)))
