"""One socket of one page: it hears that something changed, and the page then asks for what it shows by HTTP."""

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from channels.auth import get_user
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

from labeling.live.tail import Watcher, missed_events, tailer

MAX_MESSAGE = 64 * 1024
MAX_MESSAGES, PER_SECONDS = 20, 10.0
CHECK_SECONDS = 60.0

# Close codes. Before a page is let in it gets a plain refusal (HTTP 403) and learns nothing.
GONE = 4403  # logged out, removed from the project, or given another role
NOT_UNDERSTOOD = 1008
TOO_LARGE = 1009
TOO_MANY = 4429


@dataclass(frozen=True)
class Audience:
    """What one person may hear: the group, and the event names (None: all)."""

    group: str
    names: frozenset[str] | None = None


# Given the user and the address's own part (a slug, an id), what they may hear; None: nothing.
FindAudience = Callable[[Any, str], Audience | None]


class RateLimit:
    """At most MAX_MESSAGES in PER_SECONDS."""

    def __init__(self) -> None:
        self.received: deque[float] = deque()

    def allows(self) -> bool:
        """Count one more."""
        at = time.monotonic()
        self.received.append(at)
        while self.received[0] < at - PER_SECONDS:
            self.received.popleft()
        return len(self.received) <= MAX_MESSAGES


class WatchConsumer(AsyncWebsocketConsumer):
    find_audience: FindAudience | None = None

    async def connect(self) -> None:
        self.watcher: Watcher | None = None
        self.tasks: list[asyncio.Task[None]] = []
        self.limit = RateLimit()
        self.covered: set[int] = set()
        self.target: str = self.scope["url_route"]["kwargs"]["target"]
        self.audience = await self._audience()
        if self.audience is None:
            await self.close()
            return
        after = _after(self.scope.get("query_string", b""))
        self.watcher = Watcher(self.audience.group, self.audience.names)
        top = await tailer().add(self.watcher)  # first listen, then look back, so that nothing falls between
        await self.accept()
        if after is not None:
            missed = await database_sync_to_async(missed_events)(
                self.watcher.group, after, self.watcher.names
            )
            messages, self.covered = ([{"reload": True}], set()) if missed is None else missed
            for message in messages:
                await self._send(message)
        await self._send({"hello": True, "id": top})
        self.tasks = [asyncio.create_task(self._pass_on()), asyncio.create_task(self._check_again())]

    async def disconnect(self, code: int) -> None:
        if self.watcher is not None:
            tailer().remove(self.watcher)
        current = asyncio.current_task()
        for task in self.tasks:
            if task is not current:
                task.cancel()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Pages have nothing to say but `{"ping": 1}`. Anything else ends the socket."""
        if not self.limit.allows():
            await self.close(TOO_MANY)
        elif len(text_data or bytes_data or "") > MAX_MESSAGE:
            await self.close(TOO_LARGE)
        elif not _is_ping(text_data):
            await self.close(NOT_UNDERSTOOD)
        elif await self._still_welcome():
            await self._send({"pong": True})

    async def _audience(self) -> Audience | None:
        # The session is read again each time: logging out or a new password ends it in the database.
        scope = {**self.scope, "session": fresh_session(self.scope["session"])}
        user = await get_user(scope)
        if not user.is_authenticated or not user.is_active:
            return None
        return await database_sync_to_async(type(self).find_audience)(user, self.target)

    async def _still_welcome(self) -> bool:
        if await self._audience() == self.audience:
            return True
        await self.close(GONE)
        return False

    async def _pass_on(self) -> None:
        assert self.watcher is not None
        while True:
            message = await self.watcher.queue.get()
            if message.get("id") not in self.covered:
                await self._send(message)

    async def _check_again(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            with contextlib.suppress(OSError):
                if not await self._still_welcome():
                    return

    async def _send(self, message: dict[str, Any]) -> None:
        await self.send(text_data=json.dumps(message))


def fresh_session(session: Any) -> Any:
    """The same session without what was read from it."""
    return import_module(settings.SESSION_ENGINE).SessionStore(session.session_key)


def _after(query: bytes) -> int | None:
    """`after=12` in the address; None where there is none or it is nonsense."""
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        if name == b"after" and value.isdigit() and len(value) <= 18:
            return int(value)
    return None


def _is_ping(text: str | None) -> bool:
    try:
        message = json.loads(text or "")
    except (ValueError, RecursionError):
        return False
    return isinstance(message, dict) and set(message) == {"ping"}
