"""The report of a reward model as its page shows it: tables of slices, plots as charts.js takes them, tasks behind cases."""

from typing import Any

from labeling.accounts.models import User
from labeling.annotation.models import Task
from labeling.preferences.contents import contents_of
from labeling.projects.models import Project
from labeling.quality.adjudication import tasks_to_settle
from labeling.quality.selectors import annotators_by_pseudonym
from training.runs.models import Run

SLICES = {
    "strength": ("How strong the preference is", "Right where people were sure, near chance where they hardly preferred one, is as it should be."),
    "tag": ("Tag of the prompt", "Tags are those the prompts had when the run began; a pair counts for each of its tags."),
    "iteration": ("Iteration of the loop", "A fall towards newer ones: completions have moved away from what it was trained on."),
    "annotator": ("Annotator", "Against what that person said themselves, whoever won. It agrees least with whom it learnt least from, or who differs."),
    "annotator_kind": ("Kind of annotator", "Against what they said themselves: a model that follows programs better than people learnt from programs."),
}  # fmt: skip


def slices_shown(report: dict[str, Any], project: Project, run: Run) -> list[dict[str, Any]]:
    """With titles, and with usernames beside pseudonyms."""
    people: dict[str, User] = {}
    if run.snapshot and any(part["by"] == "annotator" and part["rows"] for part in report["slices"]):
        try:
            people = annotators_by_pseudonym(project, list(contents_of(run.snapshot).people))
        except OSError:
            people = {}  # the snapshot's files are away; the pseudonyms remain
    shown = []
    for part in report["slices"]:
        title, note = SLICES[part["by"]]
        rows = [row | {"user": people.get(row["name"]) if part["by"] == "annotator" else None} for row in part["rows"]]
        shown.append(part | {"title": title, "note": note, "rows": rows})
    return shown


def reliability_plot(report: dict[str, Any]) -> dict[str, Any] | None:
    """How often right by how sure; None for a single bin."""
    bins = report["calibration"]["bins"]
    if len(bins) < 2:
        return None
    labels = _labels([f"{row['predicted']:.2f}" for row in bins])
    series = [
        {"label": "right", "colour": 0, "points": _points(labels, bins, "right", "value")},
        {"label": "95 % interval, low", "colour": 0, "isBound": True, "points": _points(labels, bins, "right", "low")},
        {"label": "high", "colour": 0, "isBound": True, "points": _points(labels, bins, "right", "high")},
        {
            "label": "as sure as it is", "colour": 1, "isEval": True,
            "points": [[label, row["predicted"]] for label, row in zip(labels, bins, strict=True)],
        },
    ]  # fmt: skip
    panel = {"key": "reliability", "title": "Share of pairs it has right, by how sure it is", "unit": "share", "kind": "line", "low": _floor(series), "high": 1}
    return {"x": {"unit": "mean probability of the completion it prefers", "kind": "names"}, "panels": [panel | {"series": series}]}


def length_plot(report: dict[str, Any]) -> dict[str, Any] | None:
    """How often people and the model prefer the longer completion, by how much longer it is; None for a single bin."""
    bins = report["length"]["by_ratio"]
    if len(bins) < 2:
        return None
    labels = _labels([f"{_times(row['low'])}–{_times(row['high'])}×" for row in bins])
    series = [
        {"label": "the model", "colour": 0, "points": _points(labels, bins, "model", "value")},
        {"label": "95 % interval, low", "colour": 0, "isBound": True, "points": _points(labels, bins, "model", "low")},
        {"label": "high", "colour": 0, "isBound": True, "points": _points(labels, bins, "model", "high")},
        {"label": "people", "colour": 1, "isEval": True, "points": _points(labels, bins, "people", "value")},
    ]
    panel = {"key": "length", "title": "Share of pairs in which the longer completion is preferred", "unit": "share", "kind": "line", "low": _floor(series), "high": 1}
    return {"x": {"unit": "times as long as the shorter one", "kind": "names"}, "panels": [panel | {"series": series}]}


def cases_shown(report: dict[str, Any], project: Project, user: User, role: str) -> tuple[list[dict[str, Any]], int]:
    """Cases with their task and whether this person may settle it; and how many can't be shown, their task being gone.

    A task that checks annotators is among the latter, so that nothing here tells which those are.
    """
    cases = report["majority"]["cases"]
    ids = [case["task"] for case in cases if case["task"]]
    tasks = Task.objects.filter(project=project, purpose__in=Task.COLLECTED, public_id__in=ids).select_related("prompt")
    found = {task.public_id: task for task in tasks}
    settleable = set(tasks_to_settle(project, user, role).filter(public_id__in=ids).values_list("public_id", flat=True))
    shown = [
        case | {"task": found[case["task"]], "may_settle": case["task"] in settleable}
        for case in cases if case["task"] in found
    ]  # fmt: skip
    return shown, len(cases) - len(shown)


def _points(labels: list[str], bins: list[dict[str, Any]], name: str, part: str) -> list[list[Any]]:
    return [[label, row[name][part]] for label, row in zip(labels, bins, strict=True)]


def _floor(series: list[dict[str, Any]]) -> float:
    """Where the axis begins, below all that is drawn."""
    lowest = min(point[1] for one in series for point in one["points"] if point[1] is not None)
    return max(start for start in (0.0, 0.2, 0.4) if start <= lowest)


def _times(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"


def _labels(texts: list[str]) -> list[str]:
    """Each once: bins that round to the same are told apart by spaces that nobody sees."""
    return [text + "\u200a" * texts[:number].count(text) for number, text in enumerate(texts)]
