"""One connection to a site: requests, tries, pages and errors."""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, quote, urlsplit

import httpx

from training.client._download import Download
from training.client.errors import ApiError, ConnectionFailed, error_of

# The server, or a proxy before it, is not able to answer now.
UNAVAILABLE = frozenset({502, 503, 504})

JSON = dict[str, Any]


class Connection:
    """A connection to one Prefloop site, to be used by one thread at a time.

    A call that failed on the way is tried again, `retries` times at most and with growing pauses, where that
    cannot do anything twice. Every call is tried again if the server was never reached or asked to wait (429),
    unless for more than `max_wait_seconds`.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        timeout: float = 30.0,
        *,
        retries: int = 5,
        backoff_seconds: float = 0.5,
        max_wait_seconds: float = 60.0,
    ) -> None:
        self._http = httpx.Client(base_url=url.rstrip("/") + "/api/v1/", timeout=timeout)
        self._retries = retries
        self._backoff_seconds = backoff_seconds
        self._max_wait_seconds = max_wait_seconds
        if token:
            self._use_token(token)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def _use_token(self, token: str) -> None:
        self._http.headers["Authorization"] = f"Bearer {token}"

    def _pages(self, path: str, filters: Mapping[str, str] | None = None) -> Iterator[Any]:
        params = dict(filters or {})
        while True:
            page = self._call("GET", path, params=params)
            yield from page["results"]
            if not page.get("next"):
                return
            # Only the query is taken: behind a proxy the address may be one that cannot be reached from here,
            # and the token is for this site alone.
            params = dict(parse_qsl(urlsplit(page["next"]).query))

    def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        body: Callable[[], Mapping[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = False,
        answer_seconds: float | None = None,
    ) -> Any:
        """Send a request and return its decoded answer, None where it has none.

        `body` makes the content anew for each try, as arguments of httpx (`content`, `files`). `repeatable` says that
        doing it twice is harmless, as for GET and PUT. `answer_seconds` is for calls that take the server long.
        """
        timeout = httpx.Timeout(self._http.timeout.connect, read=answer_seconds) if answer_seconds else self._http.timeout
        repeatable = repeatable or method in {"GET", "PUT"}
        for attempt in range(self._retries + 1):
            is_last = attempt == self._retries
            try:
                response = self._http.request(
                    method, path, params=params, json=json, headers=headers, timeout=timeout, **(body() if body else {})
                )
            except httpx.TransportError as error:
                never_arrived = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
                if is_last or not (repeatable or never_arrived):
                    raise ConnectionFailed(f"{method} {path}: {error or type(error).__name__}") from error
                self._pause(attempt)
                continue
            may_retry = response.status_code == 429 or (repeatable and response.status_code in UNAVAILABLE)
            if may_retry and not is_last and self._is_worth_waiting_for(response):
                self._pause(attempt, response)
                continue
            return _decode(response)
        raise AssertionError("unreachable")

    @contextmanager
    def _stream(self, path: str, params: Mapping[str, str], headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """Yields an answer that is no error, but for 416. A file that is still being made is waited for."""
        attempt = 0
        while True:
            with self._http.stream("GET", path, params=params, headers=headers) as response:
                if response.status_code == 416 or not response.is_error:
                    yield response
                    return
                response.read()
                error = _error(response)
                is_busy = response.status_code == 429 or response.status_code in UNAVAILABLE
                if not is_busy or not self._is_worth_waiting_for(response):
                    raise error
                if error.code != "being_made":
                    if attempt == self._retries:
                        raise error
                    attempt += 1
            self._pause(attempt - 1 if attempt else 0, response)

    def _fetch(
        self, path: str, params: Mapping[str, str], download: Download, report: Callable[[int, int | None], None]
    ) -> bool:
        """Receive a file over as many connections as it takes; False where the target is the server's file already."""
        failures = 0  # since something arrived last
        while True:
            before = download.received
            try:
                with self._stream(path, params, download.headers()) as response:
                    if response.status_code == 304:
                        return False
                    if response.status_code != 416:
                        download.receive(response, report)
                        return True
                    # Nothing is left to send, or the part is of another file.
                    if download.is_whole(response):
                        return True
                    download.restart()
                    failures += 1
            except httpx.TransportError as error:
                failures = 0 if download.received > before else failures + 1
                if failures > self._retries:
                    raise ConnectionFailed(f"GET {path}: {error}") from error
                self._pause(failures)
            if failures > self._retries:
                raise ConnectionFailed(f"GET {path}: the server refuses every range of it")

    def _pause(self, attempt: int, response: httpx.Response | None = None) -> None:
        """Wait as long as the server asks for, or twice as long as the last time, with some spread."""
        asked = _retry_after_seconds(response.headers.get("Retry-After")) if response is not None else None
        seconds = self._backoff_seconds * 2**attempt * random.uniform(0.75, 1.25) if asked is None else asked
        time.sleep(min(seconds, self._max_wait_seconds))

    def _is_worth_waiting_for(self, response: httpx.Response) -> bool:
        """Whether the server asks for no longer a pause than a caller would sit through."""
        return (_retry_after_seconds(response.headers.get("Retry-After")) or 0) <= self._max_wait_seconds


def part(value: object) -> str:
    """One part of a path, quoted."""
    return quote(str(value), safe="")


def _decode(response: httpx.Response) -> Any:
    if response.is_error:
        raise _error(response)
    if response.status_code == 204 or not response.content:
        return None
    try:
        return response.json()
    except ValueError as error:
        raise ApiError(
            "not_json",
            "The answer is not JSON: is this the address of a Prefloop site?",
            status=response.status_code,
        ) from error


def _error(response: httpx.Response) -> ApiError:
    try:
        error = response.json()["error"]
        return error_of(error["code"], error["message"], error.get("fields"), response.status_code)
    except (ValueError, KeyError, TypeError):
        # Not from the API itself: a proxy, or another site.
        return error_of("http_error", response.reason_phrase or "The server failed", None, response.status_code)


def _retry_after_seconds(value: str | None) -> float | None:
    """Read a Retry-After header: seconds, or a date."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
