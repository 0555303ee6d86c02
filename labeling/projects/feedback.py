"""The feedback form of a project and the judgement that answers it. Pure: no Django, no database.

A form is a JSON object:

    {"ranking": true,            # ask for a ranking of the completions
     "ties": true,               # equal ranks allowed
     "none_acceptable": true,    # offer "none is good" (of two: both bad)
     "rationale": "off",         # off | optional | required
     "strength": false,          # how much better the best is, 1 to 3
     "acceptable": false,        # yes or no per completion
     "flags": ["unsafe"],        # flags a completion can carry
     "ratings": {"helpfulness": {"low": 1, "high": 5, "labels": {"1": "useless"}, "help": "Does it solve it?"}},
     "corrections": false,       # editing a completion
     "marks": ["wrong fact"],    # labels that a span of a completion can carry
     "demonstration": "off",     # off | optional | required: writing a completion from nothing
     "required": ["ratings"]}    # of strength, ratings and acceptable: what must be given for every completion
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

DEFAULT_FORM: dict[str, Any] = {
    "ranking": True,
    "ties": True,
    "none_acceptable": True,
    "rationale": "optional",
    "strength": False,
    "acceptable": False,
    "flags": [],
    "ratings": {},
    "corrections": False,
    "marks": [],
    "demonstration": "off",
    "required": [],
}
SWITCHES = ("ranking", "ties", "none_acceptable", "strength", "acceptable", "corrections")
CHOICES = ("off", "optional", "required")
CAN_BE_REQUIRED = ("strength", "ratings", "acceptable")
PER_COMPLETION = ("ratings", "acceptable", "flags", "corrections", "marks")
MAX_TEXT = 20_000
MAX_WRITTEN = 200_000  # a correction may be as long as what it corrects
MAX_MARKS = 200
MAX_COMMENT = 2_000
MAX_SECONDS = 24 * 3600.0
MOST_STEPS = 101  # of a rating scale


def complete_form(form: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Fill in defaults. Returns the form and, by field, what is wrong with it (empty: nothing)."""
    wrong: dict[str, str] = {}
    if not isinstance(form, dict):
        return dict(DEFAULT_FORM), {"form": "must be an object"}
    for key in form.keys() - DEFAULT_FORM.keys():
        wrong[str(key)] = "is not a part of a feedback form; known: " + ", ".join(DEFAULT_FORM)
    full = {**DEFAULT_FORM, **{key: value for key, value in form.items() if key in DEFAULT_FORM}}
    for key in SWITCHES:
        if not isinstance(full[key], bool):
            wrong[key] = "must be true or false"
    for key in ("rationale", "demonstration"):
        if full[key] not in CHOICES:
            wrong[key] = "must be off, optional or required"
    for key in ("flags", "marks"):
        if problem := _names_problem(full[key]):
            wrong[key] = problem
    if not isinstance(full["ratings"], dict):
        wrong["ratings"] = "must be an object: axis -> {low, high}"
    else:
        for axis, scale in full["ratings"].items():
            if problem := _scale_problem(axis, scale):
                wrong["ratings"] = problem
    required = full["required"]
    if not isinstance(required, list) or any(part not in CAN_BE_REQUIRED for part in required):
        wrong["required"] = "must be a list from: " + ", ".join(CAN_BE_REQUIRED)
    elif "required" not in wrong and (unasked := [part for part in required if not full[part]]):
        wrong["required"] = f"names {unasked[0]}, which the form doesn't ask for"
    if full["strength"] is True and full["ranking"] is False:
        wrong["strength"] = "needs a ranking: it says how much better the best one is"
    asks = [full[part] for part in ("ranking", "acceptable", "ratings", "corrections", "marks", "flags")]
    if not wrong and not any(asks) and full["demonstration"] == "off":
        wrong["ranking"] = (
            "the form asks for nothing: switch on ranking, ratings, corrections, marks or a demonstration"
        )
    return full, wrong


def least_completions(form: Mapping[str, Any]) -> int:
    """How many completions a task needs at least, so that this form can be answered."""
    if form["ranking"]:
        return 2
    return 1 if any(form[part] for part in PER_COMPLETION) else 0


def may_be_empty(form: Mapping[str, Any]) -> bool:
    """Whether saying nothing is an answer: there was nothing to mark, to flag or to correct."""
    looks_for_faults = form["marks"] or form["flags"] or form["corrections"]
    return bool(looks_for_faults) and not (form["ratings"] or form["acceptable"] or form["demonstration"] == "required")


def _names_problem(names: Any) -> str:
    if not isinstance(names, list) or not all(isinstance(name, str) and 0 < len(name.strip()) <= 40 for name in names):
        return "must be a list of names of at most 40 characters"
    return "" if len(set(names)) == len(names) else f"names {next(n for n in names if names.count(n) > 1)!r} twice"


def _scale_problem(axis: str, scale: Any) -> str:
    if not 0 < len(axis.strip()) <= 60:
        return f"axis {axis!r} needs a name of at most 60 characters"
    if not isinstance(scale, dict):
        return f"axis {axis!r} must be an object: low, high and, if you like, labels and help"
    if unknown := scale.keys() - {"low", "high", "labels", "help"}:
        return f"axis {axis!r} has {sorted(map(str, unknown))[0]!r}; known: low, high, labels, help"
    low, high = scale.get("low"), scale.get("high")
    if type(low) is not int or type(high) is not int or low >= high:
        return f"axis {axis!r} needs whole numbers low < high"
    if high - low >= MOST_STEPS:
        return f"axis {axis!r} has more than {MOST_STEPS} steps"
    labels, help_text = scale.get("labels", {}), scale.get("help", "")
    if not isinstance(help_text, str) or len(help_text) > 500:
        return f"axis {axis!r}: help must be a text of at most 500 characters"
    steps = {str(step) for step in range(low, high + 1)}
    if not isinstance(labels, dict) or not all(
        key in steps and isinstance(text, str) and 0 < len(text) <= 80 for key, text in labels.items()
    ):
        return f"axis {axis!r}: labels must map a step from {low} to {high} to at most 80 characters"
    return ""


@dataclass(frozen=True)
class Answer:
    """A checked judgement, completions named by their key on the page (a, b, ...)."""

    ranking: list[list[str]]
    parts: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None


class BadAnswer(ValueError):
    """The judgement doesn't fit its form. `fields` says where and why."""

    def __init__(self, fields: dict[str, str]) -> None:
        self.fields = fields
        super().__init__("; ".join(f"{key}: {value}" for key, value in fields.items()))


KNOWN_PARTS = (
    "ranking", "strength", "ratings", "acceptable", "flags", "corrections", "marks", "demonstration",
    "none_acceptable", "rationale", "seconds",
)  # fmt: skip


def needs_contents(body: Any) -> bool:
    """Whether the judgement can only be checked beside the texts it speaks of."""
    return isinstance(body, dict) and bool(body.get("marks") or body.get("corrections"))


def check_answer(form: dict[str, Any], keys: list[str], body: Any, contents: Mapping[str, str] | None = None) -> Answer:
    """Check a judgement against the form of its project.

    `keys` are the completions' keys in the order shown, `contents` their texts by key (see `needs_contents`).
    Raises BadAnswer naming every part that is wrong: a ranking that omits, repeats or invents a completion, a
    rating off its scale, a mark outside its text, an unknown part, or a judgement that says nothing.
    """
    if not isinstance(body, dict):
        raise BadAnswer({"judgement": "must be an object"})
    wrong: dict[str, str] = {}
    parts: dict[str, Any] = {}
    known = set(keys)
    for key in body.keys() - set(KNOWN_PARTS):
        wrong[str(key)] = "is not a part of a judgement"

    ranking = body.get("ranking")
    if ranking is None:
        ranking = []
        if form["ranking"] and len(keys) > 1:
            wrong["ranking"] = "is required: every completion exactly once, best first"
    elif not form["ranking"]:
        wrong["ranking"] = "is not asked for by this project's form"
    else:
        problem = ranking_problem(ranking, keys, ties_allowed=form["ties"])
        if problem:
            wrong["ranking"] = problem

    def per_completion(name: str, check: Any) -> None:
        value = body.get(name)
        if value is None or value == {}:
            return
        if not isinstance(value, dict):
            wrong[name] = "must be an object with the completions' keys"
            return
        for key, item in value.items():
            if key not in known:
                wrong[f"{name}.{key}"] = "names a completion that this task doesn't have"
            elif problem := check(item):
                wrong[f"{name}.{key}"] = problem
        parts[name] = value

    def rating_problem(item: Any) -> str:
        if not isinstance(item, dict):
            return "must be an object: axis -> number"
        for axis, number in item.items():
            scale = form["ratings"].get(axis)
            if scale is None:
                return f"{axis!r} is not an axis of this project"
            if not isinstance(number, int) or isinstance(number, bool) or not scale["low"] <= number <= scale["high"]:
                return f"{axis} must be a whole number from {scale['low']} to {scale['high']}"
        return ""

    def flags_problem(item: Any) -> str:
        if not isinstance(item, list) or not all(isinstance(flag, str) for flag in item):
            return "must be a list of flags"
        unknown = [flag for flag in item if flag not in form["flags"]]
        return f"{unknown[0]!r} is not a flag of this project" if unknown else ""

    per_completion("ratings", rating_problem)
    per_completion("flags", flags_problem)
    per_completion("acceptable", lambda item: "" if isinstance(item, bool) else "must be true or false")
    per_completion("corrections", lambda item: written_problem(item))
    per_completion("marks", lambda item: marks_problem(item, form["marks"]))
    for name in ("acceptable", "corrections", "marks"):
        if name in parts and not form[name]:
            wrong[name] = "is not asked for by this project's form"
    for key, text in parts.get("corrections", {}).items():
        if contents and key in contents and text == contents[key]:
            wrong[f"corrections.{key}"] = "is the completion as it was: leave it out, or change something"
    for key, marks in parts.get("marks", {}).items():
        if contents and key in contents and f"marks.{key}" not in wrong:
            length = len(contents[key])
            if beyond := [mark for mark in marks if mark["end"] > length]:
                wrong[f"marks.{key}"] = f"ends at {beyond[0]['end']}, and the completion has {length} characters"
    for name in ("ratings", "acceptable"):
        if name in form["required"] and name not in wrong:
            given = parts.get(name, {})
            for key in keys:
                axes = [axis for axis in form["ratings"] if axis not in given.get(key, {})] if name == "ratings" else []
                if key not in given or axes:
                    wrong[f"{name}.{key}"] = f"is required: {', '.join(axes)}" if axes else "is required"

    demonstration = body.get("demonstration")
    if demonstration is None or (isinstance(demonstration, str) and not demonstration.strip()):
        if form["demonstration"] == "required":
            wrong["demonstration"] = "is required: write the completion that you would want"
    elif form["demonstration"] == "off":
        wrong["demonstration"] = "is not asked for by this project's form"
    elif problem := written_problem(demonstration):
        wrong["demonstration"] = problem
    else:
        parts["demonstration"] = demonstration

    if (strength := body.get("strength")) is not None:
        if not form["strength"]:
            wrong["strength"] = "is not asked for by this project's form"
        elif isinstance(strength, bool) or strength not in (1, 2, 3):
            wrong["strength"] = "must be 1 (slightly), 2 (better) or 3 (much better)"
        else:
            parts["strength"] = strength
    elif "strength" in form["required"] and len(ranking) > 1 and "ranking" not in wrong:
        wrong["strength"] = "is required: how much better is the best?"
    if (none_acceptable := body.get("none_acceptable")) is not None:
        if not isinstance(none_acceptable, bool):
            wrong["none_acceptable"] = "must be true or false"
        elif none_acceptable and not form["none_acceptable"]:
            wrong["none_acceptable"] = "is not offered by this project's form"
        elif none_acceptable:
            parts["none_acceptable"] = True
    rationale = body.get("rationale")
    if rationale is not None and (not isinstance(rationale, str) or len(rationale) > MAX_TEXT):
        wrong["rationale"] = f"must be a text of at most {MAX_TEXT} characters"
    elif rationale and rationale.strip():
        if form["rationale"] == "off":
            wrong["rationale"] = "is not asked for by this project's form"
        parts["rationale"] = rationale.strip()
    elif form["rationale"] == "required":
        wrong["rationale"] = "is required"

    seconds = body.get("seconds")
    if seconds is not None:
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
            wrong["seconds"] = "must be a number"
        elif not 0 <= seconds <= MAX_SECONDS:
            wrong["seconds"] = "must lie between 0 and 86400"
    if not wrong and not ranking and not parts and not may_be_empty(form):
        wrong["judgement"] = "says nothing: give at least one of the parts that the form asks for"
    if wrong:
        raise BadAnswer(wrong)
    return Answer(ranking=ranking, parts=parts, seconds=None if seconds is None else float(seconds))


def written_problem(text: Any) -> str:
    """What is wrong with a text the annotator wrote, or an empty string."""
    if not isinstance(text, str) or not text.strip():
        return "must be a text that isn't empty"
    if "\x00" in text:
        return "holds a NUL character, which no database keeps"
    return f"must have at most {MAX_WRITTEN} characters" if len(text) > MAX_WRITTEN else ""


def marks_problem(marks: Any, labels: list[str]) -> str:
    """What is wrong with the marks of one completion, or an empty string.

    A mark is `{"start", "end", "label"}` and, if there is one, `"comment"`. Positions count the characters (code
    points) of the completion's source text from 0; `end` is the first one no longer marked.
    """
    if not isinstance(marks, list) or not all(isinstance(mark, dict) for mark in marks):
        return "must be a list of marks: {start, end, label}"
    if len(marks) > MAX_MARKS:
        return f"has more than {MAX_MARKS} marks"
    for number, mark in enumerate(marks, 1):
        if unknown := mark.keys() - {"start", "end", "label", "comment"}:
            return f"mark {number} has {sorted(map(str, unknown))[0]!r}; known: start, end, label, comment"
        start, end = mark.get("start"), mark.get("end")
        if type(start) is not int or type(end) is not int or not 0 <= start < end:
            return f"mark {number} needs whole numbers 0 <= start < end"
        if mark.get("label") not in labels:
            return f"mark {number}: {mark.get('label')!r} is not one of this project's: {', '.join(labels)}"
        comment = mark.get("comment")
        if "comment" in mark and (not isinstance(comment, str) or not 0 < len(comment) <= MAX_COMMENT):
            return f"mark {number}: comment must be a text of 1 to {MAX_COMMENT} characters"
    return ""


def ranking_problem(ranking: Any, keys: list[str], *, ties_allowed: bool) -> str:
    """What is wrong with a ranking of `keys`, or an empty string."""
    if not isinstance(ranking, list) or not all(isinstance(group, list) and group for group in ranking):
        return "must be a list of groups, best first, each a list of keys that is not empty"
    named = list(chain.from_iterable(ranking))
    if not all(isinstance(key, str) for key in named):
        return "must name completions by their keys"
    if invented := [key for key in named if key not in keys]:
        return f"names {invented[0]!r}, which this task doesn't have"
    if repeated := [key for key in keys if named.count(key) > 1]:
        return f"names {repeated[0]!r} twice"
    if missing := [key for key in keys if key not in named]:
        return f"omits {missing[0]!r}: rank every completion exactly once"
    if not ties_allowed and any(len(group) > 1 for group in ranking):
        return "has a tie, and this project allows none"
    return ""
