"""Python client of the REST API, version 1.

    with Client("http://127.0.0.1:8000", token) as client:
        snapshot = client.create_snapshot("larkfell")
        client.download_snapshot(snapshot["id"], "train", path="train.jsonl")

Calls return the decoded JSON of the answer. They raise ApiError where the server refuses, and ConnectionFailed where it
cannot be reached.
"""

import hashlib
import json
import random
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from email.utils import parsedate_to_datetime
from os import SEEK_END, PathLike
from pathlib import Path
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import IO, Any, Literal, Self
from urllib.parse import parse_qsl, quote, urlsplit

import httpx

from training.client.errors import ApiError, ChecksumMismatch, ConnectionFailed
from training.client.types import Judgement, Lease, RunEvent

# States in which a run will not change any more, until somebody resumes it.
FINAL_RUN_STATES = frozenset({"done", "failed", "cancelled"})
# The server, or a proxy before it, is not able to answer now.
UNAVAILABLE = frozenset({502, 503, 504})
CHUNK_BYTES = 1 << 16
SPOOL_BYTES = 1 << 23

JSON = dict[str, Any]


class Client:
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

    # Access and projects

    def token(self, username: str, password: str) -> str:
        """Exchange a password for a token, and use it from now on."""
        answer = self._call("POST", "auth/token/", json={"username": username, "password": password})
        self._use_token(answer["token"])
        return answer["token"]

    def projects(self) -> Iterator[JSON]:
        return self._pages("projects/")

    def project(self, slug: str) -> JSON:
        return self._call("GET", f"projects/{_part(slug)}/")

    def create_project(self, **fields: Any) -> JSON:
        return self._call("POST", "projects/", json=fields)

    def update_project(self, slug: str, **fields: Any) -> JSON:
        return self._call("PATCH", f"projects/{_part(slug)}/", json=fields)

    def members(self, slug: str) -> Iterator[JSON]:
        return self._pages(f"projects/{_part(slug)}/members/")

    def add_member(self, slug: str, username: str, role: str, **fields: Any) -> JSON:
        """Give somebody a role; `fields` are languages and skills, which stay as they are where left out."""
        body = {"username": username, "role": role, **fields}
        return self._call("POST", f"projects/{_part(slug)}/members/", json=body)

    def update_member(self, slug: str, username: str, **fields: Any) -> JSON:
        """Change the languages or skills of a member."""
        return self._call("PATCH", f"projects/{_part(slug)}/members/{_part(username)}/", json=fields)

    def pause_member(self, slug: str, username: str, reason: str) -> JSON:
        """Hand the person no more tasks; what they hold goes back to the queue. They read the reason."""
        # Safe to repeat: who is paused stays so.
        path = f"projects/{_part(slug)}/members/{_part(username)}/pause/"
        return self._call("POST", path, json={"reason": reason}, repeatable=True)

    def reinstate_member(self, slug: str, username: str, *, to_qualify: bool = False, restore: bool = False) -> JSON:
        """Let the person work again. `restore`: what was set aside counts again, where nobody judged it since."""
        path = f"projects/{_part(slug)}/members/{_part(username)}/reinstate/"
        return self._call("POST", path, json={"to_qualify": to_qualify, "restore": restore})

    def set_aside(
        self, slug: str, username: str, reason: str, *, since: str | None = None, until: str | None = None
    ) -> int:
        """Let the person's judgements of a time (ISO 8601) not count any more. Returns how many did until now."""
        times = {name: at for name, at in (("since", since), ("until", until)) if at is not None}
        path = f"projects/{_part(slug)}/members/{_part(username)}/set-aside/"
        return self._call("POST", path, json={"reason": reason, **times})["set_aside"]

    def import_rows(
        self, slug: str, format: str, rows_or_path: Iterable[Mapping[str, Any]] | str | PathLike[str]
    ) -> JSON:
        """Send rows, or a file of JSON lines, in constant memory. Returns counts of rows taken, known and refused.

        The same rows again add nothing, so a broken import is simply sent again.
        """
        with ExitStack() as stack:
            if isinstance(rows_or_path, str | PathLike):
                file: IO[bytes] = stack.enter_context(open(rows_or_path, "rb"))
            else:
                # Not every server takes a body of unknown length, so the rows wait here, on disk if they are many.
                file = stack.enter_context(SpooledTemporaryFile(SPOOL_BYTES))
                file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows_or_path)
            n_bytes = file.seek(0, SEEK_END)

            def body() -> Iterator[bytes]:
                file.seek(0)
                yield from iter(lambda: file.read(CHUNK_BYTES), b"")

            return self._call(
                "POST",
                f"projects/{_part(slug)}/imports/",
                params={"format": format},
                body=body,
                headers={"Content-Type": "application/x-ndjson", "Content-Length": str(n_bytes)},
                repeatable=True,
            )

    # Judging

    def create_tasks(self, slug: str, **fields: Any) -> JSON:
        """Make tasks; `fields` are kind, overlap, completions_per_task, and prompts where not all are meant.

        pool or people say who may be given them, priority how soon.
        """
        return self._call("POST", f"projects/{_part(slug)}/tasks/", json=fields)

    def tasks(self, slug: str, **filters: str) -> Iterator[JSON]:
        return self._pages(f"projects/{_part(slug)}/tasks/", filters)

    def assign_tasks(self, slug: str, **fields: Any) -> JSON:
        """Move tasks; `fields` are tasks (ids) or where (what they are like), and pool, people or priority."""
        # Safe to repeat: what was moved already is found where it is.
        return self._call("POST", f"projects/{_part(slug)}/tasks/assign/", json=fields, repeatable=True)

    def pools(self, slug: str) -> Iterator[JSON]:
        return self._pages(f"projects/{_part(slug)}/pools/")

    def create_pool(self, slug: str, name: str, **fields: Any) -> JSON:
        """Make a pool; `fields` are languages and skills that are needed, or people by name."""
        return self._call("POST", f"projects/{_part(slug)}/pools/", json={"name": name, **fields})

    def lease(self, slug: str) -> Lease | None:
        """The next task for the caller, or None when there is nothing for them."""
        # Safe to repeat: a lease whose answer got lost runs out by itself.
        return self._call("POST", f"projects/{_part(slug)}/leases/", repeatable=True)

    def save_draft(self, lease_id: str, draft: Mapping[str, Any]) -> JSON | None:
        return self._call("PUT", f"leases/{_part(lease_id)}/draft/", json=draft)

    def renew(self, lease_id: str) -> JSON | None:
        return self._call("POST", f"leases/{_part(lease_id)}/renew/", repeatable=True)

    def skip(self, lease_id: str, reason: str = "", note: str = "") -> JSON | None:
        """Give a task back. `reason` is one of the site's (needs_expert, not_rankable, ...) or words of one's own."""
        return self._call("POST", f"leases/{_part(lease_id)}/skip/", json={"reason": reason, "note": note})

    def report(self, lease_id: str, reason: str, note: str = "") -> JSON | None:
        """Tell the leads that something is wrong with the prompt of a task. The task stays with the caller."""
        # Safe to repeat: a second report by the same person takes the place of the first.
        return self._call(
            "POST", f"leases/{_part(lease_id)}/report/", json={"reason": reason, "note": note}, repeatable=True
        )

    def submit(self, lease_id: str, judgement: Judgement | JSON, key: str | None = None, next: bool = False) -> JSON:
        """Submit a judgement; with `next`, the answer holds "next_lease" (a lease or None).

        All tries of one call send the same `key`, so that the judgement is recorded once. Pass the same key
        again after a ConnectionFailed. An answer with "surplus": true came too late to count for the task.
        """
        return self._call(
            "POST",
            f"leases/{_part(lease_id)}/judgement/",
            params={"next": "1"} if next else None,
            json=judgement,
            headers={"Idempotency-Key": key or str(uuid.uuid4())},
            repeatable=True,
        )

    def judgements(self, slug: str, **filters: str) -> Iterator[JSON]:
        return self._pages(f"projects/{_part(slug)}/judgements/", filters)

    def revise(self, judgement_id: str, judgement: Judgement | JSON) -> JSON:
        return self._call("POST", f"judgements/{_part(judgement_id)}/revision/", json=judgement)

    # Quality

    def quality(self, slug: str) -> JSON:
        return self._call("GET", f"projects/{_part(slug)}/quality/")

    def consensus(self, slug: str, task: str | None = None) -> Iterator[JSON]:
        """What annotators hold together of each ranked task, or what a reviewer settled; of one `task` if it is named."""
        return self._pages(f"projects/{_part(slug)}/consensus/", {"task": task} if task else {})

    def gold_tasks(self, slug: str) -> Iterator[JSON]:
        return self._pages(f"projects/{_part(slug)}/gold/")

    def create_gold(self, slug: str, **fields: Any) -> JSON:
        """Of `task`, which is promoted; of `prompt` and `completions` by ids; or of `text` and `texts` written for it.

        The latter two need `expected`, completions by the keys a, b, ... in the order given; `explanation` may be added.
        """
        return self._call("POST", f"projects/{_part(slug)}/gold/", json=fields)

    def change_gold(self, gold_id: str, **fields: Any) -> JSON:
        """Change `expected` or `explanation`; `retired` takes it out of use or back."""
        return self._call("PATCH", f"gold/{_part(gold_id)}/", json=fields)

    def gold_candidates(self, slug: str) -> list[JSON]:
        """Tasks that three people or more ranked alike."""
        return self._call("GET", f"projects/{_part(slug)}/gold/candidates/")

    def adjudications(self, slug: str) -> Iterator[JSON]:
        """What reviewers settled, and what stands of it."""
        return self._pages(f"projects/{_part(slug)}/adjudications/")

    def task_to_settle(self, task_id: str) -> JSON:
        """A task with the ids of its completions, without votes, and what stands."""
        return self._call("GET", f"tasks/{_part(task_id)}/adjudication/")

    def adjudicate(self, task_id: str, outcome: str, *, key: str | None = None, **fields: Any) -> JSON:
        """Settle a task: `ranking` (with `ranking`, ids of completions, best first), `left` or `unfit`.

        All tries of one call send the same `key`, so that it is settled once. ApiError "already_adjudicated" says
        who was first: name theirs in `supersedes` to replace it.
        """
        return self._call(
            "POST",
            f"tasks/{_part(task_id)}/adjudication/",
            json={"outcome": outcome, **fields},
            headers={"Idempotency-Key": key or str(uuid.uuid4())},
            repeatable=True,
        )

    def record_contradictions(
        self, slug: str, model_key: str, tasks: Iterable[Mapping[str, Any]], *, calibrated: bool
    ) -> JSON:
        """Send what a model thinks of the order of tasks: `{"task", "pairs": [{"better", "worse", "probability"}]}`.

        At most 1,000 tasks a call. Tasks enter the reviewers' queue only if its probabilities are calibrated.
        """
        # Safe to repeat: of what a model said of a task, the newest counts.
        body = {"model_key": model_key, "calibrated": calibrated, "tasks": list(tasks)}
        return self._call("POST", f"projects/{_part(slug)}/contradictions/", json=body, repeatable=True)

    # Snapshots

    def snapshots(self, slug: str) -> Iterator[JSON]:
        return self._pages(f"projects/{_part(slug)}/snapshots/")

    def create_snapshot(self, slug: str, **fields: Any) -> JSON:
        # Safe to repeat: the same judgements make the same snapshot.
        return self._call("POST", f"projects/{_part(slug)}/snapshots/", json=fields, repeatable=True)

    def snapshot(self, snapshot_id: str) -> JSON:
        """The manifest of a snapshot."""
        return self._call("GET", f"snapshots/{_part(snapshot_id)}/")

    def download_snapshot(
        self,
        snapshot_id: str,
        split: str,
        fmt: Literal["jsonl", "parquet"] = "jsonl",
        view: str | None = None,
        path: str | PathLike[str] | None = None,
        *,
        sha256: str | None = None,
        report: Callable[[int, int | None], None] = lambda received, total: None,
    ) -> Path:
        """Download one split to `path` (default: "{split}.{fmt}" here) and return the path.

        A broken download goes on where it stopped, in this call and, from the file "{path}.part", in a later one.
        The file gets its name only when it is whole. Its SHA-256 is compared with `sha256` and with the ETag, where
        that is a SHA-256; ChecksumMismatch is raised where they differ. `report` gets the bytes so far and in all.
        """
        target = Path(path or f"{split}.{fmt}")
        download = _Download(target)
        url = f"snapshots/{_part(snapshot_id)}/{_part(split)}.{_part(fmt)}"
        failures = 0  # since something arrived last
        while True:
            before = download.received
            try:
                with self._stream(url, {"view": view} if view else {}, download.headers()) as response:
                    if response.status_code != 416:
                        download.receive(response, report)
                        break
                    # Nothing is left to send, or the part is of another file.
                    if download.is_whole(response):
                        break
                    download.restart()
                    failures += 1
            except httpx.TransportError as error:
                failures = 0 if download.received > before else failures + 1
                if failures > self._retries:
                    raise ConnectionFailed(f"GET {url}: {error}") from error
                self._pause(failures)
            if failures > self._retries:
                raise ConnectionFailed(f"GET {url}: the server refuses every range of it")
        return download.finish(sha256)

    # Models, runs, iterations

    def models(self) -> Iterator[JSON]:
        return self._pages("models/")

    def model(self, model_id: str) -> JSON:
        return self._call("GET", f"models/{_part(model_id)}/")

    def create_model(self, **fields: Any) -> JSON:
        return self._call("POST", "models/", json=fields)

    def runs(self, slug: str) -> Iterator[JSON]:
        return self._pages(f"projects/{_part(slug)}/runs/")

    def create_run(self, slug: str, **fields: Any) -> JSON:
        return self._call("POST", f"projects/{_part(slug)}/runs/", json=fields)

    def run(self, run_id: str) -> JSON:
        return self._call("GET", f"runs/{_part(run_id)}/")

    def run_events(self, run_id: str, after: str | None = None) -> Iterator[RunEvent]:
        """The events of a run so far, oldest first; with `after`, only those later than the event of that id."""
        return self._pages(f"runs/{_part(run_id)}/events/", {} if after is None else {"after": after})

    def follow_run(self, run_id: str, after: str | None = None, poll_seconds: float = 1.0) -> Iterator[RunEvent]:
        """Yield the events of a run as they come, and end when the run has."""
        while True:
            # The state is read before the events, so that none of the last ones is missed.
            is_final = self.run(run_id)["state"] in FINAL_RUN_STATES
            for event in self.run_events(run_id, after):
                after = event["id"]
                yield event
            if is_final:
                return
            time.sleep(poll_seconds)

    def cancel_run(self, run_id: str) -> JSON | None:
        return self._call("POST", f"runs/{_part(run_id)}/cancel/")

    def resume_run(self, run_id: str) -> JSON | None:
        return self._call("POST", f"runs/{_part(run_id)}/resume/")

    def iterations(self, slug: str) -> Iterator[JSON]:
        return self._pages(f"projects/{_part(slug)}/iterations/")

    def create_iteration(self, slug: str, **fields: Any) -> JSON:
        return self._call("POST", f"projects/{_part(slug)}/iterations/", json=fields)

    def iteration(self, iteration_id: str) -> JSON:
        return self._call("GET", f"iterations/{_part(iteration_id)}/")

    # The ground they stand on

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
        body: Callable[[], Iterator[bytes]] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = False,
    ) -> Any:
        """Send a request and return its decoded answer, None where it has none.

        `body` makes the content anew for each try. `repeatable` says that doing it twice is harmless, as for GET and PUT.
        """
        repeatable = repeatable or method in {"GET", "PUT"}
        for attempt in range(self._retries + 1):
            is_last = attempt == self._retries
            try:
                response = self._http.request(
                    method, path, params=params, json=json, content=body() if body else None, headers=headers
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
        for attempt in range(self._retries + 1):
            with self._http.stream("GET", path, params=params, headers=headers) as response:
                is_busy = response.status_code == 429 or response.status_code in UNAVAILABLE
                if not is_busy or attempt == self._retries or not self._is_worth_waiting_for(response):
                    if response.status_code != 416 and response.is_error:
                        response.read()
                        raise _error(response)
                    yield response
                    return
            self._pause(attempt, response)

    def _pause(self, attempt: int, response: httpx.Response | None = None) -> None:
        """Wait as long as the server asks for, or twice as long as the last time, with some spread."""
        asked = _retry_after_seconds(response.headers.get("Retry-After")) if response is not None else None
        seconds = self._backoff_seconds * 2**attempt * random.uniform(0.75, 1.25) if asked is None else asked
        time.sleep(min(seconds, self._max_wait_seconds))

    def _is_worth_waiting_for(self, response: httpx.Response) -> bool:
        """Whether the server asks for no longer a pause than a caller would sit through."""
        return (_retry_after_seconds(response.headers.get("Retry-After")) or 0) <= self._max_wait_seconds


class _Download:
    """The part of a file that has arrived, on disk beside its target, with the ETag it belongs to."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.part = target.with_name(target.name + ".part")
        self.etag_file = target.with_name(target.name + ".part.etag")
        target.parent.mkdir(parents=True, exist_ok=True)
        self.etag = self.etag_file.read_text() if self.etag_file.exists() else ""
        if not self.etag:  # a part of we do not know what
            self.restart()

    @property
    def received(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def headers(self) -> dict[str, str]:
        # Bytes are counted and hashed, so no compression on the way.
        plain = {"Accept-Encoding": "identity"}
        return plain | {"Range": f"bytes={self.received}-", "If-Range": self.etag} if self.received else plain

    def receive(self, response: httpx.Response, report: Callable[[int, int | None], None]) -> None:
        etag = response.headers.get("ETag", "")
        if response.status_code != 206 or (self.etag and etag and etag != self.etag):
            self.restart()
        if response.status_code == 206 and not response.headers["Content-Range"].startswith(f"bytes {self.received}-"):
            raise httpx.ReadError("the file changed on the server during the download")
        if etag and not etag.startswith("W/"):
            self.etag = etag
            self.etag_file.write_text(etag)
        total = (
            int(response.headers["Content-Length"]) + self.received if "Content-Length" in response.headers else None
        )
        with self.part.open("ab") as file:
            for chunk in response.iter_raw():
                file.write(chunk)
                report(file.tell(), total)

    def is_whole(self, response: httpx.Response) -> bool:
        return response.headers.get("Content-Range") == f"bytes */{self.received}"

    def restart(self) -> None:
        self.part.unlink(missing_ok=True)
        self.etag_file.unlink(missing_ok=True)
        self.etag = ""

    def finish(self, sha256: str | None) -> Path:
        self.part.touch()
        with self.part.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        for expected in filter(None, (sha256, _sha256_in(self.etag))):
            if expected.lower() != actual:
                self.restart()
                raise ChecksumMismatch(f"{self.target}: SHA-256 is {actual}, not {expected}")
        self.part.replace(self.target)
        self.etag_file.unlink(missing_ok=True)
        return self.target


def _part(value: object) -> str:
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
        return ApiError(error["code"], error["message"], error.get("fields"), response.status_code)
    except (ValueError, KeyError, TypeError):
        # Not from the API itself: a proxy, or another site.
        return ApiError("http_error", response.reason_phrase or "The server failed", status=response.status_code)


def _sha256_in(etag: str) -> str | None:
    found = re.fullmatch(r'"(?:sha-?256[:=-])?([0-9a-fA-F]{64})"', etag)
    return found[1] if found else None


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
