"""How likely the label of a pair is wrong, for the losses that can be told: conservative and robust DPO.

With `smoothing` e of a pair, conservative DPO (Mitchell 2023, "A note on DPO with noisy preferences") has the loss
(1 - e) of the label plus e of its opposite, and robust DPO (Chowdhury et al. 2024, arXiv:2403.00409, equation 12)
(1 - e) of the label minus e of its opposite, divided by 1 - 2e.
"""

from typing import Any

import torch
from datasets import Dataset
from trl import DPOConfig

from training.recipes._data import DatasetError

SOURCES = ("none", "agreement", "soft_label")
SMOOTHED = {"sigmoid", "robust"}
BY_ONE_SHARE = SMOOTHED | {"exo_pair", "aot", "aot_unpaired"}  # TRL's, which take label_smoothing alone
PRIOR_VOTES = 2.0  # how many votes the share of dissent over all pairs counts for
MOST = 0.49  # a pair that is one as well as the other; robust DPO would divide by 0


def check_smoothing(source: str, config: DPOConfig) -> None:
    """Raises ValueError for what isn't known, and where smoothing would change nothing."""
    if source not in SOURCES:
        raise ValueError(f"smoothing_from is {source!r}, it must be one of {', '.join(SOURCES)}")
    if source == "none" and not config.label_smoothing:
        return
    said = f"smoothing_from is {source}" if source != "none" else f"label_smoothing is {config.label_smoothing:g}"
    if not (SMOOTHED if source != "none" else BY_ONE_SHARE) & set(config.loss_type):
        raise ValueError(f"{said}, but the losses are {', '.join(config.loss_type)}: none of them smooths labels; take sigmoid or robust")
    if not 0 <= config.label_smoothing <= MOST:
        raise ValueError(f"label_smoothing is {config.label_smoothing:g}, it must lie between 0 and {MOST}")
    if config.f_divergence_type != "reverse_kl" or config.ld_alpha is not None:
        raise ValueError(f"{said}, which is for f_divergence_type reverse_kl without ld_alpha")


def smoothing_of(pairs: Dataset, source: str) -> list[float]:
    """Of each pair with a winner the probability that its label is wrong, 0 to MOST.

    `agreement`: the share of those who judged the two completions and didn't prefer the winner, ties counting half, drawn
    to the share over all pairs that two or more people judged, as if PRIOR_VOTES had voted like all. What a reviewer settled
    is sure. `soft_label`: one minus the pair's own. Raises DatasetError where there is no agreement to go by, and where votes on the
    same two completions are pairs of their own, which say it already.
    """
    if source == "none":
        return [0.0] * len(pairs)
    if source == "soft_label":
        return [min(MOST, 1 - share) for share in pairs["soft_label"]]
    comparisons = [comparison for comparison in pairs["comparison"] if comparison is not None]
    if len(set(comparisons)) < len(comparisons):
        raise DatasetError(
            "Votes on the same two completions are pairs of their own here, so how far people agree is in the data already: leave "
            "smoothing_from out, or freeze a snapshot with one pair for all votes (policy votes: majority)"
        )
    counts = [_counts(people) for people in pairs["people"]]
    several = [(against, n) for against, n in counts if n >= 2]
    if not several:
        raise DatasetError(
            "No pair of the training set was judged by two people (programs and models don't count), so there is no agreement to "
            "go by: leave smoothing_from out, or say with label_smoothing which share of labels is wrong"
        )
    overall = sum(against for against, _ in several) / sum(n for _, n in several)
    return [
        0.0 if is_settled else min(MOST, (against + PRIOR_VOTES * overall) / (n + PRIOR_VOTES))
        for (against, n), is_settled in zip(counts, pairs["is_settled"], strict=True)
    ]


def either_wrong(one: torch.Tensor, other: float) -> torch.Tensor:
    """The probability that a label is wrong which one cause turns over, or the other, and not both."""
    return (one + other - 2 * one * other).clamp(max=MOST)


def _counts(people: dict[str, Any] | None) -> tuple[float, float]:
    """How many were against the winner, and how many judged."""
    if not people or people.get("chosen") is None:
        return 0.0, 0.0
    chosen, rejected, tie = (people[side] or 0 for side in ("chosen", "rejected", "tie"))
    return rejected + tie / 2, chosen + rejected + tie
