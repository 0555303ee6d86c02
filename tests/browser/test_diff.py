"""The word diff by its properties, in the browser that runs it."""

import pytest

from tests import factories

ALPHABET = [
    "the", "cat", " ", "  ", "\n", "\r\n", "\t", "don't", "x1", ".", ",", "—", "(", "日本語の文章", "です", "。", "ภาษาไทย", "한국어", "שלום", "مرحبا",
    "👩‍💻", "👩‍🔬", "👍🏽", "🇩🇪", "🇫🇷", "e\u0301", "\u0301", "\u200b", "\u202e", "𝒳", "<b>", "&",
]  # fmt: skip

PROPERTIES = """async ([alphabet, rounds]) => {
  const { wordDiff } = await import("diff");
  let state = 20240501;
  const below = (n) => { // mulberry32
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 4294967296) * n);
  };
  const letters = [...alphabet, "\\ud83d", "\\udc00"]; // halves of pairs too
  const text = (n) => Array.from({ length: n }, () => letters[below(letters.length)]).join(below(2) ? "" : " ");
  const edited = (before) => {
    let after = before;
    for (let n = below(6); n > 0; n -= 1) {
      const at = below(after.length + 1);
      after = after.slice(0, at) + (below(2) ? text(below(4)) : "") + after.slice(at + below(12));
    }
    return after;
  };
  const joined = (parts, kind) => parts.filter((part) => part.kind === "same" || part.kind === kind).map((part) => part.text).join("");
  for (let round = 0; round < rounds; round += 1) {
    const before = text(below(50));
    const after = below(8) ? edited(before) : text(below(50));
    const parts = wordDiff(before, after);
    const wrong = joined(parts, "removed") !== before || joined(parts, "added") !== after
      || parts.some((part, index) => !part.text || part.kind === parts[index - 1]?.kind)
      || (before === after && parts.some((part) => part.kind !== "same"));
    if (wrong) return { round, before, after, parts };
  }
  return null;
}"""

LARGE = """async (how) => {
  const { wordDiff } = await import("diff");
  let state = 7;
  const below = (n) => { state = (Math.imul(state, 48271) >>> 0) % 2147483647; return state % n; };
  const words = Array.from({ length: 3000 }, (_, index) => `w${index.toString(36)}`);
  const some = (length) => {
    let text = "";
    while (text.length < length) text += words[below(3000)] + (below(12) ? " " : ".\\n");
    return text;
  };
  const before = some(100000);
  let after = before;
  if (how === "other") after = some(100000);
  else if (how === "reversed") after = before.split(" ").reverse().join(" ");
  else if (how === "one word") after = "x".repeat(100000);
  else for (let n = 0; n < Number(how); n += 1) {
    const at = below(after.length);
    after = `${after.slice(0, at)}${words[below(3000)]} ${after.slice(at + below(20))}`;
  }
  const parts = wordDiff(before, after);
  const joined = (kind) => parts.filter((part) => part.kind === "same" || part.kind === kind).map((part) => part.text).join("");
  const same = parts.filter((part) => part.kind === "same").reduce((sum, part) => sum + part.text.length, 0);
  return [joined("removed") === before && joined("added") === after, parts.length, same / before.length];
}"""


@pytest.fixture
def page(site, open_page):
    return open_page(factories.make_user("annotator"), "/")


def diff(page, before: str, after: str) -> list[tuple[str, str]]:
    parts = page.evaluate("async ([before, after]) => (await import('diff')).wordDiff(before, after)", [before, after])
    signs = {"same": "=", "removed": "-", "added": "+"}
    return [(signs[part["kind"]], part["text"]) for part in parts]


def test_both_texts_can_be_put_together_again_whatever_was_edited(page):
    assert page.evaluate(PROPERTIES, [ALPHABET, 6000]) is None


def test_words_are_what_is_compared(page):
    assert diff(page, "The quick brown fox jumps.", "The slow brown cat jumps!") == [
        ("=", "The "), ("-", "quick"), ("+", "slow"), ("=", " brown "), ("-", "fox"), ("+", "cat"), ("=", " jumps"), ("-", "."), ("+", "!"),
    ]  # fmt: skip
    assert diff(page, "", "all new") == [("+", "all new")]
    assert diff(page, "gone", "") == [("-", "gone")]
    assert diff(page, "", "") == []
    # Words replaced one after the other are one replacement.
    assert diff(page, "it was red hot there", "it was ice cold there") == [
        ("=", "it was "), ("-", "red hot"), ("+", "ice cold"), ("=", " there"),
    ]  # fmt: skip


def test_emoji_accents_and_scripts_without_spaces_are_not_torn_apart(page):
    assert diff(page, "hi 👩‍💻 there", "hi 👩‍🔬 there") == [("=", "hi "), ("-", "👩‍💻"), ("+", "👩‍🔬"), ("=", " there")]
    assert diff(page, "🇩🇪", "🇩🇰") == [("-", "🇩🇪"), ("+", "🇩🇰")]
    assert diff(page, "un cafe\u0301 noir", "un cafe noir") == [
        ("=", "un "),
        ("-", "cafe\u0301"),
        ("+", "cafe"),
        ("=", " noir"),
    ]
    assert diff(page, "我喜欢吃苹果和香蕉。", "我喜欢吃橙子和香蕉。") == [
        ("=", "我喜欢吃"),
        ("-", "苹果"),
        ("+", "橙子"),
        ("=", "和香蕉。"),
    ]
    assert diff(page, "שלום עולם טוב", "שלום עולם רע") == [("=", "שלום עולם "), ("-", "טוב"), ("+", "רע")]


@pytest.mark.parametrize(
    ("how", "least_same"),
    [("1", 0.99), ("20", 0.99), ("300", 0.9), ("2000", 0.5), ("other", 0), ("reversed", 0), ("one word", 0)],
)
def test_large_texts_are_compared_in_bounded_steps_and_still_to_the_letter(page, how, least_same):
    is_exact, n_parts, same = page.evaluate(LARGE, how)
    assert is_exact
    assert same >= least_same, (n_parts, same)


def test_words_are_counted_as_readers_do(page):
    count = "async (text) => (await import('diff')).countWords(text)"
    assert page.evaluate(count, "Dear you 😀, it's 3.5 — done!") == 5
    assert page.evaluate(count, "") == 0
    assert page.evaluate(count, "我喜欢吃苹果") >= 3
    assert page.evaluate(count, "x" * 100_000) >= 1
