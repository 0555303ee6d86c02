"""The front page of a project."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from labeling.annotation.selectors import queue_figures
from labeling.projects.console_access import console_page, show
from labeling.projects.models import Project
from labeling.quality.services import quality_figures
from training.loop import overview


@require_safe
@console_page()
def front_page(request: HttpRequest, project: Project) -> HttpResponse:
    state = overview.loop_state(project)
    queue = queue_figures(project)
    pace = overview.pace(project, queue)
    plot = {
        "x": {"unit": pace.unit, "kind": "time"},
        "panels": [
            {
                "key": "throughput",
                "title": f"Judgements each {pace.unit}",
                "unit": "",
                "kind": "bar",
                "series": [{"label": "judgements", "points": pace.points}],
            }
        ],
    }
    return show(
        request,
        "console/projects/overview.html",
        project,
        loop_state=state,
        advice=overview.needs_you(state),
        first_steps=overview.first_steps(state),
        queue=queue,
        pace=pace,
        forecast=overview.days_in_words(pace.days_left),
        plot=plot,
        quality=quality_figures(project),
        at_work=overview.at_work(project),
    )
