"""How the bench of a project shows its tasks and cares for the people at it. Pure: no Django, no database.

The settings are a JSON object:

    {"system_prompts": "shown",    # shown | hidden: a hidden one doesn't reach the annotator at all
     "fold_turns": 6,              # conversations with more turns fold all but the last ones; 0: never
     "content_warning": "",        # shown, and to be agreed to, before the first task; empty: none
     "blur": false,                # completions and prompt are blurred until asked for
     "daily_cap": 0,               # tasks that one person is given a day (UTC); 0: no limit
     "break_minutes": 50,          # remind of a break after so many minutes of work; 0: never
     "warns_when_fast": true,      # a gentle word when a judgement came faster than the text can be read
     "shows_agreement": false}     # tell annotators how often others agree with them
"""

from typing import Any

DEFAULT_BENCH: dict[str, Any] = {
    "system_prompts": "shown",
    "fold_turns": 6,
    "content_warning": "",
    "blur": False,
    "daily_cap": 0,
    "break_minutes": 50,
    "warns_when_fast": True,
    "shows_agreement": False,
}
SWITCHES = ("blur", "warns_when_fast", "shows_agreement")
NUMBERS = {"fold_turns": 1000, "daily_cap": 100_000, "break_minutes": 600}
MAX_WARNING = 4_000


def complete_bench_settings(settings: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Fill in defaults. Returns the settings and, by field, what is wrong with them (empty: nothing)."""
    if not isinstance(settings, dict):
        return dict(DEFAULT_BENCH), {"bench": "must be an object"}
    unknown = settings.keys() - DEFAULT_BENCH.keys()
    wrong = {str(key): "is not a setting of the bench; known: " + ", ".join(DEFAULT_BENCH) for key in unknown}
    full = {**DEFAULT_BENCH, **{key: value for key, value in settings.items() if key in DEFAULT_BENCH}}
    if full["system_prompts"] not in ("shown", "hidden"):
        wrong["system_prompts"] = "must be shown or hidden"
    for key in SWITCHES:
        if not isinstance(full[key], bool):
            wrong[key] = "must be true or false"
    for key, most in NUMBERS.items():
        if type(full[key]) is not int or not 0 <= full[key] <= most:
            wrong[key] = f"must be a whole number from 0 to {most}"
    warning = full["content_warning"]
    if not isinstance(warning, str) or len(warning) > MAX_WARNING or "\x00" in warning:
        wrong["content_warning"] = f"must be a text of at most {MAX_WARNING} characters"
    return full, wrong
