"""Kahneman-Tversky Optimization on single completions that are acceptable or not.

Paper: Ethayarajh et al. 2024, arXiv:2402.01306; the loss is its equation 7, with the reference point estimated from
mismatched completions of the same batch. TRL's KTOTrainer with a LoRA adapter: the reference model is the policy with
its adapter off, or the adapter it started from. Its log-probabilities are computed once, before training, where there
is one process; several ask it in every step.

The labels are what annotators called acceptable (`labels_from: acceptable`), or come of preference pairs
(`labels_from: pairs`; see `unpair`). `desirable_weight` and `undesirable_weight` multiply the losses. Left out, they
give both sides the same total weight, the lower end of equation 8, and a mean of 1 over all rows.

TRL pairs each prompt with the next row's completion once and for all, so rows are shuffled here, once, and come in the same
order in every epoch. It would cut rows longer than `max_length` off: here they are left out and counted.

Run: accelerate launch -m training.recipes.kto --config runs/42/spec.yaml --run_dir runs/42
"""

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
import torch
from datasets import Dataset, DatasetDict
from trl import KTOConfig, KTOTrainer

from training.recipes._adapters import PolicyArguments, load_start
from training.recipes._data import (
    DatasetError,
    load_preferences,
    load_unpaired,
    read_manifest,
    short_enough,
    unpair,
)
from training.recipes._evaluations import KeepsEvaluation
from training.recipes._padding import SparesPadding
from training.recipes._reference import after_forwards, save_policy
from training.recipes._runlog import RunLog, launch, resume_from
from training.recipes._samples import ShowArguments, to_show
from training.recipes._settings import SmallMachine, settle
from training.recipes._statistics import area_under_curve, difference_of_means, mean
from training.sampling.model_files import hash_model
from training.sampling.tokenizing import load_tokenizer

KIND = "kto"


@dataclass
class KTOArguments(ShowArguments, PolicyArguments):
    """Arguments of the KTO recipe; everything else is TRL's `KTOConfig`."""

    labels_from: str = field(default="acceptable", metadata={"help": "acceptable, or pairs"})
    max_eval_rows: int | None = field(
        default=None, metadata={"help": "evaluate on a fixed random sample of the held-out rows; default all"}
    )


@dataclass
class KTOSettings(SmallMachine, KTOConfig):
    """TRL's settings with the defaults of a small model on one machine; the CPU where nothing else is."""

    max_length: int | None = 512
    desirable_weight: float | None = None  # balances the counts; see `balance`
    undesirable_weight: float | None = None
    precompute_ref_log_probs: bool = True

    def __post_init__(self) -> None:
        # TRL makes the mismatched pairs of either split in batches of this size.
        self.per_device_eval_batch_size = self.per_device_train_batch_size
        super().__post_init__()


class RowKTOTrainer(KeepsEvaluation, SparesPadding, KTOTrainer):
    """KTOTrainer that keeps the implied reward of each row it evaluates: beta times the log-ratio of policy and reference.

    Leans on two things of TRL 1.16: model outputs with `log_probs` of shape (rows, tokens), 0 outside the completions;
    and the order of forwards, policy before reference, in each the mismatched rows, where there are any, before the rows.
    """

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:
        """TRL's loss."""
        if model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        log_probs: list[torch.Tensor] = []

        def watch(module: torch.nn.Module, arguments: object, output: Any) -> None:
            log_probs.append(output.log_probs.float().sum(dim=1))

        with after_forwards(self, model, watch):
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        of_rows = log_probs[1::2] if self.calculate_KL else log_probs
        reference = inputs["ref_logps"] if self.precompute_ref_logps else of_rows[1]
        rewards = self.beta * (of_rows[0] - reference.to(of_rows[0]))
        self.kept += self.accelerator.gather_for_metrics(rewards).tolist()
        return loss


def load(dataset_dir: Path, labels_from: str) -> tuple[DatasetDict, dict[str, Any]]:
    """The labelled completions of either split, and how many completions of pairs had no label."""
    if labels_from == "acceptable":
        return load_unpaired(dataset_dir), {}
    if labels_from != "pairs":
        raise ValueError(f"labels_from is {labels_from!r}, it must be acceptable or pairs")
    rows, counts = DatasetDict(), {}
    for split, pairs in load_preferences(dataset_dir).items():
        rows[split], counts[f"n_{split}_even"] = unpair(pairs)
    if not len(rows["train"]):
        raise DatasetError(f"{dataset_dir / 'train.jsonl'}: every pair is a tie, so no completion has a label")
    return DatasetDict({split: found for split, found in rows.items() if len(found)}), counts


def prepare(dataset: Dataset, tokenizer: Any, config: KTOSettings) -> tuple[Dataset, dict[str, int]]:
    """The rows to train on in their order, and counts of what was left out.

    A last batch of one row would have no mismatched completion but its own, so one row of the more frequent label is set
    aside where that would be. Raises DatasetError where only one label is left.
    """
    kept = short_enough(dataset, tokenizer, config.max_length)
    counts = {"n_train_dropped": len(dataset) - len(kept), "n_train_set_aside": 0}
    of_label = Counter(kept["label"])
    if len(of_label) < 2:
        what = "acceptable" if of_label[True] else "not acceptable"
        long = f", {counts['n_train_dropped']} longer than max_length left out" if counts["n_train_dropped"] else ""
        found = f"holds {len(kept)} completions, all of them {what}{long}" if of_label else f"holds none{long}"
        raise DatasetError(f"The training set {found}. KTO needs acceptable ones and others")
    kept = kept.shuffle(seed=config.seed)
    if config.loss_type == "kto" and len(kept) % config.per_device_train_batch_size == 1:
        frequent = of_label[True] > of_label[False]
        last = max(index for index, label in enumerate(kept["label"]) if label == frequent)
        kept = kept.select([index for index in range(len(kept)) if index != last])
        counts["n_train_set_aside"] = 1
    return kept, counts


def balance(config: KTOSettings, n_desirable: int, n_undesirable: int) -> None:
    """Fill in the weights that are left out, so that weight times count is the same on both sides.

    Where both are left out their mean over all rows is 1, so that the learning rate means what it would without.
    """
    if config.desirable_weight is None and config.undesirable_weight is None:
        config.desirable_weight = (n_desirable + n_undesirable) / (2 * n_desirable)
    if config.desirable_weight is None:
        config.desirable_weight = config.undesirable_weight * n_undesirable / n_desirable
    if config.undesirable_weight is None:
        config.undesirable_weight = config.desirable_weight * n_desirable / n_undesirable


def main(args: KTOArguments, config: KTOSettings) -> None:
    """Train and evaluate one policy in `args.run_dir`."""
    run_log = RunLog(args.run_dir, kind=KIND, seed=config.seed)
    settle(config, args.run_dir)
    dataset, counts = load(args.run_dir / "dataset", args.labels_from)
    tokenizer = load_tokenizer(args.model)
    train, left_out = prepare(dataset["train"], tokenizer, config)
    if args.labels_from == "acceptable":  # pairs do not carry theirs: the manifest counts them
        counts["licences"] = dict(sorted(Counter(train["licence"]).items()))
    n_desirable = sum(train["label"])
    balance(config, n_desirable, len(train) - n_desirable)
    held_out, n_eval_dropped = None, 0
    if "eval" in dataset:
        held_out = short_enough(dataset["eval"], tokenizer, config.max_length)
        n_eval_dropped = len(dataset["eval"]) - len(held_out)
        # At random, not in the order of the file: the completions of one prompt lie together there.
        held_out = held_out.shuffle(seed=config.seed)
        if args.max_eval_rows and len(held_out) > args.max_eval_rows:
            held_out = held_out.select(range(args.max_eval_rows))
    if not held_out:
        held_out, config.eval_strategy = None, "no"
    if left_out["n_train_dropped"] or n_eval_dropped:
        reason = f"longer than max_length ({config.max_length} tokens)"
        run_log.status("rows_dropped", reason=reason, train=left_out["n_train_dropped"], held_out=n_eval_dropped)

    if config.precompute_ref_log_probs and config.world_size > 1:
        # TRL 1.16 caches them in a folder that each process has for itself, and does not find them again.
        config.precompute_ref_log_probs = False
        run_log.status("reference_in_every_step", reason="several processes")
    elif config.precompute_ref_log_probs:
        run_log.status("computing the reference")
    trainer = RowKTOTrainer(
        **load_start(args, config),
        args=config,
        processing_class=tokenizer,
        train_dataset=train,
        eval_dataset=held_out,
        callbacks=[run_log, *to_show(args, run_log, (held_out or train)["prompt"])],
    )
    output = trainer.train(resume_from_checkpoint=resume_from(args.run_dir, run_log))
    run_log.raise_if_stopped()

    metrics, figures = last_metrics(trainer) | output.metrics, {}
    if held_out is not None:
        metrics |= trainer.evaluate_at_the_end()
        rewards, labels, groups = trainer.kept, trainer.eval_dataset["label"], trainer.eval_dataset["group_id"]
        figures = {
            "rewards/auc": area_under_curve(rewards, labels, groups),
            "rewards/margins": difference_of_means(rewards, labels, groups),
        }
        for name, side in (("rewards/chosen", True), ("rewards/rejected", False)):
            of_side = [index for index, label in enumerate(labels) if label is side]
            figures[name] = mean([rewards[index] for index in of_side], [groups[index] for index in of_side])
    save_policy(trainer, args.run_dir / "model", is_writer=run_log.is_writer)
    run_log.finish(
        metrics=metrics,
        figures=figures,
        dataset={
            "n_train": len(train),
            "n_train_desirable": n_desirable,
            "n_train_undesirable": len(train) - n_desirable,
            "desirable_weight": config.desirable_weight,
            "undesirable_weight": config.undesirable_weight,
            **{f"n_train_{source}": count for source, count in sorted(Counter(train["source"]).items())},
            "n_eval": len(held_out) if held_out is not None else 0,
            **left_out,
            "n_eval_dropped": n_eval_dropped,
            **counts,
            "manifest": read_manifest(args.run_dir / "dataset"),
        },
        base_model={"path": args.model, "hash": hash_model(args.model)},
    )


def last_metrics(trainer: KTOTrainer) -> dict[str, Any]:
    """TRL's own numbers of the last logged training step."""
    logged = [entry for entry in trainer.state.log_history if "kl" in entry]
    return dict(logged[-1]) if logged else {}


if __name__ == "__main__":
    sys.exit(launch(KIND, main, (KTOArguments, KTOSettings)))
