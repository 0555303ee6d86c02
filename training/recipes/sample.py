"""Sample completions of every prompt in `dataset/prompts.jsonl` into `completions.jsonl`.

Rows: `{"prompt_id", "index", "content", "sampling": {"temperature", "top_p", "max_new_tokens", "seed"},
"n_tokens", "finished"}`, written as each batch is ready. Each row has a seed of its own, derived from the
run's seed, its prompt_id and its index (see `TransformersBackend` for what that promises). An interrupted
run goes on after the rows it has. A completion that comes out empty is tried again with another seed; if
it stays empty it is left out and listed under `empty` in `result.json`.

With `endpoint` the completions come from a server of the OpenAI protocol instead of a model here, and each row's
`sampling` also says `endpoint`, `served_model`, `revision` and what the server told of itself. What it refuses for
good, such as a prompt beyond its context, is listed under `refused`. `usage.jsonl` counts tokens across kills; a
budget that has no room for one more request ends the run as done, with what there is and `not_sampled` counted.
The key is read from the environment variable PREFLOOP_ENDPOINT_KEY, and written nowhere.

Run: python -m training.recipes.sample --config runs/42/spec.yaml --run_dir runs/42
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
from training.recipes._data import load_prompts, read_manifest
from training.recipes._runlog import RunLog, launch
from training.sampling.accounting import BudgetReached, Ledger, Prices
from training.sampling.backends import Backend, Generation, GenerationRequest, derive_seed
from training.sampling.model_files import hash_model
from training.sampling.openai_compatible import Endpoint, OpenAICompatibleBackend
from training.sampling.transformers_backend import TransformersBackend

KIND = "sample"
ATTEMPTS = 3
KEY_VARIABLE = "PREFLOOP_ENDPOINT_KEY"


@dataclass
class SampleArguments:
    """Arguments of sampling."""

    run_dir: Path = field(metadata={"help": "run folder: dataset/prompts.jsonl in, completions.jsonl out"})
    model: str = field(metadata={"help": "the policy: a folder, or a name on the hub; with `endpoint` a name of ours"})
    adapter: str | None = field(default=None, metadata={"help": "a LoRA adapter to merge in memory"})
    completions_per_prompt: int = field(default=4, metadata={"help": "completions of each prompt"})
    temperature: float = field(default=0.8, metadata={"help": "0 for greedy decoding"})
    top_p: float = field(default=0.95, metadata={"help": "probability mass of the nucleus"})
    max_new_tokens: int = field(default=64, metadata={"help": "longest completion, in tokens"})
    seed: int = field(default=0, metadata={"help": "every row's seed is derived from it"})
    batch_size: int = field(default=32, metadata={"help": "completions generated at once"})
    endpoint: str | None = field(default=None, metadata={"help": "address of a server, up to /v1, to sample from"})
    endpoint_name: str = field(default="", metadata={"help": "the endpoint's name, kept with each completion"})
    served_model: str = field(default="", metadata={"help": "the name that the server knows the model by"})
    revision: str = field(default="", metadata={"help": "what is served, as far as the operator knows"})
    addresses: list[str] = field(default_factory=list, metadata={"help": "connect to these numeric addresses alone"})
    concurrency: int = field(default=8, metadata={"help": "requests under way at once"})
    requests_per_minute: int = field(default=0, metadata={"help": "0: no limit"})
    tokens_per_minute: int = field(default=0, metadata={"help": "of prompts and completions; 0: no limit"})
    timeout_seconds: float = field(default=120.0, metadata={"help": "for one completion"})
    prompt_price: float = field(default=0.0, metadata={"help": "per million tokens of prompts"})
    new_price: float = field(default=0.0, metadata={"help": "per million tokens of completions"})
    budget: float | None = field(default=None, metadata={"help": "stop before this much is spent"})
    token_budget: int | None = field(default=None, metadata={"help": "stop before so many tokens are used"})

    def __post_init__(self) -> None:
        if self.endpoint and not self.served_model:
            raise ValueError("served_model: an endpoint needs the name that the server knows the model by")
        if not self.endpoint and (self.budget is not None or self.token_budget is not None):
            raise ValueError("budget and token_budget count what an endpoint is asked for: give endpoint, too")
        if self.budget is not None and not (self.prompt_price or self.new_price):
            raise ValueError("budget: the endpoint has no prices to count with")


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


def make_backend(args: SampleArguments, run_log: RunLog) -> Backend:
    """The model in this process, or the server that answers for it."""
    if args.endpoint is None:
        return TransformersBackend(args.model, args.adapter, batch_size=args.batch_size)
    endpoint = Endpoint(
        url=args.endpoint.rstrip("/"), model=args.served_model, name=args.endpoint_name, revision=args.revision,
        key=os.environ.pop(KEY_VARIABLE, ""), addresses=tuple(args.addresses), concurrency=args.concurrency,
        requests_per_minute=args.requests_per_minute, tokens_per_minute=args.tokens_per_minute,
        timeout_seconds=args.timeout_seconds,
    )  # fmt: skip
    ledger = Ledger(
        args.run_dir / "usage.jsonl", prices=Prices(args.prompt_price, args.new_price),
        max_cost=args.budget, max_tokens=args.token_budget,
    )  # fmt: skip
    return OpenAICompatibleBackend(endpoint, ledger=ledger, stop=run_log.stop_requested)


def generated(backend: Backend | None, requests: list[GenerationRequest]) -> Iterator[Generation | BudgetReached]:
    """What comes of the requests; where a budget ends it, that is the last thing that comes."""
    if not requests:
        return
    try:
        yield from backend.generate(requests)
    except BudgetReached as reached:
        yield reached


def usage_of(backend: OpenAICompatibleBackend) -> dict[str, float]:
    """Requests, tokens and cost of the whole run, those before a kill included."""
    used = backend.ledger.used
    return {
        "requests": used.requests,
        "requests_lost": used.lost,
        "retries": backend.n_retries,
        "used_prompt_tokens": used.prompt_tokens,
        "used_new_tokens": used.new_tokens,
        "cost": backend.ledger.cost,
    }


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
        backend = make_backend(args, run_log)
        began = time.monotonic()

    done = n_before
    refused: list[dict] = []
    is_over_budget = False
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
            for generation in generated(backend, requests):
                if isinstance(generation, BudgetReached):
                    run_log.status("budget_reached", message=str(generation))
                    is_over_budget = True
                    break
                prompt, index, request = origin[generation.key]
                n_tokens += generation.n_tokens
                if generation.problem:
                    place = {"prompt_id": prompt["prompt_id"], "index": index}
                    refused.append({**place, "problem": generation.problem})
                    continue
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
                        **generation.facts,
                    },
                    "n_tokens": generation.n_tokens,
                    "finished": generation.finished,
                }
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()
                rows[str(prompt["prompt_id"]), index] = row
                done += 1
                if (done - n_before) % (args.concurrency if args.endpoint else args.batch_size) == 0 or done == total:
                    run_log.step = done
                    run_log.progress(done, total, "completions")
                    # What is under way at an endpoint is paid for: it stops asking by itself, and the rest still comes.
                    if args.endpoint is None:
                        run_log.raise_if_stopped()
            if is_over_budget:
                break
            if args.endpoint:
                run_log.raise_if_stopped()

    seconds = time.monotonic() - began
    keys = [(str(prompt["prompt_id"]), index) for prompt, index in wanted]
    written = [rows[key] for key in keys if key in rows]
    empty = [{"prompt_id": prompt["prompt_id"], "index": index} for prompt, index in pending]
    if empty:
        run_log.status("empty_completions", count=len(empty))
    if refused:
        run_log.status("refused_prompts", count=len(refused), first=refused[0])
    for row in written[:2]:
        prompt = next(prompt for prompt in prompts if prompt["prompt_id"] == row["prompt_id"])
        run_log.event("sample", prompt=prompt["prompt"], completion=row["content"])
    metrics = {
        "completions": len(written),
        "empty": len(empty),
        "refused": len(refused),
        "not_sampled": total - len(written) - len(empty) - len(refused),
        "new_tokens": n_tokens,
        "sampling_seconds": seconds,
        "tokens_per_second": n_tokens / seconds if n_tokens else 0.0,
        "mean_tokens": sum(row["n_tokens"] for row in written) / len(written) if written else 0.0,
        "finished_share": sum(row["finished"] for row in written) / len(written) if written else 0.0,
    }
    if isinstance(backend, OpenAICompatibleBackend):
        metrics |= usage_of(backend)
    run_log.metrics(metrics)
    arguments = {name: value for name, value in asdict(args).items() if name != "run_dir"}
    run_log.finish(
        metrics=metrics,
        arguments=arguments,
        dataset={"n_prompts": len(prompts), "manifest": read_manifest(args.run_dir / "dataset")},
        base_model={"path": args.model, "hash": hash_model(args.model), "adapter": args.adapter}
        if args.endpoint is None
        else {"key": args.model, "endpoint": args.endpoint, "served_model": args.served_model, "revision": args.revision},
        empty=empty,
        refused=refused,
    )


if __name__ == "__main__":
    sys.exit(launch(KIND, main, (SampleArguments,)))
