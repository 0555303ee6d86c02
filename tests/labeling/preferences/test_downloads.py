"""Files of a snapshot, taken from its page in the console."""

import re

import pytest

from labeling.preferences.services import create_snapshot
from labeling.preferences.views_of_snapshots import VIEWS
from tests import factories

ADDRESS = "/projects/support/snapshots/1/"


@pytest.fixture
def reader(client, filled_project, lead, annotator):
    """A lead's browser, and a first snapshot."""
    factories.judge_all(filled_project, annotator)
    create_snapshot(project=filled_project, created_by=lead)
    client.force_login(lead)
    return client


def test_a_download_from_the_console_can_be_resumed_and_need_not_be_repeated(reader):
    address = ADDRESS + "votes.train.jsonl"
    whole = reader.get(address)
    body = b"".join(whole.streaming_content)
    part = reader.get(address, headers={"Range": "bytes=10-", "If-Range": whole["ETag"]})
    assert part.status_code == 206 and b"".join(part.streaming_content) == body[10:]
    assert reader.get(address, headers={"If-None-Match": whole["ETag"]}).status_code == 304
    beyond = reader.get(address, headers={"Range": f"bytes={len(body)}-"})
    assert beyond.status_code == 416 and beyond["Content-Range"] == f"bytes */{len(body)}"
    assert reader.head(address)["Content-Length"] == str(len(body))


def test_the_page_of_a_snapshot_offers_every_view_in_every_kind_it_has(reader):
    links = re.findall(rf'href="({ADDRESS}[^"]+)" download', reader.get(ADDRESS).content.decode())
    assert len(links) == sum(2 * len(view.kinds) + len(view.beside) for view in VIEWS.values())
    for link in links:
        assert reader.get(link).status_code == 200, link
