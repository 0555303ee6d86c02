"""Potato's annotations: what was said of an item, joined with the text of that item."""

import re
from dataclasses import dataclass
from typing import Any

from labeling.imports.formats.base import EMPTY, BadOptions, Column, Format, Option, by_row
from labeling.imports.formats.checks import (
    KEYS,
    MAX_ID,
    RowRejected,
    as_json,
    axis_name,
    completion_of,
    loose_origin_of,
    make_record,
    prompt_of,
    short_text,
    shown,
    storable,
    time_of,
)
from labeling.imports.formats.choices import Choice, choice_of, order_of, scaled
from labeling.imports.records import Record, Vote
from labeling.projects.feedback import MAX_TEXT
from labeling.web import strict_json

PROMPTS = ("prompt", "instruction", "question", "input", "context", "text")
LISTS = ("items", "responses", "completions", "options", "answers", "texts")
NUMBERED = re.compile(r"(?:item|response|completion|option|answer|text)[_\- ]?([a-z]|\d{1,2})", re.IGNORECASE)
NESTED = ("annotations", "annotation", "label_annotations", "labels", "response")
MAX_ITEMS_TEXT = 20_000_000


@dataclass(frozen=True)
class Joined:
    """Options with the items by their id."""

    options: dict[str, str]
    items: dict[str, dict[str, Any]]


def read_items(options: dict[str, str]) -> Joined:
    """Raises BadOptions naming the line of an item that can't be read."""
    text = options["items"].strip()
    if len(text) > MAX_ITEMS_TEXT:
        raise BadOptions({"items": f"has more than {MAX_ITEMS_TEXT:,} characters; put the texts into the rows in its place"})
    items: dict[str, dict[str, Any]] = {}
    for number, item in enumerate(_parsed_items(text), 1):
        id = item.get("id", item.get("instance_id")) if isinstance(item, dict) else None
        if not isinstance(item, dict) or not isinstance(id, str | int):
            raise BadOptions({"items": f"item {number}: must be an object with an id"})
        items[str(id)[:MAX_ID]] = item
    return Joined(options, items)


def _parsed_items(text: str) -> list[Any]:
    """A JSON list, or an object a line."""
    if text.startswith("["):
        try:
            found = strict_json.parse(text.encode("utf-8"))
        except ValueError as error:
            raise BadOptions({"items": f"is not JSON: {error}"}) from None
        return found
    items = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                items.append(strict_json.parse(line.encode("utf-8")))
            except ValueError as error:
                raise BadOptions({"items": f"line {number} is not JSON: {error}"}) from None
    return items


def read_row(line: int, data: dict[str, Any], joined: Joined) -> Record:
    options = joined.options
    id = short_text(data.get("instance_id", data.get("id")), "instance_id", MAX_ID)
    shown_item = {**joined.items.get(id, {}), **_texts_of(data)}
    prompt_value = next((shown_item[name] for name in PROMPTS if shown_item.get(name)), None)
    if prompt_value is None:
        known = f"item {shown(id)} is not in the option items" if joined.items else "give the items by the option items"
        raise RowRejected(f"prompt: is missing, and {known}")
    contents = _contents(shown_item, id, joined)
    completions = [
        completion_of(content, f"items[{index}]", options, model=model, model_where=f"items[{index}].model")
        for index, (content, model) in enumerate(contents)
    ]
    judgement = _judgement(data, len(completions), options)
    if not judgement:
        raise RowRejected("annotations: none says which item is better")
    who = next((data[name] for name in ("annotator", "user", "user_id", "username") if data.get(name) is not None), None)
    at = next((data[name] for name in ("timestamp", "created_at", "at") if data.get(name) is not None), None)
    vote = Vote(judgement, short_text(who, "annotator", MAX_ID), "human", None, time_of(at, "timestamp"))
    origin = loose_origin_of(data) | {"external_id": id}
    return make_record(line, prompt_of(as_json(prompt_value, list) or prompt_value), completions, [vote], **origin)


def _texts_of(data: dict[str, Any]) -> dict[str, Any]:
    """What of a row is the item's, where rows carry both. Answers to a question may bear the name of a text."""
    return {name: value for name, value in data.items() if value is not None and not isinstance(value, dict)}


def _contents(item: dict[str, Any], id: str, joined: Joined) -> list[tuple[Any, Any]]:
    """Texts and, where items are objects, who wrote them."""
    wanted = joined.options["items_key"]
    for name in (wanted,) if wanted else LISTS:
        found = as_json(item.get(name), list)
        if found:
            return [
                (each.get("text", each.get("content")), each.get("model")) if isinstance(each, dict) else (each, None)
                for each in found
            ]
    numbered = sorted(
        ((NUMBERED.fullmatch(name), value) for name, value in item.items() if isinstance(value, str) and NUMBERED.fullmatch(name)),
        key=lambda pair: (len(pair[0][1]), pair[0][1].casefold()) if pair[0] else (0, ""),
    )
    if len(numbered) < 2:
        known = f"item {shown(id)} has none" if item else "give the items by the option items"
        raise RowRejected(f"{wanted or 'items'}: must be a list of texts; {known}")
    return [(value, None) for _, value in numbered]


# --- what was said ------------------------------------------------------------------------------
def _judgement(data: dict[str, Any], n: int, options: dict[str, str]) -> dict[str, Any]:
    if n > len(KEYS):
        raise RowRejected(f"items: a judgement can name at most {len(KEYS)}, this row has {n}")
    judgement: dict[str, Any] = {}
    if isinstance(data.get("chosen"), str):
        return _choice(data["chosen"], n, "chosen").judgement()
    for name, answer in _answers(data):
        where = name[:60]
        if "selection" in answer:
            judgement |= _choice(answer["selection"], n, f"{where}.selection").judgement()
        elif "scale_value" in answer:
            if n != 2:
                raise RowRejected(f"{where}.scale_value: says which of two is better, and this item has {n}")
            judgement |= scaled(answer["scale_value"], f"{where}.scale_value") or {}
        elif "rank_order" in answer:
            judgement["ranking"] = order_of(answer["rank_order"], list(KEYS[:n]), f"{where}.rank_order")
        else:
            _add_dimensions(judgement, answer, n, where, options)
        if reason := _reason(answer.get("justification"), where):
            judgement["rationale"] = reason
    return judgement


def _choice(value: Any, n: int, where: str) -> Choice:
    choice = choice_of(value, n)
    if choice is None:
        raise RowRejected(f"{where}: must be A, B or tie, not {shown(value)}")
    return choice


def _answers(data: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Objects that answer a question, in the row itself or where the annotations lie in it."""
    places = [data, *(found for name in NESTED if (found := as_json(data.get(name), dict)))]
    return [
        (name, answer)
        for place in places
        for name, value in place.items()
        if not (place is data and name in NESTED) and (answer := as_json(value, dict)) and _is_answer(answer)
    ]


def _is_answer(answer: dict[str, Any]) -> bool:
    if {"selection", "scale_value", "rank_order"} & answer.keys():
        return True
    said = [value for name, value in answer.items() if name != "justification"]
    return bool(said) and all(isinstance(value, str) and value.strip().casefold() in ("a", "b", "tie") for value in said)


def _add_dimensions(judgement: dict[str, Any], answer: dict[str, Any], n: int, where: str, options: dict[str, str]) -> None:
    """Each dimension as a rating: 1 for the better item, 0 for the other, 0.5 for both in a tie."""
    if n != 2:
        raise RowRejected(f"{where}: says which of two is better, and this item has {n}")
    for name, said in answer.items():
        if name == "justification" or not (axis := axis_name(name)):
            continue
        choice = _choice(said, n, f"{where}.{axis}")
        if axis == axis_name(options["overall"]):
            judgement |= choice.judgement()
        tie = len(choice.ranking) == 1
        for key in "ab":
            won = 0.5 if tie else float(choice.ranking[0] == [key])
            judgement.setdefault("ratings", {}).setdefault(key, {})[axis] = won


def _reason(value: Any, where: str) -> str:
    """A text, or JSON text of reasons ticked and a rationale."""
    parsed = as_json(value, (dict, list))
    if parsed is None:
        return storable(value, f"{where}.justification").strip()[:MAX_TEXT] if isinstance(value, str) else ""
    waiting, texts = [parsed], []
    while waiting:
        item = waiting.pop()
        if isinstance(item, str) and item.strip():
            texts.append(item.strip())
        elif isinstance(item, list | dict):
            waiting += reversed(list(item.values()) if isinstance(item, dict) else item)
    return storable("; ".join(texts), f"{where}.justification")[:MAX_TEXT]


FORMATS = (
    Format(
        name="potato",
        title="Potato annotations",
        describe="One annotator's answer on one item a row: a choice, a scale, several dimensions or an order.",
        example={
            "instance_id": "q1", "annotator": "ann", "prompt": "Why is the sky blue?",
            "items": ["Because air scatters blue light most.", "It mirrors the sea."],
            "preference": {"selection": "A"},
        },
        read=by_row(read_row),
        prepare=read_items,
        columns=(
            Column("instance_id", "or id: which item", required=True), Column("annotator", "or user, user_id"),
            Column("prompt", "of the item, where the row holds it"), Column("items", "its texts, where the row holds them"),
            Column("chosen", "of preference_pairs.jsonl: A, B or tie"), Column("annotations", "name to answer"),
        ),
        options=(
            Option("items", "The items, an object with id, prompt and texts a line, where the rows hold only answers.", long=True),
            Option("items_key", "Which field of an item is the list of its texts. Left out: items, responses and the like."),
            Option("overall", "Which dimension of several is the ranking.", "overall"),
            EMPTY,
        ),
    ),
)  # fmt: skip
