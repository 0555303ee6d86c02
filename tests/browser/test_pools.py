"""A lead notes what somebody knows, makes a pool and moves tasks to it, by keyboard; the bench follows."""

import pytest
from playwright.sync_api import expect

from labeling.accounts.roles import Role
from labeling.annotation.models import Task
from tests import factories


@pytest.fixture
def annotators(site):
    return [factories.make_user("ada"), factories.make_user("ben")]


@pytest.fixture
def project(site, annotators):
    project = factories.make_project(factories.make_user("lead"), members=dict.fromkeys(annotators, Role.ANNOTATOR))
    factories.fill_project(project, 3)
    return project


def test_tasks_are_kept_for_those_who_know_the_subject(project, annotators, open_page):
    ada, ben = annotators
    page = open_page(project.created_by, "/projects/support/people/")
    page.get_by_label("Skills of ada").focus()
    page.keyboard.type("Law")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Skills of ada")).to_have_value("law")

    page.goto(page.url.replace("people/", "pools/"))
    page.get_by_role("link", name="New pool").press("Enter")
    page.get_by_label("Name", exact=True).fill("Contracts")
    page.get_by_label("Skills").fill("law")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Contracts is there; 1 person fits.")).to_be_visible()

    page.get_by_role("link", name="Tasks", exact=True).press("Enter")
    page.get_by_label("Assign", exact=True).select_option("all")
    page.get_by_role("group", name="Assign").get_by_label("For").select_option(label="Contracts")
    page.get_by_role("button", name="Go on").press("Enter")
    expect(page.get_by_role("heading", name="Give 3 tasks to Contracts?")).to_be_visible()
    page.get_by_role("button", name="Give 3 tasks").press("Enter")
    expect(page.get_by_text("3 tasks are now for Contracts.")).to_be_visible()
    assert Task.objects.filter(pool__name="Contracts").count() == 3

    bench = open_page(ben, "/projects/support/bench/")
    expect(bench.get_by_text("is for people with other languages or skills")).to_be_visible()
    expect(open_page(ada, "/projects/support/bench/").locator("[data-task].is-live")).to_be_visible()
