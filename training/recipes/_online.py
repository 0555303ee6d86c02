"""What the recipes that train on rewards of their own completions share: prompts, policy, rollouts shown, evaluation."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import (
    AutoConfig,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from training.recipes._adapters import PolicyArguments, load_start
from training.recipes._cpu import adapters_in_base_type
from training.recipes._data import DatasetError, Row, load_prompt_splits, read_manifest
from training.recipes._reference import save_policy
from training.recipes._rewards import RewardFunction, reward_functions
from training.recipes._runlog import RunLog, resume_from, write_json
from training.recipes._settings import settle
from training.recipes._statistics import Figure, mean
from training.sampling.backends import GenerationRequest, derive_seed
from training.sampling.heads import keep_head_input_contiguous
from training.sampling.model_files import check_model, hash_model
from training.sampling.tokenizing import load_tokenizer
from training.sampling.transformers_backend import SeededSampling, end_token_ids

BASELINE_FILE = "baseline.json"
SHOWN = 4  # completions of a rollout that are shown

OnlineConfig = GRPOConfig | RLOOConfig


@dataclass
class OnlineArguments(PolicyArguments):
    """Arguments beside those of TRL's configuration."""

    rewards: list[str] = field(
        default_factory=list, metadata={"help": "what is rewarded, such as model:FOLDER or length:target=60"}
    )
    max_prompt_length: int = field(
        default=512, metadata={"help": "longer prompts, in tokens, are left out and counted"}
    )
    eval_completions: int = field(
        default=4, metadata={"help": "completions of each held-out prompt before and after training; 0: no evaluation"}
    )
    max_eval_prompts: int = field(default=64, metadata={"help": "evaluate on at most so many held-out prompts"})
    eval_batch_size: int = field(default=32, metadata={"help": "completions generated at once in the evaluation"})
    sample_every_steps: int = field(
        default=1, metadata={"help": "show completions of the newest rollout with their rewards; 0: never"}
    )


# --- settings -----------------------------------------------------------------------------------
def cycle_steps(config: OnlineConfig) -> int:
    """Optimiser steps from one rollout to the next.

    TRL 1.16 samples anew whenever the batches since its start are a multiple of steps_per_generation * num_iterations.
    Raises ValueError where `save_steps` would put a checkpoint inside a cycle: the rollout in memory is not saved, so
    a run resumed there would go another way than an uninterrupted one.
    """
    batches = config.steps_per_generation * config.num_iterations
    cycle = math.lcm(batches, config.gradient_accumulation_steps) // config.gradient_accumulation_steps
    if config.save_strategy == "steps" and (config.save_steps != int(config.save_steps) or config.save_steps % cycle):
        raise ValueError(
            f"save_steps is {config.save_steps:g}, it must be a multiple of {cycle}: one rollout serves so many steps "
            "(steps_per_generation * num_iterations / gradient_accumulation_steps), and checkpoints lie between rollouts"
        )
    return cycle


def check_config(args: OnlineArguments, config: OnlineConfig) -> None:
    """Refuse settings that make a run which resumes differently. Raises ValueError."""
    if args.eval_completions < 0 or args.max_eval_prompts < 1 or args.eval_batch_size < 1:
        raise ValueError("eval_completions cannot be negative, max_eval_prompts and eval_batch_size are at least 1")
    cycle_steps(config)


class OnlineRunLog(RunLog):
    """A RunLog that ends a run early only between rollouts, where it resumes exactly."""

    cycle = 1

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.cycle == 0:
            super().on_step_end(args, state, control, **kwargs)
            return
        self.step = state.global_step
        self.progress(state.global_step, state.max_steps, "steps")


# --- prompts ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Prompts:
    """Prompts to train on and those held out, rows of `prompt_id`, `prompt` and `group_id`, with counts of what is left out."""

    train: list[Row]
    held_out: list[Row]
    counts: dict[str, int]

    def dataset(self) -> Dataset:
        """The training prompts in TRL's conversational form, with `prompt_id` for the reward functions."""
        return Dataset.from_list([{"prompt": row["prompt"], "prompt_id": str(row["prompt_id"])} for row in self.train])


def load_online_prompts(
    args: OnlineArguments, config: OnlineConfig, tokenizer: PreTrainedTokenizerBase, *, positions: int | None
) -> Prompts:
    """Read the prompts, leave out those that are too long, and draw the held-out ones to evaluate on.

    `positions` is the longest text that the model can take. Raises DatasetError where too few prompts are left for one
    rollout.
    """
    train, held_out = load_prompt_splits(args.run_dir / "dataset")
    longest = args.max_prompt_length
    if positions is not None:
        longest = min(longest, positions - config.max_completion_length)
    if longest < 1:
        raise ValueError(
            f"max_completion_length is {config.max_completion_length}, which leaves no room for a prompt in the "
            f"model's {positions} positions"
        )

    def fits(row: Row) -> bool:
        ids = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
        return len(ids) <= longest

    kept, kept_out = [row for row in train if fits(row)], [row for row in held_out if fits(row)]
    counts = {"n_train_too_long": len(train) - len(kept), "n_eval_too_long": len(held_out) - len(kept_out)}
    prompts_a_rollout = config.generation_batch_size // config.num_generations
    if len(kept) < prompts_a_rollout:
        left_out = f" ({counts['n_train_too_long']} longer than {longest} tokens were left out)"
        raise DatasetError(
            f"{args.run_dir / 'dataset' / 'prompts.jsonl'} holds {len(kept)} prompts to train on"
            f"{left_out if counts['n_train_too_long'] else ''}, and one rollout takes {prompts_a_rollout}: give more "
            "prompts, or lower per_device_train_batch_size or gradient_accumulation_steps"
        )
    if len(kept_out) > args.max_eval_prompts:
        # At random by the seed, and the same ones before and after.
        order = sorted(kept_out, key=lambda row: derive_seed(config.seed, "eval", row["prompt_id"]))
        counts["n_eval_set_aside"] = len(kept_out) - args.max_eval_prompts
        kept_out = order[: args.max_eval_prompts]
    return Prompts(kept, kept_out, counts)


# --- rollouts shown -----------------------------------------------------------------------------
class Rollouts:
    """Remembers what the reward functions said of the newest batch, so that it can be shown.

    `functions` are those given, with the same names; use them in their place.
    """

    def __init__(self, functions: Sequence[RewardFunction], weights: Sequence[float]) -> None:
        self.weights = {function.__name__: weight for function, weight in zip(functions, weights, strict=True)}
        self.prompts: list[Any] = []
        self.completions: list[Any] = []
        self.rewards: dict[str, list[float | None]] = {}
        self.functions = [self._watched(function) for function in functions]

    def _watched(self, function: RewardFunction) -> RewardFunction:
        def reward(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
            values = function(prompts, completions, **columns)
            self.prompts, self.completions, self.rewards[function.__name__] = prompts, completions, values
            return values

        reward.__name__ = function.__name__
        return reward

    def total(self, index: int) -> float:
        """The weighted sum of the rewards of one completion; what gave none counts 0, as in TRL."""
        return weighted_sum({name: values[index] for name, values in self.rewards.items()}, self.weights)


def weighted_sum(rewards: dict[str, float | None], weights: dict[str, float]) -> float:
    """The reward that is trained on, of one completion."""
    return sum(weights[name] * value for name, value in rewards.items() if value is not None)


class ShowRollouts(TrainerCallback):
    """Every so many steps, a few completions of the newest rollout with what each reward function gave them."""

    def __init__(self, run_log: RunLog, rollouts: Rollouts, *, every_steps: int) -> None:
        self.run_log, self.rollouts, self.every_steps = run_log, rollouts, every_steps

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.every_steps:
            return
        for index in range(min(SHOWN, len(self.rollouts.completions))):
            self.run_log.event(
                "sample",
                prompt=self.rollouts.prompts[index],
                completion=self.rollouts.completions[index][0]["content"],
                reward=self.rollouts.total(index),
                rewards={name: values[index] for name, values in self.rollouts.rewards.items()},
            )


# --- evaluation ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class Evaluation:
    """Completions of the held-out prompts and their rewards, a row each: `rewards` by function, tokens in `lengths`."""

    groups: list[str]
    rewards: dict[str, list[float | None]]
    totals: list[float]
    lengths: list[int]


@torch.no_grad()
def evaluate_policy(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Row],
    functions: Sequence[RewardFunction],
    weights: Sequence[float],
    *,
    args: OnlineArguments,
    config: OnlineConfig,
    rank: int = 0,
    world: int = 1,
    before_batch: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Sample `eval_completions` of each prompt at the temperature of training, and reward them.

    Each completion has a seed of its own, the same before and after training, so the two evaluations differ by the
    policy and less by chance. The global random numbers are not touched. Of several processes each takes a share and
    all get everything. What `before_batch` raises ends the evaluation.
    """
    was_training = model.training
    model.eval()
    wanted = [(row, index) for row in prompts for index in range(args.eval_completions)]
    found = []
    share = wanted[rank::world]
    for start in range(0, len(share), args.eval_batch_size):
        before_batch()
        batch = share[start : start + args.eval_batch_size]
        requests = [
            GenerationRequest(
                key=f"{row['prompt_id']} {index}",
                messages=tuple(row["prompt"]),
                seed=derive_seed(config.seed, "eval", row["prompt_id"], index),
                temperature=config.temperature,
                top_p=config.top_p,
                max_new_tokens=config.max_completion_length,
            )
            for row, index in batch
        ]
        texts, lengths = generate(model, tokenizer, requests)
        completions = [[{"role": "assistant", "content": text}] for text in texts]
        columns = {"prompt_id": [str(row["prompt_id"]) for row, _ in batch]}
        rewards = {
            function.__name__: function([row["prompt"] for row, _ in batch], completions, **columns)
            for function in functions
        }
        for place, (row, _) in enumerate(batch):
            found.append((row["group_id"], {name: values[place] for name, values in rewards.items()}, lengths[place]))
    model.train(was_training)
    found = gather_object(found)
    by_name = dict(zip((function.__name__ for function in functions), weights, strict=True))
    return Evaluation(
        groups=[group for group, _, _ in found],
        rewards={name: [rewards[name] for _, rewards, _ in found] for name in by_name},
        totals=[weighted_sum(rewards, by_name) for _, rewards, _ in found],
        lengths=[length for _, _, length in found],
    )


def generate(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, requests: Sequence[GenerationRequest]
) -> tuple[list[str], list[int]]:
    """Texts and their lengths in tokens, one seed each; `model` is in evaluation mode."""
    encoded = tokenizer.apply_chat_template(
        [list(request.messages) for request in requests],
        add_generation_prompt=True,
        padding=True,
        return_dict=True,
        return_tensors="pt",
        tokenizer_kwargs={"padding_side": "left"},
    ).to(model.device)
    with adapters_in_base_type(model):
        output = model.generate(
            **encoded,
            max_new_tokens=requests[0].max_new_tokens,
            do_sample=False,
            logits_processor=LogitsProcessorList([SeededSampling(requests)]),
            pad_token_id=tokenizer.pad_token_id,
        )
    ends = end_token_ids(model, tokenizer)
    texts, lengths = [], []
    for ids in output[:, encoded["input_ids"].shape[1] :].tolist():
        end = next((place for place, token in enumerate(ids) if token in ends), len(ids))
        texts.append(tokenizer.decode(ids[:end], skip_special_tokens=True))
        lengths.append(end)
    return texts, lengths


def compare(before: Evaluation, after: Evaluation) -> dict[str, Figure]:
    """Mean rewards before and after with intervals by prompt group, and the mean change of each completion's place."""
    figures = {
        "reward/before": mean(before.totals, before.groups),
        "reward/after": mean(after.totals, after.groups),
        "reward/change": mean(
            [second - first for first, second in zip(before.totals, after.totals, strict=True)], after.groups
        ),
        "completions/mean_length/before": mean(before.lengths, before.groups),
        "completions/mean_length/after": mean(after.lengths, after.groups),
    }
    if len(after.rewards) > 1:
        for name, values in after.rewards.items():
            for when, found in (("before", before.rewards[name]), ("after", values)):
                said = [(value, group) for value, group in zip(found, after.groups, strict=True) if value is not None]
                figures[f"rewards/{name}/{when}"] = mean([value for value, _ in said], [group for _, group in said])
    return figures


# --- the run ------------------------------------------------------------------------------------
def train_online(
    kind: str, args: OnlineArguments, config: OnlineConfig, trainer_class: type[GRPOTrainer] | type[RLOOTrainer]
) -> None:
    """Train one policy in `args.run_dir` by TRL's trainer, and compare it with where it started on held-out prompts."""
    run_log = OnlineRunLog(args.run_dir, kind=kind, seed=config.seed)
    settle(config, args.run_dir)
    check_config(args, config)
    run_log.cycle = cycle_steps(config)
    functions, config.reward_weights = reward_functions(
        args.rewards, config.reward_weights, base_model=args.model, seed=config.seed
    )
    rollouts = Rollouts(functions, config.reward_weights)
    start = load_start(args, config)
    tokenizer = load_tokenizer(args.model)
    prompts = load_online_prompts(args, config, tokenizer, positions=positions_of(args.model))
    if any(prompts.counts.values()):
        run_log.status("prompts_left_out", **prompts.counts)
    callbacks: list[TrainerCallback] = [run_log]
    if args.sample_every_steps:
        callbacks.append(ShowRollouts(run_log, rollouts, every_steps=args.sample_every_steps))
    trainer = trainer_class(
        **start,
        reward_funcs=rollouts.functions,
        args=config,
        train_dataset=prompts.dataset(),
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    keep_head_input_contiguous(trainer.accelerator.unwrap_model(trainer.model))

    def evaluate(state: str) -> Evaluation:
        run_log.status(state)
        return evaluate_policy(
            trainer.accelerator.unwrap_model(trainer.model),
            tokenizer,
            prompts.held_out,
            functions,
            config.reward_weights,
            args=args,
            config=config,
            rank=config.process_index,
            world=config.world_size,
            # Processes have batches of their own here: they could not leave together.
            before_batch=run_log.raise_if_stopped if config.world_size == 1 else lambda: None,
        )

    is_evaluated = bool(prompts.held_out and args.eval_completions)
    checkpoint = resume_from(args.run_dir, run_log)
    baseline_path, before = args.run_dir / BASELINE_FILE, None
    if is_evaluated:
        # Before the first step, also of a run that goes on from a checkpoint: the policy there is no longer the first.
        before = read_evaluation(baseline_path) or evaluate("evaluating the start")
        if run_log.is_writer:
            write_json(baseline_path, before.__dict__)
    output = trainer.train(resume_from_checkpoint=checkpoint)
    run_log.raise_if_stopped()

    metrics, figures = last_metrics(trainer) | output.metrics, {}
    if before is not None:
        figures = compare(before, evaluate("evaluating"))
    save_policy(trainer, args.run_dir / "model", is_writer=run_log.is_writer)
    run_log.finish(
        metrics=metrics,
        figures=figures,
        rewards=[
            {"reward": entry, "name": function.__name__, "weight": weight}
            for entry, function, weight in zip(args.rewards, functions, config.reward_weights, strict=True)
        ],
        dataset={
            "n_train": len(prompts.train),
            "n_eval": len(prompts.held_out),
            **prompts.counts,
            "manifest": read_manifest(args.run_dir / "dataset"),
        },
        base_model={"path": args.model, "hash": hash_model(args.model)},
    )


def positions_of(model: str) -> int | None:
    """The longest text that the model can take, in tokens, where its configuration says so."""
    return getattr(AutoConfig.from_pretrained(check_model(model)).get_text_config(), "max_position_embeddings", None)


def read_evaluation(path: Path) -> Evaluation | None:
    """What an earlier process of this run measured before the first step."""
    return Evaluation(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def last_metrics(trainer: GRPOTrainer | RLOOTrainer) -> dict[str, Any]:
    """TRL's own numbers of the last logged training step."""
    logged = [entry for entry in trainer.state.log_history if "reward" in entry]
    return dict(logged[-1]) if logged else {}
