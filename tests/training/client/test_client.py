"""The client against a real HTTP server in a thread that speaks the protocol, faults included."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from training.client import (
    ApiError,
    ChecksumMismatch,
    Client,
    Conflict,
    ConnectionFailed,
    Invalid,
    JobFailed,
    NotAllowed,
    NotFound,
    NotLoggedIn,
    RateLimited,
    Unavailable,
)
from training.client.commands import main
from training.client.commands._shown import read_settings, settings_of
from training.client.errors import ClientError

CONTENT = b"".join(b'{"row": %d}\n' % number for number in range(5000))
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """`cut_after` bytes of the body are sent before the connection breaks; 0 breaks before any answer."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None


class Site:
    """A server that gives the answers put into `answers`, in turn, then what `respond` says."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answers: list[Answer] = []
        self.respond: Callable[[Request], Answer] = lambda request: Answer(200, {})
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, parts.path, query, headers, self.read_body())
                site.requests.append(request)
                self.write(site.answers.pop(0) if site.answers else site.respond(request))

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def read_body(self) -> bytes:
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))

            def write(self, answer: Answer) -> None:
                if answer.cut_after == 0:
                    self.close_connection = True
                    self.connection.close()
                    return
                body = answer.body if isinstance(answer.body, bytes) else b""
                if answer.body is not None and not isinstance(answer.body, bytes):
                    body = json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if answer.status != 204:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: answer.cut_after])
                if answer.cut_after is not None:
                    self.close_connection = True

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.stop()


@pytest.fixture
def client(site: Site) -> Iterator[Client]:
    with Client(site.url, "secret", retries=3, backoff_seconds=0.01) as client:
        yield client


def refusal(status: int, code: str, **fields: Any) -> Answer:
    return Answer(status, {"error": {"code": code, "message": "No.", "fields": fields}})


def serve_file(request: Request, cut_after: int | None = None, etag: str = f'"{SHA256}"') -> Answer:
    start = 0
    if "range" in request.headers and request.headers.get("if-range") == etag:
        start = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
    headers = {"ETag": etag}
    if start >= len(CONTENT):
        return Answer(416, b"", {"Content-Range": f"bytes */{len(CONTENT)}"})
    if start:
        headers["Content-Range"] = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
    return Answer(206 if start else 200, CONTENT[start:], headers, cut_after)


def test_calls_carry_the_token_and_quote_what_goes_into_the_path(site: Site, client: Client) -> None:
    client.project("a/b c")
    assert site.requests[0].headers["authorization"] == "Bearer secret"
    assert site.requests[0].path == "/api/v1/projects/a%2Fb%20c/"


def test_logs_are_read_and_the_room_of_runs_is_seen_and_freed(site: Site, client: Client) -> None:
    client.run_disk("support")
    client.delete_checkpoints("7")
    site.answers.append(Answer(200, b"first\nlast\n"))
    assert client.run_log("7") == "first\nlast\n"
    assert [f"{request.method} {request.path.removeprefix('/api/v1/')}" for request in site.requests] == [
        "GET projects/support/runs/disk/", "DELETE runs/7/checkpoints/", "GET runs/7/log/",
    ]  # fmt: skip


def test_models_are_moved_described_verified_imported_and_traced(site: Site, client: Client) -> None:
    client.move_model("3", "production", "it wins")
    client.set_model_terms("3", licence="MIT")
    client.verify_model("3")
    client.model_report("3")
    client.start_model_import("support", folder="x", name="x", kind="base", licence="MIT")
    client.lineage("support", "licence:CC BY", open=("model:1", "model:2"))
    site.answers.append(Answer(200, b"# A card"))
    assert client.model_card("3") == "# A card"
    assert [f"{request.method} {request.path.removeprefix('/api/v1/')}" for request in site.requests] == [
        "PATCH models/3/", "PUT models/3/terms/", "GET models/3/verify/", "GET models/3/report/", "POST projects/support/models/import/",
        "GET projects/support/lineage/", "GET models/3/card/",
    ]  # fmt: skip
    assert site.requests[0].json() == {"stage": "production", "reason": "it wins"}
    assert site.requests[5].query == {"of": "licence:CC BY", "open": "model:1,model:2"}


def test_a_folder_is_packed_sent_and_followed_to_the_model_it_becomes(site: Site, client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no \.safetensors"):
        client.import_model("support", folder, name="theirs", kind="policy", licence="MIT")
    for name in ("model.safetensors", "config.json", "pytorch_model.bin", "modeling.py"):
        (folder / name).write_bytes(name.encode())
    job = {"id": "5", "state": "waiting", "model": None, "problem": ""}
    done = {**job, "state": "done", "model": {"id": "9", "key": "theirs@1"}}
    site.answers = [Answer(202, job), Answer(200, done), Answer(200, {"id": "9", "key": "theirs@1"})]
    sent: list[tuple[int, int]] = []
    states: list[str] = []
    model = client.import_model(
        "support", folder, name="theirs", kind="policy", licence="MIT", plain_template=True,
        report=lambda n, total: sent.append((n, total)), follow=lambda job: states.append(job["state"]),
    )  # fmt: skip
    assert model["key"] == "theirs@1" and states == ["done"] and sent[-1][0] == sent[-1][1]
    first = site.requests[0]
    assert first.path == "/api/v1/projects/support/models/upload/" and first.query["plain_template"] == "true"
    assert b"model.safetensors" in first.body and b"config.json" in first.body
    assert b"pytorch_model" not in first.body and b"modeling.py" not in first.body
    site.answers = [Answer(202, job), Answer(200, {**job, "state": "failed", "problem": "config.json is missing"})]
    with pytest.raises(JobFailed, match=r"config\.json is missing"):
        client.import_model("support", folder, name="theirs", kind="policy", licence="MIT")


def test_encoders_are_entered_used_and_deleted_and_what_waits_is_encoded(site: Site, client: Client) -> None:
    client.features("a b")
    client.encode("support")
    client.uncertain_pairs("support", 5)
    client.create_encoder("support", model="tiny@1", layer=2, pooling="mean")
    client.use_encoder("3")
    client.use_encoder("3", is_active=False)
    site.answers.append(Answer(204, b""))
    client.delete_encoder("3")
    assert [f"{request.method} {request.path.removeprefix('/api/v1/')}" for request in site.requests] == [
        "GET projects/a%20b/features/", "POST projects/support/features/encode/", "GET projects/support/features/uncertain/",
        "POST projects/support/encoders/", "PATCH encoders/3/", "PATCH encoders/3/", "DELETE encoders/3/",
    ]  # fmt: skip
    assert site.requests[2].query == {"at_most": "5"}
    assert [site.requests[number].json() for number in (4, 5)] == [{"is_active": True}, {"is_active": False}]


def test_a_password_is_exchanged_for_a_token_used_from_then_on(site: Site) -> None:
    site.answers = [Answer(200, {"token": "fresh"})]
    with Client(site.url) as client:
        assert client.token("ada", "pw") == "fresh"
        client.project("larkfell")
    assert "authorization" not in site.requests[0].headers
    assert site.requests[1].headers["authorization"] == "Bearer fresh"


def test_refusals_become_errors_with_code_message_fields_and_status(site: Site, client: Client) -> None:
    site.answers = [refusal(409, "key_reused", ranking=["differs"])]
    with pytest.raises(ApiError) as caught:
        client.submit("7", {"ranking": [["a"], ["b"]]})
    error = caught.value
    assert (error.code, error.message, error.fields, error.status) == (
        "key_reused",
        "No.",
        {"ranking": ["differs"]},
        409,
    )
    assert "ranking" in str(error)
    assert len(site.requests) == 1


def test_errors_that_do_not_come_from_the_api_are_errors_all_the_same(site: Site, client: Client) -> None:
    site.answers = [Answer(404, b"<html>"), Answer(200, b"<html>")]
    with pytest.raises(ApiError, match="http_error"):
        client.project("larkfell")
    with pytest.raises(ApiError, match="not_json"):
        client.project("larkfell")


@pytest.mark.parametrize("fault", [Answer(502), Answer(503), Answer(429), Answer(cut_after=0)])
def test_reading_is_tried_again_after_a_fault(site: Site, client: Client, fault: Answer) -> None:
    site.answers = [fault, fault, Answer(200, {"slug": "larkfell"})]
    assert client.project("larkfell") == {"slug": "larkfell"}
    assert len(site.requests) == 3


@pytest.mark.parametrize("fault", [Answer(502), Answer(503), Answer(cut_after=0)])
def test_what_might_be_done_twice_is_not_tried_again(site: Site, client: Client, fault: Answer) -> None:
    site.answers = [fault]
    with pytest.raises((ApiError, ConnectionFailed)):
        client.create_run("larkfell", kind="dpo")
    assert len(site.requests) == 1


def test_a_server_that_asks_to_wait_is_given_the_time(
    site: Site, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("training.client._connection.time.sleep", pauses.append)
    site.answers = [Answer(429, headers={"Retry-After": "7"}), Answer(201, {"id": "1"})]
    assert client.create_run("larkfell", kind="dpo") == {"id": "1"}
    assert pauses == [7.0]


def test_a_server_that_asks_to_wait_for_long_is_not_waited_for(site: Site, client: Client) -> None:
    locked = refusal(429, "locked_out")
    locked.headers["Retry-After"] = "900"
    site.answers = [locked]
    with pytest.raises(ApiError, match="locked_out"):
        client.token("ada", "wrong")
    assert len(site.requests) == 1


def test_pauses_grow_and_tries_end(site: Site, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("training.client._connection.time.sleep", pauses.append)
    site.respond = lambda request: refusal(503, "unavailable")
    with pytest.raises(ApiError, match="unavailable"):
        client.project("larkfell")
    assert len(site.requests) == 4
    assert pauses == sorted(pauses) and len(pauses) == 3


def test_a_server_that_is_not_there_fails_with_its_reason(site: Site) -> None:
    site.stop()
    with (
        Client(site.url, retries=1, backoff_seconds=0.01) as client,
        pytest.raises(ConnectionFailed, match="projects/larkfell"),
    ):
        client.project("larkfell")


def test_a_submit_whose_answer_is_lost_is_repeated_with_the_same_key(site: Site, client: Client) -> None:
    site.answers = [Answer(cut_after=0), Answer(503), Answer(200, {"id": "1", "next_lease": None})]
    answer = client.submit("7", {"ranking": [["a"], ["b"]]}, next=True)
    assert answer["next_lease"] is None
    assert len({request.headers["idempotency-key"] for request in site.requests}) == 1
    assert {request.body for request in site.requests} == {site.requests[0].body}
    assert site.requests[0].query == {"next": "1"}


def test_two_submits_have_two_keys_unless_one_is_given(site: Site, client: Client) -> None:
    for key in (None, None, "mine"):
        client.submit("7", {"ranking": [["a"]]}, key=key)
    keys = [request.headers["idempotency-key"] for request in site.requests]
    assert len(set(keys)) == 3 and keys[2] == "mine"


def test_no_task_left_is_none(site: Site, client: Client) -> None:
    site.answers = [Answer(204)]
    assert client.lease("larkfell") is None


def test_pages_are_followed_by_their_cursor_and_never_to_another_host(site: Site, client: Client) -> None:
    site.answers = [
        Answer(200, {"results": [{"id": "1"}], "next": "https://elsewhere.example/api/?cursor=c%3D%3D&kind=human"}),
        Answer(200, {"results": [{"id": "2"}], "next": None}),
    ]
    assert [row["id"] for row in client.judgements("larkfell", kind="human")] == ["1", "2"]
    assert [request.query for request in site.requests] == [{"kind": "human"}, {"cursor": "c==", "kind": "human"}]


def test_rows_are_sent_as_json_lines_of_known_length(site: Site, client: Client) -> None:
    site.answers = [Answer(503), Answer(200, {"taken": 2})]
    assert client.import_rows("larkfell", "prompts", ({"prompt": text} for text in ("Wo?", "Où ?"))) == {"taken": 2}
    request = site.requests[1]
    assert request.query == {"format": "prompts"}
    assert request.headers["content-length"] == str(len(request.body))
    assert [json.loads(line) for line in request.body.splitlines()] == [{"prompt": "Wo?"}, {"prompt": "Où ?"}]


def test_a_file_is_sent_again_as_a_whole_when_the_server_asks_to_wait(
    site: Site, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(CONTENT)
    site.answers = [Answer(429), Answer(200, {"taken": 5000})]
    client.import_rows("larkfell", "prompts", path)
    assert [request.body for request in site.requests] == [CONTENT, CONTENT]


def test_a_broken_download_goes_on_where_it_stopped(site: Site, client: Client, tmp_path: Path) -> None:
    site.respond = lambda request: serve_file(request, cut_after=None if len(site.requests) > 2 else 20_000)
    path = client.download_snapshot("s1", "train", view="preference", path=tmp_path / "train.jsonl")
    assert path.read_bytes() == CONTENT
    assert [request.headers.get("range") for request in site.requests] == [None, "bytes=20000-", "bytes=40000-"]
    assert site.requests[0].path == "/api/v1/snapshots/s1/train.jsonl"
    assert site.requests[0].query == {"view": "preference"}
    assert [file.name for file in tmp_path.iterdir()] == ["train.jsonl"]


def test_a_later_call_goes_on_with_the_part_of_an_earlier_one(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    with Client(site.url, retries=0, backoff_seconds=0.01) as client:
        site.respond = lambda request: Answer(cut_after=0)
        site.answers = [serve_file(Request("GET", "", {}, {}, b""), cut_after=20_000)]
        with pytest.raises(ConnectionFailed):
            client.download_snapshot("s1", "train", path=path)
        assert not path.exists()
        site.respond = serve_file
        client.download_snapshot("s1", "train", path=path, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert site.requests[-1].headers["range"] == "bytes=20000-"


def test_a_part_of_another_file_is_thrown_away(site: Site, client: Client, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl.part").write_bytes(b"old" * 100)
    (tmp_path / "train.jsonl.part.etag").write_text('"other"')
    site.respond = serve_file
    assert client.download_snapshot("s1", "train", path=tmp_path / "train.jsonl").read_bytes() == CONTENT


def test_a_part_that_is_already_whole_is_kept(site: Site, client: Client, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl.part").write_bytes(CONTENT)
    (tmp_path / "train.jsonl.part.etag").write_text(f'"{SHA256}"')
    site.respond = serve_file
    assert client.download_snapshot("s1", "train", path=tmp_path / "train.jsonl").read_bytes() == CONTENT
    assert len(site.requests) == 1


@pytest.mark.parametrize("etag", ['"' + "0" * 64 + '"', f'"sha256:{"0" * 64}"'])
def test_a_file_that_differs_from_its_checksum_is_refused(
    site: Site, client: Client, tmp_path: Path, etag: str
) -> None:
    site.respond = lambda request: serve_file(request, etag=etag)
    with pytest.raises(ChecksumMismatch):
        client.download_snapshot("s1", "train", path=tmp_path / "train.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_following_a_run_yields_each_event_once_and_ends_with_the_run(site: Site, client: Client) -> None:
    events = [{"id": str(number), "type": "metric", "step": number} for number in (1, 2, 3)]
    states = iter(["running", "running", "done"])
    shown = iter([events[:1], events[:2], events])

    def respond(request: Request) -> Answer:
        if not request.path.endswith("/events/"):
            return Answer(200, {"state": next(states)})
        after = int(request.query.get("after", 0))
        return Answer(200, {"results": [event for event in next(shown) if int(event["id"]) > after], "next": None})

    site.respond = respond
    assert [event["id"] for event in client.follow_run("9", poll_seconds=0.01)] == ["1", "2", "3"]


def test_the_command_line_downloads_and_says_where(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.respond = serve_file
    output = tmp_path / "train.jsonl"
    assert main(["--url", site.url, "download", "s1", "train", "--output", str(output)]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    assert output.read_bytes() == CONTENT


def test_the_command_line_fails_with_the_servers_words(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.answers = [refusal(404, "not_found")]
    assert main(["--url", site.url, "download", "s1", "train"]) == 1
    assert "not_found" in capsys.readouterr().err


def test_skips_and_reports_carry_their_reason_and_note(site: Site, client: Client) -> None:
    site.answers = [Answer(204), Answer(503), Answer(204)]
    assert client.skip("12", "needs_expert", "law of tenancy") is None
    assert client.report("12", "personal_data", "a telephone number") is None  # the same report twice is one
    sent = [(request.path, request.json()) for request in site.requests]
    assert sent[0] == ("/api/v1/leases/12/skip/", {"reason": "needs_expert", "note": "law of tenancy"})
    assert sent[1:] == [("/api/v1/leases/12/report/", {"reason": "personal_data", "note": "a telephone number"})] * 2


def test_settling_is_repeated_with_the_same_key(site: Site, client: Client) -> None:
    site.answers = [Answer(cut_after=0), Answer(503), Answer(201, {"id": "4"})]
    assert client.adjudicate("5e88", "ranking", ranking=[["2"], ["1"]], rationale="kinder") == {"id": "4"}
    assert len({request.headers["idempotency-key"] for request in site.requests}) == 1
    assert site.requests[-1].path == "/api/v1/tasks/5e88/adjudication/"
    assert site.requests[-1].json() == {"outcome": "ranking", "ranking": [["2"], ["1"]], "rationale": "kinder"}


def test_what_would_be_done_twice_to_a_member_is_not_tried_again(site: Site, client: Client) -> None:
    site.answers = [Answer(503), Answer(200, {"state": "paused"}), Answer(503), Answer(503)]
    assert client.pause_member("larkfell", "ada", "a word first")["state"] == "paused"
    with pytest.raises(ApiError):
        client.reinstate_member("larkfell", "ada")
    with pytest.raises(ApiError):
        client.set_aside("larkfell", "ada", "careless", since="2026-11-01T00:00:00Z")
    assert site.requests[-1].json() == {"reason": "careless", "since": "2026-11-01T00:00:00Z"}
    assert len(site.requests) == 4


def test_a_judgement_of_every_part_is_sent_as_it_is(site: Site, client: Client) -> None:
    judgement = {
        "ranking": [["b"], ["a"]],
        "marks": {"a": [{"start": 0, "end": 4, "label": "rude", "comment": "no"}]},
        "corrections": {"a": "Edited."},
        "demonstration": "Mine.",
        "acceptable": {"a": False},
    }
    site.answers = [Answer(201, {"id": "1"})]
    client.submit("12", judgement)
    assert site.requests[0].json() == judgement


def test_pools_and_assignments_are_sent_as_they_are(site: Site, client: Client) -> None:
    site.answers = [Answer(201, {"id": "7"}), Answer(503), Answer(200, {"changed": 3}), Answer(200, {"username": "ada"})]
    client.create_pool("support", "Law", skills=["law"])
    assert client.assign_tasks("support", where={"tag": "law"}, pool="7") == {"changed": 3}  # twice is once
    client.update_member("support", "ada", languages=["de"])
    sent = [(request.method, request.path, request.json()) for request in site.requests]
    moved = ("POST", "/api/v1/projects/support/tasks/assign/", {"where": {"tag": "law"}, "pool": "7"})
    assert sent == [
        ("POST", "/api/v1/projects/support/pools/", {"name": "Law", "skills": ["law"]}), moved, moved,
        ("PATCH", "/api/v1/projects/support/members/ada/", {"languages": ["de"]}),
    ]  # fmt: skip


@pytest.mark.parametrize(("status", "kind"), [
    (400, Invalid), (401, NotLoggedIn), (403, NotAllowed), (404, NotFound), (409, Conflict), (429, RateLimited), (503, Unavailable), (418, ApiError),
])  # fmt: skip
def test_each_refusal_has_an_error_of_its_own(site: Site, status: int, kind: type[ApiError]) -> None:
    site.respond = lambda request: refusal(status, "no")
    with Client(site.url, retries=0) as client, pytest.raises(ApiError) as refused:
        client.project("larkfell")
    assert type(refused.value) is kind and refused.value.status == status


def test_a_file_that_is_still_being_made_is_waited_for_however_long(
    site: Site, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("training.client._connection.time.sleep", pauses.append)
    making = refusal(503, "being_made")
    making.headers["Retry-After"] = "10"
    site.answers = [making] * 12  # more than there are tries
    site.respond = serve_file
    assert client.download_snapshot("7", "train", path=tmp_path / "x").read_bytes() == CONTENT
    assert pauses == [10.0] * 12
    away = refusal(503, "unavailable")
    site.respond = lambda request: away
    with pytest.raises(Unavailable):
        client.download_snapshot("7", "eval", path=tmp_path / "y")


def test_a_file_that_is_there_already_is_not_sent_again(site: Site, client: Client, tmp_path: Path) -> None:
    def respond(request: Request) -> Answer:
        same = request.headers.get("if-none-match") == f'"{SHA256}"'
        return Answer(304, b"", {"ETag": f'"{SHA256}"'}) if same else serve_file(request)

    site.respond = respond
    path = client.download_snapshot("7", "train", path=tmp_path / "x", reuse=True)
    assert client.download_snapshot("7", "train", path=path, reuse=True).read_bytes() == CONTENT
    path.write_bytes(b"changed by somebody")
    assert client.download_snapshot("7", "train", path=path, reuse=True).read_bytes() == CONTENT
    assert len(site.requests) == 3


def test_a_file_goes_out_as_a_stream_with_its_name_and_how_far_it_is(site: Site, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1" + bytes(500_000))
    seen: list[tuple[int, int]] = []
    site.answers = [Answer(cut_after=0), Answer(202, {"id": "4", "state": "waiting"})]
    record = client.start_import(
        "larkfell", path, mapping={"prompt": "question"}, tags=["a", "b"], licence="CC0-1.0",
        report=lambda sent, total: seen.append((sent, total)),
    )  # fmt: skip
    assert record["id"] == "4"
    request = site.requests[-1]
    assert request.query == {"background": "1", "tags": "a,b", "licence": "CC0-1.0"}
    assert b'filename="rows.parquet"' in request.body and path.read_bytes() in request.body
    assert b'{"prompt": "question"}' in request.body
    assert seen[-1] == (500_004, 500_004) and len(seen) > 10


def test_an_import_that_fails_says_why(site: Site, client: Client, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"{}")
    failed = {"id": "4", "state": "failed", "problem": "The file breaks off"}
    site.answers = [Answer(202, {"id": "4"}), Answer(200, {"id": "4", "state": "running"}), Answer(200, failed)]
    with pytest.raises(JobFailed, match="The file breaks off"):
        client.import_file("larkfell", tmp_path / "x")


def test_values_of_the_command_line_are_json_where_they_can_be() -> None:
    assert settings_of(["min_agreement=0.7", "ties=soft_label", "tags+=law, tax", "margins={\"1\": 2}", "up_to=null"]) == {
        "min_agreement": 0.7, "ties": "soft_label", "tags": ["law", "tax"], "margins": {"1": 2}, "up_to": None,
    }  # fmt: skip
    for wrong in ("ties", "=x"):
        with pytest.raises(ClientError):
            settings_of([wrong])


def test_settings_are_read_from_json_and_yaml(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"filters": {"tags": ["law"]}}')
    (tmp_path / "a.yaml").write_text("filters:\n  tags: [law]\n")
    assert read_settings(tmp_path / "a.json") == read_settings(tmp_path / "a.yaml") == {"filters": {"tags": ["law"]}}
    for name, text in (("b.json", "{"), ("b.yaml", "a: [b"), ("c.yaml", "- a")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ClientError):
            read_settings(tmp_path / name)


def test_freezing_from_flags_and_a_file_sends_both_and_prints_the_snapshot(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "freeze.yaml").write_text("name: nightly\nfilters:\n  tags: [law]\npolicy:\n  ties: drop\n")
    freezing = {"id": "3", "state": "freezing", "n_done": 1, "n_total": 2, "snapshot": None, "problem": ""}
    done = freezing | {"state": "done", "n_done": 2, "snapshot": "9"}
    site.answers = [Answer(202, freezing), Answer(200, freezing), Answer(200, done), Answer(200, {"id": "9", "number": 4})]
    command = ["--url", site.url, "freeze", "larkfell", "--settings", str(tmp_path / "freeze.yaml")]
    assert main([*command, "--policy", "ties=soft_label", "--filter", "min_agreement=0.5"]) == 0
    assert site.requests[0].query == {"background": "1"}
    assert site.requests[0].json() == {
        "name": "nightly", "filters": {"tags": ["law"], "min_agreement": 0.5}, "policy": {"ties": "soft_label"},
    }  # fmt: skip
    assert json.loads(capsys.readouterr().out) == {"id": "9", "number": 4}


def test_a_run_is_started_and_followed_to_its_end(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    event = {"id": "1", "type": "metric", "at": "2026-11-21T08:00:00Z", "step": 1, "text": "two\nlines \x1b[2J"}
    site.answers = [
        Answer(201, {"id": "5", "state": "queued"}), Answer(200, {"state": "done"}),
        Answer(200, {"next": None, "results": [event]}), Answer(200, {"state": "done"}),
    ]  # fmt: skip
    command = ["train", "larkfell", "dpo", "--snapshot", "9", "--model", "small@1", "--set", "max_steps=100", "--follow"]
    assert main(["--url", site.url, *command]) == 0
    assert site.requests[0].json() == {"kind": "dpo", "snapshot": "9", "model": "small@1", "spec": {"max_steps": 100}}
    assert "metric step=1 text=two\\nlines \\x1b[2J" in capsys.readouterr().out


def test_a_run_is_estimated_without_starting_it(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    told = {"estimate": {"seconds": {"low": 1, "likely": 2, "high": 4}}, "wrong": {}, "suggested": {}}
    site.answers = [Answer(200, told)]
    arguments = ["--url", site.url, "train", "larkfell", "dpo", "--snapshot", "1", "--model", "m@1", "--set", "beta=0.2", "--estimate"]
    assert main(arguments) == 0
    (asked,) = site.requests
    assert asked.path.endswith("projects/larkfell/runs/estimate/")
    assert json.loads(asked.body) == {"kind": "dpo", "snapshot": "1", "model": "m@1", "spec": {"beta": 0.2}}
    assert json.loads(capsys.readouterr().out) == told
    site.answers = [Answer(200, {**told, "wrong": {"model": "is too large"}})]
    assert main(arguments) == 1
    assert "model is too large" in capsys.readouterr().err
