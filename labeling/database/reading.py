"""Reading much of the database as it was at one moment, while others go on writing."""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from django.core.exceptions import EmptyResultSet
from django.db import connection, connections
from django.db.models import Model, QuerySet

T = TypeVar("T")
LONGEST_WAIT = 30.0  # seconds, for transactions that write
LOOK_AGAIN = 0.005


class OneState:
    """A connection that sees one state of the database, and what is read over it."""

    def __init__(self, reader: Any, *, is_own: bool) -> None:
        self._reader = reader
        self._is_own = is_own
        self.is_postgresql = reader.vendor == "postgresql"
        self.newest: dict[type[Model], int] = {}

    def rows(self, sql: str, params: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """Values as the driver gives them: JSON is text, and so are times on SQLite."""
        with self._reader.cursor() as cursor:
            cursor.execute(sql, list(params))
            return cursor.fetchall()

    def of(self, queryset: QuerySet[Any]) -> list[tuple[Any, ...]]:
        """The rows of a queryset that was made with `values_list`."""
        try:
            return self.rows(*queryset.query.sql_with_params())
        except EmptyResultSet:
            return []

    def streamed(self, queryset: QuerySet[Any], n: int) -> Iterator[list[tuple[Any, ...]]]:
        """The same, so many at a time, of which no more are in memory."""
        try:
            sql, params = queryset.query.sql_with_params()
        except EmptyResultSet:
            return
        with self._reader.chunked_cursor() as cursor:
            cursor.execute(sql, params)
            while rows := cursor.fetchmany(n):
                yield rows

    def count(self, queryset: QuerySet[Any]) -> int:
        try:
            sql, params = queryset.order_by().values("pk").query.sql_with_params()
        except EmptyResultSet:
            return 0
        return self.rows(f"SELECT count(*) FROM ({sql}) counted", params)[0][0]

    def among(self, column: str) -> str:
        """A condition on the column with one parameter, `ids(...)`, however many they are."""
        return f"{column} = ANY(%s)" if self.is_postgresql else f"{column} IN (SELECT value FROM json_each(%s))"

    def ids(self, ids: list[int]) -> Any:
        return ids if self.is_postgresql else "[" + ",".join(map(str, ids)) + "]"

    def ahead(self, made: Iterator[T]) -> Iterator[T]:
        """The same, the next one being read while the caller is at the last: the server works meanwhile.

        SQLite works in this process, and would take as long.
        """
        if not (self.is_postgresql and self._is_own):
            yield from made
            return
        with ThreadPoolExecutor(1) as reading:
            following = reading.submit(next, made, None)
            while (found := following.result()) is not None:
                following = reading.submit(next, made, None)
                yield found
            reading.submit(connections.close_all).result()

    def expect_few(self) -> None:
        """From here on each statement names its rows by id, so their indexes serve best, whatever statistics say.

        PostgreSQL hasn't any of a table that was filled a moment ago, and would read all of it for each statement.
        """
        if self.is_postgresql and self._is_own:
            self.rows(
                "SELECT set_config(name, 'off', true) FROM unnest(%s::text[]) AS name",
                [["enable_seqscan", "enable_hashjoin", "enable_mergejoin"]],
            )


@contextmanager
def one_state(*written: type[Model]) -> Iterator[OneState]:
    """What is committed now, over a connection of its own; nobody is kept from writing meanwhile.

    `newest` of the state has the newest id of each table in `written`: of the rows up to it none is missing, and none
    will come later. For that, who is writing such rows at this moment is waited for, since PostgreSQL gives out ids
    before it commits.

    Within a transaction of the caller's, the state is what that transaction sees.
    """
    if connection.in_atomic_block:
        state = OneState(connection, is_own=False)
        state.newest = _newest(state, written)
        yield state
        return
    reader = connection.copy()
    reader.inc_thread_sharing()  # `ahead` reads in another thread, never in two at once
    try:
        state = OneState(reader, is_own=True)
        if state.is_postgresql:
            state.newest = _newest(state, written)
            _wait_for_writers(state, [model._meta.db_table for model in written])
            _execute(reader, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        else:
            # Not by Django, which would begin by taking the lock for writing. The state is that of the first read.
            _execute(reader, "BEGIN DEFERRED")
            state.newest = _newest(state, written)
        yield state
    finally:
        reader.close()


def _newest(state: OneState, written: Iterable[type[Model]]) -> dict[type[Model], int]:
    return {model: state.rows(f'SELECT max(id) FROM "{model._meta.db_table}"')[0][0] or 0 for model in written}


def _execute(reader: Any, sql: str) -> None:
    with reader.cursor() as cursor:
        cursor.execute(sql)


def _wait_for_writers(state: OneState, tables: list[str]) -> None:
    """Until those who hold one of these tables for writing now have ended; whoever comes later draws higher ids.

    A transaction that goes on for longer than half a minute is waited for no more: it isn't an annotator's.
    """
    holding = (
        "SELECT virtualtransaction FROM pg_locks WHERE relation = ANY(%s::regclass[]) AND mode = 'RowExclusiveLock' "
        "AND granted AND pid <> pg_backend_pid()"
    )
    waiting = {row[0] for row in state.rows(holding, [tables])}
    deadline = time.monotonic() + LONGEST_WAIT
    while waiting and time.monotonic() < deadline:
        time.sleep(LOOK_AGAIN)
        waiting &= {row[0] for row in state.rows(holding, [tables])}
