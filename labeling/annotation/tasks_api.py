"""Tasks over REST, for those who bring them in: making them, and saying who gets them and which go first."""

from typing import Any

from django.db.models import Q, QuerySet
from django.http import Http404
from rest_framework.request import Request
from rest_framework.response import Response

from labeling.accounts.roles import TRAINING
from labeling.annotation.errors import BadPool, BadTasks
from labeling.annotation.models import Task
from labeling.annotation.pools import assignable_tasks, tasks_like
from labeling.annotation.pools_api import accounts_named, pool_of, shown
from labeling.annotation.selectors import prompts_for_data
from labeling.annotation.serializers import (
    AssignedSerializer,
    AssignmentFields,
    AssignSerializer,
    NewTasksSerializer,
    TaskSerializer,
    TasksMadeSerializer,
    TasksWhere,
)
from labeling.annotation.services import change_tasks, create_tasks_for_prompts, pool_of_people
from labeling.projects.api_access import ApiView, refuse_low_role
from labeling.projects.models import Project, Prompt
from labeling.web.api import PAGE_PARAMETERS, Refused, describe, page_of, query, wrong_fields

FILTERS = [
    query("state", description="of these only", enum=Task.State.values),
    query("pool", description="id of a pool, or everyone"),
    query("tag", description="of the prompt"),
    query("iteration", int),
    query("batch", description="id of the import that brought the prompt"),
]


class TasksView(ApiView):
    @describe(
        "list_tasks", tag="annotation", answers={200: page_of(TaskSerializer)}, errors=[400, 404],
        parameters=[*PAGE_PARAMETERS, *FILTERS],
    )  # fmt: skip
    def get(self, request: Request, slug: str) -> Response:
        """The tasks of the queue, newest first. What checks annotators is not among them."""
        project = self.project(slug, TRAINING)
        sent: dict[str, Any] = {
            name: value for name in TasksWhere().fields if (value := request.query_params.get(name))
        }
        if sent.get("pool") == "everyone":
            sent["pool"] = None
        if (number := sent.get("iteration", "")).isascii() and number.isdigit() and len(number) < 10:
            sent["iteration"] = int(number)
        where = TasksWhere(data=sent)
        where.is_valid(raise_exception=True)
        return self.page(_tasks_where(project, where.validated_data), TaskSerializer)

    @describe(
        "create_tasks", tag="annotation", body=NewTasksSerializer, answers={201: TasksMadeSerializer}, errors=[404]
    )
    def post(self, request: Request, slug: str) -> Response:
        """Open a task over each of the prompts, by default those that have none. A task that is there is left alone."""
        project = self.project(slug, TRAINING)
        wanted = self.parsed(NewTasksSerializer)
        named = wanted.pop("prompts", None)
        prompts = None if named is None else _prompts_named(project, named)
        wanted = _with_pool(project, wanted)
        try:
            created, too_few = create_tasks_for_prompts(project=project, prompts=prompts, **wanted)
        except BadTasks as error:
            raise Refused(error.code, str(error)) from None
        answer = {"created": created, "prompts_without_enough_completions": too_few}
        return Response(answer | ({"pool": shown(wanted["pool"])} if wanted.get("pool") else {}), status=201)


class AssignView(ApiView):
    @describe("assign_tasks", tag="annotation", body=AssignSerializer, answers={200: AssignedSerializer}, errors=[404])
    def post(self, request: Request, slug: str) -> Response:
        """Give tasks that are there to a pool, to people by name or to everyone, or another priority, or both.

        Name the tasks or say what they are like. Open leases stay with who holds them.
        """
        project = self.project(slug, TRAINING)
        sent = self.parsed(AssignSerializer)
        if ("tasks" in sent) == ("where" in sent):
            raise wrong_fields({"tasks": "Say which: ids under tasks, or what they are like under where"})
        if "tasks" in sent:
            found = _tasks_named(project, sent.pop("tasks"))
        else:
            found = _tasks_where(project, {"state": Task.State.OPEN, **sent.pop("where")})
        return Response(_assign(project, found, sent))


class TaskView(ApiView):
    @describe("get_task", tag="annotation", answers={200: TaskSerializer}, errors=[404])
    def get(self, request: Request, task_id: str) -> Response:
        return Response(TaskSerializer(self._task(task_id)).data)

    @describe("change_task", tag="annotation", body=AssignmentFields, answers={200: TaskSerializer}, errors=[404])
    def patch(self, request: Request, task_id: str) -> Response:
        """Give the task to a pool, to people by name or to everyone (`"pool": null`), or another priority."""
        task = self._task(task_id)
        _assign(task.project, Task.objects.filter(pk=task.pk), self.parsed(AssignmentFields, partial=True))
        task.refresh_from_db()
        return Response(TaskSerializer(task).data)

    def _task(self, task_id: str) -> Task:
        task = Task.objects.filter(project__in=self.projects(), public_id=task_id).select_related("project").first()
        if task is None:
            raise Http404
        # Before it is said whether the queue has it: who judges must not learn which tasks check them.
        refuse_low_role(self.projects().get(pk=task.project_id).role, TRAINING)
        if not assignable_tasks(task.project).filter(pk=task.pk).exists():
            raise Http404
        return task


def _assign(project: Project, tasks: QuerySet[Task], sent: dict[str, Any]) -> dict[str, Any]:
    changes = _with_pool(project, sent)
    if not changes:
        raise wrong_fields({"pool": "Say what is to change: pool, people or priority"})
    matched = tasks.count()
    try:
        changed = change_tasks(project=project, tasks=tasks, **changes)
    except BadTasks as error:
        raise wrong_fields({"pool": str(error)}) from None
    pool = changes.get("pool")
    return {"matched": matched, "changed": changed, "pool": shown(pool) if pool else None}


def _with_pool(project: Project, sent: dict[str, Any]) -> dict[str, Any]:
    """`sent` with the pool itself in place of its id, or of the people."""
    changes = dict(sent)
    people = changes.pop("people", None)
    if people is not None and "pool" in changes:
        raise wrong_fields({"people": "Give a pool or people, not both"})
    if people is not None:
        try:
            changes["pool"] = pool_of_people(project=project, people=accounts_named(people))
        except BadPool as error:
            raise wrong_fields(error.fields) from None
    elif changes.get("pool") is not None:
        changes["pool"] = pool_of(project, changes["pool"])
    return changes


def _tasks_where(project: Project, where: dict[str, Any]) -> QuerySet[Task]:
    where = dict(where)
    if where.get("pool") is not None:
        where["pool"] = pool_of(project, where["pool"])
    if "batch" in where:
        id = where["batch"]
        if not (id.isascii() and id.isdigit() and len(id) < 19 and project.imports.filter(pk=int(id)).exists()):
            raise wrong_fields({"batch": f"{id!r} is not an import of this project"})
        where["batch"] = int(id)
    return tasks_like(project, **where)


def _tasks_named(project: Project, ids: list[str]) -> QuerySet[Task]:
    found = assignable_tasks(project).filter(public_id__in=ids)
    known = set(found.values_list("public_id", flat=True))
    if unknown := [id for id in ids if id not in known]:
        raise wrong_fields({"tasks": f"{len(unknown)} are not tasks of this project, such as {unknown[0]!r}"})
    return found


def _prompts_named(project: Project, names: list[str]) -> list[Prompt]:
    """Prompts by the id they came with, else by our own."""
    found: dict[int, Prompt] = {}
    unknown: list[str] = []
    for start in range(0, len(names), 500):
        part = set(names[start : start + 500])
        numbers = {name for name in part if name.isascii() and name.isdigit() and len(name) < 19}
        rows = prompts_for_data(project).filter(Q(external_id__in=part) | Q(pk__in=map(int, numbers)))
        rows = list(rows.only("pk", "external_id", "project_id"))
        given = {row.external_id for row in rows} & part
        chosen = [row for row in rows if row.external_id in part or (str(row.pk) in part and str(row.pk) not in given)]
        found.update({row.pk: row for row in chosen})
        unknown += part - given - {str(row.pk) for row in rows}
    if unknown:
        raise wrong_fields(
            {"prompts": f"{len(unknown)} are not in this project, or were written for gold tasks, such as {sorted(unknown)[0]!r}"}
        )
    return list(found.values())
