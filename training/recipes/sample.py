"""Sample completions of every prompt in `dataset/prompts.jsonl` into `completions.jsonl`.

Rows: `{"prompt_id", "index", "content", "sampling": {"temperature", "top_p", "max_new_tokens", "seed"},
"n_tokens", "finished"}`, written as each batch is ready. Each row has a seed of its own, derived from the
run's seed, its prompt_id and its index (see `TransformersBackend` for what that promises). An interrupted
run goes on after the rows it has. A completion that comes out empty is tried again with another seed; if
it stays empty it is left out and listed under `empty` in `result.json`.

Run: python -m training.recipes.sample --config runs/42/spec.yaml --run_dir runs/42
"""

import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
from training.recipes._data import load_prompts, read_manifest
from training.recipes._runlog import RunLog, launch
from training.sampling.backends import Backend, GenerationRequest, derive_seed
from training.sampling.model_files import hash_model
from training.sampling.transformers_backend import TransformersBackend

KIND = "sample"
ATTEMPTS = 3


@dataclass
class SampleArguments:
    """Arguments of sampling."""

    run_dir: Path = field(metadata={"help": "run folder: dataset/prompts.jsonl in, completions.jsonl out"})
    model: str = field(metadata={"help": "the policy: a folder, or a name on the hub"})
    adapter: str | None = field(default=None, metadata={"help": "a LoRA adapter to merge in memory"})
    completions_per_prompt: int = field(default=4, metadata={"help": "completions of each prompt"})
    temperature: float = field(default=0.8, metadata={"help": "0 for greedy decoding"})
    top_p: float = field(default=0.95, metadata={"help": "probability mass of the nucleus"})
    max_new_tokens: int = field(default=64, metadata={"help": "longest completion, in tokens"})
    seed: int = field(default=0, metadata={"help": "every row's seed is derived from it"})
    batch_size: int = field(default=32, metadata={"help": "completions generated at once"})


def read_completions(path: Path) -> dict[tuple[str, int], dict]:
    """Rows written so far by (prompt_id, index); a last line torn by a kill is cut off the file."""
    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        with path.open("r+b") as file:
            file.truncate(len(whole))
    rows = [json.loads(line) for line in whole.splitlines()]
    return {(str(row["prompt_id"]), row["index"]): row for row in rows}


def main(args: SampleArguments, backend: Backend | None = None) -> None:
    """Sample what is still missing; `backend` replaces the model, for tests."""
    run_log = RunLog(args.run_dir, kind=KIND, seed=args.seed)
    prompts = load_prompts(args.run_dir / "dataset")
    path = args.run_dir / "completions.jsonl"
    rows = read_completions(path)
    wanted = [(prompt, index) for prompt in prompts for index in range(args.completions_per_prompt)]
    total = len(wanted)
    pending = [(prompt, index) for prompt, index in wanted if (str(prompt["prompt_id"]), index) not in rows]
    if rows:
        run_log.status("resumed", rows=len(rows))
    n_before = total - len(pending)
    run_log.status("sampling")
    run_log.progress(n_before, total, "completions")
    began = time.monotonic()
    n_tokens = 0
    if pending and backend is None:
        backend = TransformersBackend(args.model, args.adapter, batch_size=args.batch_size)
        began = time.monotonic()

    done = n_before
    with path.open("a", encoding="utf-8") as file:
        for attempt in range(ATTEMPTS if args.temperature > 0 else 1):
            requests, origin = [], {}
            for prompt, index in pending:
                parts = (args.seed, prompt["prompt_id"], index, *([attempt] if attempt else []))
                request = GenerationRequest(
                    key=json.dumps([prompt["prompt_id"], index]),
                    messages=tuple(prompt["prompt"]),
                    seed=derive_seed(*parts),
                    temperature=args.temperature,
                    top_p=args.top_p,
                    max_new_tokens=args.max_new_tokens,
                )
                requests.append(request)
                origin[request.key] = (prompt, index, request)
            pending = []
            for generation in backend.generate(requests) if requests else ():
                prompt, index, request = origin[generation.key]
                n_tokens += generation.n_tokens
                if not generation.content:
                    pending.append((prompt, index))
                    continue
                row = {
                    "prompt_id": prompt["prompt_id"],
                    "index": index,
                    "content": generation.content,
                    "sampling": {
                        "temperature": args.temperature,
                        "top_p": args.top_p,
                        "max_new_tokens": args.max_new_tokens,
                        "seed": request.seed,
                    },
                    "n_tokens": generation.n_tokens,
                    "finished": generation.finished,
                }
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()
                rows[str(prompt["prompt_id"]), index] = row
                done += 1
                if (done - n_before) % args.batch_size == 0 or done == total:
                    run_log.step = done
                    run_log.progress(done, total, "completions")
                    run_log.raise_if_stopped()

    seconds = time.monotonic() - began
    keys = [(str(prompt["prompt_id"]), index) for prompt, index in wanted]
    written = [rows[key] for key in keys if key in rows]
    empty = [{"prompt_id": prompt["prompt_id"], "index": index} for prompt, index in pending]
    if empty:
        run_log.status("empty_completions", count=len(empty))
    for row in written[:2]:
        prompt = next(prompt for prompt in prompts if prompt["prompt_id"] == row["prompt_id"])
        run_log.event("sample", prompt=prompt["prompt"], completion=row["content"])
    metrics = {
        "completions": len(written),
        "empty": len(empty),
        "new_tokens": n_tokens,
        "sampling_seconds": seconds,
        "tokens_per_second": n_tokens / seconds if n_tokens else 0.0,
        "mean_tokens": sum(row["n_tokens"] for row in written) / len(written) if written else 0.0,
        "finished_share": sum(row["finished"] for row in written) / len(written) if written else 0.0,
    }
    run_log.metrics(metrics)
    arguments = {name: value for name, value in asdict(args).items() if name != "run_dir"}
    run_log.finish(
        metrics=metrics,
        arguments=arguments,
        dataset={"n_prompts": len(prompts), "manifest": read_manifest(args.run_dir / "dataset")},
        base_model={"path": args.model, "hash": hash_model(args.model), "adapter": args.adapter},
        empty=empty,
    )


if __name__ == "__main__":
    sys.exit(launch(KIND, main, (SampleArguments,)))
