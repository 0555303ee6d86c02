"""A real site in processes of its own, web and worker, on the test's database. It can be killed and started again."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from django.conf import settings

from tests.ports import free_port
from tests.services.databases import database_url

ROOT = Path(settings.BASE_DIR)


class RunningSite:
    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {**os.environ, "PREFLOOP_DATABASE_URL": database_url(), "PREFLOOP_CLOCK": "1"}
        self.web: subprocess.Popen[bytes] | None = None
        self.worker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "RunningSite":
        self.start_web()
        return self

    def __exit__(self, *exc: object) -> None:
        for process in (self.web, self.worker):
            if process is not None and process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def start_web(self) -> None:
        command = [
            sys.executable, "-m", "granian", "--port", str(self.port), "--interface", "wsgi", "--workers", "1",
            "--blocking-threads", "3", "--log-level", "error", "config.wsgi:application",
        ]  # fmt: skip
        self.web = self._start(command)
        deadline = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/healthz", timeout=2)
                return
            except OSError:
                assert self.web.poll() is None, "the web process ended"
                assert time.monotonic() < deadline, "the web process doesn't answer"
                time.sleep(0.1)

    def start_worker(self) -> None:
        self.worker = self._start([
            sys.executable, "-m", "celery", "--quiet", "-A", "config", "worker", "--loglevel", "ERROR", "-Q", "default",
            "-P", "threads", "-c", "2", "--without-mingle", "--without-gossip", "--without-heartbeat",
        ])  # fmt: skip

    def expect_worker(self, _: object = None) -> None:
        """To be called while one waits for its work: nobody would do it any more if it had ended."""
        assert self.worker is not None and self.worker.poll() is None, f"the worker ended: {self.worker and self.worker.returncode}"

    def kill_web(self) -> None:
        """With its workers, at once: they are one group of processes."""
        assert self.web is not None
        os.killpg(self.web.pid, signal.SIGKILL)
        self.web.wait()

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=ROOT, env=self.environment, start_new_session=True)
