"""Leases: handing a task to one annotator for a while. The database decides every race."""

import random
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import OuterRef, QuerySet, Subquery
from django.utils.timezone import now
from django.utils.translation import gettext as _

from labeling.accounts.models import User
from labeling.annotation.errors import LeaseLost
from labeling.annotation.models import Lease, Slot, Task, TaskCompletion, new_public_id
from labeling.annotation.queue import Taken, free_slots, take_slot
from labeling.annotation.selectors import cap_reached, member_at_work
from labeling.annotation.services.mixing import mixed_in
from labeling.database.prepared import insert_if_free, prepared
from labeling.live.services import notify
from labeling.projects.models import Completion, Membership, Project, Prompt
from labeling.projects.selectors import current_guideline
from labeling.projects.text import canonical_json, sha256

MAX_OPEN_LEASES = 3  # the one being judged, the next one prefetched, one for a second tab


def take_lease(
    *, project: Project, annotator: User, holding: Iterable[int] = (), at: datetime | None = None
) -> Lease | None:
    """The annotator's next task: an open lease not among those they say they hold, else a new one.

    Returns None where nothing is left for them, they hold MAX_OPEN_LEASES already, they have seen as many tasks
    today as the project allows, or the project or their membership is paused. Who is qualifying gets gold tasks alone.
    A new lease takes four statements, whatever is in the queue: who they are, take a slot, the lease, and what to show;
    some more, of a fixed number, where `mixed_in` gives one.
    """
    holding = set(holding)
    member = member_at_work(annotator, project, holding)
    lease = give_lease(member, holding, at or now())
    return lease and with_texts(lease, member.project)


def give_lease(member: Membership | None, holding: set[int], at: datetime) -> Lease | None:
    """All of `take_lease` that writes, for who was found to be at work; in the caller's transaction, if there is one."""
    if member is None:
        return None
    if member.n_open > member.n_held:
        if lease := _held_lease(member, holding, at):
            return lease
        member = member_at_work(member.user, member.project, holding)
    is_open = member.project.state == Project.State.OPEN and member.state != Membership.State.PAUSED
    if not is_open or member.n_open >= MAX_OPEN_LEASES:
        return None
    for _attempt in range(20):
        with transaction.atomic(savepoint=False):
            if _cap_reached_for_good(member, at):
                return None
            expires_at = at + timedelta(seconds=member.project.lease_seconds)
            taken = mixed_in(member, at=at, expires_at=expires_at)
            if taken is None and member.state == Membership.State.ACTIVE:
                taken = take_slot(member, expires_at=expires_at)
            if taken is not None:
                if lease := _lease_of(taken, member, expires_at):
                    return lease
                # Another request of the same person took another slot of this very task.
                free_slots(Slot.objects.filter(pk=taken.slot_id))
                continue
        if not free_expired_leases(project=member.project, at=at):
            return None
    return None


def _held_lease(member: Membership, holding: set[int], at: datetime) -> Lease | None:
    """An open lease of theirs that they don't say they hold. One that ran out is given back on the way."""
    found = Lease.objects.filter(annotator=member.user_id, slot__project=member.project_id, state=Lease.State.OPEN)
    found = found.exclude(task__kind=Task.CONVERSATION).exclude(pk__in=holding)
    for lease in found.select_related("task__prompt", "guideline").order_by("pk"):
        if lease.expires_at > at:
            lease.task.project = member.project
            return lease
        # Without this, leases that ran out would keep their own holder from work until the sweeper comes.
        free_expired_leases(lease=lease, at=at)
    return None


def _cap_reached_for_good(member: Membership, at: datetime) -> bool:
    """`cap_reached`, while no other request of the same person can be given a task. In a transaction."""
    if not member.project.bench["daily_cap"]:
        return False
    # On SQLite the transaction began by taking the write lock.
    if connection.features.has_select_for_update:
        list(Membership.objects.select_for_update().filter(pk=member.pk))
    return cap_reached(member.user, member.project, at)


def _lease_of(taken: Taken, member: Membership, expires_at: datetime) -> Lease | None:
    lease = Lease(
        slot_id=taken.slot_id,
        task_id=taken.task_id,
        annotator=member.user,
        guideline=member.project.guideline,
        order_shown=taken.order,
        expires_at=expires_at,
    )
    return lease if insert_if_free(lease) else None


def with_texts(lease: Lease, project: Project) -> Lease:
    """A lease just given, with its task and all that the page shows of it: one statement, none if that is known."""
    if not Lease.task.is_cached(lease):
        found = _shown_of(task=lease.task_id)
        lease.task = found[0].task if found else Task.objects.select_related("prompt").get(pk=lease.task_id)
        lease.task.project = project
        lease.texts = {row.completion_id: row.text for row in found}
    return lease


@prepared
def _shown_of(task: int) -> QuerySet[TaskCompletion]:
    """All that the page shows of a task: a row a completion, each with the task and its prompt."""
    # Not joined: PostgreSQL, before it has statistics, would read all completions there are for it.
    text = Completion.objects.filter(pk=OuterRef("completion")).values("content")
    return (
        TaskCompletion.objects.filter(task=task).select_related("task__prompt").annotate(text=Subquery(text)).order_by("pk")
    )


def open_leased_task(
    *,
    project: Project,
    prompt: Prompt,
    completion_ids: Sequence[int],
    annotator: User,
    kind: str,
    order: Sequence[int] | None = None,
    at: datetime | None = None,
) -> Lease:
    """Make a task for this annotator alone and lease it to them at once, in one transaction.

    `order` is the order shown, else random. Never handed out by the queue if `kind` is that of conversations.
    """
    at = at or now()
    ids = list(order) if order is not None else random.SystemRandom().sample(list(completion_ids), len(completion_ids))
    public_id = new_public_id()  # the same texts again are another task: the person was asked twice
    with transaction.atomic():
        task = Task.objects.create(
            public_id=public_id, project=project, prompt=prompt, kind=kind, overlap=1,
            content_hash=sha256(canonical_json([prompt.pk, sorted(ids), kind, annotator.pk, public_id])),
        )  # fmt: skip
        TaskCompletion.objects.bulk_create([TaskCompletion(task=task, completion_id=pk) for pk in ids])
        expires_at = at + timedelta(seconds=project.lease_seconds)
        slot = Slot.objects.create(
            task=task, project=project, number=1, state=Slot.State.LEASED, expires_at=expires_at, holder=annotator
        )
        return Lease.objects.create(
            slot=slot, task=task, annotator=annotator, guideline=current_guideline(project), order_shown=ids,
            expires_at=expires_at,
        )  # fmt: skip


def renew_lease(*, lease: Lease, at: datetime | None = None) -> datetime:
    """Keep the lease for another while; returns the new expiry. Raises LeaseLost if it isn't open any more."""
    at = at or now()
    expires_at = at + timedelta(seconds=lease.task.project.lease_seconds)
    with transaction.atomic():
        held = Slot.objects.filter(
            pk=lease.slot_id, state=Slot.State.LEASED, holder=lease.annotator_id, leases__pk=lease.pk
        )
        still_open = Lease.objects.filter(pk=lease.pk, state=Lease.State.OPEN)
        if not still_open.update(expires_at=expires_at):
            raise LeaseLost(_("This task was given back: its lease ran out or it was submitted elsewhere"))
        Slot.objects.filter(pk__in=held.values("pk")).update(expires_at=expires_at)
    return expires_at


def save_draft(*, lease: Lease, draft: dict[str, Any]) -> None:
    """Keep what the annotator has so far. Kept on an expired lease too, so that nothing typed is lost."""
    open_or_expired = Lease.objects.filter(pk=lease.pk, state__in=[Lease.State.OPEN, Lease.State.EXPIRED])
    if not open_or_expired.update(draft=draft):
        raise LeaseLost(_("This task is closed: it was submitted or skipped, perhaps in another tab"))


def skip_lease(*, lease: Lease, reason: str = "", note: str = "", at: datetime | None = None) -> None:
    """Give the task back; it isn't offered to this annotator again. Raises LeaseLost if it isn't open.

    A `reason` that is none of `Lease.SkipReason` is kept as a note.
    """
    at = at or now()
    code = reason if reason in Lease.SkipReason.values else ""
    if not code:
        note = ": ".join(filter(None, [reason, note]))
    with transaction.atomic():
        closed = Lease.objects.filter(pk=lease.pk, state=Lease.State.OPEN).update(
            state=Lease.State.SKIPPED, skip_reason=code, skip_note=note[:300], closed_at=at
        )
        if not closed:
            raise LeaseLost(_("This task is closed already: it was submitted, skipped or given back"))
        free_slots(Slot.objects.filter(pk=lease.slot_id, state=Slot.State.LEASED))
        notify(lease.task.project.live_group, "queue")


def free_expired_leases(
    *, lease: Lease | None = None, project: Project | None = None, at: datetime | None = None
) -> int:
    """Put slots whose lease ran out (all, of a project, or the one given) back in the queue. Returns how many."""
    at = at or now()
    with transaction.atomic():
        overdue = Lease.objects.filter(state=Lease.State.OPEN, expires_at__lte=at).select_related("slot")
        if lease is not None:
            overdue = overdue.filter(pk=lease.pk)
        if project is not None:
            overdue = overdue.filter(slot__project=project)
        if connection.features.has_select_for_update_skip_locked:
            # A holder who is submitting right now keeps it, and a slot that is being moved comes back later; waiting
            # for them could be waiting for one another.
            overdue = overdue.select_for_update(skip_locked=True, no_key=True, of=("self", "slot"))
        expired = list(overdue.order_by("pk").only("slot", "slot__state"))
        freed = 0
        for found in expired:
            # Conditions again: a renewal or a submission may have come in between.
            if Lease.objects.filter(pk=found.pk, state=Lease.State.OPEN, expires_at__lte=at).update(
                state=Lease.State.EXPIRED, closed_at=at
            ):
                freed += free_slots(Slot.objects.filter(pk=found.slot_id, state=Slot.State.LEASED))
    return freed
