"""One request to a receiver: resolved once, connected to the address that was judged, and over in seconds.

No redirect is followed, no proxy is asked, and of the answer only the status is read: nothing that a receiver says is
kept or shown.
"""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx

from labeling.webhooks.addresses import Address, BadAddress, Rules, Target, check_found, read_address

SECONDS = 5.0  # for everything: the name, the connection, TLS, sending and the status line
AGENT = "Prefloop-Webhooks/1"

# Given a host and a port, its numeric addresses. Raises OSError.
Resolve = Callable[[str, int], Iterable[str]]


@dataclass(frozen=True)
class Outcome:
    """What came of one try. `error` is one of our own words, empty where it was delivered."""

    milliseconds: int
    status: int | None = None
    error: str = ""

    @property
    def is_delivered(self) -> bool:
        return not self.error


def send(
    url: str, body: bytes, headers: Mapping[str, str], rules: Rules, *, seconds: float = SECONDS, resolve: Resolve | None = None
) -> Outcome:
    """POST the body; whatever goes wrong is an outcome. Only a status from 200 to 299 counts as delivered."""
    began = time.monotonic()
    status, error = None, ""
    try:
        target = read_address(url, rules)
        deadline = Deadline(began + seconds)
        found = _resolved(target, deadline, resolve or addresses_of)
        status = _post(target, check_found(found, target, rules), body, headers, deadline)
        error = _word_for(status)
    except BadAddress:
        error = "refused_address"
    except (httpcore.TimeoutException, TimeoutError):
        error = "timeout"
    except socket.gaierror:
        error = "no_such_host"
    except ssl.SSLError:
        error = "tls"
    except httpcore.ConnectError as problem:
        error = "tls" if isinstance(problem.__context__, ssl.SSLError) else "no_connection"
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError):
        error = "broken_off"
    return Outcome(int(1000 * (time.monotonic() - began)), status, error)


def _word_for(status: int) -> str:
    if 200 <= status < 300:
        return ""
    if 300 <= status < 400:
        return "redirected"
    return "gone" if status == 410 else "refused"


class Deadline:
    """A moment for all steps together: a receiver that sends a byte now and then wins nothing by it."""

    def __init__(self, at: float) -> None:
        self.at = at

    def left(self) -> float:
        """Seconds, more than 0. Raises TimeoutError."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("over")
        return left


def addresses_of(host: str, port: int) -> list[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _resolved(target: Target, deadline: Deadline, resolve: Resolve) -> list[str]:
    """The question to the name server knows no time-out, so it is asked by a thread that isn't waited for any longer."""
    answer: list[Any] = []

    def ask() -> None:
        try:
            answer.append(list(resolve(target.host, target.port)))
        except OSError as error:
            answer.append(error)

    thread = threading.Thread(target=ask, name="webhook-resolve", daemon=True)
    thread.start()
    thread.join(deadline.left())
    if not answer:
        raise TimeoutError
    if isinstance(answer[0], OSError):
        raise answer[0]
    return answer[0]


def _post(
    target: Target, addresses: list[Address], body: bytes, headers: Mapping[str, str], deadline: Deadline
) -> int:
    url = httpcore.URL(
        scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path.encode()
    )
    sent = {
        "Host": target.authority, "User-Agent": AGENT, "Content-Type": "application/json",
        "Content-Length": str(len(body)), "Connection": "close", **headers,
    }  # fmt: skip
    with (
        httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(), network_backend=CheckedAddresses(addresses, deadline),
            max_connections=1, http1=True, http2=False, retries=0,
        ) as pool,
        pool.stream("POST", url, headers=list(sent.items()), content=body) as response,
    ):  # fmt: skip
        return response.status


class CheckedAddresses(httpcore.NetworkBackend):
    """Connects to the addresses that were judged, whatever the name says by now."""

    def __init__(self, addresses: list[Address], deadline: Deadline) -> None:
        self.addresses, self.deadline = addresses, deadline
        self.network = httpcore.SyncBackend()

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None, socket_options: Any = None
    ) -> httpcore.NetworkStream:
        problem: Exception = httpcore.ConnectError("no address")
        for address in self.addresses:
            try:
                return InTime(self.network.connect_tcp(str(address), port, timeout=self.deadline.left()), self.deadline)
            except httpcore.ConnectError as error:
                problem = error
        raise problem

    def connect_unix_socket(self, path: str, timeout: float | None = None, socket_options: Any = None) -> httpcore.NetworkStream:
        raise httpcore.ConnectError("only the network")


class InTime(httpcore.NetworkStream):
    """A stream on which every step has as long as the deadline leaves."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self.stream, self.deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self.stream.read(max_bytes, self.deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.stream.write(buffer, self.deadline.left())

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> "InTime":
        return InTime(self.stream.start_tls(ssl_context, server_hostname, self.deadline.left()), self.deadline)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self.stream.get_extra_info(info)
