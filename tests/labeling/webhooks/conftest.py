from collections.abc import Iterator

import pytest

from labeling.webhooks.services import create_webhook
from tests.labeling.webhooks.receiver import Receiver

EVENTS = ["judgement", "import", "snapshot", "run", "iteration", "model"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def listed(settings, receiver):
    """The receiver's host is one that the operator lists."""
    settings.WEBHOOK_HOSTS = [receiver.host]
    return receiver


@pytest.fixture
def webhook(project, lead, listed):
    return create_webhook(project=project, url=listed.url, events=EVENTS, created_by=lead)[0]
