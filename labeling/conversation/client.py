"""Speaks the OpenAI protocol of streamed chat completions to a server that the operator named.

Whatever a server does wrong becomes a ServerTrouble with one of a few codes; nothing it sends is believed without
a look: lines, texts and waits all have limits.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
from django.conf import settings

from labeling.conversation.errors import ServerTrouble

CONNECT_SECONDS = 5.0
MAX_LINE = 1024 * 1024
MAX_CHARACTERS = 100_000
MAX_ERROR_BODY = 64 * 1024
LONGEST_WAIT = 10.0  # of what a busy server may ask for before it is said to be busy
RETRY_SECONDS = 1.0
LIST_SECONDS = 10.0
MAX_MODELS = 500


@dataclass(frozen=True)
class Piece:
    """A part of the text, or, with `finish_reason`, its end."""

    text: str = ""
    finish_reason: str = ""


def open_client(url: str) -> httpx.AsyncClient:
    """No redirects: the operator named one address. Proxies of the environment are for other machines only."""
    host = httpx.URL(url).host
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=8)
    return httpx.AsyncClient(
        timeout=httpx.Timeout(30, connect=CONNECT_SECONDS), limits=limits, follow_redirects=False,
        trust_env=host not in ("127.0.0.1", "::1", "localhost"),
    )  # fmt: skip


async def stream_completion(
    server: Mapping[str, str], speaker: Mapping[str, Any], messages: Sequence[Mapping[str, str]]
) -> AsyncIterator[Piece]:
    """The completion as it comes. Raises ServerTrouble.

    A server that can't be reached or is busy for a moment is asked once more.
    """
    for attempt in (1, 2):
        began = False
        try:
            async for piece in _stream_once(server, speaker, messages):
                began = True
                yield piece
            return
        except _Again as again:
            if attempt == 2 or began:
                raise again.trouble from None
            await asyncio.sleep(again.seconds)


class _Again(Exception):
    def __init__(self, trouble: ServerTrouble, seconds: float) -> None:
        self.trouble, self.seconds = trouble, seconds


async def _stream_once(
    server: Mapping[str, str], speaker: Mapping[str, Any], messages: Sequence[Mapping[str, str]]
) -> AsyncIterator[Piece]:
    name = speaker["server"]
    body = {
        "model": speaker["model"],
        "messages": list(messages),
        "stream": True,
        "temperature": speaker["temperature"],
        "top_p": speaker["top_p"],
        "max_tokens": speaker["max_tokens"],
        "seed": speaker["seed"],
    }
    began = time.monotonic()
    try:
        async with open_client(server["url"]) as client:
            request = client.build_request(
                "POST", f"{server['url']}/chat/completions", json=body, headers=headers_for(server),
                timeout=httpx.Timeout(settings.MODEL_FIRST_TOKEN_SECONDS, connect=CONNECT_SECONDS),
            )  # fmt: skip
            answer = await client.send(request, stream=True)
            try:
                if answer.status_code != 200:
                    raise await _trouble_of(answer, name)
                pieces = (
                    _events(answer, name)
                    if "event-stream" in answer.headers.get("content-type", "")
                    else _whole(answer, name)
                )
                async for piece in _in_time(pieces, name, began):
                    yield piece
            finally:
                await answer.aclose()
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        trouble = ServerTrouble("unreachable", f"{name}: {type(error).__name__}: {error}")
        raise _Again(trouble, RETRY_SECONDS) from None
    except httpx.TimeoutException:
        raise ServerTrouble("stalled", f"{name}: nothing came for too long") from None
    except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
        raise ServerTrouble("cut", f"{name}: {type(error).__name__}: {error}") from None
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise ServerTrouble("garbage", f"{name}: {type(error).__name__}: {error}") from None


def headers_for(server: Mapping[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {server['key']}"} if server.get("key") else {}


async def _in_time(pieces: AsyncIterator[Piece], name: str, began: float) -> AsyncIterator[Piece]:
    """Text must begin and go on in time: comments that only keep the line open don't count."""
    n_characters = 0
    deadline = began + settings.MODEL_FIRST_TOKEN_SECONDS
    while True:
        try:
            async with asyncio.timeout(max(0.05, deadline - time.monotonic())):
                piece = await anext(pieces)
        except TimeoutError:
            what = "between two parts" if n_characters else "before the first part"
            raise ServerTrouble("stalled", f"{name}: too long {what}") from None
        except StopAsyncIteration:
            raise ServerTrouble("cut", f"{name}: the stream ended without an end") from None
        deadline = time.monotonic() + settings.MODEL_NEXT_TOKEN_SECONDS
        n_characters += len(piece.text)
        if n_characters > MAX_CHARACTERS:
            raise ServerTrouble("too_much", f"{name}: more than {MAX_CHARACTERS} characters")
        yield piece
        if piece.finish_reason:
            return


async def _events(answer: httpx.Response, name: str) -> AsyncIterator[Piece]:
    """Server-sent events, one JSON object each, until [DONE]."""
    finish_reason = ""
    async for line in _lines(answer, name):
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            yield Piece(finish_reason=finish_reason or "stop")
            return
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            raise ServerTrouble("garbage", f"{name}: an event is not JSON: {data[:200]!r}") from None
        if isinstance(event, dict) and event.get("error"):
            raise ServerTrouble("failed", f"{name}: {_message_of(event)}")
        choice = _choice_of(event, name)
        if choice is None:
            continue
        delta = choice.get("delta")
        text = delta.get("content") if isinstance(delta, dict) else None
        if text is not None and not isinstance(text, str):
            raise ServerTrouble("garbage", f"{name}: the content of an event is not a text")
        if text or (isinstance(delta, dict) and delta):
            yield Piece(text=_clean(text or ""))  # an empty one is a sign of life: the role, or a model that reasons
        if choice.get("finish_reason"):
            finish_reason = str(choice["finish_reason"])[:40]
    if finish_reason:  # some servers leave [DONE] out
        yield Piece(finish_reason=finish_reason)


async def _lines(answer: httpx.Response, name: str) -> AsyncIterator[str]:
    rest = b""
    async for chunk in answer.aiter_bytes():
        rest += chunk
        *lines, rest = rest.split(b"\n")
        if len(rest) > MAX_LINE:
            raise ServerTrouble("garbage", f"{name}: a line longer than {MAX_LINE} bytes")
        for line in lines:
            yield line.rstrip(b"\r").decode("utf-8", "replace")
    if rest:
        yield rest.decode("utf-8", "replace")


async def _whole(answer: httpx.Response, name: str) -> AsyncIterator[Piece]:
    """From a server that doesn't stream."""
    body = await _body_of(answer, MAX_LINE)
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        raise ServerTrouble("garbage", f"{name}: the answer is no completion: {body[:200]!r}") from None
    choice = _choice_of(parsed, name)
    message = choice.get("message") if choice else None
    text = message.get("content") if isinstance(message, dict) else None
    if not isinstance(text, str):
        raise ServerTrouble("garbage", f"{name}: the answer holds no completion")
    yield Piece(text=_clean(text))
    yield Piece(finish_reason=str(choice.get("finish_reason") or "stop")[:40])


def _choice_of(event: Any, name: str) -> dict[str, Any] | None:
    choices = event.get("choices") if isinstance(event, dict) else None
    if not isinstance(choices, list):
        raise ServerTrouble("garbage", f"{name}: an event without choices")
    if choices and not isinstance(choices[0], dict):
        raise ServerTrouble("garbage", f"{name}: a choice is not an object")
    return choices[0] if choices else None


async def _trouble_of(answer: httpx.Response, name: str) -> Exception:
    status = answer.status_code
    body = await _body_of(answer, MAX_ERROR_BODY)
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        parsed = None
    said = _message_of(parsed) if isinstance(parsed, dict) else body[:200].decode("utf-8", "replace")
    detail = f"{name}: HTTP {status}: {said}"
    error = parsed.get("error") if isinstance(parsed, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    if code == "context_length_exceeded" or (status == 400 and "context length" in said.lower()):
        return ServerTrouble("too_long", detail)
    if status in (429, 503):
        wait = _wait_of(answer)
        trouble = ServerTrouble("busy" if status == 429 else "unreachable", detail)
        return _Again(trouble, wait) if wait <= LONGEST_WAIT else trouble
    if status == 404:
        return ServerTrouble("no_model", detail)
    if status >= 500:
        return ServerTrouble("failed", detail)
    return ServerTrouble("refused", detail)


def _wait_of(answer: httpx.Response) -> float:
    asked = answer.headers.get("retry-after", "")
    try:
        return max(0.0, float(asked)) if asked else RETRY_SECONDS
    except ValueError:
        return LONGEST_WAIT + 1


def _message_of(parsed: Mapping[str, Any]) -> str:
    error = parsed.get("error")
    said = error.get("message") if isinstance(error, dict) else error or parsed.get("message") or parsed.get("detail")
    return str(said)[:500]


async def _body_of(answer: httpx.Response, limit: int) -> bytes:
    body = b""
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > limit:
            break
    return body[:limit]


def _clean(text: str) -> str:
    """A model may say anything; a database refuses NUL and halves of a character."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


async def announce(server: Mapping[str, str], model: str) -> None:
    """Ask about a model that is about to be used: our own server loads it meanwhile. What goes wrong shows later."""
    with contextlib.suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(LIST_SECONDS), open_client(server["url"]) as client:
            await client.get(f"{server['url']}/models/{quote(model, safe='')}", headers=headers_for(server))


# --- for leads ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ServerState:
    """Whether a server answers, what it offers, and if not, why."""

    name: str
    models: list[str]
    problem: str = ""
    seconds: float = 0.0


async def server_state(name: str, server: Mapping[str, str]) -> ServerState:
    began = time.monotonic()
    try:
        async with asyncio.timeout(LIST_SECONDS), open_client(server["url"]) as client:
            answer = await client.get(f"{server['url']}/models", headers=headers_for(server))
        if answer.status_code != 200:
            return ServerState(name, [], f"answers {answer.status_code} when asked for its models")
        rows = answer.json()["data"]
        models = [str(row["id"])[:200] for row in rows[:MAX_MODELS]]
    except TimeoutError:
        return ServerState(name, [], f"does not answer within {LIST_SECONDS:g} s")
    except (httpx.ConnectError, httpx.ConnectTimeout):
        return ServerState(name, [], "can't be reached: is it running?")
    except httpx.HTTPError as error:
        return ServerState(name, [], f"{type(error).__name__}: {error}"[:300])
    except (ValueError, KeyError, TypeError):
        return ServerState(name, [], "answers, but not with a list of models")
    return ServerState(name, models, seconds=time.monotonic() - began)


async def server_states(servers: Mapping[str, Mapping[str, str]]) -> list[ServerState]:
    return list(await asyncio.gather(*(server_state(name, server) for name, server in servers.items())))


@dataclass(frozen=True)
class Trial:
    """What became of one completion asked for to see whether a speaker works."""

    text: str = ""
    seconds_to_first: float = 0.0
    seconds: float = 0.0
    problem: str = ""


async def try_speaker(server: Mapping[str, str], speaker: Mapping[str, Any]) -> Trial:
    """A few words from a speaker, with how long they took."""
    began = time.monotonic()
    first, text = 0.0, ""
    asked = {**speaker, "max_tokens": min(24, speaker["max_tokens"]), "seed": 1}
    try:
        async for piece in stream_completion(
            server, asked, [{"role": "user", "content": "Say hello in one sentence."}]
        ):
            if piece.text and not first:
                first = time.monotonic() - began
            text += piece.text
    except ServerTrouble as trouble:
        return Trial(problem=str(trouble))
    return Trial(text.strip()[:300], first, time.monotonic() - began)
