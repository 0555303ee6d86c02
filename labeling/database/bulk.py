"""Many new rows at once, as fast as the database takes them: COPY on PostgreSQL, one statement run often on SQLite.

A row comes as a tuple of what the driver takes, in the order of the columns: moments through `moment`, JSON as text.
Nothing is checked and nothing filled in here. Everything is for within a transaction.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Model


def reserve_ids(model: type[Model], n: int) -> Sequence[int]:
    """`n` ids that nobody else will get, ascending. So rows of one table can name those of another before any is there."""
    if n == 0:
        return []
    table, column = model._meta.db_table, model._meta.pk.column
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT nextval(s) FROM (SELECT pg_get_serial_sequence(%s, %s) AS s) AS found, generate_series(1, %s)",
                [connection.ops.quote_name(table), column, n],
            )
            return [row[0] for row in cursor.fetchall()]
        # The write lock is ours until the commit, and the rows themselves move the counter on.
        cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = %s", [table])
        found = cursor.fetchone()
        first = (found[0] if found else 0) + 1
        return range(first, first + n)


def insert_rows(model: type[Model], columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Raises IntegrityError, with none of them in, where one collides."""
    if not rows:
        return
    quote = connection.ops.quote_name
    table, names = quote(model._meta.db_table), ", ".join(map(quote, columns))
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with connection.wrap_database_errors, cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        else:
            marks = ", ".join(["%s"] * len(columns))
            cursor.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)


def moment(at: datetime) -> Any:
    """As the driver takes it."""
    return connection.ops.adapt_datetimefield_value(at)


def alone_with(name: str, number: int) -> None:
    """Until the end of the transaction nobody else is past this line with the same two. On SQLite writers are alone anyway."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s), %s)", [name, number % 2**31])


def update_each(sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """One statement for many rows."""
    with connection.cursor() as cursor:
        cursor.executemany(sql, list(rows))
