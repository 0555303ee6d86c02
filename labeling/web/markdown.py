"""Markdown of prompts, completions and guidelines, as HTML that is safe to show.

Written by models and strangers, so three locks one behind the other: the parser knows no HTML, the result
passes an allowlist, and the page's policy runs no script that isn't ours. Nothing shown is fetched: an image
becomes its address as text, and a link shows where it leads.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import nh3
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

# Beyond these the text is shown as it was written: a parser is no place to spend a second of an annotator's.
MAX_MARKDOWN = 40_000
MAX_LINE = 8_000
MAX_MARKS = 4_000
MAX_HIGHLIGHTED = 20_000

TAGS = {
    "a", "blockquote", "br", "code", "dd", "del", "div", "dl", "dt", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr",
    "li", "ol", "p", "pre", "s", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
ATTRIBUTES = {
    "a": {"href", "title", "target"},
    "ol": {"start"},
    "span": {"class", "title"},
    "code": {"class"},
    "div": {"class", "dir"},
}
_CLASS = re.compile(r"[a-z][a-z0-9]{0,2}|link-address|image-text|invisible-char|plain")
_MARKS = re.compile(r"[*_`\[\]<>&!~|\\#>-]")
_LINK = re.compile(r"(?:https?://|mailto:)", re.IGNORECASE)
_FORMATTER = HtmlFormatter(nowrap=True)

# Characters that show nothing or turn the text around, though not the joiners inside emoji and Indic or Persian words.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
    "|(?<![^\\s\x21-\x7e])[\u200c\u200d]|[\u200c\u200d](?![^\\s\x21-\x7e])"
)
# Private-use characters that stand for a mark from the parser to the last step.
_OPEN, _CLOSE = "\U000f0001", "\U000f0002"


def render_markdown(text: object) -> SafeString:
    """The text as HTML in one `<div class="prose">`."""
    raw = str(text or "").replace("\r\n", "\n").replace("\r", "\n")
    raw = raw.replace(_OPEN, "\ufffd").replace(_CLOSE, "\ufffd")
    if _is_too_much(raw):
        body = f'<div class="plain">{escape(_name_invisible(raw))}</div>'
    else:
        try:
            body = nh3.clean(
                _parser().render(_name_invisible(raw)),
                tags=TAGS,
                attributes=ATTRIBUTES,
                attribute_filter=_keep_attribute,
                url_schemes={"http", "https", "mailto"},
                link_rel="noopener noreferrer nofollow",
                strip_comments=True,
            )
        except RecursionError:
            body = f'<div class="plain">{escape(_name_invisible(raw))}</div>'
    # The allowlist has spoken; what is put in here is a name of our own making, U+ and hexadecimal digits.
    body = re.sub(
        f"{_OPEN}([0-9A-F]{{4,6}}){_CLOSE}",
        r'<span class="invisible-char" title="U+\1">␣</span>',
        body,
    )
    return mark_safe(f'<div class="prose" dir="auto">{body}</div>')  # cleaned by the allowlist above


def _is_too_much(text: str) -> bool:
    return (
        len(text) > MAX_MARKDOWN
        or any(len(line) > MAX_LINE for line in text.split("\n"))
        or len(_MARKS.findall(text)) > MAX_MARKS
    )


def _name_invisible(text: str) -> str:
    return _INVISIBLE.sub(lambda found: f"{_OPEN}{ord(found[0]):04X}{_CLOSE}", text)


def _show_names(text: str) -> str:
    """For attributes, where no element can stand."""
    return re.sub(f"{_OPEN}([0-9A-F]{{4,6}}){_CLOSE}", r"(U+\1)", text)


def _keep_attribute(tag: str, attribute: str, value: str) -> str | None:
    if attribute == "class":
        kept = [name for name in value.split() if _CLASS.fullmatch(name)]
        return " ".join(kept) or None
    if attribute == "href":
        return value if _LINK.match(value) else None
    if attribute == "target":
        return "_blank"
    return _show_names(value)


def _code(text: str, language: str) -> str:
    if language and len(text) <= MAX_HIGHLIGHTED and _OPEN not in text:
        try:
            return highlight(text, get_lexer_by_name(language, stripnl=False), _FORMATTER)
        except ClassNotFound:
            pass
    return escape(text)


class _Renderer(RendererHTML):
    def fence(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        language = tokens[idx].info.strip().split(maxsplit=1)[:1]
        return f"<pre><code>{_code(tokens[idx].content, language[0] if language else '')}</code></pre>\n"

    def image(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        token = tokens[idx]
        alt = self.renderInlineAsText(token.children, options, env) if token.children else ""
        return f'<span class="image-text">[image: {escape(alt)}] {escape(_readable(token.attrGet("src")))}</span>'

    def link_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        address = str(tokens[idx].attrGet("href") or "")
        env.setdefault("links", []).append((address, tokens[idx + 1 : idx + 3]))
        if not _LINK.match(address):
            return "<span>"
        return f'<a href="{escape(address)}" target="_blank">'

    def link_close(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        address, inside = env["links"].pop()
        end = "</a>" if _LINK.match(address) else "</span>"
        said = inside[0].content if len(inside) == 2 and inside[1].type == "link_close" else None
        if said == address or f"mailto:{said}" == address:
            return end
        return f'{end} <span class="link-address">({escape(_readable(address))})</span>'


def _readable(address: object) -> str:
    return unicodedata.normalize("NFC", str(address or ""))


def _parser() -> MarkdownIt:
    options = {"html": False, "linkify": False, "maxNesting": 20}
    parser = MarkdownIt("commonmark", options, renderer_cls=_Renderer).enable(["table", "strikethrough"])
    # Every link is shown with its address, so one that is refused must stay visible too.
    parser.validateLink = lambda address: True  # type: ignore[method-assign]
    return parser
