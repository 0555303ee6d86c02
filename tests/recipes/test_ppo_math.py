"""The arithmetic of PPO: small cases by hand, the rest by its laws."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.recipes import _ppo_math as ppo


@st.composite
def rollouts(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rewards, values and a mask of whole beginnings, all (B, T)."""
    rows, places = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    chance = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    lengths = torch.tensor([draw(st.integers(0, places)) for _ in range(rows)])
    mask = (torch.arange(places) < lengths[:, None]).long()
    shape = (2, rows, places)
    rewards, values = torch.randn(shape, generator=chance, dtype=torch.float64)
    return rewards, values, mask


def test_two_tokens_by_hand() -> None:
    rewards, values = torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([[0.5, 1.5, 7.0]])
    advantages, returns = ppo.generalised_advantages(
        rewards, values, torch.tensor([[1, 1, 0]]), gamma=0.5, lam=0.8
    )
    # delta_1 = 2 - 1.5 = 0.5; delta_0 = 1 + 0.5 * 1.5 - 0.5 = 1.25; A_0 = 1.25 + 0.5 * 0.8 * 0.5 = 1.45.
    torch.testing.assert_close(advantages, torch.tensor([[1.45, 0.5, 0.0]]))
    torch.testing.assert_close(returns, torch.tensor([[1.95, 2.0, 0.0]]))


@settings(deadline=None, max_examples=50)
@given(rollouts(), st.floats(0, 1))
def test_with_lambda_1_the_return_is_the_discounted_sum_of_rewards_to_come(rollout: tuple, gamma: float) -> None:
    rewards, values, mask = rollout
    _, returns = ppo.generalised_advantages(rewards, values, mask, gamma=gamma, lam=1.0)
    for row in range(len(rewards)):
        n = int(mask[row].sum())
        for place in range(n):
            to_come = sum(gamma ** (later - place) * float(rewards[row, later]) for later in range(place, n))
            assert float(returns[row, place]) == pytest.approx(to_come, abs=1e-9)
        assert not returns[row, n:].any()


@settings(deadline=None, max_examples=50)
@given(rollouts(), st.floats(0, 1))
def test_with_lambda_0_the_advantage_is_the_error_of_one_step(rollout: tuple, gamma: float) -> None:
    rewards, values, mask = rollout
    advantages, _ = ppo.generalised_advantages(rewards, values, mask, gamma=gamma, lam=0.0)
    kept = values * mask
    following = torch.cat([kept[:, 1:], torch.zeros_like(kept[:, :1])], dim=1)
    torch.testing.assert_close(advantages, (rewards + gamma * following - values) * mask)


@settings(deadline=None, max_examples=50)
@given(rollouts(), st.floats(0, 2))
def test_shaped_rewards_add_up_to_the_score_less_the_kl(rollout: tuple, coefficient: float) -> None:
    log_probs, ref_log_probs, mask = rollout
    scores = torch.arange(1.0, len(mask) + 1, dtype=torch.float64)
    kl = ppo.kl_per_token(log_probs, ref_log_probs, mask)
    rewards = ppo.kl_shaped_rewards(scores, kl, mask, kl_coefficient=coefficient)
    told = mask.sum(dim=1) > 0  # an empty completion has no place for its score
    torch.testing.assert_close(rewards.sum(dim=1)[told], (scores - coefficient * kl.sum(dim=1))[told])
    assert not rewards[mask == 0].any()
    assert torch.equal(ppo.last_places(mask)[told], mask.sum(dim=1)[told] - 1)


@settings(deadline=None, max_examples=50)
@given(rollouts())
def test_what_lies_outside_the_mask_changes_nothing(rollout: tuple) -> None:
    rewards, values, mask = rollout
    other = values.masked_fill(mask == 0, math.nan)
    for ours, theirs in zip(
        ppo.generalised_advantages(rewards, values, mask, gamma=0.9, lam=0.9),
        ppo.generalised_advantages(rewards, other, mask, gamma=0.9, lam=0.9),
        strict=True,
    ):
        assert torch.equal(ours, theirs)
    assert torch.equal(ppo.whiten(values, mask), ppo.whiten(other, mask))
    assert torch.equal(ppo.masked_mean(values, mask), ppo.masked_mean(other, mask))


def test_whitening_over_two_processes_is_that_over_one() -> None:
    values, mask = torch.randn(4, 5, dtype=torch.float64), torch.ones(4, 5)
    mask[1, 2:] = 0
    whole = ppo.whiten(values, mask)
    counted = whole[mask > 0]
    assert float(counted.mean()) == pytest.approx(0, abs=1e-9)
    assert float(counted.var()) == pytest.approx(1, abs=1e-6)
    assert not whole[mask == 0].any()

    # What every process would add to its own: the mean's sums, then the squares'.
    mean = ppo.masked_mean(values, mask)
    sums_of_mean = torch.stack([(values * mask).sum(), mask.sum().double()])
    squares = torch.stack([(((values - mean) ** 2) * mask).sum(), mask.sum().double()])
    answers = iter([sums_of_mean, sums_of_mean, squares])
    half = ppo.whiten(values[:2], mask[:2], total=lambda sums: next(answers))
    torch.testing.assert_close(half, whole[:2])
    kept = ppo.whiten(values, mask, shift_mean=False)
    assert float(ppo.masked_mean(kept, mask)) == pytest.approx(float(mean))


def test_the_larger_of_two_errors_counts_where_a_value_moved_far() -> None:
    old, returns, mask = torch.zeros(1, 2), torch.ones(1, 2), torch.ones(1, 2)
    values = torch.tensor([[0.1, 0.9]])  # the second moved beyond 0.2: it is held at 0.2, whose error is larger
    loss, share = ppo.clipped_value_loss(values, old, returns, mask, clip=0.2)
    assert float(loss) == pytest.approx(0.5 * (0.9**2 + 0.8**2) / 2)
    assert float(share) == 0.5


def test_no_gradient_where_the_policy_has_moved_far_enough() -> None:
    log_probs = torch.log(torch.tensor([[1.5, 1.1, 0.5, 0.5]])).requires_grad_()
    advantages = torch.tensor([[1.0, 1.0, 1.0, -1.0]])
    loss, share = ppo.clipped_policy_loss(
        log_probs, torch.zeros(1, 4), advantages, torch.ones(1, 4), clip=0.2
    )
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-(1.2 + 1.1 + 0.5 - 0.8) / 4)
    assert [bool(value) for value in log_probs.grad[0]] == [False, True, True, False]
    assert float(share) == 0.5


def test_explained_variance_of_a_perfect_and_of_a_constant_critic() -> None:
    returns, mask = torch.tensor([[1.0, 2.0, 4.0]]), torch.ones(1, 3)
    assert float(ppo.explained_variance(returns, returns, mask)) == 1
    assert float(ppo.explained_variance(torch.full((1, 3), 5.0), returns, mask)) == pytest.approx(0)
    assert math.isnan(float(ppo.explained_variance(returns, torch.ones(1, 3), mask)))


def test_the_coefficient_follows_the_kl_by_at_most_2_percent() -> None:
    assert ppo.adapted_kl_coefficient(0.1, 6.0, target_nats=6.0) == 0.1
    assert ppo.adapted_kl_coefficient(0.1, 6.6, target_nats=6.0) == pytest.approx(0.1 * 1.01)
    assert ppo.adapted_kl_coefficient(0.1, 60.0, target_nats=6.0) == pytest.approx(0.1 * 1.02)
    assert ppo.adapted_kl_coefficient(0.1, -3.0, target_nats=6.0) == pytest.approx(0.1 * 0.98)
