"""What axe-core finds on the pages where people work: nothing that is serious."""

import pytest
from playwright.sync_api import expect

from labeling.accounts.roles import Role
from labeling.annotation.services import create_tasks_for_prompts, report_prompt, take_lease
from labeling.imports.services import import_rows
from labeling.projects.services import change_project
from labeling.projects.text import canonical_json
from labeling.quality.adjudication import queue_of
from labeling.quality.services import adjudicate, refresh_disagreements
from labeling.webhooks.models import Delivery
from labeling.webhooks.services import create_webhook
from tests import factories
from tests.browser.axe import LOOKS, serious
from tests.labeling.quality import gold

BENCH = "/projects/support/bench/"
TEXT = "# Reply\n\nSorry about the **mug**, $x^2$.\n\n- one\n- two\n\n```python\nprint('a line of code')\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n[more](https://example.org/)"
EVERYTHING = {
    "strength": True, "ratings": {"tone": {"low": 1, "high": 5, "labels": {"1": "rude"}, "help": "Kind?"}}, "acceptable": True,
    "flags": ["unsafe"], "corrections": True, "marks": ["wrong fact", "rude"], "demonstration": "optional", "required": ["ratings"],
}  # fmt: skip
KINDS = {
    "ranking": ({}, 4, []),
    "ranking begun": ({}, 4, ["b", "1", "a"]),
    "pair": ({"strength": True}, 2, []),
    "rating": ({"ranking": False, "ratings": EVERYTHING["ratings"], "flags": ["rude"]}, 2, ["3"]),
    "everything": (EVERYTHING, 3, ["b", "1", "r"]),
    "marking": ({"ranking": False, "marks": ["wrong fact", "rude"]}, 1, ["m", "Shift+ArrowRight", "1"]),
    "editing": ({"corrections": True}, 2, ["a", "e", "x"]),
    "writing": ({"ranking": False, "demonstration": "required"}, 0, []),
    "help": ({}, 3, ["?"]),
    "skip": ({}, 3, ["s"]),
    "report": ({}, 3, ["p"]),
}


@pytest.fixture
def annotator(site):
    return factories.make_user("annotator")


@pytest.fixture
def project(site, annotator):
    return factories.make_project(factories.make_user("lead"), members={annotator: Role.ANNOTATOR})


def add_tasks(project, n_completions: int) -> None:
    rows = [
        {
            "prompt": [{"role": "system", "content": "You help."}, {"role": "user", "content": f"{number}. {TEXT}"}],
            "completions": [{"content": f"{TEXT}\n\n{index}", "model": "m"} for index in range(max(1, n_completions))],
        }
        for number in range(3)
    ]
    import_rows(project=project, format="completions", lines=[canonical_json(row).encode() for row in rows], created_by=project.created_by)
    create_tasks_for_prompts(project=project, completions_per_task=n_completions)


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_nothing_serious_on_the_bench(project, annotator, open_page, kind, look):
    form, n_completions, strokes = KINDS[kind]
    change_project(project=project, form=form)
    add_tasks(project, n_completions)
    page = open_page(annotator, BENCH, **LOOKS[look])
    expect(page.locator("[data-task].is-live")).to_be_visible()
    for stroke in strokes:
        page.keyboard.press(stroke)
    assert serious(page) == []


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_serious_on_the_other_pages_of_annotators(site, project, annotator, open_page, look):
    add_tasks(project, 3)
    page = open_page(annotator, BENCH, **LOOKS[look])
    for stroke in ("Shift+A", "Shift+B", "Enter"):
        page.keyboard.press(stroke)
    expect(page.locator("[data-figures] b")).to_have_text("1")
    found = {}
    for path in (f"{BENCH}history/", f"{BENCH}figures/", "/profile/", BENCH):
        page.goto(site.url(path))
        found[path] = serious(page)
    change_project(project=project, bench={"content_warning": "It holds *insults*."})
    page.goto(site.url(BENCH))
    found["warning"] = serious(page)
    page.context.clear_cookies()
    page.goto(site.url("/login/"))
    found["login"] = serious(page)
    assert {path: problems for path, problems in found.items() if problems} == {}


CONSOLE = (
    "settings/", "tasks/", "reports/", "adjudication/", "images/", "conversation/", "people/", "pools/", "pools/new/", "gold/", "gold/new/",
    "guidelines/", "import/", "webhooks/", "webhooks/new/", "",
)  # fmt: skip


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_serious_where_leads_set_up_their_project(site, project, annotator, open_page, look):
    change_project(project=project, form=EVERYTHING)
    add_tasks(project, 3)
    lease = take_lease(project=project, annotator=annotator)
    report_prompt(lease=lease, reason="broken", note="cut off")
    webhook, _ = create_webhook(project=project, url="https://example.org/", events=["run"])
    tries = [{"at": "2026-11-21T08:00:00+00:00", "status": 500, "error": "refused", "milliseconds": 12}] * 2
    Delivery.objects.create(webhook=webhook, event="run", body="{}", state="failed", tries=tries)
    page = open_page(project.created_by, "/projects/new/", **LOOKS[look])
    found = {"new": serious(page)}
    page.goto(site.url(f"/projects/support/webhooks/{webhook.pk}/"))
    found["webhook"] = serious(page)
    for path in CONSOLE:
        assert page.goto(site.url(f"/projects/support/{path}")).status == 200
        page.wait_for_load_state("networkidle")
        found[path] = serious(page)
    assert {path: problems for path, problems in found.items() if problems} == {}


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_serious_on_the_pages_on_quality(site, project, annotator, open_page, look):
    lead = project.created_by
    gold.write(project, 4)
    gold.set_quality(project, gold_rate=0.5, repeat_rate=0.5, repeat_after=2, repeat_hours=0, gold_bound=0)
    factories.fill_project(project, 24, overlap=2)
    for person, well in ((annotator, False), (lead, True)):
        while lease := take_lease(project=project, annotator=person):
            gold.answer(lease, well=well)
    refresh_disagreements()
    for row in queue_of(project).select_related("task")[:2]:
        ids = sorted(row.task.completions.values_list("pk", flat=True))
        adjudicate(task=row.task, by=lead, submission_key=f"key-{row.pk}", outcome="ranking", ranking=[[pk] for pk in ids])
    page = open_page(lead, "/projects/support/quality/?show=annotators", **LOOKS[look])
    theirs = page.get_by_role("link", name=annotator.username, exact=True).get_attribute("href")
    parts = ("", "?show=annotators", "?show=checks", "?show=coefficients")
    found = {}
    for path in (*(f"/projects/support/quality/{part}" for part in parts), theirs):
        assert page.goto(site.url(path)).status == 200
        page.wait_for_load_state("networkidle")
        found[path] = serious(page)
    assert page.get_by_text("Gold tasks they missed").count() and page.get_by_text("settled otherwise").count()
    assert {path: problems for path, problems in found.items() if problems} == {}


def test_the_bench_works_at_twice_the_size(project, annotator, open_page):
    """A window of 1280 pixels zoomed to 200 % is one of 640: nothing is cut off or needs sideways scrolling."""
    change_project(project=project, form=EVERYTHING)
    add_tasks(project, 3)
    page = open_page(annotator, BENCH, viewport={"width": 640, "height": 400}, device_scale_factor=2)
    expect(page.locator("[data-task].is-live")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 640
    for name in ("[data-submit]", "[data-do=skip]", "[data-do=undo]"):
        expect(page.locator(name)).to_be_in_viewport()


def test_the_check_would_find_what_it_looks_for(project, annotator, open_page):
    add_tasks(project, 3)
    page = open_page(annotator, BENCH)
    page.evaluate(
        """() => {
          const button = document.createElement("button");
          const image = document.createElement("img");
          document.querySelector("main").append(button, image);
        }"""
    )
    assert {problem.split(" ")[0] for problem in serious(page)} >= {"button-name", "image-alt"}
