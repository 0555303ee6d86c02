"""One base model in memory for a whole PPO run: adapters and heads on it are policy, reference, critic and rewards."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from training.recipes._data import completion_text
from training.recipes._ppo_trainer import (
    POLICY_ADAPTER,
    REFERENCE_ADAPTER,
    VALUE_HEAD,
    attach_value_head,
    with_adapter,
)
from training.sampling.heads import keep_head_input_contiguous
from training.sampling.model_files import ModelFilesError, check_adapter

Message = dict[str, str]
WEIGHTS_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"


def build_policy(
    base: str, *, dtype: torch.dtype, adapter: str | None = None, rank: int = 16, alpha: int = 32
) -> PeftModel:
    """The base with a value head and the policy's LoRA adapter on all linear layers of its backbone.

    With `adapter` (a folder) the policy begins with those weights, and a frozen copy of them, `ref`, is the reference;
    rank and alpha are then the folder's. Without, the reference is the base with its adapter off.

    Raises ModelFilesError for an adapter that doesn't fit the base or that isn't plain LoRA without dropout.
    """
    causal_lm = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    keep_head_input_contiguous(causal_lm)
    backbone = causal_lm.base_model
    # By name: `all-linear` would put an adapter on the value head, and on reward adapters' heads.
    targets = sorted({name.rpartition(".")[2] for name, part in backbone.named_modules() if type(part) is torch.nn.Linear})
    attach_value_head(causal_lm)
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM, r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=targets
    )
    if adapter:
        config = read_lora_config(adapter)
    config.modules_to_save = [VALUE_HEAD]
    model = get_peft_model(causal_lm, config)
    if adapter:
        load_weights(model, adapter, POLICY_ADAPTER)
        add_frozen_adapter(model, adapter, REFERENCE_ADAPTER)
    # Checkpoints hold what is trained; the frozen adapters are read from their own folders again.
    save_whole = model.save_pretrained

    def save_policy(*args: Any, **kwargs: Any) -> None:
        save_whole(*args, **{**kwargs, "selected_adapters": [POLICY_ADAPTER]})

    model.save_pretrained = save_policy
    return model


def read_lora_config(folder: str | Path) -> LoraConfig:
    """The configuration of a LoRA adapter that can go on the shared base. Raises ModelFilesError."""
    folder = Path(check_adapter(folder))
    config = LoraConfig.from_pretrained(str(folder))
    if not isinstance(config, LoraConfig):
        raise ModelFilesError(f"{folder} holds an adapter of type {config.peft_type}; PPO takes LoRA adapters only.")
    if config.lora_dropout:
        raise ModelFilesError(
            f"{folder} holds an adapter with lora_dropout {config.lora_dropout}. PPO needs 0: its rollouts are made in "
            "training mode, and log-probabilities must be the same twice."
        )
    config.task_type, config.modules_to_save, config.inference_mode = TaskType.CAUSAL_LM, None, False
    return config


def load_weights(model: PeftModel, folder: str | Path, name: str) -> None:
    """Put the LoRA weights of a folder into the adapter `name`, all of them. Raises ModelFilesError."""
    weights = {key: tensor for key, tensor in load_file(Path(folder) / WEIGHTS_FILE).items() if ".lora_" in key}
    # A reward adapter hung on the same backbone under another class: only the names of the layers must agree.
    places = {
        key.replace(f".{name}.", "."): weight
        for key, weight in model.named_parameters()
        if ".lora_" in key and f".{name}." in key
    }
    if strange := sorted(set(places) ^ set(weights)):
        raise ModelFilesError(f"The adapter in {folder} does not fit its base model: {strange[0]} is on one side only.")
    with torch.no_grad():
        for key, weight in places.items():
            weight.copy_(weights[key])


def add_frozen_adapter(model: PeftModel, folder: str | Path, name: str) -> None:
    """Hang a LoRA adapter from a folder on the shared base; it is never trained, and the policy stays active."""
    model.add_adapter(name, read_lora_config(folder))
    load_weights(model, folder, name)
    model.set_adapter(POLICY_ADAPTER)


class SharedReward:
    """A LoRA reward model as a second adapter and a score head on the policy's base: no second base in memory.

    Called as TRL calls reward functions. Gives what `AutoModelForSequenceClassification` with that adapter gives: the
    scalar product, in float32, of the score head and the last hidden state of the whole conversation at its last
    token that is not padding.
    """

    def __init__(
        self, model: PeftModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path, *, name: str,
        score_weight: torch.Tensor, batch_size: int = 16,
    ) -> None:  # fmt: skip
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.score_weight = score_weight.float().reshape(-1)
        self.__name__ = name
        self.adapter = f"reward_{name}"
        add_frozen_adapter(model, folder, self.adapter)

    @torch.no_grad()
    def __call__(
        self, prompts: Sequence[list[Message]], completions: Sequence[list[Message]], **columns: Any
    ) -> list[float]:
        """Rewards in logits, one for each completion."""
        longest = getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 2**31
        rows = [
            self.tokenizer.apply_chat_template(
                [*prompt, {"role": "assistant", "content": completion_text(completion)}], return_dict=True
            )["input_ids"][-longest:]
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        rewards = [0.0] * len(rows)
        order = sorted(range(len(rows)), key=lambda index: (len(rows[index]), index))
        backbone = self.model.get_base_model().base_model
        device = self.model.device
        with with_adapter(self.model, self.adapter):
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                width = max(len(rows[index]) for index in batch)
                padding = [width - len(rows[index]) for index in batch]
                # On the right, where the tokens before never see it.
                ids = torch.tensor([rows[i] + [0] * n for i, n in zip(batch, padding, strict=True)], device=device)
                mask = torch.tensor([[1] * len(rows[i]) + [0] * n for i, n in zip(batch, padding, strict=True)], device=device)
                hidden = backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
                for number, index in enumerate(batch):
                    tokens = enumerate(rows[index])
                    last = max((place for place, token in tokens if token != self.tokenizer.pad_token_id), default=0)
                    rewards[index] = float(hidden[number, last].float() @ self.score_weight.to(device))
        return rewards

    def start_value_head(self) -> None:
        """Let the critic begin as this reward model's score head, on the policy's hidden states."""
        head = getattr(self.model.get_base_model(), VALUE_HEAD)
        with torch.no_grad():
            head.modules_to_save[POLICY_ADAPTER].weight.copy_(self.score_weight[None])


def strip_value_head(folder: Path) -> None:
    """Make a saved policy a plain LoRA adapter, which loads wherever adapters do: the critic was for training only."""
    weights = load_file(folder / WEIGHTS_FILE)
    kept = {name: tensor for name, tensor in weights.items() if f".{VALUE_HEAD}." not in name}
    save_file(kept, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    config["modules_to_save"] = None
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
