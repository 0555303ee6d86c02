"""Measure which hidden layer of a base model, and which pooling of it, predicts people's preferences best.

One forward pass takes all layers of every completion. On each, a Bradley-Terry head is cross-validated by prompt group over the
snapshot's training pairs, so that what is held out for evaluation stays untouched. The pick is by the rule of one standard
error (Breiman et al. 1984): of all that are no worse than the best by more than the standard error of that difference, on the
same pairs, the lowest layer, which is the cheapest to compute; of one layer the mean before the last token. The best of many is
flattered by having been chosen: a reward head's own held-out figures are the ones to believe.

Run: python -m training.recipes.layers --config runs/42/spec.yaml --run_dir runs/42
"""

import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
import numpy

from training.recipes._arguments import parse_plain
from training.recipes._bradley_terry import Pairs, bradley_terry_loss, choose_ridge, held_out_margins, right
from training.recipes._encoding import Texts, texts_of
from training.recipes._eventlog import EventLog, launch
from training.recipes._rows import Table, read_manifest, read_preferences
from training.recipes._statistics import Z_95, Figure, mean, proportion
from training.sampling.embedding_cache import POOLINGS, EmbeddingCache
from training.sampling.feature_store import Encoding, FeatureStore
from training.sampling.model_files import check_model
from training.sampling.reward_head import FeatureMap

KIND = "layers"
ALL_LAYERS = 0  # what the store of this run calls the layer of vectors that hold all of them


@dataclass
class LayersArguments:
    """Arguments of the measurement."""

    run_dir: Path = field(metadata={"help": "run folder: dataset/ in, result.json out"})
    model: str = field(metadata={"help": "the frozen base model: a folder, or a name on the hub"})
    max_pairs: int = field(default=2000, metadata={"help": "measure on so many pairs at most, whole prompt groups at random"})
    dimensions: int = field(default=64, metadata={"help": "principal components kept, at most"})
    ridges: list[float] = field(
        default_factory=lambda: [0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0], metadata={"help": "penalties to choose from"}
    )
    ridge_by: str = field(default="cv", metadata={"help": "evidence or cv, as of a reward head"})
    folds: int = field(default=5, metadata={"help": "of the cross-validation, by group"})
    max_iterations: int = field(default=60, metadata={"help": "steps of the solver, at most"})
    max_length: int = field(default=1024, metadata={"help": "tokens of prompt and completion"})
    batch_size: int = field(default=16, metadata={"help": "texts encoded at once"})
    cache: Path | None = field(default=None, metadata={"help": "SQLite file that remembers the model's hash; default in the run folder"})
    seed: int = field(default=0, metadata={"help": "of the groups drawn, and of their folds"})


def draw_groups(rows: Table, most: int, seed: int) -> Table:
    """Pairs with a positive weight, of whole groups drawn at random until `most` are reached; in order of the file."""
    members: dict[str, list[int]] = {}
    for index, (group, weight) in enumerate(zip(rows["group_id"], rows["weight"], strict=True)):
        if weight > 0:
            members.setdefault(group, []).append(index)
    groups = sorted(members)
    random.Random(seed).shuffle(groups)
    kept: list[int] = []
    for group in groups:
        if kept and len(kept) + len(members[group]) > most:
            continue
        kept += members[group]
    return rows.select(sorted(kept))


def pick(measured: list[dict[str, Any]], rights: list[numpy.ndarray], groups: list[Any]) -> tuple[int, int, Figure]:
    """Numbers of the one picked and of the best, and the difference of their accuracy, best less picked.

    `rights` has an array a candidate, over the same pairs.
    """
    best = max(range(len(measured)), key=lambda number: rights[number].mean())
    order = sorted(
        range(len(measured)), key=lambda number: (measured[number]["layer"], POOLINGS.index(measured[number]["pooling"]))
    )
    for number in order:
        lost = mean((rights[best] - rights[number]).tolist(), groups)
        error = (lost["high"] - lost["value"]) / Z_95 if lost["high"] is not None else 0.0
        if lost["value"] <= error:
            return number, best, lost
    return best, best, mean([0.0] * len(groups), groups)


def encode_all(texts: Texts, args: LayersArguments, run_log: EventLog) -> numpy.ndarray:
    """Vectors of shape (texts, layers, poolings, hidden); those of a run that was stopped are kept in its folder."""
    model_hash = EmbeddingCache(args.cache or args.run_dir / "cache" / "embeddings.sqlite").hash_of(check_model(args.model))
    store = FeatureStore.create(args.run_dir / "cache" / "layers", Encoding(model_hash, ALL_LAYERS, "mean", args.max_length))
    with store.writing(wait_seconds=30):
        found = store.get(texts.by_key)
        missing = sorted(set(texts.by_key) - set(found), key=lambda key: (-len(texts.by_key[key][1]), key))
        run_log.status("encoding", total=len(missing))
        from training.sampling.all_layers import AllLayers

        layers = AllLayers(args.model, max_length=args.max_length, batch_size=args.batch_size, model_hash=model_hash)
        for start in range(0, len(missing), args.batch_size):
            run_log.raise_if_stopped()
            part = missing[start : start + args.batch_size]
            computed = dict(zip(part, layers.encode([texts.by_key[key] for key in part]), strict=True))
            store.add(computed)
            found |= computed
            run_log.progress(start + len(part), len(missing), "completions encoded")
    vectors = numpy.stack([found[key] for key in texts.by_key])
    return vectors.reshape(len(vectors), layers.n_layers, len(POOLINGS), -1)


def main(args: LayersArguments) -> None:
    """Measure every layer and pooling in `args.run_dir`."""
    run_log = EventLog(args.run_dir, kind=KIND, seed=args.seed)
    rows = draw_groups(read_preferences(args.run_dir / "dataset")["train"], args.max_pairs, args.seed)
    groups = rows["group_id"]
    if len(set(groups)) < args.folds:
        raise ValueError(
            f"The snapshot's training pairs are of {len(set(groups))} prompt groups, and cross-validation in {args.folds} parts "
            f"needs {args.folds}: judge more prompts, or lower folds"
        )
    texts = texts_of({"train": rows})
    vectors = encode_all(texts, args, run_log)

    number = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    target = numpy.where(rows["tie"], 0.5, 1.0)
    decided = target != 0.5
    if not decided.any():
        raise ValueError("Every training pair of the snapshot is a tie: no layer can predict a winner")
    weight = numpy.array(rows["weight"], dtype=float)
    decided_groups = [group for group, is_decided in zip(groups, decided, strict=True) if is_decided]
    chosen, rejected = texts.sides["train", "chosen"], texts.sides["train", "rejected"]
    folds = {"folds": args.folds, "seed": args.seed, "max_iterations": args.max_iterations}
    measured: list[dict[str, Any]] = []
    rights: list[numpy.ndarray] = []
    run_log.status("measuring")
    for layer in range(vectors.shape[1]):
        for place, pooling in enumerate(POOLINGS):
            run_log.raise_if_stopped()
            embeddings = vectors[:, layer, place]
            features = FeatureMap.fit(embeddings, args.dimensions)(embeddings)
            pairs = Pairs(
                features[chosen] - features[rejected], target, weight / weight.mean(), numpy.array([number[group] for group in groups])
            )
            ridge, _tried = choose_ridge(pairs, args.ridges, args.ridge_by, **folds)
            margins, _spreads = held_out_margins(pairs, ridge, **folds)
            rights.append(right(margins[decided]))
            measured.append(
                {
                    "layer": layer + 1,
                    "pooling": pooling,
                    "accuracy": proportion(rights[-1].tolist(), decided_groups),
                    "log_loss": bradley_terry_loss(margins, target, weight),
                    "ridge": ridge,
                }
            )
        run_log.progress(layer + 1, vectors.shape[1], "layers measured")
    picked, best, lost = pick(measured, rights, decided_groups)
    run_log.finish(
        metrics={"picked_layer": measured[picked]["layer"], "best_layer": measured[best]["layer"]},
        figures={
            "accuracy_picked": measured[picked]["accuracy"], "accuracy_best": measured[best]["accuracy"], "best_less_picked": lost,
        },
        layers=measured,
        picked={name: measured[picked][name] for name in ("layer", "pooling")},
        best={name: measured[best][name] for name in ("layer", "pooling")},
        n_layers=int(vectors.shape[1]),
        max_length=args.max_length,
        dataset={
            "n_train": len(rows),
            "n_train_ties": int((~decided).sum()),
            "manifest": read_manifest(args.run_dir / "dataset"),
        },
        base_model={"path": args.model},
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(launch(KIND, main, (LayersArguments,), parse=parse_plain))
