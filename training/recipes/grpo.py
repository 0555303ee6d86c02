"""Group Relative Policy Optimization: several completions of a prompt, each learnt from by how it compares with the others.

Paper: Shao et al. 2024, arXiv:2402.03300, section 4; the advantage is its outcome supervision (section 4.1.2), the KL term
its equation 4. TRL's GRPOTrainer, whose default loss (`loss_type: dapo`, Yu et al. 2025, arXiv:2503.14476) weights all
tokens of a batch alike where the paper's (`grpo`) weights completions alike.

Prompts come from `dataset/prompts.jsonl`, rewards from `rewards` (see `_rewards.py`). With a LoRA adapter, the reference
of the KL term is the policy where it started. On the prompts of `dataset/eval_prompts.jsonl` the mean reward before and
after is given with intervals by prompt group.

Run: accelerate launch -m training.recipes.grpo --config runs/42/spec.yaml --run_dir runs/42
"""

import sys
from dataclasses import dataclass

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
from trl import GRPOConfig, GRPOTrainer

from training.recipes._cpu import QuickRollouts
from training.recipes._online import OnlineArguments, train_online
from training.recipes._order import ExactOrder
from training.recipes._runlog import launch
from training.recipes._settings import SmallMachine

KIND = "grpo"


@dataclass
class GRPOSettings(SmallMachine, GRPOConfig):
    """TRL's settings with the defaults of a small model on one machine; the CPU where nothing else is."""

    learning_rate: float = 1e-5
    beta: float = 0.04  # the paper's; TRL's 0 would hold the policy to nothing
    num_generations: int | None = 4
    max_completion_length: int | None = 64


class OrderedGRPOTrainer(QuickRollouts, ExactOrder, GRPOTrainer):
    """TRL's trainer, whose prompts come in an order that survives a resume."""


def main(args: OnlineArguments, config: GRPOSettings) -> None:
    """Train and evaluate one policy in `args.run_dir`."""
    train_online(KIND, args, config, OrderedGRPOTrainer)


if __name__ == "__main__":
    sys.exit(launch(KIND, main, (OnlineArguments, GRPOSettings)))
