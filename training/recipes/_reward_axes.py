"""Several axes of one reward model: each pair trains the head of the axis that it compares by, all on one adapter or body.

Wang et al. 2024 (arXiv:2406.12845) regress ratings of many axes from one body; here each axis is learnt from pairs, as people
use a scale alike for two completions side by side, and not across prompts.
"""

from collections.abc import Sequence
from typing import Any

import numpy
import torch
from datasets import Dataset

from training.recipes._statistics import clustered_correlation, proportion

PREFERENCE = "preference"  # the axis of pairs that don't say which: which one people prefer altogether


def of_own_axis(rewards: torch.Tensor, axis: torch.Tensor) -> torch.Tensor:
    """Of rewards (2 pairs, axes), chosen before rejected, those of each pair's own axis, of shape (2 pairs, 1)."""
    return rewards.gather(1, axis.long().repeat(2)[:, None])


def check_axes(dataset: Dataset, names: Sequence[str]) -> None:
    """Raises ValueError for an axis of which there is no pair to train on."""
    there = {name or PREFERENCE for name in dataset["axis"]}
    if missing := [name for name in names if name not in there]:
        raise ValueError(f"No pair to train on compares by {missing[0]!r}: the axes of the data are {', '.join(sorted(there))}")


def place_axes(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """The pairs of these axes, with `axis` as a place in `names`; without names all pairs, in one place."""
    said = [name or PREFERENCE for name in dataset["axis"]]
    dataset = dataset.remove_columns("axis")
    if not names:
        return dataset.add_column("axis", [0.0] * len(dataset))
    kept = [number for number, name in enumerate(said) if name in names]
    return dataset.select(kept).add_column("axis", [float(names.index(said[number])) for number in kept])


def describe_axes(
    names: Sequence[str], shares: Sequence[float], rows: Dataset, chosen: Sequence[float], rejected: Sequence[float],
    difference: numpy.ndarray,
) -> dict[str, Any]:
    """What held-out pairs say of the axes.

    `chosen` and `rejected` are rewards on each pair's own axis, whose name is its `axis`; `difference` (pairs, axes) is the
    reward of chosen less rejected on every axis. Returns `rows`, an accuracy for each axis, and `correlations` of each two
    axes' differences over all pairs of completions, each once: axes near 1 say the same.
    """
    right = [(one > other) + (one == other) / 2 for one, other in zip(chosen, rejected, strict=True)]
    found = []
    for name, share in zip(names, shares, strict=True):
        here = [number for number, row in enumerate(rows["axis"]) if (row or PREFERENCE) == name and not rows["tie"][number]]
        groups = [rows["group_id"][number] for number in here]
        found.append({"name": name, "share": share, "accuracy": proportion([right[number] for number in here], groups)})
    once: dict[Any, int] = {}
    for number, (prompt, *sides) in enumerate(zip(rows["prompt"], rows["chosen"], rows["rejected"], strict=True)):
        once.setdefault((repr(prompt), frozenset(map(repr, sides))), number)
    kept = list(once.values())
    groups = [rows["group_id"][number] for number in kept]
    correlations = [
        {
            "first": names[first], "second": names[second],
            "correlation": clustered_correlation(
                difference[kept, first].tolist(), difference[kept, second].tolist(), groups, through_origin=True
            ),
        }
        for first in range(len(names)) for second in range(first + 1, len(names))
    ]  # fmt: skip
    return {"rows": found, "correlations": correlations}
