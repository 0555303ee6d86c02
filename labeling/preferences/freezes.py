"""Freezing in the background. The row is the truth; a Celery message only wakes a worker.

Whoever holds (owner, epoch) may write. A claim, a sweep and an end are each one conditional update. What to freeze is
bounded when it is asked for, so a freeze that lost its worker gives the same rows when it is started again, and with
them the same snapshot.
"""

import logging
import threading
import time
from datetime import timedelta
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import F, Max, Q, QuerySet
from django.db.models.functions import Now

from labeling.accounts.models import User
from labeling.accounts.roles import READING
from labeling.database.ownership import before, owner_is_gone, owner_name
from labeling.live.services import notify
from labeling.preferences.errors import BadFilter, BeingMade, FreezeLost, PreferenceError
from labeling.preferences.figures import figures_of_snapshot
from labeling.preferences.filters import complete_filters, complete_policy
from labeling.preferences.models import Freeze, Snapshot
from labeling.preferences.services import create_snapshot
from labeling.projects.models import Project
from labeling.projects.selectors import projects_of

logger = logging.getLogger(__name__)

MAX_OPEN_A_PROJECT = 5
MAX_ATTEMPTS = 3
BEAT_SECONDS = 1.0
# A freeze is silent while it looks for prompts alike and while it hashes; a worker of this host that is gone is missed at once.
LOST_AFTER = timedelta(minutes=10)
WAKE_EVERY = timedelta(seconds=30)
LOST = f"The worker was lost {MAX_ATTEMPTS} times (killed, out of memory, or the machine stopped): its log says more"
_working = threading.Lock()


def freezes_visible_to(user: User) -> QuerySet[Freeze]:
    """Of the projects whose console the person reads."""
    return Freeze.objects.filter(project__in=projects_of(user, roles=READING)).select_related("project", "snapshot")


def open_freezes(project: Project) -> QuerySet[Freeze]:
    return Freeze.objects.filter(project=project).exclude(state__in=Freeze.ENDED).order_by("pk")


def start_freeze(
    *,
    project: Project,
    created_by: User | None,
    name: str = "",
    filters: dict[str, Any] | None = None,
    policy: dict[str, Any] | None = None,
) -> Freeze:
    """Have a worker freeze what passes the filters at this moment.

    Raises BadFilter naming what is wrong: nothing is queued that can't start.
    """
    full_filters, full_policy = complete_filters(filters), complete_policy(policy)
    for bound, rows in (("up_to_judgement", project.judgements), ("up_to_adjudication", project.adjudications)):
        if full_filters[bound] is None:
            full_filters[bound] = rows.aggregate(top=Max("pk"))["top"] or 0
    if open_freezes(project).count() >= MAX_OPEN_A_PROJECT:
        raise BadFilter({"project": f"has {MAX_OPEN_A_PROJECT} snapshots being frozen already: wait for one"})
    with transaction.atomic():
        freeze = Freeze.objects.create(
            project=project, name=name, filters=full_filters, policy=full_policy, created_by=created_by
        )
        _enqueue(freeze)
        notify(project.live_group, "freeze", freeze=freeze.pk, state=freeze.state)
    return freeze


def _enqueue(freeze: Freeze) -> None:
    from labeling.preferences.tasks import execute_freezes  # the task calls back into this module

    Freeze.objects.filter(pk=freeze.pk).update(enqueued_at=Now())
    transaction.on_commit(partial(execute_freezes.delay))


def work_off_freezes() -> int:
    """Freeze what waits, one at a time in this process, whose other threads have other work. Returns how many ended."""
    if not _working.acquire(blocking=False):
        return 0
    n = 0
    try:
        while freeze := claim_next_freeze(owner=owner_name()):
            execute_freeze(freeze)
            n += 1
    finally:
        _working.release()
    return n


def claim_next_freeze(*, owner: str) -> Freeze | None:
    """Take the oldest that waits for this worker, or None. Of several workers, one gets it."""
    waiting = Freeze.objects.filter(state=Freeze.State.WAITING).order_by("pk")
    while pk := waiting.values_list("pk", flat=True).first():
        with transaction.atomic():
            if Freeze.objects.filter(pk=pk, state=Freeze.State.WAITING).update(
                state=Freeze.State.FREEZING, owner=owner, epoch=F("epoch") + 1, attempts=F("attempts") + 1,
                heartbeat_at=Now(), n_done=0, n_total=0,
            ):  # fmt: skip
                freeze = Freeze.objects.select_related("project", "created_by").get(pk=pk)
                notify(freeze.project.live_group, "freeze", freeze=pk, state=freeze.state)
                return freeze
    return None


def execute_freeze(freeze: Freeze) -> None:
    """Freeze it and close the row, with what went wrong if something did. A freeze lost on the way is another's now."""
    try:
        snapshot = made_before(freeze) or create_snapshot(
            project=freeze.project, created_by=freeze.created_by, name=freeze.name, filters=freeze.filters,
            policy=freeze.policy, report=_Beat(freeze),
        )  # fmt: skip
        _end(freeze, state=Freeze.State.DONE, snapshot=snapshot, n_done=F("n_total"))
        _count_for_the_card(snapshot)
    except FreezeLost as error:
        logger.warning("%s", error)
    except BadFilter as error:
        _end_quietly(freeze, "; ".join(f"{name} {problem}" for name, problem in error.fields.items()))
    except PreferenceError as error:
        _end_quietly(freeze, str(error))
    except Exception as error:
        logger.exception("freeze %s failed", freeze.pk)
        _end_quietly(freeze, f"{type(error).__name__}: the worker's log says more")


def _count_for_the_card(snapshot: Snapshot) -> None:
    """So that whoever opens the card of a large snapshot doesn't wait for it. The snapshot stands, whatever becomes of this."""
    try:
        figures_of_snapshot(snapshot)
    except BeingMade:
        pass  # somebody has opened it already
    except Exception:
        logger.exception("the figures of %s could not be counted: its card tries again", snapshot)


def made_before(freeze: Freeze) -> Snapshot | None:
    """What an attempt left that lost its worker after the snapshot was there and before the row was closed."""
    if freeze.attempts < 2:
        return None
    since = freeze.project.snapshots.filter(created_at__gte=freeze.created_at, created_by=freeze.created_by)
    set_when_frozen = {name for name, value in freeze.filters.items() if value is None}
    for snapshot in since.order_by("pk"):
        asked_for = {**snapshot.filters, **dict.fromkeys(set_when_frozen)}
        if asked_for == freeze.filters and snapshot.policy == freeze.policy:
            return snapshot
    return None


class _Beat:
    """Says how far the freeze is and that its worker lives, about once a second. Raises FreezeLost."""

    def __init__(self, freeze: Freeze) -> None:
        self.freeze = freeze
        self.last = -BEAT_SECONDS

    def __call__(self, n_done: int, n_total: int) -> None:
        if time.monotonic() - self.last < BEAT_SECONDS:
            return
        self.last = time.monotonic()
        if not _owned(self.freeze).update(heartbeat_at=Now(), n_done=n_done, n_total=n_total):
            raise FreezeLost(f"Freeze {self.freeze.pk} was taken over")
        notify(self.freeze.project.live_group, "freeze", freeze=self.freeze.pk)


def _owned(freeze: Freeze) -> QuerySet[Freeze]:
    return Freeze.objects.filter(pk=freeze.pk, owner=freeze.owner, epoch=freeze.epoch, state=Freeze.State.FREEZING)


def _end(freeze: Freeze, **fields: Any) -> None:
    with transaction.atomic():
        if not _owned(freeze).update(finished_at=Now(), heartbeat_at=Now(), **fields):
            raise FreezeLost(f"Freeze {freeze.pk} was taken over")
        notify(freeze.project.live_group, "freeze", freeze=freeze.pk, state=fields["state"])


def _end_quietly(freeze: Freeze, problem: str) -> None:
    try:
        _end(freeze, state=Freeze.State.FAILED, problem=problem)
    except FreezeLost as error:
        logger.warning("%s", error)


def sweep_freezes() -> int:
    """Start again what lost its worker, fail what lost too many, wake workers for what waits.

    Returns how many had lost theirs.
    """
    n = 0
    for freeze in Freeze.objects.filter(state=Freeze.State.FREEZING).select_related("project"):
        lost = _owned(freeze)
        if not owner_is_gone(freeze.owner):
            lost = lost.filter(heartbeat_at__lt=before(LOST_AFTER))
        with transaction.atomic():
            again = freeze.attempts < MAX_ATTEMPTS
            then = {"state": Freeze.State.WAITING} if again else {
                "state": Freeze.State.FAILED, "finished_at": Now(), "problem": LOST,
            }  # fmt: skip
            if lost.update(epoch=F("epoch") + 1, owner="", enqueued_at=None, **then):
                n += 1
                notify(freeze.project.live_group, "freeze", freeze=freeze.pk)
    waiting = Freeze.objects.filter(Q(enqueued_at=None) | Q(enqueued_at__lt=before(WAKE_EVERY)))
    if first := waiting.filter(state=Freeze.State.WAITING).order_by("pk").first():
        with transaction.atomic():
            _enqueue(first)
    return n
