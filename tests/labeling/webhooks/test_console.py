import re

import pytest
from django.utils.timezone import now

from labeling.webhooks.models import Delivery, Webhook
from labeling.webhooks.services import create_webhook
from tests.factories import make_project

pytestmark = pytest.mark.django_db
BASE = "/projects/support/webhooks/"


@pytest.fixture
def page(client, lead):
    client.force_login(lead)
    return client


def text_of(answer) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.content.decode()))


def test_the_settings_lead_to_an_empty_list_that_says_what_a_webhook_is_for(project, page):
    assert f'href="{BASE}"' in page.get("/projects/support/settings/").content.decode()
    assert "Nobody is told yet" in text_of(page.get(BASE))


def test_making_one_shows_its_secret_this_once(project, page):
    sent = {"url": "https://example.org/a", "events": ["run"], "description": "CI"}
    answer = page.post(f"{BASE}new/", sent)
    [secret] = re.findall(r"whsec_[A-Za-z0-9+/=]+", answer.content.decode())
    webhook = Webhook.objects.get()
    assert secret not in page.get(f"{BASE}{webhook.pk}/").content.decode()
    listed = text_of(page.get(BASE))
    assert "https://example.org/a" in listed and "CI" in listed and "none yet" in listed


def test_what_is_wrong_stands_beside_its_field(project, page):
    answer = page.post(f"{BASE}new/", {"url": "https://10.0.0.1/", "events": ["run"]})
    assert answer.status_code == 422 and "is not a public address" in text_of(answer)
    answer = page.post(f"{BASE}new/", {"url": "https://example.org/"})
    assert answer.status_code == 422 and not Webhook.objects.exists()


def test_the_test_button_shows_the_outcome_at_once(project, page, listed):
    webhook, _ = create_webhook(project=project, url=listed.url, events=["run"])
    answer = text_of(page.post(f"{BASE}{webhook.pk}/", {"do": "test"}))
    assert "Delivered · 204" in answer
    listed.says = 503
    assert "It answered with an error · 503" in text_of(page.post(f"{BASE}{webhook.pk}/", {"do": "test"}))


def test_pausing_resuming_sending_again_a_new_secret_and_deleting(project, page, listed):
    webhook, secret = create_webhook(project=project, url=listed.url, events=["run"])
    delivery = Delivery.objects.create(webhook=webhook, event="run", body="{}", state="delivered", ended_at=now())
    path = f"{BASE}{webhook.pk}/"
    page.post(path, {"do": "pause"})
    assert "nothing is kept for it" in text_of(page.get(path))
    page.post(path, {"do": "redeliver", "delivery": delivery.pk})
    assert Delivery.objects.get().state == "delivered"
    page.post(path, {"do": "resume"})
    page.post(path, {"do": "redeliver", "delivery": delivery.pk})
    assert Delivery.objects.get().state == "waiting"
    fresh = page.post(path, {"do": "rotate"}).content.decode()
    assert "whsec_" in fresh and secret not in fresh
    assert page.post(path, {"url": listed.url, "events": ["judgement"], "description": ""}).status_code == 302
    assert Webhook.objects.get().events == ["judgement"]
    assert page.post(path, {"do": "redeliver", "delivery": "x"}).status_code == 404
    page.post(path, {"do": "delete"})
    assert not Webhook.objects.exists()


def test_a_webhook_of_another_project_is_not_here(project, page, stranger):
    other, _ = create_webhook(project=make_project(stranger, slug="elsewhere"), url="https://example.org/", events=["run"])
    assert page.get(f"{BASE}{other.pk}/").status_code == 404
    assert page.post(f"{BASE}{other.pk}/", {"do": "delete"}).status_code == 404


def test_the_list_and_the_log_take_as_many_questions_with_many_rows(project, page, django_assert_max_num_queries):
    for number in range(10):
        webhook, _ = create_webhook(project=project, url=f"https://example.org/{number}", events=["run"])
    Delivery.objects.bulk_create([
        Delivery(webhook=webhook, event="run", body="{}", tries=[{"at": now().isoformat(), "status": 500, "error": "refused", "milliseconds": 3}])
        for _ in range(40)
    ])  # fmt: skip
    with django_assert_max_num_queries(25):
        page.get(BASE)
    with django_assert_max_num_queries(25):
        assert "before=" in page.get(f"{BASE}{webhook.pk}/").content.decode()
