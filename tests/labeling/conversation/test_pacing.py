"""What is shown of two texts says nothing of which grew faster."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.conversation.pacing import Pacer

TICK = 0.05


def play(first: tuple[int, float], second: tuple[int, float], *, watched: bool = True) -> list[tuple[int, int]]:
    """Frames of two sides, each (length, characters a second)."""
    pacer = Pacer()
    frames = []
    for tick in range(1, 20_000):
        now = tick * TICK
        for side, (length, speed) in zip(pacer.sides, (first, second), strict=True):
            side.text = "x" * min(length, int(speed * now))
            side.has_ended = len(side.text) == length
        frames.append(pacer.shown_at(now, is_watched=watched))
        if pacer.is_all_shown:
            return frames
    raise AssertionError("it never ended")


SPEEDS = st.floats(3, 20_000)
LENGTHS = st.integers(0, 1500)


@given(LENGTHS, SPEEDS, LENGTHS, SPEEDS)
def test_while_both_grow_both_show_as_much_and_nothing_is_taken_back(a, speed_a, b, speed_b):
    frames = play((a, speed_a), (b, speed_b))
    assert frames[-1] == (a, b)
    for before, after in itertools.pairwise(frames):
        assert before[0] <= after[0] and before[1] <= after[1]
    for shown_a, shown_b in frames:
        assert shown_a == shown_b or (shown_a == a and shown_b > a) or (shown_b == b and shown_a > b)


@pytest.mark.parametrize(("slow", "fast"), [(20, 2000), (40, 400), (30, 100_000)])
def test_a_fast_one_does_not_rush_on_when_the_slow_one_has_ended(slow, fast):
    """The page looks the same whether the longer text comes from the fast model or from the slow one."""
    frames = play((200, slow), (600, fast))
    ended = next(number for number, frame in enumerate(frames) if frame[0] == 200)
    tail_seconds = (len(frames) - ended) * TICK
    pace_before, pace_after = 200 / (ended * TICK), 400 / tail_seconds
    assert pace_after == pytest.approx(pace_before, rel=0.35)


def test_where_nobody_looks_on_nothing_waits():
    assert play((10, 1000), (5000, 5000), watched=False)[-1] == (10, 5000)
    assert len(play((10, 1000), (5000, 5000), watched=False)) * TICK < 1.2


def test_one_that_came_back_empty_holds_nothing_up():
    assert play((0, 10), (300, 200))[-1] == (0, 300)
