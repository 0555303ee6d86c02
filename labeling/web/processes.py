"""The processes of one site: `web`, `live`, `model` and two workers, started together, watched and stopped together.

web     granian, WSGI threads: pages and API
live    granian, ASGI: sockets, and the completions of live conversations
model   holds a loopback port; serves local models from the first request until nobody has asked for a while
worker  Celery, queue `default`, with the clock of periodic tasks inside
gpu     Celery, queue `gpu`, one run at a time
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings

PR_SET_PDEATHSIG = 1
STOP_SECONDS = 30.0
STEADY_SECONDS = 20.0  # a process that ran this long starts its next life without a wait
LONGEST_WAIT = 30.0
WORKERS_WAIT_SECONDS = 1.5  # so that four starting interpreters don't hold up the first page
# Few threads to a worker: each statement lets go of Python's lock and has to wait for the other threads to get it back.
# Measured on two cores with 32 annotators: two workers of three threads answer twice as many as one of eight, and a
# tenth more than two of four; with two threads a worker, two long downloads would keep its annotators waiting.
THREADS_OF_WEB = 3
MODEL_IDLE_SECONDS = 900


class PortTaken(Exception):
    """Another program listens on a port that the site needs; the message says what to do."""


@dataclass(frozen=True)
class Process:
    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    after_seconds: float = 0.0  # wait this long before its first start


def web_workers() -> int:
    """Worker processes of `web`: one a core, from 1 to 8."""
    return max(1, min(8, os.cpu_count() or 1))


def site_processes(*, host: str, port: int, worker: bool = True) -> list[Process]:
    """What `manage.py up` runs. `live` listens on the port after `port`, and the pages are told so."""
    python = sys.executable
    model_port = settings.MODEL_PORT or free_loopback_port(port + 2)
    granian = [python, "-m", "granian", "--host", host, "--log-level", "error", "--respawn-failed-workers"]
    celery = [
        python, "-m", "celery", "--quiet", "-A", "config", "worker", "--loglevel", "WARNING",
        # Workers that greet and watch each other go deaf when Redis restarts.
        "--without-mingle", "--without-gossip", "--without-heartbeat",
    ]  # fmt: skip
    environment = {
        "PREFLOOP_LIVE_PORT": str(port + 1),
        "PREFLOOP_MODEL_PORT": str(model_port),
        "PREFLOOP_HOME": str(settings.HOME),
    }
    processes = [
        Process(
            "web",
            [
                *granian, "--port", str(port), "--interface", "wsgi", "--workers", str(web_workers()),
                "--blocking-threads", str(THREADS_OF_WEB), "--respawn-interval", "0.5",
                "--workers-kill-timeout", "20", "config.wsgi:application",
            ],
            environment,
        ),
        Process(
            "live",
            [
                *granian, "--port", str(port + 1), "--interface", "asgi", "--workers", "1",
                "--workers-kill-timeout", "5", "config.asgi:application",
            ],
            environment,
        ),
        Process(
            "model",
            [
                python, "-m", "training.sampling.on_demand", "127.0.0.1", str(model_port), "--",
                python, "manage.py", "serve_models", "--idle-seconds", str(MODEL_IDLE_SECONDS),
            ],
            environment,
        ),
    ]  # fmt: skip
    if worker:
        processes += [
            Process(
                "worker",
                [*celery, "-n", "default@%h", "-Q", "default", "-P", "threads", "-c", "2"],
                {**environment, "PREFLOOP_CLOCK": "1"},
                WORKERS_WAIT_SECONDS,
            ),
            Process(
                "gpu",
                [*celery, "-n", "gpu@%h", "-Q", "gpu", "-P", "solo", "-c", "1"],
                environment,
                WORKERS_WAIT_SECONDS,
            ),
        ]
    return processes


def free_loopback_port(wanted: int) -> int:
    """`wanted`, else any port that nobody listens on."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except (OSError, OverflowError):
                continue
            return probe.getsockname()[1]
    raise PortTaken("No free port is left on the loopback interface")


def refuse_taken_ports(host: str, *ports: int) -> None:
    """Raises PortTaken naming the first port that cannot be listened on."""
    for port in ports:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise PortTaken(
                    f"Port {port} on {host} cannot be used ({error.strerror or error}). Prefloop needs two ports "
                    f"in a row, {ports[0]} for pages and {ports[-1]} for live updates: stop the other program, "
                    f"or choose others with --port, for example --port {ports[0] + 100}"
                ) from None


def wait_until_ready(url: str, *, seconds: float, gave_up: Callable[[], bool] = lambda: False) -> bool:
    """Ask `url` until it answers 200, the time is over or `gave_up` says so."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not gave_up():
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return True
        except (OSError, urllib.error.URLError):
            pass
        time.sleep(0.1)
    return False


class ProcessGroup:
    """Processes that live and die together.

        with ProcessGroup(site_processes(host="127.0.0.1", port=8000)) as group:
            group.wait()          # until stop(), or until one of them cannot be kept alive

    One thread starts, watches and restarts them, because Linux ties a child's life to the thread that made it:
    if this process is killed, its children get SIGTERM. With `log_folder`, what they print goes to a file each.
    """

    def __init__(
        self,
        processes: Sequence[Process],
        *,
        log_folder: Path | None = None,
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
    ) -> None:
        self.processes = list(processes)
        self.log_folder = log_folder
        self.say = say
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._stopping = threading.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="processes", daemon=True)

    def __enter__(self) -> "ProcessGroup":
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        self._thread.start()
        self._started.wait()

    def wait(self, seconds: float | None = None) -> bool:
        """Until everything has stopped; True if it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def request_stop(self) -> None:
        """Ask for the end without waiting for it: safe in a signal handler."""
        self._stopping.set()

    def stopping(self) -> bool:
        return self._stopping.is_set()

    def stop(self) -> None:
        """Ask all of them to finish what they do, and end those that do not within STOP_SECONDS."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        born: dict[str, float] = {}
        failures = dict.fromkeys((process.name for process in self.processes), 0)
        due = {process.name: time.monotonic() + process.after_seconds for process in self.processes}
        try:
            while not self._stopping.is_set():
                at = time.monotonic()
                for process in self.processes:
                    name = process.name
                    child = self.running.get(name)
                    if child is not None and (code := child.poll()) is not None:
                        del self.running[name]
                        _end_group(child.pid)  # what it left behind still holds its port
                        failures[name] = 1 if at - born[name] > STEADY_SECONDS else failures[name] + 1
                        wait = min(LONGEST_WAIT, 0.5 * 2 ** (failures[name] - 1))
                        due[name] = at + wait
                        self.say(f"{name} ended ({_ending(code)}); starting it again in {wait:g} s")
                    elif child is None and at >= due[name]:
                        born[name] = at
                        self.running[name] = self._spawn(process)
                self._started.set()
                self._stopping.wait(0.2)
        finally:
            self._started.set()
            self._stop_all()

    def _spawn(self, process: Process) -> subprocess.Popen[bytes]:
        output = None
        if self.log_folder is not None:
            self.log_folder.mkdir(parents=True, exist_ok=True)
            output = open(self.log_folder / f"{process.name}.log", "ab")  # noqa: SIM115  (closed below)
        try:
            return subprocess.Popen(
                list(process.command),
                env={**os.environ, **process.environment},
                cwd=settings.BASE_DIR,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # A group of its own: Ctrl-C reaches only us, and we end them in order.
                process_group=0,
                preexec_fn=_end_with_parent,
            )
        finally:
            if output is not None:
                output.close()

    def _stop_all(self) -> None:
        for child in self.running.values():
            child.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for name, child in self.running.items():
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.say(f"{name} did not end within {STOP_SECONDS:g} s and was killed")
            _end_group(child.pid)
            child.wait()
        self.running.clear()


_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _end_with_parent() -> None:
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _end_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
