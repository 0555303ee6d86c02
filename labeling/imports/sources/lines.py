"""JSON lines: one object a line."""

import json
from collections.abc import Callable, Iterable, Iterator

from labeling.imports.records import SourceRow
from labeling.imports.sources.base import Limits, Source, checked
from labeling.imports.sources.stored import Stored
from labeling.web import strict_json

BLANK = b" \t\r\n"


class JsonLines(Source):
    def __init__(self, stored: Stored, limits: Limits) -> None:
        super().__init__("jsonl", n_bytes=stored.n_bytes, limits=limits, compressed=stored.compressed)
        self._stored = stored

    def _rows(self, skip: int) -> Iterator[SourceRow]:
        for number, line in numbered_lines(self._stored.text(), self.limits.record_bytes):
            if line is not None and not line.strip(BLANK):
                continue
            if skip:
                skip -= 1
                continue
            self.bytes_read = self._stored.n_read
            yield row_of_json(line, number, self.limits)


def row_of_json(raw: bytes | None, line: int, limits: Limits, *, what: str = "line") -> SourceRow:
    """`raw` is None where it was too long to be kept."""
    if raw is None:
        return SourceRow(line, None, f"the {what} is longer than {limits.record_bytes:,} bytes")
    try:
        data = strict_json.parse(raw)
    except UnicodeDecodeError as error:
        return SourceRow(line, None, not_utf8(raw, error.start))
    except json.JSONDecodeError as error:
        places = {"line": f"column {error.colno:,}", "record": f"line {line + error.lineno - 1:,}"}
        where = places.get(what, f"character {error.pos + 1:,} of it")
        return SourceRow(line, None, f"is not JSON: {error.msg}, {where}")
    except ValueError as error:
        return SourceRow(line, None, f"is not JSON: {error}")
    if problem := checked(data, limits):
        return SourceRow(line, None, problem)
    return SourceRow(line, data)


def not_utf8(raw: bytes, at: int) -> str:
    return f"is not UTF-8: byte {at} is {raw[at]:#04x}; save the file as UTF-8"


def numbered_lines(
    pieces: Iterable[bytes], longest: int, dropped: Callable[[bytes], None] | None = None
) -> Iterator[tuple[int, bytes | None]]:
    """Each line with its number, without its end; None for one of more than `longest` bytes.

    Such a line is never held: `dropped` is called with each piece of it, before it is yielded.
    """
    number = 0
    rest = b""
    too_long = False
    for piece in pieces:
        *ended, rest = (rest + piece).split(b"\n")
        for line in ended:
            number += 1
            if too_long or len(line) > longest + 1 or len(line.removesuffix(b"\r")) > longest:
                if dropped:
                    dropped(line)
                too_long = False
                yield number, None
            else:
                yield number, line
        if too_long or len(rest) > longest + 1:
            too_long = True
            if dropped:
                dropped(rest)
            rest = b""
    if too_long or len(rest) > longest:
        if dropped:
            dropped(rest)
        yield number + 1, None
    elif rest:
        yield number + 1, rest
