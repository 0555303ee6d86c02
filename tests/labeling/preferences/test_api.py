import errno
import fcntl
import hashlib
import json

import pyarrow.parquet as pq
import pytest

from labeling.preferences.models import Snapshot
from labeling.preferences.views_out import making
from tests import factories
from tests.api_caller import BASE, Caller, code_of


@pytest.fixture
def frozen(project, annotator, engineer):
    """A snapshot of 30 judged tasks, and the engineer who calls."""
    factories.fill_project(project, 30)
    factories.judge_all(project, annotator)
    caller = Caller(engineer)
    answer = caller.post("projects/support/snapshots/", {"name": "first"})
    assert answer.status_code == 201
    return caller, answer.json()


def content(response):
    return b"".join(response.streaming_content)


def test_the_same_rows_frozen_again_give_the_snapshot_there_is(frozen):
    caller, snapshot = frozen
    assert snapshot["n_judgements"] == 30 and snapshot["manifest"]["content_hash"] == snapshot["content_hash"]
    again = caller.post("projects/support/snapshots/", {})
    assert again.status_code == 200 and again.json()["id"] == snapshot["id"] and Snapshot.objects.count() == 1
    listed = caller.get("projects/support/snapshots/").json()["results"]
    assert [row["id"] for row in listed] == [snapshot["id"]] and "manifest" not in listed[0]
    assert caller.get(f"snapshots/{snapshot['id']}/").json() == snapshot


def test_a_full_disk_is_a_507(project, engineer, annotator, settings, tmp_path, monkeypatch):
    settings.FILES = tmp_path
    factories.fill_project(project, 3)
    factories.judge_all(project, annotator)

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("labeling.preferences.services.write_rows", full)
    answer = Caller(engineer).post("projects/support/snapshots/", {})
    assert (answer.status_code, code_of(answer)) == (507, "no_room") and not Snapshot.objects.exists()
    assert list((tmp_path / "snapshots").iterdir()) == []


def test_wrong_filters_are_named_and_nothing_to_freeze_is_a_409(project, engineer):
    caller = Caller(engineer)
    empty = caller.post("projects/support/snapshots/", {})
    assert empty.status_code == 409 and code_of(empty) == "nothing_to_freeze"
    for body, field in (
        ({"filters": {"odd": 1}}, "odd"),
        ({"filters": {"iterations": ["1"]}}, "iterations"),
        ({"filters": {"purposes": [{}]}}, "purposes"),
        ({"policy": {"ties": ["drop"]}}, "ties"),
        ({"policy": {"margins": {"1": "x"}}}, "margins"),
        ({"policy": {"pairs": {}}}, "pairs"),
        ({"filters": []}, "filters"),
        ({"content_hash": "x"}, "content_hash"),
    ):
        answer = caller.post("projects/support/snapshots/", body)
        assert answer.status_code == 400 and field in answer.json()["error"]["fields"], body


def test_a_file_is_sent_whole_with_its_hash_as_etag(frozen):
    caller, snapshot = frozen
    answer = caller.get(f"snapshots/{snapshot['id']}/train.jsonl?view=votes")
    body = content(answer)
    assert answer.status_code == 200 and answer["Content-Length"] == str(len(body))
    assert answer["ETag"] == f'"{hashlib.sha256(body).hexdigest()}"'
    assert answer["Accept-Ranges"] == "bytes" and answer["Content-Type"] == "application/x-ndjson"
    assert answer["Content-Disposition"] == f'attachment; filename="support-{snapshot["number"]}-votes.train.jsonl"'
    rows = [json.loads(line) for line in body.splitlines()]
    assert len(rows) == snapshot["manifest"]["files"]["votes.train.jsonl"]["rows"]
    head = caller.call("HEAD", f"snapshots/{snapshot['id']}/train.jsonl?view=votes")
    assert head.status_code == 200 and head.content == b"" and head["ETag"] == answer["ETag"]
    assert head["Content-Length"] == str(len(body))


def test_ranges_follow_the_standard(frozen):
    caller, snapshot = frozen
    path = f"snapshots/{snapshot['id']}/train.jsonl"
    whole_answer = caller.get(path)
    etag, whole = whole_answer["ETag"], content(whole_answer)
    size = len(whole)
    for text, expected in (
        ("bytes=0-9", whole[:10]), ("bytes=10-", whole[10:]), ("bytes=-5", whole[-5:]),
        (f"bytes={size - 1}-", whole[-1:]), (f"bytes=5-{size * 2}", whole[5:]), (f"bytes=-{size * 2}", whole),
    ):  # fmt: skip
        part = caller.get(path, Range=text)
        assert part.status_code == 206 and content(part) == expected, text
        assert part["Content-Length"] == str(len(expected)) and part["Content-Range"].endswith(f"/{size}")
    for text in ("bytes=abc", "bytes=-", "items=0-1", "bytes=5-2", "bytes=0-1,3-4", "bytes=١-", ""):
        assert caller.get(path, Range=text).status_code == 200, text
    for text in (f"bytes={size}-", f"bytes={size}-{size + 1}", "bytes=-0"):
        refused = caller.get(path, Range=text)
        assert refused.status_code == 416 and code_of(refused) == "range_not_satisfiable", text
        assert refused["Content-Range"] == f"bytes */{size}"
    assert caller.get(path, Range="bytes=0-9", If_Range=etag).status_code == 206
    assert caller.get(path, Range="bytes=0-9", If_Range='"other"').status_code == 200
    for tag in (etag, f'W/{etag}', f'"x", {etag}', "*"):
        unchanged = caller.get(path, If_None_Match=tag, Range="bytes=0-1")
        assert unchanged.status_code == 304 and unchanged["ETag"] == etag and not unchanged.content
    assert caller.get(path, If_None_Match='"x"').status_code == 200


def test_parquet_and_lines_hold_the_same_rows(frozen, tmp_path):
    caller, snapshot = frozen
    for view in ("preference", "pairs", "votes"):
        (tmp_path / "rows.parquet").write_bytes(content(caller.get(f"snapshots/{snapshot['id']}/train.parquet?view={view}")))
        lines = content(caller.get(f"snapshots/{snapshot['id']}/train.jsonl?view={view}")).splitlines()
        table = pq.read_table(tmp_path / "rows.parquet")
        assert table.num_rows == len(lines) > 0
        assert table.column("prompt")[0].as_py() == json.loads(lines[0])["prompt"]


def test_unknown_views_splits_and_formats(frozen):
    caller, snapshot = frozen
    path = f"snapshots/{snapshot['id']}/"
    wrong = caller.get(path + "train.jsonl?view=passwords")
    assert wrong.status_code == 400 and "view" in wrong.json()["error"]["fields"]
    for name in ("test.jsonl", "train.xlsx", "train.json", "train.gz", "train.jsonl.gz.gz", "config.xml", "..jsonl", "manifest.json", "train.jsonl/", "%2e%2e%2fkeys.jsonl"):
        assert caller.get(path + name).status_code == 404, name


def test_a_snapshot_of_another_project_is_not_there(frozen, stranger, annotator):
    _, snapshot = frozen
    factories.make_project(stranger, slug="elsewhere")
    for person in (stranger, annotator):
        for path in (f"snapshots/{snapshot['id']}/", f"snapshots/{snapshot['id']}/train.jsonl"):
            answer = Caller(person).get(path)
            assert answer.status_code == 404 and code_of(answer) == "not_found"
    assert Caller().http.get(BASE + f"snapshots/{snapshot['id']}/train.jsonl").status_code == 401


@pytest.mark.parametrize(
    "name, view, type",
    [
        ("train.jsonl", "hh", "application/x-ndjson"), ("train.jsonl.gz", "votes", "application/gzip"),
        ("train.csv", "pairs", "text/csv; charset=utf-8"), ("train.csv.gz", "pairs", "application/gzip"),
        ("train.parquet", "ranking", "application/vnd.apache.parquet"), ("train.json", "argilla", "application/json"),
        ("settings.json", "argilla", "application/json"), ("config.xml", "label_studio", "application/xml"),
    ],
)  # fmt: skip
def test_every_kind_of_file_has_its_type_name_hash_and_ranges(frozen, name, view, type):
    caller, snapshot = frozen
    path = f"snapshots/{snapshot['id']}/{name}?view={view}"
    whole = caller.get(path)
    body = content(whole)
    assert whole.status_code == 200 and whole["Content-Type"] == type and "Content-Encoding" not in whole
    assert whole["Content-Disposition"] == f'attachment; filename="support-1-{view}.{name}"'
    assert whole["ETag"] == f'"{hashlib.sha256(body).hexdigest()}"' and whole["Content-Length"] == str(len(body))
    part = caller.get(path, Range="bytes=3-7", If_Range=whole["ETag"])
    assert part.status_code == 206 and content(part) == body[3:8]
    assert caller.get(path, If_None_Match=whole["ETag"]).status_code == 304
    assert caller.call("HEAD", path)["Content-Length"] == str(len(body))


def test_kinds_that_a_view_does_not_come_in_are_not_found_and_named(frozen):
    caller, snapshot = frozen
    answer = caller.get(f"snapshots/{snapshot['id']}/train.parquet?view=argilla")
    assert answer.status_code == 404 and "train.json" in answer.json()["error"]["message"]
    for name in ("train.json", "config.xml", "train.xml", "train.jsonl.zip"):
        assert caller.get(f"snapshots/{snapshot['id']}/{name}?view=preference").status_code == 404, name


def test_who_asks_while_another_makes_the_file_is_told_when_to_come_back(frozen, settings, monkeypatch):
    caller, snapshot = frozen
    monkeypatch.setattr(making, "PATIENCE_SECONDS", 0.1)
    folder = settings.FILES / "snapshots" / snapshot["content_hash"] / "views-2"
    folder.mkdir()
    with open(folder / ".preference.train.jsonl.lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = caller.get(f"snapshots/{snapshot['id']}/train.jsonl")
        assert answer.status_code == 503 and code_of(answer) == "being_made" and int(answer["Retry-After"]) > 0
    assert caller.get(f"snapshots/{snapshot['id']}/train.jsonl").status_code == 200
