"""Tokens, passwords and what ends them."""

import io
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils.timezone import now

from labeling.accounts.models import ApiToken
from labeling.accounts.services import create_token, revoke_token
from tests.api_caller import Caller, code_of
from tests.factories import PASSWORD, token_for


def with_token(text):
    caller = Caller()
    caller.headers = {"Authorization": f"Bearer {text}"}
    return caller


def log_in(username, password):
    return Caller().post("auth/token/", {"username": username, "password": password})


def test_a_dump_of_the_database_holds_no_token(annotator):
    text = token_for(annotator)
    dump = io.StringIO()
    call_command("dumpdata", stdout=dump, exclude=["contenttypes", "auth.permission"])
    assert text not in dump.getvalue() and text.removeprefix("plf_") not in dump.getvalue()
    assert ApiToken.objects.get().digest in dump.getvalue()


def test_expired_revoked_and_made_up_tokens_open_nothing(annotator):
    revoked, text = create_token(user=annotator, name="old")
    assert with_token(text).get("projects/").status_code == 200
    revoke_token(token=revoked)
    expired = token_for(annotator, lifetime=timedelta(seconds=-1))
    for wrong in (text, expired, "plf_" + "0" * 40, "x", "x y", "é", ""):
        answer = with_token(wrong).get("projects/")
        assert answer.status_code == 401 and code_of(answer) in ("authentication_failed", "not_authenticated")
        assert answer["WWW-Authenticate"] == "Bearer"


def test_a_token_ends_at_its_hour(annotator):
    token, text = create_token(user=annotator, name="short", lifetime=timedelta(hours=1))
    assert with_token(text).get("projects/").status_code == 200
    ApiToken.objects.filter(pk=token.pk).update(expires_at=now() - timedelta(seconds=1))
    assert with_token(text).get("projects/").status_code == 401


def test_a_closed_account_opens_nothing_by_token_or_password(annotator):
    text = token_for(annotator)
    annotator.is_active = False
    annotator.save()
    assert with_token(text).get("projects/").status_code == 401
    assert log_in("annotator", PASSWORD).status_code == 401


def test_unknown_name_wrong_password_and_closed_account_are_told_alike(annotator, reviewer):
    reviewer.is_active = False
    reviewer.save()
    answers = [log_in("annotator", "wrong"), log_in("nobody-here", "wrong"), log_in("reviewer", PASSWORD)]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1


def test_guessing_a_password_locks_the_name_for_this_address_even_for_the_right_one(annotator, settings):
    for _ in range(settings.AXES_FAILURE_LIMIT):
        log_in("annotator", "wrong")
    locked = log_in("annotator", PASSWORD)
    assert locked.status_code == 429 and code_of(locked) in ("locked_out", "throttled")
    assert int(locked["Retry-After"]) > 60


def test_a_forged_forwarding_header_is_no_new_address(annotator, settings):
    answers = [
        Caller().post("auth/token/", {"username": "annotator", "password": "wrong"}, X_Forwarded_For=f"10.0.0.{number}")
        for number in range(settings.AXES_FAILURE_LIMIT + 1)
    ]
    assert answers[-1].status_code == 429


def test_a_token_made_before_a_change_of_password_stays_until_it_is_revoked(annotator):
    """Tokens belong to programs; the profile page lists them, and revokes them one by one."""
    text = token_for(annotator)
    annotator.set_password("another long password")
    annotator.save()
    assert with_token(text).get("projects/").status_code == 200


def test_a_change_of_password_ends_sessions(client, annotator):
    client.force_login(annotator, backend="django.contrib.auth.backends.ModelBackend")
    assert client.get("/profile/").status_code == 200
    annotator.set_password("another long password")
    annotator.save()
    assert client.get("/profile/").status_code == 302


def test_a_log_in_begins_a_new_session_and_a_log_out_ends_it(client, annotator):
    client.get("/login/")
    client.post("/login/", {"username": "annotator", "password": PASSWORD})
    first = client.cookies["sessionid"].value
    assert client.get("/profile/").status_code == 200
    client.post("/logout/")
    client.cookies["sessionid"] = first
    assert client.get("/profile/").status_code == 302


@pytest.mark.parametrize(
    "scopes, method, path, expected",
    [
        (["read"], "GET", "projects/support/", 200),
        (["read"], "POST", "projects/support/leases/", 403),
        (["read"], "PATCH", "projects/support/", 403),
        (["annotate"], "POST", "projects/support/leases/", 201),
        (["annotate"], "GET", "projects/support/", 403),
        (["annotate"], "PATCH", "projects/support/", 403),
        (["manage"], "PATCH", "projects/support/", 200),
        (["manage"], "POST", "projects/support/leases/", 403),
        ([], "GET", "projects/", 403),
    ],
)
def test_a_token_does_what_its_scopes_say(filled_project, lead, scopes, method, path, expected):
    answer = Caller(lead, scopes).call(method, path, None if method == "GET" else {})
    assert answer.status_code == expected
    if expected == 403:
        assert code_of(answer) == "scope_missing"


def test_a_token_for_one_project_opens_no_other(filled_project, lead):
    from tests import factories

    factories.make_project(lead, slug="second")
    caller = Caller(lead, project_slug="support")
    assert caller.get("projects/support/").status_code == 200
    assert caller.get("projects/second/").status_code == 404
    assert [row["slug"] for row in caller.get("projects/").json()["results"]] == ["support"]
    lease = Caller(lead).post("projects/support/leases/").json()
    assert Caller(lead, project_slug="second").post(f"leases/{lease['id']}/renew/").status_code == 404
    assert caller.post(f"leases/{lease['id']}/renew/").status_code == 200
    refused = caller.post("projects/", {"slug": "third", "name": "x"})
    assert refused.status_code == 403 and code_of(refused) == "scope_missing"
