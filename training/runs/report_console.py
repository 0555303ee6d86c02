"""The page on how far a reward model may be trusted."""

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_safe

from labeling.accounts.roles import REVIEWING
from labeling.projects.console_access import console_page, show
from labeling.projects.models import Project
from training.registry.trust import in_words
from training.runs.reports_shown import cases_shown, length_plot, reliability_plot, slices_shown
from training.runs.selectors import runs_visible_to

MOST_CASES = 12  # unfolded


@require_safe
@console_page()
def report(request: HttpRequest, project: Project, run_id: int) -> HttpResponse:
    run = get_object_or_404(runs_visible_to(request.user), project=project, pk=run_id)
    found = run.result.get("report")
    if not found:
        raise Http404
    role = request.console_role  # type: ignore[attr-defined]
    cases, n_unshown = cases_shown(found, project, request.user, role if role in REVIEWING else "")
    return show(
        request, "console/runs/report.html", project, run=run, report=found, words=in_words(run.result.get("figures") or {}),
        slices=slices_shown(found, project, run), reliability=reliability_plot(found), lengths=length_plot(found), uncertainty=run.result.get("uncertainty"),
        cases=cases, first_cases=cases[:MOST_CASES], more_cases=cases[MOST_CASES:], n_unshown=n_unshown,
    )  # fmt: skip
