from typing import Any

from django import forms

from labeling.accounts.models import User
from labeling.annotation.models import Task


class SnapshotForm(forms.Form):
    """What goes into a snapshot and what the trainer sees of it."""

    name = forms.CharField(max_length=120, required=False, help_text="a word to find it by; numbers are given")
    iterations = forms.TypedMultipleChoiceField(
        coerce=int,
        required=False,
        widget=forms.CheckboxSelectMultiple,
        label="Iterations",
        help_text="none ticked: all",
    )
    annotator_kinds = forms.MultipleChoiceField(
        choices=User.Kind.choices,
        required=False,
        widget=forms.CheckboxSelectMultiple,
        label="Annotators",
        help_text="none ticked: all. Tick “person” to leave simulated annotators out",
    )
    purposes = forms.MultipleChoiceField(
        choices=[(purpose.value, purpose.label) for purpose in Task.COLLECTED],
        initial=[Task.Purpose.PREFERENCE.value],
        widget=forms.CheckboxSelectMultiple,
        label="Tasks",
    )
    ties = forms.ChoiceField(
        choices=[("drop", "leave them out"), ("keep", "keep, half a win for each")],
        widget=forms.RadioSelect,
        initial="drop",
    )
    pairs = forms.ChoiceField(
        choices=[("all", "all of a ranking, weighing 1 together"), ("extremes", "only a best against a worst")],
        widget=forms.RadioSelect,
        initial="all",
    )
    corrections = forms.ChoiceField(
        choices=[
            ("include", "an edit is better than what it corrects, and than all its author ranked below that"),
            ("leave_out", "leave them out of pairs and of the SFT rows"),
        ],
        widget=forms.RadioSelect,
        initial="include",
    )
    adjudications = forms.ChoiceField(
        choices=[
            ("use", "what a reviewer settled decides the pairs of its task, and unfit tasks are left out"),
            ("ignore", "the majority of the votes decides everywhere"),
        ],
        widget=forms.RadioSelect,
        initial="use",
        label="Settled tasks",
    )
    margins = forms.RegexField(
        r"^\s*-?\d+(\.\d+)?\s*,\s*-?\d+(\.\d+)?\s*,\s*-?\d+(\.\d+)?\s*$",
        required=False,
        help_text="three numbers, for slightly, better and much better: 0.5, 1, 2. Empty: none",
        error_messages={"invalid": "Give three numbers with commas between, or nothing"},
    )

    def __init__(self, *args: Any, iterations: list[int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["iterations"].choices = [(number, f"#{number}") for number in iterations]

    def filters(self) -> dict[str, Any]:
        return {key: self.cleaned_data[key] for key in ("iterations", "annotator_kinds", "purposes")}

    def policy(self) -> dict[str, Any]:
        margins = self.cleaned_data["margins"]
        steps = zip(("1", "2", "3"), map(float, margins.split(",")), strict=True) if margins else ()
        return {
            "ties": self.cleaned_data["ties"],
            "pairs": self.cleaned_data["pairs"],
            "corrections": self.cleaned_data["corrections"],
            "adjudications": self.cleaned_data["adjudications"],
            "margins": dict(steps),
        }
