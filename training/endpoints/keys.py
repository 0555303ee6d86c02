"""Keys of endpoints: files for their owner alone under `keys/endpoints/`, never rows of the database.

A key comes from the server's owner, so it can't be derived as the secrets of webhooks are. Each change makes a file
of another name, so a worker that has read the row reads the key that belongs to it.
"""

import os
import secrets
from pathlib import Path

from django.conf import settings


def folder() -> Path:
    return Path(settings.HOME) / "keys" / "endpoints"


def write_key(key: str) -> str:
    """Keep a key; returns the name to read it by."""
    place = folder()
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = secrets.token_hex(16)
    descriptor = os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key)
    return name


def read_key(name: str) -> str:
    """Empty where `name` is. Raises OSError where the file is not there."""
    return (folder() / name).read_text() if name else ""


def delete_key(name: str) -> None:
    if name:
        (folder() / name).unlink(missing_ok=True)
