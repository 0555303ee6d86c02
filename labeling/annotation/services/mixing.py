"""Tasks that check an annotator, mixed in with those of the queue: gold tasks, and their own judged tasks again.

What is shown is a task of its own, made for one person at the moment it is given (`Task.repeats` says what it
shows again). So it has an id that nobody else meets, a slot that the queue never holds, and everything that any other
task has: a lease, an expiry, a place in the history, a revision. The gold task itself is never leased.
"""

import random
from datetime import datetime, timedelta

from django.db import connection
from django.db.models import Count, Exists, OuterRef, Q, QuerySet

from labeling.annotation.models import Judgement, Lease, Slot, Task, TaskCompletion, new_public_id
from labeling.annotation.queue import Taken, free_for, shuffled
from labeling.projects.models import Membership, Project
from labeling.projects.quality_settings import quality_of
from labeling.projects.text import canonical_json, sha256

MOST_REPEATABLE = 200  # of a person's judgements, the newest that are old enough


def mixes_in(project: Project) -> bool:
    settings = quality_of(project.quality)
    return bool(settings["gold_rate"] or settings["repeat_rate"])


def mixed_in(member: Membership, *, at: datetime, expires_at: datetime) -> Taken | None:
    """By the project's chances, a task that checks this member; None leaves it to the queue. In a transaction.

    Without a chance for either it costs no statement; with one it costs none on most calls, and else a fixed number.
    Where the queue has nothing for them, nothing is mixed in: a task out of nowhere would be known for what it is.
    Who is qualifying gets gold tasks until they have had as many as the round asks for.
    """
    settings = quality_of(member.project.quality)
    if member.state == Membership.State.QUALIFYING:
        _alone(member)
        if _given_in_round(member).count() >= settings["qualification"]["n"]:
            return None
        return _gold(member, settings["gold_again_days"], "ranking", at, expires_at)
    chance = random.SystemRandom().random()
    if chance >= settings["gold_rate"] + settings["repeat_rate"]:
        return None
    _alone(member)
    kind = next(iter(free_for(member).values_list("task__kind", flat=True)[:1]), None)
    if kind is None:
        return None
    if chance < settings["gold_rate"]:
        return _gold(member, settings["gold_again_days"], kind, at, expires_at)
    return _repeat(member, settings["repeat_after"], settings["repeat_hours"], at, expires_at)


def gold_tasks(project: Project) -> QuerySet[Task]:
    """The gold tasks themselves, not their showings."""
    return Task.objects.filter(project=project, purpose=Task.Purpose.GOLD, repeats=None)


def _alone(member: Membership) -> None:
    """Of two requests of one person, the second sees what the first was given."""
    # On SQLite the transaction began by taking the write lock.
    if connection.features.has_select_for_update:
        list(Membership.objects.select_for_update(no_key=True).filter(pk=member.pk).values("pk"))


def n_left_to_qualify(member: Membership) -> int:
    """Gold tasks of the round that the person has still to answer; the one they hold counts."""
    wanted = quality_of(member.project.quality)["qualification"]["n"]
    return max(0, wanted - _given_in_round(member).filter(state=Lease.State.DONE).count())


def _given_in_round(member: Membership) -> QuerySet[Lease]:
    given = Lease.objects.filter(
        annotator=member.user_id,
        task__project=member.project_id,
        task__purpose=Task.Purpose.GOLD,
        state__in=[Lease.State.OPEN, Lease.State.DONE],
    )
    return given.filter(created_at__gte=member.state_at) if member.state_at else given


def _gold(member: Membership, again_days: int, kind: str, at: datetime, expires_at: datetime) -> Taken | None:
    """The gold task that was shown least often, of those whose prompt this person hasn't met (of late)."""
    mine = Lease.objects.filter(annotator=member.user_id, task__prompt=OuterRef("prompt"))
    lately = Q(task__purpose=Task.Purpose.GOLD, created_at__lt=at - timedelta(days=again_days))
    wrote = TaskCompletion.objects.filter(task=OuterRef("pk"), completion__author=member.user_id)
    found = gold_tasks(member.project).filter(~Exists(mine.exclude(lately)), ~Exists(wrote), state=Task.State.OPEN)
    task = found.annotate(n_given=Count("repeated_by")).order_by("n_given", "?").first()
    return _show(task, Task.Purpose.GOLD, kind, member, expires_at) if task else None


def _repeat(member: Membership, after: int, hours: int, at: datetime, expires_at: datetime) -> Taken | None:
    """One of the person's own standing judgements, old enough, whose task they weren't shown again yet."""
    mine = Judgement.objects.current().filter(annotator=member.user_id, project=member.project_id)
    mine = mine.filter(task__purpose__in=Task.COLLECTED).exclude(task__kind=Task.CONVERSATION)
    newest = next(iter(mine.order_by("-pk").values_list("pk", flat=True)[after : after + 1]), None)
    if newest is None:
        return None
    again = Task.objects.filter(repeats=OuterRef("task"), purpose=Task.Purpose.REPEAT, leases__annotator=member.user_id)
    candidates = (
        mine.filter(~Exists(again), pk__lte=newest, created_at__lte=at - timedelta(hours=hours))
        .exclude(ranking=[])
        .exclude(slot__state=Slot.State.VOID)
        .exclude(task__state=Task.State.CLOSED)
        .order_by("-pk")
        .values_list("pk", flat=True)[:MOST_REPEATABLE]
    )
    pks = list(candidates)
    if not pks:
        return None
    judgement = Judgement.objects.select_related("task").get(pk=random.SystemRandom().choice(pks))
    order = list(reversed(judgement.order_shown))
    return _show(judgement.task, Task.Purpose.REPEAT, judgement.task.kind, member, expires_at, order)


def _show(
    task: Task, purpose: str, kind: str, member: Membership, expires_at: datetime, order: list[int] | None = None
) -> Taken:
    """A task like this one for this person alone, its slot taken."""
    public_id = new_public_id()
    shown = Task.objects.create(
        public_id=public_id, project=member.project, prompt_id=task.prompt_id, kind=kind, purpose=purpose, overlap=1,
        repeats=task, iteration=task.iteration, content_hash=sha256(canonical_json([task.pk, purpose, public_id])),
    )  # fmt: skip
    ids = TaskCompletion.objects.filter(task=task).order_by("completion").values_list("completion_id", flat=True)
    TaskCompletion.objects.bulk_create([TaskCompletion(task=shown, completion_id=pk) for pk in order or ids])
    slot = Slot.objects.create(
        task=shown, project=member.project, number=1, state=Slot.State.LEASED, expires_at=expires_at,
        holder=member.user,
    )  # fmt: skip
    return Taken(slot.pk, shown.pk, order or shuffled(ids))
