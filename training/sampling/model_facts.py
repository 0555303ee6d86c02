"""How large a model is and how it is built, read from the headers of its files: nothing is loaded."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.sampling.foreign_model import read_json, read_shapes
from training.sampling.model_files import ModelFilesError

EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "embed_in", "lm_head", "embed_out")


@dataclass(frozen=True)
class ModelFacts:
    """Of a whole model. `n_active` are the weights that one token meets outside of the embeddings: all, or of a mixture
    of experts those of a few. `linear_sides` is the sum of inputs and outputs of its matrices: an adapter of rank r on all
    of them has r times as many weights."""

    n_parameters: int
    n_active: int
    linear_sides: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    heads: int
    key_value_heads: int
    positions: int | None
    file_bytes: int
    model_type: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_facts(folder: Path) -> ModelFacts:
    """Raises ModelFilesError where the folder holds no model that can be read."""
    if not (folder / "config.json").is_file():
        raise ModelFilesError(f"{folder} holds no config.json: it is not a complete model folder.")
    config = read_json(folder / "config.json")
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelFilesError(f"{folder} holds no *.safetensors file: its weights are missing or were half copied.")
    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        shapes |= read_shapes(path)
    body = {name: shape for name, shape in shapes.items() if not any(part in name for part in EMBEDDINGS)}
    experts, chosen = (_number(text, *names) for names in (("num_local_experts", "num_experts"), ("num_experts_per_tok",)))
    share = min(1.0, chosen / experts) if experts and chosen else 1.0
    hidden = _number(text, "hidden_size", "n_embd", "d_model") or 1
    heads = _number(text, "num_attention_heads", "n_head") or 1
    return ModelFacts(
        n_parameters=sum(map(math.prod, shapes.values())),
        n_active=round(sum(math.prod(shape) * (share if "expert" in name else 1.0) for name, shape in body.items())),
        linear_sides=sum(math.prod(shape[:-2]) * (shape[-1] + shape[-2]) for shape in body.values() if len(shape) > 1),
        layers=_number(text, "num_hidden_layers", "n_layer") or 1,
        hidden=hidden,
        intermediate=_number(text, "moe_intermediate_size", "intermediate_size", "n_inner") or 4 * hidden,
        vocabulary=_number(text, "vocab_size") or 1,
        heads=heads,
        key_value_heads=_number(text, "num_key_value_heads") or heads,
        positions=_number(text, "max_position_embeddings", "n_positions") or None,
        file_bytes=sum(path.stat().st_size for path in files),
        model_type=str(config.get("model_type", "")),
    )


def _number(config: dict[str, Any], *names: str) -> int:
    """The first of these that is a positive whole number, or 0."""
    return next((config[name] for name in names if isinstance(config.get(name), int) and config[name] > 0), 0)


def stamp_of(folder: Path) -> str:
    """Changes whenever a file of the folder does: names, sizes and times of all that lies in it. Empty: no folder."""
    try:
        found = sorted((path.name, path.stat()) for path in folder.iterdir() if path.is_file())
    except OSError:
        return ""
    return " ".join(f"{name}:{stat.st_size}:{stat.st_mtime_ns}" for name, stat in found)
