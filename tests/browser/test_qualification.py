"""The qualification round by keyboard: an answer, what it was worth, the next task, and the end of it."""

import pytest
from playwright.sync_api import expect

from labeling.projects.models import Membership
from labeling.projects.services import add_member
from tests import factories
from tests.browser.axe import serious
from tests.labeling.quality import gold

BENCH = "/projects/support/bench/"


@pytest.fixture
def newcomer(site):
    project = factories.make_project(factories.make_user("lead"))
    factories.fill_project(project, 2, n_completions=2)
    gold.write(project, 4, n_completions=2)
    gold.set_quality(project, qualification={"n": 2, "pass": 0.5})
    person = factories.make_user("newcomer")
    add_member(project=project, user=person, role="annotator")
    return person


def test_feedback_after_each_answer_by_keyboard_and_then_the_projects_tasks(newcomer, open_page):
    page = open_page(newcomer, BENCH)
    dialog = page.locator("[data-feedback-dialog]")
    expect(page.locator("[data-prompt]")).to_contain_text("golden parcel")
    first_is_right = "Answer 0" in page.locator("[data-card=a]").inner_text()
    page.keyboard.press("1")  # a is better, and nothing more is asked
    expect(dialog).to_be_visible()
    expect(dialog.locator("h2")).to_contain_text("Right" if first_is_right else "Not what was expected")
    expect(dialog).to_contain_text("The first is kind.")
    assert serious(page) == []
    expect(dialog).to_contain_text("Qualification: 1 of 2 answered")
    expect(dialog.locator("button")).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog).not_to_be_visible()
    expect(page.locator("[data-prompt]")).to_be_focused()
    expect(page.locator("[data-prompt]")).to_contain_text("golden parcel")
    a_is_right = "Answer 0" in page.locator("[data-card=a]").inner_text()
    page.keyboard.press("1" if a_is_right else "3")
    expect(dialog).to_contain_text("You passed.")
    expect(dialog).to_contain_text("Qualification: 2 of 2 answered")
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()
    assert Membership.objects.get(user=newcomer).state == "active"
    expect(page.locator("[data-prompt]")).to_contain_text("parcel")
    expect(page.locator("[data-prompt]")).not_to_contain_text("golden")


def test_whoever_fails_is_told_why_and_whom_to_ask(newcomer, open_page):
    page = open_page(newcomer, BENCH)
    dialog = page.locator("[data-feedback-dialog]")
    for _number in range(2):
        expect(page.locator("[data-card=a]")).to_be_visible()
        a_is_right = "Answer 0" in page.locator("[data-card=a]").inner_text()
        page.keyboard.press("3" if a_is_right else "1")
        expect(dialog).to_be_visible()
        page.keyboard.press("Enter")
        expect(dialog).not_to_be_visible()
    nothing = page.locator("[data-nothing]")
    expect(nothing).to_contain_text("You are paused in this project")
    expect(nothing).to_contain_text("0 of 2 right")
    expect(nothing).to_contain_text("lead")
    assert serious(page) == []
