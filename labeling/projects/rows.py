"""Lists that a lead edits row by row: the axes of ratings, the names of flags and marks.

A row of ratings is sent as the fields `axis.<token>.name`, `.low`, `.high`, `.help` and `.word.<step>`; repeated
`axis` fields hold the tokens in the order of the rows. Flags and marks are repeated fields of one name.
"""

from dataclasses import dataclass, field
from typing import Any

from django import forms
from django.http import QueryDict

from labeling.projects.feedback import MOST_STEPS, complete_form

MOST_ROWS = 60
STEPS_WITH_A_WORD = 11  # longer scales ask for words at their ends alone


@dataclass
class AxisRow:
    """One rating axis as it was typed."""

    token: str
    name: str = ""
    low: str = "1"
    high: str = "5"
    help: str = ""
    words: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    problem_at: str = "name"  # or "ends", "words"

    @property
    def is_blank(self) -> bool:
        return not (self.name or self.help or any(self.words.values()))

    @property
    def steps(self) -> list[tuple[str, str]]:
        """Steps that can be given a word, each with the one it has; steps off the scale where they have one."""
        low, high = whole(self.low), whole(self.high)
        shown: set[int] = set()
        if low is not None and high is not None and low < high:
            shown = set(range(low, high + 1)) if high - low < STEPS_WITH_A_WORD else {low, high}
        named = {int(step) for step, word in self.words.items() if word}
        return [(str(step), self.words.get(str(step), "")) for step in sorted(shown | named)]

    @property
    def scale(self) -> dict[str, Any]:
        scale: dict[str, Any] = {"low": whole(self.low), "high": whole(self.high)}
        if words := {step: word for step, word in self.words.items() if word}:
            scale["labels"] = words
        if self.help:
            scale["help"] = self.help
        return scale

    @classmethod
    def of(cls, number: int, name: str, scale: dict[str, Any]) -> "AxisRow":
        return cls(
            str(number),
            name,
            str(scale["low"]),
            str(scale["high"]),
            scale.get("help", ""),
            dict(scale.get("labels", {})),
        )


@dataclass
class NameRow:
    """One flag or mark as it was typed."""

    name: str
    problem: str = ""


def whole(text: str) -> int | None:
    try:
        return int(text) if len(text) < 10 else None
    except ValueError:
        return None


class AxesWidget(forms.Widget):
    def value_from_datadict(self, data: QueryDict, files: Any, name: str) -> list[AxisRow]:
        rows = []
        for token in list(dict.fromkeys(data.getlist("axis")))[:MOST_ROWS]:
            before = f"axis.{token}."
            parts = {
                key: data.get(f"{before}{key}", "").strip()
                for key in ("name", "low", "high", "help")
            }  # fmt: skip
            words = {
                key.removeprefix(f"{before}word."): data[key].strip()
                for key in data
                if key.startswith(f"{before}word.")
            }
            rows.append(
                AxisRow(token, **parts, words={step: text for step, text in words.items() if whole(step) is not None})
            )
        return rows

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        return False


class NamesWidget(forms.Widget):
    def value_from_datadict(self, data: QueryDict, files: Any, name: str) -> list[NameRow]:
        return [NameRow(text.strip()) for text in data.getlist(name)[:MOST_ROWS]]

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        return False


def clean_axes(rows: list[AxisRow]) -> dict[str, dict[str, Any]]:
    """The axes as a form has them. A row in which nothing was typed isn't there; what is wrong is noted on its row."""
    axes: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.is_blank:
            continue
        row.problem_at, row.problem = _axis_problem(row, axes)
        axes[row.name] = row.scale
    return _checked(rows, axes, "Name at least one axis")


def clean_names(rows: list[NameRow]) -> list[str]:
    names: list[str] = []
    for row in rows:
        if not row.name:
            continue
        row.problem = _name_problem(row.name, names)
        names.append(row.name)
    return _checked(rows, names, "Name at least one")


def _checked(rows: list[Any], found: Any, nothing: str) -> Any:
    n_wrong = sum(bool(row.problem) for row in rows)
    if n_wrong:
        raise forms.ValidationError("One row is wrong" if n_wrong == 1 else f"{n_wrong} rows are wrong")
    if not found:
        raise forms.ValidationError(f"{nothing}, or switch this part off")
    return found


def _axis_problem(row: AxisRow, others: dict[str, Any]) -> tuple[str, str]:
    """Which field of the row is wrong, and how; an empty text if none is."""
    if not row.name:
        return "name", "Give this axis a name"
    if row.name in others:
        return "name", f"There is an axis “{row.name}” already"
    if "\x00" in "".join([row.name, row.help, *row.words.values()]):
        return "name", "This holds a character that no database keeps (NUL)"
    low, high = whole(row.low), whole(row.high)
    if low is None or high is None:
        return "ends", "The scale runs from one whole number to another, such as 1 to 5"
    if low >= high:
        return "ends", f"The scale runs upwards: {low} is not below {high}"
    if high - low >= MOST_STEPS:
        return "ends", f"The scale has {high - low + 1:,} steps; at most {MOST_STEPS} can be told apart on the bench"
    if off := [step for step, word in row.words.items() if word and not low <= int(step) <= high]:
        return "words", f"{off[0]} has a word and is no step from {low} to {high}"
    # The rule itself says the rest; it speaks of "axis 'name'", which this row shows.
    problem = complete_form({"ratings": {row.name: row.scale}})[1].get("ratings", "")
    return "words", problem.removeprefix(f"axis {row.name!r}").lstrip(": ").capitalize()


def _name_problem(name: str, others: list[str]) -> str:
    if name in others:
        return f"“{name}” is there already"
    if "\x00" in name:
        return "This holds a character that no database keeps (NUL)"
    return "A name has at most 40 characters" if len(name) > 40 else ""
