"""A Bradley-Terry reward model on cached embeddings of the frozen base model.

Each prompt and completion goes through the base model once; its hidden states, pooled over the completion,
are kept on disk. On them a weighted ridge logistic regression is fitted to the pairs (Bradley and Terry
1952), which takes milliseconds, so a refit after every batch of judgements is free. Its accuracy is near a
LoRA reward model's at a small fraction of the time; where that is not enough, use `reward.py`.

Ties count as half a win for either side, and each pair's `weight` multiplies its log likelihood, exactly.
`margin` is not used.

What it thinks of each pair by a fit that hasn't seen the pair's prompt, as a probability that is held against the labels, is
left in `beliefs.jsonl`: where it is sure that a majority is wrong, a person should look again.

How far the model may be trusted is in `report`, on the held-out pairs, or without any on the training pairs by fits that
haven't seen their prompt; the margins behind it are in `predictions.jsonl`.

Run: python -m training.recipes.reward_head --config runs/42/spec.yaml --run_dir runs/42
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
import numpy
from datasets import Dataset, DatasetDict
from scipy.optimize import minimize
from scipy.special import expit

from training.recipes._data import completion_text, load_preferences, read_manifest
from training.recipes._reward_report import headlines, reward_report, write_predictions
from training.recipes._runlog import RunLog, launch
from training.recipes._statistics import correlation, mean, proportion
from training.sampling.embeddings import Embedder, EmbeddingCache
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
    layer: int | None = field(default=None, metadata={"help": "hidden layer from 1; default two thirds up"})
    pooling: str = field(default="mean", metadata={"help": "mean or last, over the completion's tokens"})
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
    max_length: int = field(default=1024, metadata={"help": "tokens of prompt and completion"})
    batch_size: int = field(default=16, metadata={"help": "texts encoded at once"})
    cache: Path | None = field(
        default=None,
        metadata={"help": "SQLite file of embeddings, shared between runs; default in the run folder"},
    )
    seed: int = field(default=0, metadata={"help": "of the assignment of groups to folds"})


@dataclass(frozen=True)
class Pairs:
    """One split as arrays, a row per pair.

    `difference` is features of chosen minus rejected, (pairs, features); `target` is 1, or 0.5 for a tie;
    `weight` has a mean of 1; `group` numbers the prompt groups.
    """

    difference: numpy.ndarray
    target: numpy.ndarray
    weight: numpy.ndarray
    group: numpy.ndarray

    def take(self, rows: numpy.ndarray) -> "Pairs":
        """The pairs at `rows`, an index or a mask."""
        return Pairs(self.difference[rows], self.target[rows], self.weight[rows], self.group[rows])


def bradley_terry_loss(margin: numpy.ndarray, target: numpy.ndarray, weight: numpy.ndarray) -> float:
    """Weighted mean negative log-likelihood in nats; 0.693 where all rewards are equal.

    `margin` is the reward of chosen minus rejected in logits; `target` the probability that chosen wins.
    """
    losses = numpy.logaddexp(0, -margin) * target + numpy.logaddexp(0, margin) * (1 - target)
    return float((weight * losses).sum() / weight.sum())


def fit_weights(pairs: Pairs, ridge: float, max_iterations: int) -> list[numpy.ndarray]:
    """Minimise the weighted log loss (summed over pairs) plus `ridge / 2` times the squared norm, which is convex.

    Newton steps within a trust region. Returns the weights after every step; the last are the solution.
    """

    def objective(weights: numpy.ndarray) -> float:
        loss = bradley_terry_loss(pairs.difference @ weights, pairs.target, pairs.weight) * pairs.weight.sum()
        return loss + ridge / 2 * float(weights @ weights)

    def gradient(weights: numpy.ndarray) -> numpy.ndarray:
        missing = pairs.weight * (pairs.target - expit(pairs.difference @ weights))
        return ridge * weights - pairs.difference.T @ missing

    steps: list[numpy.ndarray] = []
    minimize(
        objective, numpy.zeros(pairs.difference.shape[1]), jac=gradient, method="trust-exact",
        hess=lambda weights: posterior_precision(pairs, weights, ridge),
        callback=lambda weights: steps.append(weights.copy()),
        options={"maxiter": max_iterations, "gtol": 1e-9 * float(pairs.weight.sum())},
    )  # fmt: skip
    return steps or [numpy.zeros(pairs.difference.shape[1])]


def solve(pairs: Pairs, ridge: float, max_iterations: int) -> numpy.ndarray:
    """The last weights of `fit_weights`."""
    return fit_weights(pairs, ridge, max_iterations)[-1]


def posterior_precision(pairs: Pairs, weights: numpy.ndarray, ridge: float) -> numpy.ndarray:
    """Second derivative of the penalised loss at `weights`: the inverse of the Laplace covariance."""
    probability = expit(pairs.difference @ weights)
    curvature = pairs.weight * probability * (1 - probability)
    return (pairs.difference.T * curvature) @ pairs.difference + ridge * numpy.eye(len(weights))


def log_evidence(pairs: Pairs, ridge: float, max_iterations: int) -> float:
    """Laplace approximation of the log probability of the labels under a prior of precision `ridge`.

    MacKay 1992, equation 4.
    """
    weights = solve(pairs, ridge, max_iterations)
    loss = bradley_terry_loss(pairs.difference @ weights, pairs.target, pairs.weight) * pairs.weight.sum()
    _, log_determinant = numpy.linalg.slogdet(posterior_precision(pairs, weights, ridge))
    return float(-loss - ridge / 2 * weights @ weights + (len(weights) * numpy.log(ridge) - log_determinant) / 2)


def held_out_margins(pairs: Pairs, ridge: float, args: RewardHeadArguments) -> numpy.ndarray:
    """Reward differences of every pair by a fit that has not seen its group; NaN below two groups."""
    groups = numpy.unique(pairs.group)
    fold_of = numpy.empty(groups.max() + 1, dtype=int)
    fold_of[numpy.random.default_rng(args.seed).permutation(groups)] = numpy.arange(len(groups)) % args.folds
    margins = numpy.full(len(pairs.target), numpy.nan)
    for fold in range(args.folds):
        inside = fold_of[pairs.group] == fold
        if inside.any() and not inside.all():
            weights = solve(pairs.take(~inside), ridge, args.max_iterations)
            margins[inside] = pairs.difference[inside] @ weights
    return margins


def temperature(margin: numpy.ndarray, pairs: Pairs, max_iterations: int) -> float:
    """What held-out margins are multiplied by to become log odds: temperature scaling, fitted by log loss.

    Guo et al. 2017, section 4.2, with the inverse of their T.
    """
    alone = Pairs(margin[:, None], pairs.target, pairs.weight, pairs.group)
    return float(solve(alone, 1e-6, max_iterations)[0])


def right_where_sure(probability: numpy.ndarray, target: numpy.ndarray, group: numpy.ndarray) -> dict:
    """The share of pairs with a winner that the model has the right way round, of those on which it is sure."""
    sure = (target != 0.5) & (abs(probability - 0.5) >= SURE - 0.5)
    return proportion((probability[sure] > 0.5).astype(float).tolist(), group[sure].tolist())


def is_calibrated(figure: dict) -> bool:
    """Whether the model may contradict people: what it calls sure is mostly right, and was seen often enough."""
    return figure["n"] >= LEAST_SURE and figure["low"] >= RIGHT_WHERE_SURE


def write_beliefs(path: Path, dataset: DatasetDict, probability: dict[str, numpy.ndarray]) -> None:
    """A line `{"id", "probability"}` a pair that has an id: how likely `chosen` is the better one. Whole or not at all."""
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as file:
        for split, values in probability.items():
            for id, value in zip(dataset[split]["id"], values.tolist(), strict=True):
                if id is not None:
                    file.write(json.dumps({"id": id, "probability": value}) + "\n")
    temporary.replace(path)


def choose_ridge(pairs: Pairs, args: RewardHeadArguments) -> tuple[float, dict[float, float]]:
    """The ridge with the highest log evidence, or the lowest cross-validated log loss; and all the values."""
    if args.ridge_by == "evidence":
        values = {ridge: log_evidence(pairs, ridge, args.max_iterations) for ridge in args.ridges}
        return max(values, key=values.get), values
    if args.ridge_by == "cv":
        values = {}
        for ridge in args.ridges:
            margins = held_out_margins(pairs, ridge, args)
            if numpy.isnan(margins).any():
                raise ValueError("Cross-validation needs pairs of at least two groups; use ridge_by: evidence")
            values[ridge] = bradley_terry_loss(margins, pairs.target, pairs.weight)
        return min(values, key=values.get), values
    raise ValueError(f"ridge_by is {args.ridge_by!r}, it must be evidence or cv")


def accuracy(margin: numpy.ndarray, target: numpy.ndarray) -> float:
    """Share of pairs with a winner that the reward orders rightly; equal rewards count half."""
    return float(right(margin[target != 0.5]).mean()) if (target != 0.5).any() else float("nan")


def right(margin: numpy.ndarray) -> numpy.ndarray:
    """1 where chosen has the higher reward, 0.5 where both are equal, else 0."""
    return (numpy.sign(margin) + 1) / 2


def describe(dataset: Dataset, margin: numpy.ndarray, target: numpy.ndarray) -> dict[str, dict]:
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
    run_log = RunLog(args.run_dir, kind=KIND, seed=args.seed)
    dataset = load_preferences(args.run_dir / "dataset")
    cache = EmbeddingCache(args.cache or args.run_dir / "cache" / "embeddings.sqlite")
    embedder = Embedder(
        args.model,
        layer=args.layer,
        pooling=args.pooling,
        batch_size=args.batch_size,
        max_length=args.max_length,
        cache=cache,
    )

    # Every prompt and completion once, though it takes part in several pairs.
    texts: dict[tuple[str, str], tuple[list, str]] = {}
    sides: dict[str, list[tuple]] = {}
    for split, rows in dataset.items():
        for side in ("chosen", "rejected"):
            sides[split, side] = []
            for prompt, messages in zip(rows["prompt"], rows[side], strict=True):
                text = completion_text(messages)
                key = (repr(prompt), text)
                texts[key] = (prompt, text)
                sides[split, side].append(key)

    def on_progress(done: int, total: int) -> None:
        run_log.progress(done, total, "completions encoded")
        run_log.raise_if_stopped()

    run_log.status("encoding", total=len(texts), layer=embedder.layer)
    row_of = {key: row for row, key in enumerate(texts)}
    embeddings = embedder.encode(list(texts.values()), on_progress)

    run_log.status("fitting")
    train_texts = sorted({row_of[key] for side in ("chosen", "rejected") for key in sides["train", side]})
    features = FeatureMap.fit(embeddings[train_texts], args.dimensions)
    projected = features(embeddings)

    group_number: dict[str, int] = {}
    pairs: dict[str, Pairs] = {}
    for split, rows in dataset.items():
        chosen, rejected = ([row_of[key] for key in sides[split, side]] for side in ("chosen", "rejected"))
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

    ridge, tried = choose_ridge(train, args)
    for step, weights in enumerate(fit_weights(train, ridge, args.max_iterations), start=1):
        metrics = {}
        for split, prefix in (("train", ""), ("eval", "eval_")):
            if split in pairs:
                margin = pairs[split].difference @ weights
                metrics[f"{prefix}loss"] = bradley_terry_loss(margin, pairs[split].target, pairs[split].weight)
                metrics[f"{prefix}accuracy"] = accuracy(margin, pairs[split].target)
        run_log.metrics(metrics, step=step)

    head = RewardHead(
        features=features,
        weight=weights,
        covariance=numpy.linalg.inv(posterior_precision(train, weights, ridge)),
        base_model=args.model,
        config={
            "base_model_hash": embedder.model_hash,
            "layer": embedder.layer,
            "pooling": args.pooling,
            "max_length": args.max_length,
            "ridge": ridge,
            "n_pairs": len(train.target),
        },
    )
    head.save(args.run_dir / "model")

    figures = {}
    rewards = projected @ weights
    if "eval" in dataset:
        figures |= describe(dataset["eval"], pairs["eval"].difference @ weights, pairs["eval"].target)
    calibration = None
    held_out = held_out_margins(train, ridge, args)
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
        sides_of = {side: rewards[[row_of[key] for key in sides["eval", side]]] for side in ("chosen", "rejected")}
    elif not numpy.isnan(held_out).any():
        sides_of = {"chosen": held_out, "rejected": numpy.zeros(len(held_out))}  # no reward alone: each fold has its own zero
    if sides_of:
        rows = dataset["eval" if "eval" in pairs else "train"]
        report = reward_report(rows, **sides_of, is_cross_validated="eval" not in pairs, seed=args.seed)
        figures |= headlines(report)
        write_predictions(
            args.run_dir / "predictions.jsonl", rows, **sides_of, numbers=range(len(rows)), seed=args.seed
        )
    length_split = "eval" if "eval" in dataset else "train"
    measured = sorted({row_of[key] for side in ("chosen", "rejected") for key in sides[length_split, side]})
    lengths = [len(text) for _, text in texts.values()]
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
        base_model={"path": args.model, "hash": embedder.model_hash, "layer": embedder.layer},
        ridges={str(value): score for value, score in tried.items()},
        n_texts=len(texts),
        n_encoded=embedder.n_computed,
        calibration=calibration,
        report=report,
    )


if __name__ == "__main__":
    sys.exit(launch(KIND, main, (RewardHeadArguments,)))
