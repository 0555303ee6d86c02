"""Making, changing and trying webhooks."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils.timezone import now

from labeling.accounts.models import User
from labeling.live.services import notify
from labeling.projects.models import Project
from labeling.webhooks.addresses import BadAddress, read_address
from labeling.webhooks.delivering import claim, record, rules, try_once
from labeling.webhooks.errors import BadWebhook, NotNow, TooManyTests
from labeling.webhooks.events import delivery_of, listen_from_now
from labeling.webhooks.models import Delivery, Webhook
from labeling.webhooks.signing import new_salt, secret_of

MOST_A_PROJECT = 10
MAX_DESCRIPTION = 200
MOST_TESTS_A_MINUTE = 10
MOST_HOURS = 24 * 30  # that a replaced secret may go on signing


def create_webhook(
    *, project: Project, url: str, events: Collection[str], description: str = "", created_by: User | None = None
) -> tuple[Webhook, str]:
    """Tell this address of these events from now on. Returns the secret, too, which is shown this once.

    Raises BadWebhook.
    """
    checked = _checked(url=url, events=events, description=description)
    with transaction.atomic():
        Project.objects.select_for_update().get(pk=project.pk)  # counts its webhooks one at a time
        if project.webhooks.count() >= MOST_A_PROJECT:
            raise BadWebhook({"url": f"there are {MOST_A_PROJECT} webhooks already: delete one first"})
        listen_from_now()
        webhook = Webhook.objects.create(project=project, created_by=created_by, **checked)
        notify(project.live_group, "webhook")
    return webhook, secret_of(webhook.salt)


def change_webhook(*, webhook: Webhook, **changes: Any) -> Webhook:
    """Change `url`, `events`, `description` or `state` (active, paused). Raises BadWebhook."""
    state = changes.pop("state", None)
    checked = _checked(**changes)
    if state not in (None, Webhook.State.ACTIVE, Webhook.State.PAUSED):
        raise BadWebhook({"state": "must be active or paused"})
    with transaction.atomic():
        if state == Webhook.State.ACTIVE and webhook.state != Webhook.State.ACTIVE:
            listen_from_now()
            checked |= {"problem": "", "failing_since": None}
        if state:
            checked["state"] = state
        if checked:
            Webhook.objects.filter(pk=webhook.pk).update(**checked)
            notify(webhook.project.live_group, "webhook")
    webhook.refresh_from_db()
    return webhook


def delete_webhook(*, webhook: Webhook) -> None:
    """With its log. What is being sent at this moment may still arrive."""
    with transaction.atomic():
        notify(webhook.project.live_group, "webhook")
        webhook.delete()


def rotate_secret(*, webhook: Webhook, keep: timedelta, at: datetime | None = None) -> str:
    """Make a new secret and return it, to be shown this once. The one before signs as well for as long as `keep`."""
    at = at or now()
    fresh = new_salt()
    Webhook.objects.filter(pk=webhook.pk).update(salt=fresh, old_salt=F("salt"), old_until=at + keep)
    webhook.refresh_from_db()
    return secret_of(fresh)


def _checked(**fields: Any) -> dict[str, Any]:
    wrong = {}
    if "url" in fields:
        try:
            read_address(fields["url"], rules())
        except BadAddress as error:
            wrong["url"] = str(error)
    if "events" in fields:
        known = [event.value for event in Webhook.Event]
        if not fields["events"] or not set(fields["events"]) <= set(known):
            wrong["events"] = "must name at least one of " + ", ".join(known)
        else:
            fields["events"] = [event for event in known if event in fields["events"]]
    if len(fields.get("description", "")) > MAX_DESCRIPTION:
        wrong["description"] = f"must not be longer than {MAX_DESCRIPTION} characters"
    if wrong:
        raise BadWebhook(wrong)
    return fields


def send_test(*, webhook: Webhook, at: datetime | None = None) -> Delivery:
    """Send a message of the event `test` now, once, and return what came of it. Takes as long as the receiver, at most 5 s.

    Raises TooManyTests.
    """
    at = at or now()
    with transaction.atomic():
        Webhook.objects.select_for_update().get(pk=webhook.pk)  # counts its tests one at a time
        recent = webhook.deliveries.filter(event=Delivery.TEST, created_at__gt=at - timedelta(minutes=1))
        if recent.count() >= MOST_TESTS_A_MINUTE:
            raise TooManyTests(f"{MOST_TESTS_A_MINUTE} tests were sent within a minute: wait for one")
        delivery = delivery_of(webhook, webhook.project.slug, Delivery.TEST, {"id": str(webhook.pk)}, at)
        delivery.save()
        claimed = claim(delivery, webhook, at)
    assert claimed is not None  # nobody else knows of it
    record(claimed, try_once(claimed))
    delivery.refresh_from_db()
    return delivery


def redeliver(*, delivery: Delivery, at: datetime | None = None) -> Delivery:
    """Have a message sent again within seconds, under its own id, with all its tries before it.

    Raises NotNow while it is under way, and where the webhook is not active.
    """
    at = at or now()
    if delivery.webhook.state != Webhook.State.ACTIVE:
        raise NotNow("The webhook is not active: resume it first")
    not_under_way = Delivery.objects.filter(pk=delivery.pk).exclude(state=Delivery.State.SENDING)
    if not not_under_way.update(state=Delivery.State.WAITING, n_tries=0, next_try_at=at, ended_at=None):
        raise NotNow("This message is being sent at this moment")
    delivery.refresh_from_db()
    return delivery
