"""Who may do what: tokens, projects and their members."""

from collections.abc import Iterator
from typing import Any

from training.client._connection import JSON, Connection, part


class AccessCalls(Connection):
    def token(self, username: str, password: str) -> str:
        """Exchange a password for a token, and use it from now on."""
        answer = self._call("POST", "auth/token/", json={"username": username, "password": password})
        self._use_token(answer["token"])
        return answer["token"]

    def projects(self) -> Iterator[JSON]:
        return self._pages("projects/")

    def project(self, slug: str) -> JSON:
        return self._call("GET", f"projects/{part(slug)}/")

    def create_project(self, **fields: Any) -> JSON:
        return self._call("POST", "projects/", json=fields)

    def update_project(self, slug: str, **fields: Any) -> JSON:
        return self._call("PATCH", f"projects/{part(slug)}/", json=fields)

    def members(self, slug: str) -> Iterator[JSON]:
        return self._pages(f"projects/{part(slug)}/members/")

    def add_member(self, slug: str, username: str, role: str, **fields: Any) -> JSON:
        """Give somebody a role; `fields` are languages and skills, which stay as they are where left out."""
        body = {"username": username, "role": role, **fields}
        return self._call("POST", f"projects/{part(slug)}/members/", json=body)

    def update_member(self, slug: str, username: str, **fields: Any) -> JSON:
        """Change the languages or skills of a member."""
        return self._call("PATCH", f"projects/{part(slug)}/members/{part(username)}/", json=fields)

    def pause_member(self, slug: str, username: str, reason: str) -> JSON:
        """Hand the person no more tasks; what they hold goes back to the queue. They read the reason."""
        # Safe to repeat: who is paused stays so.
        path = f"projects/{part(slug)}/members/{part(username)}/pause/"
        return self._call("POST", path, json={"reason": reason}, repeatable=True)

    def reinstate_member(self, slug: str, username: str, *, to_qualify: bool = False, restore: bool = False) -> JSON:
        """Let the person work again. `restore`: what was set aside counts again, where nobody judged it since."""
        path = f"projects/{part(slug)}/members/{part(username)}/reinstate/"
        return self._call("POST", path, json={"to_qualify": to_qualify, "restore": restore})

    def set_aside(
        self, slug: str, username: str, reason: str, *, since: str | None = None, until: str | None = None
    ) -> int:
        """Let the person's judgements of a time (ISO 8601) not count any more. Returns how many did until now."""
        times = {name: at for name, at in (("since", since), ("until", until)) if at is not None}
        path = f"projects/{part(slug)}/members/{part(username)}/set-aside/"
        return self._call("POST", path, json={"reason": reason, **times})["set_aside"]
