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
    }
)
CHOICES = ("chosen", "rejected", "tie")

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

Row = dict[str, Any]


class DatasetError(ValueError):
    """A file of the dataset is missing, empty or malformed; the message names file and line."""


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
    latter), `people` (how many people said each choice of the two, in this row or another), `is_settled` (bool, by a reviewer).

    Raises DatasetError for malformed rows, and where one group_id is in both splits.
    """
    return _load_splits(dataset_dir, _read_pairs, PREFERENCE_FEATURES, "pairs")


def load_supervised(dataset_dir: Path) -> DatasetDict:
    """Read `train.jsonl` and `eval.jsonl` as texts to imitate: rows of `messages` that end with the assistant's.

    Columns: `prompt` (all messages but the last), `completion` (the last), `source` and `licence` (strings, default
    `unknown`), `group_id` (as in `load_preferences`). Further columns are left out. Missing files and errors as there.
    """
    return _load_splits(dataset_dir, _read_supervised, SUPERVISED_FEATURES, "texts")


def load_texts(path: Path) -> list[Row]:
    """The texts of one file as rows of `prompt`, `completion`, `source`, `licence` and `group_id`; see `load_supervised`."""
    return _read_supervised(path)


def load_unpaired(dataset_dir: Path) -> DatasetDict:
    """Read `train.jsonl` and `eval.jsonl` as single completions that are acceptable or not.

    Columns: `prompt`, `completion` (messages), `label` (bool), `source`, `licence` and `group_id` as in
    `load_supervised`. Further columns are left out. Missing files and errors as in `load_preferences`.
    """
    return _load_splits(dataset_dir, _read_unpaired, UNPAIRED_FEATURES, "labelled completions")


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


def _load_splits(dataset_dir: Path, read: Callable[[Path], list[Row]], features: Features, what: str) -> DatasetDict:
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
    return DatasetDict({name: Dataset.from_list(rows, features=features) for name, rows in splits.items()})


def _read_supervised(path: Path) -> list[Row]:
    rows = []
    for row in _read_rows(path, _check_supervised):
        messages = _plain(row["messages"])
        rows.append({"prompt": messages[:-1], "completion": messages[-1:], **_origin(row, messages[:-1])})
    return rows


def _read_unpaired(path: Path) -> list[Row]:
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
                "soft_label": _soft_label(row),
                "id": row.get("id"),
                **{name: row.get(name) for name in ("strength", "iteration", "tags", "chosen_first", "task", "comparison")},
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
    for name in ("id", "task", "comparison"):
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
