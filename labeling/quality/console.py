"""The queue of tasks, and making more of it."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.defaultfilters import pluralize
from django.views.decorators.http import require_http_methods

from labeling.accounts.roles import STEERING
from labeling.annotation.assign_forms import AssignForm, FilterForm
from labeling.annotation.errors import BadPool, BadTasks
from labeling.annotation.selectors import prompts_for_data, queue_figures
from labeling.annotation.services import create_tasks_for_prompts
from labeling.projects.console_access import add_errors, console_page, keyset_page, show
from labeling.projects.models import Project
from labeling.quality.forms import TasksForm
from labeling.quality.plans import plan_tasks


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
    queue = queue_figures(project)
    plan = plan_tasks(project=project, **wanted, n_tasks_there=queue.n_tasks)
    return show(
        request, "console/quality/tasks.html", project, form=form, plan=plan, queue=queue,
        page=keyset_page(request, found.select_related("prompt", "pool")), chosen=chosen,
        n_found=found.count(), assign=AssignForm(project=project, auto_id="assign_%s"), status=422 if request.method == "POST" else 200,
    )  # fmt: skip


def _make(request: HttpRequest, project: Project, form: TasksForm) -> bool:
    """Make the tasks and say how many; False where they can't be made, which the form then says."""
    wanted = {name: form.cleaned_data[name] for name in form.COUNTED}
    prompts = prompts_for_data(project) if wanted.pop("which") == "all" else None
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
