import logging

import psycopg
import pytest
from django.db import InterfaceError, OperationalError
from django.test import Client

from labeling.database import away
from tests.api_caller import Caller, code_of


def caused_by(cause, kind=OperationalError):
    error = kind(str(cause))
    error.__cause__ = cause
    return error


def sqlite_error(name):
    import sqlite3

    error = sqlite3.OperationalError(name)
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    "error",
    [
        caused_by(psycopg.OperationalError("connection refused")),
        caused_by(psycopg.InterfaceError("the connection is closed"), InterfaceError),
        caused_by(psycopg.errors.AdminShutdown()),
        caused_by(psycopg.errors.CannotConnectNow()),
        caused_by(psycopg.errors.TooManyConnections()),
        caused_by(psycopg.errors.DeadlockDetected()),
        caused_by(sqlite_error("SQLITE_BUSY")),
        caused_by(sqlite_error("SQLITE_BUSY_SNAPSHOT")),
    ],
    ids=lambda error: type(error.__cause__).__name__ + str(error),
)
def test_what_passes_by_itself_is_the_database_being_away(error):
    assert away.is_away(error)


@pytest.mark.parametrize(
    "error",
    [
        None,
        ZeroDivisionError(),
        OperationalError("raised by our own code"),
        caused_by(sqlite_error("SQLITE_ERROR")),
        caused_by(sqlite_error("SQLITE_FULL")),
        caused_by(psycopg.errors.QueryCanceled()),
        caused_by(psycopg.errors.IndeterminateDatatype()),
    ],
    ids=lambda error: type(error).__name__ + str(error),
)
def test_a_fault_is_not_called_a_moment(error):
    assert not away.is_away(error)


def test_while_the_database_is_away_nobody_is_told_that_something_broke(lead, project, monkeypatch):
    def gone(*_, **__):
        raise caused_by(psycopg.errors.AdminShutdown())

    monkeypatch.setattr("labeling.projects.api.ProjectView.get", gone)
    answer = Caller(lead, raises=False).get(f"projects/{project.slug}/")
    assert answer.status_code == 503 and code_of(answer) == "unavailable"
    assert answer["Retry-After"] == "2"
    # As it is when the database is asked who sent the request.
    monkeypatch.setattr("django.contrib.sessions.backends.db.SessionStore._get_session_from_db", gone)
    client = Client(raise_request_exception=False)
    client.cookies["sessionid"] = "x" * 32
    page = client.get(f"/projects/{project.slug}/")
    assert page.status_code == 503 and page["Retry-After"] == "2"
    assert "reload the page in some seconds" in page.content.decode()


@pytest.mark.parametrize(
    ("error", "lines"), [(caused_by(psycopg.errors.AdminShutdown("going\ndown")), 1), (ZeroDivisionError("ours"), 2)]
)
def test_the_log_has_one_line_for_it_and_a_trace_for_faults(error, lines):
    record = logging.LogRecord("django.request", logging.ERROR, "f", 1, "%s: %s", ("Failed", "/x/"), (type(error), error, None))
    assert away.InOneLine().filter(record)
    said = logging.Formatter().format(record)
    assert len(said.splitlines()) == lines and said.startswith("Failed: /x/")
    assert ("does not answer: going down" in said) == (lines == 1)
