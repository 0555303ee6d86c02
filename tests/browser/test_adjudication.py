"""Reviewers and a changed guideline, by keyboard alone."""

import pytest
from playwright.sync_api import Page, expect

from labeling.accounts.roles import Role
from labeling.annotation.models import Judgement, Lease
from labeling.projects.models import Membership
from labeling.projects.services import publish_guideline
from labeling.quality.models import Adjudication, Review
from labeling.quality.services import adjudicate, refresh_disagreements
from tests import factories
from tests.browser.axe import serious
from tests.labeling.quality.judged import judge

QUEUE = "/projects/support/adjudication/"


@pytest.fixture
def people(site):
    return {name: factories.make_user(name) for name in ("lead", "annotator", "other", "reviewer")}


@pytest.fixture
def project(people):
    roles = {"annotator": Role.ANNOTATOR, "other": Role.ANNOTATOR, "reviewer": Role.REVIEWER}
    return factories.make_project(people["lead"], members={people[name]: role for name, role in roles.items()})


@pytest.fixture
def disputed(project, people):
    """Two tasks on which two people differ entirely."""
    factories.fill_project(project, 2, overlap=2)
    for _task in range(2):
        judge(project, people["annotator"], [[0], [1], [2]], rationale="The first one is kind")
        judge(project, people["other"], [[2], [1], [0]])
    refresh_disagreements()
    return list(project.tasks.order_by("pk"))


def keys(page: Page, *strokes: str) -> None:
    for stroke in strokes:
        page.keyboard.press(stroke)


def test_a_task_is_adjudicated_blind_by_keyboard_alone(disputed, people, open_page):
    page = open_page(people["reviewer"], QUEUE)
    first, second = disputed
    page.get_by_role("link", name="Begin").focus()
    keys(page, "Enter")
    page.wait_for_url(f"**/{first.public_id}/")
    expect(page.locator(".votes-hidden")).to_be_visible()
    expect(page.locator("[data-votes]")).to_have_count(0)
    assert "annotator" not in page.locator("main").inner_text()
    keys(page, "Enter")  # nothing is ranked: told, not sent
    expect(page.locator("[data-said]")).to_have_text("Not ranked yet: a, b, c")
    keys(page, "b", "1", "a", "2", "c", "2", "w")
    page.keyboard.type("kinder, and n or x in a word do nothing")
    keys(page, "Escape", "Enter")
    # The votes stand beside what was said blind, which is still in the form.
    expect(page.locator("[data-votes]")).to_be_focused()
    expect(page.locator(".vote-own .vote-ranking")).to_have_text("b › a = c")
    expect(page.locator(".votes tbody tr")).to_have_count(3)
    expect(page.locator("[data-order]")).to_have_text("b › a = c")
    review = Review.objects.get()
    assert Adjudication.objects.count() == 0
    assert serious(page) == []
    keys(page, "v")
    page.keyboard.type("What of emoji?")
    keys(page, "Escape", "m", "c", "3", "Enter")
    page.wait_for_url(f"**/{second.public_id}/")  # on to the next
    expect(page.locator(".notice")).to_contain_text("Settled: b › a › c")
    found = Adjudication.objects.get()
    a, b, c = review.order_shown
    assert (found.ranking, found.blind, found.becomes_gold) == ([[b], [a], [c]], True, True)
    assert (found.note_to_guideline, found.rationale) == ("What of emoji?", "kinder, and n or x in a word do nothing")
    keys(page, "x")
    expect(page.locator("[data-unfit-dialog]")).to_be_visible()
    keys(page, "Escape")
    assert Adjudication.objects.count() == 1
    keys(page, "x", "Enter")
    page.wait_for_url(f"**{QUEUE}")
    assert Adjudication.objects.get(task=second).outcome == "unfit"


def test_the_second_reviewer_keeps_what_they_typed(disputed, people, open_page):
    page = open_page(people["reviewer"], f"{QUEUE}{disputed[0].public_id}/")
    keys(page, "Shift+A", "Shift+B", "Enter")
    expect(page.locator("[data-votes]")).to_be_focused()
    keys(page, "w")
    page.keyboard.type("My reasons")
    adjudicate(task=disputed[0], by=people["lead"], submission_key="lead-key", outcome="left")
    keys(page, "Escape", "Enter")
    expect(page.locator(".settle-standing")).to_contain_text("lead was first")
    expect(page.locator("[data-rationale-field]")).to_have_value("My reasons")
    expect(page.locator("[data-order]")).to_have_text("a › b › c")
    keys(page, "Enter")
    page.wait_for_url(f"**/{disputed[1].public_id}/")
    assert Adjudication.objects.get(superseded_by=None).by == people["reviewer"]


def test_a_changed_guideline_is_read_and_confirmed_by_key_with_the_draft_kept(project, people, open_page):
    factories.fill_project(project, 4)
    annotator = people["annotator"]
    page = open_page(annotator, "/projects/support/bench/")
    first = page.locator("[data-task]").get_attribute("data-task")
    keys(page, "w")
    page.keyboard.type("Half a thought")
    expect(page.locator(".bench-state:not(.is-quiet)")).to_have_attribute("data-state", "saved")
    publish_guideline(project=project, markdown="Prefer *short*, kind and true.", created_by=people["lead"])
    page.reload()
    # The task in hand comes first, as it was left.
    assert page.locator("[data-task]").get_attribute("data-task") == first
    expect(page.locator("[data-rationale-field]")).to_have_value("Half a thought")
    for _task in range(2):  # this one, and the one fetched ahead before the change
        if page.locator("[data-reading]").count():
            break
        held = page.locator("[data-task]").get_attribute("data-task")
        keys(page, "Escape", "Shift+A", "Shift+B", "Enter")
        expect(page.locator(f"[data-task='{held}']")).to_have_count(0)
    title = page.locator("[data-reading-title]")
    expect(title).to_be_focused()
    expect(title).to_have_text("The guideline has changed")
    expect(page.locator(".reading-diff")).to_contain_text("short")
    assert page.locator(".reading-diff ins").count() >= 1
    assert serious(page) == []
    assert not Lease.objects.filter(annotator=annotator, state="open").exists()
    assert Judgement.objects.filter(feedback__rationale="Half a thought").count() == 1
    keys(page, "g")
    expect(page.locator("[data-reading-whole]")).to_have_attribute("open", "")
    keys(page, "Enter")
    expect(page.locator("[data-task]")).to_be_visible()
    expect(page.locator(".guideline-version")).to_have_text("v2")
    expect(page.locator("[data-reading]")).to_have_count(0)
    assert Membership.objects.get(user=annotator).guideline_read == 2
