"""Changing who may be given tasks that are there, and which of them go first."""

from typing import Any

from django.db import IntegrityError, connection, transaction
from django.db.models import Q, QuerySet

from labeling.annotation.errors import BadTasks
from labeling.annotation.models import Pool, Slot, Task
from labeling.annotation.queue import MOST_PRIORITY, reopen_queue, repositioned
from labeling.live.services import notify
from labeling.projects.models import Project

CHUNK = 2000  # tasks in one transaction, so that whoever submits one of them waits for a moment only


def change_tasks(*, project: Project, tasks: QuerySet[Task], **changes: Any) -> int:
    """Give these tasks another `pool` (None: everyone), `priority`, or both. Returns how many weren't so already.

    Leases stay; where one runs out, its task comes back to its new place. What came back before stays at the front.
    Many tasks are moved in several transactions, each of which leaves them whole: broken off, do it again.

    Raises BadTasks for a pool of another project or one that is gone, and for a priority beyond 1000.
    """
    assert changes.keys() <= {"pool", "priority"}, changes
    pool: Pool | None = changes.get("pool")
    if pool is not None and pool.project_id != project.pk:
        raise BadTasks("This pool is not one of the project")
    if abs(changes.get("priority", 0)) > MOST_PRIORITY:
        raise BadTasks(f"priority must lie between -{MOST_PRIORITY} and {MOST_PRIORITY}")
    others = Q()
    for name, value in changes.items():
        others |= ~Q(**{name: value})
    found = list(tasks.filter(others, project=project).order_by("pk").values_list("pk", flat=True)) if changes else []
    of_slots: dict[str, Any] = {"pool": pool} if "pool" in changes else {}
    if "priority" in changes:
        of_slots["position"] = repositioned(changes["priority"])
    n = 0
    for start in range(0, len(found), CHUNK):
        try:
            n += _change(project, found[start : start + CHUNK], changes, of_slots)
        except IntegrityError:
            raise BadTasks("This pool was deleted meanwhile: choose another") from None
    if n:
        notify(project.live_group, "queue")
    return n


@transaction.atomic
def _change(project: Project, pks: list[int], changes: dict[str, Any], of_slots: dict[str, Any]) -> int:
    slots = Slot.objects.filter(task__in=pks)
    if connection.features.has_select_for_update:
        # In the order of a submit: slots before tasks, each by id. All slots, so that setting aside, which adds one
        # with the pool of its task, is over or hasn't begun.
        list(slots.select_for_update(no_key=True).order_by("pk").values_list("pk"))
    slots.update(**of_slots)
    n = Task.objects.filter(pk__in=pks).update(**changes)
    reopen_queue(project)
    return n
