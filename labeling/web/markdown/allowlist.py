"""The second lock: what may stand in a rendered text, whatever the parser made of it."""

import re
from collections.abc import Callable

import nh3

MATHML = {
    "math", "mfrac", "mi", "mmultiscripts", "mn", "mo", "mover", "mprescripts", "mroot", "mrow", "mspace", "msqrt", "mstyle",
    "msub", "msubsup", "msup", "mtable", "mtd", "mtext", "mtr", "munder", "munderover",
}  # fmt: skip
TAGS = {
    "a", "blockquote", "br", "code", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "img", "li", "ol", "p", "pre", "s",
    "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
} | MATHML  # fmt: skip
ATTRIBUTES = {
    "a": {"href", "target"},
    "ol": {"dir", "start"},
    "span": {"class", "title", "tabindex", "role", "aria-label"},
    "div": {"class", "tabindex", "role", "aria-label"},
    "pre": {"dir", "tabindex", "role", "aria-label"},
    "code": {"class", "title"},
    "img": {"src", "alt", "width", "height", "loading", "decoding"},
    "math": {"display", "alttext"},
    "mi": {"mathvariant"},
    "mo": {"accent", "fence", "form", "largeop", "maxsize", "minsize", "movablelimits", "stretchy"},
    "mover": {"accent"},
    "munder": {"accentunder"},
    "mfrac": {"linethickness"},
    "mspace": {"width"},
    "mstyle": {"displaystyle", "scriptlevel"},
    "mtd": {"class"},
    "td": {"class", "dir"},
    "th": {"class", "dir"},
    **{tag: {"dir"} for tag in ("blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "li", "p", "ul")},
}

LINK = re.compile(r"(?:https?://|mailto:)", re.IGNORECASE)
IMAGE_ADDRESS = re.compile(r"(?:/[\w-]+)*/images/[0-9a-f]{32}/")
_CLASS = re.compile(
    r"[a-z][a-z0-9]{0,2}|link-address|image-text|invisible-char|plain|definitions|formula-source|formula-block"
    r"|code|code-head|code-language|table-box|align-(?:left|right|center)"
)
_LENGTH = re.compile(r"-?(?:0|[0-2]?(?:\.\d{1,4})?)em|0")
_VALUES = {
    "dir": re.compile("auto|ltr"),
    "tabindex": re.compile("0"),
    "role": re.compile("group"),
    "target": re.compile("_blank"),
    "src": IMAGE_ADDRESS,
    "loading": re.compile("lazy"),
    "decoding": re.compile("async"),
    "display": re.compile("block|inline"),
    "mathvariant": re.compile("normal"),
    "form": re.compile("prefix|infix|postfix"),
    "maxsize": re.compile(r"[1-3](?:\.\d{1,3})?em"),
    "minsize": re.compile(r"[1-3](?:\.\d{1,3})?em"),
    "linethickness": re.compile("0|0px|0em"),
    "scriptlevel": re.compile("[0-2]"),
    "start": re.compile(r"\d{1,9}"),
} | dict.fromkeys(
    ("accent", "accentunder", "displaystyle", "fence", "largeop", "movablelimits", "stretchy"), re.compile("true|false")
)  # fmt: skip


def clean(html: str, *, spell: Callable[[str], str]) -> str:
    """Only what stands in the lists above; `spell` writes out the stand-ins that are left in attributes."""

    def keep(tag: str, attribute: str, value: str) -> str | None:
        if attribute == "class":
            return " ".join(name for name in value.split() if _CLASS.fullmatch(name)) or None
        if attribute == "href":
            return value if LINK.match(value) else None
        if attribute in ("width", "height"):
            wanted = _LENGTH if tag == "mspace" else re.compile(r"[1-9]\d{0,4}")
            return value if wanted.fullmatch(value) else None
        if attribute in _VALUES:
            return value if _VALUES[attribute].fullmatch(value) else None
        return spell(value)

    return nh3.clean(
        html,
        tags=TAGS,
        attributes=ATTRIBUTES,
        attribute_filter=keep,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        strip_comments=True,
    )
