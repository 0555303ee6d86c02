"""Vectors of the completions of pairs: from what was encoded before, and of the others from the model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy

from training.recipes._rows import Table, completion_text
from training.sampling.embedding_cache import EmbeddingCache, Text
from training.sampling.feature_store import Encoding, FeatureStore, text_key
from training.sampling.model_files import check_model


@dataclass(frozen=True)
class Texts:
    """Every prompt and completion once, though it takes part in several pairs; `sides` are row numbers by split and side."""

    by_key: dict[bytes, Text]
    sides: dict[tuple[str, str], list[int]]

    def rows_of(self, split: str) -> list[int]:
        """Of all completions of one split, each once."""
        return sorted({row for side in ("chosen", "rejected") for row in self.sides[split, side]})


def texts_of(dataset: Mapping[str, Table]) -> Texts:
    """The texts of all splits."""
    by_key: dict[bytes, Text] = {}
    number: dict[bytes, int] = {}
    sides: dict[tuple[str, str], list[int]] = {}
    for split, rows in dataset.items():
        for side in ("chosen", "rejected"):
            sides[split, side] = []
            for prompt, messages in zip(rows["prompt"], rows[side], strict=True):
                text = completion_text(messages)
                key = text_key(prompt, text)
                by_key.setdefault(key, (prompt, text))
                sides[split, side].append(number.setdefault(key, len(number)))
    return Texts(by_key, sides)


@dataclass(frozen=True)
class Encoded:
    """Vectors of shape (texts, hidden), what they are of, and where they came from."""

    vectors: numpy.ndarray
    encoding: Encoding
    n_stored: int
    n_computed: int


def encode(
    texts: Texts, *, model: str, layer: int | None, pooling: str | None, max_length: int | None, batch_size: int,
    cache: Path, features: Path | None = None, on_start: Callable[[int, int], None], on_progress: Callable[[int, int], None],
) -> Encoded:
    """The vectors of `texts`. Torch is imported for those alone that are not in the store `features`.

    What of layer, pooling and max_length is None is as the store has it; without one, two thirds up, mean and 1024.
    `on_start` gets how many are to be computed, and the layer. Raises FeaturesError where the store is of something else.
    """
    vectors_cached = EmbeddingCache(cache)
    found: dict[bytes, numpy.ndarray] = {}
    if features is not None:
        store = FeatureStore(features)
        there = store.encoding
        layer = there.layer if layer is None else layer
        pooling, max_length = pooling or there.pooling, max_length or there.max_length
        wanted = Encoding(vectors_cached.hash_of(check_model(model)), layer, pooling, max_length)
        store.check(wanted)
        found = store.get(texts.by_key)
        if len(found) == len(texts.by_key):
            on_start(0, layer)
            return Encoded(numpy.stack([found[key] for key in texts.by_key]), wanted, len(found), 0)

    from training.sampling.embeddings import Embedder

    embedder = Embedder(
        model, layer=layer, pooling=pooling or "mean", batch_size=batch_size, max_length=max_length or 1024, cache=vectors_cached
    )
    missing = {key: text for key, text in texts.by_key.items() if key not in found}
    on_start(len(missing), embedder.layer)
    computed = embedder.encode(list(missing.values()), on_progress)
    vectors = found | dict(zip(missing, computed, strict=True))
    encoding = Encoding(embedder.model_hash, embedder.layer, embedder.pooling, embedder.max_length)
    return Encoded(numpy.stack([vectors[key] for key in texts.by_key]), encoding, len(found), embedder.n_computed)
