"""Counts of large tables, for pages: some seconds old rather than counted again for everyone who looks."""

import time
from collections.abc import Callable
from typing import TypeVar

from django.core.cache import cache

T = TypeVar("T")
LARGE = 50_000  # rows looked at; what looks at fewer is never remembered, so pages of small projects are always right
TIMES = 30  # as long as counting took
MOST_SECONDS = 60


def remembered(key: str, count: Callable[[], T], *, n: Callable[[T], int] | int) -> T:
    """What `count` says, or said a moment ago if it looks at many rows: kept 30 times as long as it took, at most a minute.

    `n` is how many rows those are, or tells it from what was found.
    """
    if (kept := cache.get(key)) is not None:
        return kept
    began = time.perf_counter()
    found = count()
    if (n if isinstance(n, int) else n(found)) >= LARGE:
        cache.set(key, found, min(MOST_SECONDS, TIMES * (time.perf_counter() - began)))
    return found


def total(counts: dict[str, int]) -> int:
    return sum(counts.values())
