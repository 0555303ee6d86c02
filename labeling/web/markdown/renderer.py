"""The parser that texts go through, and how its tokens become HTML."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from django.urls import reverse
from django.utils.html import escape
from django.utils.translation import gettext as _
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_block import table as markdown_table
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline, entity
from markdown_it.token import Token
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from labeling.web.markdown.allowlist import LINK
from labeling.web.markdown.formulas import find_formulas, formula_html
from labeling.web.markdown.invisible import has_stand_in

MAX_NESTING = 24
MAX_HIGHLIGHTED = 12_000  # characters of code of one text
MAX_CELLS = 4_000

# A lexer is a set of regular expressions that a text may be written against; most of them slow down with the length of
# a line. These are asked for and were timed on such texts.
MAX_CODE_LINE = 500
LANGUAGES = {
    "bash", "c", "c++", "cpp", "css", "diff", "docker", "dockerfile", "go", "golang",
    "html", "http", "ini", "javascript", "js", "json", "jsx", "kotlin", "latex", "lua", "make",
    "makefile", "markdown", "md", "php", "powershell", "py", "python", "python3", "r", "rb", "rs", "ruby",
    "rust", "scala", "sh", "shell", "sql", "swift", "tex", "toml", "ts", "tsx", "typescript", "xml", "yaml",
    "yml", "zsh",
}  # fmt: skip
# Their own lexers take seconds over a few thousand words without a bracket; this one colours most of the same words.
STANDS_IN = dict.fromkeys(("c#", "cs", "csharp", "java"), "typescript")
_IMAGE = re.compile(r"image:([0-9a-f]{32})-([1-9]\d{0,4})x([1-9]\d{0,4})")
_FORMATTER = HtmlFormatter(nowrap=True)
_DIRECTED = {
    "paragraph_open", "heading_open", "blockquote_open", "bullet_list_open", "ordered_list_open", "list_item_open", "th_open",
    "td_open",
}  # fmt: skip


class Definitions(dict):
    """Link definitions of a text, which shows nothing of those that no link uses: they are shown below it."""

    def __init__(self) -> None:
        super().__init__()
        self.used: set[str] = set()

    def __getitem__(self, label: str) -> Any:
        self.used.add(label)
        return super().__getitem__(label)

    def get(self, label: str, default: Any = None) -> Any:
        self.used.add(label)
        return super().get(label, default)

    def unused(self) -> Iterator[dict[str, Any]]:
        return (value for label, value in self.items() if label not in self.used)


# --- parsing ------------------------------------------------------------------------------------
@lru_cache(maxsize=1)
def parser() -> MarkdownIt:
    """It keeps nothing of a text, so all requests share it."""
    options = {"html": False, "linkify": False, "maxNesting": MAX_NESTING}
    made = MarkdownIt("commonmark", options, renderer_cls=_Renderer).enable(["table", "strikethrough"])
    # Every link is shown with its address, so one that is refused must stay visible too.
    made.validateLink = lambda address: True  # type: ignore[method-assign]
    made.inline.ruler.at("entity", _entity)
    made.block.ruler.at("table", _table, {"alt": ["paragraph", "reference"]})
    made.core.ruler.push("directions", _directions)
    find_formulas(made)
    return made


def _entity(state: StateInline, silent: bool) -> bool:
    """`&#x202e;` is as invisible as the character itself."""
    found = entity(state, silent)
    if found and not silent and state.tokens and state.tokens[-1].type == "text_special":
        token = state.tokens[-1]
        token.content = state.env["stand_ins"].hide(token.content)
    return found


def _table(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
    """A table too large to be read as one stays the text it is."""
    if start_line + 1 >= end_line or start_line < state.env.get("no_table_before", 0):
        return False
    below = state.src[state.bMarks[start_line + 1] + state.tShift[start_line + 1] : state.eMarks[start_line + 1]]
    if "-" not in below or below.strip("|-: \t"):
        return False
    last = start_line
    while last < end_line and not state.isEmpty(last) and state.sCount[last] >= state.blkIndent:
        last += 1
    if (below.count("|") + 1) * (last - start_line) > MAX_CELLS:
        state.env["no_table_before"] = last
        return False
    return markdown_table(state, start_line, end_line, silent)


def _directions(state: StateCore) -> None:
    """Each block runs the way its own first letter does; alignment is a class, for the page's policy knows no styles."""
    for token in state.tokens:
        if token.type in _DIRECTED:
            token.attrSet("dir", "auto")
        if style := token.attrs.pop("style", ""):
            token.attrSet("class", str(style).replace("text-align:", "align-"))


# --- rendering ----------------------------------------------------------------------------------
class _Renderer(RendererHTML):
    def table_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return f'<div class="table-box" tabindex="0" role="group" aria-label="{escape(_("Table"))}"><table>\n'

    def table_close(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return "</table></div>\n"

    def formula(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        html = formula_html(tokens[idx].content, tokens[idx].markup, env)
        return f"<p>{html}</p>\n" if tokens[idx].block else html

    def fence(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return _code_block(tokens[idx].content, env["stand_ins"].hide(tokens[idx].info.strip()), env)

    def code_block(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return _code_block(tokens[idx].content, "", env)

    def image(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        token = tokens[idx]
        alt = "".join(_said(token.children or ()))
        source = str(token.attrGet("src") or "")
        if found := _IMAGE.fullmatch(source):
            image_id, width, height = found.groups()
            return (
                f'<img src="{reverse("images:show", args=[image_id])}" alt="{escape(alt)}" width="{width}" height="{height}" '
                'loading="lazy" decoding="async">'
            )
        address = env["stand_ins"].restore(source) + _title(token, env)
        return f'<span class="image-text">[{escape(_("image:"))} {escape(alt)}] {escape(address)}</span>'

    def link_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        address = env["stand_ins"].restore(str(tokens[idx].attrGet("href") or ""))
        env.setdefault("links", []).append((address, _title(tokens[idx], env), tokens[idx + 1 : idx + 3]))
        return f'<a href="{escape(address)}" target="_blank">' if LINK.match(address) else "<span>"

    def link_close(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        address, title, inside = env["links"].pop()
        end = "</a>" if LINK.match(address) else "</span>"
        said = inside[0].content if len(inside) == 2 and inside[1].type == "link_close" else None
        if not title and (said == address or f"mailto:{said}" == address):
            return end
        return f'{end} <span class="link-address">({escape(address)}{escape(title)})</span>'


def _said(tokens: Sequence[Token]) -> Iterator[str]:
    """The words of an image's alternative text, marks left out."""
    for token in tokens:
        if token.type in ("text", "text_special", "code_inline", "formula"):
            yield token.content
        elif token.type in ("softbreak", "hardbreak"):
            yield "\n"
        elif token.children:
            yield from _said(token.children)


def _title(token: Token, env: Any) -> str:
    title = env["stand_ins"].hide(str(token.attrGet("title") or ""))
    return f" “{title}”" if title else ""


def _code_block(text: str, info: str, env: Any) -> str:
    language = info.split(maxsplit=1)[0] if info else ""
    name = f"{_('Code')}, {language}" if language else _("Code")
    tools = env["stand_ins"].keep(
        f'<span class="code-tools"><button type="button" class="code-wrap" aria-pressed="false">{escape(_("Wrap"))}</button>'
        f'<button type="button" class="code-copy">{escape(_("Copy"))}</button></span>'
    )
    return (
        f'<div class="code"><div class="code-head"><span class="code-language">{escape(info)}</span>{tools}</div>'
        f'<pre dir="ltr" tabindex="0" role="group" aria-label="{escape(name)}"><code>{_code(text, language, env)}</code></pre></div>\n'
    )


def _code(text: str, language: str, env: Any) -> str:
    left = env.get("highlight_left", MAX_HIGHLIGHTED)
    is_calm = (
        len(text) <= left and all(len(line) <= MAX_CODE_LINE for line in text.split("\n")) and not has_stand_in(text)
    )
    language = STANDS_IN.get(language.lower(), language.lower())
    if is_calm and language in LANGUAGES:
        env["highlight_left"] = left - len(text)
        try:
            return highlight(text, get_lexer_by_name(language, stripnl=False), _FORMATTER)
        except ClassNotFound:
            pass
    return escape(text)
