"""Encode completions once, as they arrive: the hidden states that a reward head learns from, kept in a store of features.

What is in the store already is left out; without anything new no model is loaded. Each shard is written whole or not at all,
so a run that was killed goes on where it was, with nothing encoded twice but what was not yet written.

Reads `dataset/completions.jsonl`: rows `{"completion_id", "prompt": [messages], "completion": text}`.

Run: python -m training.recipes.encode --config runs/42/spec.yaml --run_dir runs/42
"""

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
from training.recipes._arguments import parse_plain
from training.recipes._eventlog import EventLog, launch
from training.recipes._rows import load_completions, read_manifest
from training.sampling.embedding_cache import EmbeddingCache
from training.sampling.feature_store import Encoding, FeatureStore, text_key
from training.sampling.model_files import check_model

KIND = "encode"
WAIT_SECONDS = 30  # for a writer whose end was not yet noticed


@dataclass
class EncodeArguments:
    """Arguments of the encoding of completions."""

    run_dir: Path = field(metadata={"help": "run folder: dataset/ in, result.json out"})
    model: str = field(metadata={"help": "the frozen base model: a folder, or a name on the hub"})
    features: Path = field(metadata={"help": "store of features that the vectors go into; made where it isn't there"})
    layer: int = field(metadata={"help": "hidden layer from 1"})
    pooling: str = field(default="mean", metadata={"help": "mean or last, over the completion's tokens"})
    max_length: int = field(default=1024, metadata={"help": "tokens of prompt and completion"})
    batch_size: int = field(default=16, metadata={"help": "texts encoded at once"})
    shard_size: int = field(default=256, metadata={"help": "texts written at once; what a kill loses, at most"})
    cache: Path | None = field(default=None, metadata={"help": "SQLite file that remembers the model's hash; default in the run folder"})
    seed: int = field(default=0, metadata={"help": "unused: nothing here is random"})


def main(args: EncodeArguments) -> None:
    """Encode what of `args.run_dir` is not in the store."""
    run_log = EventLog(args.run_dir, kind=KIND, seed=args.seed)
    rows = load_completions(args.run_dir / "dataset")
    model_hash = EmbeddingCache(args.cache or args.run_dir / "cache" / "embeddings.sqlite").hash_of(check_model(args.model))
    store = FeatureStore.create(args.features, Encoding(model_hash, args.layer, args.pooling, args.max_length))
    # A recipe whose worker was killed may hold the lock for a moment longer.
    with store.writing(wait_seconds=WAIT_SECONDS):
        texts = {text_key(row["prompt"], row["completion"]): (row["prompt"], row["completion"]) for row in rows}
        there = store.keys() & set(texts)
        # Long ones first: texts of one length go together, and the time that is left is not underestimated.
        missing = sorted(set(texts) - there, key=lambda key: (-len(texts[key][1]), key))
        run_log.status("encoding", total=len(missing), layer=args.layer)
        began, n_tokens = time.monotonic(), 0
        if missing:
            from training.sampling.embeddings import Embedder

            embedder = Embedder(
                args.model, layer=args.layer, pooling=args.pooling, batch_size=args.batch_size,
                max_length=args.max_length, model_hash=model_hash,
            )  # fmt: skip
            run_log.progress(0, len(missing), "completions encoded")
            for start in range(0, len(missing), args.shard_size):
                run_log.raise_if_stopped()
                part = missing[start : start + args.shard_size]
                store.add(dict(zip(part, embedder.encode([texts[key] for key in part]), strict=True)))
                run_log.progress(start + len(part), len(missing), "completions encoded")
            n_tokens = embedder.n_tokens
        seconds = time.monotonic() - began
        store.join_small()
        n_bytes = store.n_bytes()
    run_log.finish(
        metrics={
            "n_encoded": len(missing),
            "n_there": len(there),
            "n_tokens": n_tokens,
            "seconds_encoding": round(seconds, 3),
            "tokens_per_second": round(n_tokens / seconds, 1) if n_tokens else None,
            "store_bytes": n_bytes,
        },
        dataset={"n_completions": len(rows), "manifest": read_manifest(args.run_dir / "dataset")},
        base_model={"path": args.model, "hash": model_hash, "layer": args.layer},
    )


if __name__ == "__main__":
    sys.exit(launch(KIND, main, (EncodeArguments,), parse=parse_plain))
