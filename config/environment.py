"""Reads settings from environment variables; a bad value stops the start and says which."""

import os
import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured


def text(name: str, default: str = "") -> str:
    return os.environ.get(name, "").strip() or default


def flag(name: str, default: bool = False) -> bool:
    value = text(name).lower()
    if not value:
        return default
    if value in {"1", "true", "yes", "on"}:
        return True
    if value in {"0", "false", "no", "off"}:
        return False
    raise ImproperlyConfigured(f"{name}={value!r}: write 1 or 0")


def number(name: str, default: int, *, low: int, high: int) -> int:
    value = text(name)
    if not value:
        return default
    try:
        parsed = int(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name}={value!r} is not a whole number") from None
    if not low <= parsed <= high:
        raise ImproperlyConfigured(f"{name}={parsed} must lie between {low} and {high}")
    return parsed


def words(name: str, default: list[str]) -> list[str]:
    """A comma-separated list."""
    value = text(name)
    return [word.strip() for word in value.split(",") if word.strip()] if value else default


def secret(name: str, path: Path) -> str:
    """A secret from the environment, else from a file that the first start writes for its owner alone."""
    if value := text(name):
        if len(value) < 40:
            raise ImproperlyConfigured(f"{name} is too short: give at least 40 random characters")
        return value
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        # O_EXCL: of several processes starting at once only one writes the key.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48))
    value = path.read_text().strip()
    if len(value) < 40:
        raise ImproperlyConfigured(
            f"{path} holds no usable key: delete it, and the next start makes a new one"
        )
    return value
