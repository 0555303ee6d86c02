"""Addresses that a site tells of its news; and, for who receives them, whether a message is genuine."""

import base64
import hashlib
import hmac
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from training.client._connection import Connection, part
from training.client.types import Delivery, Webhook


class WebhookCalls(Connection):
    def webhooks(self, slug: str) -> Iterator[Webhook]:
        return self._pages(f"projects/{part(slug)}/webhooks/")

    def create_webhook(self, slug: str, url: str, events: Iterable[str], description: str = "") -> Webhook:
        """Tell an address of judgement, import, snapshot, run or iteration. `secret` is in this answer alone."""
        body = {"url": url, "events": list(events), "description": description}
        return self._call("POST", f"projects/{part(slug)}/webhooks/", json=body)

    def webhook(self, webhook_id: str) -> Webhook:
        return self._call("GET", f"webhooks/{part(webhook_id)}/")

    def change_webhook(self, webhook_id: str, **fields: Any) -> Webhook:
        """Change url, events, description or state (active, paused)."""
        return self._call("PATCH", f"webhooks/{part(webhook_id)}/", json=fields)

    def delete_webhook(self, webhook_id: str) -> None:
        self._call("DELETE", f"webhooks/{part(webhook_id)}/")

    def rotate_webhook_secret(self, webhook_id: str, keep_hours: int = 24) -> Webhook:
        """Make a new secret, which is in this answer alone; for some hours messages are signed by both."""
        return self._call("POST", f"webhooks/{part(webhook_id)}/rotate/", json={"keep_hours": keep_hours})

    def test_webhook(self, webhook_id: str) -> Delivery:
        """Send a message of the event `test` now, and return what came of it."""
        return self._call("POST", f"webhooks/{part(webhook_id)}/test/")

    def deliveries(self, webhook_id: str) -> Iterator[Delivery]:
        """The messages of the last month, newest first."""
        return self._pages(f"webhooks/{part(webhook_id)}/deliveries/")

    def redeliver(self, delivery_id: str) -> Delivery:
        return self._call("POST", f"deliveries/{part(delivery_id)}/redeliver/")


def is_genuine(secret: str, headers: Mapping[str, str], body: bytes, *, within_seconds: float = 300.0) -> bool:
    """Whether a message was signed by who knows the secret, not long ago. `body` is as it came.

    `headers` are looked up as webhook-id, webhook-timestamp and webhook-signature.
    """
    try:
        sent_at = int(headers["webhook-timestamp"])
        signed = f"{headers['webhook-id']}.{sent_at}.".encode() + body
        signatures = headers["webhook-signature"].split()
    except (KeyError, ValueError, AttributeError, TypeError):
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    is_recent = abs(time.time() - sent_at) <= within_seconds
    return is_recent and any(hmac.compare_digest(expected.encode(), one.encode()) for one in signatures)
