"""What people may set of a run, and which values are taken. No torch here.

An option that isn't listed can't be set from outside: a recipe's configuration also holds folders, hub tokens and
switches that load code, which are the operator's.
"""

import unicodedata
from dataclasses import dataclass
from typing import Any

from training.runs.launchers import ONE, launcher_names


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
