"""Argilla's records: raw as the server gives them, as the SDK writes them (`to_json`), and 1.x sets of the Hub."""

import re
from collections.abc import Mapping
from typing import Any

from labeling.imports.formats.base import EMPTY, Column, Format, Option, Options, by_row
from labeling.imports.formats.checks import (
    KEYS,
    MAX_ID,
    RowRejected,
    as_json,
    axis_name,
    completion_of,
    kind_of,
    loose_origin_of,
    make_record,
    number_of,
    prompt_of,
    ranking_of,
    short_text,
    shown,
    storable,
    time_of,
)
from labeling.imports.formats.choices import choice_of
from labeling.imports.formats.named import add_named, judgements_by, tell_apart
from labeling.imports.records import Record, Vote
from labeling.projects.feedback import MAX_TEXT

PROMPT_NAMES = ("prompt", "instruction", "question", "input", "query", "chat", "messages", "conversation", "context")
COMPLETION_NAMES = re.compile(r"(?:response|completion|answer|generation|output|reply|candidate)s?[_\- ]*\w{0,3}", re.IGNORECASE)
NUMBER = re.compile(r"-?\d{1,9}", re.ASCII)
Answers = dict[str, Any]  # question -> value


def read_record(line: int, data: dict[str, Any], options: Options) -> Record:
    if any(name.endswith(".responses") for name in data):
        return _read_flat(line, data, options)
    fields = as_json(data.get("fields"), dict)
    hub = fields is None
    if fields is None:
        # 1.x on the Hub: fields, questions and the rest are columns side by side.
        fields = {name: value for name, value in data.items() if not _is_question_on_hub(name, value)}
    said = _said_on_hub(data) if hub else _said(data)
    if not hub and options["suggestions"] == "votes":
        said += _suggested(data.get("suggestions"))
    names = _completion_names(fields, said, options)
    metadata = as_json(data.get("metadata"), dict) or {}
    models = as_json(metadata.get("models"), dict) or {}
    completions = [
        completion_of(_field(fields[name]), f"fields.{name}"[:60], options, model=models.get(name)) for name in names
    ]
    known = judgements_by("user_id", metadata.get("judgements"))
    votes = []
    for who, answers in said:
        if judgement := _judgement(answers, names):
            who.judgement = judgement
            tell_apart(who, known.get(who.annotator))
            votes.append(who)
    prompt_name = _prompt_name(fields, names, options)
    prompt = prompt_of(_field(fields[prompt_name]), f"fields.{prompt_name}"[:60])
    origin = loose_origin_of({**metadata, **data})
    external = data.get("external_id")
    origin["external_id"] = short_text(external, "external_id", MAX_ID) or origin["external_id"]
    return make_record(line, prompt, completions, votes, **origin)


def _read_flat(line: int, data: dict[str, Any], options: Options) -> Record:
    """The flat export of the SDK has lost the ranks of rankings and keeps the rest."""
    for name, value in data.items():
        if name.endswith(".responses") and isinstance(value, list) and any(isinstance(said, list) for said in value):
            raise RowRejected(
                f"{name[:60]}: has lost its ranks in the flat export; write the set by to_json, or to_list(flatten=False)"
            )
    fields = {name: value for name, value in data.items() if "." not in name and name not in ("id", "status", "_server_id")}
    responses: dict[str, list[dict[str, Any]]] = {}
    for name, value in data.items():
        if not name.endswith(".responses") or not isinstance(value, list):
            continue
        question = name.removesuffix(".responses")
        users, states = (data.get(f"{name}.{part}") for part in ("users", "status"))
        responses[question] = [
            {"value": said, "user_id": _at(users, index), "status": _at(states, index)} for index, said in enumerate(value)
        ]
    return read_record(line, {"id": data.get("id"), "fields": fields, "responses": responses}, options)


def _at(values: Any, index: int) -> Any:
    return values[index] if isinstance(values, list) and index < len(values) else None


# --- who said what ------------------------------------------------------------------------------
def _said(data: Mapping[str, Any]) -> list[tuple[Vote, Answers]]:
    """By person. Only what was submitted is a vote: drafts may be partial and what was discarded was taken back."""
    responses = as_json(data.get("responses"), (list, dict))
    if isinstance(responses, dict):
        return _by_user(responses)
    said = []
    for index, response in enumerate(responses or []):
        where = f"responses[{index}]"
        if not isinstance(response, dict):
            raise RowRejected(f"{where}: must be an object")
        if response.get("status", "submitted") != "submitted":
            continue
        values = response.get("values")
        if not isinstance(values, dict):
            raise RowRejected(f"{where}.values: must be an object")
        answers = {name: item.get("value") if isinstance(item, dict) else item for name, item in values.items()}
        who = short_text(response.get("user_id"), f"{where}.user_id", MAX_ID)
        at = time_of(response.get("updated_at") or response.get("inserted_at"), f"{where}.updated_at")
        said.append((Vote({}, who, "human", None, at), answers))
    return said


def _by_user(responses: Mapping[str, Any]) -> list[tuple[Vote, Answers]]:
    """Nested by question: what one person answered to several of them is one vote."""
    found: dict[str, tuple[Vote, Answers]] = {}
    for question, given in responses.items():
        for index, response in enumerate(given if isinstance(given, list) else []):
            if not isinstance(response, dict) or (response.get("status") or "submitted") != "submitted":
                continue
            who = short_text(response.get("user_id"), f"responses.{question[:60]}[{index}].user_id", MAX_ID)
            # Nobody knows whether two answers without a name are of one person.
            key = who or f"{index} of {question}"
            found.setdefault(key, (Vote({}, who), {}))[1][question] = response.get("value")
    return list(found.values())


def _is_question_on_hub(name: str, value: Any) -> bool:
    """Beside each question stand its suggestion and that one's metadata; its answers name users."""
    if name in ("metadata", "external_id", "vectors", "id", "status") or name.endswith(("-suggestion", "-suggestion-metadata")):
        return True
    return _is_question(as_json(value, (list, dict)))


def _is_question(value: Any) -> bool:
    if isinstance(value, dict):
        return {"user_id", "value", "status"} <= value.keys()
    return bool(value) and all(isinstance(item, dict) and "user_id" in item and "value" in item for item in value)


def _said_on_hub(data: Mapping[str, Any]) -> list[tuple[Vote, Answers]]:
    responses: dict[str, Any] = {}
    for name, value in data.items():
        given = as_json(value, (list, dict))
        if given and _is_question(given):
            if isinstance(given, dict):
                # As columns: {"user_id": [...], "value": [...], "status": [...]}.
                columns = [given[key] if isinstance(given.get(key), list) else [] for key in ("user_id", "value", "status")]
                given = [dict(zip(("user_id", "value", "status"), row, strict=True)) for row in zip(*columns, strict=False)]
            responses[name] = given
    return _by_user(responses)


def _suggested(suggestions: Any) -> list[tuple[Vote, Answers]]:
    """Suggestions as votes of what made them, under its own name and kind."""
    suggestions = as_json(suggestions, (list, dict))
    if isinstance(suggestions, dict):
        suggestions = [{**item, "question_name": name} for name, item in suggestions.items() if isinstance(item, dict)]
    found: dict[tuple[str, str], tuple[Vote, Answers]] = {}
    for index, item in enumerate(suggestions or []):
        if not isinstance(item, dict) or not isinstance(question := item.get("question_name"), str):
            continue
        agent = short_text(item.get("agent"), f"suggestions[{index}].agent", MAX_ID)
        kind = "human" if item.get("type") == "human" else kind_of("model")
        found.setdefault((agent, kind), (Vote({}, agent, kind), {}))[1][question] = item.get("value")
    return list(found.values())


# --- which field is what ------------------------------------------------------------------------
def _field(value: Any) -> Any:
    """A chat field may come as JSON text."""
    return as_json(value, list) or value


def _completion_names(fields: Mapping[str, Any], said: list[tuple[Vote, Answers]], options: Options) -> list[str]:
    if options["completions"]:
        names = [name.strip() for name in options["completions"].split(",") if name.strip()]
        if missing := [name for name in names if name not in fields]:
            raise RowRejected(f"fields: has no {shown(missing[0])}, which the option completions names")
        return names
    texts = {axis_name(name): name for name, value in fields.items() if isinstance(value, str) and value.strip()}
    place = {slug: index for index, slug in enumerate(texts)}
    for _, answers in said:
        for value in answers.values():
            named = [axis_name(item) for item in _ranks(value) or {}]
            if len(named) > 1 and all(name in texts for name in named):
                return [texts[name] for name in sorted(named, key=place.__getitem__)]
    return [name for name in texts.values() if COMPLETION_NAMES.fullmatch(name)]


def _prompt_name(fields: Mapping[str, Any], names: list[str], options: Options) -> str:
    if options["prompt"]:
        if options["prompt"] not in fields:
            raise RowRejected(f"fields: has no {shown(options['prompt'])}, which the option prompt names")
        return options["prompt"]
    left = [name for name in fields if name not in names]
    for known in PROMPT_NAMES:
        if known in left:
            return known
    if len(left) == 1:
        return left[0]
    raise RowRejected(f"fields: none is called {', '.join(PROMPT_NAMES[:4])} or the like; name it by the option prompt")


# --- what they said -----------------------------------------------------------------------------
def _ranks(value: Any) -> dict[str, float] | None:
    """Option to rank, of a ranking; None of other answers."""
    if isinstance(value, dict) and isinstance(value.get("value"), list) and isinstance(value.get("rank"), list):
        # 1.x on the Hub.
        if len(value["value"]) != len(value["rank"]):
            raise RowRejected("ranking: has not one rank for each option")
        pairs = list(zip(value["value"], value["rank"], strict=True))
    elif isinstance(value, list) and value and all(isinstance(item, dict) and "value" in item for item in value):
        pairs = [(item["value"], item.get("rank")) for item in value]
    else:
        return None
    ranks = {}
    for name, rank in pairs:
        rank = number_of(rank, "ranking: rank")
        if not isinstance(name, str) or rank is None or name in ranks:
            raise RowRejected("ranking: must name every option once, with its rank")
        ranks[name] = rank
    return ranks or None


def _judgement(answers: Answers, names: list[str]) -> dict[str, Any]:
    judgement: dict[str, Any] = {}
    keys = dict(zip(map(axis_name, names), KEYS, strict=False))
    texts = []
    for question, value in answers.items():
        value = as_json(value, (list, dict)) or value
        if add_named(judgement, question, value, keys):
            continue
        if ranks := _ranks(value):
            places = [{axis_name(name): rank for name, rank in ranks.items()}.get(name) for name in keys]
            if None in places or len(ranks) != len(keys):
                raise RowRejected(f"{question[:60]}: does not rank the completions {', '.join(names)[:200]}")
            judgement["ranking"] = ranking_of([-place for place in places if place is not None])
        elif isinstance(value, int | float) and not isinstance(value, bool):
            if found := _of_which(question, keys):
                key, axis = found
                judgement.setdefault("ratings", {}).setdefault(key, {})[axis] = number_of(value, question[:60])
        elif isinstance(value, str) and NUMBER.fullmatch(value) and (found := _of_which(question, keys)):
            key, axis = found  # of a scale that a rating there cannot have
            judgement.setdefault("ratings", {}).setdefault(key, {})[axis] = number_of(value, question[:60])
        elif isinstance(value, str) and value.strip():
            choice = choice_of(value, len(names), [(name,) for name in names]) if len(names) > 1 else None
            if choice:
                judgement |= choice.judgement()
            else:
                texts.append((question, storable(value, question[:60]).strip()))
        elif isinstance(value, list) and len(names) == 1 and all(isinstance(item, str) for item in value):
            judgement.setdefault("flags", {}).setdefault("a", []).extend(value)
    if texts:
        said = [text for _, text in texts] if len(texts) == 1 else [f"{question}: {text}" for question, text in texts]
        judgement["rationale"] = "\n".join(said)[:MAX_TEXT]
    return judgement


def _of_which(question: str, keys: Mapping[str, str]) -> tuple[str, str] | None:
    """Which completion a rating is of, and its axis: helpfulness_response1 is of response1, if that is a field."""
    slug = axis_name(question)
    for name, key in sorted(keys.items(), key=lambda item: -len(item[0])):
        if re.search(rf"(?:^|_){re.escape(name)}(?:_|$)", slug):
            return key, axis_name(re.sub(rf"(?:^|_){re.escape(name)}(?=_|$)", "", slug)) or "rating"
    if len(keys) == 1:
        return next(iter(keys.values())), slug or "rating"
    return None


FORMATS = (
    Format(
        name="argilla",
        title="Argilla records",
        describe="A record a row with its fields and everybody's responses, with ranks.",
        example={
            "id": "1",
            "fields": {
                "prompt": "Why is the sky blue?", "response1": "Because air scatters blue light most.", "response2": "It mirrors the sea."
            },
            "responses": [
                {"values": {"preference": {"value": [{"value": "response1", "rank": 1}, {"value": "response2", "rank": 2}]}},
                 "status": "submitted", "user_id": "u1"},
            ],
        },
        read=by_row(read_record),
        columns=(
            Column("fields", "name to text or chat"), Column("responses", "a list by person, or name of the question to a list"),
            Column("suggestions"), Column("external_id"), Column("id"),
        ),
        options=(
            Option("prompt", "Which field is the prompt. Left out: prompt, instruction, question and the like."),
            Option("completions", "Which fields are completions, with commas between. Left out: those that are ranked."),
            Option("suggestions", "Suggestions: ignore them, or take them as votes of what made them.", "ignore", ("ignore", "votes")),
            EMPTY,
        ),
    ),
)  # fmt: skip
