"""Generates turns in the `live` process: claims them, streams both completions, shows them at one pace, stores them.

A turn under way is a Stage. Pages watch a stage through their socket; without one, or after the page has gone, it
goes on all the same, and its result is stored. Other processes see it in the table, where its claim has a heartbeat.
"""

import asyncio
import contextlib
import logging
import math
import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from channels.db import database_sync_to_async

from labeling.conversation.client import announce, stream_completion
from labeling.conversation.errors import ClaimLost, ServerTrouble
from labeling.conversation.pacing import Pacer
from labeling.conversation.selectors import model_servers, turns_to_generate
from labeling.conversation.services import (
    Claim,
    Outcome,
    claim_turn,
    fail_turn,
    finish_turn,
    give_up_claim,
    keep_claim,
)

logger = logging.getLogger(__name__)

FRAME_SECONDS = 0.05
HEARTBEAT_SECONDS = 1.0
LOOK_SECONDS = 1.0
MOST_STAGES = 32
DATABASE_PATIENCE_SECONDS = 60.0
LOCAL = "local"  # the server of the process `model`
ANNOUNCE_SECONDS = 30.0

Frame = dict[str, Any]


class Stage:
    """One turn while it is being generated here."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.pacer = Pacer()
        self.shown = [0, 0]
        self.reasons = ["", ""]
        self.stopped = False
        self.watchers: set[Callable[[Frame], None]] = set()
        self.hurry = asyncio.Event()  # somebody asked for a look at the table before the next heartbeat

    @property
    def texts(self) -> list[str]:
        return [side.text[:shown] for side, shown in zip(self.pacer.sides, self.shown, strict=True)]

    def watch(self, tell: Callable[[Frame], None]) -> Frame:
        """From now on every frame; returns what is shown so far."""
        self.watchers.add(tell)
        return {"texts": self.texts}

    def unwatch(self, tell: Callable[[Frame], None]) -> None:
        self.watchers.discard(tell)

    # --- the work -------------------------------------------------------------------------------
    async def run(self) -> None:
        claim = self.claim
        speaking = [asyncio.create_task(self._speak(side)) for side in (0, 1)]
        heart = asyncio.create_task(self._beat())
        try:
            await self._show(speaking, heart)
            heart.cancel()
            outcomes = [
                Outcome(text, reason, self.stopped) for text, reason in zip(self.texts, self.reasons, strict=True)
            ]
            await patiently(finish_turn, claim=claim, outcomes=outcomes)
        except ServerTrouble as trouble:
            logger.warning("turn %s: %s", claim.turn_id, trouble.code)
            await patiently(fail_turn, claim=claim, problem=trouble.code, detail=str(trouble))
        except ClaimLost:
            logger.info("turn %s was taken over or ended", claim.turn_id)
        except asyncio.CancelledError:
            await asyncio.shield(patiently(give_up_claim, claim=claim))
            raise
        except Exception as error:
            logger.exception("turn %s failed", claim.turn_id)
            await patiently(fail_turn, claim=claim, problem="internal", detail=f"{type(error).__name__}: {error}")
        finally:
            for task in (*speaking, heart):
                task.cancel()
            await asyncio.gather(*speaking, heart, return_exceptions=True)
            self._tell({"over": True})

    async def _speak(self, number: int) -> None:
        side, speaker = self.pacer.sides[number], self.claim.speakers[number]
        server = model_servers().get(speaker["server"])
        if server is None:
            raise ServerTrouble("no_model", f"{speaker['server']} is not a server of this installation any more")
        async for piece in stream_completion(server, speaker, self.claim.messages):
            # Space at the start would be the only character of a first frame.
            side.text += piece.text if side.text else piece.text.lstrip()
            self.reasons[number] = piece.finish_reason or self.reasons[number]
        side.text = side.text.rstrip()
        side.has_ended = True

    async def _show(self, speaking: list[asyncio.Task[None]], heart: asyncio.Task[None]) -> None:
        """Until both are shown whole, or the annotator has stopped them."""
        while not (self.pacer.is_all_shown or self.stopped):
            await asyncio.sleep(FRAME_SECONDS)
            for task in (*speaking, heart):
                if task.done() and (error := task.exception()) is not None:
                    raise error
            shown = self.pacer.shown_at(time.monotonic(), is_watched=bool(self.watchers))
            more = [
                side.text[before:now] for side, before, now in zip(self.pacer.sides, self.shown, shown, strict=True)
            ]
            self.shown = list(shown)
            if any(more):
                self._tell({"more": more})

    async def _beat(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.hurry.wait(), HEARTBEAT_SECONDS)
            self.hurry.clear()
            self.stopped = await patiently(keep_claim, claim=self.claim, texts=self.texts) or self.stopped
            if self.stopped:
                return

    def _tell(self, frame: Frame) -> None:
        for tell in list(self.watchers):
            tell(frame)


async def patiently(act: Callable[..., Any], **arguments: Any) -> Any:
    """Call a service; a database that is away for a while is waited for."""
    give_up_at = time.monotonic() + DATABASE_PATIENCE_SECONDS
    while True:
        try:
            return await database_sync_to_async(act)(**arguments)
        except (ClaimLost, asyncio.CancelledError):
            raise
        except Exception:
            if time.monotonic() > give_up_at:
                raise
            logger.exception("the database did not take a turn; trying again")
            await asyncio.sleep(1.0)


class Generator:
    """The stages of this process, and the look-out for turns that nobody works on."""

    def __init__(self) -> None:
        self.owner = f"{socket.gethostname()[:40]}:{os.getpid()}:{secrets.token_hex(4)}"
        self.stages: dict[int, Stage] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.announced: dict[str, float] = {}
        self.news = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Idempotent."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_out())

    async def stop(self) -> None:
        """Give every turn back, so that another process takes it at once."""
        tasks = [*self.tasks, *([self._looking] if self._looking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def look_now(self) -> None:
        self.start()
        self.news.set()

    def expect(self, speakers: Sequence[dict[str, Any]]) -> None:
        """Somebody is about to talk: have our own server load the models while they write."""
        self.start()
        local = model_servers().get(LOCAL)
        for model in {speaker["model"] for speaker in speakers if speaker["server"] == LOCAL}:
            if local is None or time.monotonic() - self.announced.get(model, -math.inf) < ANNOUNCE_SECONDS:
                continue
            self.announced[model] = time.monotonic()
            task = asyncio.create_task(announce(local, model))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def take(self, turn_id: int) -> Stage | None:
        """The stage of this turn if it is ours or can be; None where another process has it, or it is over."""
        self.start()
        if turn_id in self.stages:
            return self.stages[turn_id]
        if len(self.stages) >= MOST_STAGES:
            return None
        claim = await database_sync_to_async(claim_turn)(turn_id=turn_id, owner=self.owner)
        if claim is None:
            return self.stages.get(turn_id)
        stage = self.stages[turn_id] = Stage(claim)
        task = asyncio.create_task(self._run(stage))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return stage

    async def _run(self, stage: Stage) -> None:
        try:
            await stage.run()
        finally:
            if self.stages.get(stage.claim.turn_id) is stage:
                del self.stages[stage.claim.turn_id]

    async def _look_out(self) -> None:
        """Turns come in over REST without a page, and from processes that died."""
        while True:
            try:
                for turn_id in await database_sync_to_async(turns_to_generate)():
                    await self.take(turn_id)
            except Exception:
                logger.exception("looking for turns failed; trying again")
                await asyncio.sleep(2.0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait(), LOOK_SECONDS)
            self.news.clear()


_generators: dict[asyncio.AbstractEventLoop, Generator] = {}


def generator() -> Generator:
    """The one of this process's event loop."""
    return _generators.setdefault(asyncio.get_running_loop(), Generator())


async def lifespan(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """ASGI's word for the start and the end of the process."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            generator().start()
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await generator().stop()
            await send({"type": "lifespan.shutdown.complete"})
            return
