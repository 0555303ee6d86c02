"""Endpoints over REST and in the console."""

import pytest

from tests import factories
from tests.api_caller import Caller
from tests.training.endpoints.conftest import KEY
from tests.training.sampling.openai_server import MODEL
from training.endpoints.models import Endpoint
from training.runs.models import Run

NEW = {"name": "gpu1", "url": "https://models.example.org/v1/", "served_model": MODEL, "licence": "MIT", "key": KEY}


def test_a_lead_enters_changes_and_retires_one_and_the_key_is_never_shown(filled_project, lead, engineer):
    caller = Caller(lead)
    made = caller.post("projects/support/endpoints/", {**NEW, "prompt_price": 0.5, "currency": "USD"})
    assert made.status_code == 201, made.json()
    endpoint = made.json()
    assert (endpoint["url"], endpoint["has_key"], endpoint["model"]["key"]) == ("https://models.example.org/v1", True, "support-gpu1@1")
    assert KEY not in made.content.decode()
    assert caller.post("projects/support/endpoints/", NEW).json()["error"]["fields"] == {"name": ["is taken, perhaps by one that is retired"]}
    changed = caller.patch(f"endpoints/{endpoint['id']}/", {"concurrency": 2, "is_active": False})
    assert (changed.json()["concurrency"], changed.json()["is_active"]) == (2, False)
    assert caller.patch(f"endpoints/{endpoint['id']}/", {"url": "https://elsewhere.example.org/v1"}).status_code == 400
    seen = Caller(engineer).get("projects/support/endpoints/").json()["results"]
    assert [row["name"] for row in seen] == ["gpu1"]
    assert Caller(engineer).post("projects/support/endpoints/", NEW).status_code == 403


def test_an_engineer_starts_a_run_at_an_endpoint_by_name(filled_project, lead, engineer):
    Caller(lead).post("projects/support/endpoints/", NEW)
    body = {"kind": "sample", "model": "support-gpu1@1", "inputs": {"endpoint": "gpu1"}}
    run = Caller(engineer).post("projects/support/runs/", body)
    assert run.status_code == 201, run.json()
    assert Run.objects.get().inputs == {"endpoint": Endpoint.objects.get().pk}
    wrong = Caller(engineer).post("projects/support/runs/", {**body, "inputs": {"endpoint": "gpu9"}})
    assert wrong.status_code == 400 and "endpoint" in wrong.json()["error"]["fields"]


def test_an_endpoint_of_another_project_is_not_found(filled_project, lead, stranger):
    elsewhere = factories.make_project(stranger, slug="elsewhere")
    made = Caller(stranger).post("projects/elsewhere/endpoints/", NEW).json()
    assert Caller(lead).get(f"endpoints/{made['id']}/").status_code == 404
    body = {"kind": "sample", "model": "small@1", "inputs": {"endpoint": made["id"]}}
    assert Caller(lead).post("projects/support/runs/", body).status_code == 400
    assert elsewhere.endpoints.count() == 1


@pytest.fixture
def page(client, filled_project, lead):
    client.force_login(lead)
    return client


def test_a_lead_enters_one_in_the_console_tries_it_and_starts_a_run_there(page, listed):
    form = page.get("/projects/support/endpoints/new/").context["form"]
    sent = {name: "" if (value := form[name].value()) is None else value for name in form.fields} | {**NEW, "url": listed.url}
    made = page.post("/projects/support/endpoints/new/", sent)
    endpoint = Endpoint.objects.get()
    assert made.url == f"/projects/support/endpoints/{endpoint.pk}/"
    tried = page.post(made.url, {"do": "try"}).content.decode()
    assert f"It answers and serves {MODEL}." in tried and KEY not in tried
    assert "gpu1" in page.get("/projects/support/endpoints/").content.decode()
    assert "support-gpu1@1" not in page.get("/projects/support/runs/new/?kind=dpo").content.decode()
    new = page.get("/projects/support/runs/new/?kind=sample")
    assert "gpu1 · support-gpu1@1" in new.content.decode()
    body = {"kind": "sample", "model": endpoint.model_id, "endpoint": endpoint.pk, "other_options": "token_budget: 1000"}
    answer = page.post("/projects/support/runs/new/", body)
    run = Run.objects.get()
    assert (run.inputs, run.spec["token_budget"]) == ({"endpoint": endpoint.pk}, 1000)
    assert "Sampled at" in page.get(answer.url).content.decode()
    without = page.post("/projects/support/runs/new/", {**body, "endpoint": ""})
    assert "is required: the weights" in " ".join(without.context["form"].errors["endpoint"])


def test_limits_change_and_an_empty_key_leaves_the_one_there_is(page, filled_project):
    made = Caller(filled_project.memberships.get(role="lead").user).post("projects/support/endpoints/", NEW).json()
    url = f"/projects/support/endpoints/{made['id']}/"
    form = page.get(url).context["form"]
    sent = {name: form[name].value() or 0 for name in form.fields if name not in ("key", "currency")}
    key_name = Endpoint.objects.get().key_name
    assert page.post(url, {**sent, "concurrency": 0}).status_code == 422
    assert page.post(url, {**sent, "currency": "euro"}).status_code == 422
    assert page.post(url, {**sent, "concurrency": 3, "currency": "EUR"}).status_code == 302
    endpoint = Endpoint.objects.get()
    assert (endpoint.concurrency, endpoint.currency, endpoint.key_name) == (3, "EUR", key_name)
    page.post(url, {"do": "retire"})
    page.post(url, {"do": "forget_key"})
    endpoint.refresh_from_db()
    assert (endpoint.is_active, endpoint.has_key) == (False, False)
    assert "retired" in page.get(url).content.decode()
