"""Rows of a run folder's `dataset/`, read and checked. Without the library `datasets`, whose import takes seconds."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

CHOICES = ("chosen", "rejected", "tie")

Row = dict[str, Any]


class DatasetError(ValueError):
    """A file of the dataset is missing, empty or malformed; the message names file and line."""


class Table:
    """Rows with the same keys, read as a `datasets.Dataset` is: a column by its name, `len`, `select` and `to_list`."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> list[Any]:
        return [row[name] for row in self.rows]

    def select(self, indices: Sequence[int]) -> "Table":
        return Table([self.rows[index] for index in indices])

    def to_list(self) -> list[Row]:
        return self.rows


def read_preferences(dataset_dir: Path) -> dict[str, Table]:
    """As `load_preferences` of `_data.py`, as plain rows."""
    return {name: Table(rows) for name, rows in read_splits(dataset_dir, read_pairs, "pairs").items()}


def read_splits(dataset_dir: Path, read: Callable[[Path], list[Row]], what: str) -> dict[str, list[Row]]:
    """The rows of `train.jsonl` and of `eval.jsonl`, where it holds any. Raises DatasetError."""
    train = read(dataset_dir / "train.jsonl")
    if not train:
        raise DatasetError(f"{dataset_dir / 'train.jsonl'} holds no {what}: there is nothing to learn from")
    splits = {"train": train}
    if (dataset_dir / "eval.jsonl").exists() and (held_out := read(dataset_dir / "eval.jsonl")):
        splits["eval"] = held_out
        shared = {row["group_id"] for row in train} & {row["group_id"] for row in held_out}
        if shared:
            raise DatasetError(
                f"{dataset_dir}: {len(shared)} groups are in both train.jsonl and eval.jsonl (one is "
                f"{min(shared)!r}); held-out figures would be too good"
            )
    return splits


def load_prompts(dataset_dir: Path, name: str = "prompts.jsonl") -> list[Row]:
    """Read a file of prompts: rows `{"prompt_id", "prompt": [messages]}`, further keys kept.

    Raises DatasetError for malformed rows, for a repeated `prompt_id`, and where there are none.
    """
    path = dataset_dir / name
    rows = list(_read_rows(path, _check_prompt))
    if not rows:
        raise DatasetError(f"{path} holds no prompts: there is nothing to sample")
    counts = Counter(row["prompt_id"] for row in rows)
    repeated = [prompt_id for prompt_id, count in counts.items() if count > 1]
    if repeated:
        raise DatasetError(f"{path}: prompt_id {repeated[0]!r} is there {counts[repeated[0]]} times")
    return rows


def load_prompt_splits(dataset_dir: Path) -> tuple[list[Row], list[Row]]:
    """Prompts to train on from `prompts.jsonl`, and those held out from `eval_prompts.jsonl`, where it is there.

    `group_id` (string, default: the prompt's own text) names the prompts that are nearly the same. Raises
    DatasetError as `load_prompts` does, and where a group is in both files.
    """
    train, held_out = load_prompts(dataset_dir), []
    path = dataset_dir / "eval_prompts.jsonl"
    if path.exists() and path.read_text(encoding="utf-8").strip():
        held_out = load_prompts(dataset_dir, path.name)
    for row in (*train, *held_out):
        row["prompt"] = _plain(row["prompt"])
        row["group_id"] = json.dumps(row["prompt"]) if row.get("group_id") is None else str(row["group_id"])
    if shared := {row["group_id"] for row in train} & {row["group_id"] for row in held_out}:
        raise DatasetError(
            f"{dataset_dir}: {len(shared)} groups are in both prompts.jsonl and eval_prompts.jsonl (one is "
            f"{min(shared)!r}); held-out figures would be too good"
        )
    return train, held_out


def load_completions(dataset_dir: Path) -> list[Row]:
    """Read `completions.jsonl`: rows `{"completion_id", "prompt": [messages], "completion": text}`. Raises DatasetError."""
    return list(_read_rows(dataset_dir / "completions.jsonl", _check_completion))


def read_manifest(dataset_dir: Path) -> Row:
    """`manifest.json` as it is, or an empty mapping where there is none."""
    path = dataset_dir / "manifest.json"
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{path} is no JSON: {error}") from None


def completion_text(messages: list[dict[str, str]]) -> str:
    """The text of one completion: its messages' contents, joined where there are several."""
    return "\n".join(message["content"] for message in messages)


def read_supervised(path: Path) -> list[Row]:
    rows = []
    for row in _read_rows(path, _check_supervised):
        messages = _plain(row["messages"])
        rows.append({"prompt": messages[:-1], "completion": messages[-1:], **_origin(row, messages[:-1])})
    return rows


def read_unpaired(path: Path) -> list[Row]:
    rows = []
    for row in _read_rows(path, _check_unpaired):
        prompt = _plain(row["prompt"])
        rows.append(
            {
                "prompt": prompt,
                "completion": _plain(row["completion"]),
                "label": row["label"],
                **_origin(row, prompt),
            }
        )
    return rows


def _origin(row: Row, prompt: list[dict[str, str]]) -> Row:
    group = row.get("group_id")
    return {
        "source": row.get("source") or "unknown",
        "licence": row.get("licence") or "unknown",
        "group_id": json.dumps(prompt) if group is None else str(group),
    }


def read_pairs(path: Path) -> list[Row]:
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
                "soft_label": _soft_label(row),
                "id": row.get("id"),
                **{name: row.get(name) for name in ("strength", "iteration", "tags", "chosen_first", "task", "comparison", "axis")},
                "votes": _votes(row),
                "people": row.get("people"),
                "is_settled": bool(row.get("is_settled") or row.get("adjudication")),
            }
        )
    return rows


def _votes(row: Row) -> list[Row] | None:
    if row.get("votes") is None:
        return None
    return [{name: vote.get(name) for name in ("annotator", "annotator_kind", "choice")} for vote in row["votes"]]


def _soft_label(row: Row) -> float:
    given = row.get("soft_label")
    return float(given) if given is not None else 0.5 if row.get("tie") else 1.0


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
    for name in ("margin", "weight", "soft_label", "strength", "chosen_first"):
        value = row.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"`{name}` is {value!r}, it must be a finite number"
        if name == "weight" and value < 0:
            return f"`weight` is {value}, it cannot be negative"
        if name == "soft_label" and not 0 <= value <= 1:
            return f"`soft_label` is {value}, it must lie between 0 and 1"
    if not isinstance(row.get("tie", False), bool | None):
        return f"`tie` is {row['tie']!r}, it must be true or false"
    for name in ("id", "task", "comparison", "axis"):
        if not isinstance(row.get(name), str | None):
            return f"`{name}` is {row[name]!r}, it must be a text"
    return _check_report_columns(row)


def _check_report_columns(row: Row) -> str | None:
    first = row.get("chosen_first")
    if first is not None and not 0 <= first <= 1:
        return f"`chosen_first` is {first}, it must lie between 0 and 1"
    if isinstance(row.get("iteration"), bool) or not isinstance(row.get("iteration"), int | None):
        return f"`iteration` is {row['iteration']!r}, it must be a whole number"
    tags = row.get("tags")
    if tags is not None and not (isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)):
        return f"`tags` is {tags!r}, it must be a list of texts"
    votes = row.get("votes")
    if votes is not None and not (isinstance(votes, list) and all(map(_is_vote, votes))):
        return "`votes` must be a list of objects with a `choice` of chosen, rejected or tie, and texts beside it"
    people = row.get("people")
    if people is not None and not (
        isinstance(people, dict) and all(type(people.get(choice)) is int and people[choice] >= 0 for choice in CHOICES)
    ):
        return f"`people` is {people!r}, it must count chosen, rejected and tie"
    return None


def _is_vote(vote: Any) -> bool:
    return (
        isinstance(vote, dict)
        and vote.get("choice") in CHOICES
        and all(isinstance(vote.get(name), str | None) for name in ("annotator", "annotator_kind"))
    )


def _check_supervised(row: Row) -> str | None:
    if problem := _check_messages(row, "messages"):
        return problem
    if row["messages"][-1]["role"] != "assistant":
        return f"`messages` must end with a message of the assistant, not of {row['messages'][-1]['role']!r}"
    if len(row["messages"]) < 2:
        return "`messages` must hold a prompt before the message of the assistant"
    return _check_origin(row)


def _check_unpaired(row: Row) -> str | None:
    for name in ("prompt", "completion"):
        if problem := _check_messages(row, name):
            return problem
    if row["completion"][0]["role"] != "assistant":
        return f"`completion` must begin with a message of the assistant, not of {row['completion'][0]['role']!r}"
    if not isinstance(row.get("label"), bool):
        return f"`label` is {row.get('label')!r}, it must be true or false"
    return _check_origin(row)


def _check_origin(row: Row) -> str | None:
    for name in ("source", "licence"):
        if not isinstance(row.get(name), str | None):
            return f"`{name}` is {row[name]!r}, it must be a text"
    return None


def _check_prompt(row: Row) -> str | None:
    if not isinstance(row.get("prompt_id"), str | int):
        return "`prompt_id` is missing"
    return _check_messages(row, "prompt")


def _check_completion(row: Row) -> str | None:
    if not isinstance(row.get("completion"), str):
        return "`completion` is missing, or no text"
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
