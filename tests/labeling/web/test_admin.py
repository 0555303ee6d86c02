import pytest
from django.contrib import admin
from django.test import Client

from labeling.accounts.services import create_token
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator_client(db) -> Client:
    client = Client()
    client.force_login(factories.make_user("operator", is_staff=True))
    return client


def test_operators_alone_enter_the_admin(lead, operator_client):
    client = Client()
    assert client.get("/admin/").status_code == 302
    client.force_login(lead)
    assert client.get("/admin/").status_code == 302
    assert operator_client.get("/admin/").status_code == 200


def test_every_list_and_row_of_the_admin_opens(operator_client, filled_project, annotator):
    factories.judge_all(filled_project, annotator)
    create_token(user=annotator, name="t")
    for model in admin.site._registry:
        address = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        assert operator_client.get(address).status_code == 200, address
        if row := model.objects.first():
            assert operator_client.get(f"{address}{row.pk}/change/").status_code == 200, address


def test_judgements_and_snapshots_cannot_be_added_changed_or_deleted(operator_client, filled_project, annotator):
    factories.judge_all(filled_project, annotator, limit=1)
    pk = filled_project.judgements.get().pk
    for address in ("annotation/judgement/add/", f"annotation/judgement/{pk}/delete/", "preferences/snapshot/add/"):
        assert operator_client.get(f"/admin/{address}").status_code == 403
    assert operator_client.post(f"/admin/annotation/judgement/{pk}/change/", {"seconds": 1}).status_code == 403


def test_the_admin_shows_no_token_digest_and_can_revoke(operator_client, annotator):
    token, text = create_token(user=annotator, name="laptop")
    for address in ("/admin/accounts/apitoken/", f"/admin/accounts/apitoken/{token.pk}/change/"):
        page = operator_client.get(address).content.decode()
        assert token.digest not in page and text not in page
    operator_client.post("/admin/accounts/apitoken/", {"action": "revoke", "_selected_action": [token.pk]})
    token.refresh_from_db()
    assert token.revoked_at


def test_only_the_admin_may_evaluate_strings_as_scripts(operator_client):
    assert "unsafe-eval" in operator_client.get("/admin/")["Content-Security-Policy"]
    assert "unsafe-eval" in Client().get("/admin/login/")["Content-Security-Policy"]
    assert "unsafe" not in Client().get("/healthz")["Content-Security-Policy"]
