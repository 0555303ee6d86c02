"""What becomes of an answer to a gold task. The app of quality knows, and stands above this one, so it says so here.

`labeling.quality.apps` sets both functions when Django starts. They are called for gold tasks alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from django.utils.functional import Promise

from labeling.annotation.models import Judgement


@dataclass(frozen=True)
class Compared:
    """One thing that was asked: what was said of it, and what was expected."""

    asked: str | Promise
    said: str | Promise
    expected: str | Promise
    is_right: bool


@dataclass(frozen=True)
class Feedback:
    """What somebody who is qualifying is told of their answer. `outcome`: going on, passed, failed."""

    is_right: bool
    score: float
    compared: list[Compared] = field(default_factory=list)
    explanation: str = ""
    number: int = 0
    n: int = 0
    n_right: int = 0
    outcome: str = "going on"


def _nothing(judgement: Judgement) -> Feedback | None:
    return None


class OnGold:
    answered: Callable[[Judgement], Feedback | None] = staticmethod(_nothing)
    """Called after the transaction that took the answer, and again for each retry of it."""
    told: Callable[[Judgement], Feedback | None] = staticmethod(_nothing)
    """What the annotator was told of it; None unless they gave it while qualifying."""
