import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.sampling.openai_server import Running, running_server
from training.endpoints.keys import folder

KEY = "sk-very-secret-key-of-the-server"


@pytest.fixture(autouse=True)
def _no_keys() -> Iterator[None]:
    yield
    shutil.rmtree(folder(), ignore_errors=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with running_server(tmp_path / "requests.jsonl", key=KEY) as running:
        yield running


@pytest.fixture
def listed(settings, server: Running) -> Running:
    """The server, on a host that the operator lists."""
    settings.ENDPOINT_HOSTS = [f"127.0.0.1:{server.port}"]
    return server
