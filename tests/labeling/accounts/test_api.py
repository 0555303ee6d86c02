import pytest
from django.core.management import call_command

from labeling.accounts.models import ApiToken
from labeling.accounts.services import digest_of
from tests.api_caller import Caller, code_of
from tests.factories import PASSWORD, token_for


def log_in(username, password=PASSWORD):
    return Caller().post("auth/token/", {"username": username, "password": password})


def test_a_password_is_exchanged_for_a_token_that_works(annotator):
    answer = log_in("annotator")
    assert answer.status_code == 201 and list(answer.json()) == ["token"]
    caller = Caller()
    caller.headers = {"Authorization": f"Bearer {answer.json()['token']}"}
    assert caller.get("projects/").json() == {"next": None, "previous": None, "results": []}


def test_log_ins_are_throttled_with_the_time_to_wait(db):
    answers = [log_in("nobody", "wrong") for _ in range(21)]
    assert answers[-1].status_code == 429 and code_of(answers[-1]) in ("throttled", "locked_out")
    assert int(answers[-1]["Retry-After"]) > 0


@pytest.mark.parametrize(
    "body", [{}, {"username": 1, "password": "x"}, {"username": "a\x00", "password": "x"}, [], "text", {"user": "x"}]
)
def test_a_malformed_log_in_is_a_400(db, body):
    answer = Caller().post("auth/token/", body)
    assert answer.status_code == 400 and code_of(answer) in ("invalid", "parse_error")


def test_the_schema_is_valid_and_complete(db, tmp_path):
    call_command("spectacular", validate=True, fail_on_warn=True, file=str(tmp_path / "schema.yml"))


def test_docs_page_keeps_the_policy_on_scripts(client, db):
    answer = client.get("/api/v1/docs/")
    policy = answer["Content-Security-Policy"]
    assert answer.status_code == 200 and "script-src 'self'" in policy
    scripts = policy.split("script-src")[1].split(";")[0]
    assert "unsafe" not in scripts
    assert b"<script>" not in answer.content
    script = client.get("/api/v1/docs/?script")
    assert script.status_code == 200 and script["Content-Type"].startswith("application/javascript")


def test_only_the_digest_of_a_token_is_kept(annotator):
    text = token_for(annotator)
    token = ApiToken.objects.get()
    assert token.digest == digest_of(text) and text not in str(vars(token))
