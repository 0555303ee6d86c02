"""A real server in a folder of its own, and a real Chromium.

The server is a process with a database file, as in production: threads that share one in-memory connection would
mix their transactions. The tests write to the same file through the same services.
"""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.test import Client

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = (
    os.environ.get("CHROMIUM", "")
    or shutil.which("chromium")
    or shutil.which("chromium-browser")
    or shutil.which("google-chrome")
)
PATIENCE_MS = 30_000  # a busy machine is slow, not wrong
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--disable-default-apps", "--disable-extensions",
]  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@dataclass
class Site:
    address: str
    home: Path

    def url(self, path: str) -> str:
        return self.address + path


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    if not CHROMIUM:
        message = "no Chromium here: install it, or name it in the variable CHROMIUM"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    playwright = pytest.importorskip("playwright.sync_api")
    playwright.expect.set_options(timeout=PATIENCE_MS)
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server(chromium, tmp_path_factory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("browser-home")
    environment = {**os.environ, "PREFLOOP_HOME": str(home), "PYTHONPATH": str(ROOT)}
    environment.pop("PREFLOOP_DATABASE_URL", None)
    environment["PREFLOOP_SECRET_KEY"] = settings.SECRET_KEY  # sessions made here are good there
    subprocess.run(
        [sys.executable, ROOT / "manage.py", "migrate", "--verbosity=0"], env=environment, check=True, cwd=home
    )
    port = free_port()
    log = (home / "server.log").open("wb")
    process = subprocess.Popen(
        [
            sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port),
            "--workers", "1", "--blocking-threads", "4", "config.wsgi:application",
        ],
        env=environment, cwd=home, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    site = Site(f"http://127.0.0.1:{port}", home)
    try:
        _wait_for(site, process, home / "server.log")
        yield site
    finally:
        process.terminate()
        process.wait(timeout=20)
        log.close()


def _wait_for(site: Site, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(site.url("/healthz"), timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"The server did not start:\n{log.read_text()[-3000:]}")


@pytest.fixture
def site(server, django_db_blocker, monkeypatch) -> Iterator[Site]:
    """The running server with an empty database, which this process now writes to as well."""
    # Playwright's synchronous interface runs an event loop in this very thread.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    usual = connections["default"]
    there = {**usual.settings_dict, "NAME": str(server.home / "prefloop.sqlite3"), "CONN_MAX_AGE": 0}
    connections["default"] = type(usual)(there, alias="default")
    try:
        with django_db_blocker.unblock():
            call_command("flush", interactive=False, verbosity=0)
            yield server
    finally:
        connections["default"].close()
        connections["default"] = usual


@pytest.fixture
def open_page(site, chromium) -> Iterator:
    """`open_page(user, "/path/")`: a page of a context of its own, logged in; a script error fails the test."""
    contexts, errors = [], []

    def opener(user: object, path: str = "/", **options: object):
        context = chromium.new_context(
            **{"viewport": {"width": 1440, "height": 900}, "reduced_motion": "reduce", **options}
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        client = Client()
        client.force_login(user)
        name = settings.SESSION_COOKIE_NAME
        context.add_cookies([{"name": name, "value": client.cookies[name].value, "url": site.address}])
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(site.url(path))
        if page.locator("[autofocus]:visible").count():  # a frame after loading, and keys before it go nowhere
            page.locator("[autofocus]:focus").first.wait_for()
        return page

    yield opener
    for context in contexts:
        context.close()
    assert errors == []
