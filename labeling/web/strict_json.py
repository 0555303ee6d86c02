"""JSON from outside, held to what both databases can store and every reader can read back. Pure."""

import json
import math
import re
from collections import Counter
from typing import Any

import orjson

MAX_NESTING = 64
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
# Fewer digits always fit into 64 bits.
_LONG_NUMBER = re.compile(rb"[0-9]{19}")


def parse(raw: bytes, encoding: str = "utf-8") -> Any:
    """Refuses NaN, infinity, numbers past 64 bits, NUL, half surrogate pairs, deep nesting and a field given twice.

    Raises UnicodeDecodeError, else ValueError with a text for the person who sent it.
    """
    try:
        value = orjson.loads(raw)
    except ValueError:
        return _parse_slowly(raw.decode(encoding))
    # orjson takes some of what is refused here. What is left without the strings shows whether that can be at hand;
    # a NUL can only come as an escape.
    bones = _STRING.sub(b"", raw)
    # As many colons as fields, or one was given twice and the last is what is left of them.
    if _LONG_NUMBER.search(bones) or b"\\u0000" in raw or bones.count(b":") != _n_fields(value):
        return _parse_slowly(raw.decode(encoding))
    return value


def _n_fields(value: Any, depth: int = 0) -> int:
    if type(value) is dict:
        n_fields, values = len(value), value.values()
    elif type(value) is list:
        n_fields, values = 0, value
    else:
        return 0
    if depth >= MAX_NESTING:
        raise ValueError("nested too deeply")
    for each in values:
        if type(each) is dict or type(each) is list:
            n_fields += _n_fields(each, depth + 1)
    return n_fields


def _parse_slowly(text: str) -> Any:
    try:
        value = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_fraction,
            object_pairs_hook=_without_doubles,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # Only an escape can bring in what is looked for here, and only many brackets can nest deeply.
    if "\\u" in text or text.count("[") + text.count("{") > MAX_NESTING:
        refuse_unstorable(value)
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the field {name[:80]!r} is given twice")
    return fields


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


def refuse_unstorable(value: Any) -> None:
    """Raises ValueError for what the databases can't keep: NUL, half surrogate pairs, deep nesting."""
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, str):
            if "\x00" in item:
                raise ValueError("a text holds a NUL character, which databases refuse")
            if not item.isascii():
                try:
                    item.encode("utf-8")
                except UnicodeEncodeError:
                    raise ValueError("a text holds half of a surrogate pair") from None
        elif isinstance(item, list | dict):
            if depth >= MAX_NESTING:
                raise ValueError("nested too deeply")
            waiting += [(each, depth + 1) for each in (item.values() if isinstance(item, dict) else item)]
            if isinstance(item, dict):
                waiting += [(key, depth) for key in item]
