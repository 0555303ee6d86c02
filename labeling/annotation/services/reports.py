"""Prompts that annotators report, and what leads do about it."""

from collections.abc import Collection

from django.db import transaction
from django.utils.timezone import now

from labeling.accounts.models import User
from labeling.annotation.models import Lease, PromptReport, Slot, Task
from labeling.annotation.queue import position_of, reopen_queue
from labeling.live.services import notify
from labeling.projects.models import Project, Prompt


def report_prompt(*, lease: Lease, reason: str, note: str = "") -> PromptReport:
    """Tell the leads that something is wrong with the prompt of this task. The same person's report again changes it.

    `reason` is one of `PromptReport.Reason`. The task stays with the annotator: skipping it is a call of its own.
    """
    with transaction.atomic():
        report, _ = PromptReport.objects.update_or_create(
            prompt_id=lease.task.prompt_id,
            reporter=lease.annotator,
            defaults={
                "project": lease.task.project, "reason": reason, "note": note[:2000],
                "state": PromptReport.State.OPEN, "settled_by": None, "settled_at": None,
            },
        )  # fmt: skip
        notify(lease.task.project.live_group, "report")
    return report


def settle_report(*, report: PromptReport, by: User, closes_tasks: bool) -> int:
    """Put all open reports of the prompt aside, and with `closes_tasks` its tasks too. Returns how many were closed."""
    with transaction.atomic():
        PromptReport.objects.filter(prompt=report.prompt_id, state=PromptReport.State.OPEN).update(
            state=PromptReport.State.CLOSED_TASKS if closes_tasks else PromptReport.State.KEPT,
            settled_by=by,
            settled_at=now(),
        )
        closed = close_tasks_of(prompt=report.prompt) if closes_tasks else 0
        notify(report.project.live_group, "report")
    return closed


def close_tasks_of(*, prompt: Prompt) -> int:
    """Hand out no more tasks over this prompt; what is being judged is still taken. Returns how many were open."""
    open_tasks = Task.objects.filter(prompt=prompt, state=Task.State.OPEN)
    Slot.objects.filter(task__in=open_tasks).update(position=None)
    return open_tasks.update(state=Task.State.CLOSED)


def reopen_tasks(*, project: Project, task_ids: Collection[int]) -> int:
    """Hand out again those of these tasks that are closed. Returns how many."""
    with transaction.atomic():
        closed = Task.objects.filter(project=project, pk__in=task_ids, state=Task.State.CLOSED)
        tasks = list(closed.order_by("pk"))
        for task in tasks:
            Slot.objects.filter(task=task).exclude(state__in=[Slot.State.DONE, Slot.State.VOID]).update(
                position=position_of(task.pk, task.priority)
            )
        closed.update(state=Task.State.OPEN)
        if tasks:
            reopen_queue(project)
    return len(tasks)
