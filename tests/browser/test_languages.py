"""German from the log-in to the last key of the bench: chosen by keyboard, complete, and fitting a small screen."""

import gettext
import re
from html import unescape
from pathlib import Path

import pytest
from django.conf import settings as site_settings
from playwright.sync_api import Page, expect

from labeling.accounts.models import User
from labeling.accounts.roles import Role
from labeling.annotation.models import Judgement
from labeling.conversation.services import change_settings, start_conversation
from labeling.projects.services import change_project
from tests import factories

BENCH = "/projects/support/bench/"
SMALL = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "locale": "de-DE"}
# What leads and annotators wrote: it is shown as they wrote it.
FORM = {
    "ranking": True, "ties": True, "strength": True, "none_acceptable": True, "rationale": "optional",
    "ratings": {"Genauigkeit": {"low": 1, "high": 5, "labels": {"1": "daneben", "5": "genau"}, "help": "Stimmt alles?"}},
    "flags": ["unsicher"], "acceptable": True, "corrections": True, "marks": ["falsch"], "demonstration": "optional",
}  # fmt: skip
WRITTEN = {
    "Genauigkeit", "Stimmt alles?", "unsicher", "falsch", "Support replies", "annotator", "lead", "Prefer short and kind.",
    "Prefloop", "English", "Deutsch", "REST",
    *(step + joined + word for step, word in (("1", "daneben"), ("5", "genau")) for joined in (" ", ", ", ": ")),
}  # fmt: skip
# Letters of completions, figures, signs. Keys are named as they are written on them: <kbd> is left out.
SIGNS = re.compile(r"(?:shift|ctrl|enter|esc|utc|(?<![^\W_])[a-z](?![^\W_])|v\d+|[\W\d_])*", re.IGNORECASE)
DATE = re.compile(r"\d{1,2}\.? (Jan|Feb|März|Apr|Mai|Jun|Jul|Aug|Sep|Okt|Nov|Dez)\w*(, \d\d:\d\d|: \d+)?")
TEXTS = """() => {
  const found = new Set();
  const add = (text) => { const plain = text.replace(/\\s+/g, " ").trim(); if (plain) found.add(plain); };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT, (node) =>
    node.nodeType === 1 && node.matches("script, style, noscript, textarea, kbd, [lang=''], .prose, [data-source]") ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    if (node.nodeType === 3) add(node.textContent);
    else for (const name of ["aria-label", "title", "placeholder", "alt", "aria-description"]) add(node.getAttribute(name) ?? "");
  }
  return [document.title, ...found];
}"""
# Controls that stick out of the window or hide part of their own words.
CLIPPED = """() => [...document.querySelectorAll("a, button, summary, label, kbd, h1, h2, p, legend, .badge")].filter((element) => {
  if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) || element.matches(".skip-link, .sr-only, .sr-only *, .prose *, .project-button *")) return false;
  const box = element.getBoundingClientRect();
  if (box.width === 0) return false;
  for (let parent = element.parentElement; parent; parent = parent.parentElement) {
    if (/auto|scroll/.test(getComputedStyle(parent).overflowX) && parent.scrollWidth > parent.clientWidth) return false;
  }
  const hides = element.matches("a, button, summary") && element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).display !== "inline" && !/ellipsis/.test(getComputedStyle(element).textOverflow);
  return box.right > innerWidth + 1 || box.left < -1 || hides;
}).map((element) => `${element.tagName} ${element.className}: ${element.textContent.replace(/\\s+/g, " ").trim().slice(0, 60)}`)"""


@pytest.fixture
def annotator(site):
    return factories.make_user("annotator")


@pytest.fixture
def project(site, annotator):
    project = factories.make_project(factories.make_user("lead"), members={annotator: Role.ANNOTATOR})
    change_project(project=project, form=FORM)
    factories.fill_project(project, 6, n_completions=3)
    return project


@pytest.fixture
def can_log_in(annotator, settings) -> None:
    """The server knows only the strong hash that tests do without elsewhere."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
    annotator.set_password(factories.PASSWORD)
    annotator.save()


@pytest.fixture(scope="module")
def german() -> re.Pattern[str]:
    """Matches what the German catalogues say, with anything in the places that are filled in."""
    pieces = set()
    for path in Path(site_settings.LOCALE_PATHS[0]).glob("de/LC_MESSAGES/*.mo"):
        with path.open("rb") as file:
            catalogue = gettext.GNUTranslations(file)._catalog
        for key, text in catalogue.items():
            if key != "":
                # A tag ends a text of the page, and white space is one space there.
                whole = [" ".join(piece.split()) for piece in re.split(r"<[^>]+>", unescape(text.replace("%%", "%")))]
                pieces.update(whole, *map(sentences, whole))
    patterns = []
    for piece in pieces:
        if len(re.sub(r"%\(\w+\)s|[\W\d_]", "", piece)) > 1:
            patterns.append(r"\S(?:.*\S)?".join(re.escape(part) for part in re.split(r"%\(\w+\)s", piece)))
    return re.compile("|".join(f"(?:{pattern})" for pattern in sorted(patterns, key=len, reverse=True)))


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.?!…])(?<!\d\.) ", text)  # not after the number of a day


def left_in_english(page: Page, german: re.Pattern[str]) -> list[str]:
    """Texts of the page that the German catalogues don't hold. One line may join several, by a dot or as sentences."""

    def is_known(text: str) -> bool:
        return text in WRITTEN or any(pattern.fullmatch(text) for pattern in (SIGNS, DATE, german))

    def are_known(texts: list[str]) -> bool:
        return all(is_known(text.strip()) for text in texts)

    return [
        text
        for text in page.evaluate(TEXTS)
        if not is_known(text) and not are_known(text.split("·")) and not are_known(sentences(text))
    ]


def language_of(page: Page) -> str | None:
    return page.locator("html").get_attribute("lang")


def tab_to(page: Page, selector: str) -> None:
    """Move the focus there as a person without a mouse does."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"Tab doesn't reach {selector}")


def close_dialog(page: Page) -> None:
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator("dialog :focus")).to_have_count(0)  # the focus goes back a frame later


# --- choosing -----------------------------------------------------------------------------------
def test_german_is_chosen_in_the_menu_by_keyboard_and_follows_the_person(
    project, annotator, can_log_in, open_page, site, chromium
):
    page = open_page(annotator, BENCH)
    assert language_of(page) == "en"
    tab_to(page, ".user-button")
    page.keyboard.press("Enter")
    tab_to(page, ".menu-languages button[lang=de]")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert (language_of(page), page.url) == ("de", site.url(BENCH))
    expect(page.locator("[data-submit]")).to_contain_text("Abgeben")
    page.locator(".user-button").focus()
    page.keyboard.press("Enter")
    assert page.locator(".menu-languages [aria-current]").inner_text() == "Deutsch"
    assert User.objects.get(pk=annotator.pk).language == "de"

    # Another browser, English, that has never been here.
    context = chromium.new_context(locale="en-GB")
    elsewhere = context.new_page()
    elsewhere.goto(site.url("/login/"))
    assert language_of(elsewhere) == "en"
    elsewhere.keyboard.type("annotator")
    elsewhere.keyboard.press("Tab")
    elsewhere.keyboard.type(factories.PASSWORD)
    with elsewhere.expect_navigation():
        elsewhere.keyboard.press("Enter")
    assert language_of(elsewhere) == "de"
    context.close()


def test_german_is_chosen_before_the_log_in_and_lasts_through_it(project, annotator, can_log_in, site, chromium):
    context = chromium.new_context(locale="en-GB")
    page = context.new_page()
    page.goto(site.url("/profile/"))
    expect(page.locator("#id_username")).to_be_focused()
    tab_to(page, ".entrance-languages button[lang=de]")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Anmelden")).to_be_visible()
    page.get_by_label("Name", exact=True).fill("annotator")
    page.get_by_label("Passwort").fill(factories.PASSWORD)
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert (language_of(page), page.url) == ("de", site.url("/profile/"))
    context.close()


def test_a_language_that_is_not_offered_gives_english(project, annotator, open_page, german):
    page = open_page(annotator, BENCH, locale="fr-FR")
    assert language_of(page) == "en"
    assert page.evaluate("globalThis.django") is None
    expect(page.locator("[data-submit]")).to_contain_text("Submit")
    # So that the tests below are known to find English.
    assert {"Submit", "Not ranked yet", "flags", "today"} <= set(left_in_english(page, german))


# --- nothing is left in English -----------------------------------------------------------------
def test_the_bench_is_german_throughout(project, annotator, open_page, german):
    page = open_page(annotator, BENCH, locale="de-DE")
    assert language_of(page) == "de"
    assert left_in_english(page, german) == []
    page.keyboard.press("?")
    expect(page.locator("[data-help-dialog]")).to_be_visible()
    expect(page.locator("[data-help-table]")).to_contain_text("eine Antwort auswählen")
    assert left_in_english(page, german) == []
    close_dialog(page)
    page.keyboard.press("s")
    expect(page.get_by_role("dialog")).to_contain_text("Diese Aufgabe auslassen")
    expect(page.get_by_role("dialog")).to_contain_text("Dafür braucht es Fachwissen")
    close_dialog(page)
    page.keyboard.press("p")
    expect(page.get_by_role("dialog")).to_contain_text("Diesen Prompt melden")
    close_dialog(page)
    page.keyboard.press("Enter")
    expect(page.locator("[data-said]")).to_have_text("Noch nicht eingeordnet: a, b, c")
    for key in ("a", "1", "b", "2"):
        page.keyboard.press(key)
    expect(page.locator("[data-announce]")).to_contain_text("Rang 2")
    assert left_in_english(page, german) == []


def test_a_judgement_is_made_in_german_and_read_back_unchanged(project, annotator, open_page):
    page = open_page(annotator, BENCH, locale="de-DE")
    for key in ("b", "1", "a", "2", "c", "2", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("[data-announce]")).to_have_text("Nächste Aufgabe, 3 Antworten")
    expect(page.locator(".bench-state:not(.is-quiet)")).to_have_attribute("data-state", "saved")
    judgement = Judgement.objects.get()
    a, b, c = judgement.order_shown
    assert judgement.ranking == [[b], [a, c]]
    assert judgement.seconds is not None
    expect(page.locator("[data-figures]")).to_contain_text("1 heute")


def test_the_other_pages_are_german_throughout(project, annotator, open_page, german, site):
    factories.judge_all(project, annotator, limit=2)
    User.objects.filter(pk=annotator.pk).update(language="de")
    judged = Judgement.objects.first()
    other = factories.make_user("other-lead")
    factories.make_project(other, slug="second", members={annotator: Role.REVIEWER})
    page = open_page(annotator, "/")
    left = {}
    for path in (
        "/", "/profile/", "/no-such-page/", f"{BENCH}history/", f"{BENCH}history/{judged.pk}/", f"{BENCH}figures/",
    ):  # fmt: skip
        page.goto(site.url(path))
        assert language_of(page) == "de", path
        left[path] = [text for text in left_in_english(page, german) if not text.startswith("annotator-")]
    assert {path: texts for path, texts in left.items() if texts} == {}


def test_conversations_are_german_throughout(project, annotator, open_page, german, site, settings):
    settings.MODEL_SERVERS = {"here": {"url": "http://127.0.0.1:9/v1", "key": ""}}
    speakers = [{"server": "here", "model": name, "model_key": name, "temperature": 1.0} for name in ("one", "two")]
    change_settings(project=project, is_on=True, speakers=speakers, max_turns=3, note="Über Pakete.")
    begun = start_conversation(project=project, annotator=annotator, client_key="first")
    User.objects.filter(pk=annotator.pk).update(language="de")
    page = open_page(annotator, f"{BENCH}conversations/", **SMALL)
    assert left_in_english(page, german) == []
    assert page.evaluate(CLIPPED) == []
    page.goto(site.url(f"{BENCH}conversations/{begun.public_id}/"))
    expect(page.get_by_role("button", name="Senden")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("ein neues Gespräch beginnen")
    assert left_in_english(page, german) == []
    close_dialog(page)
    assert page.evaluate(CLIPPED) == []


def test_the_log_in_page_is_german_throughout(site, chromium, german):
    context = chromium.new_context(locale="de-DE")
    page = context.new_page()
    page.goto(site.url("/login/"))
    assert left_in_english(page, german) == []
    page.get_by_label("Name", exact=True).fill("nobody")
    page.get_by_label("Passwort").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("passen nicht zusammen")
    assert left_in_english(page, german) == []
    context.close()


# --- a small screen -----------------------------------------------------------------------------
def test_german_fits_a_small_screen(project, annotator, open_page, site):
    factories.judge_all(project, annotator, limit=1)
    User.objects.filter(pk=annotator.pk).update(language="de")
    page = open_page(annotator, BENCH, **SMALL)
    wrong = {}
    for path in (BENCH, f"{BENCH}history/", "/profile/", "/no-such-page/"):
        page.goto(site.url(path))
        wide = page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
        wrong[path] = ([f"{wide} pixels too wide"] if wide > 0 else []) + page.evaluate(CLIPPED)
    page.goto(site.url(BENCH))
    for dialog, key in (("help", "?"), ("skip", "s"), ("report", "p")):
        page.keyboard.press(key)
        expect(page.locator(f"[data-{dialog}-dialog]")).to_be_visible()
        wrong[dialog] = page.evaluate(CLIPPED)
        page.keyboard.press("Escape")
        expect(page.locator(f"[data-{dialog}-dialog]")).to_be_hidden()
    assert {path: found for path, found in wrong.items() if found} == {}
