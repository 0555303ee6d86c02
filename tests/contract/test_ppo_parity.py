"""Our PPO arithmetic against what TRL 1.12's PPOTrainer computed on the same rollouts (`record_ppo_oracle.py`)."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402

from training.recipes import _ppo_math as ppo  # noqa: E402

ORACLE = Path(__file__).parent / "data" / "ppo_oracle.safetensors"


class Oracle:
    """Tensors by name, and the settings of the run."""

    def __init__(self) -> None:
        with safe_open(ORACLE, framework="pt") as file:
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
            self.settings = {name: float(value) for name, value in file.metadata().items() if name != "trl"}

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors of one rollout or minibatch."""
        return {
            name.partition(".")[2]: value for name, value in self.tensors.items() if name.partition(".")[0] == prefix
        }


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("number", [0, 1])
def test_rewards_advantages_and_returns_are_those_of_trl_1_12(oracle: Oracle, number: int) -> None:
    theirs = oracle.part(f"rollout{number}")
    settings = oracle.settings
    mask, mask_of_values = 1 - theirs["padding_mask"], 1 - theirs["padding_mask_p1"]
    ended = theirs["actual_end"] < mask.shape[1] - 1
    assert ended.any() and not ended.all()  # the fixture has both kinds of completion

    kl = ppo.kl_per_token(theirs["logprobs"], theirs["ref_logprobs"], mask)
    close(kl, theirs["kl"])
    # Their score lies one place behind the end token where there is room, and that place has a value: ours has neither.
    rewards = ppo.kl_shaped_rewards(
        theirs["scores"], kl, mask_of_values, kl_coefficient=settings["kl_coef"], score_places=theirs["actual_end"]
    )
    close(rewards, theirs["rewards"])
    advantages, returns = ppo.generalised_advantages(
        rewards, theirs["values"], mask_of_values, gamma=settings["gamma"], lam=settings["lam"]
    )
    # Where a completion ends early theirs hold leftovers outside the mask, which their loss does not see either.
    close(advantages, theirs["raw_advantages"] * mask_of_values)
    close(returns, theirs["returns"] * mask_of_values)
    close(ppo.whiten(theirs["raw_advantages"], mask), theirs["advantages"])
    close(ppo.whiten(rewards, mask_of_values, shift_mean=False).sum(), _their_whitened_rewards(rewards, mask_of_values))


def _their_whitened_rewards(rewards: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    counted = rewards[mask > 0].double()
    whitened = (counted - counted.mean()) / (counted.var() + 1e-8).sqrt() + counted.mean()
    return whitened.sum().float()


@pytest.mark.parametrize("number", [0, 1])
def test_where_no_completion_ends_early_our_placement_is_theirs(oracle: Oracle, number: int) -> None:
    theirs = oracle.part(f"rollout{number}")
    whole = theirs["actual_end"] == theirs["padding_mask"].shape[1] - 1
    whole &= theirs["padding_mask"].sum(dim=1) == 0
    assert whole.any()
    theirs = {name: value[whole] for name, value in theirs.items()}
    mask, settings = 1 - theirs["padding_mask"], oracle.settings
    kl = ppo.kl_per_token(theirs["logprobs"], theirs["ref_logprobs"], mask)
    rewards = ppo.kl_shaped_rewards(theirs["scores"], kl, mask, kl_coefficient=settings["kl_coef"])
    close(rewards, theirs["rewards"])
    advantages, returns = ppo.generalised_advantages(
        rewards, theirs["values"], mask, gamma=settings["gamma"], lam=settings["lam"]
    )
    close(advantages, theirs["raw_advantages"])
    close(returns, theirs["returns"])


def test_both_losses_are_those_of_trl_1_12_while_both_clips_are_at_work(oracle: Oracle) -> None:
    settings, clipped = oracle.settings, {"pg": 0, "vf": 0}
    for number in range(8):
        theirs = oracle.part(f"minibatch{number}")
        rollout = {
            name: value[theirs["rows"]]
            for name, value in oracle.part(f"rollout{int(theirs['rollout'])}").items()
        }
        mask, mask_of_values = 1 - rollout["padding_mask"], 1 - rollout["padding_mask_p1"]
        value_loss, value_clipped = ppo.clipped_value_loss(
            theirs["vpred"], rollout["values"], rollout["returns"], mask_of_values, clip=settings["cliprange_value"]
        )
        policy_loss, policy_clipped = ppo.clipped_policy_loss(
            theirs["new_logprobs"], rollout["logprobs"], rollout["advantages"], mask, clip=settings["cliprange"]
        )
        close(value_loss, theirs["vf_loss"])
        close(value_clipped, theirs["vf_clipfrac"])
        close(policy_loss, theirs["pg_loss"])
        close(policy_clipped, theirs["pg_clipfrac"])
        close(policy_loss + settings["vf_coef"] * value_loss, theirs["loss"])
        clipped["pg"] += int(policy_clipped > 0)
        clipped["vf"] += int(value_clipped > 0)
    assert min(clipped.values()) >= 3
