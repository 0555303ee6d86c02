"""Telling open pages that something changed."""

from typing import Any

from labeling.database.prepared import insert
from labeling.live.models import Event


def notify(group: str, name: str, **payload: Any) -> None:
    """Tell the pages that watch `group` (for example `project.7`) that something changed.

    The event is a row of the caller's own transaction, so nobody hears of what was rolled back. The payload
    holds ids and counts, never prompt or completion text and never which model wrote what.
    """
    insert(Event(group=group, name=name, payload=payload))
