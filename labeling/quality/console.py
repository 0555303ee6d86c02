"""Pages on judgements: the queue of tasks, and how good what came in is."""

from collections import Counter
from datetime import datetime
from itertools import chain
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.defaultfilters import pluralize
from django.views.decorators.http import require_http_methods, require_safe

from labeling.accounts.roles import STEERING
from labeling.annotation.assign_forms import AssignForm, FilterForm
from labeling.annotation.errors import BadPool, BadTasks
from labeling.annotation.selectors import queue_figures
from labeling.annotation.services import create_tasks_for_prompts
from labeling.projects.console_access import add_errors, console_page, keyset_page, show
from labeling.projects.models import Project, Prompt
from labeling.quality.forms import TasksForm
from labeling.quality.person import Part, person_record
from labeling.quality.plans import plan_tasks
from labeling.quality.selectors import annotators_by_pseudonym
from labeling.quality.services import figures_and_annotators


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_change=STEERING)
def tasks(request: HttpRequest, project: Project) -> HttpResponse:
    """The queue, and making more of it. What is asked for in the address is counted, not made."""
    asked = request.POST if request.method == "POST" else request.GET if "completions_per_task" in request.GET else None
    form = TasksForm(asked, project=project)
    if request.method == "POST" and form.is_valid() and _make(request, project, form):
        return redirect("projects:tasks", project.slug)
    usual = {name: form.get_initial_for_field(form.fields[name], name) for name in form.COUNTED}
    wanted = {name: form.cleaned_data[name] for name in form.COUNTED} if form.is_bound and form.is_valid() else usual
    chosen = FilterForm(request.GET, project=project, auto_id="filter_%s")
    found = chosen.tasks
    return show(
        request, "console/quality/tasks.html", project, form=form, plan=plan_tasks(project=project, **wanted),
        queue=queue_figures(project), page=keyset_page(request, found.select_related("prompt", "pool")), chosen=chosen,
        n_found=found.count(), assign=AssignForm(project=project, auto_id="assign_%s"), status=422 if request.method == "POST" else 200,
    )  # fmt: skip


def _make(request: HttpRequest, project: Project, form: TasksForm) -> bool:
    """Make the tasks and say how many; False where they can't be made, which the form then says."""
    wanted = {name: form.cleaned_data[name] for name in form.COUNTED}
    prompts = Prompt.objects.filter(project=project) if wanted.pop("which") == "all" else None
    try:
        n_made, n_left_out = create_tasks_for_prompts(project=project, prompts=prompts, **wanted, **form.changes())
    except BadPool as error:
        add_errors(form, error.fields)
        return False
    except BadTasks as error:
        form.add_error("completions_per_task", str(error))
        return False
    n_wanted = n_made * wanted["overlap"]
    said = f"{n_made:,} new task{pluralize(n_made)}, {n_wanted:,} judgement{pluralize(n_wanted)} wanted."
    if n_left_out:
        said += f" {n_left_out:,} prompt{pluralize(n_left_out)} left out for want of completions."
    (messages.success if n_made else messages.warning)(request, said)
    return True


# Of the figures of agreement: what they are called, what to know of them, and the ends and the rule of their plot.
AGREEMENT = {
    "pairwise_raw": ("Share of comparisons on which two say the same", "a third or more by chance", "0,1,0.333"),
    "krippendorff_alpha_symmetric": (
        "Krippendorff’s α",
        "0 is chance, 1 perfect; either side equally likely to win by chance",
        "-1,1,0",
    ),
    "krippendorff_alpha_nominal": (
        "The same, nominal",
        "chance from how often the completion entered first wins; low where it mostly does",
        "-1,1,0",
    ),
    "krippendorff_alpha_ordinal": ("Krippendorff’s α of places", "ordinal: near places differ little", "-1,1,0"),
    "fleiss_kappa": ("Fleiss’ κ", "as nominal α, without its correction for few answers", "-1,1,0"),
    "kendall_tau": ("Kendall’s τ-b of two rankings", "mean over tasks; 0 no relation, 1 the same order", "-1,1,0"),
    "kendall_w": ("Kendall’s W of all rankings", "mean over tasks; guessing gives 1 / annotators of a task", "0,1,0.5"),
}
OF_AXES = {
    "krippendorff_alpha_interval": ("α of {}", "interval: equal steps", "-1,1,0"),
    "krippendorff_alpha_ordinal": ("α of {}", "ordinal: an order alone", "-1,1,0"),
    "krippendorff_alpha_nominal": ("α of {}", "nominal: yes or no", "-1,1,0"),
}
MATRIX_SIZE = 12


@require_safe
@console_page()
def quality(request: HttpRequest, project: Project) -> HttpResponse:
    figures, ids = figures_and_annotators(project)
    people = annotators_by_pseudonym(project, ids)
    annotators = [row | {"user": people.get(row["annotator"])} for row in figures["annotators"]]
    return show(
        request, "console/quality/quality.html", project, figures=figures, annotators=annotators,
        computed_at=_computed_at(figures), agreement=_agreement_rows(figures), over_time=_over_time(figures),
        matrix=_matrix(figures["agreement"], {name: user.username for name, user in people.items()}),
        tags=sorted(figures["agreement_by_tag"].items(), key=lambda item: (-item[1]["n_tasks"], item[0])),
        has_machines=bool(set(figures["annotator_kinds"]) - {"human"}),
    )  # fmt: skip


@require_safe
@console_page()
def person(request: HttpRequest, project: Project, pseudonym: str) -> HttpResponse:
    """One annotator: how they fare beside the others."""
    figures, ids = figures_and_annotators(project)
    user = annotators_by_pseudonym(project, ids).get(pseudonym)
    if user is None:
        raise Http404
    row = next(row for row in figures["annotators"] if row["annotator"] == pseudonym)
    record = person_record(project, user)
    return show(
        request, "console/quality/person.html", project, person=user, pseudonym=pseudonym, row=row, record=record,
        computed_at=_computed_at(figures), trend=_trend(record.trend), confusion=_confusion(row),
    )  # fmt: skip


def _computed_at(figures: dict[str, Any]) -> datetime | None:
    return datetime.fromisoformat(figures["computed_at"]) if figures["computed_at"] else None


def _agreement_rows(figures: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    # A database may give keys in an order of its own.
    axes = sorted((name.partition(":")[2], name) for name in figures["agreement"] if name.partition(":")[0] in OF_AXES)
    for name in [*AGREEMENT, *(name for axis, name in axes if axis)]:
        kind, _, axis = name.partition(":")
        if (figure := figures["agreement"].get(name)) is None:
            continue
        label, note, ends = OF_AXES[kind] if axis else AGREEMENT[name]
        people = figures["agreement_of_people"].get(name)
        rows.append({"label": label.format(axis), "note": note, "ends": ends, "all": figure, "people": people})
    return rows


def _over_time(figures: dict[str, Any]) -> dict[str, Any] | None:
    parts = [
        (part["to"], part["pairwise_raw"]) for part in figures["agreement_over_time"] if part["pairwise_raw"]["value"] is not None
    ]  # fmt: skip
    return _plot("agreement", "Comparisons on which two say the same", parts)


def _trend(parts: list[Part]) -> dict[str, Any] | None:
    known = [(part.at.isoformat(), part.agreement) for part in parts if part.agreement["value"] is not None]
    return _plot("trend", "Agrees with most of the others", known)


def _plot(key: str, title: str, parts: list[tuple[str, dict[str, Any]]]) -> dict[str, Any] | None:
    """A line with its interval, as charts.js takes it; None where there is too little for a line."""
    if len(parts) < 2:
        return None
    unit = "hour" if parts[0][0][:10] == parts[-1][0][:10] else "day"
    series = [
        {
            "label": label,
            "colour": 0,
            "isBound": bool(index),
            "points": [[at[:16], figure[part]] for at, figure in parts],
        }
        for index, (label, part) in enumerate((("share", "value"), ("95 % interval, low", "low"), ("high", "high")))
    ]
    panel = {"key": key, "title": title, "unit": "share", "kind": "line", "low": 0, "high": 1, "series": series}
    return {"x": {"unit": unit, "kind": "time"}, "panels": [panel]}


def _matrix(agreement: dict[str, Any], usernames: dict[str, str]) -> dict[str, Any] | None:
    """Cohen's kappa of each pair of annotators, of those that most pairs are known of."""
    kappas = {
        tuple(name.partition(":")[2].split("|")): figure
        for name, figure in agreement.items()
        if name.startswith("cohen_kappa_symmetric:")
    }
    names = [name for name, _ in Counter(chain.from_iterable(kappas)).most_common(MATRIX_SIZE)]
    if len(names) < 3:
        return None
    names.sort(key=lambda name: usernames.get(name, name))
    rows = []
    for row in names:
        cells = [
            None if row == column else kappas.get((row, column)) or kappas.get((column, row)) or {} for column in names
        ]
        rows.append({"pseudonym": row, "name": usernames.get(row, row), "cells": [_warmed(cell) for cell in cells]})
    return {"columns": [usernames.get(name, name) for name in names], "rows": rows}


def _warmed(cell: dict[str, Any] | None) -> dict[str, Any]:
    """With a step of heat, 0 to 9, by the figure's value."""
    if cell is None:
        return {"is_self": True}
    value = cell.get("value")
    return {"figure": cell, "heat": None if value is None else round(9 * min(1.0, max(0.0, value)))}


def _confusion(row: dict[str, Any]) -> list[dict[str, Any]]:
    """What is true by what was said, as shares of each truth. First and second are one under exchange of sides."""
    if not row["confusion"]:
        return []
    better, _, tie = row["confusion"]
    # The model is blind to sides, so its matrix has two kinds of truth only: one is better, and a tie.
    rows = [
        ("one is better", [("that one", 2 * better[0]), ("the other", 2 * better[1]), ("a tie", 2 * better[2])]),
        ("a tie", [("one of them", tie[0] + tie[1]), ("", None), ("a tie", tie[2])]),
    ]
    found = []
    for label, cells in rows:
        total = sum(count or 0 for _, count in cells)
        found.append(
            {
                "label": label, "total": total,
                "cells": [
                    {"said": said, "count": count, "share": count / total if total else None, "heat": round(9 * count / total) if total else 0}
                    if count is not None else {}
                    for said, count in cells
                ],
            }
        )  # fmt: skip
    return found
