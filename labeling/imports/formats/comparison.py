"""Comparisons as people keep them in spreadsheets: a prompt, completions side by side, and which one is better."""

from collections.abc import Mapping
from typing import Any

from labeling.imports.formats.base import EMPTY, Column, Format, Option, by_row
from labeling.imports.formats.checks import (
    KEYS,
    MAX_ID,
    RowRejected,
    completion_of,
    flag_of,
    loose_origin_of,
    make_record,
    number_of,
    short_text,
    shown,
)
from labeling.imports.formats.choices import choice_of, order_of, scaled
from labeling.imports.formats.trl import KIND, PROMPT, WHO, explicit_prompt, vote_by
from labeling.imports.records import Record, Text, Vote


def read_row(line: int, data: dict[str, Any], options: Mapping[str, str]) -> Record:
    letters = [key for key in KEYS if key in "ab" or not _is_blank(data.get(f"completion_{key}"))]
    completions = [
        completion_of(
            data.get(f"completion_{key}"), f"completion_{key}", options, model=data.get(f"model_{key}"),
            model_where=f"model_{key}",
        )
        for key in letters
    ]  # fmt: skip
    votes = []
    if judgement := _judgement(data, letters, completions, options):
        votes.append(vote_by(data, options, judgement))
    for column in _columns(options["annotators"]):
        if not _is_blank(data.get(column)):
            choice = _winner(data[column], column, letters, completions, options)
            votes.append(Vote(choice, short_text(column, column, MAX_ID), options["annotator_kind"]))
    return make_record(line, explicit_prompt(data.get("prompt")), completions, votes, **loose_origin_of(data))


def _is_blank(value: Any) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not value.strip()) or value != value


def _columns(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _judgement(
    data: Mapping[str, Any], letters: list[str], completions: list[Text], options: Mapping[str, str]
) -> dict[str, Any]:
    """What the row's own columns say; empty where they say nothing."""
    judgement: dict[str, Any] = {}
    if not _is_blank(data.get("winner")):
        judgement = _winner(data["winner"], "winner", letters, completions, options)
    elif not _is_blank(data.get("ranking")):
        judgement["ranking"] = order_of(data["ranking"], letters, "ranking")
    elif not _is_blank(data.get("scale")):
        if len(letters) != 2:
            raise RowRejected("scale: says which of two is better, and this row has more")
        judgement = scaled(data["scale"], "scale") or {}
    elif ranks := _numbers(data, "rank", letters):
        if len(ranks) < len(letters):
            raise RowRejected("rank: every completion needs one")
        judgement["ranking"] = [[key for key in ranks if ranks[key] == rank] for rank in sorted(set(ranks.values()))]
    if (strength := number_of(data.get("strength"), "strength")) is not None and len(judgement.get("ranking", [])) > 1:
        if strength not in (1, 2, 3):
            raise RowRejected("strength: must be 1 (slightly), 2 (better) or 3 (much better)")
        judgement["strength"] = int(strength)
    ratings = {
        key: axes
        for key in KEYS[: len(letters)]
        if (axes := {name: found[key] for name in ("score", "rating") if key in (found := _numbers(data, name, letters))})
    }
    if ratings:
        judgement["ratings"] = ratings
    if flag_of(data.get("both_bad"), "both_bad"):
        judgement["none_acceptable"] = True
    if judgement and isinstance(data.get("rationale"), str) and data["rationale"].strip():
        judgement["rationale"] = data["rationale"].strip()
    return judgement


def _winner(
    value: Any, where: str, letters: list[str], completions: list[Text], options: Mapping[str, str]
) -> dict[str, Any]:
    names = [(item.model, f"completion_{key}", f"model_{key}") for key, item in zip(letters, completions, strict=True)]
    choice = choice_of(value, len(letters), names, letters=letters, from_zero=options["first"] == "0")
    if choice is None:
        raise RowRejected(f"{where}: must name a completion, such as a, 1 or its model, or tie, not {shown(value)}")
    return choice.judgement()


def _numbers(data: Mapping[str, Any], name: str, letters: list[str]) -> dict[str, float]:
    """Of columns such as score_a: a number for each completion that has one, by its key."""
    found = {}
    for key, letter in zip(KEYS, letters, strict=False):
        if (number := number_of(data.get(f"{name}_{letter}"), f"{name}_{letter}")) is not None:
            found[key] = number
    return found


def _each(name: str, help: str) -> Column:
    return Column(f"{name}_a", f"{help}; likewise {name}_b to {name}_z")


FORMATS = (
    Format(
        name="comparison",
        title="Comparison table",
        describe="A prompt with two or more completions side by side a row, and which one is better.",
        example={
            "prompt": "Why is the sky blue?", "completion_a": "Because air scatters blue light most.",
            "completion_b": "It mirrors the sea.", "winner": "a", "strength": 2, "annotator": "ann",
        },
        read=by_row(read_row),
        columns=(
            Column("prompt", PROMPT.help, required=True),
            Column("completion_a", "the first completion", required=True),
            Column("completion_b", "the second; more as completion_c to completion_z", required=True),
            Column("winner", "a, b, tie or both_bad; also 1, 2 (0 is a tie), left, right, or the model's name"),
            Column("ranking", "in the place of winner: an order such as B,D=A,C, best first"),
            Column("scale", "in the place of winner: a number, negative where the first is better"),
            _each("rank", "in the place of winner: 1 is the best"),
            Column("strength", "how much better: 1, 2 or 3"), Column("both_bad", "true where none is good"),
            _each("score", "kept as the rating score"), _each("rating", "kept as the rating rating"),
            _each("model", "which model wrote it"), Column("rationale", "why"),
            *WHO,
        ),
        options=(
            Option("first", "Which number in winner is the first completion. From 1, 0 is a tie.", "1", ("1", "0")),
            Option("annotators", "Columns, with commas between, that each hold one annotator's winner and are named after them."),
            KIND,
            EMPTY,
        ),
        mappable=True,
    ),
)  # fmt: skip
