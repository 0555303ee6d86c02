"""Marks on passages: by keys alone, by mouse and by finger, with places that are right to the code point."""

import json
import urllib.request

import pytest
from playwright.sync_api import Locator, Page, expect

from labeling.accounts.roles import Role
from labeling.annotation.models import Judgement, Lease
from labeling.annotation.services import create_tasks_for_prompts
from labeling.imports.services import import_rows
from labeling.projects.models import Completion
from labeling.projects.services import change_project
from labeling.projects.text import canonical_json
from tests import factories
from tests.browser.resting import at_rest
from tests.browser.test_bench import keys, saved

BENCH = "/projects/support/bench/"
LABELS = ["wrong fact", "unsafe", "rude"]
EVERY_WORD = """() => {
  const words = [];
  const source = JSON.parse(document.querySelector("[data-source] script").textContent);
  return import("passages").then(({ CodePoints, Words }) => {
    const [points, stops] = [new CodePoints(source), new Words(source)];
    for (let stop = stops.at(0); stop; stop = stops.after(stop)) {
      words.push([points.toPoints(stop[0]), points.toPoints(stop[1]), source.slice(...stop)]);
    }
    return words;
  });
}"""


@pytest.fixture
def annotator(site):
    return factories.make_user("annotator")


@pytest.fixture
def project(site, annotator):
    project = factories.make_project(factories.make_user("lead"), members={annotator: Role.ANNOTATOR})
    change_project(project=project, form={"ranking": False, "rationale": "off", "marks": LABELS})
    return project


def add(project, *texts: str) -> None:
    row = {"prompt": f"Where is my parcel? {len(texts[0])}", "completions": [{"content": text} for text in texts]}
    import_rows(project=project, format="completions", lines=[canonical_json(row).encode()], created_by=None)
    create_tasks_for_prompts(project=project, completions_per_task=len(texts))


def marks(page: Page, key: str = "a") -> list[dict]:
    return json.loads(page.locator(f"[name='marks.{key}']").input_value() or "[]")


def quotes(page: Page) -> list[list[str]]:
    """What each mark covers, as Python counts, beside its label."""
    content = Completion.objects.get().content
    return [[mark["label"], content[mark["start"] : mark["end"]]] for mark in marks(page)]


def text_view(page: Page) -> Locator:
    return page.locator("[data-marks-text]")


def selected(page: Page) -> str:
    return page.evaluate("getSelection().toString()")


def box_of(page: Page, selector: str, words: str, *, last: bool = False) -> dict:
    """Where these words stand on the page."""
    return page.evaluate(
        """([selector, words, last]) => {
          const walker = document.createTreeWalker(document.querySelector(selector), NodeFilter.SHOW_TEXT);
          let found = null;
          while (walker.nextNode()) {
            const node = walker.currentNode;
            const at = last ? node.data.lastIndexOf(words) : node.data.indexOf(words);
            if (at < 0) continue;
            const range = document.createRange();
            range.setStart(node, at);
            range.setEnd(node, at + words.length);
            found = range.getBoundingClientRect().toJSON();
            if (!last) break;
          }
          return found;
        }""",
        [selector, words, last],
    )


def drag_over(page: Page, selector: str, words: str, **options) -> None:
    box = at_rest(page, lambda: box_of(page, selector, words, **options))
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 1, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.move(box["x"] + box["width"] + 1, middle)
    page.mouse.up()


def underlined(page: Page, style: int) -> str:
    """What the browser's highlight of this style covers in the rendered text, once it does."""
    return page.evaluate(
        """(name) => new Promise((done) => {
          const look = () => {
            const [range] = CSS.highlights.get(name);
            if (range) done(range.toString());
            else requestAnimationFrame(look);
          };
          look();
        })""",
        f"mark-style-{style}",
    )


def from_rest(site, project) -> list[dict]:
    token = factories.token_for(project.created_by)
    request = urllib.request.Request(
        site.url(f"/api/v1/projects/{project.slug}/judgements/"), headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return [row["judgement"] for row in json.load(answer)["results"]]


# --- by keys --------------------------------------------------------------------------------------
def test_marks_made_by_keys_survive_a_reload_and_come_back_over_rest(site, project, annotator, open_page):
    text = "Great 😀👩‍💻 news:\r\nשלום עולם טוב\r\nthe cafe\u0301 is \u202e open."
    add(project, text)
    add(project, "Another one")
    page = open_page(annotator, BENCH)
    keys(page, "a", "m")
    expect(text_view(page)).to_be_focused()
    assert selected(page) == "Great"
    keys(page, "ArrowRight")
    assert selected(page) == "😀👩‍💻"
    keys(page, "1", "ArrowDown")
    # In a line from right to left, the next word is on the left.
    keys(page, "Home", "Shift+ArrowLeft", "3", "ArrowDown", "End", "ArrowLeft", "ArrowLeft", "ArrowLeft")
    assert selected(page) == "cafe\u0301"
    keys(page, "2", "Enter")
    page.keyboard.type("1 closed since 2019, rude too")
    keys(page, "Enter")
    expect(text_view(page)).to_be_focused()
    wanted = [
        {"start": 6, "end": 10, "label": "wrong fact"},
        {"start": 18, "end": 27, "label": "rude"},
        {"start": 37, "end": 42, "label": "unsafe", "comment": "1 closed since 2019, rude too"},
    ]
    assert [text[mark["start"] : mark["end"]] for mark in wanted] == ["😀👩‍💻", "שלום עולם", "cafe\u0301"]
    assert marks(page) == wanted
    saved(page)

    page.reload()
    assert marks(page) == wanted
    expect(page.locator(".mark-item")).to_have_count(3)
    expect(page.locator(".mark-comment")).to_have_text("1 closed since 2019, rude too")
    keys(page, "a", "m", "Escape", "Enter")
    expect(page.locator("[data-card-text]")).to_have_text("Another one")
    saved(page)
    assert [judgement["marks"] for judgement in from_rest(site, project)] == [{"a": wanted}]

    keys(page, "u")
    page.wait_for_url(f"**/history/{Judgement.objects.get().pk}/")
    assert marks(page) == wanted
    keys(page, "a", "m", "n", "n", "n")
    assert selected(page) == "cafe\u0301"
    keys(page, "Delete", "Escape", "Enter")
    page.wait_for_url(f"**{BENCH}")
    assert [judgement["marks"] for judgement in from_rest(site, project)] == [{"a": wanted[:2]}]


def test_a_selection_grows_by_words_and_by_letters(project, annotator, open_page):
    add(project, "One two-and-a-half, three and four.\nFive 👩‍💻👍🏽 six")
    page = open_page(annotator, BENCH)
    keys(page, "a", "m", "ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight")
    assert selected(page) == "two-and-a"
    keys(page, "Shift+ArrowLeft")
    assert selected(page) == "two-and"
    keys(page, "Shift+ArrowLeft", "Shift+ArrowLeft")
    assert selected(page) == "One two"
    keys(page, "Shift+ArrowRight")
    assert selected(page) == "two"
    keys(page, "]", "]", "[", "{")
    assert selected(page) == " two-"
    keys(page, "}", "-", "-", "+", "1")
    assert quotes(page) == [["wrong fact", "two"]]
    keys(page, "Shift+End", "2")
    assert quotes(page)[-1] == ["unsafe", "two-and-a-half, three and four"]
    # A character is what one sees as one.
    keys(page, "ArrowDown", "Home", "]", "]", "3")
    assert quotes(page)[-1] == ["rude", "Five 👩‍💻"]


def test_marks_overlap_and_are_gone_through_removed_and_brought_back(project, annotator, open_page):
    add(project, "alpha beta gamma delta epsilon")
    page = open_page(annotator, BENCH)
    keys(
        page,
        "a",
        "m",
        "Shift+ArrowRight",
        "Shift+ArrowRight",
        "1",
        "ArrowLeft",
        "Shift+ArrowRight",
        "Shift+ArrowRight",
        "2",
    )
    assert quotes(page) == [["wrong fact", "alpha beta gamma"], ["unsafe", "beta gamma delta"]]
    # Where both lie there are both lines, and the initials stand where each begins.
    both = page.locator(".source-mark.mark-style-0 .source-mark.mark-style-1")
    expect(both).to_have_text("beta gamma")
    lanes = page.locator(".source-mark").evaluate_all(
        "all => new Set(all.map((one) => getComputedStyle(one).textUnderlineOffset)).size"
    )
    assert lanes == 2
    assert [
        tag for tag in page.locator(".source-mark").evaluate_all("all => all.map((one) => one.dataset.tag)") if tag
    ] == ["WF", "UN"]
    keys(page, "n")
    assert selected(page) == "alpha beta gamma"
    expect(page.locator("[data-announce]")).to_have_text("wrong fact: “alpha beta gamma”")
    keys(page, "Tab")
    assert selected(page) == "beta gamma delta"
    keys(page, "Backspace")
    assert quotes(page) == [["wrong fact", "alpha beta gamma"]]
    keys(page, "u")
    assert quotes(page) == [["wrong fact", "alpha beta gamma"], ["unsafe", "beta gamma delta"]]
    # The same label on the same words takes it off.
    keys(page, "p", "1")
    keys(page, "End", "3", "3")
    assert quotes(page) == [["unsafe", "beta gamma delta"]]


def test_while_marking_the_keys_of_the_bench_sleep_and_escape_gives_them_back(project, annotator, open_page):
    change_project(project=project, form={"marks": LABELS})
    add(project, "first text here", "second text here", "third text here")
    page = open_page(annotator, BENCH)
    keys(page, "b", "m")
    expect(page.locator("[data-card=b] [data-card-text]")).to_be_hidden()
    keys(page, "s", "w", "q", "c", "2", "Enter")
    page.keyboard.type("a 1, b 2, no ranks")
    keys(page, "Escape")
    assert [page.locator(f"[name='rank.{key}']").input_value() for key in "abc"] == ["", "", ""]
    assert [mark["label"] for mark in marks(page, "b")] == ["unsafe"]
    assert "comment" not in marks(page, "b")[0]  # Escape put the old words back
    keys(page, "Escape")
    expect(page.locator("[data-card=b]")).to_be_focused()
    expect(page.locator("[data-card=b] [data-card-text]")).to_be_visible()
    keys(page, "2")
    assert page.locator("[name='rank.b']").input_value() == "2"
    # One card at a time, and only as long as the focus is there.
    keys(page, "a", "m")
    page.locator("[data-rationale-field]").click()
    expect(text_view(page)).to_have_count(0)
    page.keyboard.type("12")
    assert marks(page, "a") == []


def test_more_than_nine_labels_are_reached_by_turning_the_page(project, annotator, open_page):
    names = [f"label number {number}" for number in range(1, 13)]
    change_project(project=project, form={**project.form, "marks": names})
    add(project, "some words to be marked")
    page = open_page(annotator, BENCH)
    keys(page, "a", "m", "9", "ArrowRight", "0", "3", "ArrowRight", "0", "1")
    assert [label for label, _ in quotes(page)] == [names[8], names[11], names[0]]


@pytest.mark.parametrize(
    "text",
    [
        "plain words, a comma; it's 3.5 — done!",
        "😀 a𝒳b 👩‍👩‍👧 🇩🇪🇫🇷 end",
        "Windows\r\nlines\r\n\r\nand\rold ones\n\ttabs",
        "e\u0301 n\u0303o Z\u0301\u0302\u0303\u0304\u0305\u0306\u0307\u0308 ok",
        "a\u202eb \u200bc\u200d d\ufeffe \u2066f\u2069 \x07 \U000e0041g",
        "日本語の文章です。ภาษาไทยง่าย 한국어",
        "مرحبا بالعالم، سعر 12 ألف שלום",
        "<b>bold</b> <script>alert(1)</script> &amp; <img src=x onerror=alert(1)>",
        "**bold** `code` | a | b |\n|--|--|\n$x^2$ [link](https://example.org)",
        "x" * 300,
    ],
)
def test_every_stop_of_the_caret_is_the_same_passage_in_python(project, annotator, open_page, text):
    add(project, text)
    content = Completion.objects.get().content
    page = open_page(annotator, BENCH)
    words = page.evaluate(EVERY_WORD)
    assert all(content[start:end] == quote for start, end, quote in words)
    keys(page, "a", "m", "Shift+PageDown", "Shift+PageDown", "Shift+End", "1")
    first, last = words[0], words[-1]
    assert marks(page) == [{"start": first[0], "end": last[1], "label": "wrong fact"}]
    # The view holds nothing but text, and named characters.
    names = page.locator("[data-marks-text] *").evaluate_all("all => [...new Set(all.map((one) => one.localName))]")
    assert set(names) <= {"div", "span"}
    keys(page, "Escape")
    page.reload()
    keys(page, "a", "m", "n")
    assert page.locator("[data-announce]").inner_text().startswith("wrong fact: “")
    keys(page, "Enter", "x", "Enter")
    assert marks(page) == [{"start": first[0], "end": last[1], "label": "wrong fact", "comment": "x"}]


def test_a_text_of_100_000_characters_is_marked_to_its_last_word(site, project, annotator, open_page):
    text = (
        "\n".join(f"Line {number} says 😀 that {number} is a number." for number in range(2500))[:99_990] + " last word"
    )
    add(project, text)
    page = open_page(annotator, BENCH)
    keys(page, "a", "m", "ArrowRight", "1", "PageDown", "PageDown", "End")
    assert selected(page) == "number"
    assert page.locator("[data-marks-text] *").count() < 400  # blocks of lines, not words
    keys(page, "Control+End")
    assert selected(page) == "word"
    view, caret = text_view(page).bounding_box(), box_of(page, "[data-marks-text]", "last word", last=True)
    assert view["y"] <= caret["y"] and caret["y"] + caret["height"] <= view["y"] + view["height"]
    keys(page, "Shift+ArrowLeft", "2")
    content = Completion.objects.get().content
    assert [content[mark["start"] : mark["end"]] for mark in marks(page)] == ["0", "last word"]
    assert marks(page)[-1]["end"] == len(content)


# --- by mouse and finger --------------------------------------------------------------------------
def test_words_dragged_over_in_the_source_get_a_menu_of_labels(project, annotator, open_page):
    add(project, "The parcel **left on Monday** and came open.")
    page = open_page(annotator, BENCH)
    page.locator("[data-mark]").click()
    drag_over(page, "[data-marks-text]", "**left on Monday**")
    page.locator("[data-marks-menu] button", has_text="rude").click()
    assert quotes(page) == [["rude", "**left on Monday**"]]
    expect(page.locator("[data-marks-menu]")).to_have_count(0)
    page.locator(".mark-tool", has_text="comment").click()
    page.keyboard.type("not on Monday")
    page.locator(".marks-done").click()
    assert marks(page)[0]["comment"] == "not on Monday"
    page.locator(".mark-tool", has_text="remove").click()
    assert marks(page) == []


def test_words_selected_in_the_rendered_text_are_found_in_the_source(project, annotator, open_page):
    add(project, "One **bold** claim, two\nclaims.\n\nAnother claim, and a claim again, said *she*.")
    page = open_page(annotator, BENCH)
    drag_over(page, "[data-card-text]", "Another")
    page.locator("[data-marks-menu] button", has_text="unsafe").click()
    assert quotes(page) == [["unsafe", "Another"]]
    expect(text_view(page)).to_have_count(0)
    # It is underlined there.
    assert underlined(page, 1) == "Another"
    # "claim" stands there more than once, so the source text comes up, at the one that was meant.
    drag_over(page, "[data-card-text]", "claim", last=True)
    page.locator("[data-marks-menu] button", has_text="mark it in the source text").click()
    expect(text_view(page)).to_be_focused()
    keys(page, "1", "Escape")
    content = Completion.objects.get().content
    assert [mark["start"] for mark in marks(page)] == [content.index("Another"), content.rindex("claim")]
    underlined(page, 0)
    # A press on the list shows it.
    page.locator(".mark-show").first.click()
    assert selected(page) == "Another"


def test_marks_through_markup_are_shown_in_the_rendered_text(project, annotator, open_page):
    add(project, "One **bold** claim.")
    page = open_page(annotator, BENCH)
    keys(page, "a", "m", "Shift+End", "1", "Escape")
    assert quotes(page) == [["wrong fact", "One **bold** claim"]]
    assert underlined(page, 0) == "One bold claim"


def test_a_phone_marks_by_two_taps(site, project, annotator, open_page):
    add(project, "The parcel left on Monday 😀 and came open. " * 6)
    page = open_page(annotator, BENCH, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.locator("[data-mark]").tap()
    box = box_of(page, "[data-marks-text]", "parcel")
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    button = page.locator("[data-marks-menu] button", has_text="rude")
    assert button.bounding_box()["height"] >= 44
    button.tap()
    assert quotes(page) == [["rude", "parcel"]]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator(".marks-done").tap()
    expect(page.locator("[data-card-text]")).to_be_visible()


# --- nothing is lost ------------------------------------------------------------------------------
def test_a_comment_that_was_not_closed_is_kept_as_well(project, annotator, open_page):
    add(project, "alpha beta")
    page = open_page(annotator, BENCH)
    keys(page, "a", "m", "1", "Enter")
    page.keyboard.type("half a thought")
    saved(page)
    page.reload()
    assert marks(page) == [{"start": 0, "end": 5, "label": "wrong fact", "comment": "half a thought"}]
    assert Lease.objects.get().draft["marks"] == {"a": marks(page)}
