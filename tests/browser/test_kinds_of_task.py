"""Each kind of task, judged by keyboard alone on the real page and read back through the API."""

import re

import pytest
from playwright.sync_api import Page, expect

from labeling.accounts.roles import Role
from labeling.annotation.models import Lease, PromptReport
from labeling.annotation.services import create_tasks_for_prompts
from labeling.imports.services import import_rows
from labeling.projects.models import Completion, Prompt
from labeling.projects.services import change_project
from tests import factories
from tests.api_caller import Caller

BENCH = "/projects/support/bench/"
SCALES = {
    "helpfulness": {"low": 1, "high": 5, "labels": {"1": "useless", "5": "solves it"}, "help": "Does it help?"},
    "tone": {"low": 0, "high": 10},
    "change": {"low": -2, "high": 2},
}


@pytest.fixture
def annotator(site):
    return factories.make_user("annotator")


@pytest.fixture
def project(site, annotator):
    return factories.make_project(factories.make_user("lead"), members={annotator: Role.ANNOTATOR})


def tasks(project, n_prompts: int = 1, n_completions: int = 3, each: int | None = None) -> None:
    """`each` completions a task, by default all of a prompt's."""
    rows = factories.completions_rows(n_prompts, n_completions) if n_completions else prompts(n_prompts)
    import_rows(
        project=project, format="completions" if n_completions else "prompts", lines=rows, created_by=project.created_by
    )
    create_tasks_for_prompts(project=project, completions_per_task=n_completions if each is None else each)


def prompts(n: int) -> list[bytes]:
    return [b'{"prompt": "Write to the customer whose parcel %d is lost."}' % number for number in range(n)]


def keys(page: Page, *strokes: str) -> None:
    for stroke in strokes:
        page.keyboard.press(stroke)


def sent(page: Page, annotator, n: int = 1) -> dict:
    """The newest judgement as the API gives it, once the page says that it is saved."""
    expect(page.locator(".bench-state:not(.is-quiet)")).to_have_attribute("data-state", "saved")
    expect(page.locator("[data-figures] b")).to_have_text(str(n))
    found = Caller(annotator).get("projects/support/judgements/").json()["results"]
    assert len(found) == n
    body = found[0]["judgement"]
    assert body.pop("seconds") >= 0
    return body


def test_several_axes_are_rated_one_digit_after_the_other(project, annotator, open_page):
    change_project(project=project, form={"ranking": False, "ratings": SCALES, "required": ["ratings"], "rationale": "off"})
    tasks(project, 1, 2)
    page = open_page(annotator, BENCH)
    keys(page, "Enter")
    expect(page.locator("[data-said]")).to_contain_text("Still open: helpfulness of a")
    # The row that is open has the focus: 4 of 5, 0 of 0 to 10, then the fifth place on -2 to 2.
    keys(page, "4", "0", "5")
    # Then the next completion, by itself; and a row that was passed over comes back.
    expect(page.locator("[data-card=b] .is-current legend")).to_contain_text("helpfulness")
    keys(page, "ArrowDown", "9", "1")
    expect(page.locator("[data-card=b] .is-current legend")).to_contain_text("helpfulness")
    keys(page, "2", "ArrowUp", "ArrowRight", "ArrowRight", "Enter")
    body = sent(page, annotator)
    assert body["ratings"]["a"] == {"helpfulness": 4, "tone": 0, "change": 2}
    assert body["ratings"]["b"]["helpfulness"] == 2 and body["ratings"]["b"]["tone"] == 9
    assert body["ratings"]["b"]["change"] == 0 and set(body) == {"ratings"}


def test_good_or_not_takes_one_key_a_completion(project, annotator, open_page):
    change_project(
        project=project, form={"ranking": False, "acceptable": True, "flags": ["rude", "unsafe"], "required": ["acceptable"], "none_acceptable": False},
    )  # fmt: skip
    tasks(project, 1, 3)
    page = open_page(annotator, BENCH)
    keys(page, "a", "y", "x", "r")
    keys(page, "y", "b", "r", "2", "Enter")
    assert sent(page, annotator) == {"acceptable": {"a": True, "b": False, "c": True}, "flags": {"b": ["unsafe"]}}


def test_single_completions_get_a_task_each(project, annotator, open_page):
    change_project(project=project, form={"ranking": False, "acceptable": True, "rationale": "off"})
    tasks(project, 1, 3, each=1)
    page = open_page(annotator, BENCH)
    for n, key in enumerate("yxy", 1):
        keys(page, key, "Enter")
        assert sent(page, annotator, n) == {"acceptable": {"a": key == "y"}}
    expect(page.locator("[data-nothing]")).to_be_visible()


def test_best_first_ranks_at_one_stroke_each_with_ties(project, annotator, open_page):
    tasks(project, 2, 9)
    page = open_page(annotator, BENCH)
    keys(page, "q")
    expect(page.locator("[data-best-first]")).to_have_attribute("aria-pressed", "true")
    keys(page, "c", "a", "=", "b", "i", "h", "g", "f", "e")
    assert page.locator("[data-order]").inner_text() == "c › a = b › i › h › g › f › e › d"
    keys(page, "Enter")
    assert sent(page, annotator) == {"ranking": [["c"], ["a", "b"], ["i"], ["h"], ["g"], ["f"], ["e"], ["d"]]}
    keys(page, "b", "a")  # it is remembered for the next task
    assert page.locator("[data-order]").inner_text() == "b › a"
    keys(page, "q", "b")
    expect(page.locator("[data-card=b]")).to_have_class(re.compile("is-picked"))
    assert page.locator("[data-order]").inner_text() == "b › a"


def test_ranking_rating_accepting_and_flagging_go_together(project, annotator, open_page):
    change_project(
        project=project,
        form={"strength": True, "ratings": {"tone": {"low": 1, "high": 5}}, "acceptable": True, "flags": ["rude"], "required": ["strength"]},
    )  # fmt: skip
    tasks(project, 1, 3)
    page = open_page(annotator, BENCH)
    keys(page, "b", "1", "a", "2", "c", "2", "r", "4", "x")
    keys(page, "b", "r", "5", "y", "r")
    expect(page.locator("[data-card=b] .is-current")).to_have_count(1)
    keys(page, "Enter")
    expect(page.locator("[data-said]")).to_contain_text("how much better")
    keys(page, "ArrowRight", "Enter")
    assert sent(page, annotator) == {
        "ranking": [["b"], ["a", "c"]], "strength": 2, "ratings": {"b": {"tone": 5}, "c": {"tone": 4}},
        "acceptable": {"b": True, "c": False},
    }  # fmt: skip


def test_a_pair_with_parts_keeps_its_verdict_keys_outside_of_rows(project, annotator, open_page):
    change_project(project=project, form={"strength": True, "ratings": {"tone": {"low": 1, "high": 5}}})
    tasks(project, 1, 2)
    page = open_page(annotator, BENCH)
    keys(page, "6", "a", "r", "3", "b", "r", "4", "Enter")
    assert sent(page, annotator) == {
        "ranking": [["b"], ["a"]], "strength": 2, "ratings": {"a": {"tone": 3}, "b": {"tone": 4}},
    }  # fmt: skip


def test_a_demonstration_is_written_from_nothing(project, annotator, open_page):
    change_project(project=project, form={"ranking": False, "demonstration": "required", "rationale": "off"})
    tasks(project, 2, 0, each=0)
    page = open_page(annotator, BENCH)
    keys(page, "Enter")
    expect(page.locator("[data-said]")).to_contain_text("Write the completion")
    page.keyboard.type("Dear customer, s u n 1 2 3")
    keys(page, "Enter")
    page.keyboard.type("we are on it. 好 👍")
    keys(page, "Control+Enter")
    text = "Dear customer, s u n 1 2 3\nwe are on it. 好 👍"
    assert sent(page, annotator) == {"demonstration": text}
    written = Completion.objects.get(author=annotator)
    assert (written.content, written.model_key, written.corrects) == (text, "", None)


def test_a_long_conversation_folds_and_a_hidden_system_prompt_is_not_in_the_page(project, annotator, open_page):
    change_project(project=project, bench={"system_prompts": "hidden", "fold_turns": 4})
    tasks(project, 1, 3)
    messages = [{"role": "system", "content": "SECRET"}]
    messages += [{"role": ("user", "assistant")[n % 2], "content": f"turn number {n}"} for n in range(31)]
    Prompt.objects.filter(project=project).update(messages=messages)
    page = open_page(annotator, BENCH)
    assert "SECRET" not in page.content()
    for n, visible in ((0, True), (1, False), (26, False), (27, True), (30, True)):
        expect(page.get_by_text(f"turn number {n}", exact=True)).to_be_visible(visible=visible)
    expect(page.locator("[data-folded-turns] summary")).to_contain_text("26 earlier turns")
    keys(page, "o")
    expect(page.get_by_text("turn number 12", exact=True)).to_be_visible()
    keys(page, "o")
    expect(page.get_by_text("turn number 12", exact=True)).to_be_hidden()


def test_texts_of_a_sensitive_project_are_blurred_until_asked_for(project, annotator, open_page):
    change_project(project=project, bench={"content_warning": "Insults.", "blur": True})
    tasks(project, 2, 3)
    page = open_page(annotator, BENCH)
    expect(page.get_by_text("Insults.")).to_be_visible()
    assert not Lease.objects.exists()
    keys(page, "Enter")
    expect(page.locator("[data-task].is-blurred")).to_be_visible()
    keys(page, "z")
    expect(page.locator("[data-task].is-blurred")).to_have_count(0)
    keys(page, "Shift+A", "Shift+B", "Enter")
    sent(page, annotator)
    expect(page.locator("[data-task].is-blurred")).to_be_visible()


def test_a_prompt_is_reported_and_the_task_skipped_with_it(project, annotator, open_page):
    tasks(project, 2, 3)
    page = open_page(annotator, BENCH)
    first = page.locator("[data-task]").get_attribute("data-task")
    keys(page, "p", "2", "Tab")
    page.keyboard.type("a telephone number")
    keys(page, "Enter")
    expect(page.locator(f"[data-task='{first}']")).to_have_count(0)
    expect(page.locator("[data-word]")).to_contain_text("Reported")
    report = PromptReport.objects.get()
    assert (report.reason, report.note) == ("personal_data", "a telephone number")
    assert Lease.objects.get(pk=first).state == Lease.State.SKIPPED
    keys(page, "Escape")
    expect(page.locator("[data-word]")).to_be_hidden()


def test_judging_faster_than_reading_is_remarked_gently_and_only_when_it_goes_on(project, annotator, open_page):
    tasks(project, 4, 3)
    Completion.objects.update(content="word " * 400)
    page = open_page(annotator, BENCH)
    keys(page, "Shift+A", "Shift+B", "Enter")
    sent(page, annotator, 1)
    expect(page.locator("[data-word]")).to_be_hidden()
    keys(page, "Shift+A", "Shift+B", "Enter")
    expect(page.locator("[data-word]")).to_contain_text("That was quick")
    sent(page, annotator, 2)


def test_keys_are_asleep_in_every_text_field(project, annotator, open_page):
    change_project(project=project, form={"corrections": True, "demonstration": "optional", "rationale": "optional"})
    tasks(project, 1, 3)
    page = open_page(annotator, BENCH)
    every_key = "abcs u n q r t m e d o w p z j y x ? = 0123"
    for field in ("[data-rationale-field]", "[data-demonstration-field]"):
        page.locator(field).focus()
        page.keyboard.type(every_key)
        expect(page.locator(field)).to_have_value(every_key)
    keys(page, "Escape", "b", "e")
    page.keyboard.press("Control+A")
    page.keyboard.type(every_key)
    expect(page.locator("[name='correction.b']")).to_have_value(every_key)
    assert page.locator("[data-order]").inner_text() == ""
    assert page.locator("dialog[open]").count() == 0


def test_a_text_without_a_fault_is_submitted_as_it_is(project, annotator, open_page):
    change_project(project=project, form={"ranking": False, "marks": ["wrong fact"], "corrections": True, "rationale": "off"})
    tasks(project, 1, 1)
    page = open_page(annotator, BENCH)
    keys(page, "Enter")
    assert sent(page, annotator) == {}


def test_the_day_ends_where_the_cap_says_with_its_reason(project, annotator, open_page):
    change_project(project=project, bench={"daily_cap": 2})
    tasks(project, 4, 3)
    page = open_page(annotator, BENCH)
    for n in (1, 2):
        keys(page, "Shift+A", "Shift+B", "Enter")
        sent(page, annotator, n)
    expect(page.get_by_role("heading", name="That is enough for today")).to_be_visible()


def test_a_break_is_proposed_after_so_much_work_and_not_after_a_pause(project, annotator, open_page):
    change_project(project=project, bench={"break_minutes": 3})
    tasks(project, 1, 3)
    page = open_page(annotator, "/profile/")
    page.clock.install()
    page.goto(page.url.replace("/profile/", BENCH))
    expect(page.locator("[data-task].is-live")).to_be_visible()

    def work(minutes: int) -> None:
        for half in range(2 * minutes):
            keys(page, "ab"[half % 2])
            page.clock.run_for(30_000)

    work(2)
    page.clock.run_for(10 * 60_000)  # nobody there
    work(2)
    expect(page.locator("[data-word]")).to_be_hidden()
    work(2)
    expect(page.locator("[data-word]")).to_contain_text("without a break")


def test_the_focus_is_always_somewhere(project, annotator, open_page):
    change_project(project=project, form={"ratings": {"tone": {"low": 1, "high": 5}}, "corrections": True, "rationale": "optional"})
    tasks(project, 3, 3)
    page = open_page(annotator, BENCH)
    strokes = ["a", "1", "Escape", "Escape", "b", "r", "4", "Escape", "w", "Escape", "a", "e", "Escape", "s", "Escape", "?", "Escape",
               "p", "Escape", "g", "Escape", "o", "q", "c", "b", "u", "q", "Backspace", "0", "ArrowLeft", "t", "n"]  # fmt: skip
    for stroke in strokes:
        keys(page, stroke)
        assert page.evaluate("document.activeElement !== document.body && document.activeElement.isConnected"), stroke
