"""The one interface behind which completions are sampled."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Message = dict[str, str]


@dataclass(frozen=True)
class GenerationRequest:
    """One completion to sample.

    `key` is the caller's own name for it; results carry it back. `temperature` 0 means greedy decoding.
    `seed` belongs to this request alone, so what is sampled does not depend on its neighbours in a batch.
    """

    key: str
    messages: tuple[Message, ...]
    seed: int
    temperature: float = 0.8
    top_p: float = 0.95
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        if not self.messages:
            raise ValueError(f"Request {self.key}: a prompt needs at least one message")
        if self.temperature < 0:
            raise ValueError(f"Request {self.key}: temperature is {self.temperature}, it cannot be negative")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"Request {self.key}: top_p is {self.top_p}, it must be above 0 and at most 1")
        if self.max_new_tokens < 1:
            raise ValueError(f"Request {self.key}: max_new_tokens must be at least 1")


@dataclass(frozen=True)
class Generation:
    """What came back for one request.

    `content` has no trailing whitespace and may be empty: the caller decides what that means. `finished`
    is false where `max_new_tokens` cut the completion off. `problem` says why there can be no completion of this
    request however often it is asked for, such as a prompt longer than the model's context; empty where there is
    one. `facts` are what the backend knows of its origin beyond the request, to be kept with the completion.
    """

    key: str
    content: str
    n_tokens: int
    finished: bool
    problem: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


class Backend(Protocol):
    """Anything that turns requests into completions."""

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Generation]:
        """Yield one result per request, in any order, as soon as it is known."""
        ...


def derive_seed(*parts: object) -> int:
    """A seed of 31 bits that depends on every part and on their order, the same on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
