"""Querysets compiled once, for the few calls that everyone makes all day.

Django builds the SQL of a queryset anew at each use, which on the way of a judgement costs ten times what the database
takes. Here a function says what is asked, and its arguments are put into SQL that was built once for each connection,
which PostgreSQL in its turn plans once:

    @prepared
    def token_of(digest: str, at: datetime) -> QuerySet[ApiToken]:
        return ApiToken.objects.select_related("user").filter(digest=digest, expires_at__gt=at)

    rows = token_of(digest="…", at=now())     # a list of ApiToken

The shape must not depend on the arguments: they are int, str or datetime, never None, and stand only where a value can.
"""

import inspect
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from django.db import DEFAULT_DB_ALIAS, connection, connections, models
from django.db.models import Model, QuerySet
from django.db.models.query import ModelIterable
from django.db.models.sql import UpdateQuery

M = TypeVar("M", bound=Model)


class prepared:
    """A function from values to a queryset, becoming a function from values to a list of rows."""

    def __init__(self, build: Callable[..., QuerySet[Any]]) -> None:
        self.build = build
        self.__doc__, self.__name__ = build.__doc__, build.__name__
        self.stand_ins = _stand_ins(build)

    def __call__(self, **values: Any) -> list[Any]:
        rows, fill = _kept(self, self._compile)
        fill(values)
        return list(rows)

    def _compile(self) -> tuple[ModelIterable, Callable[[dict[str, Any]], None]]:
        queryset = self.build(**self.stand_ins)
        compiler = queryset.query.get_compiler(DEFAULT_DB_ALIAS)
        sql, template = _template(self.stand_ins, *compiler.as_sql())
        compiler.execute_sql = lambda **_options: [_rows(sql, filled)]
        converters = compiler.get_converters([column[0] for column in compiler.select])
        compiler.get_converters = lambda expressions: converters
        queryset.query.get_compiler = lambda using=None: compiler  # type: ignore[method-assign]
        filled: list[Any] = []

        def fill(values: dict[str, Any]) -> None:
            filled[:] = template(values)

        return ModelIterable(queryset), fill


class prepared_update:
    """A function from values to (queryset, what to set), becoming one from values to the number of rows changed."""

    def __init__(self, build: Callable[..., tuple[QuerySet[Any], dict[str, Any]]]) -> None:
        self.build = build
        self.__doc__, self.__name__ = build.__doc__, build.__name__
        self.stand_ins = _stand_ins(build)

    def __call__(self, **values: Any) -> int:
        sql, template = _kept(self, self._compile)
        with cursor_for_prepared() as cursor:
            cursor.execute(sql, template(values))
            return cursor.rowcount

    def _compile(self) -> tuple[str, Callable[[dict[str, Any]], list[Any]]]:
        queryset, changes = self.build(**self.stand_ins)
        query = queryset.query.chain(UpdateQuery)
        query.add_update_values(changes)
        query.clear_ordering(force=True)
        query.clear_select_clause()
        return _template(self.stand_ins, *query.get_compiler(DEFAULT_DB_ALIAS).as_sql())


def insert(row: M) -> M:
    """`row.save(force_insert=True)` of a plain model: no signals, no parents, nothing computed by the database."""
    _insert(row)
    return row


def insert_if_free(row: Model) -> bool:
    """`insert`, unless a row that is there already leaves no room for this one; the transaction goes on either way."""
    return _insert(row, " ON CONFLICT DO NOTHING")


def cursor_for_prepared() -> Any:
    """A cursor for statements of few texts, whose values come apart; PostgreSQL keeps them planned."""
    return (connection.preparing_cursor if connection.vendor == "postgresql" else connection.cursor)()


def _rows(sql: str, values: list[Any]) -> list[tuple[Any, ...]]:
    with cursor_for_prepared() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchall()


def _insert(row: Model, in_conflict: str = "") -> bool:
    sql, fields = _kept((insert, type(row), in_conflict), lambda: _insert_of(type(row), in_conflict))
    values = [field.get_db_prep_save(field.pre_save(row, True), connection) for field in fields]
    with cursor_for_prepared() as cursor:
        cursor.execute(sql, values)
        inserted = cursor.fetchone()
    if inserted is None:
        return False
    row.pk = inserted[0]
    row._state.adding, row._state.db = False, connection.alias
    return True


def _insert_of(model: type[Model], in_conflict: str) -> tuple[str, list[models.Field]]:
    fields = [field for field in model._meta.local_concrete_fields if not field.primary_key]
    quoted = connection.ops.quote_name
    columns = ", ".join(quoted(field.column) for field in fields)
    marks = ", ".join(["%s"] * len(fields))
    key = quoted(model._meta.pk.column)
    return f"INSERT INTO {quoted(model._meta.db_table)} ({columns}) VALUES ({marks}){in_conflict} RETURNING {key}", fields


def _kept(key: Any, make: Callable[[], Any]) -> Any:
    """What was compiled for this connection, which belongs to one thread."""
    kept = connections[DEFAULT_DB_ALIAS].__dict__.setdefault("prefloop_prepared", {})
    if key not in kept:
        kept[key] = make()
    return kept[key]


def _stand_ins(build: Callable[..., Any]) -> dict[str, Any]:
    """A value for each argument that no queryset holds by itself."""
    made: dict[str, Any] = {}
    for number, (name, parameter) in enumerate(inspect.signature(build).parameters.items()):
        kinds = {
            int: 1_987_654_000 + number,
            str: f"\x01{name}",
            datetime: datetime(1801, 1, 1, tzinfo=UTC) + timedelta(days=number),
        }
        made[name] = kinds[parameter.annotation]
    return made


def _template(
    stand_ins: dict[str, Any], sql: str, parameters: Sequence[Any]
) -> tuple[str, Callable[[dict[str, Any]], list[Any]]]:
    """The SQL, and what puts values in the places it has left.

    Plain constants are written into it: SQLite plans a statement again at every use where a parameter might decide
    whether an index of some rows only, such as those of one state, can serve.
    """
    adapted = {_adapted(value): name for name, value in stand_ins.items()}
    first, *rest = sql.split("%s")
    written, places = [first], []
    for value, piece in zip(parameters, rest, strict=True):
        name = adapted.get(value) if isinstance(value, int | str | datetime) else None
        if name is None and _is_plain(value):
            written += [f"'{value}'" if isinstance(value, str) else str(value), piece]
        else:
            written += ["%s", piece]
            places.append((name, value))
    missing = stand_ins.keys() - {name for name, _value in places}
    if missing:
        raise TypeError(f"The SQL has no place for {', '.join(sorted(missing))}")

    def fill(values: dict[str, Any]) -> list[Any]:
        return [constant if name is None else _adapted(values[name]) for name, constant in places]

    return "".join(written), fill


def _is_plain(value: Any) -> bool:
    """A whole number, or a word such as the name of a state."""
    return type(value) is int or (isinstance(value, str) and value.isascii() and value.isidentifier())


def _adapted(value: Any) -> Any:
    return connection.ops.adapt_datetimefield_value(value) if isinstance(value, datetime) else value
