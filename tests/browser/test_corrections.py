"""Corrections with their word diff, and demonstrations, as annotators write them."""

import json

import pytest
from playwright.sync_api import Page, expect

from labeling.accounts.roles import Role
from labeling.annotation.models import Judgement
from labeling.projects.services import change_project
from tests import factories
from tests.browser.test_bench import keys, saved
from tests.browser.test_marks import BENCH, add, from_rest


@pytest.fixture
def annotator(site):
    return factories.make_user("annotator")


@pytest.fixture
def project(site, annotator):
    project = factories.make_project(factories.make_user("lead"), members={annotator: Role.ANNOTATOR})
    change_project(project=project, form={"ranking": False, "rationale": "off", "corrections": True})
    return project


def field(page: Page):
    return page.locator("[data-correction-field]")


def diff(page: Page) -> list[tuple[str, str]]:
    found = page.locator(".diff-text").evaluate(
        "body => [...body.querySelectorAll('del, ins')].map((one) => [one.localName, one.textContent])"
    )
    return [tuple(part) for part in found]


# --- corrections ----------------------------------------------------------------------------------
def test_a_correction_by_keys_shows_its_words_and_comes_back_over_rest(site, project, annotator, open_page):
    add(project, "Your parcel is late 😀.\r\nשלום, we are sorry.")
    add(project, "Another one")
    page = open_page(annotator, BENCH)
    keys(page, "a", "e")
    expect(field(page)).to_be_focused()
    expect(field(page)).to_have_value("Your parcel is late 😀.\nשלום, we are sorry.")
    expect(page.locator(".diff-count")).to_have_text("Nothing changed yet")
    keys(page, "Control+End")
    page.keyboard.type(" It comes on 1 May 👩‍💻.")
    keys(page, "Control+Home", "Control+Delete")
    page.keyboard.type("The")
    expect(page.locator(".diff-count")).to_have_text("1 word out, 6 words in")
    # Told by signs as well as by colour.
    assert diff(page) == [("del", "Your"), ("ins", "The"), ("ins", " It comes on 1 May 👩‍💻.")]
    assert page.locator(".diff-text del").evaluate("one => getComputedStyle(one, '::before').content") == '"−"'
    saved(page)

    page.reload()
    wanted = "The parcel is late 😀.\nשלום, we are sorry. It comes on 1 May 👩‍💻."
    expect(field(page)).to_have_value(wanted)
    expect(field(page)).to_be_visible()
    expect(page.locator(".diff-count")).to_have_text("1 word out, 6 words in")
    keys(page, "Enter")
    expect(page.locator("[data-card-text]")).to_have_text("Another one")
    saved(page)
    assert [judgement["corrections"] for judgement in from_rest(site, project)] == [{"a": wanted}]

    keys(page, "u")
    page.wait_for_url(f"**/history/{Judgement.objects.get().pk}/")
    expect(field(page)).to_have_value(wanted)
    expect(page.locator(".diff-count")).to_have_text("1 word out, 6 words in")


def test_an_opened_completion_that_was_left_as_it_is_is_no_correction(project, annotator, open_page):
    change_project(project=project, form={**project.form, "acceptable": True})
    add(project, "  As it was, \r\nwith white space.  \n")
    page = open_page(annotator, BENCH)
    keys(page, "a", "y", "e")
    page.keyboard.type(" ")
    expect(page.locator(".diff-count")).to_have_text("Nothing changed yet")
    keys(page, "Escape", "Enter")
    expect(page.get_by_role("heading", name="Nothing is left for you here")).to_be_visible()
    saved(page)
    assert "corrections" not in Judgement.objects.get().feedback


def test_back_to_the_original_and_back_from_there(project, annotator, open_page):
    add(project, "The original words.")
    page = open_page(annotator, BENCH)
    keys(page, "a", "e", "Control+End")
    page.keyboard.type(" And more.")
    page.get_by_role("button", name="back to the original").click()
    expect(field(page)).to_have_value("The original words.")
    expect(page.locator(".diff-count")).to_have_text("Nothing changed yet")
    expect(field(page)).to_be_focused()
    keys(page, "Control+z")
    expect(field(page)).to_have_value("The original words. And more.")
    expect(page.locator(".diff-count")).to_have_text("2 words in")


def test_what_stayed_the_same_is_folded_and_opens(project, annotator, open_page):
    middle = " ".join(f"word{number}" for number in range(400))
    add(project, f"Start here. {middle} The end.")
    page = open_page(annotator, BENCH)
    keys(page, "a", "e", "Control+Home", "Control+Delete")
    page.keyboard.type("Begin")
    keys(page, "Control+End")
    page.keyboard.type(" Bye.")
    expect(page.locator(".diff-text")).to_contain_text("Bye.")  # the difference follows what is typed
    fold = page.locator(".diff-fold")
    expect(fold).to_have_count(1)
    expect(fold).to_contain_text("words the same")
    expect(page.locator(".diff-text")).not_to_contain_text("word200")
    fold.focus()
    keys(page, "Enter")
    expect(page.locator(".diff-text")).to_contain_text("word200")
    shown = page.locator(".diff-text").evaluate("""body => {
      const copy = body.cloneNode(true);
      for (const one of copy.querySelectorAll("del")) one.remove();
      return copy.textContent;
    }""")
    assert shown == field(page).input_value()


def test_hostile_and_invisible_text_is_text_in_the_difference(project, annotator, open_page):
    add(project, "Safe words \u202eand turned ones")
    page = open_page(annotator, BENCH)
    keys(page, "a", "e")
    expect(page.locator(".correction-note")).to_contain_text("RLO")
    keys(page, "Control+End")
    page.evaluate("document.execCommand('insertText', false, '\\n<img src=x onerror=alert(1)>\\u200b<b>x</b>')")
    expect(page.locator(".diff-text ins")).to_contain_text("<img src=x onerror=alert(1)>")
    expect(page.locator(".diff-text .invisible-char")).to_have_text(["RLO", "ZWSP"])
    assert page.locator(".diff-text :is(img, b, script)").count() == 0
    expect(page.locator(".diff-newline")).to_have_text("↵")


def test_a_text_of_100_000_characters_is_corrected(project, annotator, open_page):
    text = "\n".join(f"Line {number} says that {number} is a number." for number in range(2700))[:100_000]
    add(project, text)
    page = open_page(annotator, BENCH)
    keys(page, "a", "e", "Control+End")
    page.keyboard.type(" End.")
    keys(page, "Control+Home")
    page.keyboard.type("Begin. ")
    expect(page.locator(".diff-text ins")).to_have_count(2)
    assert page.locator(".diff-text").evaluate("body => body.textContent.length") < 1000
    saved(page)
    keys(page, "Control+Enter")
    expect(page.get_by_role("heading", name="Nothing is left for you here")).to_be_visible()
    saved(page)
    assert Judgement.objects.get().feedback["corrections"] != {}
    assert json.dumps(f"Begin. {text} End.")[1:-1] in json.dumps(Judgement.objects.get().feedback["corrections"])


# --- demonstrations -------------------------------------------------------------------------------
def test_a_demonstration_grows_and_counts_as_it_is_written(site, project, annotator, open_page):
    change_project(project=project, form={**project.form, "corrections": False, "demonstration": "required"})
    add(project, "A completion beside it.")
    page = open_page(annotator, BENCH)
    keys(page, "d")
    box = page.locator("[data-demonstration-field]")
    expect(box).to_be_focused()
    before = box.bounding_box()["height"]
    page.keyboard.type("Dear you 😀,")
    expect(page.locator("[data-demonstration-count]")).to_have_text("2 words · 11 characters")
    for _ in range(12):
        keys(page, "Enter")
        page.keyboard.type("it comes 1 day later")
    assert box.bounding_box()["height"] > before
    expect(page.locator("[data-demonstration-count]")).to_have_text("62 words · 263 characters")
    saved(page)
    page.reload()
    expect(page.locator("[data-demonstration-count]")).to_have_text("62 words · 263 characters")
    keys(page, "d", "Control+Enter")
    expect(page.get_by_role("heading", name="Nothing is left for you here")).to_be_visible()
    saved(page)
    assert from_rest(site, project)[0]["demonstration"] == "Dear you 😀," + "\nit comes 1 day later" * 12
