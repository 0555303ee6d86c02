"""Seconds an update and peak memory of PPO, ours and that of TRL 1.12, the last release that had a PPOTrainer.

    python -m bench.ppo --model var/models/smollm2-135m-instruct --trl-python ENV/bin/python

ENV is an environment of its own with `trl==1.12.0 peft` and the torch of this one; without it only ours is measured. Both
train a LoRA adapter of rank 16 on the same base with the same LoRA reward model, made here with random weights (merged
for TRL, which takes no adapter), the same prompts, batch, epochs and exactly `--tokens` new tokens a completion. TRL's critic is a
second model that is trained whole; ours is a head on the policy's base. Each trainer runs in processes of its own, in
turn, `--rounds` times; the first update of each is not counted. On a machine that is busy otherwise compare processor seconds.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS = ["How do I reset my password?", "Write a haiku about the sea.", "Why is the sky blue?", "Where is my order?"]


def make_reward_model(model: str, folder: Path) -> None:
    """A LoRA reward model with random weights, and the same merged, in `folder`/adapter and `folder`/merged."""
    import torch
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    base = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1, dtype=torch.float32)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS, r=16, lora_alpha=32, target_modules="all-linear", modules_to_save=["score"],
        init_lora_weights=False,
    )  # fmt: skip
    reward = get_peft_model(base, config)
    with torch.no_grad():
        for name, weight in reward.named_parameters():
            if "lora_B" in name:
                weight.mul_(0.01)
    reward.save_pretrained(folder / "adapter")
    reward.merge_and_unload().save_pretrained(folder / "merged")


class Times:
    """Seconds and processor seconds of each update, told by a callback of either trainer at its end."""

    def __init__(self, steps: int) -> None:
        self.steps, self.began, self.seconds = steps, (0.0, 0.0), []

    def callback(self):
        """The transformers callback that notes them."""
        from transformers import TrainerCallback

        times = self

        class Note(TrainerCallback):
            def on_train_begin(self, args, state, control, **kwargs):
                times.began = time.perf_counter(), time.process_time()

            def on_step_end(self, args, state, control, **kwargs):
                if state.global_step % times.steps == 0:
                    now = time.perf_counter(), time.process_time()
                    times.seconds.append((now[0] - times.began[0], now[1] - times.began[1]))
                    times.began = now

        return Note()


def run_ours(args: argparse.Namespace, folder: Path) -> list[tuple[float, float]]:
    """`PPOTrainer` of the recipe."""
    from training.recipes import _environment  # noqa: F401  as every recipe does first

    # isort: split
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer

    from training.recipes._cpu import score_labelled_positions_only
    from training.recipes._ppo_trainer import PPOTrainer
    from training.recipes._shared_base import SharedReward, build_policy
    from training.recipes.ppo import PPOSettings
    from training.sampling.reward_models import score_weight

    score_labelled_positions_only()
    times = Times(args.epochs)
    config = PPOSettings(
        output_dir=str(folder / "out"), max_steps=args.updates * args.epochs, per_device_train_batch_size=args.batch,
        max_completion_length=args.tokens, num_iterations=args.epochs, save_strategy="no", bf16=True, vf_coef=0.1,
        generation_kwargs={"min_new_tokens": args.tokens},
    )  # fmt: skip
    model = build_policy(args.model, dtype=torch.bfloat16, rank=16, alpha=32)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    reward = SharedReward(
        model, tokenizer, folder / "adapter", name="reward", score_weight=score_weight(folder / "adapter")
    )
    PPOTrainer(
        model=model, args=config, reward_funcs=[reward], processing_class=tokenizer, callbacks=[times.callback()],
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": text}]} for text in QUESTIONS * 8]),
    ).train()  # fmt: skip
    return times.seconds


def run_trl(args: argparse.Namespace, folder: Path) -> list[tuple[float, float]]:
    """`trl.experimental.ppo.PPOTrainer` of TRL 1.12."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, TaskType
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    times = Times(1)
    tokenizer = AutoTokenizer.from_pretrained(args.model, padding_side="left", pad_token="<|endoftext|>")
    rows = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        for text in QUESTIONS * 8
    ]
    config = PPOConfig(
        output_dir=str(folder / "out"), per_device_train_batch_size=args.batch, gradient_accumulation_steps=1,
        num_mini_batches=1, num_ppo_epochs=args.epochs, total_episodes=args.updates * args.batch,
        response_length=args.tokens, stop_token=None, num_sample_generations=0, report_to=[], use_cpu=True, bf16=True,
        gradient_checkpointing=False, save_strategy="no", local_rollout_forward_batch_size=args.batch,
    )  # fmt: skip

    def scalar() -> torch.nn.Module:
        model = AutoModelForSequenceClassification.from_pretrained(folder / "merged", num_labels=1, dtype=torch.float32)
        model.config.pad_token_id = tokenizer.pad_token_id
        return model

    trainer = PPOTrainer(
        args=config, processing_class=tokenizer, ref_model=None, reward_model=scalar(), value_model=scalar(),
        model=AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32),
        peft_config=LoraConfig(task_type=TaskType.CAUSAL_LM, r=16, lora_alpha=32, target_modules="all-linear"),
        train_dataset=Dataset.from_list([{"input_ids": row} for row in rows]), callbacks=[times.callback()],
    )  # fmt: skip
    trainer.train()
    return times.seconds


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a chat model")
    parser.add_argument("--trl-python", help="interpreter of an environment with trl==1.12.0")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--updates", type=int, default=5, help="rollouts in one process")
    parser.add_argument("--batch", type=int, default=4, help="completions in a rollout")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--one", choices=("ours", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        seconds = (run_ours if args.one == "ours" else run_trl)(args, args.folder)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        (args.folder / "measured.json").write_text(json.dumps({"seconds": seconds[1:], "peak_rss_bytes": peak}))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_reward_model(args.model, folder)
        measured: dict[str, list[dict]] = {"ours": [], "trl": []}
        for _ in range(args.rounds):
            for name, python in (("ours", sys.executable), ("trl", args.trl_python)):
                if python:
                    command = [python, "-m", "bench.ppo", *sys.argv[1:], "--one", name, "--folder", str(folder)]
                    environment = os.environ | {"PYTHONPATH": str(ROOT), "TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_OFFLINE": "1"}
                    subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
                    measured[name].append(json.loads((folder / "measured.json").read_text()))
    for name, runs in measured.items():
        if runs:
            memory = max(run["peak_rss_bytes"] for run in runs) / 1e9
            print(f"{name}: {len(runs)} processes, peak {memory:.2f} GB")
            for place, words in enumerate(("seconds", "processor seconds")):
                found = sorted(update[place] for run in runs for update in run["seconds"])
                print(
                    f"  {statistics.median(found):.2f} {words} an update "
                    f"(best {found[0]:.2f}, worst {found[-1]:.2f}, n = {len(found)} updates)"
                )


if __name__ == "__main__":
    main()
