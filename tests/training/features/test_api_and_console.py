"""Features over REST and in the console."""

import pytest

from tests import factories
from tests.api_caller import Caller
from training.features.models import Encoder
from training.features.selectors import encode_runs
from training.runs.models import Run

NEW = {"model": "tiny@1", "layer": 2, "pooling": "last"}
PAGE = "/projects/support/features/"


def test_an_engineer_enters_one_uses_it_and_follows_the_encoding(project, encoder, engineer):
    caller = Caller(engineer)
    made = caller.post("projects/support/encoders/", NEW)
    assert made.status_code == 201, made.json()
    assert (made.json()["layer"], made.json()["is_active"], made.json()["layers"]) == (2, False, [])
    empty = caller.get("projects/support/features/").json()
    assert (empty["encoder"], empty["n_completions"], empty["n_encoded"]) == (None, 36, 0)
    assert caller.post("projects/support/features/encode/", {}).json()["error"]["code"] == "nothing_to_encode"
    used = caller.patch(f"encoders/{made.json()['id']}/", {"is_active": True})
    assert used.json()["is_active"] is True
    state = caller.get("projects/support/features/").json()
    assert (state["encoder"]["id"], state["n_waiting"], state["run"]["state"]) == (made.json()["id"], 36, "queued")
    assert caller.call("DELETE", f"encoders/{made.json()['id']}/").status_code == 409
    cancelled = caller.post(f"runs/{state['run']['id']}/cancel/", {})
    assert cancelled.json()["state"] == "cancelled"
    again = caller.post("projects/support/features/encode/", {})
    assert again.status_code == 201 and again.json()["kind"] == "encode"
    assert caller.patch(f"encoders/{made.json()['id']}/", {"is_active": False}).json()["is_active"] is False
    assert caller.call("DELETE", f"encoders/{made.json()['id']}/").status_code == 204
    assert [row["id"] for row in caller.get("projects/support/encoders/").json()["results"]] == [str(encoder.pk)]


def test_what_is_wrong_is_named_and_who_may_not_change_reads(project, encoder, engineer, reviewer, stranger):
    caller = Caller(engineer)
    wrong = caller.post("projects/support/encoders/", {**NEW, "layer": 9}).json()["error"]["fields"]
    assert wrong == {"layer": ["must lie between 1 and 2, the layers of tiny@1"]}
    assert "pooling" in caller.post("projects/support/encoders/", {**NEW, "pooling": "max"}).json()["error"]["fields"]
    assert "model" in caller.post("projects/support/encoders/", {**NEW, "model": "none@1"}).json()["error"]["fields"]
    assert "at_most" in caller.get("projects/support/features/uncertain/?at_most=0").json()["error"]["fields"]
    assert caller.get("projects/support/features/uncertain/").json() == {"model": None, "pairs": []}
    assert Caller(reviewer).get("projects/support/features/").status_code == 200
    assert Caller(reviewer).patch(f"encoders/{encoder.pk}/", {"is_active": True}).status_code == 403
    assert Caller(stranger).get(f"encoders/{encoder.pk}/").status_code == 404
    theirs = factories.make_project(stranger, slug="elsewhere")
    assert Caller(stranger).get(f"projects/{theirs.slug}/encoders/").json()["results"] == []


@pytest.fixture
def page(client, project, encoder, lead):
    client.force_login(lead)
    return client


def test_a_lead_chooses_uses_stops_and_deletes_in_the_console(page, project, encoder):
    assert "No encoder is in use" in page.get(PAGE).content.decode()
    body = {"do": "enter", "model": encoder.model_id, "layer": 2, "pooling": "last", "max_length": 512, "dimensions": 32}
    assert page.post(PAGE, {**body, "layer": 3}).status_code == 422
    assert page.post(PAGE, body).status_code == 302
    made = Encoder.objects.get(layer=2)
    page.post(PAGE, {"do": "use", "encoder": made.pk})
    shown = page.get(PAGE).content.decode()
    assert "36 wait" in shown and "Stop this run" in shown and "in use" in shown
    page.post(PAGE, {"do": "halt"})
    assert encode_runs(made).get().state == Run.State.CANCELLED
    shown = page.get(PAGE).content.decode()
    assert "The last run was stopped" in shown and "Encode now" in shown
    page.post(PAGE, {"do": "encode"})
    assert encode_runs(made).count() == 2
    refused = page.post(PAGE, {"do": "delete", "encoder": made.pk}, follow=True).content.decode()
    assert "a run still encodes by it" in refused
    page.post(PAGE, {"do": "stop", "encoder": made.pk})
    page.post(PAGE, {"do": "delete", "encoder": made.pk})
    assert list(Encoder.objects.all()) == [encoder]
    assert page.post(PAGE, {"do": "use", "encoder": "0"}).status_code == 404


def test_a_measurement_is_started_from_the_page_and_wrong_fields_are_shown_there(page, project, encoder, lead, annotator):
    from labeling.preferences.services import create_snapshot

    factories.judge_all(project, annotator)
    snapshot = create_snapshot(project=project, created_by=lead)
    body = {"model": encoder.model_id, "snapshot": snapshot.pk, "max_pairs": 5}
    assert page.post(PAGE + "measure/", body).status_code == 422
    started = page.post(PAGE + "measure/", {**body, "max_pairs": 500})
    run = Run.objects.get()
    assert started.url == f"/projects/support/runs/{run.pk}/"
    assert (run.kind, run.spec, run.snapshot) == ("layers", {"max_pairs": 500}, snapshot)
    assert f"Run {run.pk}</a> measures now" in page.get(PAGE).content.decode()
    for kind in ("layers", "encode"):
        assert page.get(f"/projects/support/runs/new/?kind={kind}").url == PAGE


def test_a_reviewer_sees_the_page_without_its_buttons(client, project, encoder, reviewer):
    client.force_login(reviewer)
    shown = client.get(PAGE).content.decode()
    assert "Measure the layers" not in shown and 'name="do"' not in shown
    assert client.post(PAGE, {"do": "use", "encoder": encoder.pk}).status_code == 403
