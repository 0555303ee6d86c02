"""Reads settings from environment variables; a bad value stops the start and says which."""

import json
import os
import re
import secrets
from pathlib import Path
from urllib.parse import urlsplit

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


def amount(name: str, default: float, *, low: float, high: float) -> float:
    value = text(name)
    if not value:
        return default
    try:
        parsed = float(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name}={value!r} is not a number") from None
    if not low <= parsed <= high:
        raise ImproperlyConfigured(f"{name}={value} must lie between {low:g} and {high:g}")
    return parsed


def words(name: str, default: list[str]) -> list[str]:
    """A comma-separated list."""
    value = text(name)
    return [word.strip() for word in value.split(",") if word.strip()] if value else default


def address(name: str, *, is_needed: bool) -> str:
    """`host:port`, or empty where it isn't needed."""
    value = text(name)
    host, _, port = value.rpartition(":")
    if value and not (host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ImproperlyConfigured(f"{name}={value!r}: write host:port, such as gpu1:29500")
    if is_needed and not value:
        raise ImproperlyConfigured(f"{name} is missing: write host:port of the first machine, such as gpu1:29500")
    return value


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


def model_servers(name: str, *, local_port: int, local_key: str) -> dict[str, dict[str, str]]:
    """Servers to talk with by name, each with `url` (ending in /v1 or the like) and `key`, which may be empty.

    Keys stay in variables of their own, so that the list itself holds no secret.
    """
    found: dict[str, dict[str, str]] = {}
    if local_port:
        found["local"] = {"url": f"http://127.0.0.1:{local_port}/v1", "key": local_key}
    value = text(name)
    if not value:
        return found
    try:
        servers = json.loads(value)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} is not JSON: {error}") from None
    if not isinstance(servers, dict):
        raise ImproperlyConfigured(f'{name} must be an object: {{"name": {{"url": "http://..."}}}}')
    for server, facts in servers.items():
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", server):
            raise ImproperlyConfigured(f"{name}: {server!r} is no name: lower-case letters, digits, - and _")
        if not isinstance(facts, dict) or not set(facts) <= {"url", "api_key_env"}:
            raise ImproperlyConfigured(f"{name}: {server} takes url and api_key_env, nothing else")
        url, key_name = facts.get("url"), facts.get("api_key_env", "")
        try:
            parts = urlsplit(url) if isinstance(url, str) else None
        except ValueError:
            parts = None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ImproperlyConfigured(f"{name}: the url of {server} must be http(s)://host/..., without a password")
        key = text(key_name) if isinstance(key_name, str) and key_name else ""
        if key_name and not key:
            raise ImproperlyConfigured(f"{name}: {server} takes its key from {key_name}, which is not set")
        found[server] = {"url": url.rstrip("/"), "key": key}
    return found
