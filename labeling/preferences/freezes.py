"""Freezing in the background.

What to freeze is bounded when it is asked for, so a freeze that lost its worker gives the same rows when it is started
again, and with them the same snapshot.
"""

import logging
import threading
import time
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Max, Q, QuerySet

from labeling.accounts.models import User
from labeling.accounts.roles import READING
from labeling.database.jobs import LOST_WORKER, Jobs, OwnerLost
from labeling.database.ownership import before, owner_name
from labeling.live.services import notify
from labeling.preferences.errors import BadFilter, BeingMade, PreferenceError
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
_working = threading.Lock()


def _wake() -> None:
    from labeling.preferences.tasks import execute_freezes  # the task calls back into this module

    execute_freezes.delay()


def _tell(freeze: Freeze, state: str) -> None:
    notify(freeze.project.live_group, "freeze", freeze=freeze.pk, **({"state": state} if state else {}))


JOBS = Jobs(
    Freeze, waiting=Freeze.State.WAITING, working=Freeze.State.FREEZING, wake=_wake, tell=_tell,
    related=("project", "created_by"),
)  # fmt: skip


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
        JOBS.enqueue(freeze)
        _tell(freeze, freeze.state)
    return freeze


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
    return JOBS.claim_first(Freeze.objects.order_by("pk"), owner=owner, n_done=0, n_total=0)


def execute_freeze(freeze: Freeze) -> None:
    """Freeze it and close the row, with what went wrong if something did. A freeze lost on the way is another's now."""
    try:
        snapshot = made_before(freeze) or create_snapshot(
            project=freeze.project, created_by=freeze.created_by, name=freeze.name, filters=freeze.filters,
            policy=freeze.policy, report=_Beat(freeze),
        )  # fmt: skip
        JOBS.end(freeze, state=Freeze.State.DONE, snapshot=snapshot, n_done=F("n_total"))
        _count_for_the_card(snapshot)
    except OwnerLost as error:
        logger.warning("%s", error)
    except BadFilter as error:
        _fail(freeze, "; ".join(f"{name} {problem}" for name, problem in error.fields.items()))
    except PreferenceError as error:
        _fail(freeze, str(error))
    except Exception as error:
        logger.exception("freeze %s failed", freeze.pk)
        _fail(freeze, f"{type(error).__name__}: the worker's log says more")


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
    """Says how far the freeze is and that its worker lives, about once a second. Raises OwnerLost."""

    def __init__(self, freeze: Freeze) -> None:
        self.freeze = freeze
        self.last = -BEAT_SECONDS

    def __call__(self, n_done: int, n_total: int) -> None:
        if time.monotonic() - self.last < BEAT_SECONDS:
            return
        self.last = time.monotonic()
        JOBS.beat(self.freeze, n_done=n_done, n_total=n_total)
        _tell(self.freeze, "")


def _fail(freeze: Freeze, problem: str) -> None:
    JOBS.end_quietly(freeze, state=Freeze.State.FAILED, problem=problem)


def sweep_freezes() -> int:
    """Start again what lost its worker, fail what lost too many, wake workers for what waits.

    Returns how many had lost theirs.
    """
    lost = JOBS.sweep(silent_for=LOST_AFTER, then=_after_loss)
    JOBS.wake_for(Freeze.objects.filter(Q(enqueued_at=None) | Q(enqueued_at__lt=before(WAKE_EVERY))))
    return len(lost)


def _after_loss(freeze: Freeze) -> dict[str, Any]:
    if freeze.attempts < MAX_ATTEMPTS:
        return {"state": Freeze.State.WAITING}
    return {"state": Freeze.State.FAILED, "problem": f"{LOST_WORKER.format(freeze.attempts)}: its log says more"}
