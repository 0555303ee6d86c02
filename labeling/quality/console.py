"""Pages on judgements: the queue of tasks, and how good what came in is."""

from django.contrib import messages
from django.db.models import Count, Exists, OuterRef, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_http_methods, require_safe

from labeling.accounts.roles import STEERING
from labeling.annotation.errors import BadTasks
from labeling.annotation.models import Task
from labeling.annotation.selectors import queue_figures
from labeling.annotation.services import create_tasks_for_prompts
from labeling.projects.console_access import console_page, keyset_page, show
from labeling.projects.models import Project, Prompt
from labeling.quality.forms import TasksForm
from labeling.quality.selectors import annotators_by_pseudonym, cached_agreement


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_change=STEERING)
def tasks(request: HttpRequest, project: Project) -> HttpResponse:
    form = TasksForm(request.POST or None, initial={"overlap": project.overlap})
    if request.method == "POST" and form.is_valid():
        try:
            made, too_few = create_tasks_for_prompts(project=project, **form.cleaned_data)
        except BadTasks as error:
            form.add_error(None, str(error))
        else:
            left_out = f" {too_few:,} prompts have fewer than two different completions." if too_few else ""
            (messages.success if made else messages.warning)(request, f"{made:,} new tasks.{left_out}")
            return redirect("projects:tasks", project.slug)
    waiting = (
        Prompt.objects.filter(project=project)
        .filter(~Exists(Task.objects.filter(prompt=OuterRef("pk"))))
        .annotate(n=Count("completions__content_hash", distinct=True))
        .aggregate(ready=Count("pk", filter=Q(n__gte=2)), bare=Count("pk", filter=Q(n__lt=2)))
    )
    state = request.GET.get("state", "")
    found = Task.objects.filter(project=project).select_related("prompt")
    if state in Task.State.values:
        found = found.filter(state=state)
    return show(
        request, "console/quality/tasks.html", project, form=form, waiting=waiting, queue=queue_figures(project),
        page=keyset_page(request, found), state=state, states=Task.State.choices, status=422 if form.is_bound else 200,
    )  # fmt: skip


@require_safe
@console_page()
def quality(request: HttpRequest, project: Project) -> HttpResponse:
    figures = cached_agreement(project)
    people = annotators_by_pseudonym(project)
    annotators = [row | {"user": people.get(row["annotator"])} for row in figures["annotators"]]
    return show(request, "console/quality/quality.html", project, figures=figures, annotators=annotators)
