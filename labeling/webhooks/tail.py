"""Reads an append-only table by id from where it was, and misses no row.

On SQLite ids follow the order of commits. On PostgreSQL a transaction takes its ids first and commits later, so a row may
appear below one that was read already. Ids that are missing below the newest are kept as gaps and asked for each time,
until every transaction that ran when a gap was noticed is over: then nothing can appear in it any more. Which those are
is known at the next look: they have lower numbers than the transaction that looks.
"""

import time
from collections.abc import Sequence
from typing import Any

from django.db import connection
from django.db.models import Max, Model, Q

from labeling.webhooks.models import Cursor

BATCH = 2000
LOOK_BACK = 1000  # ids below the newest in which gaps are looked for when reading begins
# A transaction has no number between taking an id and writing the row, which takes microseconds.
LEAST_SECONDS = 10.0

# [first id, last id, number above those of all transactions that may fill it, seconds since 1970]. The number is None until
# the look after the one that noticed the gap.
Gap = list[Any]


def begin_at_end(cursor: Cursor, model: type[Model]) -> None:
    """Read only what comes from now on. Not saved."""
    cursor.position = model._default_manager.aggregate(top=Max("pk"))["top"] or 0
    cursor.gaps = []
    if _may_come_late():
        first = max(1, cursor.position - LOOK_BACK)
        there = model._default_manager.filter(pk__gte=first).order_by("pk").values_list("pk", flat=True)
        cursor.gaps = _noticed(_missing(list(there), first - 1))


def read_on(cursor: Cursor, model: type[Model], fields: Sequence[str]) -> tuple[list[tuple[Any, ...]], bool]:
    """Rows not read before, at most BATCH by id, as tuples of pk and `fields`; and whether there may be more.

    Moves the cursor, which the caller saves in the transaction that keeps what was read.
    """
    over = 0
    if cursor.gaps:  # asked before the rows: what ended by now is among them
        over, own = _transactions()
        for gap in cursor.gaps:
            gap[2] = own if gap[2] is None else gap[2]
    wanted = Q(pk__gt=cursor.position)
    for first, last, *_ in cursor.gaps:
        wanted |= Q(pk__range=(first, last))
    rows = list(model._default_manager.filter(wanted).order_by("pk").values_list("pk", *fields)[:BATCH])
    ids, is_full = [row[0] for row in rows], len(rows) == BATCH
    cursor.gaps = _left_of(cursor.gaps, ids, over, ids[-1] if is_full else None)
    if ids and ids[-1] > cursor.position:
        if _may_come_late():
            cursor.gaps += _noticed(_missing([pk for pk in ids if pk > cursor.position], cursor.position))
        cursor.position = ids[-1]
    return rows, is_full


def _missing(ids: list[int], after: int) -> list[tuple[int, int]]:
    """Ranges of ids, from the one after `after` to the last, that are not there."""
    found = []
    for pk in ids:
        if pk > after + 1:
            found.append((after + 1, pk - 1))
        after = pk
    return found


def _left_of(gaps: list[Gap], ids: list[int], over: int, read_to: int | None) -> list[Gap]:
    """The gaps that may still fill, without the ids that just did. `read_to`: where reading stopped short."""
    left: list[Gap] = []
    for first, last, number, at in gaps:
        was_read = read_to is None or last <= read_to
        if was_read and number is not None and number <= over and time.time() - at >= LEAST_SECONDS:
            continue
        inside = [pk for pk in ids if first <= pk <= last]
        left += [[low, high, number, at] for low, high in _missing([*inside, last + 1], first - 1)]
    return left


def _noticed(ranges: list[tuple[int, int]]) -> list[Gap]:
    return [[first, last, None, time.time()] for first, last in ranges]


def _may_come_late() -> bool:
    return connection.vendor == "postgresql"


def _transactions() -> tuple[int, int]:
    """The number of the oldest transaction that is not over, and that of this one, which is given one if it has none."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id()::text, pg_snapshot_xmin(pg_current_snapshot())::text")
        own, oldest = cursor.fetchone()
    return int(oldest), int(own)
