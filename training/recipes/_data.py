"""Reading what the worker put into a run folder's `dataset/`."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Features, List, Value

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
        "id": Value("string"),
    }
)

Row = dict[str, Any]


class DatasetError(ValueError):
    """A file of the dataset is missing, empty or malformed; the message names file and line."""


def load_preferences(dataset_dir: Path) -> DatasetDict:
    """Read `train.jsonl` and `eval.jsonl` as preference pairs in TRL's conversational form.

    Columns: `prompt`, `chosen`, `rejected` (messages), `margin` (float or None), `weight` (float, not negative,
    default 1), `group_id` (string, default: the prompt's own text), `tie` (bool, default False; `chosen` and
    `rejected` are then in no particular order), `id` (string or None). Further columns are left out. `eval` is missing from the
    result when the file is missing or empty; an empty `train.jsonl` is an error.

    Raises DatasetError for malformed rows, and where one group_id is in both splits.
    """
    train = _read_pairs(dataset_dir / "train.jsonl")
    if not train:
        raise DatasetError(f"{dataset_dir / 'train.jsonl'} holds no pairs: there is nothing to learn from")
    splits = {"train": train}
    if (dataset_dir / "eval.jsonl").exists() and (held_out := _read_pairs(dataset_dir / "eval.jsonl")):
        splits["eval"] = held_out
        shared = {row["group_id"] for row in train} & {row["group_id"] for row in held_out}
        if shared:
            raise DatasetError(
                f"{dataset_dir}: {len(shared)} groups are in both train.jsonl and eval.jsonl (one is "
                f"{min(shared)!r}); held-out figures would be too good"
            )
    return DatasetDict({name: Dataset.from_list(rows, features=PREFERENCE_FEATURES) for name, rows in splits.items()})


def load_prompts(dataset_dir: Path) -> list[Row]:
    """Read `prompts.jsonl`: rows `{"prompt_id", "prompt": [messages]}`, further keys kept.

    Raises DatasetError for malformed rows, for a repeated `prompt_id`, and where there are none.
    """
    path = dataset_dir / "prompts.jsonl"
    rows = list(_read_rows(path, _check_prompt))
    if not rows:
        raise DatasetError(f"{path} holds no prompts: there is nothing to sample")
    counts = Counter(row["prompt_id"] for row in rows)
    repeated = [prompt_id for prompt_id, count in counts.items() if count > 1]
    if repeated:
        raise DatasetError(f"{path}: prompt_id {repeated[0]!r} is there {counts[repeated[0]]} times")
    return rows


def read_manifest(dataset_dir: Path) -> Row:
    """`manifest.json` as it is, or an empty mapping where there is none."""
    path = dataset_dir / "manifest.json"
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{path} is no JSON: {error}") from None


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


def completion_text(messages: list[dict[str, str]]) -> str:
    """The text of one completion: its messages' contents, joined where there are several."""
    return "\n".join(message["content"] for message in messages)


def _read_pairs(path: Path) -> list[Row]:
    rows = []
    for row in _read_rows(path, _check_pair):
        group = row.get("group_id")
        rows.append(
            {
                "prompt": _plain(row["prompt"]),
                "chosen": _plain(row["chosen"]),
                "rejected": _plain(row["rejected"]),
                "margin": row.get("margin"),
                "weight": 1.0 if row.get("weight") is None else float(row["weight"]),
                "group_id": json.dumps(_plain(row["prompt"])) if group is None else str(group),
                "tie": bool(row.get("tie")),
                "id": row.get("id"),
            }
        )
    return rows


def _read_rows(path: Path, check: Callable[[Row], str | None]) -> Iterator[Row]:
    if not path.exists():
        raise DatasetError(f"{path} is missing: the run folder is incomplete")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DatasetError(f"{path}, line {number}: no valid JSON ({error})") from None
            problem = check(row) if isinstance(row, dict) else "a row must be a JSON object"
            if problem:
                raise DatasetError(f"{path}, line {number}: {problem}")
            yield row


def _check_pair(row: Row) -> str | None:
    for name in ("prompt", "chosen", "rejected"):
        if problem := _check_messages(row, name):
            return problem
    for name in ("chosen", "rejected"):
        if row[name][0]["role"] != "assistant":
            return f"`{name}` must begin with a message of the assistant, not of {row[name][0]['role']!r}"
    for name in ("margin", "weight"):
        value = row.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"`{name}` is {value!r}, it must be a finite number"
        if name == "weight" and value < 0:
            return f"`weight` is {value}, it cannot be negative"
    if not isinstance(row.get("tie", False), bool | None):
        return f"`tie` is {row['tie']!r}, it must be true or false"
    if not isinstance(row.get("id"), str | None):
        return f"`id` is {row['id']!r}, it must be a text"
    return None


def _check_prompt(row: Row) -> str | None:
    if not isinstance(row.get("prompt_id"), str | int):
        return "`prompt_id` is missing"
    return _check_messages(row, "prompt")


def _check_messages(row: Row, name: str) -> str | None:
    messages = row.get(name)
    if messages is None:
        return f"`{name}` is missing"
    if not isinstance(messages, list) or not messages:
        return f"`{name}` must be a list of at least one message"
    for message in messages:
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            return f"each message of `{name}` needs a `role` and a `content` of text"
    return None


def _plain(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{"role": message["role"], "content": message["content"]} for message in messages]
