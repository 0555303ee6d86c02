"""The console in a real browser: what moves by itself, on narrow screens, and under the page's own policy."""

import pytest
from django.utils.timezone import now
from playwright.sync_api import expect

from labeling.annotation.models import Slot
from labeling.preferences.freezes import work_off_freezes
from labeling.preferences.models import Freeze
from labeling.preferences.services import create_snapshot
from labeling.projects.services import add_member
from tests import factories
from tests.browser.axe import serious
from training.loop.models import Iteration
from training.registry.models import ModelVersion
from training.runs.models import Run, RunEvent

PAGES = (
    "", "tasks/", "quality/", "quality/?show=annotators", "quality/?show=checks", "quality/?show=coefficients", "reports/", "settings/", "people/", "guidelines/", "guidelines/?edit", "webhooks/", "webhooks/new/", "prompts/", "prompts/{prompt}/", "import/",
    "snapshots/", "snapshots/1/", "snapshots/new/", "snapshots/1/card/", "snapshots/1/verify/",
    "snapshots/compare/", "snapshots/withdrawals/", "snapshots/withdrawals/new/?prompt={prompt}", "runs/", "runs/new/?kind=dpo", "runs/compare/", "runs/disk/", "runs/{run}/", "models/", "models/{model}/", "models/{model}/card/", "models/lineage/", "models/import/", "models/stages/",
    "features/", "iterations/", "iterations/1/", "iterations/new/",
)  # fmt: skip


@pytest.fixture
def world(site):
    """One of everything, and a run that goes on."""
    lead = factories.make_user("lead")
    annotator = factories.make_user("an-annotator-with-a-long-name")
    project = factories.make_project(lead, members={annotator: "annotator"})
    factories.fill_project(project, 12)
    factories.judge_all(project, annotator, limit=8)
    snapshot = create_snapshot(project=project, created_by=lead)
    base = ModelVersion.objects.create(key="small@1", name="small", version=1, kind="base", folder="b")
    policy = ModelVersion.objects.create(
        key="support-dpo@1", name="support-dpo", version=1, kind="policy", project=project, parent=base, base=base,
        snapshot=snapshot, folder="p", files={"adapter_model.safetensors": "ab" * 32}, lineage={"run": 1, "recipe": "dpo"},
    )  # fmt: skip
    run = Run.objects.create(
        project=project, kind="dpo", model=base, snapshot=snapshot, state="running", progress=0.1, started_at=now(),
        disk_bytes=12_000_000, checkpoint_bytes=9_000_000,
    )
    Iteration.objects.create(
        project=project, number=1, policy_before=base, stage="collecting",
        stage_log=[{"stage": "sampling", "at": now().isoformat()}, {"stage": "collecting", "at": now().isoformat()}],
    )  # fmt: skip
    return {
        "lead": lead,
        "annotator": annotator,
        "project": project,
        "run": run,
        "model": policy,
        "prompt": project.prompts.first(),
    }


def add_step(run: Run, step: int) -> None:
    metrics = {"loss": 1 / step, "rewards/chosen": step / 10, "rewards/rejected": -step / 10}
    RunEvent.objects.create(run=run, number=step, type="metric", step=step, payload={"metrics": metrics}, at=now())


def test_the_curves_of_a_running_run_grow_without_a_reload(world, open_page):
    run = world["run"]
    for step in range(1, 4):
        add_step(run, step)
    page = open_page(world["lead"], f"/projects/support/runs/{run.pk}/")
    loss = page.locator(".plot", has_text="Loss")
    loss.wait_for()
    assert loss.get_attribute("data-points") == "3"
    page.evaluate("window.stayed = true")
    for step in range(4, 8):
        add_step(run, step)
    page.wait_for_selector('.plot[data-points="7"]')
    assert loss.get_attribute("data-points") == "7"
    assert "falls from 1 to 0.143" in loss.locator("canvas").get_attribute("aria-label")
    assert page.evaluate("window.stayed")
    # Both rewards share a plot, and its numbers can be had as a table and a file.
    rewards = page.locator(".plot", has_text="Reward")
    assert rewards.locator(".plot-key").all_inner_texts() == ["chosen", "rejected"]
    rewards.locator("summary").click()
    rewards.locator("tbody tr").nth(6).wait_for()  # the table is made when it is opened
    assert rewards.locator("tbody tr").count() == 7
    with page.expect_download() as download:
        rewards.get_by_text("CSV", exact=True).last.click()
    assert download.value.suggested_filename == f"run-{run.pk}-rewards.csv"
    assert download.value.path().read_text().splitlines()[:2] == ["step,chosen,rejected", "1,0.1,-0.1"]


def test_ticked_runs_are_drawn_side_by_side(world, open_page):
    run = world["run"]
    other = Run.objects.create(
        project=run.project, kind="dpo", model=run.model, snapshot=run.snapshot, state="done", spec={"beta": 0.3}
    )
    for each in (run, other):
        for step in range(1, 6):
            add_step(each, step)
    page = open_page(world["lead"], "/projects/support/runs/")
    for each in (other, run):
        page.get_by_label(f"Compare run {each.pk}").focus()
        page.keyboard.press("Space")
    # News of a run draws the list anew; what is ticked stays ticked.
    page.get_by_role("button", name="Compare").focus()
    Run.objects.filter(pk=run.pk).update(progress=0.77)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.locator("#runs", has_text="77 %").wait_for()
    page.get_by_label(f"Compare run {run.pk}").focus()
    page.keyboard.press("Enter")
    loss = page.locator(".plot", has_text="loss")
    loss.wait_for()
    assert loss.locator(".plot-key").all_inner_texts() == [f"run {other.pk}", f"run {run.pk}"]
    assert page.get_by_role("region", name="Options that differ").locator("tbody tr").count() == 1


def test_a_plot_has_the_ink_of_the_theme(world, open_page):
    add_step(world["run"], 1)
    page = open_page(world["lead"], f"/projects/support/runs/{world['run'].pk}/")
    page.locator(".plot").first.wait_for()
    read = "Object.values(Chart.instances)[0].options.scales.y.ticks.color"
    light = page.evaluate(read)
    page.locator("[data-theme-toggle]").click()
    page.wait_for_timeout(200)
    assert page.evaluate(read) != light


def test_the_front_page_follows_judgements_with_the_socket_closed(world, open_page):
    page = open_page(world["lead"], "/projects/support/")
    strip = page.locator("#loop-strip")
    assert "judgements 8" in strip.inner_text().replace("\n", " ")
    factories.judge_all(world["project"], world["annotator"], limit=1)
    # Coming back to the tab asks at once; otherwise it would be the poll, some seconds later.
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.locator("#loop-strip", has_text="judgements 9").wait_for()


def test_no_page_scrolls_sideways_on_a_phone_or_breaks_its_own_policy(world, open_page):
    page = open_page(world["lead"], "/projects/support/", viewport={"width": 390, "height": 844})
    said = []
    page.on("console", lambda message: said.append(message.text))
    for path in PAGES:
        path = path.format(run=world["run"].pk, model=world["model"].pk, prompt=world["prompt"].pk)
        page.goto(page.url.split("/projects/")[0] + f"/projects/support/{path}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    assert [text for text in said if "Content Security Policy" in text or "TypeError" in text] == []


def test_a_run_is_started_and_cancelled_by_keyboard(world, open_page):
    page = open_page(world["lead"], "/projects/support/runs/new/?kind=reward_head")
    page.get_by_label("Snapshot").focus()
    page.get_by_role("button", name="Start").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/*/")
    page.get_by_role("button", name="Cancel").focus()
    page.keyboard.press("Enter")
    page.get_by_text("cancelled").first.wait_for()
    assert Run.objects.order_by("-pk").first().state == "cancelled"


def test_pace_against_agreement_is_a_dot_for_each_annotator_with_a_table_behind(world, open_page):
    project, second = world["project"], factories.make_user("second")
    add_member(project=project, user=second, role="annotator")
    project.tasks.update(overlap=2)
    for task in project.tasks.all():
        Slot.objects.create(task=task, project=project, number=2, position=task.pk)
    project.tasks.update(state="open")
    factories.judge_all(project, second)
    page = open_page(world["lead"], "/projects/support/quality/?show=annotators")
    plot = page.locator(".plot", has_text="by the median time taken")
    plot.wait_for()
    assert plot.get_attribute("data-points") == "2"
    said = plot.locator("canvas").get_attribute("aria-label")
    assert "2 annotators, from 1 to 1 at 5 to 5 seconds" in said
    plot.locator("summary").click()
    rows = plot.locator("tbody tr")
    rows.nth(1).wait_for()
    assert plot.locator("th").all_inner_texts() == ["annotators", "seconds", "share", "95 % interval, low", "high", "n"]
    assert {rows.nth(row).locator("td").first.inner_text() for row in range(2)} == {
        "an-annotator-with-a-long-name", "second",
    }  # fmt: skip
    page.get_by_role("link", name="Overview", exact=True).last.press("Enter")
    bars = page.locator(".plot", has_text="how much rankings of them differ")
    bars.wait_for()
    assert "not settled: 8 in all over 10" in bars.locator("canvas").get_attribute("aria-label")


def test_counts_follow_the_filters_and_freezing_leads_to_the_snapshot_by_itself(world, open_page):
    page = open_page(world["lead"], "/projects/support/snapshots/new/")
    page.locator("#preview dl:has-text('judgements')").wait_for()
    page.get_by_label("person", exact=True).check()
    page.get_by_label("preference data").uncheck()
    page.get_by_label("comparing policies").check()
    page.locator("#preview:has-text('Nothing passes')").wait_for()
    page.get_by_label("comparing policies").uncheck()
    page.get_by_label("preference data").check()
    page.locator("#preview:has-text('by 1 person')").wait_for()
    page.get_by_label("Name").fill("by hand")
    page.get_by_text("More", exact=False).first.click()
    page.get_by_label("Margins").fill("1, 2, 3")
    page.get_by_role("button", name="Freeze", exact=True).click()
    page.locator("text=Waiting for a worker").wait_for()
    factories.judge_all(world["project"], world["annotator"])  # so that it isn't the snapshot there is
    Freeze.objects.update(filters={})
    work_off_freezes()
    page.wait_for_url("**/snapshots/2/")
    assert page.locator("header .soft", has_text="by hand").is_visible()


def test_the_lineage_is_walked_by_keyboard_and_passes_axe(world, open_page):
    page = open_page(world["lead"], f"/projects/support/models/lineage/?of=model:{world['model'].pk}")
    here = page.locator(".lineage-graph a.is-here")
    expect(here).to_be_in_viewport()
    page.locator(".lineage-scroll").focus()
    page.keyboard.press("Tab")  # one stop for all nodes; the arrow keys reach the others
    expect(here).to_be_focused()
    page.keyboard.press("ArrowLeft")
    reached = page.evaluate("document.activeElement.querySelector('.graph-label').textContent")
    assert reached != "support-dpo@1" and serious(page) == []
    page.locator(".lineage-graph a", has_text="small@1").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("small@1")
