"""Evaluation of a policy on held-out prompts, by itself or beside a reference: nothing is trained.

Completions are sampled with a seed each, the same of both, and kept in `completions.jsonl` with what each reward gave them.
From them: mean rewards; how often the policy's completion is rewarded above the reference's of the same prompt, every pair
of completions compared, ties by half; that win rate held against the length of texts (Dubois et al. 2024,
arXiv:2404.04475, equation 2 without its term for the difficulty of each prompt) and where the policy's text is the shorter;
the KL of the policy from the reference, summed over the tokens of the policy's completions, each over the whole vocabulary;
lengths, the share that ended by itself, and how much texts repeat themselves and each other.

`dataset/eval.jsonl` may hold texts: their loss in nats a token is given, too. All intervals are by prompt group. The KL is of
the models' own distributions, at temperature 1: at other settings of sampling it is not that of what was sampled.

Run: python -m training.recipes.evaluate --config runs/42/spec.yaml --run_dir runs/42
"""

import hashlib
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.recipes._completions import (
    completion_logits,
    completion_mask,
    divergence,
    prompt_ids,
    sample_all,
    sample_ids,
    token_log_probs,
)
from training.recipes._data import DatasetError, Row, load_prompt_splits, load_texts, read_manifest
from training.recipes._online import positions_of, weighted_sum
from training.recipes._rewards import RewardFunction, reward_functions
from training.recipes._runlog import RunLog, launch
from training.recipes._statistics import Figure, length_controlled, mean, proportion, ratio
from training.sampling.backends import GenerationRequest, derive_seed
from training.sampling.device import bfloat16_is_fast, pick_device
from training.sampling.model_files import hash_model
from training.sampling.reward_rules import repeated_share
from training.sampling.transformers_backend import load_policy

KIND = "evaluate"
POLICY, REFERENCE = "policy", "reference"
COMPLETIONS_FILE = "completions.jsonl"
SHOWN = 60  # completions that are events of the run
TOKENS_AT_ONCE = 1024  # whose distributions are held in memory: some 200 MB a model with 50,000 tokens to choose from


@dataclass
class EvaluateArguments:
    """Arguments of evaluation."""

    run_dir: Path = field(metadata={"help": "run folder: dataset/prompts.jsonl in, completions.jsonl and result.json out"})
    model: str = field(metadata={"help": "the policy: a folder, or a name on the hub"})
    adapter: str | None = field(default=None, metadata={"help": "a LoRA adapter on it"})
    reference: str | None = field(default=None, metadata={"help": "what it is compared with; default: nothing"})
    reference_adapter: str | None = field(default=None, metadata={"help": "a LoRA adapter on that"})
    rewards: list[str] = field(default_factory=list, metadata={"help": "as of grpo, such as length:target=60; may be empty"})
    reward_weights: list[float] | None = field(default=None, metadata={"help": "of each reward; default 1"})
    completions_per_prompt: int = field(default=2, metadata={"help": "completions of each prompt"})
    temperature: float = field(default=1.0, metadata={"help": "0 for greedy decoding"})
    top_p: float = field(default=1.0, metadata={"help": "probability mass of the nucleus"})
    max_new_tokens: int = field(default=64, metadata={"help": "longest completion, in tokens"})
    max_prompts: int = field(default=256, metadata={"help": "evaluate on at most so many prompts, drawn at random"})
    max_prompt_length: int = field(default=512, metadata={"help": "longer prompts, in tokens, are left out and counted"})
    max_texts: int = field(default=1000, metadata={"help": "loss on at most so many texts, drawn at random"})
    max_length: int = field(default=1024, metadata={"help": "longer texts, in tokens, are left out and counted"})
    batch_size: int = field(default=32, metadata={"help": "completions sampled at once"})
    seed: int = field(default=42, metadata={"help": "of everything random"})

    def __post_init__(self) -> None:
        for name in ("completions_per_prompt", "max_new_tokens", "max_prompts", "batch_size", "max_texts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if self.temperature == 0 and self.completions_per_prompt > 1:
            raise ValueError("temperature is 0, so all completions of a prompt would be one: set completions_per_prompt: 1")


@dataclass(frozen=True)
class Model:
    """One of the two that are evaluated."""

    who: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load(who: str, folder: str, adapter: str | None) -> Model:
    """A policy in evaluation mode on this machine's device, an adapter merged in memory."""
    dtype = torch.bfloat16 if bfloat16_is_fast() else torch.float32
    model, tokenizer = load_policy(folder, adapter, dtype=dtype)
    return Model(who, model.to(pick_device()).eval(), tokenizer)


def load_prompts_of(args: EvaluateArguments, models: Sequence[Model]) -> tuple[list[Row], dict[str, int]]:
    """The prompts to evaluate on and counts of what was left out. Raises DatasetError where none is left."""
    rows, _ = load_prompt_splits(args.run_dir / "dataset")
    named = [args.model, *([args.reference] if args.reference else [])]
    positions = [found - args.max_new_tokens for name in named if (found := positions_of(name)) is not None]
    longest = min([args.max_prompt_length, *positions])
    kept = [row for row in rows if max(len(prompt_ids(one.tokenizer, row["prompt"])) for one in models) <= longest]
    counts = {"n_too_long": len(rows) - len(kept)}
    if not kept:
        raise DatasetError(f"Every prompt is longer than {longest} tokens, which max_prompt_length or the models' positions allow")
    if len(kept) > args.max_prompts:
        counts["n_set_aside"] = len(kept) - args.max_prompts
        kept = sorted(kept, key=lambda row: derive_seed(args.seed, "evaluate", row["prompt_id"]))[: args.max_prompts]
    return kept, counts


# --- completions --------------------------------------------------------------------------------
def sample(args: EvaluateArguments, one: Model, prompts: list[Row], run_log: RunLog) -> list[Row]:
    """Completions of each prompt in order: rows of `prompt_id`, `index`, `content`, `ids`, `n_tokens`, `finished`."""
    encoded = {str(row["prompt_id"]): prompt_ids(one.tokenizer, row["prompt"]) for row in prompts}
    in_order = sorted(prompts, key=lambda row: len(encoded[str(row["prompt_id"])]))
    wanted = [(str(row["prompt_id"]), index) for row in in_order for index in range(args.completions_per_prompt)]

    def sample_batch(batch: Sequence[tuple[str, int]]) -> list[Row]:
        requests = [
            GenerationRequest(
                key=f"{prompt_id} {index}", messages=({"role": "user", "content": ""},),  # not read: its tokens are given
                seed=derive_seed(args.seed, prompt_id, index), temperature=args.temperature, top_p=args.top_p,
                max_new_tokens=args.max_new_tokens,
            )
            for prompt_id, index in batch
        ]  # fmt: skip
        found = sample_ids(one.model, one.tokenizer, [encoded[prompt_id] for prompt_id, _ in batch], requests)
        return [
            {
                "prompt_id": prompt_id, "index": index,
                "content": one.tokenizer.decode(ids, skip_special_tokens=True).strip(), "ids": ids,
                "n_tokens": len(ids) - finished, "finished": finished, "seed": request.seed,
            }
            for (prompt_id, index), request, (ids, finished) in zip(batch, requests, found, strict=True)
        ]  # fmt: skip

    run_log.status(f"sampling the {one.who}")
    path = args.run_dir / f"sampled_{one.who}.jsonl"
    rows = sample_all(path, wanted, sample_batch, batch_size=args.batch_size, run_log=run_log)
    by_prompt = {key: (row["group_id"], row["prompt"]) for key, row in ((str(row["prompt_id"]), row) for row in prompts)}
    places = {key: place for place, key in enumerate(by_prompt)}
    for row in rows:
        row["who"], (row["group_id"], row["prompt"]) = one.who, by_prompt[row["prompt_id"]]
    return sorted(rows, key=lambda row: (places[row["prompt_id"]], row["index"]))


def reward(
    args: EvaluateArguments, rows: list[Row], functions: list[RewardFunction], weights: list[float], run_log: RunLog
) -> None:
    """Put `rewards` by name and their weighted sum, `reward`, into each row."""
    run_log.status("rewarding")
    by_name = dict(zip((function.__name__ for function in functions), weights, strict=True))
    for start in range(0, len(rows), args.batch_size):
        run_log.progress(start, len(rows), "rewarded completions")
        run_log.raise_if_stopped()
        batch = rows[start : start + args.batch_size]
        prompts = [row["prompt"] for row in batch]
        completions = [[{"role": "assistant", "content": row["content"]}] for row in batch]
        columns = {"prompt_id": [row["prompt_id"] for row in batch]}
        values = {function.__name__: function(prompts, completions, **columns) for function in functions}
        for place, row in enumerate(batch):
            row["rewards"] = {name: found[place] for name, found in values.items()}
            row["reward"] = weighted_sum(row["rewards"], by_name)


# --- figures ------------------------------------------------------------------------------------
def of_texts(rows: list[Row]) -> dict[str, Figure]:
    """What the completions are like, whatever they are worth."""
    groups = [row["group_id"] for row in rows]
    figures = {
        "completions/mean_length": mean([row["n_tokens"] for row in rows], groups),
        "completions/ended": proportion([float(row["finished"]) for row in rows], groups),
        "completions/repetition": mean([repeated_share(row["content"], 3) for row in rows], groups),
    }
    for n in (1, 2):
        found = [
            (distinct_share([row["content"] for row in of_prompt], n), of_prompt[0]["group_id"])
            for of_prompt in _by_prompt(rows).values()
        ]
        said = [(share, group) for share, group in found if share is not None]
        figures[f"completions/distinct_{n}"] = mean([share for share, _ in said], [group for _, group in said])
    return figures


def distinct_share(texts: Sequence[str], n: int) -> float | None:
    """Of all runs of `n` words in the texts the share that are distinct (Li et al. 2016, arXiv:1510.03055).

    None where there is no such run.
    """
    runs = [tuple(words[i : i + n]) for words in (text.split() for text in texts) for i in range(len(words) - n + 1)]
    return len(set(runs)) / len(runs) if runs else None


def of_rewards(rows: list[Row]) -> dict[str, Figure]:
    """The mean of the weighted sum, and of each reward where there are several."""
    groups = [row["group_id"] for row in rows]
    figures = {"reward": mean([row["reward"] for row in rows], groups)}
    names = list(rows[0]["rewards"])
    for name in names if len(names) > 1 else ():
        said = [(row["rewards"][name], row["group_id"]) for row in rows if row["rewards"][name] is not None]
        figures[f"rewards/{name}"] = mean([value for value, _ in said], [group for _, group in said])
    return figures


def duel(policy: list[Row], reference: list[Row]) -> dict[str, Figure]:
    """The policy's rewards against the reference's, prompt by prompt, each of its completions against each of the other's.

    Lengths are compared in characters, which both have, whatever their tokens.
    """
    wins: list[float] = []
    longer: list[float] = []
    groups: list[str] = []
    weights: list[float] = []
    of_prompts: list[tuple[float, float, str]] = []
    theirs = _by_prompt(reference)
    for prompt_id, ours in _by_prompt(policy).items():
        pairs = list(itertools.product(ours, theirs[prompt_id]))
        won = [_win(first["reward"] - second["reward"]) for first, second in pairs]
        differences = [first["reward"] - second["reward"] for first, second in pairs]
        group = ours[0]["group_id"]
        of_prompts.append((sum(won) / len(won), sum(differences) / len(differences), group))
        wins += won
        longer += [len(first["content"]) - len(second["content"]) for first, second in pairs]
        groups += [group] * len(pairs)
        weights += [1 / len(pairs)] * len(pairs)
    prompt_groups = [group for _, _, group in of_prompts]
    shorter = [place for place, difference in enumerate(longer) if difference < 0]
    return {
        "reward/difference": mean([difference for _, difference, _ in of_prompts], prompt_groups),
        "win_rate": proportion([won for won, _, _ in of_prompts], prompt_groups),
        "win_rate/length_controlled": length_controlled(wins, longer, groups, weights),
        "win_rate/where_shorter": proportion([wins[place] for place in shorter], [groups[place] for place in shorter]),
    }


def _win(difference: float) -> float:
    return (difference > 0) + (difference == 0) / 2


def _by_prompt(rows: list[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["prompt_id"], []).append(row)
    return found


@torch.inference_mode()
def kl_from(policy: Model, reference: Model, rows: list[Row], run_log: RunLog) -> dict[str, Figure]:
    """KL(policy || reference) of whole completions and of a token, in nats, on the policy's completions."""
    run_log.status("comparing the distributions")
    vocabulary, batch_size = len(policy.tokenizer), rows_at_once([row["ids"] for row in rows])
    kl_nats: list[float] = []
    n_tokens: list[float] = []
    for start in range(0, len(rows), batch_size):
        run_log.progress(start, len(rows), "compared completions")
        run_log.raise_if_stopped()
        batch = rows[start : start + batch_size]
        prompts = [prompt_ids(policy.tokenizer, row["prompt"]) for row in batch]
        completions = [row["ids"] for row in batch]
        ours, theirs = (
            completion_logits(one.model, prompts, completions, pad=policy.tokenizer.pad_token_id) for one in (policy, reference)
        )
        if ours.shape[-1] != theirs.shape[-1]:  # one is padded to a rounder number than the tokenizer has tokens
            ours, theirs = ours[..., :vocabulary], theirs[..., :vocabulary]
        mask = completion_mask(completions, device=ours.device)
        kl_nats += divergence(ours, theirs, mask, beta=1.0).sum(dim=1).tolist()
        n_tokens += mask.sum(dim=1).tolist()
    groups = [row["group_id"] for row in rows]
    return {"kl": mean(kl_nats, groups), "kl/per_token": ratio(kl_nats, n_tokens, groups)}


def rows_at_once(completions: Sequence[Sequence[int]]) -> int:
    """How many of them a model reads in one go."""
    return max(1, TOKENS_AT_ONCE // max(map(len, completions)))


@torch.inference_mode()
def losses(one: Model, texts: list[Row], run_log: RunLog) -> tuple[list[float], list[int]]:
    """Of each text the nats and the tokens of its completion, its end as the chat template writes it among them."""
    run_log.status(f"reading texts as the {one.who}")
    nats: list[float] = []
    tokens: list[int] = []
    split = [split_text(one.tokenizer, row) for row in texts]
    batch_size = rows_at_once([completion for _, completion in split])
    for start in range(0, len(texts), batch_size):
        run_log.raise_if_stopped()
        prompts, completions = zip(*split[start : start + batch_size], strict=True)
        logits = completion_logits(one.model, prompts, completions, pad=one.tokenizer.pad_token_id)
        nats += (-token_log_probs(logits, completions)).sum(dim=1).tolist()
        tokens += [len(ids) for ids in completions]
    return nats, tokens


def split_text(tokenizer: PreTrainedTokenizerBase, row: Row) -> tuple[list[int], list[int]]:
    """Tokens of a text before and from where the assistant begins to speak. Raises ValueError where the two don't join."""
    before = prompt_ids(tokenizer, row["prompt"])
    whole = list(tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=True, return_dict=True)["input_ids"])
    if whole[: len(before)] != before or len(whole) == len(before):
        raise ValueError("The chat template writes a prompt otherwise when an answer follows: the loss of texts can't be told")
    return before, whole[len(before) :]


# --- the run ------------------------------------------------------------------------------------
def main(args: EvaluateArguments) -> None:
    """Evaluate one policy in `args.run_dir`. What was sampled before a kill is kept, the rest is done anew."""
    run_log = RunLog(args.run_dir, kind=KIND, seed=args.seed)
    functions, weights = [], []
    if args.rewards:
        functions, weights = reward_functions(args.rewards, args.reward_weights, base_model=args.model, seed=args.seed)
    models = [load(POLICY, args.model, args.adapter)]
    if args.reference:
        models.append(load(REFERENCE, args.reference, args.reference_adapter))
    prompts, counts = load_prompts_of(args, models)
    texts, text_counts = held_out_texts(args, models)
    counts |= text_counts
    if any(counts.values()):
        run_log.status("left_out", **counts)

    sampled = {one.who: sample(args, one, prompts, run_log) for one in models}
    every = [row for rows in sampled.values() for row in rows]
    if functions:
        reward(args, every, functions, weights, run_log)
        counts["n_unscored"] = sum(value is None for row in every for value in row["rewards"].values())
    figures = (of_rewards(sampled[POLICY]) if functions else {}) | of_texts(sampled[POLICY])
    without_kl = ""
    if args.reference:
        theirs = (of_rewards(sampled[REFERENCE]) if functions else {}) | of_texts(sampled[REFERENCE])
        if functions:
            figures = duel(sampled[POLICY], sampled[REFERENCE]) | figures
        figures |= {f"{name}/reference": figure for name, figure in theirs.items()}
        if models[0].tokenizer.get_vocab() == models[1].tokenizer.get_vocab():
            figures |= kl_from(models[0], models[1], sampled[POLICY], run_log)
        else:
            without_kl = "policy and reference have other tokens"
            run_log.status("no_kl", reason=without_kl)
    if texts:
        figures |= losses_of(models, texts, run_log)

    write_rows(args.run_dir / COMPLETIONS_FILE, every)
    show(run_log, sampled)
    for one in models:
        (args.run_dir / f"sampled_{one.who}.jsonl").unlink(missing_ok=True)
    metrics = {name: figure["value"] for name, figure in figures.items() if figure["value"] is not None}
    run_log.metrics(metrics)
    run_log.finish(
        metrics=metrics,
        figures=figures,
        arguments={name: value for name, value in asdict(args).items() if name != "run_dir"},
        rewards=[
            {"reward": entry, "name": function.__name__, "weight": weight}
            for entry, function, weight in zip(args.rewards, functions, weights, strict=True)
        ],
        without_kl=without_kl,
        dataset={
            "n_eval": len(prompts),
            "n_texts": len(texts),
            **counts,
            "prompts_hash": hash_prompts(prompts),
            "manifest": read_manifest(args.run_dir / "dataset"),
        },
        base_model={"path": args.model, "hash": hash_model(args.model), "adapter": args.adapter},
        reference={"path": args.reference, "hash": hash_model(args.reference), "adapter": args.reference_adapter}
        if args.reference
        else None,
    )


def held_out_texts(args: EvaluateArguments, models: Sequence[Model]) -> tuple[list[Row], dict[str, int]]:
    """The texts whose loss is told, if there are any, and counts of what was left out."""
    path = args.run_dir / "dataset" / "eval.jsonl"
    found = load_texts(path) if path.exists() else []
    kept = [row for row in found if max(sum(map(len, split_text(one.tokenizer, row))) for one in models) <= args.max_length]
    counts = {"n_texts_too_long": len(found) - len(kept)} if found else {}
    if len(kept) > args.max_texts:
        counts["n_texts_set_aside"] = len(kept) - args.max_texts
        kept = sorted(kept, key=lambda row: derive_seed(args.seed, json.dumps(row, sort_keys=True)))[: args.max_texts]
    return kept, counts


def losses_of(models: Sequence[Model], texts: list[Row], run_log: RunLog) -> dict[str, Figure]:
    """Loss in nats a token, and with a reference of the same tokens its own and the difference."""
    groups = [row["group_id"] for row in texts]
    (nats, tokens), *theirs = (losses(one, texts, run_log) for one in models)
    figures = {"loss": ratio(nats, tokens, groups)}
    for other, other_tokens in theirs:
        figures["loss/reference"] = ratio(other, other_tokens, groups)
        if tokens == other_tokens:
            change = [first - second for first, second in zip(nats, other, strict=True)]
            figures["loss/difference"] = ratio(change, tokens, groups)
    return figures


def write_rows(path: Path, rows: list[Row]) -> None:
    """The completions with their rewards, whole or not at all; without the prompts, which lie in the dataset."""
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            kept = {name: value for name, value in row.items() if name not in ("prompt", "ids")}
            file.write(json.dumps(kept, ensure_ascii=False) + "\n")
    temporary.replace(path)


def show(run_log: RunLog, sampled: dict[str, list[Row]]) -> None:
    """The first prompts' completions as events, the policy's and the reference's together."""
    together = [_by_prompt(rows) for rows in sampled.values()]
    rows = [row for prompt_id in together[0] for one in together for row in one[prompt_id]]
    for row in rows[:SHOWN]:
        facts: dict[str, Any] = {"reward": row["reward"], "rewards": row["rewards"]} if "reward" in row else {}
        run_log.event("sample", prompt=row["prompt"], completion=row["content"], by=row["who"], **facts)


def hash_prompts(prompts: list[Row]) -> str:
    """SHA-256 of the prompts that were asked, in any order: figures on others can't be held against these."""
    digests = sorted(hashlib.sha256(json.dumps(row["prompt"], sort_keys=True).encode()).hexdigest() for row in prompts)
    return hashlib.sha256("".join(digests).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(launch(KIND, main, (EvaluateArguments,)))
