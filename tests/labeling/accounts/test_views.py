"""Logging in and out, and one's own API tokens."""

import pytest
from django.urls import reverse

from labeling.accounts.models import ApiToken
from tests.factories import PASSWORD, token_for

PROFILE = "/profile/"


def test_log_in_leads_to_the_page_that_was_asked_for(client, annotator):
    response = client.get(PROFILE)
    assert response.url == f"{reverse('accounts:login')}?next={PROFILE}"
    response = client.post(response.url, {"username": "annotator", "password": PASSWORD, "next": PROFILE})
    assert response.url == PROFILE


def test_log_in_leads_to_no_other_site(client, annotator):
    body = {"username": "annotator", "password": PASSWORD, "next": "https://evil.example/"}
    assert client.post(reverse("accounts:login"), body).url == reverse("home")


def test_a_wrong_name_and_a_wrong_password_read_alike(client, annotator):
    answers = [
        client.post(reverse("accounts:login"), {"username": name, "password": "wrong password"})
        for name in ("annotator", "nobody-at-all")
    ]
    texts = [
        answer.content.decode().replace(name, "NAME").split("<main")[1].split("csrfmiddlewaretoken")[1][80:]
        for answer, name in zip(answers, ("annotator", "nobody-at-all"), strict=True)
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert texts[0] == texts[1]


def test_ten_wrong_tries_rest_the_name_even_for_the_right_password(client, annotator):
    for _ in range(10):
        client.post(reverse("accounts:login"), {"username": "annotator", "password": "wrong password"})
    response = client.post(reverse("accounts:login"), {"username": "annotator", "password": PASSWORD})
    assert response.status_code == 429
    assert "Too many tries" in response.content.decode()


def test_log_out_needs_a_post(client, annotator):
    client.force_login(annotator)
    assert client.get(reverse("accounts:logout")).status_code == 405
    assert client.post(reverse("accounts:logout")).url == reverse("accounts:login")
    assert client.get(PROFILE).status_code == 302


def test_a_new_token_is_shown_once(client, annotator, project):
    client.force_login(annotator)
    body = {"name": "notebook", "scopes": ["read", "annotate"], "project_slug": "support", "lifetime": "30"}
    page = client.post(PROFILE, body).content.decode()
    token = ApiToken.objects.get()
    assert (token.scopes, token.project_slug, token.user) == (["annotate", "read"], "support", annotator)
    secret = page.split('readonly autofocus value="')[1].split('"')[0]
    assert secret.startswith(token.prefix) and len(secret) == 44
    assert secret not in client.get(PROFILE).content.decode()


@pytest.mark.parametrize(
    "wrong",
    [{"name": ""}, {"scopes": []}, {"scopes": ["root"]}, {"project_slug": "not-mine"}, {"lifetime": "99999"}],
)
def test_a_wrong_token_form_makes_no_token(client, annotator, project, wrong):
    client.force_login(annotator)
    body = {"name": "notebook", "scopes": ["read"], "project_slug": "", "lifetime": "30"}
    assert client.post(PROFILE, {**body, **wrong}).status_code == 422
    assert not ApiToken.objects.exists()


def test_a_person_revokes_their_own_token_and_nobody_elses(client, annotator, stranger):
    token_for(annotator)
    address = reverse("accounts:revoke_token", args=[ApiToken.objects.get().pk])
    client.force_login(stranger)
    assert client.post(address).status_code == 404
    assert ApiToken.objects.get().revoked_at is None
    client.force_login(annotator)
    assert client.get(address).status_code == 405
    assert client.post(address).url == PROFILE
    assert ApiToken.objects.get().revoked_at is not None
