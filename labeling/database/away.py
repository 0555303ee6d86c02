"""Telling a database that doesn't answer for a moment from a fault of ours."""

import logging

from django.db import InterfaceError, OperationalError

SECONDS_UNTIL_BACK = 2  # what callers are asked to wait: about as long as PostgreSQL takes to restart

# SQLSTATE classes: 08 the connection broke, 53 out of connections or memory, 57P the server is going or coming,
# 40 a deadlock or a lost serialization; see "PostgreSQL Error Codes" in its manual.
_AWAY = ("08", "53", "57P", "40")
_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")


def is_away(error: BaseException | None) -> bool:
    """Whether the same request, sent again soon, may well succeed; nothing of it was kept."""
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    cause = error.__cause__
    busy = getattr(cause, "sqlite_errorname", None)
    if busy:
        return busy.startswith(_BUSY)
    state = getattr(cause, "sqlstate", None)
    # psycopg has no state where there was no answer to read one from: nothing listens, or the connection is gone.
    return state.startswith(_AWAY) if state else type(cause).__module__.startswith("psycopg")


class InOneLine(logging.Filter):
    """While the database is away every request fails for one reason: a line each says it, not a hundred."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if is_away(error):
            reason = " ".join(str(error).split())
            record.msg, record.args = f"{record.getMessage()}: the database does not answer: {reason}", ()
            record.exc_info = record.exc_text = None
        return True
