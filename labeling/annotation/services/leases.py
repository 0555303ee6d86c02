"""Leases: handing a task to one annotator for a while. The database decides every race."""

import random
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.db.models import Exists, OuterRef
from django.utils.timezone import now
from django.utils.translation import gettext as _

from labeling.accounts.models import User
from labeling.annotation.errors import LeaseLost
from labeling.annotation.models import Lease, Slot, Task, TaskCompletion, new_public_id
from labeling.annotation.selectors import cap_reached
from labeling.live.services import notify
from labeling.projects.models import Membership, Project, Prompt
from labeling.projects.selectors import current_guideline
from labeling.projects.text import canonical_json, sha256

MAX_OPEN_LEASES = 3  # the one being judged, the next one prefetched, one for a second tab
CLOSED_TO_ANNOTATOR = (Lease.State.OPEN, Lease.State.DONE, Lease.State.SKIPPED)


def take_lease(
    *, project: Project, annotator: User, holding: Iterable[int] = (), at: datetime | None = None
) -> Lease | None:
    """The annotator's next task: an open lease not among those they say they hold, else a new one.

    Returns None where nothing is left for them, they hold MAX_OPEN_LEASES already, they have seen as many tasks
    today as the project allows, or the project is paused.
    """
    at = at or now()
    holding = set(holding)
    open_leases = list(
        Lease.objects.filter(annotator=annotator, task__project=project, state=Lease.State.OPEN)
        .exclude(task__kind=Task.CONVERSATION)
        .order_by("pk")
    )
    for lease in open_leases:
        if lease.pk not in holding:
            if lease.expires_at > at:
                return lease
            # Without this, leases that ran out would keep their own holder from work until the sweeper comes.
            free_expired_leases(lease=lease, at=at)
    open_leases = [lease for lease in open_leases if lease.pk in holding]
    if project.state != Project.State.OPEN or len(open_leases) >= MAX_OPEN_LEASES:
        return None
    guideline = current_guideline(project)
    for _attempt in range(20):
        try:
            with transaction.atomic():
                if _cap_reached_for_good(annotator, project, at):
                    return None
                slot = _next_slot(project, annotator, at)
                if slot is None:
                    return None
                return _lease_slot(slot, annotator, guideline, project.lease_seconds, at)
        except (IntegrityError, _SlotBusy):
            # Another request of the same person took another slot of this very task, or the holder of a
            # lease that ran out is submitting right now.
            continue
    return None


class _SlotBusy(Exception):
    pass


def _cap_reached_for_good(annotator: User, project: Project, at: datetime) -> bool:
    """`cap_reached`, while no other request of the same person can be given a task. In a transaction."""
    if not project.bench["daily_cap"]:
        return False
    # On SQLite the transaction began by taking the write lock.
    if connection.features.has_select_for_update:
        list(Membership.objects.select_for_update().filter(user=annotator, project=project))
    return cap_reached(annotator, project, at)


def _next_slot(project: Project, annotator: User, at: datetime) -> Slot | None:
    theirs = Lease.objects.filter(task=OuterRef("task"), annotator=annotator, state__in=CLOSED_TO_ANNOTATOR)
    queue = (
        Slot.objects.filter(~Exists(theirs), project=project)
        # A turn of a conversation belongs to whoever holds the conversation.
        .exclude(task__state=Task.State.CLOSED)
        .exclude(task__kind=Task.CONVERSATION)
        .select_related("task__prompt")
        .order_by("-priority", "pk")
    )
    if connection.features.has_select_for_update_skip_locked:
        queue = queue.select_for_update(skip_locked=True, of=("self",))
    # On SQLite the transaction began by taking the write lock (BEGIN IMMEDIATE), so nobody is beside us.
    slot = queue.filter(state=Slot.State.FREE).first()
    if slot is None and (slot := queue.filter(state=Slot.State.LEASED, expires_at__lte=at).first()):
        old = Lease.objects.filter(slot=slot, state=Lease.State.OPEN)
        # Everyone else locks the lease first and then its slot. Waiting for the lease here would be a deadlock.
        can_lock = connection.features.has_select_for_update_skip_locked
        if can_lock and old.exists() and not old.select_for_update(skip_locked=True).first():
            raise _SlotBusy
        old.update(state=Lease.State.EXPIRED, closed_at=at)
    return slot


def _lease_slot(slot: Slot, annotator: User, guideline: Any, lease_seconds: int, at: datetime) -> Lease:
    expires_at = at + timedelta(seconds=lease_seconds)
    Slot.objects.filter(pk=slot.pk).update(state=Slot.State.LEASED, expires_at=expires_at, holder=annotator)
    order = list(slot.task.task_completions.values_list("completion_id", flat=True))
    random.SystemRandom().shuffle(order)
    return Lease.objects.create(
        slot=slot,
        task=slot.task,
        annotator=annotator,
        guideline=guideline,
        order_shown=order,
        expires_at=expires_at,
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


def free_expired_leases(*, lease: Lease | None = None, at: datetime | None = None) -> int:
    """Put slots whose lease ran out (all, or the one given) back in the queue. Returns how many."""
    at = at or now()
    with transaction.atomic():
        overdue = Lease.objects.filter(state=Lease.State.OPEN, expires_at__lte=at)
        if lease is not None:
            overdue = overdue.filter(pk=lease.pk)
        expired = list(overdue.order_by("pk").values_list("pk", "slot_id"))
        freed = 0
        for lease_id, slot_id in expired:
            # Conditions again: a renewal or a submission may have come in between.
            if Lease.objects.filter(pk=lease_id, state=Lease.State.OPEN, expires_at__lte=at).update(
                state=Lease.State.EXPIRED, closed_at=at
            ):
                freed += free_slots(Slot.objects.filter(pk=slot_id, state=Slot.State.LEASED))
    return freed


def free_slots(slots: Any) -> int:
    return slots.update(state=Slot.State.FREE, expires_at=None, holder=None)
