"""Prometheus gets the state of the queues, and nobody else does."""

import pytest
from django.test import Client

from tests import factories


@pytest.fixture
def scraper(settings) -> Client:
    settings.METRICS_TOKEN = "a token for scraping"
    return Client(headers={"Authorization": "Bearer a token for scraping"})


def test_the_queues_are_counted_by_state(filled_project, annotator, scraper):
    factories.judge_all(filled_project, annotator, limit=2)
    text = scraper.get("/metrics").content.decode()
    assert 'prefloop_slots{state="free"} 3.0' in text
    assert 'prefloop_slots{state="done"} 2.0' in text
    assert 'prefloop_runs{state="failed"} 0.0' in text
    assert "prefloop_oldest_queued_run_seconds 0.0" in text


@pytest.mark.parametrize("header", ["", "Bearer ", "Bearer wrong"])
def test_without_the_token_there_is_nothing_to_see(filled_project, scraper, client, settings, header):
    assert Client(headers={"Authorization": header}).get("/metrics").status_code == 403
    settings.METRICS_TOKEN = ""
    assert Client(headers={"Authorization": header}).get("/metrics").status_code == 403
    assert scraper.get("/metrics").status_code == 403
