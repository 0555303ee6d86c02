"""A project whose annotators talk with a scripted model server, and a real `live` process that generates the turns."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.conf import settings as django_settings

from labeling.conversation.models import Conversation, Turn
from labeling.conversation.services import change_settings, start_conversation
from labeling.projects.models import Project
from tests.labeling.conversation.model_server import ScriptedServer, echo
from tests.ports import free_port
from tests.services.databases import database_url, use_database_file
from tests.waiting import wait_until

ROOT = Path(django_settings.BASE_DIR)
SERVER_NAME = "hidden-server"

# Parameters of a speaker that no id, date or port can hold by chance: what shows one of them has leaked it.
TELLING = {"top_p": 0.70710678118, "max_tokens": 7_071_067_811}
TOLD = tuple(str(number) for number in TELLING.values())

use_database_file()


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """Two models that answer at once, each in its own words."""
    server = ScriptedServer().script("model-one", echo("Uno")).script("model-two", echo("Due"))
    yield server
    server.stop()


@pytest.fixture
def servers(settings, scripted) -> dict[str, dict[str, str]]:
    settings.MODEL_SERVERS = {SERVER_NAME: {"url": scripted.url, "key": "secret-key-of-the-server"}}
    return settings.MODEL_SERVERS


def speakers(*models: str, **extra: object) -> list[dict[str, object]]:
    return [
        {
            "server": SERVER_NAME,
            "model": model,
            "model_key": f"key-of-{model}",
            "temperature": 0.3 + number / 10,
            **extra,
        }
        for number, model in enumerate(models)
    ]


@pytest.fixture
def talking(project, servers) -> Project:
    """The project with conversations switched on."""
    change_settings(project=project, is_on=True, speakers=speakers("model-one", "model-two"), max_turns=5)
    return project


@pytest.fixture
def telling(talking, monkeypatch) -> Project:
    """The project whose speakers have the parameters of `TELLING`."""
    monkeypatch.setattr("labeling.conversation.speakers.MAX_TOKENS", TELLING["max_tokens"])
    change_settings(project=talking, speakers=speakers("model-one", "model-two", **TELLING))
    return talking


@pytest.fixture
def conversation(talking, annotator) -> Conversation:
    return start_conversation(project=talking, annotator=annotator, client_key="first")


@contextmanager
def running_live(url: str, *, port: int = 0, **environment: str) -> Iterator[tuple[int, subprocess.Popen]]:
    """A `live` process on the test database, whose only model server is at `url`."""
    port = port or free_port()
    servers = json.dumps({SERVER_NAME: {"url": url, "api_key_env": "KEY_OF_TESTS"}})
    process = subprocess.Popen(
        [
            sys.executable, "-m", "granian", "--port", str(port), "--interface", "asgi", "--log-level", "error",
            "--workers-kill-timeout", "2", "config.asgi:application",
        ],
        cwd=ROOT,
        process_group=0,
        env={
            **os.environ, "PREFLOOP_DATABASE_URL": database_url(), "PREFLOOP_MODEL_SERVERS": servers,
            "KEY_OF_TESTS": "secret-key-of-the-server", "PREFLOOP_MODEL_FIRST_TOKEN_SECONDS": "3",
            "PREFLOOP_MODEL_NEXT_TOKEN_SECONDS": "3", **environment,
        },
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1)
                break
            except OSError:
                assert process.poll() is None, "the live process ended"
                assert time.monotonic() < deadline, "the live process doesn't answer"
                time.sleep(0.05)
        yield port, process
    finally:
        process.terminate()
        process.wait(15)


@pytest.fixture
def live(scripted, transactional_db) -> Iterator[int]:
    with running_live(scripted.url) as (port, _):
        yield port


def wait_for(turn: Turn, *states: str, seconds: float = 60) -> Turn:
    return wait_until(lambda: (turn.refresh_from_db(), turn)[1] if _state(turn) in states else None, seconds)


def _state(turn: Turn) -> str:
    return Turn.objects.values_list("state", flat=True).get(pk=turn.pk)
