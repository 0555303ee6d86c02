"""A Bradley-Terry reward model on cached embeddings of the frozen base model.

Each prompt and completion goes through the base model once; its hidden states, pooled over the completion,
are kept on disk. Where `features` has them all, torch isn't even imported. On them a weighted ridge logistic regression is fitted to the pairs (Bradley and Terry
1952), which takes milliseconds, so a refit after every batch of judgements is free. Its accuracy is near a
LoRA reward model's at a small fraction of the time; where that is not enough, use `reward.py`.

Ties count as half a win for either side, and each pair's `weight` multiplies its log likelihood, exactly.
`margin` is not used.

What it thinks of each pair by a fit that hasn't seen the pair's prompt, as a probability that is held against the labels, is
left in `beliefs.jsonl`: where it is sure that a majority is wrong, a person should look again.

How sure it is of each pair comes from the fit's posterior (Laplace, widened for pairs that depend on one another); whether
that is borne out is in `uncertainty`. How far the model may be trusted is in `report`, on the held-out pairs, or without any on the training pairs by fits that
haven't seen their prompt; the margins behind it are in `predictions.jsonl`.

Run: python -m training.recipes.reward_head --config runs/42/spec.yaml --run_dir runs/42
"""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
import numpy
from scipy.special import expit

from training.recipes._arguments import parse_plain
from training.recipes._bradley_terry import (
    Pairs,
    bradley_terry_loss,
    choose_ridge,
    fit_weights,
    held_out_margins,
    posterior,
    right,
    root,
    temperature,
)
from training.recipes._encoding import encode, texts_of
from training.recipes._eventlog import EventLog, launch
from training.recipes._reward_report import headlines, reward_report, write_predictions
from training.recipes._rows import Table, read_manifest, read_preferences
from training.recipes._statistics import correlation, mean, proportion
from training.recipes._uncertainty import headlines as headlines_of_uncertainty
from training.recipes._uncertainty import uncertainty_report
from training.sampling.reward_head import FeatureMap, RewardHead

KIND = "reward_head"

SURE = 0.9  # a probability from here on is called sure
LEAST_SURE = 20  # pairs, to tell whether it is right where it is sure
RIGHT_WHERE_SURE = 0.8  # the lower bound of that share, for its probabilities to be called calibrated


@dataclass
class RewardHeadArguments:
    """Arguments of the cached-embedding reward model."""

    run_dir: Path = field(metadata={"help": "run folder: dataset/ in, model/ and result.json out"})
    model: str = field(metadata={"help": "the frozen base model: a folder, or a name on the hub"})
    layer: int | None = field(default=None, metadata={"help": "hidden layer from 1; default that of `features`, else two thirds up"})
    pooling: str | None = field(
        default=None, metadata={"help": "mean or last, over the completion's tokens; default as `features`, else mean"}
    )
    dimensions: int = field(default=64, metadata={"help": "principal components kept, at most"})
    ridges: list[float] = field(
        default_factory=lambda: [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0],
        metadata={"help": "penalties to choose from"},
    )
    ridge_by: str = field(
        default="evidence",
        metadata={"help": "evidence (right for actively chosen pairs) or cv (by groups, for random pairs)"},
    )
    folds: int = field(default=5, metadata={"help": "of the cross-validation, by group"})
    max_iterations: int = field(default=60, metadata={"help": "steps of the solver, at most"})
    max_length: int | None = field(
        default=None, metadata={"help": "tokens of prompt and completion; default as `features`, else 1024"}
    )
    batch_size: int = field(default=16, metadata={"help": "texts encoded at once"})
    cache: Path | None = field(
        default=None,
        metadata={"help": "SQLite file of embeddings, shared between runs; default in the run folder"},
    )
    features: Path | None = field(
        default=None,
        metadata={"help": "store of completions that were encoded before; where it has all, no model is loaded"},
    )
    seed: int = field(default=0, metadata={"help": "of the assignment of groups to folds"})


def right_where_sure(probability: numpy.ndarray, target: numpy.ndarray, group: numpy.ndarray) -> dict:
    """The share of pairs with a winner that the model has the right way round, of those on which it is sure."""
    sure = (target != 0.5) & (abs(probability - 0.5) >= SURE - 0.5)
    return proportion((probability[sure] > 0.5).astype(float).tolist(), group[sure].tolist())


def is_calibrated(figure: dict) -> bool:
    """Whether the model may contradict people: what it calls sure is mostly right, and was seen often enough."""
    return figure["n"] >= LEAST_SURE and figure["low"] >= RIGHT_WHERE_SURE


def write_beliefs(path: Path, dataset: dict[str, Table], probability: dict[str, numpy.ndarray]) -> None:
    """A line `{"id", "probability"}` a pair that has an id: how likely `chosen` is the better one. Whole or not at all."""
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as file:
        for split, values in probability.items():
            for id, value in zip(dataset[split]["id"], values.tolist(), strict=True):
                if id is not None:
                    file.write(json.dumps({"id": id, "probability": value}) + "\n")
    temporary.replace(path)


def accuracy(margin: numpy.ndarray, target: numpy.ndarray) -> float:
    """Share of pairs with a winner that the reward orders rightly; equal rewards count half."""
    return float(right(margin[target != 0.5]).mean()) if (target != 0.5).any() else float("nan")


def describe(dataset: Table, margin: numpy.ndarray, target: numpy.ndarray) -> dict[str, dict]:
    """Accuracy, log loss and margin of one split, with intervals; ties count for the log loss only."""
    groups = numpy.array(dataset["group_id"])
    decided = target != 0.5
    losses = numpy.logaddexp(0, -margin) * target + numpy.logaddexp(0, margin) * (1 - target)
    return {
        "accuracy": proportion(right(margin[decided]).tolist(), groups[decided].tolist()),
        "log_loss": mean(losses.tolist(), groups.tolist()),
        "margin": mean(margin[decided].tolist(), groups[decided].tolist()),
    }


def main(args: RewardHeadArguments) -> None:
    """Fit and evaluate one reward head in `args.run_dir`."""
    run_log = EventLog(args.run_dir, kind=KIND, seed=args.seed)
    dataset = read_preferences(args.run_dir / "dataset")
    texts = texts_of(dataset)

    def on_progress(done: int, total: int) -> None:
        run_log.progress(done, total, "completions encoded")
        run_log.raise_if_stopped()

    encoded = encode(
        texts, model=args.model, layer=args.layer, pooling=args.pooling, max_length=args.max_length,
        batch_size=args.batch_size, cache=args.cache or args.run_dir / "cache" / "embeddings.sqlite", features=args.features,
        on_start=lambda total, layer: run_log.status("encoding", total=total, layer=layer), on_progress=on_progress,
    )  # fmt: skip
    embeddings, encoding = encoded.vectors, encoded.encoding

    run_log.status("fitting")
    features = FeatureMap.fit(embeddings[texts.rows_of("train")], args.dimensions)
    projected = features(embeddings)

    group_number: dict[str, int] = {}
    pairs: dict[str, Pairs] = {}
    for split, rows in dataset.items():
        chosen, rejected = texts.sides[split, "chosen"], texts.sides[split, "rejected"]
        weight = numpy.array(rows["weight"], dtype=float)
        if weight.sum() == 0:
            raise ValueError(f"Every pair of {split}.jsonl has weight 0")
        pairs[split] = Pairs(
            projected[chosen] - projected[rejected],
            numpy.where(rows["tie"], 0.5, 1.0),
            weight / weight.mean(),
            numpy.array([group_number.setdefault(group, len(group_number)) for group in rows["group_id"]]),
        )
    train = pairs["train"]

    folds = {"folds": args.folds, "seed": args.seed, "max_iterations": args.max_iterations}
    ridge_by = args.ridge_by
    if ridge_by == "cv" and len(set(train.group.tolist())) < 2:
        ridge_by = "evidence"
        run_log.status("ridge_by_evidence", reason="all pairs are of one prompt group: there is nothing to cross-validate on")
    ridge, tried = choose_ridge(train, args.ridges, ridge_by, **folds)
    for step, weights in enumerate(fit_weights(train, ridge, args.max_iterations), start=1):
        metrics = {}
        for split, prefix in (("train", ""), ("eval", "eval_")):
            if split in pairs:
                margin = pairs[split].difference @ weights
                metrics[f"{prefix}loss"] = bradley_terry_loss(margin, pairs[split].target, pairs[split].weight)
                metrics[f"{prefix}accuracy"] = accuracy(margin, pairs[split].target)
        run_log.metrics(metrics, step=step)

    covariance, widening = posterior(train, weights, ridge)
    head = RewardHead(
        features=features,
        weight=weights,
        covariance=covariance,
        base_model=args.model,
        config={
            **asdict(encoding),
            "ridge": ridge,
            "widening": widening,
            "n_pairs": len(train.target),
        },
    )
    head.save(args.run_dir / "model")

    figures = {}
    rewards = projected @ weights
    if "eval" in dataset:
        figures |= describe(dataset["eval"], pairs["eval"].difference @ weights, pairs["eval"].target)
    calibration = None
    held_out, spreads = held_out_margins(train, ridge, **folds)
    if not numpy.isnan(held_out).any():
        figures |= {f"cv_{name}": figure for name, figure in describe(dataset["train"], held_out, train.target).items()}
        scale = temperature(held_out, train, args.max_iterations)
        margins = {"train": held_out}
        if "eval" in pairs:
            margins["eval"] = pairs["eval"].difference @ weights
        probability = {split: expit(scale * margin) for split, margin in margins.items()}
        of_splits = [(values, pairs[split].target, pairs[split].group) for split, values in probability.items()]
        figures["right_where_sure"] = right_where_sure(*map(numpy.concatenate, zip(*of_splits, strict=True)))
        calibration = {"scale": scale, "is_calibrated": is_calibrated(figures["right_where_sure"])}
        write_beliefs(args.run_dir / "beliefs.jsonl", dataset, probability)
    report = None
    sides_of = {}
    if "eval" in pairs:
        sides_of = {side: rewards[texts.sides["eval", side]] for side in ("chosen", "rejected")}
    elif not numpy.isnan(held_out).any():
        sides_of = {"chosen": held_out, "rejected": numpy.zeros(len(held_out))}  # no reward alone: each fold has its own zero
    if sides_of:
        rows = dataset["eval" if "eval" in pairs else "train"]
        report = reward_report(rows, **sides_of, is_cross_validated="eval" not in pairs, seed=args.seed)
        figures |= headlines(report)
        write_predictions(
            args.run_dir / "predictions.jsonl", rows, **sides_of, numbers=range(len(rows)), seed=args.seed
        )
    uncertainty = None
    if sides_of:
        judged = pairs["eval" if "eval" in pairs else "train"]
        won = judged.target != 0.5
        uncertainty = uncertainty_report(
            (sides_of["chosen"] - sides_of["rejected"])[won],
            (judged.difference @ root(covariance) if "eval" in pairs else spreads)[won],
            judged.group[won].tolist(), widening=widening, seed=args.seed,
        )  # fmt: skip
        figures |= headlines_of_uncertainty(uncertainty)
    measured = texts.rows_of("eval" if "eval" in dataset else "train")
    lengths = [len(text) for _, text in texts.by_key.values()]
    figures["reward_length_correlation"] = correlation(
        rewards[measured], [numpy.log1p(lengths[row]) for row in measured]
    )
    run_log.finish(
        metrics=metrics | {"iterations": step, "ridge": ridge, "dimensions": len(weights)},
        figures=figures,
        dataset={
            "n_train": len(dataset["train"]),
            "n_eval": len(dataset["eval"]) if "eval" in dataset else 0,
            "n_train_ties": int((train.target == 0.5).sum()),
            "manifest": read_manifest(args.run_dir / "dataset"),
        },
        base_model={"path": args.model, "hash": encoding.base_model_hash, "layer": encoding.layer},
        ridges={str(value): score for value, score in tried.items()},
        n_texts=len(texts.by_key),
        n_encoded=encoded.n_computed,
        n_from_features=encoded.n_stored,
        calibration=calibration,
        uncertainty=uncertainty,
        report=report,
    )


if __name__ == "__main__":
    sys.exit(launch(KIND, main, (RewardHeadArguments,), parse=parse_plain))
