"""Sending messages: claimed, tried, and recorded.

A delivery is a row: whoever sends it has claimed it by a conditional update, for as long as a try can take. A sender that
dies in the middle is followed by another, so a message comes at least once, and each time with the same id.
"""

import logging
import random
import secrets
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Coalesce
from django.utils.timezone import now

from labeling.live.services import notify
from labeling.webhooks.addresses import Rules
from labeling.webhooks.models import Delivery, Webhook
from labeling.webhooks.sending import Outcome, send
from labeling.webhooks.signing import headers, secret_of

logger = logging.getLogger(__name__)

# After each try that failed; the first follows at once. Together a day and a few minutes.
PAUSES = tuple(timedelta(seconds=seconds) for seconds in (30, 120, 600, 3600, 3 * 3600, 8 * 3600, 12 * 3600))
MOST_TRIES = len(PAUSES) + 1
JITTER = 0.2
CLAIM = timedelta(seconds=60)  # far longer than a try takes: after that its sender is lost
DISABLE_AFTER = timedelta(days=3)
KEEP_ENDED = timedelta(days=30)
KEPT_TRIES = 20

ROUND_SECONDS = 20.0
AT_ONCE = 8


def rules() -> Rules:
    return Rules(hosts=tuple(settings.WEBHOOK_HOSTS), public=settings.WEBHOOK_PUBLIC)


@dataclass(frozen=True)
class Claimed:
    """A delivery that this sender may send once, and all that it needs for that: nothing is read on the way."""

    pk: int
    claim: str
    webhook: Webhook
    message_id: str
    body: bytes
    n_tries: int
    tries: list[dict[str, Any]]
    event: str


_round = threading.Lock()


def send_due(seconds: float = ROUND_SECONDS) -> int:
    """Send what is due, at most one message at a time to each webhook, and begin none after `seconds`.

    A webhook that failed is left alone for the rest of the round, so a dead receiver holds up no other. Returns how
    many tries were made. Rows are read and written by the calling thread alone.
    """
    if not _round.acquire(blocking=False):
        return 0  # another thread of this worker is at it
    try:
        return _send_round(time.monotonic() + seconds)
    finally:
        _round.release()


def _send_round(until: float) -> int:
    left_alone: set[int] = set()
    running: dict[Future[Outcome], Claimed] = {}
    n_tries = 0
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook") as pool:
        while True:
            if time.monotonic() < until:
                busy = left_alone | {claimed.webhook.pk for claimed in running.values()}
                for webhook in _webhooks_due(now()).exclude(pk__in=busy)[: AT_ONCE - len(running)]:
                    if claimed := claim_next(webhook):
                        running[pool.submit(try_once, claimed)] = claimed
                    else:
                        left_alone.add(webhook.pk)  # another worker took it
            if not running:
                return n_tries
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                claimed = running.pop(future)
                try:
                    outcome = future.result()
                except Exception:
                    # One message's trouble must not keep the others from being sent.
                    logger.exception("Message %s could not be sent", claimed.message_id)
                    outcome = Outcome(0, None, "broken_off")
                n_tries += 1
                record(claimed, outcome)
                if not outcome.is_delivered:
                    left_alone.add(claimed.webhook.pk)


def _webhooks_due(at: datetime) -> QuerySet[Webhook]:
    due = Q(deliveries__next_try_at__lte=at)
    return Webhook.objects.filter(due, state=Webhook.State.ACTIVE).select_related("project").distinct().order_by("pk")


def claim_next(webhook: Webhook, at: datetime | None = None) -> Claimed | None:
    """Take the delivery of this webhook that has waited longest; None where there is none, or another was quicker."""
    at = at or now()
    due = webhook.deliveries.filter(next_try_at__lte=at)
    delivery = due.order_by("next_try_at", "pk").first()
    return claim(delivery, webhook, at) if delivery else None


def claim(delivery: Delivery, webhook: Webhook, at: datetime) -> Claimed | None:
    """Take this delivery, if it is as it was read. One whose sender was lost was tried, too."""
    tries = delivery.tries
    if delivery.state == Delivery.State.SENDING:
        tries = _with(tries, at, Outcome(0, None, "sender_lost"))
    unchanged = Delivery.objects.filter(pk=delivery.pk, state=delivery.state, next_try_at=delivery.next_try_at)
    if delivery.n_tries >= MOST_TRIES:
        unchanged.update(state=Delivery.State.FAILED, next_try_at=None, ended_at=at, tries=tries)
        return None
    token = secrets.token_hex(16)
    n_tries = delivery.n_tries + 1
    if not unchanged.update(
        state=Delivery.State.SENDING, next_try_at=at + CLAIM, n_tries=n_tries, tries=tries, claim=token
    ):
        return None
    return Claimed(
        delivery.pk, token, webhook, delivery.message_id, delivery.body.encode(), n_tries, tries, delivery.event
    )


def try_once(claimed: Claimed) -> Outcome:
    """Touches no database: it runs in a thread of its own."""
    webhook, at = claimed.webhook, now()
    secrets_ = [secret_of(webhook.salt)]
    if webhook.old_salt and webhook.old_until and webhook.old_until > at:
        secrets_.append(secret_of(webhook.old_salt))
    signed = headers(claimed.message_id, int(at.timestamp()), claimed.body, secrets_)
    return send(webhook.url, claimed.body, signed, rules())


def record(claimed: Claimed, outcome: Outcome, at: datetime | None = None) -> None:
    """Write what came of the try, unless the delivery was taken over meanwhile."""
    at = at or now()
    is_last = claimed.n_tries >= MOST_TRIES or claimed.event == Delivery.TEST
    fields: dict[str, Any] = {"claim": "", "tries": _with(claimed.tries, at, outcome)}
    if outcome.is_delivered:
        fields |= {"state": Delivery.State.DELIVERED, "next_try_at": None, "ended_at": at}
    elif is_last:
        fields |= {"state": Delivery.State.FAILED, "next_try_at": None, "ended_at": at}
    else:
        spread = random.uniform(1 - JITTER, 1 + JITTER)
        fields |= {"state": Delivery.State.WAITING, "next_try_at": at + PAUSES[claimed.n_tries - 1] * spread}
    with transaction.atomic():
        if not Delivery.objects.filter(pk=claimed.pk, claim=claimed.claim).update(**fields):
            return
        if outcome.is_delivered:
            Webhook.objects.filter(pk=claimed.webhook.pk, failing_since__isnull=False).update(failing_since=None)
        elif claimed.event != Delivery.TEST:
            _note_failure(claimed.webhook, outcome, at)


def _note_failure(webhook: Webhook, outcome: Outcome, at: datetime) -> None:
    """Switch off a webhook that has failed for days, or whose receiver says that it is gone, and tell the leads."""
    mine = Webhook.objects.filter(pk=webhook.pk, state=Webhook.State.ACTIVE)
    mine.update(failing_since=Coalesce("failing_since", at))
    problem = ""
    if outcome.error == "gone":
        problem = "its receiver answered 410: it is gone for good"
    elif mine.filter(failing_since__lte=at - DISABLE_AFTER).exists():
        problem = f"nothing has come through for {DISABLE_AFTER.days} days"
    if problem and mine.update(state=Webhook.State.DISABLED, problem=problem):
        notify(webhook.project.live_group, "webhook")


def _with(tries: list[dict[str, Any]], at: datetime, outcome: Outcome) -> list[dict[str, Any]]:
    made = {
        "at": at.isoformat(), "status": outcome.status, "error": outcome.error, "milliseconds": outcome.milliseconds,
    }  # fmt: skip
    return [*tries, made][-KEPT_TRIES:]


def forget_old_deliveries(at: datetime | None = None) -> int:
    """Delete messages that were delivered or given up a month ago."""
    deleted, _ = Delivery.objects.filter(ended_at__lt=(at or now()) - KEEP_ENDED).delete()
    return deleted
