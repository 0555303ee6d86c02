"""A reward model: the base model with a scalar head, fine-tuned on one preference dataset snapshot.

Paper: Ouyang et al. 2022, arXiv:2203.02155, equation 1; TRL's RewardTrainer. Each pair's `weight` multiplies
its loss, and a tie counts as half a win for either side: `PairRewardTrainer` adds both, since TRL has
neither. `margin` is subtracted inside the loss (Touvron et al. 2023, arXiv:2307.09288, equation 2) when
every pair with a winner has one.

TRL drops pairs longer than `max_length`; the result counts them.

Run: accelerate launch -m training.recipes.reward --config runs/42/spec.yaml --run_dir runs/42
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
import torch
from datasets import Dataset
from peft import LoraConfig, TaskType
from trl import RewardConfig, RewardTrainer

from training.recipes._data import load_preferences, normalise_weights, read_manifest
from training.recipes._runlog import RunLog, launch, resume_from
from training.recipes._statistics import mean, proportion
from training.sampling.device import bfloat16_is_fast, has_accelerator
from training.sampling.model_files import check_model, hash_model

KIND = "reward"


@dataclass
class RewardArguments:
    """Arguments of the reward recipe; everything else is TRL's `RewardConfig`."""

    run_dir: Path = field(metadata={"help": "run folder: dataset/ in, model/ and result.json out"})
    model: str = field(metadata={"help": "the base model: a folder, or a name on the hub"})
    adapter_rank: int = field(default=16, metadata={"help": "of LoRA; 0 trains all weights"})
    adapter_alpha: int = field(default=32, metadata={"help": "scale of LoRA"})
    use_margin: bool = field(default=True, metadata={"help": "use `margin` where every pair has one"})


@dataclass
class RewardSettings(RewardConfig):
    """TRL's settings with the defaults of a small model on one machine; the CPU where nothing else is."""

    output_dir: str | None = None  # set to checkpoints/ in the run folder
    learning_rate: float = 1e-4
    num_train_epochs: float = 1.0
    per_device_train_batch_size: int = 8
    max_length: int | None = 512
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


class PairColumns:
    """A collator that adds `weight` and `tie` of the pairs to what TRL's own collator makes."""

    def __init__(self, collator: Callable[[list[dict]], dict[str, Any]]) -> None:
        self.collator = collator

    def __call__(self, examples: list[dict]) -> dict[str, Any]:
        batch = self.collator(examples)
        for name in ("weight", "tie"):
            batch[name] = torch.tensor([float(example[name]) for example in examples])
        return batch


class PairRewardTrainer(RewardTrainer):
    """RewardTrainer whose loss knows the pairs' weights and ties.

    Leans on three things of TRL 1.16: the list `_signature_columns`, `data_collator`, and chosen before
    rejected in the batch. The logged `accuracy` and `margin` are TRL's own, over all pairs alike.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.data_collator = PairColumns(self.data_collator)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns = list(dict.fromkeys([*self._signature_columns, "weight", "tie"]))

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:
        """Weighted mean of the pairs' losses; `weight` has a mean of 1 over the training set."""
        weight, tie = inputs.pop("weight"), inputs.pop("tie")
        margin = inputs.get("margin", torch.zeros_like(weight))
        _, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        chosen, rejected = outputs.logits.squeeze(-1).float().chunk(2)
        loss = pair_loss(chosen - rejected, weight=weight, tie=tie, margin=margin)
        if self.args.center_rewards_coefficient is not None:
            loss = loss + self.args.center_rewards_coefficient * ((chosen + rejected) ** 2).mean()
        return (loss, outputs) if return_outputs else loss


def pair_loss(
    difference: torch.Tensor, *, weight: torch.Tensor, tie: torch.Tensor, margin: torch.Tensor
) -> torch.Tensor:
    """Mean of `weight` times the negative log-likelihood of each label, in nats.

    `difference` is the reward of chosen minus rejected in logits, all of shape (pairs,). A tie (1 in `tie`)
    has a target of one half and no margin.
    """
    target = 1 - tie / 2
    losses = torch.nn.functional.binary_cross_entropy_with_logits(
        difference - margin * (1 - tie), target, reduction="none"
    )
    return (weight * losses).mean()


def prepare(dataset: Dataset, *, use_margin: bool) -> tuple[Dataset, bool]:
    """Settle the `margin` column: kept, with 0 for ties, if wanted and every pair with a winner has one."""
    complete = all(tie or margin is not None for tie, margin in zip(dataset["tie"], dataset["margin"], strict=True))
    margins = [margin or 0.0 for margin in dataset["margin"]]
    dataset = dataset.remove_columns("margin")
    if use_margin and complete and any(margins):
        return dataset.add_column("margin", margins), True
    return dataset, False


@torch.no_grad()
def reward_differences(trainer: RewardTrainer) -> list[float]:
    """Reward of chosen minus rejected for each pair of the prepared evaluation set, in its order."""
    trainer.model.eval()
    differences: list[float] = []
    for batch in trainer.get_eval_dataloader():
        batch = trainer._prepare_inputs(batch)
        with trainer.compute_loss_context_manager():
            rewards = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        chosen, rejected = rewards.squeeze(-1).float().chunk(2)
        differences += trainer.accelerator.gather_for_metrics(chosen - rejected).tolist()
    return differences


def main(args: RewardArguments, config: RewardSettings) -> None:
    """Train and evaluate one reward model in `args.run_dir`."""
    run_log = RunLog(args.run_dir, kind=KIND, seed=config.seed)
    config.output_dir = str(args.run_dir / "checkpoints")
    if config.trust_remote_code:
        raise ValueError("trust_remote_code is not supported: it would run code from the model's folder")
    dataset = load_preferences(args.run_dir / "dataset")
    train, has_margin = prepare(normalise_weights(dataset["train"]), use_margin=args.use_margin)
    held_out = None
    if "eval" in dataset:  # eval_loss is not weighted
        held_out = dataset["eval"].remove_columns(["margin", "weight"])
        held_out = held_out.add_column("weight", [1.0] * len(held_out))
    if held_out is None:
        config.eval_strategy = "no"

    peft_config = None
    if args.adapter_rank:
        peft_config = LoraConfig(
            task_type=TaskType.SEQ_CLS,
            r=args.adapter_rank,
            lora_alpha=args.adapter_alpha,
            target_modules="all-linear",
            modules_to_save=["score"],
        )
    trainer = PairRewardTrainer(
        model=check_model(args.model),
        args=config,
        train_dataset=train,
        eval_dataset=held_out,
        peft_config=peft_config,
        callbacks=[run_log],
    )
    dropped = {"n_train_dropped": len(train) - len(trainer.train_dataset)}
    if held_out is not None:
        dropped["n_eval_dropped"] = len(held_out) - len(trainer.eval_dataset)
    if len(trainer.train_dataset) == 0:
        raise ValueError(f"Every pair is longer than max_length ({config.max_length} tokens): raise it")
    if any(dropped.values()):
        run_log.status("pairs_dropped", reason=f"longer than max_length ({config.max_length} tokens)", **dropped)

    output = trainer.train(resume_from_checkpoint=resume_from(args.run_dir, run_log))
    run_log.raise_if_stopped()

    metrics, figures = dict(output.metrics), {}
    if held_out is not None and len(trainer.eval_dataset):
        metrics |= trainer.evaluate()
        differences = reward_differences(trainer)
        rows = zip(differences, trainer.eval_dataset["tie"], trainer.eval_dataset["group_id"], strict=True)
        decided = [(difference, group) for difference, tie, group in rows if not tie]
        values, groups = [difference for difference, _ in decided], [group for _, group in decided]
        # Equal rewards, as of two completions that are the same to the model, count half.
        right = [(value > 0) + (value == 0) / 2 for value in values]
        figures = {"accuracy": proportion(right, groups), "margin": mean(values, groups)}
    trainer.save_model(str(args.run_dir / "model"))
    run_log.finish(
        metrics=metrics,
        figures=figures,
        dataset={
            "n_train": len(trainer.train_dataset),
            "n_eval": len(trainer.eval_dataset) if held_out is not None else 0,
            "n_train_ties": sum(trainer.train_dataset["tie"]),
            **dropped,
            "margin_used": has_margin,
            "manifest": read_manifest(args.run_dir / "dataset"),
        },
        base_model={"path": args.model, "hash": hash_model(args.model)},
    )


if __name__ == "__main__":
    sys.exit(launch(KIND, main, (RewardArguments, RewardSettings)))
