"""Telling PostgreSQL that a table isn't what it was."""

from django.db import connection
from django.db.models import Model

FROM = 1000  # new rows
SHARE = 0.1  # of what was known


def after_many_new_rows(n: int, *models: type[Model]) -> None:
    """Gather the statistics of tables that got `n` rows or more, where that changes much of what is known of them.

    PostgreSQL does so by itself, but only within a minute; until then it plans as for the few rows there were, and
    reads a table whole to find one. SQLite plans without statistics here.
    """
    if n < FROM or connection.vendor != "postgresql":
        return
    tables = [model._meta.db_table for model in models]
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname, reltuples FROM pg_class WHERE relname = ANY(%s) AND relkind = 'r'", [tables])
        for table, known in cursor.fetchall():
            if n >= SHARE * known:
                cursor.execute(f"ANALYZE {connection.ops.quote_name(table)}")
