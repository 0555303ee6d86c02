"""A linear reward model on cached embeddings: fitted by `recipes.reward_head`, used wherever scores are needed."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
from safetensors.numpy import load_file, save_file

from training.sampling.backends import Message
from training.sampling.certainty import interval, probability
from training.sampling.embedding_cache import EmbeddingCache

if TYPE_CHECKING:
    from training.sampling.embeddings import Embedder

FORMAT = "prefloop-reward-head-1"
WEIGHTS_FILE, CONFIG_FILE = "reward_head.safetensors", "reward_head.json"


@dataclass(frozen=True)
class FeatureMap:
    """Embeddings to at most 64 features: centred, projected on principal components, half whitened.

    `mean` has shape (hidden,), `components` (hidden, features). Half whitening divides each component by
    the fourth root of its variance, so weak directions gain without noise taking over.
    """

    mean: numpy.ndarray
    components: numpy.ndarray

    @classmethod
    def fit(cls, embeddings: numpy.ndarray, dimensions: int = 64) -> "FeatureMap":
        """Learn the map from embeddings of shape (texts, hidden); needs no labels.

        Dimensions are standardised first: a few of a language model's are hundreds of times the rest.
        Features come out with a mean square norm of 1.
        """
        data = embeddings.astype(numpy.float64)
        mean = data.mean(axis=0)
        scale = data.std(axis=0)
        scale[scale < 1e-8] = numpy.inf  # a constant dimension says nothing
        data_scaled = (data - mean) / scale
        if len(data) > data.shape[1]:
            # The same directions and variances as below, at a tenth of the time for many texts.
            variances, directions = numpy.linalg.eigh(data_scaled.T @ data_scaled / len(data))
            variances, directions = variances[::-1].clip(min=0), directions.T[::-1]
        else:
            _, singular, directions = numpy.linalg.svd(data_scaled, full_matrices=False)
            variances = singular**2 / len(data)
        kept = min(dimensions, int((variances > variances[0] * 1e-8).sum()))
        components = (directions[:kept] / scale).T / variances[:kept] ** 0.25
        features = (data - mean) @ components
        return cls(mean, components / max(numpy.sqrt((features**2).sum(axis=1).mean()), 1e-12))

    def __call__(self, embeddings: numpy.ndarray) -> numpy.ndarray:
        return (embeddings.astype(numpy.float64) - self.mean) @ self.components


@dataclass
class RewardHead:
    """Rewards in logits: a difference of 1 means the better completion is preferred 73 % of the time.

    `weight` has shape (features,); `covariance` (features, features) is its Laplace posterior, widened for pairs that
    depend on one another, which tells how sure a comparison is. `config` names the base model, its hash, layer, pooling and lengths.
    """

    features: FeatureMap
    weight: numpy.ndarray
    covariance: numpy.ndarray
    config: dict[str, Any]
    base_model: str = ""
    _embedder: "Embedder | None" = field(default=None, repr=False)

    def save(self, folder: Path) -> None:
        """Write weights as safetensors and the configuration as JSON; the base model is only named."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            "mean": self.features.mean,
            "components": self.features.components,
            "weight": self.weight,
            "covariance": self.covariance,
        }
        save_file({name: numpy.ascontiguousarray(array) for name, array in tensors.items()}, folder / WEIGHTS_FILE)
        text = json.dumps({"format": FORMAT, "base_model": self.base_model, **self.config}, indent=2)
        (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, *, base_model: str | None = None) -> "RewardHead":
        """Read what `save` wrote. `base_model` says where the base model is now, if it has moved."""
        folder = Path(folder)
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        if config.pop("format") != FORMAT:
            raise ValueError(f"{folder / CONFIG_FILE} is not of the format {FORMAT}")
        named = config.pop("base_model")
        tensors = load_file(folder / WEIGHTS_FILE)
        features = FeatureMap(tensors["mean"], tensors["components"])
        return cls(features, tensors["weight"], tensors["covariance"], config, base_model or named)

    def score(
        self,
        prompts: Sequence[Sequence[Message]],
        completions: Sequence[str],
        *,
        cache: Path | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[float]:
        """The reward of each completion of its prompt; 0 is the average of the training completions.

        `cache` is the SQLite file of embeddings to share with other calls and with the fit. Raises
        ValueError if the base model is not the one this head was fitted on.
        """
        embeddings = self.embed(prompts, completions, cache=cache, on_progress=on_progress)
        return self.score_embeddings(embeddings).tolist()

    def embed(
        self,
        prompts: Sequence[Sequence[Message]],
        completions: Sequence[str],
        *,
        cache: Path | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> numpy.ndarray:
        """Embeddings as this head needs them, of shape (completions, hidden)."""
        return self.embedder(cache).encode(list(zip(prompts, completions, strict=True)), on_progress)

    def embedder(self, cache: Path | None = None) -> "Embedder":
        """What turns texts into this head's vectors, made at the first call.

        Raises ValueError if the base model is not the one this head was fitted on.
        """
        if self._embedder is None:
            from training.sampling.embeddings import Embedder  # torch: not where all vectors are there already

            embedder = Embedder(
                self.base_model,
                layer=self.config["layer"],
                pooling=self.config["pooling"],
                max_length=self.config["max_length"],
                cache=EmbeddingCache(cache) if cache else None,
            )
            if embedder.model_hash != self.config["base_model_hash"]:
                raise ValueError(
                    f"{self.base_model} is not the model this reward head was fitted on: the hashes differ. "
                    "Fit it again, or give load() the right base_model."
                )
            self._embedder = embedder
        return self._embedder

    def score_embeddings(self, embeddings: numpy.ndarray) -> numpy.ndarray:
        """Rewards of shape (texts,) for embeddings of shape (texts, hidden)."""
        return self.features(embeddings) @ self.weight

    def compare_embeddings(self, first: numpy.ndarray, second: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Reward differences (first minus second) and their posterior standard deviations, each (pairs,)."""
        difference = self.features(first) - self.features(second)
        variance = numpy.einsum("if,fg,ig->i", difference, self.covariance, difference)
        return difference @ self.weight, numpy.sqrt(variance)

    def certainty(
        self, first: numpy.ndarray, second: numpy.ndarray
    ) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
        """Of pairs of embeddings: the probability that the first is preferred, and its 95 % interval's low and high ends."""
        margin, deviation = self.compare_embeddings(first, second)
        return probability(margin, deviation), *interval(margin, deviation)

    def deviations(self, embeddings: numpy.ndarray) -> numpy.ndarray:
        """A row a text, (texts, features): its norm is the posterior standard deviation of the text's reward."""
        values, vectors = numpy.linalg.eigh(self.covariance)
        return self.features(embeddings) @ (vectors * numpy.sqrt(values.clip(min=0)))
