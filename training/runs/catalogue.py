"""The kinds of run and the options that people may set, checked before anything is queued. No torch here.

An option that isn't listed can't be set from outside: a recipe's configuration also holds folders, hub tokens and
switches that load code, which are the operator's.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from django.conf import settings

RECIPES = Path(settings.BASE_DIR) / "config" / "recipes"


@dataclass(frozen=True)
class Option:
    """One setting of a recipe. Numbers must lie in [low, high]; a text must be one of `choices`."""

    type: type
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    is_list: bool = False

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
        if value not in self.choices:
            return f"must be one of: {', '.join(self.choices)}"
        return ""


SEED = Option(int, "of everything random", 0, 2**31 - 1)
BATCH = Option(int, "examples in one step on one device", 1, 512)
LEARNING_RATE = Option(float, "peak learning rate", 0.0, 1.0)
EPOCHS = Option(float, "passes over the training pairs", 0.01, 100)
MAX_STEPS = Option(int, "stop after so many steps; -1: by epochs", -1, 1_000_000)
MAX_LENGTH = Option(int, "tokens of prompt and completion", 16, 32_768)
SAVE_STEPS = Option(int, "a checkpoint every so many steps", 1, 100_000)
ACCUMULATION = Option(int, "batches added up before a step: less memory for the same step", 1, 1024)
CHECKPOINTING = Option(bool, "compute activations twice to hold fewer of them: less memory, a fifth slower")
RANK = Option(int, "rank of the LoRA adapter", 1, 512)
ALPHA = Option(int, "scale of the LoRA adapter", 1, 2048)


@dataclass(frozen=True)
class Kind:
    """A recipe as the web knows it."""

    label: str
    help: str
    options: dict[str, Option]
    needs_snapshot: bool = True
    makes: str = ""  # kind of model it registers; empty: completions
    is_adapter: bool = False
    model_kinds: tuple[str, ...] = ("base", "policy")


KINDS: dict[str, Kind] = {
    "sample": Kind(
        label="sample completions",
        help="Completions of the project's prompts from a policy.",
        needs_snapshot=False,
        options={
            "completions_per_prompt": Option(int, "completions of each prompt", 1, 64),
            "temperature": Option(float, "0 is greedy", 0.0, 5.0),
            "top_p": Option(float, "nucleus: 1 keeps every token", 0.01, 1.0),
            "max_new_tokens": Option(int, "longest completion, in tokens", 1, 8192),
            "batch_size": BATCH,
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
    "reward": Kind(
        label="reward model (LoRA)",
        help="TRL's RewardTrainer with an adapter: slower, and better where there are many pairs.",
        makes="reward",
        is_adapter=True,
        model_kinds=("base",),
        options={
            "adapter_rank": RANK,
            "learning_rate": LEARNING_RATE,
            "num_train_epochs": EPOCHS,
            "max_steps": MAX_STEPS,
            "per_device_train_batch_size": BATCH,
            "gradient_accumulation_steps": ACCUMULATION,
            "gradient_checkpointing": CHECKPOINTING,
            "max_length": MAX_LENGTH,
            "save_steps": SAVE_STEPS,
            "seed": SEED,
        },
    ),
    "dpo": Kind(
        label="DPO (LoRA)",
        help="Direct Preference Optimization of a policy on a snapshot's pairs.",
        makes="policy",
        is_adapter=True,
        options={
            "beta": Option(float, "how near the policy stays to where it started", 0.001, 10.0),
            "loss_type": Option(
                str, "losses to mix", choices=("sigmoid", "sft", "ipo", "hinge", "robust", "apo_zero"), is_list=True
            ),
            "loss_weights": Option(float, "weight of each loss", 0.0, 100.0, is_list=True),
            "label_smoothing": Option(float, "share of labels held to be wrong", 0.0, 0.5),
            "max_pairs_per_group": Option(int, "keep a ranking's clearest pairs only", 1, 100),
            "max_eval_pairs": Option(int, "evaluate on so many held-out pairs, drawn at random", 1, 1_000_000),
            "learning_rate": LEARNING_RATE,
            "num_train_epochs": EPOCHS,
            "max_steps": MAX_STEPS,
            "per_device_train_batch_size": BATCH,
            "gradient_accumulation_steps": ACCUMULATION,
            "gradient_checkpointing": CHECKPOINTING,
            "per_device_eval_batch_size": BATCH,
            "max_length": MAX_LENGTH,
            "adapter_rank": RANK,
            "adapter_alpha": ALPHA,
            "save_steps": SAVE_STEPS,
            "sample_every_steps": Option(int, "show sample completions every so many steps; 0: never", 0, 100_000),
            "sample_tokens": Option(int, "their length in tokens", 1, 2048),
            "seed": SEED,
        },
    ),
}


@cache
def defaults(kind: str) -> dict[str, Any]:
    """The options of the recipe's YAML in config/recipes; models and folders are the run's own."""
    path = RECIPES / f"{kind}_smollm2_135m.yaml"
    loaded = yaml.safe_load(path.read_text()) or {}
    return {key: value for key, value in loaded.items() if key not in ("model", "adapter", "run_dir", "cache")}


def check_spec(kind: str, spec: dict[str, Any]) -> dict[str, str]:
    """What is wrong with the options people set, by name; empty: nothing."""
    options = KINDS[kind].options
    wrong = {}
    for name, value in spec.items():
        if name not in options:
            wrong[f"spec.{name}"] = f"is not an option of {kind}; known: {', '.join(options)}"
        elif value is not None and (problem := options[name].problem(value)):
            wrong[f"spec.{name}"] = problem
    if not wrong and len(spec.get("loss_type") or []) != len(spec.get("loss_weights") or spec.get("loss_type") or []):
        wrong["spec.loss_weights"] = "needs one weight for each loss_type"
    return wrong
