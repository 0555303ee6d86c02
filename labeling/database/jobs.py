"""Long work whose row is the truth; a Celery message only wakes a worker.

Whoever holds (owner, epoch) may write. A claim, a beat, a sweep and an end are each one conditional update, so neither a
message delivered twice nor a worker thought dead makes anything happen twice. A row of such work has the fields `state`,
`owner`, `epoch`, `attempts`, `heartbeat_at`, `enqueued_at` and `finished_at`.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from django.db import transaction
from django.db.models import F, Model, QuerySet
from django.db.models.functions import Now

from labeling.database.ownership import before, owner_is_gone

logger = logging.getLogger(__name__)

Row = TypeVar("Row", bound=Model)
NO_FIELDS: Mapping[str, Any] = MappingProxyType({})
LOST_WORKER = "The worker was lost {} times (killed, out of memory, or the machine stopped)"


class OwnerLost(Exception):
    """The row is over or somebody else's by now: whoever hears this writes nothing more."""


class Jobs(Generic[Row]):
    """One kind of long work.

    `wake` sends a worker the message; `tell(row, state)` tells the pages that watch, within the transaction of the
    change, with the new state or "" where it is the same.
    """

    def __init__(
        self,
        model: type[Row],
        *,
        waiting: str,
        working: str,
        wake: Callable[[], Any],
        tell: Callable[[Any, str], None],
        related: tuple[str, ...] = ("project",),
    ) -> None:
        self.model, self.waiting, self.working = model, waiting, working
        self.wake, self.tell, self.related = wake, tell, related

    def enqueue(self, row: Row) -> None:
        """Wake a worker once this transaction is committed."""
        self.model.objects.filter(pk=row.pk).update(enqueued_at=Now())
        transaction.on_commit(self.wake)

    def claim_first(self, rows: QuerySet[Row], *, owner: str, **fields: Any) -> Row | None:
        """The first of the rows that waits, now this owner's; None if none does. Of several that ask, one gets it."""
        waiting = rows.filter(state=self.waiting)
        while pk := waiting.values_list("pk", flat=True).first():
            with transaction.atomic():
                if self.model.objects.filter(pk=pk, state=self.waiting).update(
                    state=self.working, owner=owner, epoch=F("epoch") + 1, attempts=F("attempts") + 1, heartbeat_at=Now(),
                    **fields,
                ):  # fmt: skip
                    row = self.model.objects.select_related(*self.related).get(pk=pk)
                    self.tell(row, self.working)
                    return row
        return None

    def held(self, row: Row) -> QuerySet[Row]:
        """The row, as long as its owner and epoch hold it: every write of a worker goes through this."""
        return self.model.objects.filter(pk=row.pk, owner=row.owner, epoch=row.epoch, state=self.working)

    def beat(self, row: Row, **fields: Any) -> None:
        """Say that the worker lives, and how far it is. Raises OwnerLost."""
        if not self.held(row).update(heartbeat_at=Now(), **fields):
            raise OwnerLost(f"{row} was taken over or ended")

    def end(self, row: Row, *, state: str, **fields: Any) -> None:
        """Close the row. Raises OwnerLost."""
        with transaction.atomic():
            self.beat(row, state=state, finished_at=Now(), **fields)
            self.tell(row, state)

    def end_quietly(self, row: Row, *, state: str, **fields: Any) -> bool:
        """Close the row, or leave it to whoever has it by now: then False."""
        try:
            self.end(row, state=state, **fields)
        except OwnerLost as error:
            logger.warning("%s", error)
            return False
        return True

    def request_cancel(
        self, row: Row, *, cancelled: str, now: Mapping[str, Any] = NO_FIELDS, soon: Mapping[str, Any] = NO_FIELDS
    ) -> str:
        """End a row that waits, or have its worker end it; `now` and `soon` are what else is written then.

        Returns its state; "" if it is over already.
        """
        rows = self.model.objects.filter(pk=row.pk)
        ways = [(self.waiting, cancelled, {"finished_at": Now(), **now}), (self.working, self.working, soon)]
        with transaction.atomic():
            for before_it, state, fields in ways:
                if rows.filter(state=before_it).update(state=state, cancel_requested_at=Now(), **fields):
                    self.tell(row, state)
                    return state
        return ""

    def give_back(self, row: Row, **fields: Any) -> None:
        """The worker is told to stop while the work goes on: another takes it up, and the attempt isn't counted."""
        with transaction.atomic():
            if self.held(row).update(state=self.waiting, owner="", attempts=F("attempts") - 1, **fields):
                self.tell(row, self.waiting)

    def hand_on(self, row: Row, *, silent_for: timedelta, **then: Any) -> bool:
        """Take the row from a worker that is gone, or was silent for so long; `then` is what becomes of it, such as
        `state`. Whether it was taken.
        """
        lost = self.held(row)
        if not owner_is_gone(row.owner):
            lost = lost.filter(heartbeat_at__lt=before(silent_for))
            if not lost.exists():
                return False
        if then["state"] != self.waiting:
            then["finished_at"] = Now()
        with transaction.atomic():
            if not lost.update(epoch=F("epoch") + 1, owner="", enqueued_at=None, **then):
                return False
            self.tell(row, then["state"])
        return True

    def sweep(self, *, silent_for: timedelta, then: Callable[[Row], dict[str, Any]]) -> list[Row]:
        """Hand on all that lost their worker, each to what `then` says of it; returns them."""
        working = self.model.objects.filter(state=self.working).select_related(*self.related)
        return [row for row in working if self.hand_on(row, silent_for=silent_for, **then(row))]

    def wake_for(self, rows: QuerySet[Row]) -> None:
        """Wake a worker if any of the rows waits: their messages may have been lost."""
        if first := rows.filter(state=self.waiting).order_by("pk").first():
            with transaction.atomic():
                self.enqueue(first)
