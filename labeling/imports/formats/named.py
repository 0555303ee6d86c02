"""What Prefloop writes for other tools comes back under the names that it gave. Pure.

Their questions know no corrections, strengths or demonstrations; ours are told by their names: `strength`,
`demonstration`, `rationale`, `none_acceptable`, and `correction_a`, `acceptable_a`, `flags_a`, `marks_a` of the completion
that is called `a` there. A list `judgements` beside the texts says of each answer who gave it, when, and in what order
the completions were shown.
"""

from collections.abc import Mapping
from typing import Any

from labeling.imports.formats.checks import (
    MAX_ID,
    as_json,
    axis_name,
    kind_of,
    number_of,
    short_text,
    storable,
    time_of,
)
from labeling.imports.records import Vote

WRITTEN = ("demonstration", "rationale")
OF_COMPLETIONS = {"correction": "corrections", "acceptable": "acceptable", "flags": "flags", "marks": "marks"}
YES_OR_NO = {"yes": True, "no": False}


def add_named(judgement: dict[str, Any], question: str, value: Any, keys: Mapping[str, str]) -> bool:
    """Add the answer to the judgement if its question has one of our names. `keys`: what completions are called there."""
    name = axis_name(question)
    if name in WRITTEN and isinstance(value, str):
        if value.strip():
            judgement[name] = storable(value, name)
        return True
    if name == "strength" and value in (1, 2, 3):
        judgement["strength"] = int(value)
        return True
    if name == "none_acceptable" and value in ("yes", "no"):
        if YES_OR_NO[value]:
            judgement["none_acceptable"] = True
        return True
    part, _, of = name.partition("_")
    key = {axis_name(called): key for called, key in keys.items()}.get(of)
    if part not in OF_COMPLETIONS or key is None:
        return False
    if part == "correction" and isinstance(value, str):
        said: Any = storable(value, name)
    elif part == "acceptable" and value in ("yes", "no"):
        said = YES_OR_NO[value]
    elif part == "flags" and isinstance(value, list) and all(isinstance(flag, str) for flag in value):
        said = [storable(flag, name) for flag in value]
    elif part == "marks" and isinstance(value, list) and all(map(_is_mark, value)):
        said = [{field: mark[field] for field in ("start", "end", "label", "comment") if field in mark} for mark in value]
    else:
        return False
    judgement.setdefault(OF_COMPLETIONS[part], {})[key] = said
    return True


def _is_mark(mark: Any) -> bool:
    return isinstance(mark, dict) and {"start", "end", "label"} <= mark.keys()


def judgements_by(name: str, known: Any) -> dict[str, dict[str, Any]]:
    """Rows of the list `judgements` (also as JSON text) by their field `name`."""
    rows = as_json(known, list) or []
    return {str(row[name]): row for row in rows if isinstance(row, dict) and row.get(name)}


def tell_apart(vote: Vote, known: dict[str, Any] | None) -> None:
    """Give the vote whom, when and what order our list names. Without a row there, it stays as the tool knows it."""
    if not known:
        return
    vote.annotator = short_text(known.get("annotator"), "judgements.annotator", MAX_ID) or vote.annotator
    vote.kind = kind_of(known.get("annotator_kind") or "human")
    vote.at = time_of(known.get("at"), "judgements.at") or vote.at
    shown, version = known.get("order_shown"), known.get("guideline_version")
    vote.order_shown = shown if isinstance(shown, list) and shown else vote.order_shown
    vote.guideline_version = version if type(version) is int and 0 < version < 2**31 else vote.guideline_version
    seconds = number_of(known.get("seconds"), "judgements.seconds")
    if seconds is not None and vote.judgement:
        vote.judgement["seconds"] = seconds
