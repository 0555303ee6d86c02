"""Supervised fine-tuning on the texts of one snapshot: corrections, demonstrations and best completions.

TRL's SFTTrainer with a LoRA adapter. The loss is the cross-entropy of the completion's tokens, the end token
among them; prompts are read, not learned. `sources` says which texts take part, for training and held out alike.

TRL would cut texts longer than `max_length` off: here they are left out, and the result counts them by source.

Run: accelerate launch -m training.recipes.sft --config runs/42/spec.yaml --run_dir runs/42
"""

import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from training.recipes._adapters import PolicyArguments, load_start
from training.recipes._data import DatasetError, load_supervised, read_manifest, short_enough
from training.recipes._order import ByLength, GroupByLength
from training.recipes._padding import SparesPadding
from training.recipes._runlog import RunLog, launch, resume_from
from training.recipes._samples import ShowArguments, to_show
from training.recipes._settings import SmallMachine, settle
from training.recipes._statistics import ratio
from training.sampling.model_files import hash_model
from training.sampling.tokenizing import load_tokenizer

KIND = "sft"
SOURCES = ("correction", "demonstration", "best")


@dataclass
class SFTArguments(ShowArguments, PolicyArguments):
    """Arguments of the SFT recipe; everything else is TRL's `SFTConfig`."""

    sources: list[str] | None = field(
        default=None, metadata={"help": "which texts take part: correction, demonstration, best; default all there are"}
    )
    max_eval_rows: int | None = field(
        default=None, metadata={"help": "evaluate on a fixed random sample of the held-out texts; default all"}
    )


@dataclass
class SFTSettings(SmallMachine, GroupByLength, SFTConfig):
    """TRL's settings with the defaults of a small model on one machine; the CPU where nothing else is."""

    learning_rate: float = 2e-4
    num_train_epochs: float = 2.0
    per_device_eval_batch_size: int = 8
    max_length: int | None = 512


def of_sources(dataset: Dataset, sources: list[str] | None) -> Dataset:
    """The rows of these sources, in order; all where none is named."""
    if sources is None:
        return dataset
    return dataset.select([index for index, source in enumerate(dataset["source"]) if source in sources])


def prepare(dataset: Dataset, args: SFTArguments, tokenizer: Any, max_length: int | None) -> tuple[Dataset, Counter]:
    """The rows to learn from, and how many of each source were too long.

    Raises DatasetError where none is left, and ValueError for an unknown source.
    """
    if unknown := set(args.sources or ()) - set(SOURCES):
        raise ValueError(f"sources names {min(unknown)!r}, it knows {', '.join(SOURCES)}")
    wanted = of_sources(dataset, args.sources)
    if not len(wanted):
        there = ", ".join(f"{count} {source}" for source, count in sorted(Counter(dataset["source"]).items()))
        raise DatasetError(f"No text of the training set is of the sources {args.sources}: it holds {there}")
    kept = short_enough(wanted, tokenizer, max_length)
    if not len(kept):
        raise DatasetError(f"Every text is longer than max_length ({max_length} tokens): raise it")
    return kept, Counter(wanted["source"]) - Counter(kept["source"])


class TextSFTTrainer(SparesPadding, ByLength, SFTTrainer):
    """TRL's trainer, whose batches have texts of about the same length."""


@torch.no_grad()
def completion_losses(trainer: SFTTrainer) -> tuple[list[float], list[int]]:
    """Of each row of the prepared evaluation set, in its order: its loss in nats, and its completion's tokens.

    Leans on two things of TRL 1.16: a model called with `fused_lm_head=True` answers with `log_probs` of shape
    (rows, tokens), 0 outside the completions, and with `label_mask` of the same shape.
    """
    was_training = trainer.model.training
    trainer.model.eval()
    nats: list[float] = []
    tokens: list[int] = []
    for batch in trainer.get_eval_dataloader():
        batch = trainer._prepare_inputs(batch)
        with trainer.accelerator.autocast():
            output = trainer.model(**batch, use_cache=False, fused_lm_head=True)
        losses, counts = -output.log_probs.float().sum(dim=1), output.label_mask.sum(dim=1)
        nats += trainer.accelerator.gather_for_metrics(losses).tolist()
        tokens += trainer.accelerator.gather_for_metrics(counts).tolist()
    trainer.model.train(was_training)
    return nats, tokens


def main(args: SFTArguments, config: SFTSettings) -> None:
    """Train and evaluate one policy in `args.run_dir`."""
    run_log = RunLog(args.run_dir, kind=KIND, seed=config.seed)
    settle(config, args.run_dir)
    if config.packing or config.padding_free:
        raise ValueError("packing and padding_free are not supported: the loss of each text could not be told apart")
    config.eval_strategy = "no"  # before and after, text by text: see below
    dataset = load_supervised(args.run_dir / "dataset")
    tokenizer = load_tokenizer(args.model)
    train, dropped = prepare(dataset["train"], args, tokenizer, config.max_length)
    held_out, n_eval_dropped = None, 0
    if "eval" in dataset:
        wanted = of_sources(dataset["eval"], args.sources)
        held_out = short_enough(wanted, tokenizer, config.max_length)
        n_eval_dropped = len(wanted) - len(held_out)
        if args.max_eval_rows and len(held_out) > args.max_eval_rows:
            held_out = held_out.shuffle(seed=config.seed).select(range(args.max_eval_rows))
    if dropped or n_eval_dropped:
        reason = f"longer than max_length ({config.max_length} tokens)"
        run_log.status("texts_dropped", reason=reason, train=dict(dropped), held_out=n_eval_dropped)

    trainer = TextSFTTrainer(
        **load_start(args, config),
        args=config,
        processing_class=tokenizer,
        train_dataset=train,
        eval_dataset=held_out or None,
        callbacks=[run_log, *to_show(args, run_log, (held_out or train)["prompt"])],
    )
    checkpoint = resume_from(args.run_dir, run_log)
    before: list[float] = []
    if held_out and not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):  # sharded, it is not ready yet
        run_log.status("evaluating")
        before, tokens = completion_losses(trainer)
        if checkpoint is None:
            run_log.metrics({"eval_loss": sum(before) / sum(tokens)}, step=0)
    output = trainer.train(resume_from_checkpoint=checkpoint)
    run_log.raise_if_stopped()

    metrics, figures = last_metrics(trainer) | output.metrics, {}
    if held_out:
        after, tokens = completion_losses(trainer)
        groups = trainer.eval_dataset["group_id"]
        figures["loss"] = ratio(after, tokens, groups)
        if before:
            change = [later - earlier for later, earlier in zip(after, before, strict=True)]
            figures["loss_change"] = ratio(change, tokens, groups)
        metrics["eval_loss"] = figures["loss"]["value"]
        run_log.metrics({"eval_loss": metrics["eval_loss"]})
    trainer.save_model(str(args.run_dir / "model"))
    run_log.finish(
        metrics=metrics,
        figures=figures,
        dataset={
            "n_train": len(train),
            **{f"n_train_{source}": count for source, count in sorted(Counter(train["source"]).items())},
            "n_eval": len(held_out) if held_out else 0,
            "n_train_dropped": sum(dropped.values()),
            **{f"n_train_dropped_{source}": count for source, count in sorted(dropped.items())},
            "n_eval_dropped": n_eval_dropped,
            "n_train_other_sources": len(dataset["train"]) - len(of_sources(dataset["train"], args.sources)),
            "licences": dict(sorted(Counter(train["licence"]).items())),
            "manifest": read_manifest(args.run_dir / "dataset"),
        },
        base_model={"path": args.model, "hash": hash_model(args.model)},
    )


def last_metrics(trainer: SFTTrainer) -> dict[str, Any]:
    """TRL's own numbers of the last logged training step."""
    logged = [entry for entry in trainer.state.log_history if "mean_token_accuracy" in entry]
    return dict(logged[-1]) if logged else {}


if __name__ == "__main__":
    sys.exit(launch(KIND, main, (SFTArguments, SFTSettings)))
