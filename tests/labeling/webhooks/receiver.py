"""Receivers of webhooks: real servers that take, fail, hang, drip and redirect."""

import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Receiver:
    """Keeps every message. `says`: a status, `hang` (no answer until it is closed), `drip`, `endless`, `cut` or `redirect`."""

    says: int | str = 204
    redirect_to: str = ""
    messages: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    came: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    closing: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Receiver":
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.messages.append(({name.lower(): value for name, value in self.headers.items()}, body))
                receiver.came.release()
                receiver.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/hook?team=7"

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.messages]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        if isinstance(self.says, int):
            handler.send_response(self.says)
            handler.send_header("X-Note", "of the receiver")
            handler.end_headers()
            if self.says >= 300:
                handler.wfile.write(b"words of the receiver")
        elif self.says == "hang":
            self.closing.wait(60)
        elif self.says == "drip":
            for byte in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000:
                if self.closing.wait(0.05):
                    return
                handler.wfile.write(bytes([byte]))
        elif self.says == "endless":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not self.closing.is_set():
                handler.wfile.write(b"X: " + b"y" * 60_000 + b"\r\n")
        elif self.says == "cut":
            handler.connection.shutdown(socket.SHUT_RDWR)
        elif self.says == "redirect":
            handler.send_response(307)
            handler.send_header("Location", self.redirect_to)
            handler.end_headers()


class Canary:
    """Listens on one port of the loopback, IPv4 and IPv6, and counts who connects."""

    def __enter__(self) -> "Canary":
        self.n_accepted = 0
        first = socket.create_server(("127.0.0.1", 0))
        self.port = first.getsockname()[1]
        self.sockets = [first]
        if socket.has_ipv6:
            self.sockets.append(socket.create_server(("::1", self.port), family=socket.AF_INET6))
        for listener in self.sockets:
            threading.Thread(target=self._accept, args=[listener], daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        for listener in self.sockets:
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.n_accepted += 1
            connection.close()
