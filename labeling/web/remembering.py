"""Counts of large tables, for pages: some seconds old rather than counted again for everyone who looks."""

import time
from collections.abc import Callable

from django.core.cache import cache

LARGE = 50_000  # rows counted; what counts fewer is never remembered, so pages of small projects are always right
TIMES = 30  # as long as counting took
MOST_SECONDS = 60


def remembered(key: str, count: Callable[[], dict[str, int]], *, n: int | None = None) -> dict[str, int]:
    """What `count` says, or said a moment ago if it counts much: kept 30 times as long as it took, at most a minute.

    `n` is how many rows it looks at, where that is more than what it finds.
    """
    if (kept := cache.get(key)) is not None:
        return kept
    began = time.perf_counter()
    found = count()
    if (sum(found.values()) if n is None else n) >= LARGE:
        cache.set(key, found, min(MOST_SECONDS, TIMES * (time.perf_counter() - began)))
    return found
