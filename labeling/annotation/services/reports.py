"""Prompts that annotators report, and what leads do about it."""

from django.db import transaction
from django.utils.timezone import now

from labeling.accounts.models import User
from labeling.annotation.models import Lease, PromptReport, Slot, Task
from labeling.live.services import notify
from labeling.projects.models import Prompt


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
