"""The kinds of run and the options that people may set, checked before anything is queued. No torch here.

An option that isn't listed can't be set from outside: a recipe's configuration also holds folders, hub tokens and
switches that load code, which are the operator's.
"""

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from django.conf import settings

from training.runs.launchers import ONE, launcher_names, shards

RECIPES = Path(settings.BASE_DIR) / "config" / "recipes"


@dataclass(frozen=True)
class Option:
    """One setting of a recipe. Numbers must lie in [low, high]; a text is one of `choices`, or free up to `max_chars`."""

    type: type
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    is_list: bool = False
    max_chars: int = 0

    def problem(self, value: Any) -> str:
        """What is wrong with a value, or an empty string."""
        if self.is_list:
            if not isinstance(value, list) or not value:
                return "must be a list that is not empty"
            return next((found for item in value if (found := self._problem_of_one(item))), "")
        return self._problem_of_one(value)

    def _problem_of_one(self, value: Any) -> str:
        if self.type is bool:
            return "" if isinstance(value, bool) else "must be true or false"
        if self.type in (int, float):
            if isinstance(value, bool) or not isinstance(value, int if self.type is int else (int, float)):
                return "must be a whole number" if self.type is int else "must be a number"
            if not self.low <= value <= self.high:
                return f"must lie between {self.low} and {self.high}"
            return ""
        if self.max_chars:
            return _problem_of_text(value, self.max_chars)
        if value not in self.choices:
            return f"must be one of: {', '.join(self.choices)}"
        return ""


def _problem_of_text(value: Any, max_chars: int) -> str:
    if not isinstance(value, str):
        return "must be a text"
    if len(value) > max_chars:
        return f"has {len(value):,} characters, at most {max_chars:,} are taken"
    if bad := next((char for char in value if unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t"), None):
        return f"holds the character U+{ord(bad):04X}, which is no text"
    return ""


SEED = Option(int, "of everything random", 0, 2**31 - 1)
BATCH = Option(int, "examples in one step on one device", 1, 512)
LEARNING_RATE = Option(float, "peak learning rate", 0.0, 1.0)
EPOCHS = Option(float, "passes over the training data", 0.01, 100)
MAX_STEPS = Option(int, "stop after so many steps; -1: by epochs", -1, 1_000_000)
MAX_LENGTH = Option(int, "tokens of prompt and completion", 16, 32_768)
SAVE_STEPS = Option(int, "a checkpoint every so many steps", 1, 100_000)
ACCUMULATION = Option(int, "batches added up before a step: less memory for the same step", 1, 1024)
CHECKPOINTING = Option(bool, "compute activations twice to hold fewer of them: less memory, a fifth slower")
RANK = Option(int, "rank of the adapter; 0 trains all weights", 0, 512)
ALPHA = Option(int, "scale of the adapter", 1, 2048)
ADAPTER_KIND = Option(
    str, "of a new adapter: LoRA, with directions and lengths apart, or with a scale by the root of the rank",
    choices=("lora", "dora", "rslora"),
)  # fmt: skip
QUANTISED = Option(str, "hold the frozen base in four bits a weight: NVIDIA GPUs with bitsandbytes only", choices=("no", "4bit"))
GROUP_BY_LENGTH = Option(bool, "batches of rows of about the same length: less padding, so quicker")
SAMPLE_EVERY = Option(int, "show sample completions every so many steps; 0: never", 0, 100_000)
MAX_PREAMBLE = 8000
SAMPLE_TOKENS = Option(int, "their length in tokens", 1, 2048)


# Of the run rather than of its recipe, which never sees them.
LAUNCH_OPTIONS = {
    "launcher": Option(
        str, "one process, several on processors, or one for each GPU: with a copy of the model each, or with parts of it",
        choices=launcher_names(),
    ),
    "processes": Option(int, "with another launcher than one: processes on each machine", 1, 64),
}  # fmt: skip
KEEP_CHECKPOINTS = {"keep_checkpoints": Option(bool, "keep the last checkpoints when the run is done")}
RUN_DEFAULTS = {"launcher": ONE, "processes": 2, "keep_checkpoints": False}

# Of the kinds that train a policy's adapter on rows of a snapshot.
OFFLINE_OPTIONS = {
    "learning_rate": LEARNING_RATE,
    "num_train_epochs": EPOCHS,
    "max_steps": MAX_STEPS,
    "per_device_train_batch_size": BATCH,
    "gradient_accumulation_steps": ACCUMULATION,
    "gradient_checkpointing": CHECKPOINTING,
    "max_length": MAX_LENGTH,
    "adapter_rank": RANK,
    "adapter_alpha": ALPHA,
    "adapter_kind": ADAPTER_KIND,
    "quantised_base": QUANTISED,
    "save_steps": SAVE_STEPS,
    "sample_every_steps": SAMPLE_EVERY,
    "sample_tokens": SAMPLE_TOKENS,
    "seed": SEED,
}
# Of those that train it on rewards of its own completions.
ONLINE_OPTIONS = {
    "beta": Option(float, "how near the policy stays to where it started: weight of the KL penalty", 0.0, 10.0),
    "learning_rate": LEARNING_RATE,
    "num_train_epochs": Option(float, "passes over the training prompts", 0.01, 100),
    "max_steps": MAX_STEPS,
    "num_generations": Option(int, "completions of each prompt that are compared", 2, 64),
    "per_device_train_batch_size": Option(int, "completions in one step on one device", 2, 512),
    "gradient_accumulation_steps": ACCUMULATION,
    "steps_per_generation": Option(int, "batches sampled in one go; by default as many as are accumulated", 1, 1024),
    "num_iterations": Option(int, "times that each rollout is learnt from", 1, 16),
    "gradient_checkpointing": CHECKPOINTING,
    "max_completion_length": Option(int, "longest completion, in tokens", 1, 8192),
    "max_prompt_length": Option(int, "longer prompts, in tokens, are left out and counted", 1, 32_768),
    "temperature": Option(float, "of the rollouts", 0.01, 5.0),
    "top_p": Option(float, "nucleus of the rollouts: 1 keeps every token", 0.01, 1.0),
    "adapter_rank": RANK,
    "adapter_alpha": ALPHA,
    "adapter_kind": ADAPTER_KIND,
    "quantised_base": QUANTISED,
    "save_steps": SAVE_STEPS,
    "eval_completions": Option(int, "completions of each held-out prompt, before and after; 0: no evaluation", 0, 64),
    "max_eval_prompts": Option(int, "evaluate on so many held-out prompts, drawn at random", 1, 100_000),
    "eval_batch_size": BATCH,
    "sample_every_steps": Option(int, "show completions with their rewards every so many steps; 0: never", 0, 100_000),
    "seed": SEED,
}


@dataclass(frozen=True)
class Kind:
    """A recipe as the web knows it.

    `view` names the rows of a snapshot that it learns from; its option `labels_from` may name others.
    """

    label: str
    help: str
    options: dict[str, Option]
    needs_snapshot: bool = True
    needs_rewards: bool = False  # learns from rewards of its own completions
    may_have_rewards: bool = False
    may_have_snapshot: bool = False
    prompt_splits: tuple[str, ...] = ()  # which prompts of the project it is given; none: all
    other_model: str = ""  # what a second model is to it; empty: it takes none
    needs_prompts: bool = True  # where it needs no snapshot
    needs_adapter: bool = False
    explains: bool = False  # says why a reward model rewards something, and makes nothing
    started_at: str = ""  # the page that starts it, where that is not the one for new runs
    makes: str = ""  # kind of model it registers; empty: completions
    is_adapter: bool = False
    model_kinds: tuple[str, ...] = ("base", "policy")
    view: str = "preference"
    view_by_labels: Mapping[str, str] = field(default_factory=dict)
    may_copy: bool = False  # several processes, each with a copy of the weights
    may_shard: bool = False  # or with a part of them

    @property
    def run_options(self) -> dict[str, Option]:
        """Those of the run itself, beside the recipe's."""
        return (LAUNCH_OPTIONS if self.may_copy else {}) | (KEEP_CHECKPOINTS if "save_steps" in self.options else {})

    @property
    def settable(self) -> dict[str, Option]:
        return self.options | self.run_options


KINDS: dict[str, Kind] = {
    "sample": Kind(
        label="sample completions",
        help="Completions of the project's prompts from a policy.",
        needs_snapshot=False,
        model_kinds=("base", "policy", "gguf"),  # a GGUF file where an endpoint serves it
        options={
            "completions_per_prompt": Option(int, "completions of each prompt", 1, 64),
            "temperature": Option(float, "0 is greedy", 0.0, 5.0),
            "top_p": Option(float, "nucleus: 1 keeps every token", 0.01, 1.0),
            "max_new_tokens": Option(int, "longest completion, in tokens", 1, 8192),
            "batch_size": BATCH,
            "budget": Option(float, "at an endpoint with prices: stop before this is spent", 0.0, 1_000_000),
            "token_budget": Option(int, "at an endpoint: stop before so many tokens are used", 1, 10**12),
            "seed": SEED,
        },
    ),
    "reward_head": Kind(
        label="reward model (head on cached features)",
        help="Bradley-Terry on the frozen base model's hidden states: encodes once, then fits in seconds.",
        makes="reward",
        model_kinds=("base",),
        options={
            "layer": Option(int, "hidden layer the features come from", 1, 512),
            "pooling": Option(str, "over the completion's tokens", choices=("mean", "last")),
            "dimensions": Option(int, "principal components kept", 1, 4096),
            "ridge_by": Option(str, "how the ridge is chosen", choices=("evidence", "cv")),
            "batch_size": BATCH,
            "max_length": MAX_LENGTH,
            "seed": SEED,
        },
    ),
    "layers": Kind(
        label="measure layers",
        help="Which hidden layer and pooling of a base model predicts preferences best. Trains nothing.",
        started_at="features:detail",
        model_kinds=("base",),
        options={
            "max_pairs": Option(int, "measure on so many training pairs at most, whole prompt groups", 20, 100_000),
            "dimensions": Option(int, "principal components kept", 1, 4096),
            "ridge_by": Option(str, "how the ridge is chosen", choices=("evidence", "cv")),
            "folds": Option(int, "of the cross-validation, by prompt group", 2, 20),
            "batch_size": BATCH,
            "max_length": MAX_LENGTH,
            "seed": SEED,
        },
    ),
    "encode": Kind(
        label="encode completions",
        help="The hidden states that reward heads learn from, once for each completion. Starts by itself.",
        needs_snapshot=False,
        needs_prompts=False,
        started_at="features:detail",
        model_kinds=("base",),
        options={"batch_size": BATCH, "shard_size": Option(int, "completions written at once", 1, 10_000)},
    ),
    "reward": Kind(
        label="reward model (LoRA)",
        help="TRL's RewardTrainer with an adapter: slower, and better where there are many pairs.",
        makes="reward",
        is_adapter=True,
        model_kinds=("base",),
        may_copy=True,
        may_shard=True,
        options={
            "adapter_rank": RANK,
            "adapter_alpha": ALPHA,
            "adapter_kind": ADAPTER_KIND,
            "quantised_base": QUANTISED,
            "n_heads": Option(int, "score heads on the one adapter; from 2 on an ensemble, which knows how unsure it is", 1, 64),
            "axes": Option(str, "a score head for what was rated on each; none: one for all pairs", is_list=True, max_chars=60),
            "axis_weights": Option(float, "how much each axis counts for the model's own reward; alike by default", -100.0, 100.0, is_list=True),
            "learning_rate": LEARNING_RATE,
            "num_train_epochs": EPOCHS,
            "max_steps": MAX_STEPS,
            "per_device_train_batch_size": BATCH,
            "gradient_accumulation_steps": ACCUMULATION,
            "gradient_checkpointing": CHECKPOINTING,
            "max_length": MAX_LENGTH,
            "group_by_length": GROUP_BY_LENGTH,
            "save_steps": SAVE_STEPS,
            "seed": SEED,
        },
    ),
    "dpo": Kind(
        label="DPO (LoRA)",
        help="Direct Preference Optimization of a policy on a snapshot's pairs.",
        makes="policy",
        is_adapter=True,
        may_copy=True,
        may_shard=True,
        options={
            "beta": Option(float, "how near the policy stays to where it started", 0.001, 10.0),
            "loss_type": Option(
                str, "losses to mix", choices=("sigmoid", "sft", "ipo", "hinge", "robust", "apo_zero"), is_list=True
            ),
            "loss_weights": Option(float, "weight of each loss", 0.0, 100.0, is_list=True),
            "label_smoothing": Option(float, "share of labels held to be wrong", 0.0, 0.5),
            "max_pairs_per_group": Option(int, "keep a ranking's clearest pairs only", 1, 100),
            "max_eval_pairs": Option(int, "evaluate on so many held-out pairs, drawn at random", 1, 1_000_000),
            **OFFLINE_OPTIONS,
            "group_by_length": GROUP_BY_LENGTH,
            "per_device_eval_batch_size": BATCH,
        },
    ),
    "sft": Kind(
        label="SFT (LoRA)",
        help="Supervised fine-tuning on corrections, demonstrations and best completions.",
        makes="policy",
        is_adapter=True,
        view="sft",
        may_copy=True,
        may_shard=True,
        options={
            "sources": Option(
                str, "which texts take part", choices=("correction", "demonstration", "best"), is_list=True
            ),
            "max_eval_rows": Option(int, "evaluate on so many held-out texts, drawn at random", 1, 1_000_000),
            **OFFLINE_OPTIONS,
            "group_by_length": GROUP_BY_LENGTH,
            "per_device_eval_batch_size": BATCH,
        },
    ),
    "kto": Kind(
        label="KTO (LoRA)",
        help="Kahneman-Tversky Optimization of a policy on completions that are acceptable or not.",
        makes="policy",
        is_adapter=True,
        view="unpaired",
        view_by_labels={"pairs": "preference"},
        may_copy=True,
        may_shard=True,
        options={
            "labels_from": Option(
                str, "what was called acceptable or not, or who won the pairs", choices=("acceptable", "pairs")
            ),
            "beta": Option(float, "how near the policy stays to where it started", 0.001, 10.0),
            "loss_type": Option(str, "KTO's own, or APO-zero's for single completions", choices=("kto", "apo_zero_unpaired")),
            "desirable_weight": Option(float, "of acceptable completions; left out: it balances the counts", 0.001, 1000.0),
            "undesirable_weight": Option(float, "of the others; left out: it balances the counts", 0.001, 1000.0),
            "precompute_ref_log_probs": Option(bool, "ask the reference model once, before training"),
            "max_eval_rows": Option(int, "evaluate on so many held-out completions, drawn at random", 1, 1_000_000),
            **OFFLINE_OPTIONS,
            "per_device_train_batch_size": Option(int, "completions in one step on one device; 4 or more is better", 2, 512),
        },
    ),
    "grpo": Kind(
        label="GRPO (LoRA)",
        help="A policy learns from rewards of its own completions, each compared with others of its prompt.",
        needs_snapshot=False,
        needs_rewards=True,
        prompt_splits=("train", "eval"),
        makes="policy",
        is_adapter=True,
        options={
            **ONLINE_OPTIONS,
            "loss_type": Option(str, "what is averaged", choices=("dapo", "grpo", "bnpo", "dr_grpo")),
            "scale_rewards": Option(str, "what the advantage is divided by", choices=("group", "batch", "none")),
            "epsilon": Option(float, "clipping of the probability ratio", 0.0, 10.0),
        },
    ),
    "rloo": Kind(
        label="RLOO (LoRA)",
        help="REINFORCE on rewards of the policy's own completions; the others of a prompt are the baseline of each.",
        needs_snapshot=False,
        needs_rewards=True,
        prompt_splits=("train", "eval"),
        makes="policy",
        is_adapter=True,
        options={
            **ONLINE_OPTIONS,
            "normalize_advantages": Option(bool, "divide advantages by their standard deviation over the batch"),
            "epsilon": Option(float, "clipping of the probability ratio", 0.0, 10.0),
        },
    ),
    "ppo": Kind(
        label="PPO (LoRA)",
        help="A policy learns from rewards of its own completions, token by token, by a critic on the same base model.",
        needs_snapshot=False,
        needs_rewards=True,
        prompt_splits=("train", "eval"),
        makes="policy",
        is_adapter=True,
        options={
            **{name: option for name, option in ONLINE_OPTIONS.items() if name not in ("adapter_kind", "quantised_base")},
            "adapter_rank": Option(int, "rank of the LoRA adapter", 1, 512),
            "num_generations": Option(int, "completions of each prompt in a rollout", 1, 64),
            "beta": Option(float, "KL coefficient: how much of a token's reward its KL from the start takes away", 0.0, 10.0),
            "kl_target_nats": Option(float, "adapt beta to keep the KL of a completion near this", 0.001, 1000.0),
            "max_kl_nats": Option(float, "end training where the mean KL of a rollout's completions passes this", 0.001, 10_000.0),
            "gamma": Option(float, "discount of later rewards, a token", 0.0, 1.0),
            "lam": Option(float, "lambda of generalised advantage estimation", 0.0, 1.0),
            "vf_coef": Option(float, "weight of the value loss", 0.0, 100.0),
            "epsilon": Option(float, "clipping of the probability ratio", 0.001, 10.0),
            "cliprange_value": Option(float, "clipping of the values' change", 0.001, 1000.0),
            "value_head_learning_rate": Option(float, "learning rate of the critic's head", 0.0, 1.0),
            "value_head_from": Option(
                str, "start the critic at zero, or as the first reward model's head", choices=("zero", "reward")
            ),
            "whiten_rewards": Option(bool, "divide token rewards by their standard deviation over the rollout"),
            "missing_eos_penalty": Option(float, "taken off the score of completions that were cut off", 0.0, 1000.0),
        },
    ),
    "distill": Kind(
        label="distillation (LoRA)",
        help="A policy learns to answer as a teacher: itself with a preamble, or another model.",
        needs_snapshot=False,
        prompt_splits=("train", "eval"),
        other_model="teacher",
        makes="policy",
        is_adapter=True,
        may_copy=True,
        options={
            "preamble": Option(
                str, "what the teacher reads before each prompt, and the student doesn't", max_chars=MAX_PREAMBLE
            ),
            "loss": Option(str, "distance of the distributions, or cross-entropy of the teacher's texts", choices=("kl", "texts")),
            "written_by": Option(str, "whose completions are learnt on", choices=("teacher", "student")),
            "divergence_beta": Option(float, "0: KL(teacher, student); 1: the other way round; between: mixed", 0.0, 1.0),
            "completions_per_prompt": Option(int, "completions of each prompt to train on", 1, 64),
            "temperature": Option(float, "of the completions", 0.01, 5.0),
            "top_p": Option(float, "nucleus of the completions: 1 keeps every token", 0.01, 1.0),
            "max_completion_length": Option(int, "longest completion, in tokens", 1, 8192),
            "max_prompt_length": Option(int, "longer prompts, preamble included, are left out and counted", 1, 32_768),
            "generation_batch_size": Option(int, "completions sampled at once", 1, 512),
            "eval_completions": Option(int, "the teacher's completions of each held-out prompt; 0: no evaluation", 0, 64),
            "max_eval_prompts": Option(int, "evaluate on so many held-out prompts, drawn at random", 1, 100_000),
            **{name: option for name, option in OFFLINE_OPTIONS.items() if name != "max_length"},
            "per_device_eval_batch_size": BATCH,
        },
    ),
    "evaluate": Kind(
        label="evaluate a policy",
        help="Rewards, win rate, KL and lengths on held-out prompts, beside a reference or alone. Trains nothing.",
        needs_snapshot=False,
        may_have_rewards=True,
        may_have_snapshot=True,
        prompt_splits=("eval",),
        other_model="reference",
        view="sft",
        options={
            "completions_per_prompt": Option(int, "completions of each prompt", 1, 64),
            "temperature": Option(float, "0 is greedy", 0.0, 5.0),
            "top_p": Option(float, "nucleus: 1 keeps every token", 0.01, 1.0),
            "max_new_tokens": Option(int, "longest completion, in tokens", 1, 8192),
            "max_prompts": Option(int, "evaluate on so many held-out prompts, drawn at random", 1, 100_000),
            "max_prompt_length": Option(int, "longer prompts, in tokens, are left out and counted", 1, 32_768),
            "max_texts": Option(int, "loss on so many held-out texts of the snapshot, drawn at random", 1, 1_000_000),
            "max_length": MAX_LENGTH,
            "batch_size": BATCH,
            "seed": SEED,
        },
    ),
    "merge": Kind(
        label="merge an adapter",
        help="A policy that loads by itself, out of an adapter and its base.",
        needs_snapshot=False,
        needs_prompts=False,
        needs_adapter=True,
        makes="policy",
        model_kinds=("policy",),
        options={"dtype": Option(str, "of the merged weights", choices=("base", "float32", "bfloat16"))},
    ),
    "gguf": Kind(
        label="write a GGUF file",
        help="A policy as one quantised file for small machines, and what quantising costs on held-out prompts.",
        needs_snapshot=False,
        prompt_splits=("eval",),
        makes="gguf",
        options={
            "quantisation": Option(
                str, "bits of a weight: 16, 8.5, 6, 5.5, 5, 4.5", choices=("f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
            ),
            "completions_per_prompt": Option(int, "completions of each held-out prompt to compare on", 1, 64),
            "temperature": Option(float, "of these; 0 is greedy", 0.0, 5.0),
            "max_new_tokens": Option(int, "longest completion, in tokens", 1, 8192),
            "max_prompts": Option(int, "compare on so many held-out prompts, drawn at random", 1, 100_000),
            "max_prompt_length": Option(int, "longer prompts, in tokens, are left out and counted", 1, 32_768),
            "batch_size": BATCH,
            "seed": SEED,
        },
    ),
    "explain": Kind(
        label="explain a reward",
        help="Which tokens and sentences of a completion its reward comes from, and why another one has more.",
        needs_snapshot=False,
        needs_prompts=False,
        explains=True,
        model_kinds=("reward",),
        options={
            "baseline": Option(str, "what a token is compared with", choices=("average", "end")),
            "max_path_steps": Option(int, "points on the path of integrated gradients, at most", 1, 1024),
        },
    ),
}


NOT_OPTIONS = (
    "model", "base", "adapter", "run_dir", "cache", "features", "rewards", "reward_weights", "preamble", "name", "licence",
)  # fmt: skip


@cache
def defaults(kind: str) -> dict[str, Any]:
    """The options of the recipe's YAML in config/recipes; models and folders are the run's own."""
    path = RECIPES / f"{kind}_smollm2_135m.yaml"
    loaded = yaml.safe_load(path.read_text()) or {}
    return {key: value for key, value in loaded.items() if key not in NOT_OPTIONS}


def view_of(kind: str, spec: dict[str, Any]) -> str:
    """The view of a snapshot whose rows a run with these options learns from."""
    known = KINDS[kind]
    labels = spec.get("labels_from", defaults(kind).get("labels_from"))
    return known.view_by_labels.get(labels, known.view)


def makes_adapter(kind: str, spec: dict[str, Any]) -> bool:
    """Whether a run with these options makes an adapter, rather than a whole model."""
    return KINDS[kind].is_adapter and spec.get("adapter_rank", defaults(kind).get("adapter_rank", 1)) > 0


def check_spec(kind: str, spec: dict[str, Any]) -> dict[str, str]:
    """What is wrong with the options people set, by name; empty: nothing."""
    options = KINDS[kind].settable
    wrong = {}
    for name, value in spec.items():
        if name in LAUNCH_OPTIONS and name not in options:
            wrong[f"spec.{name}"] = f"is not for a run of kind {kind}, which is one process: leave it out"
        elif name not in options:
            wrong[f"spec.{name}"] = f"is not an option of {kind}; known: {', '.join(options)}"
        elif value is not None and (problem := options[name].problem(value)):
            wrong[f"spec.{name}"] = problem
    if not wrong and "loss_weights" in options:
        losses = spec.get("loss_type") or []
        if len(losses) != len(spec.get("loss_weights") or losses):
            wrong["spec.loss_weights"] = "needs one weight for each loss_type"
    if not wrong and "axes" in options:
        wrong |= _check_axes(spec)
    if not wrong and not makes_adapter(kind, spec):
        if spec.get("adapter_kind", "lora") != "lora":
            wrong["spec.adapter_kind"] = f"is {spec['adapter_kind']}, but adapter_rank is 0: there is no adapter"
        if spec.get("quantised_base", "no") != "no":
            wrong["spec.quantised_base"] = "holds a frozen base, but adapter_rank is 0: all weights are trained"
    if not wrong and kind == "distill" and spec.get("loss") == "texts" and spec.get("written_by") == "student":
        wrong["spec.loss"] = "is texts, which are the teacher's: set written_by to teacher, or loss to kl"
    if not wrong and kind == "evaluate" and spec.get("temperature") == 0 and spec.get("completions_per_prompt", 2) > 1:
        wrong["spec.temperature"] = "is 0, so all completions of a prompt would be one: set completions_per_prompt to 1"
    if not wrong and KINDS[kind].needs_rewards:
        wrong |= _check_rollouts(kind, spec)
    return wrong or _check_launcher(kind, spec)


def _check_launcher(kind: str, spec: dict[str, Any]) -> dict[str, str]:
    launcher = spec.get("launcher") or ONE
    if launcher == ONE:
        if (spec.get("processes") or 1) > 1:
            return {"spec.processes": f"is {spec['processes']}, but launcher is {ONE}: choose another launcher, such as torchrun"}
        return {}
    if kind == "distill" and spec.get("written_by") == "student":
        return {"spec.launcher": f"is {launcher}, but a student that writes its own completions is one process: choose {ONE}"}
    if spec.get("quantised_base", "no") != "no" and shards(launcher):
        return {"spec.launcher": f"is {launcher}, which holds parts of the weights, but a base of four bits stays whole: choose ddp"}
    if shards(launcher):
        if not KINDS[kind].may_shard:
            return {"spec.launcher": f"is {launcher}, but a run of kind {kind} needs the whole model in each process: choose ddp"}
        if (spec.get("n_heads") or 1) > 1 or spec.get("axes"):
            return {"spec.launcher": f"is {launcher}, but several heads need the whole model in each process: choose ddp"}
    return {}


def _check_axes(spec: dict[str, Any]) -> dict[str, str]:
    axes, weights = spec.get("axes") or [], spec.get("axis_weights")
    if len(set(axes)) < len(axes):
        return {"spec.axes": f"names {next(axis for axis in axes if axes.count(axis) > 1)!r} twice"}
    if axes and spec.get("n_heads", 1) > 1:
        return {"spec.n_heads": f"is {spec['n_heads']}, and there are axes: a head is one of an ensemble or of an axis"}
    if len(axes) > 1 and spec.get("quantised_base", "no") != "no":
        return {"spec.quantised_base": "is 4bit, and there are several axes: their heads are made on a base in full"}
    if weights is not None and (len(weights) != len(axes) or not any(weights)):
        return {"spec.axis_weights": "needs one weight for each of the axes, not all 0"}
    return {}


def _check_rollouts(kind: str, spec: dict[str, Any]) -> dict[str, str]:
    options = {**defaults(kind), **{name: value for name, value in spec.items() if value is not None}}
    n, completions = options.get("num_generations", 1), completions_a_rollout(kind, spec)
    if completions % n:
        return {
            "spec.num_generations": f"is {n}, and a rollout has {completions} completions (per_device_train_batch_size "
            "times the batches sampled in one go): that must be a multiple of it"
        }
    accumulation = options["gradient_accumulation_steps"]
    if kind == "ppo" and _batches(options) * options["num_iterations"] % accumulation:
        return {
            "spec.gradient_accumulation_steps": f"is {accumulation}, it must divide steps_per_generation x num_iterations: "
            "a step would mix two rollouts"
        }
    if kind == "ppo" and options.get("kl_target_nats") and not options["beta"]:
        return {"spec.kl_target_nats": "adapts beta, which is 0 and would stay so: give beta a first value"}
    cycle = math.lcm(_batches(options) * options.get("num_iterations", 1), accumulation) // accumulation
    if options["save_steps"] % cycle:
        return {
            "spec.save_steps": f"is {options['save_steps']}, it must be a multiple of {cycle}: one rollout serves so many "
            "steps, and checkpoints lie between rollouts"
        }
    return {}


def _batches(options: dict[str, Any]) -> int:
    return options.get("steps_per_generation") or options["gradient_accumulation_steps"]


def completions_a_rollout(kind: str, spec: dict[str, Any]) -> int:
    """Completions that a recipe trained on rewards samples in one go, on one device."""
    options = {**defaults(kind), **{name: value for name, value in spec.items() if value is not None}}
    return options["per_device_train_batch_size"] * _batches(options)


def prompts_a_rollout(kind: str, spec: dict[str, Any]) -> int:
    """Prompts that must be there at least. `spec` has been checked."""
    if not KINDS[kind].needs_rewards:
        return 1
    return completions_a_rollout(kind, spec) // {**defaults(kind), **spec}.get("num_generations", 1)
