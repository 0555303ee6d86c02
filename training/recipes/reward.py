"""A reward model: the base model with a scalar head, fine-tuned on one preference dataset snapshot.

Paper: Ouyang et al. 2022, arXiv:2203.02155, equation 1; TRL's RewardTrainer. Each pair's `weight` multiplies
its loss, and its `soft_label` is the probability to learn, one half for a tie: `PairRewardTrainer` adds both, since TRL has
neither. `margin` is subtracted inside the loss (Touvron et al. 2023, arXiv:2307.09288, equation 2) when
every pair with a winner has one.

With `n_heads` several heads share the body and disagree where they know little: `_reward_heads.py`. With `axes` each learns
from the pairs of one axis, and their weighted sum is the reward: `_reward_axes.py`.

TRL drops pairs longer than `max_length`; the result counts them. How far the model may be trusted is in `report`, on the held-out
pairs, whose margins are in `predictions.jsonl`.

Run: accelerate launch -m training.recipes.reward --config runs/42/spec.yaml --run_dir runs/42
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
import numpy
import torch
from datasets import Dataset
from peft import TaskType
from trl import RewardConfig, RewardTrainer

from training.recipes._adapters import (
    AdapterArguments,
    check_adapters,
    check_memory,
    four_bits,
    frozen_dtype,
    new_adapter,
)
from training.recipes._data import load_preferences, normalise_weights, read_manifest
from training.recipes._evaluations import KeepsEvaluation
from training.recipes._order import ByLength, GroupByLength
from training.recipes._padding import SparesPadding
from training.recipes._reward_axes import check_axes, describe_axes, of_own_axis, place_axes
from training.recipes._reward_heads import (
    bootstrap_weights,
    collapse_ensemble,
    collapse_heads,
    describe_ensemble,
    load_with_heads,
    refuse_sharding,
)
from training.recipes._reward_report import headlines, reward_report, write_predictions
from training.recipes._runlog import RunLog, launch, resume_from
from training.recipes._settings import SmallMachine, settle
from training.recipes._statistics import mean
from training.sampling.model_files import check_model, hash_model
from training.sampling.reward_axes import Axes, shares_of
from training.sampling.reward_models import Ensemble
from training.sampling.tokenizing import load_tokenizer

KIND = "reward"


@dataclass
class RewardArguments(AdapterArguments):
    """Arguments of the reward recipe; everything else is TRL's `RewardConfig`."""

    n_heads: int = field(default=1, metadata={"help": "score heads on the one body; from 2 on an ensemble"})
    axes: list[str] = field(
        default_factory=list, metadata={"help": "a score head for the pairs of each; none: one for all pairs alike"}
    )
    axis_weights: list[float] | None = field(
        default=None, metadata={"help": "how much each axis counts for the model's own reward; none: alike"}
    )
    use_margin: bool = field(default=True, metadata={"help": "use `margin` where every pair has one"})

    def __post_init__(self) -> None:
        if not 1 <= self.n_heads <= 64:
            raise ValueError(f"n_heads is {self.n_heads}, it must lie between 1 and 64")
        if self.axes and self.n_heads > 1:
            raise ValueError(f"n_heads is {self.n_heads}, and there are axes: a head is one of an ensemble or of an axis, choose one")
        if self.axis_weights and not self.axes:
            raise ValueError("axis_weights are given, but no axes: name them")
        self.shares = shares_of(self.axes, self.axis_weights) if self.axes else ()


@dataclass
class RewardSettings(SmallMachine, GroupByLength, RewardConfig):
    """TRL's settings with the defaults of a small model on one machine; the CPU where nothing else is."""

    max_length: int | None = 512


class PairColumns:
    """A collator that adds COLUMNS of the pairs to what TRL's own collator makes."""

    COLUMNS = ("weight", "tie", "soft_label", "axis", "head_weight")  # the last is a list, one number for each head

    def __init__(self, collator: Callable[[list[dict]], dict[str, Any]]) -> None:
        self.collator = collator

    def __call__(self, examples: list[dict]) -> dict[str, Any]:
        batch = self.collator(examples)
        for name in self.COLUMNS:
            batch[name] = torch.tensor([example[name] for example in examples], dtype=torch.float32)
        return batch


class PairRewardTrainer(KeepsEvaluation, SparesPadding, ByLength, RewardTrainer):
    """RewardTrainer whose loss knows the pairs' weights, ties, soft labels and axes.

    `kept` holds of each pair the rewards by every head, chosen before rejected, in logits.

    Leans on three things of TRL 1.16: the list `_signature_columns`, `data_collator`, and chosen before
    rejected in the batch. The logged `accuracy` and `margin` are TRL's own, over all pairs alike.
    """

    def __init__(self, *args: Any, has_axes: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.has_axes = has_axes
        self.data_collator = PairColumns(self.data_collator)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns = list(dict.fromkeys([*self._signature_columns, *PairColumns.COLUMNS]))

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:
        """Weighted mean of the pairs' losses, over all heads; `weight` has a mean of 1 over the training set."""
        weight, tie, soft_label, axis, head_weight = (inputs.pop(name) for name in PairColumns.COLUMNS)
        margin = inputs.get("margin", torch.zeros_like(weight))
        if "margin" in inputs and head_weight.shape[1] > 1:
            inputs["margin"] = margin[:, None]
        heads: list[torch.Tensor] = []

        def called(**arguments: Any) -> Any:
            outputs = model(**arguments)
            heads.append(outputs.logits)
            if self.has_axes:
                outputs.logits = of_own_axis(outputs.logits, axis)
            return outputs

        _, outputs = super().compute_loss(called, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        chosen, rejected = outputs.logits.float().chunk(2)
        loss = torch.stack([
            pair_loss(difference, weight=weight * of_head, tie=tie, margin=margin, soft_label=soft_label)
            for difference, of_head in zip((chosen - rejected).unbind(1), head_weight.unbind(1), strict=True)
        ]).mean()  # fmt: skip
        if self.args.center_rewards_coefficient is not None:
            loss = loss + self.args.center_rewards_coefficient * ((chosen + rejected) ** 2).mean()
        if not model.training:
            of_pairs = torch.stack(heads[0].float().chunk(2), dim=1)
            self.kept += self.accelerator.gather_for_metrics(of_pairs).tolist()
        return (loss, outputs) if return_outputs else loss


def pair_loss(
    difference: torch.Tensor, *, weight: torch.Tensor, tie: torch.Tensor, margin: torch.Tensor,
    soft_label: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """Mean of `weight` times the negative log-likelihood of each label, in nats.

    `difference` is the reward of chosen minus rejected in logits, `soft_label` the probability that chosen is better,
    all of shape (pairs,). A tie (1 in `tie`) has no margin.
    """
    losses = torch.nn.functional.binary_cross_entropy_with_logits(
        difference - margin * (1 - tie), soft_label, reduction="none"
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


def main(args: RewardArguments, config: RewardSettings) -> None:
    """Train and evaluate one reward model in `args.run_dir`."""
    run_log = RunLog(args.run_dir, kind=KIND, seed=config.seed)
    settle(config, args.run_dir)
    check_adapters(args)
    check_memory(args, config)
    tokenizer = load_tokenizer(args.model)
    dataset = load_preferences(args.run_dir / "dataset")
    if args.axes:
        check_axes(dataset["train"], args.axes)
    train, has_margin = prepare(normalise_weights(place_axes(dataset["train"], args.axes)), use_margin=args.use_margin)
    held_out = None
    if "eval" in dataset:  # eval_loss is not weighted
        held_out = dataset["eval"].remove_columns(["margin", "weight"])
        held_out = held_out.add_column("weight", [1.0] * len(held_out)).add_column("row", list(range(len(held_out))))
        held_out = held_out.add_column("head_weight", [[1.0] * args.n_heads] * len(held_out))
        held_out = place_axes(held_out, args.axes)
    is_ensemble = args.n_heads > 1
    if is_ensemble:
        train = train.add_column("head_weight", bootstrap_weights(train["group_id"], args.n_heads, config.seed))
    else:
        train = train.add_column("head_weight", [[1.0]] * len(train))
    if held_out is None or not len(held_out):
        held_out, config.eval_strategy = None, "no"

    quantised = four_bits(args, frozen_dtype(args, config))
    if quantised is not None and not config.bf16:  # TRL makes the head bfloat16 then, and nothing would make its inputs so
        raise ValueError("A reward model on a base of four bits is trained in bfloat16: use a GPU that has it, and leave bf16 alone")
    n_outputs = len(args.axes) or args.n_heads
    if quantised is not None and n_outputs > 1:
        raise ValueError("quantised_base is 4bit, and there are several heads: they are made on a base in full, choose one")
    trainer = PairRewardTrainer(
        model=load_with_heads(check_model(args.model), n_outputs, config.seed) if n_outputs > 1 else check_model(args.model),
        args=config,
        processing_class=tokenizer,
        train_dataset=train,
        eval_dataset=held_out,
        peft_config=new_adapter(args, task_type=TaskType.SEQ_CLS, modules_to_save=["score"]),
        quantization_config=quantised,
        callbacks=[run_log],
        has_axes=n_outputs > 1 and not is_ensemble,
    )
    if n_outputs > 1:
        refuse_sharding(trainer)
    dropped = {"n_train_dropped": len(train) - len(trainer.train_dataset)}
    if held_out is not None:
        dropped["n_eval_dropped"] = len(held_out) - len(trainer.eval_dataset)
    if len(trainer.train_dataset) == 0:
        raise ValueError(f"Every pair is longer than max_length ({config.max_length} tokens): raise it")
    if any(dropped.values()):
        run_log.status("pairs_dropped", reason=f"longer than max_length ({config.max_length} tokens)", **dropped)

    output = trainer.train(resume_from_checkpoint=resume_from(args.run_dir, run_log))
    run_log.raise_if_stopped()

    metrics, figures, report = dict(output.metrics), {}, None
    if held_out is not None and len(trainer.eval_dataset):
        metrics |= trainer.evaluate_at_the_end()
        by_head = numpy.asarray(trainer.kept)  # (pairs, 2, heads)
        # Of several axes each pair's own, of several heads the mean, as it is saved.
        own = trainer.eval_dataset["axis"] if trainer.has_axes else None
        of_pairs = by_head.mean(axis=2) if own is None else by_head[numpy.arange(len(by_head)), :, numpy.asarray(own, dtype=int)]
        chosen, rejected = of_pairs.T.tolist()
        numbers = trainer.eval_dataset["row"]
        rows = dataset["eval"].select(numbers)
        decided = [index for index, tie in enumerate(rows["tie"]) if not tie]
        groups = [rows[index]["group_id"] for index in decided]
        report = reward_report(
            rows, chosen, rejected, is_one_scale=len(args.axes) < 2, n_dropped=dropped["n_eval_dropped"], seed=config.seed
        )
        margins = [chosen[index] - rejected[index] for index in decided]
        figures = {"accuracy": report["accuracy"], "margin": mean(margins, groups), **headlines(report)}
        if run_log.is_writer:
            write_predictions(
                args.run_dir / "predictions.jsonl", rows, chosen, rejected, numbers=numbers, seed=config.seed
            )
        if n_outputs > 1:
            differences = by_head[:, 0] - by_head[:, 1]
            if is_ensemble:
                figures |= describe_ensemble(differences[decided], groups)
            else:
                report["axes"] = describe_axes(args.axes, args.shares, rows, chosen, rejected, differences)
                figures |= {f"accuracy_on/{row['name']}": row["accuracy"] for row in report["axes"]["rows"]}
    beside: Ensemble | Axes | None = None
    if is_ensemble:
        beside = collapse_ensemble(trainer)
    elif args.axes and n_outputs > 1:
        beside = Axes(tuple(args.axes), args.shares, collapse_heads(trainer, torch.tensor([args.shares])))
    trainer.save_model(str(args.run_dir / "model"))
    if beside and trainer.is_world_process_zero():
        beside.save(args.run_dir / "model")
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
        report=report,
    )


if __name__ == "__main__":
    sys.exit(launch(KIND, main, (RewardArguments, RewardSettings)))
