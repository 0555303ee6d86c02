"""Several axes of one reward model: a score head each on one body, and how they are weighed into the one reward.

A weighted sum of linear heads is a linear head, so the model itself is an ordinary reward model; its axes lie beside it in
`reward_axes.safetensors`, the names and weights in that file's own metadata.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from training.sampling.model_files import ModelFilesError

AXES_FILE = "reward_axes.safetensors"


@dataclass(frozen=True)
class Axes:
    """`names` and `shares` of the axes, whose sizes sum to 1, and their score heads, float32 of shape (axes, hidden)."""

    names: tuple[str, ...]
    shares: tuple[float, ...]
    weight: torch.Tensor

    def head(self, name: str) -> torch.Tensor:
        """One axis' score head, of shape (1, hidden). Raises ModelFilesError naming the axes there are."""
        if name not in self.names:
            raise ModelFilesError(f"The reward model has no axis {name!r}: choose from {', '.join(self.names)}.")
        return self.weight[self.names.index(name)][None]

    def save(self, folder: Path) -> None:
        """Write them beside the model they belong to."""
        told = {"axes": json.dumps([{"name": name, "share": share} for name, share in zip(self.names, self.shares, strict=True)])}
        save_file({"weight": self.weight.contiguous()}, folder / AXES_FILE, metadata=told)


def shares_of(names: Sequence[str], weights: Sequence[float] | None) -> tuple[float, ...]:
    """The weights of the axes, alike where none are given, so scaled that their sizes sum to 1. Raises ValueError."""
    weights = [1.0] * len(names) if weights is None else list(weights)
    if len(weights) != len(names):
        raise ValueError(f"There are {len(names)} axes and {len(weights)} axis_weights: give one weight for each")
    if len(set(names)) != len(names):
        raise ValueError(f"axes names {next(name for name in names if list(names).count(name) > 1)!r} twice")
    if not all(map(math.isfinite, weights)) or not any(weights):
        raise ValueError("axis_weights must be finite numbers, not all 0")
    total = sum(map(abs, weights))
    return tuple(weight / total for weight in weights)


def read_axes(folder: str | Path) -> Axes | None:
    """The axes that lie beside a reward model; None where it has one reward alone. Raises ModelFilesError."""
    path = Path(folder) / AXES_FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads((file.metadata() or {}).get("axes", ""))
            weight = file.get_tensor("weight").float()
        axes = Axes(tuple(str(axis["name"]) for axis in told), tuple(float(axis["share"]) for axis in told), weight)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelFilesError(f"{path} says no axes that can be read: {error}") from None
    if weight.ndim != 2 or len(weight) != len(axes.names):
        raise ModelFilesError(f"{path} names {len(axes.names)} axes and has heads of shape {tuple(weight.shape)}.")
    return axes
