"""PPO on TRL's maintained ground: GRPOTrainer with a value head. The one file that touches TRL's internals.

TRL's own PPOTrainer ended with release 1.12. GRPOTrainer brings rollouts, conversational prompts, reward functions,
PEFT, checkpoints and the clipped policy loss; `PPOTrainer` below adds the critic, the reward of each token and
generalised advantages. What it leans on in TRL 1.16, the most fragile first; `tests/contract/test_ppo_internals.py`
names the one that moved:

1. `_get_per_token_logps_and_entropies(model, input_ids, attention_mask, logits_to_keep, ...)` calls `model(...)` once a
   chunk, in order, with `fused_lm_head=True`, and takes `[:, -logits_to_keep:]` of what comes back: the values must come
   out of that same forward.
2. That forward returns a `FusedCausalLMOutput`, a dataclass whose `log_probs` are of shape (B, tokens - 1); the backbone is
   called as `causal_lm.base_model` and gives `last_hidden_state`.
3. `_generate_and_score_completions` returns `completion_mask`, `prompt_ids`, ..., and further (B, T) tensors added to that
   mapping are shuffled and split along; `tool_mask`, where there, multiplies the mask of the loss; it computes
   `old_per_token_logps` in at most one call of 1, and none for a reference where `beta` is 0.
4. `_calculate_rewards` returns the rewards of all processes, in their order, of shape (all rows, functions).
5. `_compute_loss` takes advantages of shape (B, T); loss type `bnpo` is the mean over tokens of one minibatch divided by
   `current_gradient_accumulation_steps`; without `beta` it has no KL term of its own.
6. `beta` is read from the arguments in `__init__` only; `_metrics["train"]` maps names to lists that `log` averages.
7. `GRPOConfig.__post_init__` is all that refuses one completion per prompt.
8. What `_order.ExactOrder` and `_cpu.QuickRollouts` name.
"""

import json
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import FusedCausalLMOutput

from training.recipes import _ppo_math as ppo
from training.recipes._cpu import QuickRollouts
from training.recipes._order import ExactOrder

VALUE_HEAD = "value_head"
POLICY_ADAPTER, REFERENCE_ADAPTER = "default", "ref"
STATE_FILE = "ppo_state.json"
TOO_SMALL = (
    "A rollout of one completion has no advantages to compare: raise per_device_train_batch_size or steps_per_generation"
)


@dataclass
class PPOConfig(GRPOConfig):
    """GRPO's settings with PPO's: `beta` is the KL coefficient of the reward, `num_iterations` the PPO epochs.

    `epsilon` is the policy's clip range. Raises ValueError for settings of GRPO that PPO here does not support, before
    a model is loaded.
    """

    beta: float = 0.05
    loss_type: str = "bnpo"
    num_generations: int | None = 1
    num_iterations: int = 4
    disable_dropout: bool = True  # rollouts are made in training mode, and a resumed run must see what the first saw
    gamma: float = 1.0
    lam: float = 0.95
    vf_coef: float = 1.0
    cliprange_value: float = 0.2
    whiten_rewards: bool = False
    missing_eos_penalty: float | None = None
    value_head_learning_rate: float = 1e-3
    kl_target_nats: float | None = None
    max_kl_nats: float | None = None

    def __post_init__(self) -> None:
        wanted = self.num_generations
        if wanted is None or wanted < 1:
            raise ValueError(f"num_generations is {wanted}, it must be at least 1")
        if wanted == 1:
            # A baseline over the completions of one prompt is GRPO's need, not PPO's: any divisor satisfies its check.
            self.num_generations = next(
                (n for n in (self.per_device_train_batch_size, self.steps_per_generation,
                             self.gradient_accumulation_steps) if n and n > 1),
                2,
            )  # fmt: skip
        try:
            super().__post_init__()
        except ValueError as error:
            if wanted == 1 and "divisible by num_generations" in str(error):
                raise ValueError(TOO_SMALL) from None
            raise
        self.num_generations = wanted
        if wanted == 1:
            self.num_generations_eval = 1
        self._check()

    def _check(self) -> None:
        for name, value, needed in (
            ("loss_type", self.loss_type, "bnpo"),
            ("importance_sampling_level", self.importance_sampling_level, "token"),
            ("multi_objective_aggregation", self.multi_objective_aggregation, "sum_then_normalize"),
            ("top_entropy_quantile", self.top_entropy_quantile, 1.0),
            ("eval_strategy", getattr(self.eval_strategy, "value", self.eval_strategy), "no"),
            ("off_policy_mask_threshold", self.off_policy_mask_threshold, None),
            ("delta", self.delta, None),
            ("router_aux_loss_coef", self.router_aux_loss_coef, None),
            ("disable_dropout", self.disable_dropout, True),
            *(
                (name, bool(getattr(self, name)), False)
                for name in (
                    "use_vllm", "use_transformers_continuous_batching", "mask_truncated_completions", "sync_ref_model",
                    "use_adaptive_entropy", "log_completions", "use_liger_kernel", "cast_lm_head_to_fp32", "deepspeed",
                    "fsdp", "trust_remote_code", "push_to_hub", "load_best_model_at_end",
                )
            ),
        ):  # fmt: skip
            if value != needed:
                raise ValueError(f"{name} is {value!r}: PPO here supports {needed!r} only")
        if self.epsilon_high is not None and self.epsilon_high != self.epsilon:
            raise ValueError("epsilon_high differs from epsilon: PPO clips alike on both sides")
        for name, low, high in (
            ("beta", 0, None), ("gamma", 0, 1), ("lam", 0, 1), ("vf_coef", 0, None), ("value_head_learning_rate", 0, None),
            ("missing_eos_penalty", 0, None),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not (value >= low and (high is None or value <= high)):
                limits = f"between {low} and {high}" if high is not None else f"at least {low}"
                raise ValueError(f"{name} is {value}, it must be {limits}")
        for name in ("epsilon", "cliprange_value", "temperature", "kl_target_nats", "max_kl_nats"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name} is {value}, it must be above 0")
        if self.kl_target_nats is not None and self.beta == 0:
            raise ValueError("kl_target_nats adapts beta, which is 0 and would stay so: give beta a first value")
        if self.generation_batch_size < 2:
            raise ValueError(TOO_SMALL)
        micro_steps = self.steps_per_generation * self.num_iterations
        if micro_steps % self.gradient_accumulation_steps:
            raise ValueError(
                f"gradient_accumulation_steps ({self.gradient_accumulation_steps}) must divide steps_per_generation x "
                f"num_iterations ({self.steps_per_generation} x {self.num_iterations}): a step would mix two rollouts"
            )


@dataclass
class PPOOutput(FusedCausalLMOutput):
    """What the policy's forward gives, and the critic's value before each next token: `token_values` (B, tokens - 1)."""

    # A declared field: DistributedDataParallel looks through the output for the parameters that took part.
    token_values: Tensor | None = None


def attach_value_head(causal_lm: torch.nn.Module) -> None:
    """Give a causal language model a linear critic on its last hidden state, before PEFT wraps it.

    In float32 whatever the model's type, and starting at zero, so that the first advantages are the rewards
    themselves. Named in `modules_to_save` of LoRA it is trained, saved and resumed with the adapter.
    """
    hidden_size = causal_lm.config.get_text_config().hidden_size
    head = torch.nn.Linear(hidden_size, 1, bias=False, dtype=torch.float32, device=causal_lm.device)
    torch.nn.init.zeros_(head.weight)
    setattr(causal_lm, VALUE_HEAD, head)
    hidden: list[Tensor] = []

    def keep(module: torch.nn.Module, arguments: object, output: Any) -> None:
        hidden[:] = [output.last_hidden_state]

    def add_values(module: torch.nn.Module, arguments: object, output: Any) -> Any:
        state = hidden.pop() if hidden else None
        if not isinstance(output, FusedCausalLMOutput) or state is None:
            return output
        with torch.autocast(state.device.type, enabled=False):
            values = getattr(module, VALUE_HEAD)(state[:, :-1].float()).squeeze(-1)
        return PPOOutput(**{field.name: output[field.name] for field in fields(FusedCausalLMOutput) if field.name in output},
                         token_values=values)  # fmt: skip

    causal_lm.base_model.register_forward_hook(keep)
    causal_lm.register_forward_hook(add_values)


class PPOTrainer(QuickRollouts, ExactOrder, GRPOTrainer):
    """GRPOTrainer that learns by PPO: advantages of each token from a critic that shares the policy's base.

    `model` is a PeftModel made by `_shared_base`: the adapter `default` is trained, with the head of `attach_value_head`
    among its `modules_to_save`; the reference is the adapter `ref` where there is one, else the model without adapter.

    Metrics carry the names of TRL 1.12's PPOTrainer. `objective/*` are means over the completions of a rollout, KL and
    entropy in nats per completion; `val/explained_variance` and the rest of `val/`, `policy/` and `loss/` are ours over tokens.

    `kl_nats` holds the KL of each scored completion of the newest rollout, over all processes; `n_completions` counts
    those made, `n_unscored` those of them for which no reward had anything to say: they are left out of the loss.
    """

    args: PPOConfig

    def __init__(self, model: PeftModel, *, args: PPOConfig, **kwargs: Any) -> None:
        self.kl_coefficient = args.beta
        self.kl_nats: list[float] = []
        self.n_completions = 0
        self.n_unscored = 0
        args.beta = 0.0  # the parent's KL is a term of its loss, and would count twice
        try:
            super().__init__(model=model, args=args, **kwargs)
        finally:
            args.beta = self.kl_coefficient

    # Rollouts

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, *args: Any, **kwargs: Any
    ) -> Any:
        values: list[Tensor] = []

        def keep(**inputs: Any) -> PPOOutput:
            output = model(**inputs)
            values.append(output.token_values[:, -logits_to_keep:])
            return output

        result = super()._get_per_token_logps_and_entropies(
            keep, input_ids, attention_mask, logits_to_keep, *args, **kwargs
        )
        self._last_log_probs, self._last_values = result[0], torch.cat(values)
        return result

    def _calculate_rewards(self, inputs: Any, prompts: list, completions: list, completion_ids_list: list) -> Tensor:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        unscored = torch.isnan(rewards).all(dim=1)
        scores = (rewards * self.reward_weights.to(rewards.device)).nansum(dim=1)
        self._all_scores = scores.masked_fill(unscored, torch.nan)
        return rewards

    @torch.no_grad()
    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._last_values = None
        rollout = super()._generate_and_score_completions(inputs)
        self._metrics["train"].pop("frac_reward_zero_std", None)  # of groups, which PPO does not have

        mask = rollout["completion_mask"]
        if "old_per_token_logps" not in rollout:
            rollout["old_per_token_logps"] = self._log_probs_of(rollout)
        log_probs, values = rollout["old_per_token_logps"], self._last_values
        with self._reference():
            ref_log_probs = self._log_probs_of(rollout)

        rank, n = self.accelerator.process_index, len(inputs)
        scores = self._all_scores[rank * n : (rank + 1) * n]
        scored = ~torch.isnan(scores)
        scores = torch.where(scored, scores, 0.0)
        ended = torch.isin(
            rollout["completion_ids"].gather(1, ppo.last_places(mask)[:, None]).squeeze(1),
            torch.tensor(self.eos_token_ids, device=mask.device),
        )
        if self.args.missing_eos_penalty is not None:
            scores = scores - self.args.missing_eos_penalty * (~ended).to(scores.dtype)
        # What has no score teaches nothing: neither policy nor critic sees it.
        mask = mask * scored[:, None]

        kl = ppo.kl_per_token(log_probs, ref_log_probs, mask)
        rewards = ppo.kl_shaped_rewards(scores, kl, mask, kl_coefficient=self.kl_coefficient)
        if self.args.whiten_rewards:
            rewards = ppo.whiten(rewards, mask, shift_mean=False, total=self._total)
        advantages, returns = ppo.generalised_advantages(
            rewards, values, mask, gamma=self.args.gamma, lam=self.args.lam
        )
        rollout |= {
            "advantages": ppo.whiten(advantages, mask, total=self._total),
            "old_values": values,
            "returns": returns,
            "tool_mask": mask,
        }
        self._record_rollout(scores, scored, kl, log_probs, values, returns, mask, ended)
        return rollout

    def _log_probs_of(self, rollout: dict[str, Any]) -> Tensor:
        """Log-probabilities of a rollout's tokens under the present adapter, (B, T); leaves `_last_values` behind."""
        log_probs, _, _ = self._get_per_token_logps_and_entropies(
            self.model,
            torch.cat([rollout["prompt_ids"], rollout["completion_ids"]], dim=1),
            torch.cat([rollout["prompt_mask"], rollout["completion_mask"]], dim=1),
            rollout["completion_ids"].shape[1],
            batch_size=self.args.per_device_train_batch_size,
        )
        return log_probs

    def _reference(self) -> AbstractContextManager:
        """The base as the reference model."""
        model = self.accelerator.unwrap_model(self.model)
        return with_adapter(model, REFERENCE_ADAPTER) if REFERENCE_ADAPTER in model.peft_config else model.disable_adapter()

    def _total(self, sums: Tensor) -> Tensor:
        return self.accelerator.reduce(sums, reduction="sum")

    def _record_rollout(
        self, scores: Tensor, scored: Tensor, kl: Tensor, log_probs: Tensor, values: Tensor, returns: Tensor,
        mask: Tensor, ended: Tensor,
    ) -> None:  # fmt: skip
        def over_completions(amounts: Tensor) -> float:
            return ppo.masked_mean(amounts, scored, self._total).item()

        every_kl = self.accelerator.gather(torch.where(scored, kl.sum(dim=1), torch.nan)).tolist()
        self.kl_nats = [nats for nats in every_kl if nats == nats]
        self.n_completions += len(every_kl)
        self.n_unscored += len(every_kl) - len(self.kl_nats)
        kl_nats = sum(self.kl_nats) / max(1, len(self.kl_nats))
        score = over_completions(scores)
        penalty = -self.kl_coefficient * kl_nats
        recorded = {
            "objective/kl": kl_nats,
            "objective/entropy": over_completions((-log_probs * mask).sum(dim=1)),
            "objective/non_score_reward": penalty,
            "objective/rlhf_reward": score + penalty,
            "objective/scores": score,
            "objective/kl_coefficient": self.kl_coefficient,
            "val/explained_variance": ppo.explained_variance(values, returns, mask, self._total).item(),
            "val/num_eos_tokens": self._total(ended.sum()).item(),
            "episode": self.n_completions,
        }
        for name, value in recorded.items():
            self._metrics["train"][name].append(value)
        if self.args.kl_target_nats is not None:
            # From the next rollout on: the rewards of this one are made.
            self.kl_coefficient = ppo.adapted_kl_coefficient(
                self.kl_coefficient, kl_nats, target_nats=self.args.kl_target_nats
            )

    # Learning

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        policy_loss = super()._compute_loss(model, inputs)
        log_probs, values, mask = self._last_log_probs.detach(), self._last_values, inputs["tool_mask"]
        value_loss, value_clipped = ppo.clipped_value_loss(
            values, inputs["old_values"], inputs["returns"], mask, clip=self.args.cliprange_value
        )
        with torch.no_grad():
            log_ratio = (log_probs - inputs["old_per_token_logps"]).masked_fill(mask == 0, 0)
            unscaled, policy_clipped = ppo.clipped_policy_loss(
                log_probs, inputs["old_per_token_logps"], inputs["advantages"], mask, clip=self.args.epsilon
            )
            ratio = ppo.masked_mean(log_ratio.exp(), mask)
            recorded = {
                "policy/approxkl_avg": 0.5 * ppo.masked_mean(log_ratio**2, mask),
                "policy/clipfrac_avg": policy_clipped,
                "loss/policy_avg": unscaled,
                "loss/value_avg": value_loss.detach(),
                "val/clipfrac_avg": value_clipped,
                "val/ratio": ratio,
                "val/ratio_var": ppo.masked_variance(log_ratio.exp(), mask),
            }
            means = self.accelerator.reduce(torch.stack([value.float() for value in recorded.values()]), reduction="mean")
        for name, value in zip(recorded, means.tolist(), strict=True):
            self._metrics["train"][name].append(value)
        self._metrics["train"]["policy/entropy_avg"].append(self._metrics["train"]["entropy"][-1])
        return policy_loss + self.args.vf_coef * value_loss / self.current_gradient_accumulation_steps

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """The parent's optimiser, with the value head in a group of its own: own rate, no weight decay."""
        optimizer = super().create_optimizer(*args, **kwargs)
        head = [weight for name, weight in self.model.named_parameters() if VALUE_HEAD in name and weight.requires_grad]
        ids = {id(weight) for weight in head}
        for group in optimizer.param_groups:
            group["params"] = [weight for weight in group["params"] if id(weight) not in ids]
        optimizer.add_param_group(
            {"params": head, "lr": self.args.value_head_learning_rate, "weight_decay": 0.0}
        )
        return optimizer

    # Checkpoints

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            names = ("kl_coefficient", "kl_nats", "n_completions", "n_unscored")
            (folder / STATE_FILE).write_text(json.dumps({name: getattr(self, name) for name in names}))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            for name, value in json.loads((Path(checkpoint) / STATE_FILE).read_text()).items():
                setattr(self, name, value)


@contextmanager
def with_adapter(model: PeftModel, name: str) -> Any:
    """The model with the frozen adapter `name`, and afterwards with the one being trained again."""
    model.set_adapter(name, inference_mode=True)
    try:
        yield
    finally:
        model.set_adapter(POLICY_ADAPTER)
