"""What rows of all kinds are made with. Pure."""

from datetime import datetime

from labeling.projects.text import sha256


def pair_id(task: str, chosen: str, rejected: str) -> str:
    """Of the task's public id and what names the two sides within it: keys, of completions in order of their id."""
    return sha256(f"{task}:{chosen}:{rejected}")[:16]


def utc(at: datetime | str) -> str:
    """ISO 8601. SQLite keeps times in UTC and gives them as text, or without saying that they are."""
    if isinstance(at, str):
        return f"{at.replace(' ', 'T')}Z"
    return at.isoformat().removesuffix("+00:00") + "Z"
