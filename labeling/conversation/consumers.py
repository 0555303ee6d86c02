"""The socket of one conversation: both completions of a turn as they grow.

The page says {"watch": 3} and gets what is shown of turn 3 so far, then every addition, then that it is over; what
became of it the page asks by HTTP. Nothing here says which model wrote what, or which was faster.

    {"turn": 3, "texts": ["...", "..."]}     what is shown so far: replace
    {"turn": 3, "more": ["...", "..."]}      append
    {"turn": 3, "over": true}                ready, failed or taken over: ask
"""

import asyncio
import contextlib
import json
from typing import Any

from channels.auth import get_user
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer

from labeling.conversation.generator import Frame, Stage, generator
from labeling.conversation.models import Conversation, Turn
from labeling.conversation.selectors import conversations_of, settings_of
from labeling.live.consumers import (
    CHECK_SECONDS,
    GONE,
    MAX_MESSAGE,
    NOT_UNDERSTOOD,
    TOO_LARGE,
    TOO_MANY,
    RateLimit,
    fresh_session,
)

POLL_SECONDS = 0.5
MAX_WAITING = 400


class ConversationConsumer(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        self.limit = RateLimit()
        self.watching: asyncio.Task[None] | None = None
        self.checking: asyncio.Task[None] | None = None
        self.conversation_id = await self._conversation()
        if self.conversation_id is None:
            await self.close()
            return
        await self.accept()
        self.checking = asyncio.create_task(self._check_again())
        await self._send({"hello": True})
        generator().expect(await database_sync_to_async(self._speakers)())

    async def disconnect(self, code: int) -> None:
        current = asyncio.current_task()
        for task in (self.watching, self.checking):
            if task is not None and task is not current:
                task.cancel()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        number = _watched(text_data)
        if not self.limit.allows():
            await self.close(TOO_MANY)
        elif len(text_data or bytes_data or "") > MAX_MESSAGE:
            await self.close(TOO_LARGE)
        elif number is None:
            await self.close(NOT_UNDERSTOOD)
        elif await self._still_welcome():
            if number == 0:
                await self._send({"pong": True})
                return
            if self.watching is not None:
                self.watching.cancel()
            self.watching = asyncio.create_task(self._follow(number))

    # --- one turn -------------------------------------------------------------------------------
    async def _follow(self, number: int) -> None:
        """Show the turn until it is over, whoever generates it: this process or another."""
        sent: list[str] | None = None
        while True:
            turn = await database_sync_to_async(self._turn)(number)
            if turn is None or turn.state != Turn.State.GENERATING:
                await self._send({"turn": number, "over": True})
                return
            stage = await generator().take(turn.pk)
            if stage is not None:
                stage.hurry.set()  # perhaps it was asked to stop
                await self._follow_stage(number, stage)
                sent = None
            elif turn.texts != sent:
                sent = turn.texts
                await self._send({"turn": number, "texts": sent or ["", ""]})
            await asyncio.sleep(POLL_SECONDS)

    async def _follow_stage(self, number: int, stage: Stage) -> None:
        frames: asyncio.Queue[Frame] = asyncio.Queue()
        first = stage.watch(frames.put_nowait)
        try:
            await self._send({"turn": number, **first})
            while True:
                frame = await frames.get()
                if frames.qsize() > MAX_WAITING:  # a page that doesn't keep up gets all of it at once
                    frame = [frames.get_nowait() for _ in range(frames.qsize())][-1]
                    frame = frame if "over" in frame else {"texts": stage.texts}
                if "over" in frame:
                    return
                await self._send({"turn": number, **frame})
        finally:
            stage.unwatch(frames.put_nowait)

    def _turn(self, number: int) -> Turn | None:
        turns = Turn.objects.filter(conversation=self.conversation_id, number=number)
        return turns.order_by("-attempt").first()

    def _speakers(self) -> list[dict[str, Any]]:
        found = Conversation.objects.select_related("project").get(pk=self.conversation_id)
        return settings_of(found.project).speakers if found.is_open else []

    # --- who may listen -------------------------------------------------------------------------
    async def _conversation(self) -> int | None:
        # The session is read again each time: logging out or a new password ends it in the database.
        user = await get_user({**self.scope, "session": fresh_session(self.scope["session"])})
        if not user.is_authenticated or not user.is_active:
            return None
        return await database_sync_to_async(self._find)(user)

    def _find(self, user: Any) -> int | None:
        target = self.scope["url_route"]["kwargs"]["target"]
        found: Conversation | None = conversations_of(user).filter(public_id=target).first()
        return found.pk if found else None

    async def _still_welcome(self) -> bool:
        if self.conversation_id is not None and await self._conversation() == self.conversation_id:
            return True
        await self.close(GONE)
        return False

    async def _check_again(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            with contextlib.suppress(OSError):
                if not await self._still_welcome():
                    return

    async def _send(self, message: dict[str, Any]) -> None:
        await self.send(text_data=json.dumps(message))


def _watched(text: str | None) -> int | None:
    """The number of the turn to watch; 0 for a ping; None for anything else."""
    try:
        message = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or len(message) != 1:
        return None
    if "ping" in message:
        return 0
    number = message.get("watch")
    return number if type(number) is int and 0 < number < 1000 else None
