"""What sampling from a server uses and may use: tokens, money, and requests a minute. No network here."""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.sampling.backends import Message

WINDOW_SECONDS = 60.0
TOKENS_A_MESSAGE = 16  # of a chat template: role, marks and line breaks
TOKENS_A_PROMPT = 64  # of a default system message


class BudgetReached(Exception):
    """One more request could cost more than is left; the message says what was used."""


def most_prompt_tokens(messages: Sequence[Message]) -> int:
    """An upper bound without the server's tokenizer: a token of a byte-level vocabulary has at least one byte."""
    return TOKENS_A_PROMPT + sum(TOKENS_A_MESSAGE + len(message["content"].encode()) for message in messages)


@dataclass(frozen=True)
class Prices:
    """Per million tokens, in one currency."""

    prompt: float = 0.0
    new: float = 0.0

    def cost(self, prompt_tokens: int, new_tokens: int) -> float:
        return (prompt_tokens * self.prompt + new_tokens * self.new) / 1e6


@dataclass
class Used:
    """Tokens of requests that are over. A request whose answer was lost counts with the most it can have used."""

    prompt_tokens: int = 0
    new_tokens: int = 0
    requests: int = 0
    lost: int = 0


class Ledger:
    """Keeps a run within its budget, also over kills: what is sent is written before it is sent.

    Lines of the file: `{"sent": id, "prompt_tokens", "new_tokens"}` with the most that a request can use, and
    `{"settled": id, ...}` with what it did use. What was sent and never settled counts with its most.
    `max_cost` is in the prices' currency; None for no limit. Safe to use from many threads.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        prices: Prices | None = None,
        max_cost: float | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self.prices, self.max_cost, self.max_tokens = prices or Prices(), max_cost, max_tokens
        self.used = Used()
        self._open: dict[int, tuple[int, int]] = {}
        self._changed = threading.Condition()
        self._next_id = 0
        self._file = None
        if path is not None:
            self._read(path)
            self._file = path.open("a", encoding="utf-8")

    def _read(self, path: Path) -> None:
        """Take over what an earlier process has used; a last line torn by a kill is cut off."""
        if not path.exists():
            return
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:
            with path.open("r+b") as file:
                file.truncate(len(whole))
        sent: dict[int, tuple[int, int]] = {}
        for line in map(json.loads, whole.splitlines()):
            tokens = (line["prompt_tokens"], line["new_tokens"])
            if "sent" in line:
                sent[line["sent"]] = tokens
                self._next_id = max(self._next_id, line["sent"] + 1)
            else:
                sent.pop(line["settled"])
                self._count(*tokens, lost=line.get("lost", False))
        for tokens in sent.values():
            self._count(*tokens, lost=True)

    @property
    def cost(self) -> float:
        return self.prices.cost(self.used.prompt_tokens, self.used.new_tokens)

    def reserve(self, prompt_tokens: int, new_tokens: int) -> int:
        """Set aside the most that a request can use; returns its id, for `settle`.

        Waits while only requests under way stand against it. Raises BudgetReached where it can't fit.
        """
        with self._changed:
            while not self._fits(prompt_tokens, new_tokens):
                if not self._open:
                    raise BudgetReached(self._said())
                self._changed.wait()
            id, self._next_id = self._next_id, self._next_id + 1
            self._open[id] = (prompt_tokens, new_tokens)
            self._write(sent=id, prompt_tokens=prompt_tokens, new_tokens=new_tokens)
            return id

    def settle(self, id: int, prompt_tokens: int, new_tokens: int) -> None:
        """Enter what a request used; nothing for one that the server refused."""
        with self._changed:
            del self._open[id]
            self._count(prompt_tokens, new_tokens, lost=False)
            self._write(settled=id, prompt_tokens=prompt_tokens, new_tokens=new_tokens)
            self._changed.notify_all()

    def lose(self, id: int) -> None:
        """No answer came that says what the request used: it counts with its most."""
        with self._changed:
            tokens = self._open.pop(id)
            self._count(*tokens, lost=True)
            self._write(settled=id, prompt_tokens=tokens[0], new_tokens=tokens[1], lost=True)
            self._changed.notify_all()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _count(self, prompt_tokens: int, new_tokens: int, *, lost: bool) -> None:
        self.used.prompt_tokens += prompt_tokens
        self.used.new_tokens += new_tokens
        self.used.requests += 1
        self.used.lost += lost

    def _fits(self, prompt_tokens: int, new_tokens: int) -> bool:
        prompt_tokens += self.used.prompt_tokens + sum(tokens[0] for tokens in self._open.values())
        new_tokens += self.used.new_tokens + sum(tokens[1] for tokens in self._open.values())
        within_cost = self.max_cost is None or self.prices.cost(prompt_tokens, new_tokens) <= self.max_cost
        return within_cost and (self.max_tokens is None or prompt_tokens + new_tokens <= self.max_tokens)

    def _said(self) -> str:
        used = f"{self.used.prompt_tokens} prompt and {self.used.new_tokens} new tokens"
        limits = [f"{self.cost:.6g} of {self.max_cost:.6g}"] if self.max_cost is not None else []
        limits += [f"{self.max_tokens} tokens are allowed"] if self.max_tokens is not None else []
        return f"The budget has no room for one more request: {used} are used ({', '.join(limits)})"

    def _write(self, **line: Any) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()


class RateLimit:
    """At most so many requests and tokens in any 60 seconds; 0 for no limit. Safe to use from many threads."""

    def __init__(self, requests: int = 0, tokens: int = 0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.requests, self.tokens, self.clock = requests, tokens, clock
        self._sent: deque[list[float]] = deque()  # [when, tokens]
        self._lock = threading.Lock()

    def take(self, tokens: int) -> tuple[list[float] | None, float]:
        """(entry, 0) where a request of so many tokens may be sent now, else (None, seconds to wait before asking again).

        A request larger than the limit by itself may go when nothing else was sent for the whole window.
        """
        with self._lock:
            now = self.clock()
            while self._sent and self._sent[0][0] <= now - WINDOW_SECONDS:
                self._sent.popleft()
            room = not self.requests or len(self._sent) < self.requests
            in_window = sum(entry[1] for entry in self._sent)
            if room and (not self.tokens or not self._sent or in_window + tokens <= self.tokens):
                entry = [now, float(tokens)]
                self._sent.append(entry)
                return entry, 0.0
            return None, max(0.001, self._sent[0][0] + WINDOW_SECONDS - now)

    def correct(self, entry: list[float], tokens: int) -> None:
        """Say how many tokens a request turned out to use."""
        with self._lock:
            entry[1] = float(tokens)
