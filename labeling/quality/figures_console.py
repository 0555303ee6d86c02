"""How good what came in is: a page on the project in four parts, and one on each annotator."""

from datetime import datetime
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from labeling.accounts.roles import TRAINING
from labeling.projects.console_access import console_page, show
from labeling.projects.models import Project
from labeling.projects.selectors import membership_of
from labeling.quality.adjudication import MOST_COUNTED, n_waiting, queue_of
from labeling.quality.figures_shown import (
    agreement_rows,
    confusion_rows,
    differing_plot,
    gold_plot,
    kappa_matrix,
    over_time_plot,
    pace_plot,
    settled_plot,
    trend_plot,
)
from labeling.quality.gold import missed_gold
from labeling.quality.person import person_record
from labeling.quality.selectors import annotators_by_pseudonym
from labeling.quality.services import adjudication_mode, figures_and_annotators

PARTS = {"": "Overview", "annotators": "Annotators", "checks": "Gold and repeats", "coefficients": "Coefficients"}
TOP = 5


@require_safe
@console_page()
def quality(request: HttpRequest, project: Project) -> HttpResponse:
    """What needs doing first; who judges how; how checks came out; every coefficient."""
    part = request.GET.get("show", "")
    if part not in PARTS:
        raise Http404
    figures, ids = figures_and_annotators(project)
    has_figures = bool(figures["computed_at"] and figures["annotators"])
    context: dict[str, Any] = {
        "figures": figures, "computed_at": _computed_at(figures), "part": part, "parts": PARTS.items(),
        "has_machines": bool(set(figures["annotator_kinds"]) - {"human"}),
    }  # fmt: skip
    if has_figures and part == "":
        context |= _overview(project, figures)
    elif has_figures and part == "coefficients":
        tags = sorted(figures["agreement_by_tag"].items(), key=lambda item: (-item[1]["n_tasks"], item[0]))
        context |= {"agreement": agreement_rows(figures), "tags": tags}
    elif has_figures:
        people = annotators_by_pseudonym(project, ids)
        annotators = [row | {"user": people.get(row["annotator"])} for row in figures["annotators"]]
        context["annotators"] = annotators
        context |= _checks(figures, annotators) if part == "checks" else _annotators(figures, annotators)
    return show(request, "console/quality/quality.html", project, **context)


def _overview(project: Project, figures: dict[str, Any]) -> dict[str, Any]:
    # Of a blind reviewer's tasks nothing is told but what they are.
    queue = queue_of(project).select_related("task__prompt")
    return {
        "queue": list(queue[:TOP]), "n_waiting": n_waiting(project), "most_counted": MOST_COUNTED,
        "mode": adjudication_mode(project), "n_settled": sum(figures["adjudication"]["outcomes"].values()),
        "plots": {"overtime": over_time_plot(figures), "differing": differing_plot(figures), "settled": settled_plot(figures)},
    }  # fmt: skip


def _annotators(figures: dict[str, Any], annotators: list[dict[str, Any]]) -> dict[str, Any]:
    names = {row["annotator"]: row["user"].username for row in annotators if row["user"]}
    return {
        "matrix": kappa_matrix(figures["agreement"], names), "confusion": confusion_rows(figures["confusion_of_people"]),
        "plots": {"pace": pace_plot(annotators)},
    }  # fmt: skip


def _checks(figures: dict[str, Any], annotators: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "of_gold": [row for row in annotators if row["gold"]], "of_repeats": [row for row in annotators if row["repeats"]],
        "plots": {"gold": gold_plot(figures)},
    }  # fmt: skip


@require_safe
@console_page()
def person(request: HttpRequest, project: Project, pseudonym: str) -> HttpResponse:
    """One annotator: how they fare beside the others, and where they differ."""
    figures, ids = figures_and_annotators(project)
    user = annotators_by_pseudonym(project, ids).get(pseudonym)
    if user is None:
        raise Http404
    row = next(row for row in figures["annotators"] if row["annotator"] == pseudonym)
    record = person_record(project, user)
    # Who only judges, be it as a reviewer, may not learn which tasks are gold.
    sees_gold = request.console_role in TRAINING  # type: ignore[attr-defined]
    return show(
        request, "console/quality/person.html", project, person=user, pseudonym=pseudonym, row=row, record=record,
        member=membership_of(user, project),
        computed_at=_computed_at(figures), plots={"trend": trend_plot(record.trend)},
        confusion=confusion_rows(row["confusion_shares"]), missed=missed_gold(project, user) if sees_gold else None,
    )  # fmt: skip


def _computed_at(figures: dict[str, Any]) -> datetime | None:
    return datetime.fromisoformat(figures["computed_at"]) if figures["computed_at"] else None
