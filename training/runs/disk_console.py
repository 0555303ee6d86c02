"""The page on what runs take of the disk, and the files of a run to download."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.defaultfilters import filesizeformat
from django.views.decorators.http import require_POST, require_safe

from labeling.accounts.roles import STEERING
from labeling.projects.console_access import console_page, show
from labeling.projects.models import Project
from training.runs import disk
from training.runs.console import find_run
from training.runs.errors import RunError
from training.runs.logs import EVENTS, LOG, file_of

MOST_RUNS = 200


@require_safe
@console_page()
def room(request: HttpRequest, project: Project) -> HttpResponse:
    found = disk.runs_by_room(project)
    rows: list[Any] = list(found[: MOST_RUNS + 1])
    for run in rows:
        run.goes_at = disk.goes_at(run)
    return show(
        request, "console/runs/disk.html", project, rows=rows[:MOST_RUNS], is_cut=len(rows) > MOST_RUNS, usage=disk.usage_of(project)
    )


@require_POST
@console_page(to_change=STEERING)
def delete_checkpoints(request: HttpRequest, project: Project, run_id: int) -> HttpResponse:
    run = find_run(request, project, run_id)
    try:
        n_bytes = disk.delete_checkpoints(run=run, reason=f"by {request.user.username}")
    except RunError as error:
        messages.warning(request, str(error))
    else:
        messages.success(request, f"The checkpoints of run {run.pk} are deleted: {filesizeformat(n_bytes)} are free again.")
    return redirect("runs:disk", project.slug)


@require_safe
@console_page()
def log(request: HttpRequest, project: Project, run_id: int) -> HttpResponse:
    return file_of(find_run(request, project, run_id), LOG)


@require_safe
@console_page()
def events_file(request: HttpRequest, project: Project, run_id: int) -> HttpResponse:
    return file_of(find_run(request, project, run_id), EVENTS)
