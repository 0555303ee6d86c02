"""Sampling from a server that speaks OpenAI's chat completions: vLLM, SGLang, llama.cpp, TGI, hosted services.

One request a completion, each with its own seed, so that what is sampled depends on no neighbour. Whether equal
seeds give equal texts is the server's promise, not ours: vLLM batches as requests come, and some servers ignore seeds.

What goes wrong is one of three things. A refusal of one prompt (too long, filtered) is a Generation with a `problem`.
What may pass (429, 5xx, a lost connection, a torn or malformed answer) is tried again, with pauses that grow, or as
long as `Retry-After` asks. All else ends the sampling with an EndpointError that says what to do.

httpcore is used directly, not by way of httpx, for its network backend: it lets a connection go to the addresses
that were judged, whatever the name says by then. No redirect is followed and no proxy is asked.
"""

import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpcore
import httpx

from training.sampling.accounting import BudgetReached, Ledger, RateLimit, most_prompt_tokens
from training.sampling.backends import Generation, GenerationRequest

AGENT = "Prefloop/1"
MAX_ANSWER_BYTES = 16 * 1024 * 1024
MAX_PAUSE_SECONDS = 30.0
MAX_RETRY_AFTER_SECONDS = 300.0
CONNECT_SECONDS = 10.0
LOOK_SECONDS = 0.5
SAID_CHARACTERS = 300
TRY_AGAIN = {408, 409, 425, 429}
MAY_HAVE_GENERATED = {500, 502, 504}  # what failed on the way back may be on the bill
TOO_LONG_CODES = {"context_length_exceeded", "exceed_context_size_error"}
TOO_LONG_WORDS = re.compile(
    r"context[ _-](length|size|window)|max_model_len|maximum model length|prompt is too long|too many tokens", re.I
)
FILTERED_CODES = {"content_filter", "content_policy_violation"}


class EndpointError(Exception):
    """The server can't be sampled from as it is; the message says what it answered and what to do."""


class _Passing(Exception):
    """What may be over soon. `seconds`: what the server asks to wait; `is_lost`: whether it may have generated."""

    def __init__(self, text: str, *, seconds: float | None = None, is_lost: bool = False) -> None:
        super().__init__(text)
        self.seconds, self.is_lost = seconds, is_lost


class _Refused(Exception):
    """The server will never answer this one prompt."""


class _Abandoned(Exception):
    """Sampling ends while this request was waiting to be tried again."""


@dataclass(frozen=True)
class Endpoint:
    """Where to ask and how hard.

    `url` goes up to `/v1`. With `addresses`, connections go to these numeric ones alone. `model` is the name that the
    server knows; `revision` is what the operator says it holds. Limits of 0 are none.
    """

    url: str
    model: str
    name: str = ""
    revision: str = ""
    key: str = field(default="", repr=False)
    addresses: tuple[str, ...] = ()
    concurrency: int = 8
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    timeout_seconds: float = 120.0
    attempts: int = 6

    @property
    def facts(self) -> dict[str, str]:
        """What is kept with each completion."""
        told = {"endpoint": self.name or self.url, "served_model": self.model, "revision": self.revision}
        return {name: value for name, value in told.items() if value}


class OpenAICompatibleBackend:
    """Samples from one endpoint, `concurrency` requests at a time over connections that are kept alive.

    `ledger` counts tokens and ends the sampling with BudgetReached before a budget is exceeded. When `stop` turns
    true, nothing more is asked for and what is under way is still yielded. `first_pause_seconds` is before the
    second attempt; each later pause doubles, up to half a minute.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        ledger: Ledger | None = None,
        stop: Callable[[], bool] = lambda: False,
        first_pause_seconds: float = 0.5,
    ) -> None:
        self.endpoint = endpoint
        self.ledger = ledger or Ledger()
        self.stop = stop
        self.first_pause_seconds = first_pause_seconds
        self.n_retries = 0
        self._rate = RateLimit(endpoint.requests_per_minute, endpoint.tokens_per_minute)
        self._connections = Connections(endpoint)
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._not_before = 0.0
        self._beyond_bound = 0  # prompt tokens that the server's template adds to our bound

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Generation]:
        """Yield results as they come.

        On EndpointError or BudgetReached nothing more is asked for; it is raised once everything under way has been
        yielded.
        """
        self._ending = threading.Event()
        waiting = iter(requests)
        running: set[Future[Generation]] = set()
        problem: Exception | None = None
        with ThreadPoolExecutor(self.endpoint.concurrency, thread_name_prefix="endpoint") as pool:
            try:
                while True:
                    if self.stop():
                        self._ending.set()
                    while len(running) < self.endpoint.concurrency and not self._ending.is_set():
                        if (request := next(waiting, None)) is None:
                            break
                        running.add(pool.submit(self._complete, request))
                    if not running:
                        break
                    done, running = wait(running, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
                    for future in done:
                        try:
                            generation = future.result()
                        except _Abandoned:
                            continue
                        except (EndpointError, BudgetReached) as error:
                            problem = problem or error
                            self._ending.set()
                            continue
                        yield generation
            finally:
                self._ending.set()
        if problem is not None:
            raise problem

    def close(self) -> None:
        self._connections.close()
        self.ledger.close()

    def _complete(self, request: GenerationRequest) -> Generation:
        body = {
            "model": self.endpoint.model,
            "messages": [dict(message) for message in request.messages],
            "seed": request.seed,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "max_tokens": request.max_new_tokens,
            "n": 1,
            "stream": False,
        }
        for attempt in range(1, self.endpoint.attempts + 1):
            try:
                return self._attempt(request, body)
            except _Refused as refusal:
                return Generation(request.key, "", 0, False, problem=str(refusal))
            except _Passing as trouble:
                if attempt == self.endpoint.attempts:
                    raise EndpointError(
                        f"{self.endpoint.url} failed {attempt} times in a row, at last: {trouble}. What was sampled "
                        "is kept; resume the run when the server is well."
                    ) from None
                self._pause(attempt, trouble)
        raise AssertionError("there is at least one attempt")

    def _attempt(self, request: GenerationRequest, body: dict[str, Any]) -> Generation:
        most = most_prompt_tokens(request.messages) + self._beyond_bound
        entry = self._wait_for_turn(most + request.max_new_tokens)
        reserved = self.ledger.reserve(most, request.max_new_tokens)
        used: tuple[int, int] | None = (0, 0)
        try:
            generation, used = read_answer(request, self._connections.post("/chat/completions", body), self.endpoint)
        except _Passing as trouble:
            used = None if trouble.is_lost else used
            raise
        except BaseException as error:
            used = used if isinstance(error, EndpointError | _Refused) else None
            raise
        finally:
            if used is None:
                self.ledger.lose(reserved)
            else:
                self.ledger.settle(reserved, *used)
                self._rate.correct(entry, sum(used))
        with self._lock:
            self._beyond_bound += max(0, used[0] - most)
        return generation

    def _wait_for_turn(self, tokens: int) -> list[float]:
        """Until the rate limit, and whatever pause the server asked all of us for, let one more request out."""
        while True:
            pause = self._not_before - time.monotonic()
            if pause <= 0:
                entry, pause = self._rate.take(tokens)
                if entry is not None:
                    return entry
            if self._ending.wait(pause):
                raise _Abandoned

    def _pause(self, attempt: int, trouble: _Passing) -> None:
        with self._lock:
            self.n_retries += 1
        if trouble.seconds is not None:
            if trouble.seconds > MAX_RETRY_AFTER_SECONDS:
                raise EndpointError(
                    f"{self.endpoint.url} asks to wait for {trouble.seconds:.0f} s ({trouble}). What was sampled is "
                    "kept; resume the run then."
                )
            with self._lock:
                self._not_before = max(self._not_before, time.monotonic() + trouble.seconds)
        longest = min(MAX_PAUSE_SECONDS, self.first_pause_seconds * 2 ** (attempt - 1))
        # Jitter, so that requests that failed together don't come back together.
        if self._ending.wait(longest * random.uniform(0.5, 1.0)):
            raise _Abandoned


def read_answer(
    request: GenerationRequest, answer: Mapping[str, Any], endpoint: Endpoint
) -> tuple[Generation, tuple[int, int]]:
    """The completion in an answer, and (prompt tokens, new tokens) used. Raises what `_complete` tries again or reports."""
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(content, str | None):
        raise _Passing("its answer holds no completion: is this a server of chat completions?", is_lost=True)
    usage = answer.get("usage")
    counts = [usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens")]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise _Passing("its answer doesn't say how many tokens were used", is_lost=True)
    facts = dict(endpoint.facts)
    for name, told in (("answered_by", answer.get("model")), ("system_fingerprint", answer.get("system_fingerprint"))):
        if isinstance(told, str) and told:
            facts[name] = told[:200]
    reason = choice.get("finish_reason")
    generation = Generation(
        key=request.key,
        content=(content or "").strip(),
        n_tokens=counts[1],
        finished=reason not in ("length", None),
        problem="the server's filter held it back" if reason == "content_filter" else "",
        facts=facts,
    )
    return generation, (counts[0], counts[1])


def served_models(endpoint: Endpoint, *, seconds: float = 5.0) -> list[str]:
    """The names of `/models`: asks whether a server is there and takes the key. Raises EndpointError."""
    connections = Connections(endpoint, seconds=seconds)
    try:
        answer = connections.get("/models")
        rows = answer.get("data")
        if not isinstance(rows, list):
            raise EndpointError(f"{endpoint.url}/models answers something else than a list of models")
        return [str(row["id"]) for row in rows if isinstance(row, dict) and "id" in row]
    except (_Passing, _Refused) as error:
        raise EndpointError(str(error)) from None
    finally:
        connections.close()


class Connections:
    """Kept-alive connections to one server, and what its statuses mean."""

    def __init__(self, endpoint: Endpoint, *, seconds: float | None = None) -> None:
        self.endpoint = endpoint
        self.seconds = seconds or endpoint.timeout_seconds
        self._headers = [
            ("User-Agent", AGENT), ("Accept", "application/json"), ("Content-Type", "application/json"),
            *([("Authorization", f"Bearer {endpoint.key}")] if endpoint.key else []),
        ]  # fmt: skip
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context() if endpoint.url.startswith("https:") else None,
            max_connections=endpoint.concurrency, max_keepalive_connections=endpoint.concurrency, keepalive_expiry=60.0,
            http1=True, http2=False, retries=0,
            network_backend=JudgedAddresses(endpoint.addresses) if endpoint.addresses else None,
        )  # fmt: skip

    def get(self, path: str) -> dict[str, Any]:
        return self._ask("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._ask("POST", path, json.dumps(body).encode())

    def close(self) -> None:
        self._pool.close()

    def _ask(self, method: str, path: str, content: bytes | None) -> dict[str, Any]:
        limits = {"connect": min(CONNECT_SECONDS, self.seconds), "read": self.seconds, "write": self.seconds}
        deadline = time.monotonic() + self.seconds
        try:
            with self._pool.stream(
                method, self.endpoint.url + path, headers=self._headers, content=content, extensions={"timeout": limits}
            ) as response:
                data = b""
                for piece in response.iter_stream():
                    data += piece
                    if len(data) > MAX_ANSWER_BYTES:
                        raise _Passing(f"its answer is longer than {MAX_ANSWER_BYTES} bytes", is_lost=True)
                    if time.monotonic() > deadline:
                        raise _Passing(f"no whole answer within {self.seconds:g} s", is_lost=True)
                status, headers = response.status, response.headers
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            raise _Passing(f"no connection ({self._clean(error)})") from None
        except httpcore.TimeoutException:
            raise _Passing(f"no answer within {self.seconds:g} s", is_lost=True) from None
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise _Passing(f"the connection broke off ({self._clean(error)})", is_lost=True) from None
        if status == 200:
            return self._parsed(data)
        raise self._failure(status, dict(headers), data)

    def _parsed(self, data: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            raise _Passing(f"its answer is no JSON: {self._clean(data)}", is_lost=True) from None
        if not isinstance(answer, dict):
            raise _Passing("its answer is no JSON object", is_lost=True)
        return answer

    def _failure(self, status: int, headers: Mapping[bytes, bytes], data: bytes) -> Exception:
        """The exception that a status means."""
        code, said = _error_in(data)
        said = self._clean(said)
        where = f"{self.endpoint.url} answers {status}"
        if status in (400, 413, 422) and (code in TOO_LONG_CODES or TOO_LONG_WORDS.search(said)):
            return _Refused(f"context length exceeded: {said}")
        if status == 400 and code in FILTERED_CODES:
            return _Refused(f"refused by the server's filter: {said}")
        if status == 429 and code == "insufficient_quota":
            return EndpointError(f"{where}: the quota of its account is used up ({said})")
        if status in TRY_AGAIN or status >= 500:
            return _Passing(f"{status}: {said}", seconds=retry_after_seconds(headers), is_lost=status in MAY_HAVE_GENERATED)
        if status in (401, 403):
            return EndpointError(f"{where}: it refuses the key ({said}). Enter another key for this endpoint.")
        if status == 404:
            return EndpointError(
                f"{where}: there is no model {self.endpoint.model!r}, or the address is wrong: it must go up to /v1 ({said})"
            )
        if 300 <= status < 400:
            return EndpointError(f"{where}: it redirects, which is not followed. Enter the address where it leads.")
        return EndpointError(f"{where}: {said}")

    def _clean(self, said: object) -> str:
        """What a server or library says, short, printable, and without the key that a server may repeat."""
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        if self.endpoint.key:
            text = text.replace(self.endpoint.key, "***")
        text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
        return text[:SAID_CHARACTERS] or "no reason given"


class JudgedAddresses(httpcore.NetworkBackend):
    """Connects to the given numeric addresses, whatever the host's name leads to by now."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = addresses
        self.network = httpcore.SyncBackend()

    def connect_tcp(self, host: str, port: int, **how: Any) -> httpcore.NetworkStream:
        problem: Exception = httpcore.ConnectError("no address")
        for address in self.addresses:
            try:
                return self.network.connect_tcp(address, port, **how)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                problem = error
        raise problem

    def connect_unix_socket(self, path: str, **how: Any) -> httpcore.NetworkStream:
        raise httpcore.ConnectError("only the network")


def _error_in(data: bytes) -> tuple[str, str]:
    """(code, message) of an error in OpenAI's shape, in vLLM's older one, or of any other body."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return "", data.decode("utf-8", "replace")
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return "", str(error)
    return str(error.get("code") or error.get("type") or ""), str(error.get("message") or "")


def retry_after_seconds(headers: Mapping[bytes, bytes]) -> float | None:
    """Seconds, from a number or a date (RFC 9110, 10.2.3); None where nothing sensible is asked."""
    value = {name.lower(): text for name, text in headers.items()}.get(b"retry-after", b"").decode("latin-1").strip()
    try:
        seconds = float(value)
        return seconds if 0 <= seconds < float("inf") else None
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())
