"""HelpSteer2, main and preference, and HelpSteer3."""

import re
from collections.abc import Iterator
from typing import Any

from labeling.imports.formats.base import EMPTY, Column, Format, Options, by_row
from labeling.imports.formats.checks import (
    KEYS,
    MAX_COMPLETIONS,
    RowRejected,
    as_json,
    clean,
    completion_of,
    loose_origin_of,
    make_record,
    number_of,
    prompt_of,
    storable,
    tags_of,
)
from labeling.imports.formats.choices import scaled
from labeling.imports.records import Message, Record, Vote
from labeling.projects.feedback import MAX_TEXT

AXES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
MARK = re.compile(r"<extra_id_\d+>(?:(System|User|Assistant)[ \t]*(?:\n|\Z))?")


def prompt_with_marks(value: Any) -> list[Message]:
    """A prompt whose turns stand behind <extra_id_1>, with the role on the same line or taking turns from the user's."""
    text = clean(value, "prompt")
    pieces = MARK.split(text)
    if len(pieces) == 1:
        return prompt_of([{"role": "user", "content": text}])
    messages: list[Message] = []
    roles = [None, *pieces[1::2]]
    for role, content in zip(roles, pieces[0::2], strict=True):
        if not content.strip():
            continue
        if role is None:
            role = "User" if not messages or messages[-1]["role"] != "user" else "Assistant"
        messages.append({"role": role.casefold(), "content": content.strip()})
    return prompt_of(messages)


# --- HelpSteer2 ---------------------------------------------------------------------------------
def read_main(rows: list[tuple[int, dict[str, Any]]], options: Options) -> Iterator[Record]:
    """Completions of one prompt lie in rows one after the other."""
    if len(rows) > min(MAX_COMPLETIONS, len(KEYS)):
        raise RowRejected(f"prompt: is the same in {len(rows)} rows, and a judgement can name at most {len(KEYS)}")
    completions, ratings = [], {}
    for key, (line, data) in zip(KEYS, rows, strict=False):
        try:
            completions.append(completion_of(data.get("response"), "response", options))
            axes = {axis: value for axis in AXES if (value := number_of(data.get(axis), axis)) is not None}
        except RowRejected as error:
            raise RowRejected(f"{error} (line {line}, of the rows of one prompt)" if len(rows) > 1 else str(error)) from None
        if axes:
            ratings[key] = axes
    line, data = rows[0]
    votes = [Vote({"ratings": ratings})] if ratings else []
    yield make_record(line, prompt_with_marks(data.get("prompt")), completions, votes, **loose_origin_of(data))


def _same_prompt(data: dict[str, Any]) -> Any:
    return data["prompt"] if isinstance(data.get("prompt"), str) else None


def read_preference(line: int, data: dict[str, Any], options: Options) -> Record:
    completions = [
        completion_of(data.get(name), name, options) for name in ("response_1", "response_2")
    ]  # fmt: skip
    votes = _numbered(data, "all_preferences_unprocessed", "strength", "elaboration", "statement")
    if not votes:
        judgement = _strength(data.get("preference_strength"), "preference_strength")
        if text := _text(data.get("preference_elaboration")) or _text(data.get("preference_statement")):
            judgement["rationale"] = text
        votes = [Vote(judgement)]
    return make_record(line, prompt_with_marks(data.get("prompt")), completions, votes, **loose_origin_of(data))


def _numbered(data: dict[str, Any], column: str, score: str, *reasons: str) -> list[Vote]:
    """What the people on a row said each. Who they are is not told: the number is a place in the row, not a person."""
    votes = []
    for index, said in enumerate(as_json(data.get(column), list) or []):
        where = f"{column}[{index}]"
        if not isinstance(said, dict):
            raise RowRejected(f"{where}: must be an object")
        if said.get(score) is None:
            continue
        judgement = _strength(said[score], f"{where}.{score}")
        if text := next(filter(None, (_text(said.get(reason)) for reason in reasons)), ""):
            judgement["rationale"] = text
        votes.append(Vote(judgement, f"annotator {index + 1}"))
    return votes


def _strength(value: Any, where: str) -> dict[str, Any]:
    number = number_of(value, where)
    if number is None or number not in range(-3, 4):
        raise RowRejected(f"{where}: must be a whole number from -3 (the first is much better) to 3")
    return scaled(number, where) or {}


def _text(value: Any) -> str:
    """A reason; one longer than a rationale may be is cut."""
    return storable(value, "rationale").strip()[:MAX_TEXT] if isinstance(value, str) else ""


# --- HelpSteer3 ---------------------------------------------------------------------------------
def read_three(line: int, data: dict[str, Any], options: Options) -> Record:
    if "response1" not in data and {"edited_response", "good_edited_response"} & data.keys():
        raise RowRejected("response1: is missing; of HelpSteer3 only the configuration preference is read, not edits")
    completions = [completion_of(data.get(name), name, options) for name in ("response1", "response2")]
    votes = _numbered(data, "individual_preference", "score", "reasoning")
    if not votes:
        votes = [Vote(_strength(data.get("overall_preference"), "overall_preference"))]
    tags = tags_of([data[name] for name in ("domain", "language") if isinstance(data.get(name), str) and data[name]])
    origin = loose_origin_of(data)
    origin["tags"] = sorted({*origin["tags"], *tags})
    context = data.get("context")
    return make_record(line, prompt_of(as_json(context, list) or context, "context"), completions, votes, **origin)


SCORES = tuple(Column(axis, "0 to 4") for axis in AXES)
FORMATS = (
    Format(
        name="helpsteer2",
        title="HelpSteer2",
        describe="A completion a row with ratings on five axes; the rows of one prompt lie together.",
        example=[
            {"prompt": "Why is the sky blue?", "response": "Because air scatters blue light most.",
             "helpfulness": 4, "correctness": 4, "coherence": 4, "complexity": 1, "verbosity": 1},
            {"prompt": "Why is the sky blue?", "response": "It mirrors the sea.",
             "helpfulness": 1, "correctness": 0, "coherence": 4, "complexity": 0, "verbosity": 0},
        ],
        read=read_main,
        together=_same_prompt,
        columns=(Column("prompt", required=True), Column("response", required=True), *SCORES),
        options=(EMPTY,),
        mappable=True,
    ),
    Format(
        name="helpsteer2_preference",
        title="HelpSteer2 preference",
        describe="Two completions a row with a strength from -3 (the first) to 3, and what each annotator said.",
        example={
            "split": "train", "prompt": "Why is the sky blue?", "response_1": "It mirrors the sea.",
            "response_2": "Because air scatters blue light most.", "preference_strength": 2,
            "preference_statement": "@Response 2 is better than @Response 1.", "preference_elaboration": "It is right.",
            "all_preferences_unprocessed": [{"strength": 2, "statement": "", "elaboration": "It is right."}, {"strength": 3}],
        },
        read=by_row(read_preference),
        columns=(
            Column("prompt", required=True), Column("response_1", required=True), Column("response_2", required=True),
            Column("preference_strength", "-3 to 3; read where there is no list of preferences"),
            Column("all_preferences_unprocessed", "a list of {strength, statement, elaboration}"),
        ),
        options=(EMPTY,),
    ),
    Format(
        name="helpsteer3",
        title="HelpSteer3 preference",
        describe="A conversation with two completions a row and a score from -3 (the first) to 3 by each annotator.",
        example={
            "domain": "stem", "language": "english", "context": [{"role": "user", "content": "Why is the sky blue?"}],
            "response1": "It mirrors the sea.", "response2": "Because air scatters blue light most.", "overall_preference": 2,
            "individual_preference": [{"score": 2, "reasoning": "The second is right.", "feedback1": "", "feedback2": ""}],
        },
        read=by_row(read_three),
        columns=(
            Column("context", "messages", required=True), Column("response1", required=True), Column("response2", required=True),
            Column("individual_preference", "a list of {score, reasoning}"),
            Column("overall_preference", "-3 to 3; read where there is no list of preferences"),
            Column("domain", "kept as a tag"), Column("language", "kept as a tag"),
        ),
        options=(EMPTY,),
    ),
)  # fmt: skip
