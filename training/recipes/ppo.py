"""Proximal Policy Optimization of a policy against rewards, on a set of prompts.

Papers: Schulman et al. 2017, arXiv:1707.06347; on language models Ziegler et al. 2019, arXiv:1909.08593, and Ouyang et
al. 2022, arXiv:2203.02155, section 3.5. Each token's reward is minus `beta` times its KL from the reference; the last token
also gets the completion's score. A critic on the policy's own hidden states, generalised advantages, both losses clipped.

Policy, reference, critic and the LoRA reward models trained on the same base share one base model in memory: the policy is
a LoRA adapter, the reference is the base with the adapter off, the critic is a linear head. Weights are never trained whole.

What `PPOTrainer` of TRL 1.12 did otherwise: it put the score one place behind the end token where there was room, and
trained the value of that place too; here the score is at the last token. It whitened advantages on each process by
itself; here over all of them, so that processes change nothing but the speed. Minibatches are not shuffled again
between epochs.

Run: accelerate launch -m training.recipes.ppo --config runs/42/spec.yaml --run_dir runs/42
     (on the CPU `torchrun --nproc-per-node 2 -m training.recipes.ppo ...` for two processes)
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
import torch
from peft import PeftModel
from transformers import (
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from training.recipes._adapters import check_memory
from training.recipes._data import read_manifest
from training.recipes._online import (
    BASELINE_FILE,
    Evaluation,
    OnlineArguments,
    OnlineRunLog,
    Rollouts,
    ShowRollouts,
    check_config,
    compare,
    cycle_steps,
    evaluate_policy,
    load_online_prompts,
    positions_of,
    read_evaluation,
)
from training.recipes._ppo_trainer import PPOConfig, PPOTrainer
from training.recipes._rewards import RewardFunction, parse_reward, reward_functions
from training.recipes._runlog import RunLog, launch, resume_from, write_json
from training.recipes._settings import SmallMachine, settle
from training.recipes._shared_base import SharedReward, build_policy, strip_value_head
from training.recipes._statistics import mean
from training.sampling.model_files import hash_model
from training.sampling.reward_models import ADAPTER, RewardModelFiles, axis_weight, inspect_reward_model, score_weight
from training.sampling.tokenizing import load_tokenizer

KIND = "ppo"


@dataclass
class PPOArguments(OnlineArguments):
    """Arguments of the PPO recipe; everything else is `PPOConfig`, which is TRL's `GRPOConfig` and PPO's own."""

    value_head_from: str = field(
        default="zero", metadata={"help": "zero, or reward: start the critic as the first shared reward model's head"}
    )


@dataclass
class PPOSettings(SmallMachine, PPOConfig):
    """PPO's settings with the defaults of a small model on one machine; the CPU where nothing else is."""

    max_completion_length: int | None = 64
    num_iterations: int = 2


class StopOnKL(TrainerCallback):
    """Ends training, in order and with a result, after the rollout whose mean KL from the reference passed the limit."""

    def __init__(self, run_log: RunLog, *, limit_nats: float, cycle: int) -> None:
        self.run_log, self.limit_nats, self.cycle = run_log, limit_nats, cycle
        self.trainer: PPOTrainer | None = None
        self.has_stopped = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.cycle or not self.trainer.kl_nats:
            return
        kl_nats = sum(self.trainer.kl_nats) / len(self.trainer.kl_nats)
        if kl_nats > self.limit_nats:
            self.has_stopped = True
            self.run_log.status("kl_limit", kl_nats=kl_nats, max_kl_nats=self.limit_nats)
            control.should_training_stop = True


def check(args: PPOArguments, config: PPOSettings) -> None:
    """Refuse what cannot work before any model is loaded. Raises ValueError."""
    check_config(args, config)
    if args.value_head_from not in ("zero", "reward"):
        raise ValueError(f"value_head_from is {args.value_head_from!r}, it must be zero or reward")
    if args.adapter_kind != "lora" or args.quantised_base != "no":
        raise ValueError("adapter_kind and quantised_base are not for PPO: it shares one base among plain LoRA adapters")
    if args.adapter_rank < 1:
        raise ValueError("adapter_rank is below 1: PPO here trains a LoRA adapter, whose absence is the reference")
    if config.model_init_kwargs:
        raise ValueError("model_init_kwargs is not supported: the base model is loaded as its folder says")


def shared_reward_models(rewards: list[str], base: str) -> dict[int, RewardModelFiles]:
    """Those of `rewards`, by place, that are LoRA reward models trained on the policy's own base."""
    found = {}
    for place, entry in enumerate(rewards):
        reward = parse_reward(entry)
        if reward.kind == "model" and "caution" not in reward.options:  # caution asks all heads, or the posterior
            files = inspect_reward_model(reward.value, base=reward.options.get("base"))
            if files.kind == ADAPTER and is_same_model(files.base, base):
                found[place] = files
    return found


def is_same_model(first: str, second: str) -> bool:
    """Whether two folders, or names, are one base model."""
    if Path(first).is_dir() and Path(second).is_dir():
        return Path(first).resolve() == Path(second).resolve() or hash_model(first) == hash_model(second)
    return first == second


def share_the_base(
    functions: list[RewardFunction],
    shared: dict[int, RewardModelFiles],
    *,
    args: PPOArguments,
    config: PPOSettings,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
) -> list[RewardFunction]:
    """The same functions in the same order, where those at the places of `shared` use the policy's base model."""
    kept = list(functions)
    if others := [place for place in range(len(kept)) if place not in shared]:
        # Anew without the shared ones, whose adapters would be loaded along with a base that others need.
        entries = [args.rewards[place] for place in others]
        made, _ = reward_functions(entries, None, base_model=args.model, seed=config.seed)
        for place, function in zip(others, made, strict=True):
            function.__name__ = functions[place].__name__
            kept[place] = function
    for place, files in shared.items():
        axis = parse_reward(args.rewards[place]).options.get("axis")
        weight = axis_weight(files.folder, axis) if axis else score_weight(files.folder)
        name = functions[place].__name__
        kept[place] = SharedReward(model, tokenizer, files.folder, name=name, score_weight=weight)
    if args.value_head_from == "reward":
        kept[min(shared)].start_value_head()
    return kept


def main(args: PPOArguments, config: PPOSettings) -> None:
    """Train one policy in `args.run_dir`, and compare it with where it started on held-out prompts."""
    run_log = OnlineRunLog(args.run_dir, kind=KIND, seed=config.seed)
    settle(config, args.run_dir)
    check(args, config)
    check_memory(args, config)
    run_log.cycle = cycle_steps(config)
    functions, weights = reward_functions(
        args.rewards, config.reward_weights, base_model=args.model, seed=config.seed
    )
    config.reward_weights = weights
    shared = shared_reward_models(args.rewards, args.model)
    if args.value_head_from == "reward" and not shared:
        raise ValueError("value_head_from is reward, but no reward is a LoRA reward model on the policy's base")
    tokenizer = load_tokenizer(args.model)
    prompts = load_online_prompts(args, config, tokenizer, positions=positions_of(args.model))
    if any(prompts.counts.values()):
        run_log.status("prompts_left_out", **prompts.counts)
    torch.manual_seed(config.seed)  # a new adapter's first weights are random
    # The frozen base is held in the type that its matrices are multiplied in; adapter and value head are float32.
    model = build_policy(
        args.model,
        dtype=torch.bfloat16 if config.bf16 else torch.float32,
        adapter=args.adapter,
        rank=args.adapter_rank,
        alpha=args.adapter_alpha,
    )
    if shared:
        functions = share_the_base(
            functions, shared, args=args, config=config, model=model, tokenizer=tokenizer
        )
    rollouts = Rollouts(functions, weights)
    callbacks: list[TrainerCallback] = [run_log]
    if args.sample_every_steps:
        callbacks.append(ShowRollouts(run_log, rollouts, every_steps=args.sample_every_steps))
    stop_on_kl = StopOnKL(run_log, limit_nats=config.max_kl_nats or float("inf"), cycle=run_log.cycle)
    trainer = PPOTrainer(
        model=model,
        args=config,
        reward_funcs=rollouts.functions,
        train_dataset=prompts.dataset(),
        processing_class=tokenizer,
        callbacks=[*callbacks, stop_on_kl],
    )
    stop_on_kl.trainer = trainer

    def evaluate(state: str) -> Evaluation:
        run_log.status(state)
        return evaluate_policy(
            model,
            tokenizer,
            prompts.held_out,
            functions,
            weights,
            args=args,
            config=config,
            rank=config.process_index,
            world=config.world_size,
            # Processes have batches of their own here: they could not leave together.
            before_batch=run_log.raise_if_stopped if config.world_size == 1 else lambda: None,
        )

    checkpoint = resume_from(args.run_dir, run_log)
    before = None
    if prompts.held_out and args.eval_completions:
        # Before the first step, also of a run that goes on from a checkpoint: the policy there is no longer the first.
        before = read_evaluation(args.run_dir / BASELINE_FILE) or evaluate("evaluating the start")
        if run_log.is_writer:
            write_json(args.run_dir / BASELINE_FILE, before.__dict__)
    output = trainer.train(resume_from_checkpoint=checkpoint)
    if not stop_on_kl.has_stopped:
        run_log.raise_if_stopped()

    figures = {"objective/kl": mean(trainer.kl_nats, range(len(trainer.kl_nats)))}  # of the last rollout
    if before is not None:
        figures |= compare(before, evaluate("evaluating"))
    trainer.save_model(str(args.run_dir / "model"))
    if run_log.is_writer:
        strip_value_head(args.run_dir / "model")
    run_log.finish(
        metrics=last_metrics(trainer) | output.metrics,
        figures=figures,
        rewards=[
            {"reward": entry, "name": function.__name__, "weight": weight,
             "shares_base": isinstance(function, SharedReward)}
            for entry, function, weight in zip(args.rewards, functions, weights, strict=True)
        ],
        kl_coefficient=trainer.kl_coefficient,
        stopped_on_kl=stop_on_kl.has_stopped,
        dataset={
            "n_train": len(prompts.train),
            "n_eval": len(prompts.held_out),
            "n_completions": trainer.n_completions,
            "n_unscored": trainer.n_unscored,
            **prompts.counts,
            "manifest": read_manifest(args.run_dir / "dataset"),
        },
        base_model={"path": args.model, "hash": hash_model(args.model)},
    )  # fmt: skip


def last_metrics(trainer: PPOTrainer) -> dict[str, Any]:
    """The numbers of the last step that began with a rollout."""
    logged = [entry for entry in trainer.state.log_history if "objective/kl" in entry]
    return dict(logged[-1]) if logged else {}


if __name__ == "__main__":
    sys.exit(launch(KIND, main, (PPOArguments, PPOSettings)))
