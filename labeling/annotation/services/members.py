"""Pausing a member, and letting them work again."""

from datetime import datetime

from django.db import transaction
from django.utils.timezone import now

from labeling.annotation.models import Lease, Slot, Task
from labeling.annotation.queue import free_slots
from labeling.live.services import notify
from labeling.projects.models import Membership


def pause_member(*, membership: Membership, reason: str, at: datetime | None = None) -> bool:
    """Hand the person no more tasks, and give those they hold back to the queue. False: they were paused already.

    What they submit all the same is kept as a late answer, and counts as surplus. Conversations they began go on.
    """
    at = at or now()
    with transaction.atomic():
        working = Membership.objects.filter(pk=membership.pk).exclude(state=Membership.State.PAUSED)
        if not working.update(state=Membership.State.PAUSED, state_reason=reason[:300], state_at=at):
            return False
        held = Lease.objects.filter(
            annotator=membership.user_id, slot__project=membership.project_id, state=Lease.State.OPEN
        ).exclude(task__kind=Task.CONVERSATION)
        for lease_id, slot_id in held.order_by("slot").values_list("pk", "slot_id"):
            still = Lease.objects.filter(pk=lease_id, state=Lease.State.OPEN)
            if still.update(state=Lease.State.EXPIRED, closed_at=at):
                free_slots(Slot.objects.filter(pk=slot_id, state=Slot.State.LEASED))
        notify(membership.project.live_group, "members", paused=membership.pk)
    membership.refresh_from_db(fields=["state", "state_reason", "state_at"])
    return True


def reinstate_member(*, membership: Membership, to_qualify: bool = False, at: datetime | None = None) -> None:
    """Let the person work again, from a clean slate: earlier gold answers don't pause them again.

    `to_qualify`: they begin with another qualification round.
    """
    membership.state = Membership.State.QUALIFYING if to_qualify else Membership.State.ACTIVE
    membership.state_reason, membership.state_at = "", at or now()
    with transaction.atomic():
        membership.save(update_fields=["state", "state_reason", "state_at"])
        notify(membership.project.live_group, "members", reinstated=membership.pk)
