"""Reading what the worker put into a run folder's `dataset/`."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Features, List, Value

from training.recipes._rows import (  # noqa: F401  some for the recipes, which take all of the data from here
    CHOICES,
    DatasetError,
    Row,
    completion_text,
    load_prompt_splits,
    load_prompts,
    read_manifest,
    read_pairs,
    read_splits,
    read_supervised,
    read_unpaired,
)

MESSAGES = List({"role": Value("string"), "content": Value("string")})
PREFERENCE_FEATURES = Features(
    {
        "prompt": MESSAGES,
        "chosen": MESSAGES,
        "rejected": MESSAGES,
        "margin": Value("float64"),
        "weight": Value("float64"),
        "group_id": Value("string"),
        "tie": Value("bool"),
        "soft_label": Value("float64"),
        "id": Value("string"),
        # What only the report of a reward model asks for.
        "strength": Value("float64"),
        "iteration": Value("int64"),
        "tags": List(Value("string")),
        "votes": List({"annotator": Value("string"), "annotator_kind": Value("string"), "choice": Value("string")}),
        "chosen_first": Value("float64"),
        "task": Value("string"),
        "comparison": Value("string"),
        "people": {"chosen": Value("int64"), "rejected": Value("int64"), "tie": Value("int64")},
        "is_settled": Value("bool"),
        "axis": Value("string"),
    }
)

SUPERVISED_FEATURES = Features(
    {
        "prompt": MESSAGES,
        "completion": MESSAGES,
        "source": Value("string"),
        "licence": Value("string"),
        "group_id": Value("string"),
    }
)
UNPAIRED_FEATURES = Features({**SUPERVISED_FEATURES, "label": Value("bool")})

def load_preferences(dataset_dir: Path) -> DatasetDict:
    """Read `train.jsonl` and `eval.jsonl` as preference pairs in TRL's conversational form.

    Columns: `prompt`, `chosen`, `rejected` (messages), `margin` (float or None), `weight` (float, not negative,
    default 1), `group_id` (string, default: the prompt's own text), `tie` (bool, default False; `chosen` and
    `rejected` are then in no particular order), `soft_label` (float, probability that `chosen` is the better one; default
    0.5 for a tie, else 1), `id` (string or None). Further columns are left out. `eval` is missing from the
    result when the file is missing or empty; an empty `train.jsonl` is an error.

    For the report of a reward model, each None where the row doesn't say: `strength` (1 to 3), `iteration`, `tags` of the
    prompt, `votes` (of each `annotator`, `annotator_kind` and `choice`: chosen, rejected or tie), `chosen_first` (share of the votes
    to which chosen was shown before rejected), `task` and `comparison` (ids; rows on the same two completions share the
    latter), `people` (how many people said each choice of the two, in this row or another), `is_settled` (bool, by a reviewer). `axis` is what a pair compares by,
    of a reward model with several; None where the row doesn't say.

    Raises DatasetError for malformed rows, and where one group_id is in both splits.
    """
    return _load_splits(dataset_dir, read_pairs, PREFERENCE_FEATURES, "pairs")


def load_supervised(dataset_dir: Path) -> DatasetDict:
    """Read `train.jsonl` and `eval.jsonl` as texts to imitate: rows of `messages` that end with the assistant's.

    Columns: `prompt` (all messages but the last), `completion` (the last), `source` and `licence` (strings, default
    `unknown`), `group_id` (as in `load_preferences`). Further columns are left out. Missing files and errors as there.
    """
    return _load_splits(dataset_dir, read_supervised, SUPERVISED_FEATURES, "texts")


def load_texts(path: Path) -> list[Row]:
    """The texts of one file as rows of `prompt`, `completion`, `source`, `licence` and `group_id`; see `load_supervised`."""
    return read_supervised(path)


def load_unpaired(dataset_dir: Path) -> DatasetDict:
    """Read `train.jsonl` and `eval.jsonl` as single completions that are acceptable or not.

    Columns: `prompt`, `completion` (messages), `label` (bool), `source`, `licence` and `group_id` as in
    `load_supervised`. Further columns are left out. Missing files and errors as in `load_preferences`.
    """
    return _load_splits(dataset_dir, read_unpaired, UNPAIRED_FEATURES, "labelled completions")


def unpair(pairs: Dataset) -> tuple[Dataset, int]:
    """Single completions of preference pairs, in the order in which they first come, and how many had no label.

    A completion is acceptable where it was the better one of more than half of the pairs of its prompt that it is in, each
    counted by its `soft_label`, and not acceptable where of less than half. One in the middle has no label and is
    left out: it is better than some and worse than others, which says nothing of it alone. Pairs of weight 0 count nothing.
    """
    said: dict[tuple[str, str], list[float]] = {}
    first: dict[tuple[str, str], Row] = {}
    for pair in pairs:
        if not pair["weight"]:
            continue
        prompt = json.dumps(pair["prompt"], sort_keys=True)
        for side, share in (("chosen", pair["soft_label"]), ("rejected", 1 - pair["soft_label"])):
            key = prompt, completion_text(pair[side])
            said.setdefault(key, []).append(share)
            row = {"prompt": pair["prompt"], "completion": pair[side], "group_id": pair["group_id"]}
            first.setdefault(key, row | {"source": "pair", "licence": "unknown"})
    shares = {key: sum(values) / len(values) for key, values in said.items()}
    decided = {key: share for key, share in shares.items() if not math.isclose(share, 0.5)}
    rows = [first[key] | {"label": share > 0.5} for key, share in decided.items()]
    columns = {name: [row[name] for row in rows] for name in UNPAIRED_FEATURES}  # also where there are no rows
    return Dataset.from_dict(columns, features=UNPAIRED_FEATURES), len(shares) - len(decided)


def short_enough(dataset: Dataset, tokenizer: Any, max_length: int | None) -> Dataset:
    """The rows whose prompt and completion, in the chat template, are no longer than `max_length` tokens.

    TRL would cut the end off the others, and with it the end of the completion.
    """
    if max_length is None:
        return dataset

    def fits(row: Row) -> bool:
        encoded = tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=True, return_dict=True)
        return len(encoded["input_ids"]) <= max_length

    return dataset.select([index for index, row in enumerate(dataset) if fits(row)])


def count_longer_pairs(dataset: Dataset, tokenizer: Any, max_length: int | None) -> int:
    """Pairs of which a text, prompt included, has more than `max_length` tokens in the chat template."""
    if max_length is None:
        return 0

    def is_longer(messages: list[dict[str, str]]) -> bool:
        return len(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]) > max_length

    return sum(any(is_longer(row["prompt"] + row[name]) for name in ("chosen", "rejected")) for row in dataset)


def drop_ties(dataset: Dataset) -> Dataset:
    """The pairs with a winner, in order."""
    return dataset.select([index for index, tie in enumerate(dataset["tie"]) if not tie])


def clearest_pairs(dataset: Dataset, per_group: int) -> Dataset:
    """At most `per_group` pairs of each group, those with the widest gap, in file order.

    A completion's standing is its wins minus its losses within the group, so of a ranking of four the best
    against the worst comes first. Weights are scaled up so that each group keeps its total.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(dataset["group_id"]):
        members[group].append(index)
    rows = dataset.to_list()
    kept: dict[int, float] = {}
    for indices in members.values():
        standing: Counter[str] = Counter()
        for index in indices:
            standing[completion_text(rows[index]["chosen"])] += 1
            standing[completion_text(rows[index]["rejected"])] -= 1
        gap = {
            index: standing[completion_text(rows[index]["chosen"])] - standing[completion_text(rows[index]["rejected"])]
            for index in indices
        }
        chosen = sorted(indices, key=lambda index: (-gap[index], index))[:per_group]
        total, share = (sum(rows[index]["weight"] for index in part) for part in (indices, chosen))
        kept |= {index: rows[index]["weight"] * (total / share if share else 1.0) for index in chosen}
    return Dataset.from_list(
        [rows[index] | {"weight": kept[index]} for index in sorted(kept)], features=dataset.features
    )


def normalise_weights(dataset: Dataset) -> Dataset:
    """Scale `weight` to a mean of 1, so that weighting leaves the learning rate's meaning alone.

    Pairs of weight 0 are left out. Raises DatasetError where none is positive.
    """
    weights = dataset["weight"]
    positive = [index for index, weight in enumerate(weights) if weight > 0]
    if not positive:
        raise DatasetError("Every pair of the training set has weight 0: there is nothing to learn from")
    kept = dataset.select(positive)
    average = sum(weights[index] for index in positive) / len(positive)
    return kept.remove_columns("weight").add_column("weight", [weight / average for weight in kept["weight"]])


def _load_splits(dataset_dir: Path, read: Callable[[Path], list[Row]], features: Features, what: str) -> DatasetDict:
    splits = read_splits(dataset_dir, read, what)
    return DatasetDict({name: Dataset.from_list(rows, features=features) for name, rows in splits.items()})
