r"""LaTeX in a text, as MathML: `$…$`, `\(…\)`, and set apart `$$…$$`, `\[…\]`.

The converter is a third party's and was not written for hostile input, so nothing it makes is taken as it is: the
formula is bounded before, and its tree is written out here element by element. What can't be shown, or would hide or
move text, or is no formula after all, stays as its source.
"""

import re
import unicodedata
from functools import lru_cache
from xml.etree.ElementTree import Element

from django.utils.html import escape
from django.utils.translation import gettext as _
from latex2mathml.converter import convert_to_element
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline

from labeling.web.markdown.allowlist import ATTRIBUTES, MATHML
from labeling.web.markdown.invisible import INVISIBLE, has_stand_in

MAX_FORMULA = 2_000  # characters
MAX_FORMULAS = 400  # of one text, those beyond stay as their source
MAX_IN_ALL = 12_000  # characters
MAX_DEPTH = 24
MAX_ELEMENTS = 4_000
MAX_MATRIX_CELLS = 400
LONG_FORMULA = 30
_TRIES = 4  # how many dollars are looked at as the end of one formula

CLOSERS = {"$$": "$$", "$": "$", r"\(": r"\)", r"\[": r"\]"}
# They define, load, address, style, hide or draw over text. None is needed to write mathematics.
_REFUSED = re.compile(
    r"\\(?:(?:re)?new(?:command|environment)|providecommand|[egx]?def|let|DeclareMathOperator|require|input|include\w*|href|url"
    r"|class|style|cssId|html\w*|data|unicode|char|special|write|[hv]?phantom|(?:text|f)?color(?:box)?|rule|raise|lower"
    r"|moveleft|moveright|[rlc]lap|smash|verb|kern|mkern|hskip|mskip|hspace|mspace|catcode|csname|expandafter)(?![a-zA-Z])"
)
_NUMBERED = re.compile(r"&#x([0-9A-Fa-f]{1,6});")
_UPRIGHT = re.compile(r"\\mathrm\s*\{([a-zA-Z])\}")
_WORD = re.compile(r"(?:^|[\s(])[^\W\d_]{2,}(?:[\s).,;:!?]|$)")
_COMMAND = re.compile(r"\\[a-zA-Z]+|\{[^{}]*\}")


class BadFormula(Exception):
    pass


# --- finding them -------------------------------------------------------------------------------
def find_formulas(parser: MarkdownIt) -> None:
    parser.inline.ruler.before("escape", "formula", _inline)
    parser.block.ruler.before("fence", "formula", _block, {"alt": ["paragraph", "reference", "blockquote", "list"]})


def _inline(state: StateInline, silent: bool) -> bool:
    opener = _opener_at(state.src, state.pos)
    if not opener:
        return False
    begin = state.pos + len(opener)
    limit = min(state.posMax, begin + MAX_FORMULA)
    end = (
        _end_of_dollars(state.src, state.pos, limit) if opener == "$" else state.src.find(CLOSERS[opener], begin, limit)
    )
    if end < 0 or not state.src[begin:end].strip():
        return False
    if not silent:
        token = state.push("formula", "math", 0)
        token.content, token.markup = state.src[begin:end], opener
    state.pos = end + len(opener)
    return True


def _opener_at(src: str, pos: int) -> str:
    two = src[pos : pos + 2]
    return two if two in CLOSERS else "$" if two[:1] == "$" else ""


def _end_of_dollars(src: str, pos: int, limit: int) -> int:
    """Where the formula that opens at `pos` ends, or -1: a dollar is more often money."""
    if (pos and (src[pos - 1].isalnum() or src[pos - 1] == "$")) or src[pos + 1 : pos + 2].isspace():
        return -1
    end = pos
    for _candidate in range(_TRIES):
        end = src.find("$", end + 1, limit)
        if end < 0:
            return -1
        after = src[end + 1 : end + 2]
        if src[end - 1].isspace() or src[end - 1] == "\\" or after.isalnum() or after in ("{", "$", "("):
            continue
        content = src[pos + 1 : end]
        if content[:1].isdigit() and _WORD.search(_COMMAND.sub(" ", content)):
            return -1
        return end
    return -1


def _block(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
    r"""A formula set apart on lines of its own, which may hold what would otherwise be lists and headings."""
    begin = state.bMarks[start_line] + state.tShift[start_line]
    opener = state.src[begin : begin + 2]
    if opener not in ("$$", r"\[") or state.is_code_block(start_line):
        return False
    close = state.src.find(CLOSERS[opener], begin + 2, begin + 2 + MAX_FORMULA)
    if close < 0 or state.src[close + 2 : _end_of_line(state.src, close)].strip():
        return False
    line = start_line
    while line < end_line and state.eMarks[line] < close:
        line += 1
        if line >= end_line or (state.sCount[line] < state.blkIndent and not state.isEmpty(line)):
            return False
    if silent:
        return True
    content = state.getLines(start_line, line + 1, state.blkIndent, False).strip()
    content = content.removeprefix(opener).rstrip().removesuffix(CLOSERS[opener])
    if not content.strip():
        return False
    token = state.push("formula", "math", 0)
    token.content, token.markup, token.block, token.map = content, opener, True, [start_line, line + 1]
    state.line = line + 1
    return True


def _end_of_line(src: str, pos: int) -> int:
    end = src.find("\n", pos)
    return len(src) if end < 0 else end


# --- showing them -------------------------------------------------------------------------------
def formula_html(content: str, opener: str, env: dict) -> str:
    """The formula, or its source with the signs it stood between."""
    spent = env.setdefault("formulas", [0, 0])
    spent[0] += 1
    spent[1] += len(content)
    apart = opener in ("$$", r"\[")
    source = f"{opener}{content}{CLOSERS[opener]}"
    try:
        if spent[0] > MAX_FORMULAS or spent[1] > MAX_IN_ALL:
            raise BadFormula("too many")
        shown = mathml(content.strip(), "block" if apart else "inline")
    except BadFormula as error:
        return f'<code class="formula-source" title="LaTeX: {escape(error)}">{escape(source)}</code>'
    if not apart:
        return shown
    # What may be wider than its card scrolls, so it must be reached by keyboard.
    reach = f' tabindex="0" role="group" aria-label="{escape(_("Formula"))}"' if len(content) > LONG_FORMULA else ""
    return f'<span class="formula-block"{reach}>{shown}</span>'


@lru_cache(maxsize=1024)
def mathml(latex: str, display: str) -> str:
    """One `<math>` element. Raises BadFormula."""
    if len(latex) > MAX_FORMULA:
        raise BadFormula("too long")
    if has_stand_in(latex):
        raise BadFormula("an invisible character")
    if found := _REFUSED.search(latex):
        raise BadFormula(f"{found[0]} is not shown here")
    braces = re.sub(r"\\.", "", latex, flags=re.DOTALL)
    if braces.count("{") != braces.count("}"):
        raise BadFormula("braces that do not match")
    if _depth(latex) > MAX_DEPTH:
        raise BadFormula("nested too deep")
    if latex.count("&") + latex.count(r"\\") > MAX_MATRIX_CELLS:
        raise BadFormula("too large")
    try:
        # The converter makes italics of a single upright letter.
        tree = convert_to_element(_UPRIGHT.sub(r"\\text{\1}", latex), display=display)
    except RecursionError:
        raise BadFormula("nested too deep") from None
    except Exception as error:  # the converter raises what its parts raise: IndexError, KeyError, StopIteration, ...
        raise BadFormula(_words(type(error).__name__)) from None
    if len(list(tree.iter())) > MAX_ELEMENTS:
        raise BadFormula("too large")
    inside = "".join(_written(child, 0) for child in tree)
    return f'<math display="{display}" alttext="{escape(latex)}">{inside}</math>'


def _depth(latex: str) -> int:
    """Of anything that makes the converter call itself: braces, environments, brackets, scripts in a row."""
    depth = deepest = 0
    for sign in re.findall(r"\\begin|\\left|\\end|\\right|\\\\|\\[{}]|[{}]", latex):
        if sign in ("{", r"\begin", r"\left"):
            depth += 1
            deepest = max(deepest, depth)
        elif sign in ("}", r"\end", r"\right"):
            depth -= 1
    chain = max((len(run) for run in re.findall(r"(?:\\[a-zA-Z]+\s*|[_^]){2,}", latex)), default=0)
    return max(deepest, chain // 20)


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.removesuffix("Error")).lower()


def _written(element: Element, depth: int) -> str:
    if depth > 4 * MAX_DEPTH:
        raise BadFormula("nested too deep")
    tag = {"mpadded": "mrow", "mphantom": "", "menclose": "mrow"}.get(element.tag, element.tag)
    if tag not in MATHML:
        raise BadFormula(f"{element.tag} is not shown here")
    text = _NUMBERED.sub(_numbered, element.text or "")
    # The converter goes by blocks of Unicode, which makes a sign of infinity and a letter of plus-minus.
    if tag == "mo" and text in ("∞", "∅"):
        tag = "mi"
    elif tag == "mi" and len(text) == 1 and text not in ("∞", "∅") and unicodedata.category(text) == "Sm":
        tag = "mo"
    attributes = dict(element.attrib)
    variant = attributes.pop("mathvariant", "")
    if tag == "mtd" and (side := attributes.pop("columnalign", "")) in ("left", "right"):
        attributes["class"] = f"align-{side}"
    if variant == "normal" and tag == "mi":
        attributes["mathvariant"] = variant
    allowed = ATTRIBUTES.get(tag, set())
    written = "".join(f' {name}="{escape(value)}"' for name, value in attributes.items() if name in allowed)
    if INVISIBLE.search(text):
        raise BadFormula("an invisible character")
    if variant and variant != "normal":
        text = "".join(_lettered(char, variant) for char in text)
    return f"<{tag}{written}>{escape(text)}{''.join(_written(child, depth + 1) for child in element)}</{tag}>"


def _numbered(found: re.Match[str]) -> str:
    code = int(found[1], 16)
    return chr(code) if code < 0x110000 else "\ufffd"


_STYLES = {
    "bold": ("BOLD",), "italic": ("ITALIC",), "bold-italic": ("BOLD ITALIC",), "double-struck": ("DOUBLE-STRUCK",),
    "script": ("SCRIPT",), "bold-script": ("BOLD SCRIPT",), "fraktur": ("FRAKTUR", "BLACK-LETTER"),
    "bold-fraktur": ("BOLD FRAKTUR",), "sans-serif": ("SANS-SERIF",), "monospace": ("MONOSPACE",),
    "sans-serif-italic": ("SANS-SERIF ITALIC",), "bold-sans-serif": ("SANS-SERIF BOLD",),
    "sans-serif-bold-italic": ("SANS-SERIF BOLD ITALIC",),
}  # fmt: skip


@lru_cache(maxsize=512)
def _lettered(char: str, variant: str) -> str:
    """The letter in a mathematical alphabet: browsers draw that everywhere, and `mathvariant` only in some."""
    name = unicodedata.name(char, "")
    plain = re.fullmatch(r"(?:LATIN|GREEK) (CAPITAL|SMALL) LETTER (\w+)|(DIGIT) (\w+)", name)
    if not plain:
        return char
    letter = " ".join(filter(None, plain.groups()))
    for style in _STYLES.get(variant, ()):
        for full in (f"MATHEMATICAL {style} {letter}", f"{style} {letter}"):
            try:
                return unicodedata.lookup(full)
            except KeyError:
                continue
    return char
