"""The queue of a project's free slots: who may take what next, in one statement whose cost doesn't grow with the queue.

A slot in the queue has a `position`; the lowest goes first. Tasks of higher priority come first, and of one priority
the older. A slot that comes back (its lease ran out, or its holder passed it over) goes to the front, so that tasks that
were begun get done. A slot without a position is never handed out by the queue: its task is closed, or belongs to
whoever it was made for, such as a turn of a conversation.

Where tasks want several judgements, those that a person has judged stay free for others. So that nobody walks past
their own again and again, `Membership.queue_places` remembers how far the person has come: everything up to there is
theirs already, or came back and is at the front. It holds for one `Project.queue_version`, which rises when
tasks come in or move, and for some minutes: a slot passed over because somebody was taking it just then, and whose
taking failed, is met the next time round. Remembering late costs a few steps, so it is written only now and then.
"""

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import BigIntegerField, Case, Exists, F, OuterRef, Q, QuerySet, When

from labeling.annotation.models import Lease, Slot, TaskCompletion
from labeling.database.prepared import cursor_for_prepared
from labeling.projects.models import Membership, Project

_A_PRIORITY = 2**40  # more than there will be tasks
_FRONT = 2**60  # more than all priorities together
_FRONT_ENDS = -(2**59)
MOST_PRIORITY = 1000
REMEMBERED_EVERY = 32  # tasks, on average
REMEMBERED_SECONDS = 600

# Counts and not NOT EXISTS, and the pool in the order: else PostgreSQL, before it has statistics, joins and sorts the
# whole queue to find its first row.
_CANDIDATE = """(
    SELECT s.id FROM annotation_slot s
    WHERE s.project_id = %(project)s AND s.pool_id {pool} AND s.state = 'free' AND s.position {position}
      AND (
        SELECT count(*) FROM annotation_lease l
        WHERE l.task_id = s.task_id AND l.annotator_id = %(annotator)s AND l.state IN ('open', 'done', 'skipped')) < 1
      AND (
        SELECT count(*) FROM annotation_taskcompletion tc JOIN projects_completion c ON c.id = tc.completion_id
        WHERE tc.task_id = s.task_id AND c.author_id = %(annotator)s) < 1
    ORDER BY s.pool_id, s.position, s.id LIMIT 1 {lock})"""
_TAKE = """
UPDATE annotation_slot SET state = 'leased', expires_at = %(expires_at)s, holder_id = %(annotator)s
WHERE id = COALESCE({candidates}, NULL)
RETURNING id, task_id, position, pool_id,
    (SELECT {ids} FROM annotation_taskcompletion tc WHERE tc.task_id = annotation_slot.task_id)"""
_IDS = {"sqlite": "group_concat(tc.completion_id)", "postgresql": "string_agg(tc.completion_id::text, ',')"}


@dataclass(frozen=True)
class Taken:
    slot_id: int
    task_id: int
    order: Sequence[int]  # completion ids as they are to be shown


def position_of(task_id: int, priority: int) -> int:
    return task_id - priority * _A_PRIORITY


def front_position_of(task_id: int, priority: int) -> int:
    """Before all that didn't come back, whatever its priority."""
    return position_of(task_id, priority) - _FRONT


def repositioned(priority: int) -> Case:
    """For an update: the position of slots that are in the queue, once their task has this priority."""
    return Case(
        When(position=None, then=None),
        When(position__lt=_FRONT_ENDS, then=F("task_id") + front_position_of(0, priority)),
        default=F("task_id") + position_of(0, priority),
        output_field=BigIntegerField(),
    )


def take_slot(member: Membership, expires_at: datetime) -> Taken | None:
    """Lease the next free slot that this member may be given: one statement. In a transaction.

    Tasks of pools come before those for everybody, in the order of `Membership.pool_ids`. On SQLite the transaction
    began by taking the write lock; on PostgreSQL a slot that somebody else is taking right now is passed over.
    """
    project = member.project
    places = _places(member)
    parameters: dict[str, Any] = {
        "project": project.pk,
        "annotator": member.user_id,
        "expires_at": _adapted(expires_at),
    }
    lock = "FOR UPDATE OF s SKIP LOCKED" if connection.features.has_select_for_update_skip_locked else ""
    candidates = []
    for pool in [*member.pool_ids, None]:
        of_pool = "IS NULL" if pool is None else f"= {int(pool)}"
        place = int(places.get(str(pool or ""), _FRONT_ENDS))
        parameters[f"place_{pool}"] = place
        # The place as a number of 64 bits, whichever it is.
        for position in (f"< {_FRONT_ENDS}", f"> CAST(%(place_{pool})s AS bigint)"):
            candidates.append(_CANDIDATE.format(pool=of_pool, position=position, lock=lock))
    with cursor_for_prepared() as cursor:
        cursor.execute(_TAKE.format(candidates=", ".join(candidates), ids=_IDS[connection.vendor]), parameters)
        found = cursor.fetchone()
    if found is None:
        return None
    slot_id, task_id, position, pool, completions = found
    if position > _FRONT_ENDS and random.random() < 1 / REMEMBERED_EVERY:
        # One less: whatever of this task the queue holds is no longer the person's either, but costs one step.
        member.queue_places = {
            "version": project.queue_version, "since": time.time(), **places, str(pool or ""): position - 1,
        }  # fmt: skip
        Membership.objects.filter(pk=member.pk).update(queue_places=member.queue_places)
    return Taken(slot_id, task_id, shuffled(map(int, completions.split(",") if completions else ())))


def shuffled(completions: Iterable[int]) -> list[int]:
    """In an order that nobody can foresee."""
    order = sorted(completions)
    random.SystemRandom().shuffle(order)
    return order


def free_for(member: Membership) -> QuerySet[Slot]:
    """Slots that the queue holds for this member, in no order; the rules of `take_slot` in the words of the ORM."""
    places = _places(member)
    ahead = Q()
    for pool in [*member.pool_ids, None]:
        place = int(places.get(str(pool or ""), _FRONT_ENDS))
        ahead |= Q(pool=pool) & (Q(position__lt=_FRONT_ENDS) | Q(position__gt=place))
    theirs = Lease.objects.filter(
        task=OuterRef("task"),
        annotator=member.user_id,
        state__in=[Lease.State.OPEN, Lease.State.DONE, Lease.State.SKIPPED],
    )
    wrote = TaskCompletion.objects.filter(task=OuterRef("task"), completion__author=member.user_id)
    return Slot.objects.filter(ahead, ~Exists(theirs), ~Exists(wrote), project=member.project_id, state=Slot.State.FREE)


def _places(member: Membership) -> dict[str, Any]:
    places = member.queue_places
    is_good = places.get("version") == member.project.queue_version
    return places if is_good and time.time() - places["since"] < REMEMBERED_SECONDS else {}


def _adapted(at: datetime) -> Any:
    return connection.ops.adapt_datetimefield_value(at)


def reopen_queue(project: Project) -> None:
    """Tasks came in or moved, so nobody is past them. In the transaction that moves them, as its last statement."""
    Project.objects.filter(pk=project.pk).update(queue_version=F("queue_version") + 1)


def free_slots(slots: QuerySet[Slot]) -> int:
    """Put slots back, at the front of the queue where they were in it. Returns how many."""
    front = Case(
        When(position__gt=_FRONT_ENDS, then=F("position") - _FRONT),
        default=F("position"),
        output_field=BigIntegerField(),
    )
    return slots.update(state=Slot.State.FREE, expires_at=None, holder=None, position=front)
