"""Bringing an installation up to date before it serves: database, static files."""

import hashlib
import subprocess
import sys
from pathlib import Path

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command

COLLECT = """
import os, django
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
os.nice(10)
django.setup()
from labeling.web.startup import collect_static_files
collect_static_files()
"""

def prepare_site(*, verbosity: int = 0) -> None:
    """Migrate, and collect static files again where they have changed. Quick where nothing has.

    The very first start doesn't wait for hashing: until `collect_static_in_background` has been called and the
    site started again, files are served by their plain names.
    """
    call_command("migrate", interactive=False, verbosity=verbosity)
    Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)
    if not settings.DEBUG and stamp_file().exists() and not static_files_are_current():
        collect_static_files()


def collect_static_in_background() -> None:
    """For the first start: a process of its own, so that this one stays small."""
    if not settings.DEBUG and not stamp_file().exists():
        command = [sys.executable, "-c", COLLECT]
        quiet = subprocess.DEVNULL
        subprocess.Popen(
            command, cwd=settings.BASE_DIR, stdin=quiet, stdout=quiet, stderr=quiet, process_group=0
        )


def collect_static_files() -> None:
    fingerprint = static_files_fingerprint()
    call_command("collectstatic", interactive=False, verbosity=0)
    stamp_file().write_text(fingerprint)


def static_files_are_current() -> bool:
    try:
        return stamp_file().read_text() == static_files_fingerprint()
    except FileNotFoundError:
        return False


def stamp_file() -> Path:
    return Path(settings.STATIC_ROOT) / ".collected"


def static_files_fingerprint() -> str:
    """Of name, size and time of every source file."""
    digest = hashlib.sha256(settings.VERSION.encode())
    for finder in get_finders():
        for name, storage in finder.list([]):
            stat = Path(storage.path(name)).stat()
            digest.update(f"{name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def page_url(host: str, port: int) -> str:
    """Where a browser on this machine finds the site."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}/"
