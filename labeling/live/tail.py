"""Follows the event table by id and hands what is new to the sockets of this process.

The table, not a message broker, carries events between processes: it needs no server, nothing is lost while a
broker restarts, and it still has what a page missed while it was away.
"""

import asyncio
import json
import logging
import time
from collections import defaultdict
from datetime import timedelta
from typing import Any

from channels.db import database_sync_to_async
from django.db import connection
from django.db.models import Max, Min, Q
from django.utils.timezone import now

from labeling.live.models import Event

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
# On PostgreSQL a transaction may commit after one with a higher id: ids that are missing are asked for again.
LATE_SECONDS = 10.0
MAX_MISSING = 1000
BATCH = 2000
MAX_WAITING = 500
MAX_MISSED = 500

Message = dict[str, Any]


class Watcher:
    """One socket's queue of events. A socket that doesn't keep up is told to reload instead."""

    def __init__(self, group: str, names: frozenset[str] | None) -> None:
        self.group = group
        self.names = names
        self.queue: asyncio.Queue[Message] = asyncio.Queue()

    def wants(self, name: str) -> bool:
        return self.names is None or name in self.names

    def put(self, message: Message) -> None:
        if self.queue.qsize() >= MAX_WAITING:
            while not self.queue.empty():
                self.queue.get_nowait()
            message = {"reload": True}
        self.queue.put_nowait(message)


class Tailer:
    """One for each process and event loop. Reads the table only while somebody watches."""

    def __init__(self) -> None:
        self.watchers: dict[str, set[Watcher]] = defaultdict(set)
        self.top: int | None = None
        self.missing: dict[int, float] = {}
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    async def add(self, watcher: Watcher) -> int:
        """Begin to hand events to the watcher; returns the newest id that it won't be handed."""
        self.watchers[watcher.group].add(watcher)
        if self._task is None or self._task.done():
            self._ready.clear()
            self._task = asyncio.create_task(self._follow())
        await self._ready.wait()
        assert self.top is not None
        return self.top

    def remove(self, watcher: Watcher) -> None:
        group = self.watchers.get(watcher.group)
        if group is not None:
            group.discard(watcher)
            if not group:
                del self.watchers[watcher.group]

    async def _follow(self) -> None:
        self.top, self.missing = None, {}
        while self.watchers:
            try:
                if self.top is None:
                    self.top = await database_sync_to_async(newest_id)()
                    self._ready.set()
                events = await database_sync_to_async(self._read)()
            except Exception:
                # The database is away: pages keep their sockets and hear everything once it is back.
                logger.exception("reading events failed; trying again")
                await asyncio.sleep(2.0)
                continue
            self._hand_out(events)
            await asyncio.sleep(0.0 if len(events) >= BATCH else POLL_SECONDS)

    def _read(self) -> list[Event]:
        assert self.top is not None
        found = Q(pk__gt=self.top)
        if self.missing:
            found |= Q(pk__in=list(self.missing))
        events = list(Event.objects.filter(found).order_by("pk")[:BATCH])
        self._note_missing([event.pk for event in events])
        return events

    def _note_missing(self, ids: list[int]) -> None:
        at = time.monotonic()
        for pk in ids:
            self.missing.pop(pk, None)
        if ids and ids[-1] > self.top:
            if connection.vendor != "sqlite":  # there, ids follow the order of commits
                there = set(ids)
                gap = range(max(self.top + 1, ids[-1] - MAX_MISSING), ids[-1])
                self.missing.update({pk: at + LATE_SECONDS for pk in gap if pk not in there})
            self.top = ids[-1]
        self.missing = {pk: until for pk, until in self.missing.items() if until > at}

    def _hand_out(self, events: list[Event]) -> None:
        by_group: dict[str, list[Event]] = defaultdict(list)
        for event in events:
            if event.group in self.watchers:
                by_group[event.group].append(event)
        for group, found in by_group.items():
            for message in squeezed(found):
                for watcher in self.watchers.get(group, ()):
                    if watcher.wants(message["name"]):
                        watcher.put(message)


def squeezed(events: list[Event]) -> list[Message]:
    """Events that say the same are one, the newest: forty judgements in a quarter second redraw a page once."""
    last = {(event.name, json.dumps(event.payload, sort_keys=True)): event for event in events}
    return [message_of(event) for event in sorted(last.values(), key=lambda event: event.pk)]


def message_of(event: Event) -> Message:
    return {"id": event.pk, "name": event.name, "payload": event.payload}


def newest_id() -> int:
    return Event.objects.aggregate(top=Max("pk"))["top"] or 0


def missed_events(group: str, after: int, names: frozenset[str] | None) -> tuple[list[Message], set[int]] | None:
    """What a page that has seen everything up to `after` hasn't heard, and the ids that this covers.

    None where that is too much or forgotten.
    """
    oldest = Event.objects.aggregate(oldest=Min("pk"))["oldest"]
    if after and (oldest is None or oldest > after + 1):
        return None
    unseen = Q(pk__gt=after)
    if connection.vendor != "sqlite":
        # One with a lower id may have been committed since. Hearing of a change twice does no harm.
        unseen |= Q(pk__gt=after - MAX_MISSING, created_at__gt=now() - timedelta(seconds=LATE_SECONDS))
    found = Event.objects.filter(unseen, group=group)
    if names is not None:
        found = found.filter(name__in=names)
    events = list(found.order_by("pk")[: MAX_MISSED + 1])
    if len(events) > MAX_MISSED:
        return None
    return squeezed(events), {event.pk for event in events}


_tailers: dict[asyncio.AbstractEventLoop, Tailer] = {}


def tailer() -> Tailer:
    """The one of this process's event loop."""
    return _tailers.setdefault(asyncio.get_running_loop(), Tailer())
