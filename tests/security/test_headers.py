"""Headers that every answer carries."""

import pytest

from labeling.annotation.services import take_lease
from tests import factories


@pytest.fixture
def pages(client, lead, filled_project):
    client.force_login(lead, backend="django.contrib.auth.backends.ModelBackend")
    take_lease(project=filled_project, annotator=lead)
    paths = ["/", "/login/", "/profile/", "/projects/support/bench/", "/no-such-page", "/api/v1/docs/", "/projects/none/"]
    return [client.get(path) for path in paths]


def test_the_content_policy_is_enforced_on_every_page(pages):
    html = [page for page in pages if page.get("Content-Type", "").startswith("text/html")]
    assert len(html) >= 4
    for page in html:
        policy = page["Content-Security-Policy"]
        rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";") if rule.strip()}
        assert rules["default-src"] == ["'none'"] and rules["object-src"] == ["'none'"]
        assert rules["frame-ancestors"] == ["'none'"] and rules["base-uri"] == ["'none'"]
        assert rules["form-action"] == ["'self'"]
        assert not {"'unsafe-inline'", "'unsafe-eval'", "*", "data:", "https:"} & set(rules["script-src"])
        assert set(rules["img-src"]) <= {"'self'", "data:"}
        assert "Content-Security-Policy-Report-Only" not in page


def test_answers_are_not_sniffed_framed_or_kept(pages, client):
    for page in [*pages, client.get("/api/v1/projects/"), client.get("/healthz")]:
        assert page["X-Content-Type-Options"] == "nosniff"
        assert page["X-Frame-Options"] == "DENY"
        assert page["Referrer-Policy"] == "same-origin"
        assert page["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "camera=()" in page["Permissions-Policy"]
        assert "no-store" in page["Cache-Control"] or "no-cache" in page["Cache-Control"]


def test_scripts_in_pages_carry_the_nonce_of_their_policy(pages):
    for page in pages:
        for tag in page.content.decode().split("<script")[1:]:
            head = tag.split(">")[0]
            assert "src=" in head or "application/json" in head or "nonce=" in head, head


def test_an_error_of_the_api_tells_nothing_of_the_code(lead, project, monkeypatch):
    from labeling.projects import api
    from tests.api_caller import Caller, code_of

    monkeypatch.setattr(api.ProjectView, "get", lambda *_, **__: 1 / 0)
    answer = Caller(lead, raises=False).get("projects/support/")
    assert answer.status_code == 500 and code_of(answer) == "server_error"
    assert "ZeroDivision" not in answer.content.decode()


def test_cookies_are_kept_from_scripts_and_other_sites(client, db):
    factories.make_user("someone")
    client.post("/login/", {"username": "someone", "password": factories.PASSWORD})
    session = client.cookies["sessionid"]
    assert session["httponly"] and session["samesite"] == "Lax"
