"""The arithmetic of PPO on completions: tensors in, tensors out, no trainer and no model.

B completions of at most T tokens. Every (B, T) tensor is aligned with the completion's tokens: place t holds what
belongs to the choice of token t, so `values[:, t]` is the value of the text before it. `mask` (B, T) is 1 on the
tokens that count and 0 elsewhere; what a tensor holds where the mask is 0 never matters.

Papers: Schulman et al. 2017, arXiv:1707.06347 (PPO); Schulman et al. 2016, arXiv:1506.02438 (GAE); Ziegler et al.
2019, arXiv:1909.08593 and Ouyang et al. 2022, arXiv:2203.02155 (PPO on language models).
"""

from collections.abc import Callable

import torch
from torch import Tensor

Total = Callable[[Tensor], Tensor]


def _as_it_is(sums: Tensor) -> Tensor:
    return sums


def masked_mean(values: Tensor, mask: Tensor, total: Total = _as_it_is) -> Tensor:
    """Mean of `values` where `mask` is 1, shape (); 0 where nothing counts.

    `total` adds a tensor of sums up over all processes; by default there is one.
    """
    mask = mask.to(values.dtype)
    sums = total(torch.stack([(values.masked_fill(mask == 0, 0)).sum(), mask.sum()]))
    return sums[0] / sums[1].clamp(min=1)


def masked_variance(values: Tensor, mask: Tensor, total: Total = _as_it_is) -> Tensor:
    """Variance of `values` where `mask` is 1, divided by n - 1, shape (); 0 below two values."""
    mask = mask.to(values.dtype)
    squares = ((values - masked_mean(values, mask, total)) ** 2).masked_fill(mask == 0, 0).sum()
    sums = total(torch.stack([squares, mask.sum()]))
    return sums[0] / (sums[1] - 1).clamp(min=1)


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True, total: Total = _as_it_is) -> Tensor:
    """`values` with variance 1 and, if `shift_mean`, mean 0 over the mask; 0 outside of it. Shape (B, T).

    Without the shift the mean stays what it was, as for rewards, whose sign means something.
    """
    mean, variance = masked_mean(values, mask, total), masked_variance(values, mask, total)
    whitened = (values - mean) * torch.rsqrt(variance + 1e-8)
    return (whitened if shift_mean else whitened + mean).masked_fill(mask == 0, 0)


def last_places(mask: Tensor) -> Tensor:
    """Index of the last token that counts of each completion, shape (B,); 0 for one without any."""
    places = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask > 0, places, 0).amax(dim=1)


def kl_per_token(log_probs: Tensor, ref_log_probs: Tensor, mask: Tensor) -> Tensor:
    """The k1 estimate of KL(policy || reference) in nats at each token, shape (B, T), 0 outside the mask.

    log pi - log pi_ref of the sampled token: unbiased, and negative where the reference likes it better.
    """
    return (log_probs - ref_log_probs).masked_fill(mask == 0, 0)


def kl_shaped_rewards(
    scores: Tensor, kl: Tensor, mask: Tensor, *, kl_coefficient: float, score_places: Tensor | None = None
) -> Tensor:
    """Reward of each token: minus `kl_coefficient` times its KL, plus the completion's score at one place.

    Ziegler et al. 2019, equation 2, spread over tokens as in Ouyang et al. 2022, section 3.5. `scores` (B,) are in
    the reward model's logits; `score_places` (B,) is the last token unless given. Returns (B, T), 0 outside the mask.
    """
    rewards = (-kl_coefficient * kl).masked_fill(mask == 0, 0)
    places = last_places(mask) if score_places is None else score_places
    return rewards.scatter_add(1, places[:, None], scores[:, None].to(rewards.dtype)).masked_fill(mask == 0, 0)


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns by generalised advantage estimation, each (B, T) and 0 outside the mask.

    Schulman et al. 2016, equations 11 and 16: A_t = delta_t + gamma lam A_(t+1), delta_t = r_t + gamma V_(t+1) - V_t,
    with V = 0 after the last token: a completion that was cut off counts as ended. The return to learn is A + V.
    """
    values = values.masked_fill(mask == 0, 0)
    rewards = rewards.masked_fill(mask == 0, 0)
    advantages = torch.zeros_like(values)
    following_advantage = following_value = torch.zeros_like(values[:, 0])
    for place in reversed(range(values.shape[1])):
        delta = rewards[:, place] + gamma * following_value - values[:, place]
        following_advantage = delta + gamma * lam * following_advantage
        following_value = values[:, place]
        advantages[:, place] = following_advantage
    advantages = advantages.masked_fill(mask == 0, 0)
    return advantages, advantages + values


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, clip: float
) -> tuple[Tensor, Tensor]:
    """Half the squared error of the values, and the share of tokens whose clipped error is the larger, each ().

    The larger of two errors counts: of `values`, and of `values` kept within `clip` of the rollout's `old_values`
    (the value loss of the PPO of Dhariwal et al. 2017, OpenAI Baselines, taken over by TRL).
    """
    near = old_values + (values - old_values).clamp(-clip, clip)
    error, error_near = (values - returns) ** 2, (near - returns) ** 2
    loss = 0.5 * masked_mean(torch.maximum(error, error_near), mask)
    return loss, masked_mean((error_near > error).float(), mask)


def clipped_policy_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor, *, clip: float
) -> tuple[Tensor, Tensor]:
    """Minus the clipped objective, and the share of tokens where the clip holds, each ().

    Schulman et al. 2017, equation 7, a mean over tokens. The trainer's own loss of type `bnpo` is this one: here it
    is what tests hold that against.
    """
    ratio = torch.exp(log_probs - old_log_probs)
    loss, loss_near = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    return masked_mean(torch.maximum(loss, loss_near), mask), masked_mean((loss_near > loss).float(), mask)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor, total: Total = _as_it_is) -> Tensor:
    """1 - Var(returns - values) / Var(returns), shape (): 1 is a perfect critic, 0 one that says the mean.

    Not a number where the returns do not vary.
    """
    variance = masked_variance(returns, mask, total)
    left = masked_variance(returns - values, mask, total)
    return torch.where(variance > 0, 1 - left / variance, torch.nan)


def adapted_kl_coefficient(coefficient: float, kl_nats: float, *, target_nats: float, gain: float = 0.1) -> float:
    """The coefficient for the next rollout, moved towards a KL of `target_nats` per completion.

    Ziegler et al. 2019, section 2.2: times 1 + gain * error, the relative error kept within 0.2 either way, so a
    rollout changes it by at most 2 %.
    """
    error = min(max(kl_nats / target_nats - 1, -0.2), 0.2)
    return coefficient * (1 + gain * error)
