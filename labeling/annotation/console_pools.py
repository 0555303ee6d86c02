"""Pages for leads on who gets which tasks: the pools, one of them, and moving tasks, asked before it is done."""

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect
from django.template.defaultfilters import pluralize
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labeling.accounts.roles import STEERING
from labeling.annotation.assign_forms import EVERYONE, PEOPLE, AssignForm, FilterForm, PoolForm, pool_choices
from labeling.annotation.errors import BadPool, BadTasks, PoolInUse
from labeling.annotation.models import Pool, Slot, Task
from labeling.annotation.pools import PoolFigures, assignable_tasks, figures_of_pools, people_of_pool
from labeling.annotation.services import change_pool, change_tasks, create_pool, delete_pool, empty_and_delete_pool
from labeling.projects.console_access import add_errors, console_page, keyset_page, show
from labeling.projects.models import Project

MOST_PEOPLE = 60  # shown by name
MOST_TICKED = 100


# --- pools --------------------------------------------------------------------------------------
@require_safe
@console_page()
def pools(request: HttpRequest, project: Project) -> HttpResponse:
    """The pools with who fits and what waits; tasks for everyone above them."""
    figures = figures_of_pools(project)
    page = keyset_page(request, Pool.objects.filter(project=project).prefetch_related("people"))
    for pool in page["rows"]:
        pool.figures = figures.get(pool.pk, PoolFigures(0))
    return show(
        request, "console/annotation/pools.html", project, page=page, everyone=figures[None],
        n_stuck=sum(1 for one in figures.values() if one.warning),
    )  # fmt: skip


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_change=STEERING)
def new_pool(request: HttpRequest, project: Project) -> HttpResponse:
    form = PoolForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            pool = create_pool(project=project, **form.cleaned_data)
        except BadPool as error:
            add_errors(form, error.fields)
        else:
            n = figures_of_pools(project).get(pool.pk, PoolFigures(0)).n_people
            said = f"{pool.name} is there; {n:,} {'person fits' if n == 1 else 'people fit'}."
            (messages.success if n else messages.warning)(request, said)
            return redirect("projects:pools", project.slug)
    return show(request, "console/annotation/pool.html", project, form=form, status=422 if form.is_bound else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_change=STEERING)
def one_pool(request: HttpRequest, project: Project, pool_id: int) -> HttpResponse:
    """Change a pool, or delete it and say where its tasks go."""
    pool = get_object_or_404(Pool.objects.select_related("project"), project=project, pk=pool_id)
    if request.method == "POST" and request.POST.get("do") == "delete":
        return _delete(request, pool)
    form = PoolForm(request.POST or None, initial=PoolForm.initial_of(pool))
    if request.method == "POST" and form.is_valid():
        try:
            change_pool(pool=pool, **form.cleaned_data)
        except BadPool as error:
            add_errors(form, error.fields)
        else:
            messages.success(request, "Saved. Tasks given out from now on follow it.")
            return redirect("projects:pool", project.slug, pool_id)
    people = people_of_pool(pool)
    return show(
        request, "console/annotation/pool.html", project, form=form, pool=pool,
        figures=figures_of_pools(project).get(pool.pk, PoolFigures(0)), people=people[:MOST_PEOPLE],
        n_more=max(0, len(people) - MOST_PEOPLE), n_tasks=Task.objects.filter(pool=pool).count(),
        others=[choice for choice in pool_choices(project) if choice[0] != str(pool.pk)],
        status=422 if form.is_bound else 200,
    )  # fmt: skip


def _delete(request: HttpRequest, pool: Pool) -> HttpResponse:
    slug, wanted = pool.project.slug, request.POST.get("move_to", "")
    to = None
    if wanted not in ("", EVERYONE):
        number = int(wanted) if wanted.isdigit() and len(wanted) < 19 else 0
        to = Pool.objects.filter(project=pool.project_id, pk=number).first()
        if to is None:
            messages.warning(request, "The pool to move the tasks to isn't there any more.")
            return redirect("projects:pool", slug, pool.pk)
    try:
        moved = 0
        if wanted:
            moved = empty_and_delete_pool(pool=pool, to=to)
        else:
            delete_pool(pool=pool)
    except (PoolInUse, BadPool) as error:
        messages.warning(request, f"{error}.")
        return redirect("projects:pool", slug, pool.pk)
    said = f" {moved:,} task{pluralize(moved)} moved to {to.name if to else 'everyone'}." if moved else ""
    messages.success(request, f"{pool.name} is deleted.{said}")
    return redirect("projects:pools", slug)


# --- moving tasks -------------------------------------------------------------------------------
@require_POST
@console_page(to_change=STEERING)
def assign(request: HttpRequest, project: Project) -> HttpResponse:
    """Say what moving the tasks would come to; with `confirmed`, do it. Comes from the page of tasks."""
    form, chosen = AssignForm(request.POST, project=project), FilterForm(request.POST, project=project)
    ticked = request.POST.getlist("task")[:MOST_TICKED]
    back = f"{reverse('projects:tasks', args=[project.slug])}?{_query(chosen)}"
    tasks = _chosen(project, form, chosen, ticked)
    n = tasks.count()
    if not form.is_valid() or not chosen.is_valid() or not n:
        if form.is_valid():
            form.add_error(None, "No task is chosen: tick some, or take all that are found")
        return show(request, "console/annotation/assign.html", project, form=form, back=back, status=422)
    if request.POST.get("confirmed"):
        return _move(request, project, form, tasks, back)
    data = form.cleaned_data
    figures = figures_of_pools(project)
    n_fit = len(data["people"]) if data["to"] == PEOPLE else figures.get(form.pool and form.pool.pk, PoolFigures(0)).n_people
    return show(
        request, "console/annotation/assign.html", project, form=form, back=back, n=n, target=_target(form),
        n_open=tasks.filter(state=Task.State.OPEN).count(),
        n_held=Slot.objects.filter(task__in=tasks.values("pk"), state=Slot.State.LEASED).count(), n_fit=n_fit,
        n_beyond=tasks.filter(state=Task.State.OPEN, overlap__gt=n_fit).count() if data["to"] else 0,
        hidden=[*chosen.sent, *((name, request.POST.get(name, "")) for name in form.fields), *(("task", id) for id in ticked)],
    )  # fmt: skip


def _chosen(project: Project, form: AssignForm, chosen: FilterForm, ticked: list[str]) -> QuerySet[Task]:
    if form.is_valid() and form.cleaned_data["which"] == "all":
        return chosen.tasks
    return assignable_tasks(project).filter(public_id__in=ticked)


def _move(request: HttpRequest, project: Project, form: AssignForm, tasks: QuerySet[Task], back: str) -> HttpResponse:
    target = _target(form)
    try:
        n = change_tasks(project=project, tasks=tasks, **form.changes())
    except (BadPool, BadTasks) as error:
        add_errors(form, error.fields if isinstance(error, BadPool) else {"to": str(error)})
        return show(request, "console/annotation/assign.html", project, form=form, back=back, status=422)
    priority = form.cleaned_data["priority"]
    done = [f"for {target}"] if target else []
    done += [f"at priority {priority}"] if priority is not None else []
    said = f"{n:,} task{pluralize(n)} {'is' if n == 1 else 'are'} now {' and '.join(done)}."
    messages.success(request, said if n else f"Nothing to change: they were {' and '.join(done)} already.")
    return redirect(back)


def _target(form: AssignForm) -> str:
    to = form.cleaned_data["to"]
    if to == PEOPLE:
        return ", ".join(person.username for person in form.cleaned_data["people"])
    return form.pool.name if form.pool else to


def _query(chosen: FilterForm) -> str:
    query = QueryDict(mutable=True)
    query.update(dict(chosen.sent))
    return query.urlencode()
