import pytest

from labeling.webhooks.models import Delivery, Webhook
from labeling.webhooks.services import MOST_A_PROJECT, create_webhook
from tests import factories
from tests.api_caller import Caller, code_of

pytestmark = pytest.mark.django_db
NEW = {"url": "https://example.org/hook", "events": ["run", "snapshot"], "description": "starts the pipeline"}


@pytest.fixture
def caller(project, lead):
    return Caller(lead)


def test_a_webhook_is_made_listed_changed_and_deleted(caller):
    made = caller.post("projects/support/webhooks/", NEW)
    assert made.status_code == 201 and made.json()["secret"].startswith("whsec_")
    path = f"webhooks/{made.json()['id']}/"
    shown = caller.get(path).json()
    assert shown == {name: value for name, value in made.json().items() if name != "secret"}
    assert shown["events"] == ["snapshot", "run"] and shown["state"] == "active"
    assert caller.get("projects/support/webhooks/").json()["results"] == [shown]
    changed = caller.patch(path, {"state": "paused", "events": ["judgement"]}).json()
    assert (changed["state"], changed["events"], changed["url"]) == ("paused", ["judgement"], NEW["url"])
    assert caller.call("DELETE", path).status_code == 204
    assert caller.get(path).status_code == 404


@pytest.mark.parametrize(("field", "value"), [
    ("url", "http://example.org/"), ("url", "https://127.0.0.1/"), ("url", ""), ("url", 3), ("events", []), ("events", ["everything"]),
    ("events", "run"), ("description", "x" * 201), ("state", "disabled"),
])  # fmt: skip
def test_what_is_wrong_is_named(caller, field, value):
    webhook = caller.post("projects/support/webhooks/", NEW).json()
    answer = caller.patch(f"webhooks/{webhook['id']}/", {field: value})
    assert answer.status_code == 400 and list(answer.json()["error"]["fields"]) == [field]
    if field != "state":
        assert caller.post("projects/support/webhooks/", {**NEW, field: value}).status_code == 400
    assert Webhook.objects.count() == 1


def test_a_project_has_ten_at_most(caller):
    for _ in range(MOST_A_PROJECT):
        assert caller.post("projects/support/webhooks/", NEW).status_code == 201
    assert "url" in caller.post("projects/support/webhooks/", NEW).json()["error"]["fields"]


def test_a_new_secret_is_shown_once(caller):
    made = caller.post("projects/support/webhooks/", NEW).json()
    rotated = caller.post(f"webhooks/{made['id']}/rotate/", {"keep_hours": 1}).json()
    assert rotated["secret"] != made["secret"] and rotated["old_secret_until"]
    assert "secret" not in caller.get(f"webhooks/{made['id']}/").json()


def test_a_test_and_the_log_and_sending_again(project, caller, listed, lead):
    webhook, _ = create_webhook(project=project, url=listed.url, events=["run"])
    tested = caller.post(f"webhooks/{webhook.pk}/test/")
    assert tested.status_code == 200 and tested.json()["tries"][0]["status"] == 204
    [row] = caller.get(f"webhooks/{webhook.pk}/deliveries/").json()["results"]
    assert row == tested.json() and row["webhook_id"] == listed.ids[0]
    again = caller.post(f"deliveries/{row['id']}/redeliver/")
    assert again.status_code == 202 and again.json()["state"] == "waiting"
    Delivery.objects.update(state="sending")
    answer = caller.post(f"deliveries/{row['id']}/redeliver/")
    assert (answer.status_code, code_of(answer)) == (409, "wrong_state")
    for _ in range(9):
        caller.post(f"webhooks/{webhook.pk}/test/")
    answer = caller.post(f"webhooks/{webhook.pk}/test/")
    assert (answer.status_code, code_of(answer), answer["Retry-After"]) == (429, "throttled", "61")


def test_the_lead_of_another_project_sees_nothing(project, stranger, lead):
    webhook, _ = create_webhook(project=project, url=NEW["url"], events=["run"])
    delivery = Delivery.objects.create(webhook=webhook, event="run", body="{}")
    factories.make_project(stranger, slug="elsewhere")
    theirs = Caller(stranger)
    for method, path in (
        ("GET", f"webhooks/{webhook.pk}/"), ("PATCH", f"webhooks/{webhook.pk}/"), ("DELETE", f"webhooks/{webhook.pk}/"),
        ("POST", f"webhooks/{webhook.pk}/test/"), ("POST", f"deliveries/{delivery.pk}/redeliver/"),
    ):  # fmt: skip
        assert theirs.call(method, path, {}).status_code == 404
    limited = Caller(lead, project_slug="elsewhere")
    assert limited.get(f"webhooks/{webhook.pk}/").status_code == 404
    assert limited.post(f"deliveries/{delivery.pk}/redeliver/").status_code == 404
