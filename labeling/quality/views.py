"""Pages of annotators on their own work."""

from dataclasses import dataclass
from datetime import date

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from labeling.accounts.roles import ANNOTATING
from labeling.projects.selectors import projects_of
from labeling.quality.own_figures import Day, OwnRecord, own_agreement, own_record

PLOT_HEIGHT = 100
BAR_STEP, BAR_WIDTH = 10, 7


@dataclass(frozen=True)
class Bar:
    """One day of the plot, in the units of its viewBox; an empty day keeps a hair's breadth."""

    day: date
    n: int
    x: int
    y: float
    height: float


@login_required
@require_safe
def own_figures(request: HttpRequest, slug: str) -> HttpResponse:
    """How much and how fast; and, where the project shows it, how often others say the same. Never by task."""
    project = get_object_or_404(projects_of(request.user, roles=ANNOTATING), slug=slug)
    record = own_record(request.user, project)
    compares = project.bench["shows_agreement"] and project.form["ranking"]
    context = {
        "project": project,
        "section": "bench",
        "record": record,
        "bars": bars_of(record),
        "bar_width": BAR_WIDTH,
        "plot_width": BAR_STEP * len(record.days),
        "plot_height": PLOT_HEIGHT,
        "newest_first": record.days[::-1],
        "agreement": own_agreement(request.user, project) if compares else None,
    }
    return render(request, "annotation/figures.html", context)


def bars_of(record: OwnRecord) -> list[Bar]:
    def bar(index: int, day: Day) -> Bar:
        height = max(round(PLOT_HEIGHT * day.n / max(record.most, 1), 2), 1)
        return Bar(day.day, day.n, index * BAR_STEP, PLOT_HEIGHT - height, height)

    return [bar(index, day) for index, day in enumerate(record.days)]
