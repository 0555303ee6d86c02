"""Samples a second: batched against one by one with transformers, and one against sixteen requests at once by HTTP.

    python -m bench.sampling                       # the tiny model, and the demo model where it is installed: minutes
    python -m bench.sampling --no-demo --repeats 5 --out figures.json

The ways of one model run in turns in one process, on the same prompts, with as many new tokens for each. "One by one"
is plain `generate` with sampling, as one would write it without a backend, in the same type. The HTTP backend asks the
server of the tests in a process of its own, which answers each request after `--delay` seconds.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
import torch

from tests.training.sampling.openai_server import MODEL, running_server
from training.sampling.backends import GenerationRequest, derive_seed
from training.sampling.demo_model import DemoModelError, demo_model_folder, ensure_demo_model
from training.sampling.openai_compatible import Endpoint, OpenAICompatibleBackend
from training.sampling.tiny_model import build_tiny_model
from training.sampling.transformers_backend import TransformersBackend

TOPICS = ("the sea", "a late order", "photosynthesis", "sleeping better", "the capital of France", "a broken lamp")
QUESTIONS = ("Tell me about {}.", "What should I know about {}? Be brief.", "Write two lines on {}, please, for a child.")
AT_ONCE = (1, 16)


def requests_of(n: int, max_new_tokens: int) -> list[GenerationRequest]:
    """Prompts of several lengths, each with its own seed."""
    texts = [
        QUESTIONS[index % len(QUESTIONS)].format(TOPICS[index // len(QUESTIONS) % len(TOPICS)]) for index in range(n)
    ]
    return [
        GenerationRequest(
            str(index), ({"role": "user", "content": text},), derive_seed("bench", index), 0.8, 0.95, max_new_tokens
        )
        for index, text in enumerate(texts)
    ]


def one_by_one(backend: TransformersBackend, requests: list[GenerationRequest]) -> int:
    """New tokens of the plainest way to sample."""
    n_tokens = 0
    for request in requests:
        encoded = backend.tokenizer.apply_chat_template(
            list(request.messages), add_generation_prompt=True, return_dict=True, return_tensors="pt"
        ).to(backend.device)
        with torch.inference_mode():
            output = backend.model.generate(
                **encoded, do_sample=True, temperature=request.temperature, top_p=request.top_p,
                max_new_tokens=request.max_new_tokens, pad_token_id=backend.tokenizer.pad_token_id,
            )  # fmt: skip
        n_tokens += output.shape[1] - encoded["input_ids"].shape[1]
    return n_tokens


def with_backend(backend: TransformersBackend | OpenAICompatibleBackend, requests: list[GenerationRequest]) -> int:
    return sum(generation.n_tokens for generation in backend.generate(requests))


def timed(ways: dict[str, Callable[[], int]], n: int, repeats: int) -> dict[str, dict[str, float]]:
    """The ways in turns, after one turn that isn't counted; samples a second of each."""
    laps: dict[str, list[tuple[float, int]]] = {name: [] for name in ways}
    for lap in range(repeats + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            n_tokens = way()
            if lap:
                laps[name].append((time.perf_counter() - began, n_tokens))
    return {
        name: {
            "n": n,
            "median": statistics.median(n / seconds for seconds, _ in found),
            "low": min(n / seconds for seconds, _ in found),
            "high": max(n / seconds for seconds, _ in found),
            "tokens_per_second": statistics.median(tokens / seconds for seconds, tokens in found),
            "repeats": repeats,
        }
        for name, found in laps.items()
    }


def of_model(folder: Path, n: int, max_new_tokens: int, batch_size: int, repeats: int) -> dict[str, dict[str, float]]:
    backend = TransformersBackend(str(folder), batch_size=batch_size)
    requests = requests_of(n, max_new_tokens)
    ways = {
        "one by one": lambda: one_by_one(backend, requests),
        f"batches of {batch_size}": lambda: with_backend(backend, requests),
    }
    return timed(ways, n, repeats)


def of_server(scratch: Path, n: int, delay: float, repeats: int) -> dict[str, dict[str, float]]:
    requests = requests_of(n, 8)
    with running_server(scratch / "requests.jsonl", delay=delay) as server:
        ways = {}
        for at_once in AT_ONCE:
            backend = OpenAICompatibleBackend(Endpoint(server.url, MODEL, concurrency=at_once))
            ways[f"{at_once} at once"] = lambda backend=backend: with_backend(backend, requests)
        found = timed(ways, n, repeats)
        assert max(line["under_way"] for line in server.seen()) == max(AT_ONCE)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=64, help="completions a lap (%(default)s)")
    parser.add_argument("--demo-samples", type=int, default=32, help="the same, of the demo model (%(default)s)")
    parser.add_argument("--new-tokens", type=int, default=32, help="longest completion (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="completions at once (%(default)s)")
    parser.add_argument("--delay", type=float, default=0.05, help="seconds the server takes (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="laps that count (%(default)s)")
    parser.add_argument("--no-demo", action="store_true", help="leave the demo model out")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    args = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as scratch:
        tiny = build_tiny_model(Path(scratch) / "tiny")
        figures["tiny model"] = of_model(tiny, args.samples, args.new_tokens, args.batch_size, args.repeats)
        figures["HTTP"] = of_server(Path(scratch), args.samples, args.delay, args.repeats)
    if not args.no_demo:
        try:
            demo = ensure_demo_model(demo_model_folder(Path(os.environ.get("PREFLOOP_HOME", "var"))))
        except DemoModelError as error:
            print(f"The demo model was left out: {error}")
        else:
            figures["SmolLM2-135M"] = of_model(demo, args.demo_samples, args.new_tokens, args.batch_size, args.repeats)
    print(f"{'':<32}{'samples/s':>10}{'lowest':>9}{'highest':>9}{'tokens/s':>10}{'samples':>9}{'repeats':>9}")
    for part, rows in figures.items():
        for name, row in rows.items():
            print(
                f"{part + ', ' + name:<32}{row['median']:>10.2f}{row['low']:>9.2f}{row['high']:>9.2f}"
                f"{row['tokens_per_second']:>10.0f}{row['n']:>9}{row['repeats']:>9}"
            )
        slow, fast = (row["median"] for row in rows.values())
        print(f"{part}: {fast / slow:.1f} times as many samples a second.")
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
