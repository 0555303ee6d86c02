"""A model server that speaks the real protocol over real HTTP and misbehaves as the model's name says.

`ScriptedServer().script("calm", say("Hello", " there"))` answers the model `calm` with two events. A script is a
function of the handler and the request's body; those below cover what servers do wrong.
"""

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "key-of-the-scripted-server"
Script = Callable[["Handler", dict[str, Any]], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "ScriptedServer"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(200, {"object": "list", "data": [{"id": name} for name in self.server.scripts]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((dict(self.headers), body))
        try:
            self.server.scripts[body["model"]](self, body)
        except (BrokenPipeError, ConnectionResetError):
            self.server.hung_up.set()

    def answer(self, status: int, body: Any, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", headers.pop("content_type", "application/json"))
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def raw(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def event(self, payload: Any) -> None:
        self.raw(b"data: " + json.dumps(payload).encode() + b"\n\n")

    def piece(self, text: str) -> None:
        self.event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})

    def complete(self, reason: str = "stop") -> None:
        self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        self.raw(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def drop(self) -> None:
        """Break the connection off."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


class ScriptedServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.scripts: dict[str, Script] = {}
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.hung_up = threading.Event()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def script(self, model: str, script: Script) -> "ScriptedServer":
        self.scripts[model] = script
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


def say(*pieces: str, seconds: float = 0.0, reason: str = "stop") -> Script:
    def script(handler: Handler, body: dict[str, Any]) -> None:
        handler.begin()
        handler.event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        for piece in pieces:
            handler.piece(piece)
            time.sleep(seconds)
        handler.complete(reason)

    return script


def echo(prefix: str) -> Script:
    """Something that depends on what was said last, so that each turn is another."""

    def script(handler: Handler, body: dict[str, Any]) -> None:
        n_turns = sum(message["role"] == "user" for message in body["messages"])
        text = f"{prefix} hears {body['messages'][-1]['content']!r} as message {n_turns}."
        say(*re.findall(r"\s*\S+", text))(handler, body)

    return script


def gated(gate: threading.Semaphore, words: Iterator[str] | list[str]) -> Script:
    """One word each time the test opens the gate."""

    def script(handler: Handler, body: dict[str, Any]) -> None:
        handler.begin()
        for word in words:
            assert gate.acquire(timeout=60)
            handler.piece(word)
        handler.complete()

    return script


def refuse(status: int, body: Any = None, **headers: str) -> Script:
    error = {"error": {"message": f"no, says {status}", "type": "x", "code": None}} if body is None else body
    return lambda handler, _: handler.answer(status, error, **headers)


def once(first: Script, then: Script) -> Script:
    waiting = [first]

    def script(handler: Handler, body: dict[str, Any]) -> None:
        (waiting.pop() if waiting else then)(handler, body)

    return script


def raw(*chunks: bytes) -> Script:
    def script(handler: Handler, body: dict[str, Any]) -> None:
        handler.begin()
        for chunk in chunks:
            handler.raw(chunk)
        handler.wfile.write(b"0\r\n\r\n")

    return script


def cut_after(*pieces: str) -> Script:
    def script(handler: Handler, body: dict[str, Any]) -> None:
        handler.begin()
        for piece in pieces:
            handler.piece(piece)
        handler.drop()

    return script


def stall_after(*pieces: str, until: threading.Event, sign_of_life: bytes = b"") -> Script:
    def script(handler: Handler, body: dict[str, Any]) -> None:
        handler.begin()
        for piece in pieces:
            handler.piece(piece)
        while not until.wait(0.1):
            if sign_of_life:
                handler.raw(sign_of_life)

    return script
