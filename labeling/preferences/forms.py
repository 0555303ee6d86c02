from collections.abc import Iterable
from typing import Any

from django import forms

from labeling.accounts.models import User
from labeling.annotation.models import Task
from labeling.preferences.choices import Choice, Choices
from labeling.preferences.filters import FILTERS, POLICY
from labeling.web.templatetags.console import thousands

MARGINS = r"^\s*-?\d+(\.\d+)?\s*,\s*-?\d+(\.\d+)?\s*,\s*-?\d+(\.\d+)?\s*$"
NONE_TICKED = "none ticked: all"
LISTS = ("purposes", "iterations", "tags", "sources", "licences", "annotators", "annotator_kinds", "without_flags")
PLAIN = ("since", "until", "min_agreement", "min_reliability", "gold", "consent")
# What stands for an unknown source or licence on the page, where an empty value is none: no import keeps a blank name.
EMPTY = " "


def _ticks(label: str, help_text: str = NONE_TICKED, **more: Any) -> forms.MultipleChoiceField:
    widget = forms.CheckboxSelectMultiple(attrs={"class": "ticks"})
    return forms.MultipleChoiceField(required=False, widget=widget, label=label, help_text=help_text, **more)


def _radio(name: str, label: str) -> forms.ChoiceField:
    part = POLICY.get(name) or FILTERS[name]
    return forms.ChoiceField(
        choices=list(part.choices.items()), initial=part.default, label=label, widget=forms.RadioSelect
    )


def _share(label: str, help_text: str) -> forms.FloatField:
    attributes = {"step": "0.05", "min": "0", "max": "1"}
    return forms.FloatField(
        required=False, min_value=0, max_value=1, label=label, help_text=help_text,
        widget=forms.NumberInput(attrs=attributes),
    )  # fmt: skip


def _moment(label: str, help_text: str) -> forms.DateTimeField:
    widget = forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")
    return forms.DateTimeField(required=False, label=label, help_text=help_text, widget=widget)


class SnapshotForm(forms.Form):
    """What goes into a snapshot and what the trainer sees of it: every filter and every part of the policy."""

    name = forms.CharField(max_length=120, required=False, help_text="a word to find it by; numbers are given")
    purposes = _ticks(
        "Tasks", "", choices=[(purpose.value, purpose.label) for purpose in Task.COLLECTED], initial=["preference"]
    )
    annotator_kinds = _ticks(
        "Kinds of annotators", "none ticked: all. Tick “person” to leave simulated annotators out",
        choices=User.Kind.choices,
    )  # fmt: skip
    iterations = _ticks("Iterations")
    tags = _ticks("Tags", "none ticked: all; else prompts with any of them")
    sources = _ticks("Sources")
    licences = _ticks("Licences")
    annotators = _ticks("Annotators")
    consent = _radio("consent", "Consent to training")
    gold = _radio("gold", "Gold tasks")
    min_reliability = _share("Least reliability", "of the annotator, 0 to 1, in the newest figures; who has none is left out")
    since = _moment("Judged from (UTC)", "empty: from the first")
    until = _moment("before (UTC)", "empty: to the last")
    min_agreement = _share("Least agreement", "share of a pair’s votes that say what it says, 0 to 1; settled pairs stay")
    without_flags = _ticks("Without completions flagged", "they take no part in pairs, nor in rows for SFT and KTO")
    ties = _radio("ties", "Ties")
    votes = _radio("votes", "Several votes on a pair")
    pairs = _radio("pairs", "Pairs of a ranking")
    corrections = _radio("corrections", "Corrections")
    adjudications = _radio("adjudications", "Settled tasks")
    margins = forms.RegexField(
        MARGINS, required=False, help_text="three numbers, for slightly, better and much better: 0.5, 1, 2. Empty: none",
        error_messages={"invalid": "Give three numbers with commas between, or nothing"},
    )  # fmt: skip

    def __init__(self, *args: Any, choices: Choices, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, found in choices.items():
            self.fields[name].choices = [(choice.value or EMPTY, _words(choice)) for choice in found]
        # One of a kind chooses nothing, unless it was chosen before.
        self.offered = {name for name, found in choices.items() if len(found) > (name != "without_flags")}
        self.offered |= {name for name in choices if self.initial.get(name)}

    def filters(self) -> dict[str, Any]:
        data = self.cleaned_data
        found: dict[str, Any] = {name: ["" if item == EMPTY else item for item in data[name]] for name in LISTS}
        found["iterations"] = [int(number) for number in found["iterations"]]
        found |= {name: data[name] for name in PLAIN if data[name] not in ("", None)}
        return found

    def policy(self) -> dict[str, Any]:
        margins = self.cleaned_data["margins"]
        steps = zip(("1", "2", "3"), map(float, margins.split(",")), strict=True) if margins else ()
        chosen = {name: self.cleaned_data[name] for name in POLICY if name != "margins" and self.cleaned_data[name]}
        return chosen | {"margins": dict(steps)}

    @property
    def n_set(self) -> dict[str, int]:
        """By topic, how many of its filters are set: its part of the page is open then."""
        topics = {
            "prompts": ("tags", "sources", "licences"),
            "people": ("annotators", "min_reliability", "gold", "consent"),
            "time": ("since", "until"),
            "doubt": ("min_agreement", "without_flags"),
        }
        return {topic: sum(self._is_set(name) for name in names) for topic, names in topics.items()}

    def _is_set(self, name: str) -> bool:
        value = self[name].value()
        return bool(self[name].errors) or value not in (None, "", [], self.fields[name].initial)


def _words(choice: Choice) -> str:
    kind = f", {User.Kind(choice.kind).label}" if choice.kind else ""
    return f"{choice.label}{kind}" + (f" · {thousands(choice.n)}" if choice.n is not None else "")


def initial_of(filters: dict[str, Any], policy: dict[str, Any]) -> dict[str, Any]:
    """The form as it was when this was asked for."""
    initial: dict[str, Any] = {name: _items(filters.get(name) or []) for name in LISTS}
    initial |= {name: filters[name] for name in PLAIN if filters.get(name) is not None}
    for name in ("since", "until"):
        if initial.get(name):
            initial[name] = initial[name][:16]
    margins = policy.get("margins") or {}
    initial["margins"] = ", ".join(f"{margins[step]:g}" for step in ("1", "2", "3")) if len(margins) == 3 else ""
    return initial | {name: policy[name] for name in POLICY if name != "margins" and name in policy}


def _items(values: Iterable[Any]) -> list[str]:
    return [str(value) or EMPTY for value in values]
