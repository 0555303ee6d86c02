"""The start: keys are made, and a bad setting stops it by name."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings as ours

from config import environment
from config.environment import ImproperlyConfigured

START = "import django; django.setup(); from django.conf import settings; print(settings.SECRET_KEY)"


def start(home, code=START, **environment):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PREFLOOP_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(ours.BASE_DIR),
        env={**clean, "DJANGO_SETTINGS_MODULE": "config.settings", "PREFLOOP_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_first_start_makes_keys_for_its_owner_alone_and_the_next_uses_them(tmp_path):
    first = start(tmp_path)
    assert first.returncode == 0, first.stderr
    for name in ("secret_key", "pseudonym_key"):
        path = tmp_path / "keys" / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and len(path.read_text()) >= 40
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert start(tmp_path).stdout == first.stdout != start(tmp_path / "other").stdout


def test_a_bad_value_stops_the_start_and_is_named(tmp_path):
    stopped = start(tmp_path, PREFLOOP_DEBUG="perhaps")
    assert stopped.returncode != 0 and "PREFLOOP_DEBUG" in stopped.stderr


def test_another_kind_of_database_is_refused_and_a_pooler_is_told_of(tmp_path):
    stopped = start(tmp_path, PREFLOOP_DATABASE_URL="mysql://user:word@127.0.0.1/prefloop")
    assert stopped.returncode != 0 and "PREFLOOP_DATABASE_URL names neither SQLite nor PostgreSQL" in stopped.stderr
    code = "from django.conf import settings as s; d = s.DATABASES['default']; print(d['ENGINE'], d['DISABLE_SERVER_SIDE_CURSORS'])"
    address = {"PREFLOOP_DATABASE_URL": "postgres://user:word@127.0.0.1/prefloop"}
    assert start(tmp_path, code, **address).stdout.split() == ["labeling.database.postgresql", "False"]
    assert start(tmp_path, code, **address, PREFLOOP_DATABASE_POOLED="1").stdout.split()[1] == "True"


def test_https_brings_secure_cookies_and_strict_transport(tmp_path):
    code = (
        "import django; django.setup(); from django.conf import settings as s;"
        "from django.test import Client;"
        "answer = Client().get('/healthz', secure=True);"
        "print(s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE, s.DEBUG, answer.headers['Strict-Transport-Security'],"
        "Client().get('/healthz').status_code)"
    )
    told = start(tmp_path, code, PREFLOOP_HTTPS="1", PREFLOOP_ALLOWED_HOSTS="testserver")
    assert told.stdout.split() == ["True", "True", "False", "max-age=31536000", "301"], told.stderr


@pytest.mark.parametrize(
    "name, value, read",
    [
        ("PREFLOOP_SECRET_KEY", "short", lambda: environment.secret("PREFLOOP_SECRET_KEY", Path("unused"))),
        ("PREFLOOP_LIVE_PORT", "99999", lambda: environment.number("PREFLOOP_LIVE_PORT", 0, low=0, high=65535)),
        ("PREFLOOP_LIVE_PORT", "http", lambda: environment.number("PREFLOOP_LIVE_PORT", 0, low=0, high=65535)),
        ("PREFLOOP_HTTPS", "maybe", lambda: environment.flag("PREFLOOP_HTTPS")),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(monkeypatch, name, value, read):
    monkeypatch.setenv(name, value)
    with pytest.raises(ImproperlyConfigured, match=name):
        read()


def test_a_spoilt_key_file_is_told_and_not_used(tmp_path):
    path = tmp_path / "key"
    path.write_text("short")
    with pytest.raises(ImproperlyConfigured, match="no usable key"):
        environment.secret("PREFLOOP_NO_SUCH", path)


def test_debug_is_off_and_task_messages_are_json_alone():
    assert ours.DEBUG is False
    assert ours.CELERY_ACCEPT_CONTENT == ["json"] and ours.CELERY_TASK_SERIALIZER == "json"
