"""How much of two growing texts is shown at a time, so that speed never tells one from the other. Pure.

While both still grow, both show as many characters: the slower one decides. When one has ended and is shown whole,
the other goes on no faster than both went until then, whatever of it lies ready; else the faster one would be known
by its rush.
"""

from dataclasses import dataclass, field

# What the pace is taken for before there is much to measure it by: so many characters in so many seconds.
USUAL_CHARACTERS, USUAL_SECONDS = 60.0, 0.5


@dataclass
class Side:
    text: str = ""
    has_ended: bool = False


@dataclass
class Pacer:
    """`shown_at(now)` says how many characters of each side may be seen; it never takes any back."""

    sides: tuple[Side, Side] = field(default_factory=lambda: (Side(), Side()))
    limit: float = 0.0
    began_at: float | None = None
    pace: float | None = None  # characters a second, once one side is shown whole
    last_at: float = 0.0

    def shown_at(self, now: float, *, is_watched: bool = True) -> tuple[int, int]:
        """`is_watched`: whether somebody looks on; where nobody does, nothing needs to be paced."""
        first, second = self.sides
        growing = [len(side.text) for side in self.sides if not side.has_ended]
        ready = min(growing) if growing else max(len(first.text), len(second.text))
        if ready > self.limit:
            if self.began_at is None:
                self.began_at = self.last_at = now
            shorter = min((len(side.text) for side in self.sides if side.has_ended), default=None)
            if not is_watched or shorter is None:
                self.limit = ready
            else:
                # Up to the end of the one that has ended both go together; beyond it, at the pace of before.
                if self.limit < shorter:
                    self.limit = min(ready, shorter)
                if self.limit >= shorter:
                    self._go_on_alone(now, ready)
        self.last_at = now
        whole = int(self.limit)
        return min(whole, len(first.text)), min(whole, len(second.text))

    @property
    def is_all_shown(self) -> bool:
        return all(side.has_ended and self.limit >= len(side.text) for side in self.sides)

    def _go_on_alone(self, now: float, ready: int) -> None:
        assert self.began_at is not None
        if self.pace is None:
            elapsed = now - self.began_at
            self.pace = (self.limit + USUAL_CHARACTERS) / (elapsed + USUAL_SECONDS)
            return
        self.limit = min(ready, self.limit + self.pace * max(0.0, now - self.last_at))
