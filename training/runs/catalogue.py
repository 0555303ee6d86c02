"""The kinds of run: what each is, takes, makes and lets people set. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from django.conf import settings

from training.runs.options import (
    BATCH,
    GROUP_BY_LENGTH,
    KEEP_CHECKPOINTS,
    LAUNCH_OPTIONS,
    MAX_LENGTH,
    MAX_PREAMBLE,
    OFFLINE_OPTIONS,
    ONLINE_OPTIONS,
    SEED,
    Option,
)

RECIPES = Path(settings.BASE_DIR) / "config" / "recipes"


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
            "n_heads": Option(int, "score heads on the one adapter; from 2 on an ensemble, which knows how unsure it is", 1, 64),
            "axes": Option(str, "a score head for what was rated on each; none: one for all pairs", is_list=True, max_chars=60),
            "axis_weights": Option(float, "how much each axis counts for the model's own reward; alike by default", -100.0, 100.0, is_list=True),
            **{name: option for name, option in OFFLINE_OPTIONS.items() if name not in ("sample_every_steps", "sample_tokens")},
            "group_by_length": GROUP_BY_LENGTH,
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
            "label_smoothing": Option(float, "share of labels held to be wrong; losses sigmoid and robust", 0.0, 0.49),
            "smoothing_from": Option(
                str, "how likely each pair's label is wrong: by how far people agreed on it, or by its soft label",
                choices=("none", "agreement", "soft_label"),
            ),
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
        may_copy=True,
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
        may_copy=True,
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
        may_copy=True,
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
