"""JSON documents: an array of records, an object that holds one, or objects one after the other.

The text is cut into its records, and each goes through the same strict parser as a line of JSON lines.
"""

import re
from collections.abc import Iterator
from itertools import chain

from labeling.imports.records import SourceRow
from labeling.imports.sources.base import BadSource, Limits, Source
from labeling.imports.sources.lines import row_of_json
from labeling.imports.sources.stored import Stored
from labeling.web import strict_json

_SPACE = re.compile(rb"[ \t\r\n]*+")
_WHOLE_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
# Up to the next bracket (or comma), past whole strings, and no further than the text there is.
_TO_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|' + _WHOLE_STRING + rb")*+", re.DOTALL)
_TO_END_OF_SCALAR = re.compile(rb'(?:[^"{}\[\],]++|' + _WHOLE_STRING + rb")*+", re.DOTALL)

Part = tuple[int, bytes | None, str]  # a record's line, its text (None: too long), and what is wrong with where it stands


def _nested(depth: int) -> bytes:
    inside = rb'[^"{}\[\]]++|' + _WHOLE_STRING
    if depth:
        inside += rb"|" + _nested(depth - 1)
    return rb"[{\[](?:" + inside + rb")*+[}\]]"


# A record as they mostly are, in one go. Whether the brackets fit each other is for the parser to say.
_RECORD = re.compile(_nested(4), re.DOTALL)


class Text:
    """JSON text read from the front: `at` is the place in `data`, on line `line` of the file."""

    def __init__(self, pieces: Iterator[bytes], longest: int) -> None:
        self.pieces = pieces
        self.longest = longest
        self.data = b""
        self.at = 0
        self.line = 1

    def next(self) -> bytes:
        """The next character that is not white space, without taking it; empty at the end."""
        while True:
            self._advance(_SPACE.match(self.data, self.at).end())  # type: ignore[union-attr]
            if self.at < len(self.data):
                return self.data[self.at : self.at + 1]
            if not self._more():
                return b""

    def take(self) -> None:
        self.at += 1

    def value(self) -> bytes | None:
        """Takes a value, or whatever stands in its place, from its first character on.

        None if it is longer than `longest`. Raises BadSource where the text ends inside it.
        """
        whole = _RECORD.match(self.data, self.at)
        if whole and whole.end() - self.at <= self.longest:
            self._advance(whole.end())
            return whole.group()
        return self._by_pieces()

    def up_to_bracket(self) -> bytes | None:
        """Takes what stands before the next bracket or comma."""
        return self._by_pieces(brackets=False)

    def _by_pieces(self, brackets: bool = True) -> bytes | None:
        began = self.line
        offset = depth = 0  # offset: from `at`, how far the value is known
        in_string = too_long = False
        while True:
            pattern = _REST_OF_STRING if in_string else _TO_BRACKET if depth else _TO_END_OF_SCALAR
            end = pattern.match(self.data, self.at + offset).end()  # type: ignore[union-attr]
            found = self.data[end : end + 1]
            offset = end - self.at
            if not found or (in_string and found == b"\\"):
                if offset > self.longest:
                    too_long = True
                    self._advance(end)
                    offset = 0
                if not self._more():
                    if in_string or depth:
                        raise BadSource(f"The file ends inside the record that begins on line {began:,}")
                    break
            elif in_string or found == b'"':
                # The pattern stops before a quote that opens a string only if the text at hand ends inside it.
                in_string = not in_string
                offset += 1
            elif brackets and found in b"{[":
                depth += 1
                offset += 1
            elif depth:
                depth -= 1
                offset += 1
                if not depth:
                    break
            else:
                break
        too_long = too_long or offset > self.longest
        raw = None if too_long else self.data[self.at : self.at + offset]
        self._advance(self.at + offset)
        return raw

    def _advance(self, to: int) -> None:
        self.line += self.data.count(b"\n", self.at, to)
        self.at = to

    def _more(self) -> bool:
        piece = next(self.pieces, b"")
        self.data = self.data[self.at :] + piece
        self.at = 0
        return bool(piece)


class JsonDocument(Source):
    """`holder` names the field of the object that holds the records; None if there is no such object.

    Where the second record begins on the line of the first, the document has no lines to speak of: rows are numbered.
    """

    def __init__(self, stored: Stored, limits: Limits, holder: str | None) -> None:
        super().__init__("json", n_bytes=stored.n_bytes, limits=limits, compressed=stored.compressed)
        self._stored = stored
        self.holder = holder

    def _rows(self, skip: int) -> Iterator[SourceRow]:
        text = Text(self._stored.text(), self.limits.record_bytes)
        if self.holder is not None:
            found = self._held(text)
        elif text.next() == b"[":
            found = self._array(text)
        else:
            found = self._one_after_the_other(text)
        for number, raw, problem in self._numbered(found):
            if skip:
                skip -= 1
                continue
            self.bytes_read = self._stored.n_read
            what = "record" if self.place == "on line" else "row"
            yield SourceRow(number, None, problem) if problem else row_of_json(raw, number, self.limits, what=what)
        if text.next():
            raise BadSource(f"There is more behind the end of the JSON on line {text.line:,}")

    def _numbered(self, found: Iterator[Part]) -> Iterator[Part]:
        """The same, with a place by which each is found again instead of its line, if lines don't tell."""
        first = next(found, None)
        if first is None:
            return
        second, fault = None, None
        try:
            second = next(found, None)
        except BadSource as error:
            fault = error
        if second and second[0] == first[0]:
            self.place = "row"
        begun = chain((first, second) if second else (first,), found)
        for number, (line, raw, problem) in enumerate(begun, 1):
            yield number if self.place == "row" else line, raw, problem
        if fault:
            raise fault

    def _one_after_the_other(self, text: Text) -> Iterator[Part]:
        while text.next() == b"{":
            line = text.line
            yield line, text.value(), ""

    def _array(self, text: Text) -> Iterator[Part]:
        began = text.line
        text.take()
        comma: int | None = None  # the line of one that no record has followed yet
        problem = ""
        while char := text.next():
            line = text.line
            if char == b"]":
                if comma:
                    yield comma, None, "is not JSON: a comma with no record after it"
                text.take()
                return
            if char == b"}":
                raise BadSource(f"A bracket on line {line:,} closes nothing")
            if char == b",":
                yield line, None, "is not JSON: a comma with no record before it"
            else:
                raw = text.value()
                yield line, raw, problem
                problem = ""
            if text.next() == b",":
                comma = text.line
                text.take()
            else:
                comma = None
                problem = "is not JSON: no comma between this record and the one before"
        raise BadSource(f"The array that begins on line {began:,} is not closed: the file was cut off")

    def _held(self, text: Text) -> Iterator[Part]:
        n_found = 0
        for name in containers(text):
            if name == self.holder and text.next() == b"[":
                n_found += 1
                if n_found > 1:
                    raise BadSource(f"The field {name!r} is given twice, the second time on line {text.line:,}")
                yield from self._array(text)
            else:
                text.value()


def containers(text: Text) -> Iterator[str]:
    """The names of an object's fields that hold an object or an array, with `text` in front of it to be taken.

    Raises BadSource where the object is not JSON.
    """
    text.next()
    text.take()
    divided = True
    while (char := text.next()) != b"}":
        line = text.line
        # The name, and up to a bracket or the next comma.
        start = text.up_to_bracket() if char == b'"' and divided else None
        if start is None:
            raise BadSource(f"The object is not JSON on line {line:,}")
        holds_more = text.next() in (b"{", b"[")
        try:
            field = strict_json.parse(b"{" + start + (b"0}" if holds_more else b"}"))
        except ValueError as error:
            raise BadSource(f"The object is not JSON on line {line:,}: {error}") from None
        if holds_more:
            yield next(iter(field))
        divided = text.next() == b","
        if divided:
            text.take()
    text.take()
