"""The operator alone names model servers; a list that makes no sense stops the start and says why."""

import json

import pytest
from django.core.exceptions import ImproperlyConfigured

from config.environment import model_servers

NAME = "PREFLOOP_MODEL_SERVERS"


def read(monkeypatch, value: object, port: int = 0) -> dict[str, dict[str, str]]:
    monkeypatch.setenv(NAME, value if isinstance(value, str) else json.dumps(value))
    return model_servers(NAME, local_port=port, local_key="k" * 40)


def test_servers_are_read_with_their_keys_from_variables_of_their_own(monkeypatch):
    monkeypatch.setenv("VLLM_KEY", "a-key")
    servers = {
        "vllm": {"url": "https://gpu1:8000/v1/", "api_key_env": "VLLM_KEY"},
        "open": {"url": "http://[::1]:1/v1"},
    }
    assert read(monkeypatch, servers, port=8002) == {
        "local": {"url": "http://127.0.0.1:8002/v1", "key": "k" * 40},
        "vllm": {"url": "https://gpu1:8000/v1", "key": "a-key"},
        "open": {"url": "http://[::1]:1/v1", "key": ""},
    }
    assert read(monkeypatch, "") == {}


@pytest.mark.parametrize(
    "value",
    [
        "{", "[]", '"x"', {"Up per": {"url": "http://x/v1"}}, {"": {"url": "http://x/v1"}}, {"a": "http://x/v1"},
        {"a": {}}, {"a": {"url": 5}}, {"a": {"url": "file:///etc/passwd"}}, {"a": {"url": "http://"}},
        {"a": {"url": "http://me:secret@x/v1"}}, {"a": {"url": "http://[::1/v1"}}, {"a": {"url": "http://x/v1", "key": "k"}},
        {"a": {"url": "http://x/v1", "api_key_env": "NOT_SET_ANYWHERE"}},
    ],
)  # fmt: skip
def test_what_makes_no_sense_stops_the_start_and_names_the_variable(monkeypatch, value):
    with pytest.raises(ImproperlyConfigured, match=NAME):
        read(monkeypatch, value)
