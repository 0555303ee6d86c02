"""What a row of a view looks like, in one small notation, and what Parquet and CSV make of it.

    {"prompt": MESSAGES, "margin": float, "tie": bool, "votes": JSON}

A column is `str`, `int`, `float` or `bool`, a list of one of these, or an object of them. In Parquet all rows must have one
shape, so there `JSON`, something of varying shape, is JSON text, `WORD` is text whatever was given as one, and `NUMBER`
is null where what was given as a number is none of 64 bits. In JSON lines all are what they are.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    import pyarrow as pa  # imported where it is used: it takes 50 MB, and a web process mostly does without

Row = dict[str, Any]
Shape = Any
Columns = dict[str, Shape]


class JSON: ...


class WORD: ...


class NUMBER: ...


MESSAGES = [{"role": str, "content": str}]
AUTHOR = {"annotator": str, "annotator_kind": str}
COMPLETION = {"key": str, "content": str, "model": str, "author": AUTHOR}

# A spreadsheet takes what begins so for a formula, also behind white space and quotes; full-width forms count as well.
FORMULA = re.compile(
    r"""[\s\x00-\x1f\u200b-\u200f\u2060\ufeff"'`´‘’“”„«»]*[=+\-@＝＋－＠﹢﹣﹦﹫−]"""
    r"""|[\s\x00-\x1f\u200b-\u200f\u2060\ufeff"'`´‘’“”„«»]*?[\t\r\x00]"""
)


def as_text(value: Any) -> str:
    return orjson.dumps(value).decode()


def shaper(shape: Shape) -> Callable[[Any], Any] | None:
    """Makes a value, in place, what Parquet takes for its shape; None where it is that already.

    What a value lacks is null there without being said.
    """
    if isinstance(shape, dict):
        inner = [(key, make) for key, value in shape.items() if (make := shaper(value))]
        return partial(_shaped_object, inner) if inner else None
    if isinstance(shape, list):
        make = shaper(shape[0])
        return None if make is None else lambda values: [make(value) for value in values]
    return {JSON: as_text, WORD: _as_word, NUMBER: _as_number}.get(shape)


def _shaped_object(inner: list[tuple[str, Callable[[Any], Any]]], value: Row) -> Row:
    for key, make in inner:
        if (found := value.get(key)) is not None:
            value[key] = make(found)
    return value


def _as_word(value: Any) -> str:
    return value if isinstance(value, str) else as_text(value)


def _as_number(value: Any) -> int | None:
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def arrow_schema(columns: Columns) -> "pa.Schema":
    import pyarrow as pa

    scalars = {float: pa.float64(), bool: pa.bool_()}
    scalars |= dict.fromkeys((str, JSON, WORD), pa.string()) | dict.fromkeys((int, NUMBER), pa.int64())

    def kind(shape: Shape) -> pa.DataType:
        if isinstance(shape, dict):
            return pa.struct([(key, kind(inner)) for key, inner in shape.items()])
        return pa.list_(kind(shape[0])) if isinstance(shape, list) else scalars[shape]

    return pa.schema([(name, kind(shape)) for name, shape in columns.items()])


def cell(value: Any) -> str:
    """`value` in a CSV file: text that a spreadsheet would run begins with a quote, lists and objects are JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if FORMULA.match(value) else value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else as_text(value)
