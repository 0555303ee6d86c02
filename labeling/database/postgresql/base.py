"""Django's PostgreSQL, with statements that the server keeps prepared.

Django writes values into the text of a statement, so PostgreSQL reads and plans it anew each time: for the small
statements that everyone makes all day, most of what they cost. Those (`labeling.database.prepared`) are sent apart
from their values instead, and planned once for each connection; ANALYZE makes PostgreSQL plan them again.

A pooler that gives each transaction another connection, such as an old PgBouncer, loses what was prepared: Django's
DISABLE_SERVER_SIDE_CURSORS, which such a pooler needs anyway, turns it off.
"""

import select
from typing import Any

import psycopg
from django.db.backends.postgresql import base

_NEVER_UNASKED = 2**31  # uses of a statement before psycopg prepares it by itself; None would forbid it altogether


class _Preparing(psycopg.Cursor):
    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        return super().execute(query, params, prepare=True, **options)


class _Operations(base.DatabaseOperations):
    def last_executed_query(self, cursor: Any, sql: str, params: Any) -> str | None:
        """With its values, for who looks at queries."""
        if isinstance(cursor, _Preparing):
            return self.compose_sql(sql, params)
        return super().last_executed_query(cursor, sql, params)


class DatabaseWrapper(base.DatabaseWrapper):
    ops_class = _Operations

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = super().get_new_connection(conn_params)
        if connection.prepare_threshold is None:
            connection.prepare_threshold = _NEVER_UNASKED
        return connection

    def is_usable(self) -> bool:
        """Whether the connection is whole. After an error the server is asked; else, once each request, it is not.

        A server that stopped has closed the connection, or said farewell, so there is something to read. Where it is
        gone without a word, the next statement fails, as it would have here.
        """
        if self.errors_occurred:
            return super().is_usable()
        if self.connection is None or self.connection.closed:
            return False
        silent = select.poll()
        silent.register(self.connection.fileno(), select.POLLIN | select.POLLPRI)
        return not silent.poll(0)

    def preparing_cursor(self) -> Any:
        """A cursor whose statements stay prepared."""
        if self.settings_dict["DISABLE_SERVER_SIDE_CURSORS"]:
            return self.cursor()
        self.ensure_connection()
        with self.wrap_database_errors:
            return self._prepare_cursor(_Preparing(self.connection))
