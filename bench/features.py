"""How long a refit takes once completions are encoded, and how fast they are encoded.

    python -m bench.features                                  # the tiny model; a few minutes
    python -m bench.features --model var/models/smollm2-135m-instruct --repeats 5 --out figures.json

The pairs are synthetic, and said to be so: a store of random vectors of the model's width with planted preferences, as many as
asked for, a fifth of them held out. A refit is the whole process, from the start of Python to its exit, with its report and all
files. Encoding is real: the same texts by the store's recipe code in batches, and one by one as one would write it first, in turns.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
import numpy
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from training.sampling.device import bfloat16_is_fast, pick_device
from training.sampling.embeddings import Embedder
from training.sampling.feature_store import Encoding, FeatureStore, text_key
from training.sampling.model_files import hash_model
from training.sampling.tiny_model import build_tiny_model

PAIRS_A_PROMPT = 6  # a ranking of four
WORDS = ["please", "thank", "you", "the", "parcel", "came", "open", "and", "late", "so", "I", "would", "like", "to", "know", "what", "can", "be", "done", "about", "it", "today"]


def texts_of(n: int) -> list[tuple[list[dict[str, str]], str]]:
    """Prompts and completions of 20 to 120 words."""
    chance = random.Random(0)
    prompt = [{"role": "user", "content": "What can I do about my parcel?"}]
    return [(prompt, " ".join(chance.choices(WORDS, k=chance.randint(20, 120)))) for _ in range(n)]


def write_pairs(folder: Path, model: Path, n_pairs: int, layer: int) -> int:
    """A run folder and its store; returns how many completions it holds."""
    chance = numpy.random.default_rng(0)
    width = AutoConfig.from_pretrained(model).hidden_size
    truth = chance.normal(size=width) / numpy.sqrt(width) * 2
    store = FeatureStore.create(folder / "features", Encoding(hash_model(model), layer, "mean", 1024))
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "eval": []}
    vectors: dict[bytes, numpy.ndarray] = {}
    for group in range(n_pairs // PAIRS_A_PROMPT):
        prompt = [{"role": "user", "content": f"Question {group}, what can I do about my parcel?"}]
        texts = [f"Answer {number} to question {group}: " + " ".join(WORDS) for number in range(4)]
        states = chance.normal(size=(4, width)).astype(numpy.float32)
        vectors |= {text_key(prompt, text): state for text, state in zip(texts, states, strict=True)}
        for first in range(4):
            for second in range(first):
                won = chance.random() < 1 / (1 + numpy.exp((states[second] - states[first]) @ truth))
                chosen, rejected = (first, second) if won else (second, first)
                rows["eval" if group % 5 == 0 else "train"].append(
                    {
                        "prompt": prompt, "chosen": [{"role": "assistant", "content": texts[chosen]}],
                        "rejected": [{"role": "assistant", "content": texts[rejected]}],
                        "weight": 1 / PAIRS_A_PROMPT, "group_id": f"g{group}", "id": f"{group}:{first}:{second}",
                    }
                )  # fmt: skip
    store.add(vectors)
    (folder / "dataset").mkdir()
    for split, found in rows.items():
        (folder / "dataset" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    (folder / "dataset" / "manifest.json").write_text("{}")
    return len(vectors)


def refit(folder: Path, model: Path, ridge_by: str) -> tuple[float, float]:
    """Seconds of one whole process, by the clock and of processor time."""
    (folder / "result.json").unlink(missing_ok=True)
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [
            sys.executable, "-m", "training.recipes.reward_head", "--run_dir", str(folder), "--model", str(model),
            "--features", str(folder / "features"), "--ridge_by", ridge_by, "--cache", str(folder / "cache.sqlite"),
        ],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    result = json.loads((folder / "result.json").read_text())
    assert result["n_encoded"] == 0, "something was encoded: this is no refit"
    return seconds, after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime


def one_by_one(model: Path, layer: int, texts: list) -> tuple[int, float]:
    """Tokens and seconds of the plainest way: every text alone, all layers, then the one that is wanted."""
    tokenizer, device = AutoTokenizer.from_pretrained(model), pick_device()
    dtype = torch.bfloat16 if bfloat16_is_fast() else torch.float32
    body = AutoModel.from_pretrained(model, dtype=dtype).to(device).eval()
    n_tokens, began = 0, time.perf_counter()
    for prompt, completion in texts:
        before = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
        ids = before + tokenizer(completion, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            states = body(torch.tensor([ids], device=device), output_hidden_states=True).hidden_states[layer]
        states[0, len(before) :].float().mean(dim=0).cpu().numpy()
        n_tokens += len(ids)
    return n_tokens, time.perf_counter() - began


def batched(model: Path, layer: int, texts: list) -> tuple[int, float]:
    """Tokens and seconds of the recipe's way."""
    embedder = Embedder(str(model), layer=layer, batch_size=32, model_hash="of no matter")
    embedder._load()
    began = time.perf_counter()
    embedder.encode(texts)
    return embedder.n_tokens, time.perf_counter() - began


def spread(values: list[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model folder; default: the tiny model")
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--texts", type=int, default=200, help="to encode")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ridge_by", default="cv", choices=("cv", "evidence"))
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = args.model or build_tiny_model(folder / "tiny")
        layer = max(1, round(AutoConfig.from_pretrained(model).num_hidden_layers * 2 / 3))
        run = folder / "run"
        run.mkdir()
        n_completions = write_pairs(run, model, args.pairs, layer)
        refit(run, model, args.ridge_by)  # fills the disk cache and remembers the model's hash
        refits = [refit(run, model, args.ridge_by) for _ in range(args.repeats)]
        texts = texts_of(args.texts)
        speeds: dict[str, list[float]] = {"batched": [], "one by one": []}
        for _ in range(args.repeats):
            for label, way in (("batched", batched), ("one by one", one_by_one)):
                n_tokens, seconds = way(model, layer, texts)
                speeds[label].append(n_tokens / seconds)
    figures = {
        "model": str(args.model or "tiny"), "layer": layer, "cores": os.cpu_count(),
        "pairs": args.pairs, "completions": n_completions, "pairs_are": "synthetic", "ridge_by": args.ridge_by,
        "refit_seconds": spread([seconds for seconds, _cpu in refits]),
        "refit_cpu_seconds": spread([cpu for _seconds, cpu in refits]),
        "encode_tokens_per_second": {label: spread(values) for label, values in speeds.items()},
        "encode_texts": args.texts,
    }  # fmt: skip
    print(json.dumps(figures, indent=2))
    if args.out:
        args.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
