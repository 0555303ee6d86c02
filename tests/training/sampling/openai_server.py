"""A server of chat completions that can fail in every way, in a process of its own.

What it does wrong stands in the prompt: the last message may hold words such as `!429=2`, which makes the first two
requests of that prompt and seed answer 429. Every request is written to the log as a JSON line before it is answered.

Run: python -m tests.training.sampling.openai_server --log requests.jsonl [--key KEY] [--together 4]
"""

import argparse
import contextlib
import hashlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
MODEL = "org/served-7b"
FINGERPRINT = "fp_1"
WORDS = ("yes", "no", "perhaps", "tomorrow", "thanks", "page", "order", "please")


def completion_of(prompt: str, seed: int, words: int) -> str:
    """What the server says: a function of prompt and seed."""
    digest = hashlib.sha256(f"{prompt}/{seed}".encode()).digest()
    return " ".join(WORDS[byte % len(WORDS)] for byte in digest[:words])


def prompt_tokens_of(messages: list[dict[str, str]]) -> int:
    return sum(3 + len(message["content"].split()) for message in messages)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, log: Path, key: str, together: int, delay: float, hold_after: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.key, self.together, self.delay, self.hold_after = key, together, delay, hold_after
        self.log = log.open("a")
        self.lock = threading.Condition()
        self.seen: Counter[str] = Counter()
        self.under_way = 0
        self.most_under_way = 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is none of ours."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self._refused():
            return
        self._send(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server, prompt, seed = self.server, body["messages"][-1]["content"], body.get("seed")
        with server.lock:
            attempt = server.seen[f"{prompt}/{seed}"]
            server.seen[f"{prompt}/{seed}"] += 1
            server.under_way += 1
            holds = 0 < server.hold_after < server.seen.total()
            server.most_under_way = max(server.most_under_way, server.under_way)
            line = {
                "path": self.path, "body": body, "attempt": attempt, "connection": self.client_address[1],
                "authorization": self.headers.get("Authorization"), "host": self.headers.get("Host"), "at": time.time(),
                "under_way": server.under_way,
            }  # fmt: skip
            server.log.write(json.dumps(line) + "\n")
            server.log.flush()
            # With --together nobody is answered before so many are here at once: then they were.
            server.lock.notify_all()
            server.lock.wait_for(lambda: server.most_under_way >= server.together, timeout=20)
        try:
            if server.delay:
                time.sleep(server.delay)
            wrongs = dict(re.findall(r"!([a-z0-9]+)=(\S+)", prompt))
            wrong = next((name for name, times in wrongs.items() if not times.isdigit() or attempt < int(times)), "")
            if holds:
                self._answer(body, prompt, seed, "stall", "")
            elif not self._refused():
                self._answer(body, prompt, seed, wrong, wrongs.get(wrong, ""))
        finally:
            with server.lock:
                server.under_way -= 1

    def _refused(self) -> bool:
        if self.server.key and self.headers.get("Authorization") != f"Bearer {self.server.key}":
            given = self.headers.get("Authorization")
            self._send(401, {"error": {"message": f"Incorrect API key: {given}", "code": "invalid_api_key"}})
            return True
        return False

    def _answer(self, body: dict[str, Any], prompt: str, seed: int, wrong: str, how: str) -> None:
        if wrong == "429":
            self._send(429, {"error": {"message": "Slow down", "code": "rate_limit_exceeded"}}, {"Retry-After": "0"})
        elif wrong == "quota":
            self._send(429, {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}})
        elif wrong == "later":
            self._send(429, {"error": {"message": "Come tomorrow"}}, {"Retry-After": "86400"})
        elif wrong == "500":
            self._send(500, {"error": {"message": "Internal error"}})
        elif wrong == "503":
            self._send(503, {"object": "error", "message": "starting", "code": 503})
        elif wrong == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif wrong == "torn":
            self.send_response(200)
            self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(b'{"choices": [{"message": {"content": "half of i')
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif wrong == "html":
            self._send(200, b"<html>Please log in</html>")
        elif wrong == "shape":
            self._send(200, {"choices": []})
        elif wrong == "nousage":
            self._send(200, {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]})
        elif wrong == "context":
            said = "This model's maximum context length is 512 tokens. However, you requested 4000 tokens."
            code = {"code": "context_length_exceeded"} if how == "code" else {}
            self._send(400, {"error": {"message": said, "type": "BadRequestError", **code}})
        elif wrong == "filter":
            self._send(400, {"error": {"message": "Not this", "code": "content_filter"}})
        elif wrong == "bad":
            self._send(400, {"error": {"message": "temperature must be at most 2"}})
        elif wrong == "redirect":
            self._send(307, {}, {"Location": "http://127.0.0.1:1/v1"})
        elif wrong == "stall":
            with contextlib.suppress(OSError):
                self.connection.recv(1)  # until the client hangs up
            self.close_connection = True
        elif body["model"] != MODEL or self.path != "/v1/chat/completions":
            self._send(404, {"error": {"message": f"The model `{body['model']}` does not exist.", "code": 404}})
        else:
            self._complete(body, prompt, seed, silent=wrong == "empty")

    def _complete(self, body: dict[str, Any], prompt: str, seed: int, *, silent: bool) -> None:
        text = "" if silent else completion_of(prompt, seed, 6)
        words = text.split()[: body["max_tokens"]]
        finish = "length" if len(words) < len(text.split()) else "stop"
        usage = {"prompt_tokens": prompt_tokens_of(body["messages"]), "completion_tokens": len(words)}
        message = {"role": "assistant", "content": " ".join(words)}
        self._send(200, {
            "id": "1", "object": "chat.completion", "model": body["model"], "system_fingerprint": FINGERPRINT,
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {**usage, "total_tokens": sum(usage.values())},
        })  # fmt: skip

    def _send(self, status: int, payload: Any, headers: dict[str, str] | None = None) -> None:
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@dataclass
class Running:
    """The server as tests see it."""

    url: str
    port: int
    log: Path

    def seen(self) -> list[dict[str, Any]]:
        """The requests so far, in the order of their arrival; a line under way is left out."""
        text = self.log.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


@contextlib.contextmanager
def running_server(
    log: Path, *, key: str = "", together: int = 1, delay: float = 0.0, hold_after: int = 0
) -> Iterator[Running]:
    """With `together`, the first answers wait until so many requests are under way at once (20 s at most).

    With `hold_after`, only so many requests are answered; the others wait until the client hangs up.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.training.sampling.openai_server", "--log", str(log), "--key", key,
         "--together", str(together), "--delay", str(delay), "--hold-after", str(hold_after)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        port = int(process.stdout.readline())
        yield Running(f"http://127.0.0.1:{port}/v1", port, log)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, required=True, help="where requests are written")
    parser.add_argument("--key", default="", help="what to ask for; empty: nothing")
    parser.add_argument("--together", type=int, default=1, help="answer nobody before so many are here at once")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--hold-after", type=int, default=0, help="answer so many and no more; 0: all")
    args = parser.parse_args()
    server = Server(args.log, args.key, args.together, args.delay, args.hold_after)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
