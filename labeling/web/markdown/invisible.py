"""Characters that show nothing, turn the text around or bury it, made visible by name.

A text goes through the parser with each of them replaced by one private character, so none can change what the parser
or the allowlist does; in the finished page that character becomes the mark. The same way carries the few elements of
our own that no allowlist should admit from a text, such as the buttons of a code block.
"""

import re
import unicodedata

from django.utils.html import escape

# Joiners stay where they belong: inside emoji and in Indic or Persian words.
INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff\U0010e000-\U0010fffd]"
    "|(?<![^\\s\x21-\x7e])[\u200c\u200d]|[\u200c\u200d](?![^\\s\x21-\x7e])"
)
_RUN = re.compile(f"(?:{INVISIBLE.pattern})+")
# Marks over marks reach into the lines above and below. No script stacks more than five on a letter.
_STACK = "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
_STACKED = re.compile(f"(?<=[{_STACK}]{{5}})[{_STACK}]+")

_FIRST, _LAST = 0x10E000, 0x10FFFD
_STANDIN = re.compile(f"[{chr(_FIRST)}-{chr(_LAST)}]")
_STANDIN_IN_ADDRESS = re.compile(r"%F4%8[EF]%[89AB][0-9A-F]%[89AB][0-9A-F]")
MAX_MARKS = 2_000

_SHORT = {
    0x00: "NUL", 0x07: "BEL", 0x08: "BS", 0x0B: "VT", 0x0C: "FF", 0x0E: "SO", 0x0F: "SI", 0x1A: "SUB", 0x1B: "ESC", 0x7F: "DEL",
    0x85: "NEL", 0xAD: "SHY", 0x34F: "CGJ", 0x61C: "ALM", 0x200B: "ZWSP", 0x200C: "ZWNJ", 0x200D: "ZWJ", 0x200E: "LRM",
    0x200F: "RLM", 0x2028: "LS", 0x2029: "PS", 0x202A: "LRE", 0x202B: "RLE", 0x202C: "PDF", 0x202D: "LRO", 0x202E: "RLO",
    0x2060: "WJ", 0x2066: "LRI", 0x2067: "RLI", 0x2068: "FSI", 0x2069: "PDI", 0xFEFF: "BOM",
}  # fmt: skip
_CONTROL = {0x00: "NULL", 0x07: "BELL", 0x08: "BACKSPACE", 0x0C: "FORM FEED", 0x1B: "ESCAPE", 0x7F: "DELETE"}


def name_of(char: str) -> str:
    """`U+202E RIGHT-TO-LEFT OVERRIDE`."""
    code = ord(char)
    if 0xD800 <= code <= 0xDFFF:
        name = "HALF OF A SURROGATE PAIR"
    elif _FIRST <= code <= _LAST:
        name = "PRIVATE USE"
    else:
        name = unicodedata.name(char, "") or _CONTROL.get(code, "CONTROL CHARACTER")
    return f"U+{code:04X} {name}"


def _short(char: str) -> str:
    code = ord(char)
    return "TAG" if 0xE0000 <= code <= 0xE007F else _SHORT.get(code) or f"U+{code:04X}"


class StandIns:
    """Private characters of one rendering and what each stands for."""

    def __init__(self) -> None:
        self._html: list[str] = []
        self._text: list[str] = []
        self._char: list[str] = []
        self._known: dict[str, str] = {}
        self._n_marks = 0

    def hide(self, text: str) -> str:
        """The text with a stand-in for each run of invisible characters; past MAX_MARKS a replacement character for each."""
        text = _RUN.sub(lambda found: self._stand_in(found[0]), text)
        return _STACKED.sub(lambda found: self._stand_in(found[0], stacked=True), text)

    def keep(self, html: str) -> str:
        """A stand-in for an element of our own."""
        return self._add(html, "", "")

    def show(self, html: str) -> str:
        return _STANDIN.sub(lambda found: self._of(self._html, found[0]), html)

    def spell(self, text: str) -> str:
        """For attributes, where no element can stand."""
        return _STANDIN.sub(lambda found: self._of(self._text, found[0]), text)

    def restore(self, address: str) -> str:
        """An escaped address with the characters it had."""

        def original(found: re.Match[str]) -> str:
            char = self._of(self._char, bytes.fromhex(found[0].replace("%", "")).decode("utf-8", "replace"))
            return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "replace"))

        return _STANDIN_IN_ADDRESS.sub(original, address)

    def _stand_in(self, run: str, *, stacked: bool = False) -> str:
        self._n_marks += 1
        if self._n_marks > MAX_MARKS:
            return "\ufffd"  # as browsers show what they can't: named one by one they would take seconds to lay out
        many = f" × {len(run):,}" if len(run) > 1 else ""
        codes = f"(U+{ord(run[0]):04X}{many})"
        if known := self._known.get(run):
            return known
        if stacked:
            label, title = f"+{len(run)}", f"{len(run):,} more marks on one letter, the first {name_of(run[0])}"
        elif len(set(run)) == 1:
            label, title = _short(run[0]) + many, name_of(run[0]) + many
        else:
            label = " ".join(map(_short, run[:3])) + (f" … {len(run):,}" if len(run) > 3 else "")
            title = ", ".join(map(name_of, run[:6])) + (f" … {len(run):,} characters" if len(run) > 6 else "")
        if hidden := "".join(chr(ord(char) - 0xE0000) for char in run[:200] if 0xE0020 <= ord(char) <= 0xE007E):
            title += f", spelling: {hidden}"
        html = f'<span class="invisible-char" title="{escape(title)}">{escape(label)}</span>'
        self._known[run] = self._add(html, codes, run)
        return self._known[run]

    def _add(self, html: str, text: str, char: str) -> str:
        if len(self._html) > _LAST - _FIRST:
            return ""
        self._html.append(html)
        self._text.append(text)
        self._char.append(char)
        return chr(_FIRST + len(self._html) - 1)

    @staticmethod
    def _of(what: list[str], standin: str) -> str:
        index = ord(standin) - _FIRST if len(standin) == 1 else -1
        return what[index] if 0 <= index < len(what) else ""


def has_stand_in(text: str) -> bool:
    return _STANDIN.search(text) is not None
