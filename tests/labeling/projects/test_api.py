import io
import json

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from labeling.accounts.models import User
from labeling.projects import api as projects_api
from labeling.projects.api import lines_of
from labeling.projects.models import Import, Membership, Prompt
from labeling.web.api import Refused
from tests import factories
from tests.api_caller import BASE, Caller, code_of

CHUNKED = {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}
NDJSON = {"content_type": "application/x-ndjson"}


def test_a_person_makes_a_project_and_is_its_lead(stranger):
    answer = Caller(stranger).post("projects/", {"slug": "fresh", "name": "New", "guideline": "Be *kind*."})
    assert answer.status_code == 201
    made = answer.json()
    assert (made["slug"], made["role"], made["overlap"]) == ("fresh", "lead", 1)
    assert isinstance(made["id"], str) and made["guideline"] == {"version": 1, "markdown": "Be *kind*."}
    assert made["form"]["ranking"] is True


def test_a_short_name_that_is_an_address_of_the_site_is_refused(stranger):
    answer = Caller(stranger).post("projects/", {"slug": "new", "name": "New"})
    assert answer.status_code == 400 and "slug" in answer.json()["error"]["fields"]


def test_a_simulated_account_makes_no_project(db):
    robot = factories.make_user("robot", kind=User.Kind.SIMULATED)
    answer = Caller(robot).post("projects/", {"slug": "new", "name": "New"})
    assert answer.status_code == 403 and code_of(answer) == "permission_denied"


def test_wrong_fields_of_a_project_are_named(lead, project):
    caller = Caller(lead)
    taken = caller.post("projects/", {"slug": "support", "name": "x"})
    assert taken.status_code == 400 and "slug" in taken.json()["error"]["fields"]
    form = caller.post("projects/", {"slug": "a", "name": "x", "form": {"flags": "no list", "odd": 1}})
    assert form.status_code == 400 and set(form.json()["error"]["fields"]["form"]) == {"flags", "odd"}
    for body in ({"eval_share": "0.5"}, {"overlap": True}, {"overlap": 10**30}, {"name": 5}, {"eval_share": 2}):
        answer = caller.patch("projects/support/", body)
        assert answer.status_code == 400, body


def test_projects_are_listed_to_their_members_page_by_page(lead, stranger):
    for number in range(5):
        factories.make_project(lead, slug=f"p{number}")
    caller = Caller(lead)
    seen, path = [], "projects/?page_size=2"
    while path:
        page = caller.get(path).json()
        assert set(page) == {"next", "previous", "results"}
        seen += [row["slug"] for row in page["results"]]
        path = page["next"] and page["next"].split(BASE)[1]
    assert seen == ["p4", "p3", "p2", "p1", "p0"]
    assert Caller(stranger).get("projects/").json()["results"] == []


@pytest.mark.parametrize("cursor", ["x", "cD1hYmM=", "cD0tMQ==", "cD0xZTk=", "", "%00", "cD05OTk5OTk5OTk5OTk5OTk5OTk5OTk="])
def test_a_made_up_cursor_is_no_server_error(lead, project, cursor):
    assert Caller(lead).get(f"projects/?cursor={cursor}").status_code in (200, 400)


def test_a_change_of_a_project_touches_what_was_given(lead, project):
    answer = Caller(lead).patch("projects/support/", {"overlap": 3, "guideline": "New words.", "state": "paused"})
    assert answer.status_code == 200
    changed = answer.json()
    assert (changed["overlap"], changed["state"], changed["name"]) == (3, "paused", "Support replies")
    assert changed["guideline"]["version"] == 2


def test_listing_projects_takes_as_many_queries_for_ten_as_for_one(lead, django_assert_max_num_queries):
    for number in range(10):
        factories.make_project(lead, slug=f"p{number}")
    caller = Caller(lead)
    caller.get("projects/")
    with django_assert_max_num_queries(2):
        assert len(caller.get("projects/").json()["results"]) == 10


def test_members_are_added_and_moved_by_the_lead(lead, project, stranger):
    caller = Caller(lead)
    added = caller.post("projects/support/members/", {"username": "stranger", "role": "annotator"})
    assert added.status_code == 201 and added.json()["pseudonym"].startswith("annotator-")
    moved = caller.post("projects/support/members/", {"username": "stranger", "role": "reviewer"})
    assert moved.status_code == 200 and moved.json()["role"] == "reviewer"
    assert {row["username"] for row in caller.get("projects/support/members/").json()["results"]} >= {"stranger", "lead"}
    unknown = caller.post("projects/support/members/", {"username": "no-one", "role": "annotator"})
    assert unknown.status_code == 400 and "username" in unknown.json()["error"]["fields"]
    last = caller.post("projects/support/members/", {"username": "lead", "role": "annotator"})
    assert last.status_code == 409 and code_of(last) == "last_lead"


def test_a_change_of_role_takes_effect_at_the_next_request(project, engineer):
    caller = Caller(engineer)
    assert caller.get("projects/support/snapshots/").status_code == 200
    Membership.objects.filter(user=engineer).update(role="annotator")
    assert caller.get("projects/support/snapshots/").status_code == 403
    Membership.objects.filter(user=engineer).delete()
    assert caller.get("projects/support/snapshots/").status_code == 404


# --- imports ------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["application/x-ndjson", "application/jsonl", "text/plain", "application/octet-stream"])
def test_rows_come_in_as_a_body_of_lines(project, engineer, kind):
    rows = [*factories.completions_rows(3), b"not json", b'{"prompt": "p", "odd": 1}']
    answer = Caller(engineer).post(
        "projects/support/imports/?format=completions", b"\n".join(rows), content_type=kind
    )
    assert answer.status_code == 201
    told = answer.json()
    assert set(told) == {"id", "taken", "duplicates", "rejected", "rejected_rows"}
    assert (told["taken"], told["duplicates"], told["rejected"]) == (3, 0, 2)
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


def test_an_import_without_a_known_format_or_type_is_refused(project, lead):
    caller = Caller(lead)
    for path in ("imports/", "imports/?format=pickle", "imports/?format=json"):
        answer = caller.post(f"projects/support/{path}", b"{}", **NDJSON)
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


def test_an_import_over_the_limit_is_a_413(project, lead, monkeypatch):
    monkeypatch.setattr(projects_api, "MAX_IMPORT_BYTES", 100)
    answer = Caller(lead).post("projects/support/imports/?format=prompts", b"x" * 101, **NDJSON)
    assert answer.status_code == 413 and code_of(answer) == "request_too_large"
    with pytest.raises(Refused):
        list(lines_of(reader(b"x" * 120, 60)))


def reader(data, step):
    parts = [data[start : start + step] for start in range(0, len(data), step)]
    return lambda size: parts.pop(0) if parts else b""


@pytest.mark.parametrize("step", [1, 3, 64])
def test_lines_are_the_same_however_the_stream_is_cut(step):
    data = b"one\n\ntwo\r\nthree"
    assert list(lines_of(reader(data, step))) == [b"one\n", b"\n", b"two\r\n", b"three"]


def test_an_endless_line_is_cut_and_the_next_one_read(monkeypatch):
    monkeypatch.setattr(projects_api, "MAX_LINE_BYTES", 10)
    lines = list(lines_of(reader(b"a" * 100 + b"\nnext\n", 4)))
    assert len(lines) == 2 and len(lines[0]) <= 14 and lines[1] == b"next\n"


def test_hostile_lines_are_refused_by_name_and_the_good_one_is_kept(project, lead):
    hostile = [
        b"[" * 100_000,
        b'{"prompt": "\\u0000"}',
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
        b"\xff\xfe",
        b"null",
    ]
    body = b"\n".join([*hostile, json.dumps({"prompt": "good"}).encode()])
    answer = Caller(lead).post("projects/support/imports/?format=prompts", body, **NDJSON)
    told = answer.json()
    assert answer.status_code == 201 and told["taken"] == 1
    # UTF-16 holds a line feed byte of its own nowhere here, so each hostile row is one line.
    assert told["rejected"] == len(hostile)
    assert Prompt.objects.get().messages[0]["content"] == "good"
