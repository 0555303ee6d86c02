"""The feedback form of a project and the judgement that answers it. Pure: no Django, no database.

A form is a JSON object:

    {"ranking": true,            # ask for a ranking of the completions
     "ties": true,               # equal ranks allowed
     "none_acceptable": true,    # offer "none is good"
     "rationale": "off",         # off | optional | required
     "strength": false,          # how much better the best is, 1 to 3
     "acceptable": false,        # yes or no per completion
     "flags": ["unsafe"],        # flags a completion can carry
     "ratings": {"helpfulness": {"low": 1, "high": 5}},
     "corrections": false}       # editing a completion
"""

import math
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
}
SWITCHES = ("ranking", "ties", "none_acceptable", "strength", "acceptable", "corrections")
MAX_TEXT = 20_000
MAX_SECONDS = 24 * 3600.0


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
    if full["rationale"] not in ("off", "optional", "required"):
        wrong["rationale"] = "must be off, optional or required"
    flags = full["flags"]
    if not isinstance(flags, list) or not all(
        isinstance(flag, str) and 0 < len(flag) <= 40 for flag in flags
    ):
        wrong["flags"] = "must be a list of names of at most 40 characters"
    elif len(set(flags)) != len(flags):
        wrong["flags"] = "names a flag twice"
    if not isinstance(full["ratings"], dict):
        wrong["ratings"] = "must be an object: axis -> {low, high}"
    else:
        for axis, scale in full["ratings"].items():
            ends = (scale.get("low"), scale.get("high")) if isinstance(scale, dict) else (None, None)
            if (
                not all(isinstance(end, int) and not isinstance(end, bool) for end in ends)
                or ends[0] >= ends[1]
            ):
                wrong["ratings"] = f"axis {axis!r} needs whole numbers low < high"
    if not wrong and not (full["ranking"] or full["acceptable"] or full["ratings"] or full["corrections"]):
        wrong["ranking"] = "the form asks for nothing: switch on ranking, acceptable, ratings or corrections"
    return full, wrong


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
    "ranking", "strength", "ratings", "acceptable", "flags", "corrections", "none_acceptable", "rationale", "seconds",
)  # fmt: skip


def check_answer(form: dict[str, Any], keys: list[str], body: Any) -> Answer:
    """Check a judgement against the form of its project.

    `keys` are the completions' keys in the order shown. Raises BadAnswer naming every part that is
    wrong: a ranking that omits, repeats or invents a completion, a rating off its scale, an unknown part.
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
        if form["ranking"]:
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
            if (
                not isinstance(number, int)
                or isinstance(number, bool)
                or not scale["low"] <= number <= scale["high"]
            ):
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
    per_completion(
        "corrections",
        lambda item: "" if isinstance(item, str) and 0 < len(item) <= MAX_TEXT else "must be a text",
    )
    for name, asked in (("acceptable", form["acceptable"]), ("corrections", form["corrections"])):
        if name in parts and not asked:
            wrong[name] = "is not asked for by this project's form"

    if (strength := body.get("strength")) is not None:
        if not form["strength"]:
            wrong["strength"] = "is not asked for by this project's form"
        elif isinstance(strength, bool) or strength not in (1, 2, 3):
            wrong["strength"] = "must be 1 (slightly), 2 (better) or 3 (much better)"
        else:
            parts["strength"] = strength
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
    if wrong:
        raise BadAnswer(wrong)
    return Answer(ranking=ranking, parts=parts, seconds=None if seconds is None else float(seconds))


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
