"""Direct Preference Optimization on one preference dataset snapshot.

Paper: Rafailov et al. 2023, arXiv:2305.18290; the loss is its equation 7. TRL's DPOTrainer with a LoRA
adapter: the reference model is the policy with its adapter off.

What reaches the loss: each pair's `weight` multiplies its gradient (`PairDPOTrainer`; the logged loss is
not weighted). DPO has no ties: they are dropped and counted, or with `ties: both_ways` enter once in
either direction at half weight, which is a soft label of one half. `margin` is not used. Labels that may be wrong are
smoothed, each pair by its own share (`_smoothing.py`).

Run: accelerate launch -m training.recipes.dpo --config runs/42/spec.yaml --run_dir runs/42
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
import torch
from datasets import Dataset, concatenate_datasets
from trl import DPOConfig, DPOTrainer

from training.recipes._adapters import PolicyArguments, load_start
from training.recipes._data import (
    DatasetError,
    clearest_pairs,
    count_longer_pairs,
    drop_ties,
    load_preferences,
    normalise_weights,
    read_manifest,
)
from training.recipes._evaluations import KeepsEvaluation
from training.recipes._order import ByLength, GroupByLength
from training.recipes._padding import SparesPadding
from training.recipes._reference import after_forwards, save_policy
from training.recipes._runlog import RunLog, launch, resume_from
from training.recipes._samples import ShowArguments, to_show
from training.recipes._settings import SmallMachine, settle
from training.recipes._smoothing import check_smoothing, either_wrong, smoothing_of
from training.recipes._statistics import mean, proportion
from training.sampling.model_files import hash_model
from training.sampling.tokenizing import load_tokenizer

KIND = "dpo"


@dataclass
class DPOArguments(ShowArguments, PolicyArguments):
    """Arguments of the DPO recipe; everything else is TRL's `DPOConfig`."""

    ties: str = field(default="drop", metadata={"help": "drop, or both_ways at half weight each"})
    smoothing_from: str = field(
        default="none", metadata={"help": "how likely a pair's label is wrong: none, agreement (of those who judged it), or soft_label"}
    )
    max_pairs_per_group: int | None = field(
        default=None, metadata={"help": "train on the clearest pairs of each ranking only; default all"}
    )
    max_eval_pairs: int | None = field(
        default=None, metadata={"help": "evaluate on a fixed random sample of the held-out pairs; default all"}
    )


@dataclass
class DPOSettings(SmallMachine, GroupByLength, DPOConfig):
    """TRL's settings with the defaults of a small model on one machine; the CPU where nothing else is."""

    per_device_eval_batch_size: int = 8
    max_length: int | None = 512


class PairColumns:
    """A collator that adds COLUMNS of the pairs to what TRL's own collator makes."""

    COLUMNS = ("weight", "smoothing")

    def __init__(self, collator: Callable[[list[dict]], dict[str, Any]]) -> None:
        self.collator = collator

    def __call__(self, examples: list[dict]) -> dict[str, Any]:
        columns = {name: torch.tensor([float(example[name]) for example in examples]) for name in self.COLUMNS}
        return self.collator(examples) | columns


class PairDPOTrainer(KeepsEvaluation, SparesPadding, ByLength, DPOTrainer):
    """DPOTrainer in which a pair's weight multiplies its gradient, and which keeps the margin of each pair.

    TRL averages the pairs' losses inside one long method. Each pair's loss depends on the parameters only
    through its own rows of `outputs.log_probs`, so scaling the gradient of those rows is the same as
    weighting the loss, for every loss type but `aot` (which mixes pairs; `sft` is weighted by its tokens).

    `label_smoothing` and a pair's own `smoothing` hold in training for `sigmoid` (conservative DPO), which TRL does not
    smooth, and for `robust`; `eval_loss` is that of the labels as they are, so that runs compare.

    `kept` holds beta times the difference of implicit rewards, chosen minus rejected, of each pair.

    Leans on four things of TRL 1.16: `_signature_columns`; `data_collator`; a model output with `log_probs`
    of shape (2 x pairs, tokens), chosen before rejected, 0 outside the completions; the policy's forward
    before the reference's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
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
        """TRL's loss, smoothed; its gradient is that of the weighted loss."""
        rows = inputs.pop("weight").repeat(2)[:, None]
        smoothing = either_wrong(inputs.pop("smoothing"), self.args.label_smoothing)
        log_probs: list[torch.Tensor] = []

        def watch(module: torch.nn.Module, arguments: object, output: Any) -> None:
            log_probs.append(output.log_probs.float().sum(dim=1))
            if output.log_probs.requires_grad:
                output.log_probs.register_hook(lambda gradient: gradient * rows.to(gradient))

        if "robust" in self.loss_types:
            self.label_smoothing = smoothing if model.training else 0.0  # what TRL reads
        with after_forwards(self, model, watch):
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.precompute_ref_logps:
            reference = torch.cat([inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]])
        else:
            reference = log_probs[1].detach()
        chosen, rejected = (log_probs[0] - reference).chunk(2)
        margins = self.beta * (chosen - rejected)
        if not model.training:
            self.kept += self.accelerator.gather_for_metrics(margins).tolist()
        elif smoothing.any() and "sigmoid" in self.loss_types:
            # -log sigmoid(-margin) is margin more than -log sigmoid(margin), so this is a mixture of the two.
            share = self.loss_weights[self.loss_types.index("sigmoid")]
            loss = _plus(loss, share * (smoothing * margins).mean())
        return loss


def _plus(loss: Any, more: torch.Tensor) -> Any:
    return (loss[0] + more, *loss[1:]) if isinstance(loss, tuple) else loss + more


def prepare(dataset: Dataset, args: DPOArguments) -> tuple[Dataset, dict[str, int]]:
    """The pairs to train on, and counts of what was left out."""
    n_ties = sum(dataset["tie"])
    decided = drop_ties(dataset)
    if args.max_pairs_per_group:
        decided = clearest_pairs(decided, args.max_pairs_per_group)
    counts = {"n_train_ties": n_ties, "n_train_set_aside": len(dataset) - n_ties - len(decided)}
    decided = decided.add_column("smoothing", smoothing_of(decided, args.smoothing_from))
    if args.ties == "both_ways" and n_ties:
        ties = dataset.select([index for index, tie in enumerate(dataset["tie"]) if tie])
        ties = ties.map(lambda row: {"weight": row["weight"] / 2}).add_column("smoothing", [0.0] * len(ties))
        swapped = ties.map(lambda row: {"chosen": row["rejected"], "rejected": row["chosen"]})
        decided = concatenate_datasets([decided, ties, swapped])
    elif args.ties not in ("drop", "both_ways"):
        raise ValueError(f"ties is {args.ties!r}, it must be drop or both_ways")
    if not len(decided):
        raise DatasetError("Every pair of the training set is a tie: there is nothing to learn from")
    return normalise_weights(decided).remove_columns(["margin", "tie", "soft_label"]), counts


def main(args: DPOArguments, config: DPOSettings) -> None:
    """Train and evaluate one policy in `args.run_dir`."""
    run_log = RunLog(args.run_dir, kind=KIND, seed=config.seed)
    settle(config, args.run_dir)
    check_smoothing(args.smoothing_from, config)
    dataset = load_preferences(args.run_dir / "dataset")
    tokenizer = load_tokenizer(args.model)
    train, counts = prepare(dataset["train"], args)
    if n_cut := count_longer_pairs(train, tokenizer, config.max_length):
        run_log.status("pairs_cut", reason=f"longer than max_length ({config.max_length} tokens): their end is not learnt from", train=n_cut)
    counts["n_train_cut"] = n_cut
    held_out = None
    if "eval" in dataset:
        held_out = drop_ties(dataset["eval"]).remove_columns(["margin", "tie", "soft_label"])
        held_out = held_out.add_column("smoothing", [0.0] * len(held_out))
    if not held_out:
        held_out, config.eval_strategy = None, "no"
    elif args.max_eval_pairs and len(held_out) > args.max_eval_pairs:
        # At random, not the clearest: those would flatter the accuracy.
        held_out = held_out.shuffle(seed=config.seed).select(range(args.max_eval_pairs))

    trainer = PairDPOTrainer(
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
        margins, groups = trainer.kept, trainer.eval_dataset["group_id"]
        right = [(margin > 0) + (margin == 0) / 2 for margin in margins]
        figures = {"rewards/accuracies": proportion(right, groups), "rewards/margins": mean(margins, groups)}
    save_policy(trainer, args.run_dir / "model", is_writer=run_log.is_writer)
    run_log.finish(
        metrics=metrics,
        figures=figures,
        dataset={
            "n_train": len(trainer.train_dataset),
            "n_eval": len(trainer.eval_dataset) if held_out is not None else 0,
            # Pairs whose prompt alone fills max_length have no completion left to learn from.
            "n_train_dropped": len(train) - len(trainer.train_dataset),
            **counts,
            "mean_smoothing": float(either_wrong(torch.tensor(train["smoothing"]), config.label_smoothing).mean()),
            "manifest": read_manifest(args.run_dir / "dataset"),
        },
        base_model={"path": args.model, "hash": hash_model(args.model)},
    )


def last_metrics(trainer: DPOTrainer) -> dict[str, Any]:
    """TRL's own numbers of the last logged training step."""
    logged = [entry for entry in trainer.state.log_history if "rewards/margins" in entry]
    return dict(logged[-1]) if logged else {}


if __name__ == "__main__":
    sys.exit(launch(KIND, main, (DPOArguments, DPOSettings)))
