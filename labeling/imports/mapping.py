"""Columns of a file that go by other names than those of a format. Pure.

A mapping says where each column of a format stands in the file: {"prompt": "question", "completion_a": "answers.0"}. The
place is a column, a dotted path into one, or several with " + " between, which are put one below the other.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import islice
from typing import Any

from labeling.imports.formats import FORMATS, Format
from labeling.imports.formats.checks import KEYS, axis_name
from labeling.imports.records import SourceRow

MAX_PATH = 500
MAX_COLUMNS = 200  # that are looked at for a proposal
MAX_NAME = 40  # characters of a name that could be likened to ours
JOIN = " + "

# What others call a column, likeliest first. A letter or number behind it is taken off before it is looked up.
ALSO_CALLED: dict[str, tuple[str, ...]] = {
    "prompt": ("prompt", "instruction", "question", "input", "query", "context", "conversation", "user_prompt", "message", "task", "text"),
    "chosen": ("chosen", "preferred", "accepted", "better", "winner_text", "chosen_response", "good", "positive", "win", "response_chosen"),
    "rejected": ("rejected", "dispreferred", "worse", "loser", "rejected_response", "bad", "negative", "lose", "lost", "response_rejected"),
    "completion": ("completion", "response", "answer", "output", "reply", "generation", "generated_text", "text", "target", "reference"),
    "completions": ("completions", "responses", "answers", "outputs", "candidates", "generations"),
    "label": ("label", "acceptable", "good", "thumbs_up", "is_good", "feedback", "liked", "approved"),
    "winner": ("winner", "better", "preferred", "preference", "best", "choice", "label", "vote", "verdict", "selected", "pick", "result"),
    "ranking": ("ranking", "order", "rank_order", "ranks"),
    "scale": ("scale", "preference_strength", "likert", "likert_value", "overall_preference"),
    "annotator": ("annotator", "judge", "rater", "worker", "worker_id", "user", "user_id", "username", "labeler", "labeller", "evaluator", "reviewer", "who"),
    "strength": ("strength", "confidence", "how_much"),
    "rationale": ("rationale", "reason", "comment", "explanation", "justification", "why", "notes"),
    "at": ("at", "timestamp", "created_at", "time", "date", "submitted_at"),
    "model": ("model", "model_name", "model_id", "generator"),
    "sampling": ("sampling", "sampling_config", "sampling_params", "generation_config", "parameters"),
    "score": ("score",), "rating": ("rating", "stars", "grade"), "rank": ("rank", "place", "position"),
    "messages": ("messages", "conversations", "conversation", "dialogue", "chat"),
    "id": ("id", "prompt_id", "item_id", "example_id", "idx", "index", "uid", "instance_id"),
    "source": ("source", "dataset", "origin", "subset"), "licence": ("licence", "license"), "tags": ("tags", "category", "topic", "labels"),
    "margin": ("margin", "score_diff"), "tie": ("tie", "is_tie"), "group_id": ("group_id", "group", "document_id", "thread_id"),
    "response": ("response", "completion", "answer", "output"),
}  # fmt: skip
LETTERED = ("completion", "model", "score", "rating", "rank")
SIDES = {"left": 1, "first": 1, "right": 2, "second": 2}
MARK = re.compile(r"(.+?)(?:_([a-z])|_?(\d{1,2})|_(left|right|first|second))")
LIKELY = 0.75


class BadMapping(Exception):
    """A mapping that the format does not know. `fields` says of each column what is wrong."""

    def __init__(self, fields: dict[str, str]) -> None:
        self.fields = fields
        super().__init__("; ".join(f"{name}: {problem}" for name, problem in fields.items()))


def mappable_columns(format: str) -> list[str]:
    """Columns of the format that a mapping may name, with every letter of those that go on: completion_a to completion_z."""
    known = FORMATS[format]
    names = []
    for column in known.columns:
        stem = column.name.removesuffix("_a")
        if known.name == "comparison" and stem in LETTERED:
            names += [f"{stem}_{letter}" for letter in KEYS]
        elif not (known.name == "comparison" and column.name == "completion_b"):
            names.append(column.name)
    return names


def check(mapping: Any, format: str) -> dict[str, str]:
    """The mapping without empty places. Raises BadMapping."""
    known = FORMATS[format]
    if not isinstance(mapping, dict):
        raise BadMapping({"mapping": "must be an object: a column of the format -> a column of the file"})
    places = {name: place for name, place in mapping.items() if place not in ("", None)}
    if places and not known.mappable:
        raise BadMapping({"mapping": f"{known.title} has a shape of its own; its columns can't go by other names"})
    columns = mappable_columns(format)
    wrong = {}
    for name, place in places.items():
        if name not in columns:
            wrong[str(name)[:60]] = f"is not a column of {format}; known: {', '.join(column.name for column in known.columns)}"
        elif not isinstance(place, str) or len(place) > MAX_PATH:
            wrong[name] = f"must be a column of the file, as a text of at most {MAX_PATH} characters"
    if wrong:
        raise BadMapping(wrong)
    return places


# --- applying -----------------------------------------------------------------------------------
def value_at(data: Any, place: str) -> Any:
    """Of a column of that very name, of a dotted path (answers.0.text), or of several put together; None where nothing is."""
    if not isinstance(data, dict) or place in data:
        return data.get(place) if isinstance(data, dict) else None
    if JOIN in place:
        found = [value_at(data, part.strip()) for part in place.split(JOIN)]
        texts = [item for item in found if isinstance(item, str) and item.strip()]
        return "\n\n".join(texts) if texts else None
    value: Any = data
    for part in place.split("."):
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isascii() and part.isdecimal() and len(part) < 6:
            value = value[int(part)] if int(part) < len(value) else None
        else:
            return None
    return value


def apply(mapping: Mapping[str, str], row: Mapping[str, Any], format: Format | None = None) -> dict[str, Any]:
    """The row under the names of the format. Columns that stand for none keep their own name.

    Of a `format` that refuses fields it does not know, those are left out: whoever maps columns has said which are read.
    """
    taken = {part.strip().split(".")[0] for place in mapping.values() for part in (place, *place.split(JOIN))}
    known = {column.name for column in format.columns} if format else set()
    strict = format is not None and any(option.name == "extra" for option in format.options)
    kept = {
        name: value
        for name, value in row.items()
        if name not in mapping and (name not in taken or name in known) and (not strict or name in known)
    }
    return kept | {name: value for name, place in mapping.items() if (value := value_at(row, place)) is not None}


def mapped(rows: Iterable[SourceRow], mapping: Mapping[str, str], format: Format) -> Iterator[SourceRow]:
    """Rows of a file under the names of the format."""
    if not mapping:
        yield from rows
        return
    for row in rows:
        yield row if row.data is None else SourceRow(row.line, apply(mapping, row.data, format), row.problem)


# --- proposing ----------------------------------------------------------------------------------
def propose(columns: Collection[str], format: str) -> dict[str, str]:
    """Which column of the file stands for which of the format, by their names. Those called alike are left out of it.

    `columns` may hold dotted paths. Each column of the file is used once.
    """
    known = FORMATS[format]
    if not known.mappable:
        return {}
    there = set(columns)
    wanted = [name for name in mappable_columns(format) if name not in there]
    ours = set(mappable_columns(format))
    free = list(islice((name for name in columns if name not in ours and len(name) <= MAX_PATH), MAX_COLUMNS))
    if format == "comparison":
        return _propose_side_by_side(wanted, free)
    return _propose_singly(wanted, free)


def _propose_singly(wanted: list[str], free: list[str]) -> dict[str, str]:
    """The best fits first, so that no column takes the place of a better one."""
    scored = sorted(
        ((score, name, column) for name in wanted for column in free if (score := likeness(name, column)) >= LIKELY),
        key=lambda found: (-found[0], wanted.index(found[1]), free.index(found[2])),
    )
    mapping: dict[str, str] = {}
    for _, name, column in scored:
        if name not in mapping and column not in mapping.values():
            mapping[name] = column
    if mapping.get("prompt") == "instruction" and "input" in free and "input" not in mapping.values():
        # What an instruction is about stands beside it.
        mapping["prompt"] = f"instruction{JOIN}input"
    return {name: mapping[name] for name in wanted if name in mapping}


@lru_cache(maxsize=4096)
def likeness(name: str, column: str) -> float:
    """How well the name of a column fits that of a format, 0 to 1: 1 is the same."""
    last = column.rpartition(".")[2]
    slug = axis_name(column if last.isdecimal() else last)
    if slug == axis_name(name):
        return 1.0
    others = ALSO_CALLED.get(name, ())
    if slug in others:
        return 0.98 - 0.01 * others.index(slug)
    if not 3 < len(slug) <= MAX_NAME:
        return 0.0
    return max((0.9 * SequenceMatcher(None, slug, other).ratio() for other in (name, *others) if len(other) > 3), default=0.0)


def _propose_side_by_side(wanted: list[str], free: list[str]) -> dict[str, str]:
    """Columns that differ in their last letter or number alone stand for completions, models and the like."""
    found: dict[str, dict[int, str]] = {}
    for column in free:
        if marked := _marked(column):
            stem, position = marked
            found.setdefault(stem, {})[position] = column
    sides = {stem: _from_a(by) for stem, by in found.items()}
    sides = {stem: by for stem, by in sides.items() if {"a", "b"} <= by.keys()}
    mapping: dict[str, str] = {}
    used: set[str] = set()
    for name in LETTERED:
        open_stems = [stem for stem, by in sides.items() if not used & set(by.values())]
        likely = [stem for stem in open_stems if likeness(name, stem) >= LIKELY]
        if not likely and name == "completion":
            # Whatever they are called: two columns side by side that nothing else explains are what is compared.
            unclaimed = [stem for stem in open_stems if all(likeness(other, stem) < LIKELY for other in LETTERED)]
            likely = unclaimed if len(unclaimed) == 1 else []
        if likely:
            columns = sides[max(likely, key=lambda stem: likeness(name, stem))]
            mapping |= {f"{name}_{letter}": column for letter, column in columns.items() if f"{name}_{letter}" in wanted}
            used |= set(columns.values())
    single = [name for name in wanted if name[:-2] not in LETTERED]
    mapping |= _propose_singly(single, [name for name in free if name not in used])
    return {name: mapping[name] for name in wanted if name in mapping}


def _marked(column: str) -> tuple[str, int] | None:
    """Of "Answer A", answerA, answer_1, answers.0 or left_answer: what it is of, and its place as it is counted there."""
    slug = axis_name(re.sub(r"(?<=[a-z])([A-Z])$", r"_\1", column))
    if len(slug) == 1 and slug in KEYS:
        return "", KEYS.index(slug) + 1
    first, _, rest = slug.partition("_")
    if first in SIDES and rest:
        return rest, SIDES[first]
    match = MARK.fullmatch(slug)
    if not match or not match[1]:
        return None
    stem, letter, number, side = match.groups()
    return stem.rstrip("_"), KEYS.index(letter) + 1 if letter else int(number) if number else SIDES[side]


def _from_a(columns: Mapping[int, str]) -> dict[str, str]:
    """By letter, whether they count from 0 or from 1."""
    shift = 0 if 0 in columns else 1
    return {KEYS[at - shift]: columns[at] for at in sorted(columns) if 0 <= at - shift < len(KEYS)}
