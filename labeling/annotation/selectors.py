"""What a person may see of tasks, leases and judgements."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.utils.timezone import now

from labeling.accounts.models import User
from labeling.accounts.roles import READING
from labeling.annotation.models import Judgement, Lease, PromptReport, SetAside, Slot, Task
from labeling.database.prepared import prepared
from labeling.projects.models import Membership, Project, Prompt
from labeling.projects.selectors import projects_of
from labeling.web.remembering import remembered, total

KEYS = "abcdefghijklmnopqrstuvwxyz"


def leases_held_by(user: User) -> QuerySet[Lease]:
    """The person's own leases in projects they are still a member of."""
    return Lease.objects.filter(annotator=user, task__project__in=projects_of(user)).select_related(
        "task__prompt", "task__project", "guideline", "slot"
    )


@prepared
def lease_of(user: int, lease: int) -> QuerySet[Lease]:
    """The person's own lease of this id, if they are still a member of its project; `role` says as what."""
    membership = Membership.objects.filter(user=user, project=OuterRef("slot__project"))
    return (
        Lease.objects.filter(pk=lease, annotator=user)
        .select_related("task__project", "guideline")
        .annotate(role=Subquery(membership.values("role")[:1]))
        .filter(role__isnull=False)
    )


def member_at_work(
    user: User, project: Project, holding: Collection[int] = (), *, closing: int = 0
) -> Membership | None:
    """The person's membership with its project, and what decides about the next task.

    `n_open`: open leases; `n_held`: those of them that are among `holding` (of which only the first 8 are looked at).
    The lease `closing` counts as closed already.
    """
    held = {f"held_{n}": pk for n, pk in enumerate([*list(holding)[:8], *[0] * 8][:8])}
    found = _member_at_work(user=user.pk, project=project.pk, closing=closing, **held)
    return found[0] if found else None


@prepared
def _member_at_work(
    user: int, project: int, closing: int, held_0: int, held_1: int, held_2: int, held_3: int, held_4: int, held_5: int,
    held_6: int, held_7: int,
) -> QuerySet[Membership]:  # fmt: skip
    held = [held_0, held_1, held_2, held_3, held_4, held_5, held_6, held_7]
    mine = Lease.objects.filter(annotator=user, slot__project=project, state=Lease.State.OPEN)
    mine = mine.exclude(task__kind=Task.CONVERSATION).exclude(pk=closing).order_by().values("annotator")
    return (
        Membership.objects.filter(user=user, project=project)
        .select_related("project__guideline", "user")
        .annotate(
            n_open=Coalesce(Subquery(mine.annotate(n=Count("pk")).values("n")), 0),
            n_held=Coalesce(Subquery(mine.filter(pk__in=held).annotate(n=Count("pk")).values("n")), 0),
        )
    )


def judgements_by(user: User) -> QuerySet[Judgement]:
    """The person's own judgements, newest first, superseded ones left out."""
    return (
        Judgement.objects.current()
        .filter(annotator=user, project__in=projects_of(user))
        .select_related("task__prompt", "project", "lease")
        .order_by("-pk")
    )


def judgements_visible_to(user: User, project: Project) -> QuerySet[Judgement]:
    """All judgements of the project for those who read its console, else one's own."""
    found = Judgement.objects.current().filter(project=project).select_related("task", "annotator", "slot")
    if projects_of(user, roles=READING).filter(pk=project.pk).exists():
        return found
    return found.filter(annotator=user)


def standing_judgements(project: Project) -> QuerySet[Judgement]:
    """What counts: not superseded, not set aside, and collected for the data rather than to check an annotator."""
    set_aside = SetAside.objects.filter(judgement__lease=OuterRef("lease"), restored_at=None)
    found = Judgement.objects.current().filter(project=project, task__purpose__in=Task.COLLECTED)
    return found.filter(~Exists(set_aside))


def prompts_for_gold(project: Project) -> QuerySet[Prompt]:
    """Prompts written for a gold task alone: brought by no import, and nothing but gold tasks is over them."""
    over = Task.objects.filter(prompt=OuterRef("pk"))
    gold = Task.objects.filter(project=project, purpose=Task.Purpose.GOLD, repeats=None)
    found = Prompt.objects.filter(pk__in=gold.values("prompt"), batch=None)
    return found.filter(~Exists(over.filter(purpose__in=Task.COLLECTED)))


def prompts_for_data(project: Project) -> QuerySet[Prompt]:
    """Prompts to sample, to make tasks of and to begin conversations from: all but those written for gold tasks alone.

    A policy that was trained on one of these, or an annotator who met it in an ordinary task, would spoil the check.
    Nor those that were removed: nothing is asked about them any more.
    """
    found = Prompt.objects.filter(project=project).exclude(pk__in=prompts_for_gold(project).values("pk"))
    return found.exclude(pk__in=prompts_removed(project))


def prompts_removed(project: Project) -> QuerySet[Any, int]:
    """Ids of the prompts that may not be trained on any more. A reverse relation: withdrawals belong to an app above."""
    return project.withdrawals.filter(undone_at=None, prompt__isnull=False).values_list("prompt", flat=True)


def keys_of(order_shown: list[int]) -> dict[str, int]:
    """Key on the page to completion id, in the order shown."""
    return dict(zip(KEYS, order_shown, strict=False))


@dataclass(frozen=True)
class ShownCompletion:
    """What an annotator may know of a completion: its key and its text, never its model."""

    key: str
    content: str


def shown_messages(lease: Lease) -> list[dict[str, str]]:
    """The prompt as an annotator may see it: without the system prompt where the project hides it."""
    hides = lease.task.project.bench["system_prompts"] == "hidden"
    return [message for message in lease.task.prompt.messages if not (hides and message["role"] == "system")]


def shown_completions(lease: Lease) -> list[ShownCompletion]:
    return [ShownCompletion(key, lease.texts[pk]) for key, pk in keys_of(lease.order_shown).items()]


def n_open_reports(project: Project) -> int:
    """Prompts with an open report: one query on an index, once a request."""
    if "n_open_reports" not in project.__dict__:
        found = PromptReport.objects.filter(project=project, state=PromptReport.State.OPEN)
        project.n_open_reports = found.values("prompt").distinct().count()
    return project.n_open_reports


@dataclass(frozen=True)
class QueueFigures:
    """How far a project is, in judgements wanted (slots). What checks annotators is no part of it."""

    n_tasks: int
    n_tasks_done: int
    n_slots: int
    n_free: int
    n_leased: int
    n_done: int
    n_surplus: int


def queue_figures(project: Project) -> QueueFigures:
    """Three statements; of large projects some seconds old."""
    return QueueFigures(**remembered(f"queue-figures:{project.pk}", lambda: _counted_queue(project), n=total))


def _counted_queue(project: Project) -> dict[str, int]:
    # A task has as many slots as it wants judgements, beside those void; so nobody goes through all slots here.
    is_there = ~Q(state=Task.State.CLOSED)
    tasks = Task.objects.filter(project=project, purpose__in=Task.COLLECTED).aggregate(
        n_tasks=Count("pk", filter=is_there),
        n_tasks_done=Count("pk", filter=Q(state=Task.State.DONE)),
        n_slots=Coalesce(Sum("overlap", filter=is_there), 0),
        n_done=Coalesce(Sum("n_judged", filter=is_there), 0),
    )
    leased = Slot.objects.filter(project=project, state=Slot.State.LEASED, task__purpose__in=Task.COLLECTED)
    n_leased = leased.exclude(task__state=Task.State.CLOSED).count()
    return {
        **tasks,
        "n_leased": n_leased,
        "n_free": tasks["n_slots"] - tasks["n_done"] - n_leased,
        "n_surplus": standing_judgements(project).filter(slot=None).count(),
    }


@dataclass(frozen=True)
class OwnFigures:
    """One annotator's day in one project."""

    n_today: int
    seconds_median: float | None


def day_of(at: datetime) -> datetime:
    """When the day (UTC) of this moment began."""
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def cap_reached(user: User, project: Project, at: datetime | None = None) -> bool:
    """Whether the person has been given as many tasks today as the project allows. No query where it sets no cap."""
    cap = project.bench["daily_cap"]
    if not cap:
        return False
    given = Lease.objects.filter(annotator=user, task__project=project, created_at__gte=day_of(at or now()))
    return given.values("task").distinct().count() >= cap


def own_figures(user: User, project: Project, at: datetime | None = None) -> OwnFigures:
    at = at or now()
    mine = Judgement.objects.filter(annotator=user, project=project, created_at__gte=day_of(at), supersedes=None)
    seconds = sorted(mine.exclude(seconds=None).order_by("-pk").values_list("seconds", flat=True)[:200])
    return OwnFigures(mine.count(), seconds[len(seconds) // 2] if seconds else None)
