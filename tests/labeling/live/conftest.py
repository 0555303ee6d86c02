"""A real `live` process beside a database file that the tests write to from outside."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from tests.ports import free_port
from tests.services.databases import database_url, use_database_file

ROOT = Path(settings.BASE_DIR)


use_database_file()


@pytest.fixture(scope="session")
def live_process(django_db_setup) -> Iterator[int]:
    """The port of a `live` process that follows the test database."""
    port = free_port()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "granian", "--port", str(port), "--interface", "asginl", "--log-level", "error",
            "--workers-kill-timeout", "2", "config.asgi:application",
        ],
        cwd=ROOT,
        env={**os.environ, "PREFLOOP_DATABASE_URL": database_url()},
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
        yield port
    finally:
        process.terminate()
        process.wait(15)
