"""Ways to ask for feedback that a lead begins a form from. Pure: no Django, no database."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labeling.projects.feedback import DEFAULT_FORM, least_completions

NOTHING: dict[str, Any] = {**DEFAULT_FORM, "ranking": False, "none_acceptable": False, "rationale": "off"}
AXES: dict[str, Any] = {
    "helpfulness": {
        "low": 1, "high": 5, "labels": {"1": "useless", "3": "of some use", "5": "just right"},
        "help": "Does it do what was asked?",
    },
    "truthfulness": {
        "low": 1, "high": 5, "labels": {"1": "wrong", "3": "partly right", "5": "nothing false"},
        "help": "Is everything it says true?",
    },
}  # fmt: skip
MARKS = ["wrong fact", "unsafe", "rude", "off-topic"]


@dataclass(frozen=True)
class Preset:
    """One card of the page: what is asked, in a sentence, and the form that asks it."""

    key: str
    name: str
    says: str
    form: dict[str, Any]


def _preset(key: str, name: str, says: str, **parts: Any) -> Preset:
    return Preset(key, name, says, {**NOTHING, **parts})


PAIR = _preset(
    "pair", "Which of two is better",
    "Two completions side by side; one key says which is better and by how much, equal or both bad.",
    ranking=True, none_acceptable=True, strength=True,
)  # fmt: skip
PRESETS = (
    PAIR,
    Preset(
        "several", "Rank several",
        "Two to nine completions put in order, best first, by keys or by dragging; ties allowed.", dict(DEFAULT_FORM),
    ),
    _preset(
        "rate", "Rate each one", "Every completion gets a number on each of your scales, such as helpfulness from 1 to 5.",
        ratings=AXES, required=["ratings"], rationale="optional",
    ),
    _preset(
        "good", "Good or not", "One completion at a time: acceptable, yes or no. What KTO learns from.",
        acceptable=True, required=["acceptable"],
    ),
    _preset(
        "correct", "Correct it", "The annotator edits the completion until it is good, or says that it is.",
        corrections=True, acceptable=True,
    ),
    _preset(
        "mark", "Mark what is wrong", "Passages get a label of yours, such as “wrong fact”, and a comment.",
        marks=MARKS, acceptable=True,
    ),
    _preset(
        "write", "Write it yourself", "Only the prompt is shown; the annotator writes the completion you would want.",
        demonstration="required",
    ),
    _preset(
        "everything", "Everything", "Rank several, rate each one, correct them and mark what is wrong, in one judgement.",
        ranking=True, none_acceptable=True, ratings=AXES, corrections=True, marks=MARKS, rationale="optional",
    ),
)  # fmt: skip
TALK = Preset(
    "talk",
    "Talk with the model",
    "The annotator converses with your models: two completions at each turn, and the better one goes on.",
    PAIR.form,
)


def shape_of(form: Mapping[str, Any]) -> list[bool]:
    """Which parts a form asks for, whatever their details: what makes two forms the same kind."""
    parts = ("ranking", "strength", "acceptable", "flags", "ratings", "corrections", "marks")
    return [*(bool(form[part]) for part in parts), form["demonstration"] != "off"]


def preset_like(form: Mapping[str, Any]) -> str:
    """The preset that asks for the same parts; empty where none does."""
    return next((preset.key for preset in PRESETS if shape_of(preset.form) == shape_of(form)), "")


def usual_completions(form: Mapping[str, Any]) -> int:
    """How many completions a task of this form shows unless the lead says otherwise."""
    if form["ranking"]:
        return 2 if form["strength"] else 4
    return least_completions(form)
