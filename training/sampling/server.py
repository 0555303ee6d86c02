"""A small server of local models that speaks the OpenAI protocol: `/v1/models` and `/v1/chat/completions`.

It listens on the loopback interface alone and asks for a secret, so that other users of the machine can't use it.
torch is imported with the first completion. Which models there are is the caller's to say:

    serve(ModelServer(resolver, secret="...").listen("127.0.0.1", 8002), idle_seconds=900)

Standard library only, but for the sampling itself: one thread a request, each waiting for the decoder's next piece.
"""

import contextlib
import hmac
import ipaddress
import json
import logging
import queue
import secrets
import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from training.sampling.backends import GenerationRequest
from training.sampling.model_files import ModelFilesError

if TYPE_CHECKING:
    from training.sampling.decoder import Decoder, Decoding

logger = logging.getLogger(__name__)

MAX_BODY = 4 * 1024 * 1024
MAX_NEW_TOKENS = 4096
MAX_MESSAGES = 1000
DEFAULT_NEW_TOKENS = 256
MAX_AT_ONCE = 16
WATCH_SECONDS = 0.25
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class ModelPlace:
    """Where a model lies: a folder of weights and, where it is an adapter on them, the adapter's folder."""

    model: str
    adapter: str | None = None


class Resolver(Protocol):
    """What the server knows of models. Called from many threads."""

    def names(self) -> Sequence[str]: ...

    def place_of(self, name: str) -> ModelPlace | None:
        """None for a name that isn't offered."""
        ...


class Refusal(Exception):
    """An answer in OpenAI's shape of an error."""

    def __init__(self, status: int, code: str, message: str, *, param: str | None = None, wait: int = 0) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.wait = status, code, param, wait

    @property
    def body(self) -> dict[str, Any]:
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class ChatRequest:
    model: str
    generation: GenerationRequest
    stream: bool
    include_usage: bool


def read_chat_request(body: Any) -> ChatRequest:
    """Check the parameters that count here; others of the protocol are left alone. Raises Refusal."""
    if not isinstance(body, dict):
        raise _wrong(None, "The body must be a JSON object")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise _wrong("model", "model must be a name, see /v1/models")
    messages = body.get("messages")
    if not isinstance(messages, list) or not 0 < len(messages) <= MAX_MESSAGES:
        raise _wrong("messages", f"messages must be a list of 1 to {MAX_MESSAGES} messages")
    for message in messages:
        if (
            not isinstance(message, dict)
            or message.get("role") not in ROLES
            or not isinstance(message.get("content"), str)
        ):
            raise _wrong("messages", f"each message needs a role, one of {', '.join(ROLES)}, and a text as its content")
    if body.get("n") not in (None, 1):
        raise _wrong("n", "n must be 1: ask once for each completion")
    n_tokens = body.get("max_completion_tokens")
    n_tokens = body.get("max_tokens") if n_tokens is None else n_tokens
    seed = body.get("seed")
    options = body.get("stream_options")
    return ChatRequest(
        model=model,
        generation=GenerationRequest(
            key="",
            messages=tuple({"role": one["role"], "content": one["content"]} for one in messages),
            seed=secrets.randbits(31) if seed is None else int(_number(seed, "seed", 0, 2**63 - 1, whole=True)),
            temperature=_number(body.get("temperature"), "temperature", 0, 2, 1.0),
            top_p=_number(body.get("top_p"), "top_p", 1e-6, 1, 1.0),
            max_new_tokens=int(_number(n_tokens, "max_tokens", 1, MAX_NEW_TOKENS, DEFAULT_NEW_TOKENS, whole=True)),
        ),
        stream=body.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def _wrong(param: str | None, message: str) -> Refusal:
    return Refusal(400, "invalid_value", message, param=param)


def _number(
    value: Any, name: str, low: float, high: float, default: float | None = None, *, whole: bool = False
) -> float:
    if value is None and default is not None:
        return default
    if (type(value) is not int and (whole or type(value) is not float)) or not low <= value <= high:
        kind = "whole number" if whole else "number"
        raise _wrong(name, f"{name} must be a {kind} from {low:g} to {high:g}")
    return value


class ModelServer(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, resolver: Resolver, *, secret: str, keep: int = 2) -> None:
        if len(secret) < 16:
            raise ValueError("The secret of a model server has at least 16 characters")
        self.resolver, self.secret, self.keep = resolver, secret, keep
        self.last_used = time.monotonic()
        self.n_active = 0
        self.prepared: set[str] = set()  # being loaded just now
        self._counting = threading.Lock()
        self._decoder: Decoder | None = None

    def listen(self, host: str, port: int) -> "ModelServer":
        """Raises ValueError for an address that others than this machine can reach."""
        if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"{host} can be reached from other machines: models are served to this one alone")
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)
        return self

    def take_socket(self, listening: socket.socket) -> "ModelServer":
        """Serve on a socket that someone else has bound."""
        super().__init__(listening.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.server_address = listening.getsockname()
        return self

    @property
    def port(self) -> int:
        return self.server_address[1]

    @property
    def decoder(self) -> "Decoder":
        with self._counting:
            if self._decoder is None:
                from training.sampling.decoder import Decoder  # imports torch

                self._decoder = Decoder(keep=self.keep)
            return self._decoder

    @contextlib.contextmanager
    def one_request(self) -> Iterator[None]:
        with self._counting:
            self.n_active += 1
            busy = self.n_active > MAX_AT_ONCE
        try:
            if busy:
                raise Refusal(429, "rate_limit_exceeded", f"More than {MAX_AT_ONCE} requests at once", wait=2)
            yield
        finally:
            with self._counting:
                self.n_active -= 1
                self.last_used = time.monotonic()

    def prepare(self, name: str) -> None:
        """Load a model in the background: who asks about one by its name is about to use it."""
        if name not in self.prepared:
            self.prepared.add(name)
            threading.Thread(target=self._prepare, args=(name,), name="prepare", daemon=True).start()

    def _prepare(self, name: str) -> None:
        try:
            place = self.resolver.place_of(name)
            if place is not None:
                self.decoder.load(place.model, place.adapter)
        except Exception:  # whoever then uses it is told
            logger.exception("model %s can't be loaded", name)
        finally:
            self.prepared.discard(name)
            self.last_used = time.monotonic()

    def idle_for(self) -> float:
        """Seconds since the last request ended."""
        return 0.0 if self.n_active else time.monotonic() - self.last_used

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a connection broke off", exc_info=True)

    def server_close(self) -> None:
        super().server_close()
        if self._decoder is not None:
            self._decoder.close()


def serve(server: ModelServer, *, idle_seconds: float = 0, stopped: threading.Event | None = None) -> None:
    """Until `stopped` is set or, where `idle_seconds` is not 0, nobody has asked for that long."""
    stopped = stopped or threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.25}, name="models", daemon=True)
    thread.start()
    while not stopped.wait(0.25):
        if idle_seconds and server.idle_for() > idle_seconds:
            break
    server.shutdown()
    server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "prefloop-models"
    sys_version = ""
    timeout = 60
    server: ModelServer
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing of a request is logged."""

    def _answer(self, act: Any) -> None:
        self.began = False
        try:
            with self.server.one_request():
                self._check_secret()
                act(urlsplit(self.path).path)
        except Refusal as refusal:
            self._send_json(refusal.status, refusal.body, wait=refusal.wait)
        except ModelFilesError as error:
            self._send_json(503, Refusal(503, "model_not_loadable", str(error)).body)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:
            logger.exception("a request failed")
            self.close_connection = True
            if not self.began:
                self._send_json(500, Refusal(500, "server_error", f"{type(error).__name__}: see the log").body)

    def _check_secret(self) -> None:
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.server.secret}".encode()):
            self.close_connection = True
            raise Refusal(401, "invalid_api_key", "The secret of this server is missing or wrong")

    def _get(self, path: str) -> None:
        names = list(self.server.resolver.names())
        if path == "/v1/models":
            self._send_json(200, {"object": "list", "data": [_model(name) for name in names]})
        elif path.startswith("/v1/models/") and (name := unquote(path.removeprefix("/v1/models/"))) in names:
            self._send_json(200, _model(name))
            self.server.prepare(name)
        else:
            raise Refusal(404, "not_found", "There is no such thing here")

    def _post(self, path: str) -> None:
        body = self._body()
        if path != "/v1/chat/completions":
            raise Refusal(404, "not_found", "There is no such thing here")
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError):
            raise _wrong(None, "The body is not JSON") from None
        chat = read_chat_request(parsed)
        place = self.server.resolver.place_of(chat.model)
        if place is None:
            raise Refusal(
                404, "model_not_found", f"There is no model {chat.model!r} here: see /v1/models", param="model"
            )
        decoder = self.server.decoder
        from training.sampling.decoder import TooLong

        try:
            decoding = decoder.start(place.model, place.adapter, chat.generation)
        except TooLong as error:
            raise Refusal(400, "context_length_exceeded", str(error), param="messages") from None
        try:
            facts = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": chat.model}
            if chat.stream:
                self._stream(chat, decoding, facts)
            else:
                self._send_whole(decoding, facts)
        finally:
            decoding.cancel()

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or len(length) > 12:
            self.close_connection = True
            raise Refusal(411, "length_required", "The body's length is missing")
        if int(length) > MAX_BODY:
            self.close_connection = True
            raise Refusal(413, "request_too_large", f"The body is longer than {MAX_BODY} bytes")
        return self.rfile.read(int(length))

    def _stream(self, chat: ChatRequest, decoding: "Decoding", facts: dict[str, Any]) -> None:
        self.began = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        facts = {**facts, "object": "chat.completion.chunk"}
        self._event({**facts, "choices": [_choice({"role": "assistant", "content": ""})]})
        for piece in self._pieces(decoding):
            self._event({**facts, "choices": [_choice({"content": piece})]})
        if decoding.error:
            self._event(Refusal(500, "server_error", decoding.error).body)
        else:
            self._event({**facts, "choices": [_choice({}, decoding.finish_reason)]})
            if chat.include_usage:
                self._event({**facts, "choices": [], "usage": _usage(decoding)})
            self._chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _send_whole(self, decoding: "Decoding", facts: dict[str, Any]) -> None:
        text = "".join(self._pieces(decoding))
        if decoding.error:
            raise Refusal(500, "server_error", decoding.error)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": decoding.finish_reason,
            "logprobs": None,
        }
        self._send_json(200, {**facts, "object": "chat.completion", "choices": [choice], "usage": _usage(decoding)})

    def _pieces(self, decoding: "Decoding") -> Iterator[str]:
        """Raises ConnectionError when the one who asked has gone."""
        while True:
            try:
                piece = decoding.next_piece(WATCH_SECONDS)
            except queue.Empty:
                self._check_still_there()
                continue
            if piece is None:
                return
            yield piece

    def _check_still_there(self) -> None:
        readable, _, _ = select.select([self.connection], [], [], 0)
        if readable and not self.connection.recv(1, socket.MSG_PEEK):
            raise ConnectionError("the other end has gone")

    def _event(self, payload: dict[str, Any]) -> None:
        self._chunk(b"data: " + json.dumps(payload, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self._check_still_there()

    def _send_json(self, status: int, payload: dict[str, Any], *, wait: int = 0) -> None:
        data = json.dumps(payload, ensure_ascii=False).encode("utf-8", "replace")
        self.began = True
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if wait:
                self.send_header("Retry-After", str(wait))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "prefloop"}


def _choice(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}


def _usage(decoding: "Decoding") -> dict[str, int]:
    return {
        "prompt_tokens": decoding.n_prompt_tokens,
        "completion_tokens": decoding.n_tokens,
        "total_tokens": decoding.n_prompt_tokens + decoding.n_tokens,
    }
