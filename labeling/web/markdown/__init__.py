"""Markdown of prompts, completions and guidelines, as HTML that is safe to show.

Written by models and strangers, so three locks one behind the other: the parser knows no HTML, the result
passes an allowlist, and the page's policy runs no script that isn't ours. Nothing shown is fetched but images
uploaded here: another becomes its address as text, and a link shows where it leads.
"""

import re

from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from markdown_it.token import Token

from labeling.web.markdown.allowlist import ATTRIBUTES, TAGS, clean
from labeling.web.markdown.invisible import StandIns
from labeling.web.markdown.renderer import MAX_NESTING, Definitions, parser

__all__ = ["ATTRIBUTES", "MAX_MARKDOWN", "TAGS", "render_markdown"]

# Beyond these the text is shown as it was written: a parser is no place to spend a second of an annotator's.
MAX_MARKDOWN = 120_000
MAX_LINES = 3_000
MAX_LINE = 8_000
MAX_MARKS = 4_000
MAX_INLINE_DEPTH = 100
# Lines of a plain text that are laid out together; what is out of sight is not laid out at all.
PLAIN_LINES = 200

_MARKS = re.compile(r"[*_`\[\]<>&!~|\\#>$-]")


def render_markdown(text: object) -> SafeString:
    """The text as HTML in one `<div class="prose">`."""
    raw = str(text or "").replace("\r\n", "\n").replace("\r", "\n")
    stand_ins = StandIns()
    hidden = stand_ins.hide(raw)
    body = None if _is_too_much(raw) else _rendered(hidden, stand_ins)
    if body is None:
        body = _plain(hidden)
    # The allowlist has spoken; what is put in here is of our own making.
    body = stand_ins.show(body)
    return mark_safe(f'<div class="prose" lang="" dir="auto">{body}</div>')  # cleaned by the allowlist above


def _rendered(text: str, stand_ins: StandIns) -> str | None:
    """None where the parser would lose something or the browser be asked for too much."""
    definitions = Definitions()
    env = {"stand_ins": stand_ins, "references": definitions}
    try:
        tokens = parser().parse(text, env)
        if _is_too_deep(tokens):
            return None
        html = parser().renderer.render(tokens, parser().options, env)
    except RecursionError:
        return None
    return clean(html + _unused(text, definitions, env), spell=stand_ins.spell)


def _is_too_much(text: str) -> bool:
    return (
        len(text) > MAX_MARKDOWN
        or text.count("\n") > MAX_LINES
        or any(len(line) > MAX_LINE for line in text.split("\n"))
        or len(_MARKS.findall(text)) > MAX_MARKS
    )


def _is_too_deep(tokens: list[Token]) -> bool:
    """At its limit the parser drops the rest of a block, so whatever comes near is not shown as Markdown."""
    if any(token.level >= MAX_NESTING - 2 for token in tokens):
        return True
    for token in tokens:
        depth = 0
        for child in token.children or ():
            depth += child.nesting
            if depth > MAX_INLINE_DEPTH:
                return True
    return False


def _unused(text: str, definitions: Definitions, env: dict) -> str:
    found = [*definitions.unused(), *env.get("duplicate_refs", [])]
    if not found:
        return ""
    lines = text.split("\n")
    shown = "\n".join("\n".join(lines[slice(*one["map"])]) for one in found)
    return f'<div class="definitions">{escape(shown)}</div>'


def _plain(text: str) -> str:
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    parts = ["".join(lines[start : start + PLAIN_LINES]) for start in range(0, len(lines), PLAIN_LINES)]
    return "".join(f'<div class="plain">{escape(part)}</div>' for part in parts)
