import gzip
import io
import json
import os
from pathlib import Path

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from labeling.imports import storage
from labeling.imports.services import run_next_import
from labeling.imports.storage import file_of
from labeling.projects.models import Completion, Import, Prompt
from tests import factories
from tests.api_caller import BASE, Caller, code_of

CHUNKED = {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}
NDJSON = {"content_type": "application/x-ndjson"}
IMPORTS = "projects/support/imports/"
PAIR = {"prompt": [{"role": "user", "content": "Where is it?"}], "chosen": [{"role": "assistant", "content": "Here."}], "rejected": [{"role": "assistant", "content": "No."}]}


def lines(*rows: object) -> bytes:
    return b"\n".join(json.dumps(row).encode() for row in rows)


@pytest.mark.parametrize("kind", ["application/x-ndjson", "application/jsonl", "text/plain", "application/octet-stream"])
def test_rows_come_in_as_a_body_of_lines(project, engineer, kind):
    rows = [*factories.completions_rows(3), b"not json", b'{"prompt": "p", "odd": 1}']
    answer = Caller(engineer).post(
        "projects/support/imports/?format=completions", b"\n".join(rows), content_type=kind
    )
    assert answer.status_code == 201
    told = answer.json()
    assert set(told) == {
        "id", "taken", "duplicates", "near_duplicates", "rejected", "format", "prompts", "completions", "judgements",
        "rejected_rows",
    }  # fmt: skip
    assert (told["taken"], told["duplicates"], told["near_duplicates"], told["rejected"]) == (3, 0, 0, 2)
    assert (told["format"], told["prompts"], told["completions"], told["judgements"]) == ("completions", 3, 9, 0)
    assert [row["line"] for row in told["rejected_rows"]] == [4, 5]
    again = Caller(engineer).post(
        "projects/support/imports/?format=completions", b"\n".join(rows), content_type=kind
    ).json()
    assert (again["taken"], again["duplicates"]) == (0, 3)


def test_rows_come_in_as_a_file(project, lead):
    caller = Caller(lead)
    file = SimpleUploadedFile("rows.jsonl", b"\n".join(factories.completions_rows(2)))
    path = BASE + "projects/support/imports/?format=completions"
    answer = caller.http.post(path, {"file": file}, headers=caller.headers)
    assert answer.status_code == 201 and answer.json()["taken"] == 2
    assert Import.objects.get().filename == "rows.jsonl"
    for form in ({"other": "x"}, {}):
        assert caller.http.post(path, form, headers=caller.headers).status_code == 400


def test_an_import_of_no_known_format_or_type_is_refused(project, lead):
    caller = Caller(lead)
    for path in ("imports/", "imports/?format=pickle", "imports/?format=json"):
        answer = caller.post(f"projects/support/{path}", b'{"odd": 1}', **NDJSON)
        assert answer.status_code == 400 and "format" in answer.json()["error"]["fields"]
    answer = caller.post("projects/support/imports/?format=prompts", b"{}", content_type="image/png")
    assert answer.status_code == 415 and code_of(answer) == "unsupported_media_type"
    empty = caller.post("projects/support/imports/?format=prompts", b"", **NDJSON)
    assert empty.status_code == 201 and empty.json()["taken"] == 0


def test_a_body_sent_in_chunks_is_read_to_its_end(project, lead):
    class Chunked(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 7))

    caller = Caller(lead)
    answer = caller.http.post(
        BASE + "projects/support/imports/?format=prompts",
        content_type="application/x-ndjson",
        headers=caller.headers,
        **{"wsgi.input": Chunked(b'{"prompt": "one"}\n{"prompt": "two"}'), "wsgi.input_terminated": True},
        **CHUNKED,
    )
    assert answer.status_code == 201 and answer.json()["taken"] == 2


@pytest.mark.parametrize(
    ("path", "kind"),
    [("projects/", "application/json"), ("projects/support/imports/?format=prompts", "multipart/form-data; boundary=x")],
)
def test_elsewhere_a_body_in_chunks_is_refused_and_not_taken_for_empty(project, lead, path, kind):
    caller = Caller(lead)
    answer = caller.http.post(BASE + path, data=b"{}", content_type=kind, headers=caller.headers, **CHUNKED)
    assert answer.status_code == 411 and code_of(answer) == "length_required"


def test_hostile_lines_are_refused_by_name_and_the_good_one_is_kept(project, lead):
    hostile = [
        b'{"prompt": "\\u0000"}',
        b"[" * 100_000,
        b'{"prompt": "\\ud800"}',
        b'{"prompt": NaN}',
        b'{"prompt": "x", "tags": [{"a": 1}]}',
        b'{"prompt": [{"role": "system", "content": "x"}]}',
        b'{"prompt": [{"role": ["user"], "content": "x"}]}',
        b'{"prompt": "x", "id": 1' + b"0" * 5000 + b"}",
        b'{"id": "../../etc/passwd\\u0000", "prompt": "x"}',
        b'{"prompt": "\\ud800", "id": "\\udc00"}',
        b'{"prompt": "x", "source": "\\ud800"}',
        b'{"prompt": "x", "tags": ["\\ud800"]}',
        "{'prompt': 1}".encode("utf-16"),
        b'{"prompt": "' + b"y" * 1_000_001 + b'"}',
        b"null",
    ]
    body = b"\n".join([json.dumps({"prompt": "good"}).encode(), *hostile])
    answer = Caller(lead).post("projects/support/imports/?format=prompts", body, **NDJSON)
    told = answer.json()
    assert answer.status_code == 201 and told["taken"] == 1, told
    # UTF-16 holds a line feed byte of its own nowhere here, so each hostile row is one line.
    assert told["rejected"] == len(hostile)
    assert Prompt.objects.get().messages[0]["content"] == "good"


def test_the_format_is_recognised_and_votes_become_judged_tasks(project, engineer):
    told = Caller(engineer).post(IMPORTS, lines(PAIR), **NDJSON).json()
    assert (told["taken"], told["rejected"]) == (1, 0)
    shown = Caller(engineer).get(f"imports/{told['id']}/").json()
    assert (shown["format"], shown["state"], shown["project"]) == ("preference", "done", "support")
    assert (shown["n_prompts"], shown["n_completions"], shown["n_judgements"]) == (1, 2, 1)
    assert shown["bytes_done"] == shown["bytes_total"] > 0 and shown["finished_at"] and shown["rejected"] == []
    assert project.tasks.get().state == "done"


def test_a_file_says_where_it_comes_from(project, engineer):
    path = f"{IMPORTS}?source=tickets&licence=CC0-1.0&tags=b, a"
    assert Caller(engineer).post(path, lines({"prompt": "x"}, {"prompt": "y", "licence": "MIT", "tags": ["c"]}), **NDJSON).status_code == 201
    found = Prompt.objects.order_by("pk").values_list("source", "licence", "tags")
    assert list(found) == [("tickets", "CC0-1.0", ["a", "b"]), ("tickets", "MIT", ["a", "b", "c"])]


def test_columns_and_options_are_named_in_a_form_or_in_the_address(project, lead):
    caller = Caller(lead)
    table = b"question,good,bad\nWhere?,Here.,Nowhere.\n"
    mapping = json.dumps({"prompt": "question", "chosen": "good", "rejected": "bad"})
    path = BASE + IMPORTS + "?format=preference"
    form = {"file": SimpleUploadedFile("a.csv", table), "mapping": mapping, "options": "{}"}
    assert caller.http.post(path, form, headers=caller.headers).json()["taken"] == 1
    again = caller.call("POST", f"{IMPORTS}?format=preference&mapping={mapping}", table, content_type="text/csv").json()
    assert (again["taken"], again["duplicates"]) == (0, 1)
    for wrong in ({"mapping": "[1]"}, {"mapping": '{"prompt": 1}'}, {"mapping": '{"colour": "x"}'}, {"options": '{"odd": "x"}'}, {"options": "no"}):
        answer = caller.http.post(path, {"file": SimpleUploadedFile("a.csv", table), **wrong}, headers=caller.headers)
        [field] = answer.json()["error"]["fields"]
        assert answer.status_code == 400 and field.split(".")[0] == next(iter(wrong)), answer.json()


def test_in_the_background_the_answer_comes_at_once_and_a_worker_takes_the_file(project, engineer, lead):
    caller = Caller(engineer)
    answer = caller.post(f"{IMPORTS}?format=completions&background=1", b"\n".join(factories.completions_rows(3)), **NDJSON)
    assert answer.status_code == 202
    told = answer.json()
    assert (told["state"], told["n_taken"], told["finished_at"]) == ("waiting", 0, None)
    assert Prompt.objects.count() == 0
    assert run_next_import()
    shown = caller.get(f"imports/{told['id']}/").json()
    assert (shown["state"], shown["n_taken"], shown["n_rows"]) == ("done", 3, 3)
    listed = caller.get(IMPORTS).json()["results"]
    assert [row["id"] for row in listed] == [told["id"]] and "rejected" not in listed[0]
    assert caller.post(f"{IMPORTS}?background=perhaps", b"{}", **NDJSON).status_code == 400


def test_an_import_is_cancelled_and_goes_on_later(project, engineer):
    caller = Caller(engineer)
    told = caller.post(f"{IMPORTS}?format=completions&background=1", b"\n".join(factories.completions_rows(3)), **NDJSON).json()
    path = f"imports/{told['id']}/"
    early = caller.post(f"{path}resume/")
    assert early.status_code == 409 and code_of(early) == "wrong_state"
    assert caller.post(f"{path}cancel/").json()["state"] == "cancelled"
    assert not run_next_import()
    assert caller.post(f"{path}cancel/").status_code == 409
    assert caller.post(f"{path}resume/").json()["state"] == "waiting"
    assert run_next_import()
    assert caller.get(path).json()["n_taken"] == 3
    Import.objects.update(state="failed")
    file_of(Import.objects.get()).unlink()
    gone = caller.post(f"{path}resume/")
    assert gone.status_code == 409 and "send it again" in gone.json()["error"]["message"]


def test_every_refused_row_is_in_a_list_with_its_reason_and_the_row(project, engineer):
    caller = Caller(engineer)
    rows = [b'{"prompt": "fine"}', b'{"prompt": ""}', b"no json", json.dumps({"prompt": "", "note": "z" * 9000}).encode()]
    told = caller.post(f"{IMPORTS}?format=prompts", b"\n".join(rows), **NDJSON).json()
    answer = caller.get(f"imports/{told['id']}/rejected.jsonl")
    assert answer["Content-Type"] == "application/x-ndjson" and "attachment" in answer["Content-Disposition"]
    found = [json.loads(line) for line in b"".join(answer.streaming_content).splitlines()]
    assert [(row["line"], type(row["row"])) for row in found] == [(2, dict), (3, type(None)), (4, str)]
    assert found[0]["row"] == {"prompt": ""} and len(found[2]["row"]) < 5000
    assert [row["reason"] for row in found] == [row["reason"] for row in told["rejected_rows"]]


def test_a_preview_shows_records_and_takes_nothing(project, engineer):
    rows = [PAIR, {**PAIR, "chosen": 7}]
    shown = Caller(engineer).post(f"{IMPORTS}preview/", gzip.compress(lines(*rows)), content_type="application/gzip").json()
    assert (shown["kind"], shown["compressed"], shown["format"]) == ("jsonl", True, "preference")
    assert shown["reasons"] and shown["columns"] == ["prompt", "chosen", "rejected"]
    [record] = shown["records"]
    assert record["prompt"] == PAIR["prompt"] and [text["content"] for text in record["completions"]] == ["Here.", "No."]
    assert record["votes"][0]["judgement"]["ranking"] == [["a"], ["b"]]
    assert [row["line"] for row in shown["problems"]] == [2]
    assert (shown["n_rows"], shown["n_records"], shown["n_rejected"]) == (2, 1, 1)
    assert Prompt.objects.count() == Import.objects.count() == 0
    assert not list((Path(storage.settings.FILES) / "imports" / "arriving").glob("*"))


def test_a_preview_of_what_nobody_knows_says_so(project, engineer):
    caller = Caller(engineer)
    shown = caller.post(f"{IMPORTS}preview/", b'{"odd": 1}', **NDJSON).json()
    assert shown["format"] == "" and shown["reasons"] and shown["records"] == []
    wrong = caller.post(f"{IMPORTS}preview/?format=preference&mapping=%7B%22odd%22:%22x%22%7D", lines(PAIR), **NDJSON)
    assert wrong.status_code == 400


def test_a_file_that_cannot_be_read_is_refused_as_a_whole(project, engineer):
    answer = Caller(engineer).post(f"{IMPORTS}?format=prompts", b"PK\x03\x04" + b"x" * 100, content_type="application/octet-stream")
    assert answer.status_code == 400 and "ZIP" in answer.json()["error"]["fields"]["file"][0]
    assert Import.objects.get().state == "failed"


def test_a_file_over_the_limit_is_a_413_and_leaves_nothing(project, lead, settings):
    settings.IMPORT_MAX_BYTES = 1000
    for body in (b"x" * 1001, b"x" * 2_000_000):
        answer = Caller(lead).post(f"{IMPORTS}?format=prompts", body, **NDJSON)
        assert answer.status_code == 413 and code_of(answer) == "request_too_large"
    caller = Caller(lead)
    announced_wrong = caller.http.post(
        BASE + f"{IMPORTS}?format=prompts", content_type="application/x-ndjson", headers=caller.headers,
        **{"wsgi.input": io.BytesIO(b"x" * 5000), "wsgi.input_terminated": True}, **CHUNKED,
    )  # fmt: skip
    assert announced_wrong.status_code == 413
    assert Import.objects.count() == 0
    assert not list((Path(settings.FILES) / "imports" / "arriving").glob("*"))


def test_a_full_disk_is_said_in_words(project, lead, monkeypatch):
    """/dev/full takes nothing, as a full disk does."""
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    monkeypatch.setattr(storage, "open", lambda *_: open("/dev/full", "wb", buffering=0), raising=False)  # noqa: SIM115
    answer = Caller(lead).post(f"{IMPORTS}?format=prompts", b'{"prompt": "x"}', **NDJSON)
    assert answer.status_code == 507 and code_of(answer) == "disk_full"
    assert Import.objects.count() == 0


def test_who_may_not_train_sends_no_file_and_strangers_see_none(project, reviewer, stranger, engineer):
    told = Caller(engineer).post(f"{IMPORTS}?format=prompts", b'{"prompt": "x"}', **NDJSON).json()
    assert Caller(reviewer).post(f"{IMPORTS}?format=prompts", b"{}", **NDJSON).status_code == 403
    assert Caller(reviewer).get(f"imports/{told['id']}/").status_code == 200
    assert Caller(stranger).get(f"imports/{told['id']}/").status_code == 404
    assert Completion.objects.count() == 0
