"""Several score heads on one reward model: an ensemble for the price of one pass and one base, or an axis each.

Each head of an ensemble begins with weights of its own and learns from a bootstrap of its own over prompt groups; the adapter, or the body,
is shared. Coste et al. 2023 (arXiv:2310.02743) find that ensembles hold off over-optimisation; theirs are whole models, which
differ more than heads on one body do. The mean of linear heads is a linear head, so the model that is saved is an ordinary
reward model, with the heads in a file beside it.
"""

import hashlib
from collections.abc import Hashable, Sequence
from typing import Any

import numpy
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, set_seed
from trl import RewardTrainer

from training.recipes._statistics import correlation, proportion
from training.sampling.reward_models import Ensemble

# P(X <= k) of a Poisson variable of mean 1, for k = 0, 1, ...
POISSON = numpy.cumsum([numpy.exp(-1) / divisor for divisor in (1, 1, 2, 6, 24, 120, 720)])
MOST_OFFSET_PAIRS = 256  # the mean reward of a head is taken over so many training pairs at most


def bootstrap_weights(groups: Sequence[Hashable], n_heads: int, seed: int) -> list[list[float]]:
    """How often each head's bootstrap holds each pair, shape (pairs, heads); pairs of one group go together.

    Poisson of mean 1 instead of multinomial, so that it is drawn group by group; from hashes, so that a resumed run
    draws the same.
    """

    def draw(group: Hashable, head: int) -> float:
        digest = hashlib.sha256(f"{seed} {head} {group}".encode()).digest()
        return float(numpy.searchsorted(POISSON, int.from_bytes(digest[:8]) / 2**64, side="right"))

    drawn = {group: [draw(group, head) for head in range(n_heads)] for group in dict.fromkeys(groups)}
    return [drawn[group] for group in groups]


def load_with_heads(model: str, n_heads: int, seed: int) -> torch.nn.Module:
    """The base with `n_heads` score heads, in float32 as TRL loads it. `num_labels` stays 1, which TRL asks for."""
    set_seed(seed)
    loaded = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1, dtype=torch.float32)
    heads = torch.nn.Linear(loaded.score.in_features, n_heads, bias=False)
    torch.nn.init.normal_(heads.weight, std=getattr(loaded.config.get_text_config(), "initializer_range", 0.02))
    loaded.score = heads
    return loaded


def refuse_sharding(trainer: RewardTrainer) -> None:
    """Raises ValueError where a process holds a part of the score head only: the heads could not be put together."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise ValueError("n_heads above 1, and axes, need the whole score head in each process: train without FSDP and DeepSpeed")


@torch.no_grad()
def rewards_of_heads(trainer: RewardTrainer, dataset: Dataset) -> numpy.ndarray:
    """Rewards of a prepared set, in its order: shape (2, pairs, heads), chosen first. To be called after training."""
    trainer.model.eval()
    sides: list[list[Any]] = [[], []]
    for batch in trainer.get_eval_dataloader(dataset):
        batch = trainer._prepare_inputs(batch)
        with trainer.compute_loss_context_manager():
            rewards = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        for side, values in zip(sides, rewards.float().chunk(2), strict=True):
            side.append(trainer.accelerator.gather_for_metrics(values).cpu().numpy())
    return numpy.stack([numpy.concatenate(side) for side in sides])


def describe_ensemble(difference: numpy.ndarray, groups: Sequence[Hashable]) -> dict[str, Any]:
    """Whether the heads' disagreement tells where the model is wrong; of pairs with a winner.

    `difference` is the heads' reward of chosen minus rejected, (pairs, heads). Gives the accuracy of their mean where all
    heads order the pair alike and where they don't, and the correlation of their standard deviation with being wrong.
    """
    mean = difference.mean(axis=1)
    right = (numpy.sign(mean) + 1) / 2
    alike = (difference > 0).all(axis=1) | (difference < 0).all(axis=1)
    spread = difference.std(axis=1, ddof=1)
    group = numpy.asarray(groups, dtype=object)
    return {
        "ensemble/accuracy_where_alike": proportion(right[alike].tolist(), group[alike].tolist()),
        "ensemble/accuracy_where_not": proportion(right[~alike].tolist(), group[~alike].tolist()),
        "ensemble/spread_error_correlation": correlation(spread.tolist(), (1 - right).tolist()),
    }


def collapse_ensemble(trainer: RewardTrainer) -> Ensemble:
    """Put the mean of the heads in their place, so that what is saved has one score head; returns the heads."""
    pairs = trainer.train_dataset.select(range(min(len(trainer.train_dataset), MOST_OFFSET_PAIRS)))
    offset = rewards_of_heads(trainer, pairs).mean(axis=(0, 1))
    n_heads = len(_score(trainer).weight)
    heads = collapse_heads(trainer, torch.full((1, n_heads), 1 / n_heads))
    return Ensemble(heads, torch.as_tensor(offset, dtype=torch.float32))


def collapse_heads(trainer: RewardTrainer, shares: torch.Tensor) -> torch.Tensor:
    """Put the heads weighed by `shares` (1, heads) in their place; returns them, float32 of shape (heads, hidden)."""
    score = _score(trainer)
    heads = score.weight.detach().float().cpu().clone()
    with torch.no_grad():
        score.weight = torch.nn.Parameter((shares @ heads).to(score.weight))
    score.out_features = 1
    return heads


def _score(trainer: RewardTrainer) -> torch.nn.Linear:
    score = trainer.accelerator.unwrap_model(trainer.model).score
    if hasattr(score, "modules_to_save"):  # PEFT's copy that was trained
        score = score.modules_to_save["default"]
    return score
