"""Calls the REST API as one person, in process."""

import json
from collections.abc import Sequence
from typing import Any

from django.test import Client

from labeling.accounts.models import ApiToken, User
from tests.factories import token_for

BASE = "/api/v1/"


class Caller:
    """`Caller(lead).post("projects/", {...})`; without a user, anonymous."""

    def __init__(self, user: User | None = None, scopes: Sequence[str] = tuple(ApiToken.Scope.values), **extra: Any):
        self.http = Client(raise_request_exception=extra.pop("raises", True))
        self.headers = {"Authorization": f"Bearer {token_for(user, scopes, **extra)}"} if user else {}

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """`body` is JSON, or bytes as they are with `content_type`."""
        kind = headers.pop("content_type", "application/json")
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.generic(method, BASE + path, data, content_type=kind, headers={**self.headers, **named})

    def get(self, path: str, **headers: str) -> Any:
        return self.call("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.call("POST", path, body, **headers)

    def put(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.call("PUT", path, body, **headers)

    def patch(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.call("PATCH", path, body, **headers)


def code_of(response: Any) -> str:
    error = response.json()["error"]
    assert set(error) == {"code", "message", "fields"}
    assert isinstance(error["message"], str) and isinstance(error["fields"], dict)
    return error["code"]


def numbers_of(body: Any) -> set[float]:
    """Every number in a JSON value. Ids are strings and no numbers: what only digits tell is looked for here."""
    if isinstance(body, dict | list):
        return {number for one in (body.values() if isinstance(body, dict) else body) for number in numbers_of(one)}
    return {body} if isinstance(body, int | float) and not isinstance(body, bool) else set()
