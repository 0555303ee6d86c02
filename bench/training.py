"""Whole training runs: Prefloop's recipes against the TRL script one would write instead, on the same data and model.

    python -m bench.training --model var/models/smollm2-135m-instruct            # DPO and reward model, about 20 minutes
    python -m bench.training --model MODEL --kinds dpo --comparisons equal --pairs 32 --rounds 1

Both get the same pairs (made here: prompts, polite and curt replies of many lengths), LoRA rank, batch, learning rate, schedule,
epochs, steps between evaluations and seed, and end with an evaluation and the adapter on disk.

`equal`: the script also has the recipe's other settings (bfloat16 base, no gradient checkpointing, checkpoints), and the
recipe takes the rows in TRL's order, so both compute the same; held against each other is the time of the whole run, from the start of Python to its end.

`defaults`: the script has TRL's defaults beside those above, as its documentation shows; the recipe has its own. Held
against each other is the time to the same held-out loss, the highest of those that either ends with: from the start of Python to the first
evaluation at or below it, less what evaluations took before.

Each runs in a process of its own, in turn, `--rounds` times. Ratios are of medians, with the lowest and highest of the rounds.
"""

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))

KINDS = ("dpo", "reward")
COMPARISONS = ("equal", "defaults")
TOPICS = (
    "a parcel that never came", "a broken lamp", "resetting a password", "an invoice with the wrong name", "a late refund",
    "a noisy fridge", "changing a delivery address", "a missing screw", "a scratched table", "cancelling a subscription",
    "a coat in the wrong size", "an empty gift card",
)  # fmt: skip
ASKED = (
    "I need help with {topic}.", "Hello, can you tell me what to do about {topic}? It has gone on for a week now, and I called twice.",
    "{topic}: what now?", "My neighbour told me to write to you about {topic}, because you once helped her with the same thing, "
    "and I hope that you can do the same for me before the weekend.",
)  # fmt: skip
POLITE = (
    "Thank you for writing to us about {topic}.", "I am sorry for the trouble this has caused.", "We will look into it today.",
    "Please send us the number of your order, and a photo if you have one.", "A colleague will call you by tomorrow evening.",
    "If anything is unclear, just reply to this message.",
)  # fmt: skip
CURT = (
    "That is not our problem.", "Read the manual about {topic}.", "You should have thought of that before.", "We are busy.",
    "Somebody may or may not look at it, and there is nothing else to say about it from our side.", "Do not write again.",
)  # fmt: skip


def write_pairs(folder: Path, *, n_train: int, n_eval: int, seed: int) -> None:
    """`train.jsonl` and `eval.jsonl` as a run folder has them; prompts of the two differ."""
    random_ = random.Random(seed)

    def text(sentences: tuple[str, ...], topic: str) -> str:
        chosen = random_.sample(sentences, random_.randint(1, len(sentences)))
        return " ".join(sentence.format(topic=topic) for sentence in chosen * random_.choice((1, 1, 2)))

    prompts = [(topic, asked, number) for number in range(99) for topic, asked in itertools.product(TOPICS, ASKED)]
    random_.shuffle(prompts)
    folder.mkdir(parents=True)
    for name, n in (("train", n_train), ("eval", n_eval)):
        with (folder / f"{name}.jsonl").open("w") as file:
            for topic, asked, number in [prompts.pop() for _ in range(n)]:
                question = f"{asked.format(topic=topic)} (request {number})"
                row = {
                    "prompt": [{"role": "user", "content": question}],
                    "chosen": [{"role": "assistant", "content": text(POLITE, topic)}],
                    "rejected": [{"role": "assistant", "content": text(CURT, topic)}],
                    "group_id": question,
                }
                file.write(json.dumps(row) + "\n")


def settings(args: argparse.Namespace, kind: str) -> dict[str, Any]:
    """What both get."""
    return {
        "learning_rate": 2e-4,
        "lr_scheduler_type": "linear",
        "num_train_epochs": args.epochs,
        "per_device_train_batch_size": args.batch,
        "per_device_eval_batch_size": args.batch,
        "max_length": 384,
        "eval_strategy": "steps",
        "eval_steps": args.eval_steps,
        "logging_steps": 1,
        "seed": 42,
    }


# The recipe's own settings that the script has too in `equal`.
AS_RECIPE = {"gradient_checkpointing": False, "bf16": True, "save_steps": 20, "save_total_limit": 2, "disable_tqdm": True}
BASE_TYPE = {"dpo": "bfloat16", "reward": "float32"}


# --- the script ---------------------------------------------------------------------------------
def run_script(args: argparse.Namespace) -> None:
    """What an engineer writes from TRL's documentation."""
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

    data = load_dataset(
        "json", data_files={name: str(args.data / f"{name}.jsonl") for name in ("train", "eval")}, cache_dir=str(args.folder)
    )
    options = settings(args, args.kind) | {"output_dir": str(args.folder / "out"), "use_cpu": not torch.cuda.is_available()}
    if args.comparison == "equal":
        options |= AS_RECIPE | {"model_init_kwargs": {"dtype": BASE_TYPE[args.kind]}}
    adapter = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
    if args.kind == "dpo":
        config, trainer_class = DPOConfig(beta=0.1, **options), DPOTrainer
        lora = LoraConfig(task_type="CAUSAL_LM", **adapter)
    else:
        config, trainer_class = RewardConfig(**options), RewardTrainer
        lora = LoraConfig(task_type="SEQ_CLS", modules_to_save=["score"], **adapter)
    trainer = trainer_class(
        model=str(args.model), args=config, train_dataset=data["train"], eval_dataset=data["eval"], peft_config=lora,
        callbacks=[note_evaluations(args.folder / "evaluations.jsonl")],
    )  # fmt: skip
    trainer.train()
    trainer.evaluate()
    trainer.save_model(str(args.folder / "model"))


def note_evaluations(path: Path) -> Any:
    """A callback that writes when each evaluation ended, how long it took, and its loss."""
    from transformers import TrainerCallback

    class Note(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
            line = {"at": time.time(), "loss": metrics["eval_loss"], "seconds": metrics["eval_runtime"], "step": state.global_step}
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")

    return Note()


# --- the recipe ---------------------------------------------------------------------------------
def recipe_command(args: argparse.Namespace, kind: str, comparison: str, data: Path, folder: Path) -> list[str]:
    """The command of a run, in a run folder as the worker makes it."""
    import yaml

    (folder / "dataset").mkdir()
    for name in ("train", "eval"):
        (folder / "dataset" / f"{name}.jsonl").write_bytes((data / f"{name}.jsonl").read_bytes())
    spec = {"model": str(args.model), "adapter_rank": 16, **settings(args, kind)}
    if comparison == "equal":
        spec["group_by_length"] = False
    if kind == "dpo":
        spec["adapter_alpha"] = 32
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    module = f"training.recipes.{kind}"
    return [sys.executable, "-m", module, "--config", str(folder / "spec.yaml"), "--run_dir", str(folder)]


def evaluations_of(folder: Path) -> list[dict[str, float]]:
    """The evaluations of either, oldest first: `at` in seconds since 1970, `seconds`, `loss`, `step`."""
    if (noted := folder / "evaluations.jsonl").exists():
        return [json.loads(line) for line in noted.read_text().splitlines()]
    found = []
    for line in (folder / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["type"] == "metric" and "eval_loss" in event["metrics"]:
            metrics = event["metrics"]
            at = datetime.fromisoformat(event["at"]).astimezone(UTC).timestamp()
            found.append(
                {"at": at, "loss": metrics["eval_loss"], "seconds": metrics["eval_runtime"], "step": event["step"]}
            )
    return found


# --- measuring ----------------------------------------------------------------------------------
def one_run(args: argparse.Namespace, who: str, kind: str, comparison: str, data: Path, folder: Path) -> dict[str, Any]:
    """Seconds of the whole run, and its evaluations with the seconds of training before each."""
    folder.mkdir()
    if who == "prefloop":
        command = recipe_command(args, kind, comparison, data, folder)
    else:
        command = [
            sys.executable, "-m", "bench.training", *sys.argv[1:], "--model", str(args.model), "--kind", kind, "--comparison",
            comparison, "--data", str(data), "--folder", str(folder),
        ]  # fmt: skip
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
    began = time.time()
    with (folder / "output").open("w") as output:
        done = subprocess.run(command, env=environment, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    seconds = time.time() - began
    if done.returncode:
        raise SystemExit(f"{who} ended with {done.returncode}:\n{(folder / 'output').read_text()[-2000:]}")
    spent, curve = 0.0, []
    for evaluation in evaluations_of(folder):
        spent += evaluation["seconds"]
        curve.append((evaluation["at"] - began - spent, evaluation["loss"], evaluation["step"]))
    return {"seconds": seconds, "curve": curve}


def seconds_to(curve: list[tuple[float, float, int]], loss: float) -> float:
    """Until the first evaluation that is no worse."""
    return next(seconds for seconds, found, _ in curve if found <= loss)


def ratio(script: list[float], recipe: list[float]) -> str:
    """How many times as long the script takes."""
    each = [first / second for first, second in zip(script, recipe, strict=True)]
    middle = statistics.median(script) / statistics.median(recipe)
    return f"{middle:.2f} (rounds {min(each):.2f} - {max(each):.2f}, n = {len(each)})"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="folder of a chat model")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--comparisons", nargs="+", choices=COMPARISONS, default=list(COMPARISONS))
    parser.add_argument("--pairs", type=int, default=96, help="to train on (%(default)s)")
    parser.add_argument("--held-out", type=int, default=24, help="pairs to evaluate on (%(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="pairs a step (%(default)s)")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--eval-steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--comparison", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.model = args.model.resolve()
    if args.folder:
        run_script(args)
        return
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        write_pairs(data, n_train=args.pairs, n_eval=args.held_out, seed=1)
        for kind, comparison in itertools.product(args.kinds, args.comparisons):
            runs: dict[str, list[dict[str, Any]]] = {"script": [], "prefloop": []}
            for lap in range(args.rounds):
                for who, found in runs.items():
                    folder = Path(scratch) / f"{kind}-{comparison}-{lap}-{who}"
                    found.append(one_run(args, who, kind, comparison, data, folder))
            figures[f"{kind} {comparison}"] = runs
            wholes = {who: [run["seconds"] for run in found] for who, found in runs.items()}
            ends = {who: [run["curve"][-1][1] for run in found] for who, found in runs.items()}
            print(f"{kind}, {comparison} settings: {args.pairs} pairs, {args.held_out} held out, {args.rounds} rounds")
            for who in runs:
                whole = ", ".join(f"{seconds:.1f}" for seconds in wholes[who])
                print(f"  {who:<9} whole run {whole} s; held-out loss at the end {', '.join(f'{x:.4f}' for x in ends[who])}")
            if comparison == "equal":
                share = statistics.median(wholes["prefloop"]) / statistics.median(wholes["script"])
                print(f"  Prefloop takes {share:.3f} of the script's time; script / Prefloop {ratio(*wholes.values())}")
            else:
                target = max(itertools.chain(*ends.values()))
                to_loss = {who: [seconds_to(run["curve"], target) for run in found] for who, found in runs.items()}
                for who, found in to_loss.items():
                    print(f"  {who:<9} to a held-out loss of {target:.4f}: {', '.join(f'{x:.1f}' for x in found)} s of training")
                print(f"  script / Prefloop {ratio(*to_loss.values())}")
    if args.out:
        args.out.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
