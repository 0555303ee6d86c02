"""A lead sets up each kind of task by keyboard alone, and an annotator finds it on the bench."""

import json

import pytest
from playwright.sync_api import Page, expect

from labeling.imports.services import run_next_import
from labeling.projects.models import Project
from labeling.projects.presets import PRESETS, Preset
from labeling.projects.services import change_project
from tests import factories
from tests.api_caller import Caller

ROWS = [
    {"prompt": f"How do I clean a mug, way {number}?", "completions": [f"With {thing}, {number} times." for thing in ("soap", "sand", "luck")]}
    for number in range(3)
]  # fmt: skip
# What the bench of a preset shows: layout, completions, and parts beside the rank.
ON_THE_BENCH = {
    "pair": ("pair", 2, []), "several": ("tiers", 3, []), "rate": ("rating", 1, ["rating"]), "good": ("rating", 1, ["acceptable"]),
    "correct": ("rating", 1, ["acceptable", "correction"]), "mark": ("rating", 1, ["acceptable", "marks"]),
    "write": ("writing", 0, ["demonstration"]), "everything": ("tiers", 3, ["rating", "correction", "marks"]),
}  # fmt: skip
TASKS = {"pair": 3, "several": 3, "write": 3, "everything": 3}  # the others: one for each of nine completions
PARTS = {
    "rating": "[data-part=rating]", "acceptable": "[data-part=acceptable]", "correction": "[data-correction]", "marks": "[data-marks]",
    "demonstration": "[data-demonstration-field]",
}  # fmt: skip


@pytest.fixture
def lead(site):
    return factories.make_user("lead")


@pytest.fixture
def annotator(site):
    return factories.make_user("annotator")


def tab_to(page: Page, what: str) -> None:
    """Press Tab until the focus is on what the selector names."""
    for _ in range(120):
        if page.evaluate("what => document.activeElement.matches(what)", what):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab never came to {what}")


def choose(page: Page, preset: str) -> None:
    tab_to(page, "[name=preset]")
    for _ in range(12):
        if page.evaluate("document.activeElement.value") == preset:
            return
        page.keyboard.press("ArrowRight")
    raise AssertionError(f"no card {preset}")


def follow(page: Page, what: str, address: str) -> None:
    tab_to(page, what)
    page.keyboard.press("Enter")
    page.wait_for_url(address)


def drawn(page: Page) -> None:
    """Wait for the preview to be as the form is."""
    expect(page.locator("[data-preview-place]")).to_be_visible()


# --- every kind of task -------------------------------------------------------------------------
@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.key)
def test_a_lead_sets_it_up_by_keyboard_and_an_annotator_finds_it(
    lead, annotator, site, open_page, tmp_path, settings, preset: Preset
):
    settings.FILES = site.home / "files"  # this process is the worker
    layout, n_cards, parts = ON_THE_BENCH[preset.key]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)))
    page = open_page(lead, "/projects/new/")
    page.on("filechooser", lambda chooser: None)  # asked for early, as the browser takes a while to hand choosers over
    page.keyboard.type("Mugs")  # the name has the focus
    choose(page, preset.key)
    expect(page.locator(f"[data-preview-place] [data-layout={layout}]")).to_be_visible()
    for part in parts:
        expect(page.locator(f"[data-preview-place] {PARTS[part]}").first).to_be_visible()
    page.keyboard.press("Enter")
    page.wait_for_url("**/projects/mugs/")
    assert Caller(lead).get("projects/mugs/").json()["form"] == preset.form

    # Import, tasks, people: the first steps lead there.
    follow(page, ".steps .is-next a", "**/import/")
    tab_to(page, "[type=file]")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(file)
    follow(page, "form .button-primary", "**/import/*/check/")
    follow(page, ".button-primary", "**/import/*/")
    assert run_next_import()
    expect(page.locator("#import-state .badge")).to_have_text("✓done")
    follow(page, ".button-primary", "**/tasks/")
    n_tasks = TASKS.get(preset.key, 9)
    tab_to(page, "[name=overlap]")
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("2")
    expect(page.locator(".plan-sum")).to_contain_text(f"{n_tasks} tasks × overlap 2 = {2 * n_tasks} judgements")
    tab_to(page, "#plan .button-primary")
    page.keyboard.press("Enter")
    expect(page.locator(".notice-success")).to_have_text(f"{n_tasks} new tasks, {2 * n_tasks} judgements wanted.")
    page.goto(page.url.replace("/tasks/", "/"))
    follow(page, ".steps .is-next a", "**/people/")
    tab_to(page, "#id_username")
    page.keyboard.type("annotator")
    page.keyboard.press("Enter")
    expect(page.locator(".notice-success")).to_contain_text("annotator is annotator now")

    bench = open_page(annotator, "/projects/mugs/bench/")
    expect(bench.locator("[data-task]")).to_have_attribute("data-layout", layout)
    expect(bench.locator("[data-card]")).to_have_count(n_cards)
    for part, selector in PARTS.items():
        shown = bench.locator(f"[data-task] {selector}")
        assert (shown.count() > 0) == (part in parts), part
    assert bench.locator("[name=rationale]").count() == (preset.form["rationale"] != "off")


# --- the builder --------------------------------------------------------------------------------
@pytest.fixture
def project(lead) -> Project:
    project = factories.make_project(lead)
    change_project(project=project, form={"ranking": False, "flags": ["unsafe", "rude"]})
    return project


def test_rows_are_added_moved_and_taken_out_by_keys_with_the_focus_kept(project, lead, open_page):
    page = open_page(lead, "/projects/support/settings/")
    rows = page.locator("[data-rows=flags] [data-row-first]")
    tab_to(page, "[name=flags]")
    page.keyboard.press("Enter")
    page.keyboard.type("not English")
    assert [row.input_value() for row in rows.all()] == ["unsafe", "not English", "rude"]
    page.keyboard.press("Alt+ArrowUp")
    assert page.evaluate("document.activeElement.value") == "not English"
    page.keyboard.press("Alt+ArrowUp")  # nowhere to go
    assert [row.input_value() for row in rows.all()] == ["not English", "unsafe", "rude"]
    expect(page.locator("[data-preset-said]")).to_have_text("not English is number 1")
    page.keyboard.press("Enter")
    page.keyboard.press("Backspace")  # the empty one again
    assert page.evaluate("document.activeElement.value") == "unsafe"
    assert rows.count() == 3
    tab_to(page, "[data-row-drop]")
    page.keyboard.press("Enter")
    assert [row.input_value() for row in rows.all()] == ["not English", "rude"]
    page.keyboard.press("Alt+ArrowDown")
    follow(page, ".builder-save .button-primary", "**/settings/")
    expect(page.locator(".notice-success")).to_be_visible()
    project.refresh_from_db()
    assert project.form["flags"] == ["not English", "rude"]


def test_the_preview_follows_what_is_typed_and_says_what_it_waits_for(project, lead, open_page):
    page = open_page(lead, "/projects/support/settings/")
    place, said = page.locator("[data-preview-place]"), page.locator("[data-preview-said]")
    expect(place.locator("[data-part=flags]").first).to_contain_text("unsafe")
    page.locator("[name=flags]").first.fill("risky")
    expect(place.locator("[data-part=flags]").first).to_contain_text("risky")
    page.locator("[name=asks_ratings]").check()
    expect(said).to_contain_text("Name at least one axis")
    page.locator("[data-row-add=ratings]").click()
    page.keyboard.type("clarity")
    expect(place.locator("[data-part=rating] legend").first).to_have_text("clarity")
    page.locator("[data-high]").fill("3")
    expect(place.locator("[data-part=rating]").first.locator("input")).to_have_count(3)
    page.locator("[data-step='3']").fill("clear as day")
    expect(place.locator("[data-part=rating]").first).to_contain_text("3 clear as day")
    page.locator("[data-high]").fill("1")
    expect(said).to_contain_text("1 is not below 1")
    page.locator("[data-high]").fill("4")
    expect(page.locator("[data-step='3']")).to_have_value("clear as day")
    expect(said).to_contain_text("Nothing here is handed out")
    # It is a picture: no key and no click gets in, and nothing was written.
    assert page.evaluate("document.querySelector('[data-preview-place]').inert")
    project.refresh_from_db()
    assert project.form["ratings"] == {}
    assert not project.tasks.exists()


def test_passing_over_the_presets_loses_no_row(project, lead, open_page):
    page = open_page(lead, "/projects/support/settings/")
    page.locator("[name=asks_marks]").check()
    page.locator("[data-row-add=marks]").click()
    page.keyboard.type("too long")
    for preset in PRESETS:
        page.locator(f"[name=preset][value={preset.key}]").check()
        expect(page.locator("[name=ranking]")).to_be_checked(checked=preset.form["ranking"])
    assert page.locator("[name=marks]").evaluate_all("fields => fields.map(field => field.value)") == ["too long"]
    assert page.locator("[name=flags]").evaluate_all("fields => fields.map(field => field.value)") == ["unsafe", "rude"]
    # A change that makes it another kind unchooses the card; changing back chooses it again.
    page.locator("[name=acceptable]").check()
    expect(page.locator("[name=preset]:checked")).to_have_count(0)
    page.locator("[name=acceptable]").uncheck()
    expect(page.locator("[name=preset]:checked")).to_have_value("everything")


@pytest.mark.parametrize("width", [390, 1440])
def test_errors_come_back_beside_their_rows_and_nothing_scrolls_sideways(project, lead, open_page, width):
    page = open_page(lead, "/projects/support/settings/", viewport={"width": width, "height": 844})
    page.locator("[name=preset][value=everything]").check()
    page.locator("[data-high]").last.fill("0")
    page.locator("[name=marks]").nth(1).fill("wrong fact")
    page.locator("[name=fold_turns]").fill("-1")
    page.locator(".builder-save .button-primary").last.click()
    row = page.locator(".axis-row").last
    expect(row.locator(".errorlist")).to_contain_text("1 is not below 0")
    expect(row.locator("[data-row-first]")).to_have_value("truthfulness")
    expect(row.locator("[data-step='5']")).to_have_value("nothing false")
    expect(page.locator("[data-rows=marks] .errorlist")).to_contain_text("“wrong fact” is there already")
    expect(page.locator("#bench-settings .errorlist")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_full_size_preview_opens_beside_the_form(project, lead, open_page):
    page = open_page(lead, "/projects/support/settings/")
    page.locator("[name=preset][value=pair]").check()
    drawn(page)
    with page.context.expect_page() as opened:
        page.locator("[data-preview-full]").click()
    full = opened.value
    expect(full.locator("[data-task]")).to_have_attribute("data-layout", "pair")
    assert full.locator(".bench-place").evaluate("place => place.inert")


def test_a_lead_settles_a_report_by_keyboard(project, lead, annotator, open_page):
    from labeling.annotation.models import PromptReport, Task
    from labeling.annotation.services import report_prompt, take_lease
    from labeling.projects.services import add_member

    add_member(project=project, user=annotator, role="annotator")
    change_project(project=project, form={})
    factories.fill_project(project, 1)
    report_prompt(lease=take_lease(project=project, annotator=annotator), reason="broken", note="cut off")
    page = open_page(lead, "/projects/support/")
    expect(page.locator(".nav-count")).to_contain_text("1")
    follow(page, "#nav-reports", "**/reports/")
    tab_to(page, "[value=close]")
    page.keyboard.press("Enter")
    expect(page.locator(".notice-success")).to_contain_text("1 open task closed")
    assert (PromptReport.objects.get().state, Task.objects.get().state) == ("closed_tasks", "closed")
