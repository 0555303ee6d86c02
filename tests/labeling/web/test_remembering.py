import pytest
from django.core.cache import cache

from labeling.web import remembering
from labeling.web.remembering import remembered, total


@pytest.fixture(autouse=True)
def _forgotten():
    cache.clear()
    yield
    cache.clear()


class Counter:
    def __init__(self, start: int) -> None:
        self.n, self.asked = start, 0

    def __call__(self) -> dict[str, int]:
        self.asked += 1
        self.n += 1
        return {"n": self.n}


def test_what_counts_little_is_always_counted_again():
    count = Counter(5)
    assert [remembered("few", count, n=total)["n"] for _ in range(3)] == [6, 7, 8]


@pytest.mark.parametrize("n", [total, 10**6])
def test_what_counts_much_is_remembered_as_long_as_it_was_dear(monkeypatch, n):
    count = Counter(remembering.LARGE if n is total else 5)
    clock = iter([0.0, 0.5])
    monkeypatch.setattr(remembering.time, "perf_counter", lambda: next(clock))
    kept_for = []
    keep = cache.set
    monkeypatch.setattr(remembering.cache, "set", lambda key, value, seconds: kept_for.append(seconds) or keep(key, value, seconds))
    first = remembered("many", count, n=n)
    assert remembered("many", count, n=n) == first and count.asked == 1
    assert kept_for == [15.0]
