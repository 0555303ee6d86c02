"""How a project checks its labels. Pure: no Django, no database.

The settings are a JSON object; shares run 0 to 1:

    {"gold_rate": 0.0,          # share of the tasks handed out that are gold tasks; 0: none
     "gold_pass": 0.75,         # score from which an answer to a gold task is right
     "gold_window": 20,         # a person's newest gold answers, on which pausing is decided
     "gold_bound": 0.5,         # paused where the share right is surely below; 0: nobody is paused by gold tasks
     "gold_least": 5,           # gold answers before anybody is paused
     "gold_again_days": 90,     # a person doesn't meet a gold task again before
     "requeue_days": 7,         # what a paused person judged in so many days at most is set aside; 0: nothing
     "repeat_rate": 0.0,        # share of the tasks handed out that a person has judged before; 0: none
     "repeat_after": 20,        # judgements of theirs in between, at least
     "repeat_hours": 12,        # hours in between, at least
     "qualification": {"n": 0,  # gold tasks that a new annotator answers first; 0: no round
                       "pass": 0.8},  # share of them to get right
     "adjudication": "blind"}   # blind | open: reviewers see the votes after they said their own ranking, or at once
"""

from typing import Any

DEFAULT_QUALITY: dict[str, Any] = {
    "gold_rate": 0.0,
    "gold_pass": 0.75,
    "gold_window": 20,
    "gold_bound": 0.5,
    "gold_least": 5,
    "gold_again_days": 90,
    "requeue_days": 7,
    "repeat_rate": 0.0,
    "repeat_after": 20,
    "repeat_hours": 12,
    "qualification": {"n": 0, "pass": 0.8},
    "adjudication": "blind",
}
SHARES = {"gold_rate": 0.5, "gold_pass": 1.0, "gold_bound": 1.0, "repeat_rate": 0.5}
NUMBERS = {
    "gold_window": (3, 200),
    "gold_least": (3, 200),
    "gold_again_days": (1, 3650),
    "requeue_days": (0, 365),
    "repeat_after": (1, 10_000),
    "repeat_hours": (0, 24 * 365),
}
MOST_QUALIFYING = 50


def complete_quality_settings(settings: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Fill in defaults. Returns the settings and, by field, what is wrong with them (empty: nothing)."""
    if not isinstance(settings, dict):
        return _defaults(), {"quality": "must be an object"}
    unknown = settings.keys() - DEFAULT_QUALITY.keys()
    wrong = {str(key): "is not a setting of quality; known: " + ", ".join(DEFAULT_QUALITY) for key in unknown}
    full = _defaults() | {key: value for key, value in settings.items() if key in DEFAULT_QUALITY}
    for key, most in SHARES.items():
        if not _is_share(full[key], most):
            wrong[key] = f"must be a number from 0 to {most:g}"
    for key, (least, most) in NUMBERS.items():
        if type(full[key]) is not int or not least <= full[key] <= most:
            wrong[key] = f"must be a whole number from {least} to {most}"
    full["qualification"], problem = _qualification(full["qualification"])
    if problem:
        wrong["qualification"] = problem
    if full["adjudication"] not in ("blind", "open"):
        wrong["adjudication"] = "must be blind or open"
    if not wrong and full["gold_least"] > full["gold_window"]:
        wrong["gold_least"] = "must not be more than gold_window: no more answers than that are looked at"
    return full, wrong


def quality_of(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings as they are kept, with defaults for what was added since."""
    return complete_quality_settings(settings)[0]


def _qualification(sent: Any) -> tuple[dict[str, Any], str]:
    usual = DEFAULT_QUALITY["qualification"]
    if not isinstance(sent, dict) or sent.keys() - usual.keys():
        return dict(usual), "must be an object with n and pass"
    full = {**usual, **sent}
    if type(full["n"]) is not int or not 0 <= full["n"] <= MOST_QUALIFYING:
        return full, f"n must be a whole number from 0 to {MOST_QUALIFYING}"
    return full, "" if _is_share(full["pass"], 1.0) else "pass must be a number from 0 to 1"


def _is_share(value: Any, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most


def _defaults() -> dict[str, Any]:
    return {**DEFAULT_QUALITY, "qualification": dict(DEFAULT_QUALITY["qualification"])}
