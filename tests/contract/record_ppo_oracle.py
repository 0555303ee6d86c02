"""Record what the PPOTrainer of TRL 1.12, the last release that had one, computes on a tiny model: our oracle.

Run by hand, in an environment of its own (`pip install trl==1.12.0 torch==2.13.0 peft`), from the top of the checkout:

    PYTHONPATH=. python tests/contract/record_ppo_oracle.py

It writes `tests/contract/data/ppo_oracle.safetensors`, which `test_ppo_parity.py` compares with. Two rollouts of eight
completions, two epochs of two minibatches each; learning rate and clip ranges are such that both clips are at work.
The tensors are picked out of the local variables of `train`, whose names the release fixed for good.
"""

import sys
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

from training.sampling.tiny_model import build_tiny_model

OUT = Path(__file__).parent / "data" / "ppo_oracle.safetensors"
SETTINGS = {"kl_coef": 0.2, "gamma": 0.97, "lam": 0.9, "cliprange": 0.05, "cliprange_value": 0.1, "vf_coef": 0.3}
OF_ROLLOUT = (
    "logprobs", "ref_logprobs", "values", "scores", "padding_mask", "padding_mask_p1", "actual_end", "kl",
    "non_score_reward", "rewards", "returns",
)  # fmt: skip
OF_MINIBATCH = ("new_logprobs", "vpred", "vf_loss", "vf_clipfrac", "pg_loss", "loss")

recorded: dict[str, torch.Tensor] = {}
rollouts, minibatches = 0, 0
whiten, mean = ppo_trainer.masked_whiten, ppo_trainer.masked_mean


def keep(name: str, value: torch.Tensor) -> None:
    """Booleans as bytes, the rest as float32 or int64."""
    recorded[name] = value.detach().clone().contiguous().to(torch.uint8 if value.dtype == torch.bool else value.dtype)


def watch_whiten(values: torch.Tensor, mask: torch.Tensor, shift_mean: bool = True) -> torch.Tensor:
    """Called once a rollout, with its raw advantages."""
    global rollouts
    result = whiten(values, mask, shift_mean)
    variables = sys._getframe(1).f_locals
    for name in OF_ROLLOUT:
        keep(f"rollout{rollouts}.{name}", variables[name])
    keep(f"rollout{rollouts}.raw_advantages", values)
    keep(f"rollout{rollouts}.advantages", result.masked_fill(~mask, 0))
    rollouts += 1
    return result


def watch_mean(values: torch.Tensor, mask: torch.Tensor, axis: bool | None = None) -> torch.Tensor:
    """Called last in a minibatch for the share of clipped tokens."""
    global minibatches
    result = mean(values, mask, axis)
    variables = sys._getframe(1).f_locals
    if "vf_clipfrac" in variables and "loss" in variables:
        for name in OF_MINIBATCH:
            keep(f"minibatch{minibatches}.{name}", variables[name])
        keep(f"minibatch{minibatches}.rows", torch.as_tensor(variables["micro_batch_inds"]))
        keep(f"minibatch{minibatches}.pg_clipfrac", result)
        keep(f"minibatch{minibatches}.rollout", torch.tensor(rollouts - 1))
        minibatches += 1
    return result


def main() -> None:
    """Two updates, recorded."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = build_tiny_model(Path(scratch) / "tiny")
        # Other than the end token here: the release looks for the end of a completion by its padding.
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", pad_token="<|endoftext|>")

        def policy() -> torch.nn.Module:
            return AutoModelForCausalLM.from_pretrained(folder)

        def critic(seed: int) -> torch.nn.Module:
            torch.manual_seed(seed)
            model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
            torch.nn.init.normal_(model.score.weight, std=0.1)
            return model

        prompts = [f"Where is order {number}? I wait." for number in range(16)]
        # A random model hardly ever says its end token. What it says most ends a completion here: some early, some not.
        ids = torch.tensor([tokenizer(prompts[0])["input_ids"]] * 64)
        said = policy().generate(ids, attention_mask=ids > 0, do_sample=True, top_k=0, max_new_tokens=12, eos_token_id=-1)
        stop = int(torch.bincount(said[:, ids.shape[1] :].flatten()).argmax())
        trainer = PPOTrainer(
            args=PPOConfig(
                output_dir=scratch, per_device_train_batch_size=4, gradient_accumulation_steps=2, num_mini_batches=2,
                num_ppo_epochs=2, total_episodes=16, response_length=12, stop_token=None, stop_token_id=stop, learning_rate=5e-3,
                num_sample_generations=0, report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False, seed=7,
                **SETTINGS,
            ),
            processing_class=tokenizer, model=policy(), ref_model=policy(), reward_model=critic(1), value_model=critic(2),
            train_dataset=Dataset.from_list([{"input_ids": tokenizer(text)["input_ids"]} for text in prompts]),
        )  # fmt: skip
        ppo_trainer.masked_whiten, ppo_trainer.masked_mean = watch_whiten, watch_mean
        with torch.random.fork_rng():
            trainer.train()
    OUT.parent.mkdir(parents=True, exist_ok=True)
    save_file(recorded, OUT, metadata={name: str(value) for name, value in SETTINGS.items()} | {"trl": "1.12.0"})
    for name, value in recorded.items():
        if name.rpartition(".")[2] in ("actual_end", "pg_clipfrac", "vf_clipfrac", "loss"):
            print(name, value.tolist())
    print(f"{OUT}: {OUT.stat().st_size} bytes, {rollouts} rollouts, {minibatches} minibatches")


if __name__ == "__main__":
    main()
