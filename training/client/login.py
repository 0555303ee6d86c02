"""Tokens that outlive a command: one for each site, in a file that its owner alone can read."""

import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from training.client.errors import BadLogin

DEFAULT_URL = "http://127.0.0.1:8000"


def login_file() -> Path:
    """`prefloop/logins.json` in the folder of the person's settings."""
    folder = os.environ.get("XDG_CONFIG_HOME") or (os.environ.get("APPDATA") if os.name == "nt" else None)
    return (Path(folder) if folder else Path.home() / ".config") / "prefloop" / "logins.json"


def logged_in(url: str | None = None) -> tuple[str, str | None]:
    """Address and token: what is named, then the variables PREFLOOP_URL and PREFLOOP_TOKEN, then what is stored.

    A stored token goes to its own site alone. Raises BadLogin.
    """
    stored = _read()
    found = _plain(url or os.environ.get("PREFLOOP_URL") or stored.get("newest") or DEFAULT_URL)
    return found, os.environ.get("PREFLOOP_TOKEN") or stored["tokens"].get(found)


def store_login(url: str, token: str) -> Path:
    """Keep a token, and take its site as the one that is meant from now on."""
    stored = _read()
    _write({"newest": _plain(url), "tokens": {**stored["tokens"], _plain(url): token}})
    return login_file()


def forget_login(url: str) -> bool:
    """Whether there was one."""
    stored = _read()
    was_there = stored["tokens"].pop(_plain(url), None) is not None
    if was_there:
        _write(stored)
    return was_there


def _plain(url: str) -> str:
    return url.rstrip("/")


def _read() -> dict[str, Any]:
    path = login_file()
    try:
        with path.open(encoding="utf-8") as file:
            if os.name == "posix" and stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise BadLogin(f"Others can read {path}: run chmod 600 on it, or log in anew after deleting it")
            stored = json.load(file)
        if not isinstance(stored["tokens"], dict):
            raise ValueError
    except FileNotFoundError:
        return {"tokens": {}}
    except (ValueError, KeyError, TypeError):
        raise BadLogin(f"{path} is not a file of log-ins: delete it, and log in anew") from None
    return stored


def _write(stored: dict[str, Any]) -> None:
    path = login_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Made with mode 600, and named only when it is whole.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".logins-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(stored, file, indent=1)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
