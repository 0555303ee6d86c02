"""JSON from outside, held to what both databases can store and every reader can read back. Pure."""

import json
import math
from typing import Any

MAX_NESTING = 64


def parse(raw: bytes, encoding: str = "utf-8") -> Any:
    """Refuses NaN, infinity, numbers past 64 bits, NUL, half surrogate pairs and deep nesting.

    Raises UnicodeDecodeError, else ValueError with a text for the person who sent it.
    """
    try:
        value = json.loads(
            raw.decode(encoding), parse_constant=_refuse_constant, parse_int=_integer, parse_float=_fraction
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # Only an escape can bring in what is looked for here, and only many brackets can nest deeply.
    if b"\\u" in raw or raw.count(b"[") + raw.count(b"{") > MAX_NESTING:
        _refuse_unstorable(value)
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _integer(text: str) -> int:
    number = int(text) if len(text) < 21 else 2**63
    if not -(2**63) <= number < 2**63:
        raise ValueError("a number does not fit into 64 bits")
    return number


def _fraction(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _refuse_unstorable(value: Any) -> None:
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, str):
            if "\x00" in item:
                raise ValueError("a text holds a NUL character, which databases refuse")
            if any("\ud800" <= char <= "\udfff" for char in item):
                raise ValueError("a text holds half of a surrogate pair")
        elif isinstance(item, list | dict):
            if depth >= MAX_NESTING:
                raise ValueError("nested too deeply")
            waiting += [(each, depth + 1) for each in (item.values() if isinstance(item, dict) else item)]
            if isinstance(item, dict):
                waiting += [(key, depth) for key in item]
