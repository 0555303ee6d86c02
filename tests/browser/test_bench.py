"""The bench as annotators use it: keys first, then mouse and finger, then a bad network."""

import re

import pytest
from playwright.sync_api import Page, expect

from labeling.accounts.roles import Role
from labeling.annotation.models import Judgement, Lease, Slot
from labeling.annotation.services import create_tasks_for_prompts, judgement_body
from labeling.imports.services import import_rows
from labeling.projects.services import add_member, change_project, create_project
from labeling.projects.text import canonical_json
from tests import factories
from tests.browser.held import first_held
from tests.browser.resting import at_rest
from tests.labeling.web.test_markdown import HOSTILE

BENCH = "/projects/support/bench/"


@pytest.fixture
def annotator(site):
    return factories.make_user("annotator")


@pytest.fixture
def project(site, annotator):
    return factories.make_project(factories.make_user("lead"), members={annotator: Role.ANNOTATOR})


def keys(page: Page, *strokes: str) -> None:
    for stroke in strokes:
        page.keyboard.press(stroke)


def task_of(page: Page) -> int:
    return int(page.locator("[data-task]").get_attribute("data-task"))


def saved(page: Page) -> None:
    expect(page.locator(".bench-state:not(.is-quiet)")).to_have_attribute("data-state", "saved")


def tier(page: Page, key: str) -> str | None:
    return page.locator(f"[name='rank.{key}']").input_value() or None


def add_rows(project, rows: list[dict]) -> None:
    import_rows(
        project=project, format="completions", lines=[canonical_json(row).encode() for row in rows], created_by=None
    )
    create_tasks_for_prompts(project=project, completions_per_task=9)


# --- keys ---------------------------------------------------------------------------------------
def test_four_completions_are_ranked_by_keyboard_alone(project, annotator, open_page):
    factories.fill_project(project, 3, n_completions=4)
    page = open_page(annotator, BENCH)
    lease = Lease.objects.get(pk=task_of(page))
    shown = [card.get_attribute("data-card") for card in page.locator("[data-card]").all()]
    assert shown == list("abcd")
    keys(page, "b", "1", "a", "2", "d", "2", "c", "3")
    assert page.locator("[data-order]").inner_text() == "b › a = d › c"
    page.evaluate("window.stillHere = true")
    keys(page, "Enter")
    expect(page.locator(f"[data-task='{lease.pk}']")).to_have_count(0)
    saved(page)
    judgement = Judgement.objects.get()
    a, b, c, d = lease.order_shown
    assert judgement.ranking == [[b], sorted([a, d], key=[a, d].index), [c]]
    assert judgement.order_shown == lease.order_shown
    assert judgement.lease_id == lease.pk
    assert 0 < judgement.seconds < 60
    # The next task came without a reload, and the keyboard is where it can go on.
    assert page.evaluate("window.stillHere")
    assert page.evaluate("document.activeElement.matches('[data-prompt]')")
    expect(page.locator("[data-announce]")).to_have_text("Next task, 4 completions")
    expect(page.locator("[data-figures] b")).to_have_text("1")


def test_next_best_keys_arrows_ties_and_undo(project, annotator, open_page):
    factories.fill_project(project, 1)
    page = open_page(annotator, BENCH)
    order = page.locator("[data-order]")
    keys(page, "Shift+C", "Shift+A", "Shift+B")
    expect(order).to_have_text("c › a › b")
    keys(page, "ArrowUp")
    expect(order).to_have_text("c › a = b")
    keys(page, "ArrowUp")
    expect(order).to_have_text("c › b › a")
    keys(page, "t")
    expect(order).to_have_text("b = c › a")
    keys(page, "u", "u")
    expect(order).to_have_text("c › a = b")
    keys(page, "ArrowDown")
    expect(order).to_have_text("c › a › b")
    keys(page, "0")
    expect(order).to_have_text("c › a")
    keys(page, "Enter")
    expect(page.locator("[data-said]")).to_have_text("Not ranked yet: b")
    assert Judgement.objects.count() == 0


def test_two_completions_take_one_key_where_nothing_more_is_asked(project, annotator, open_page):
    change_project(project=project, form={"rationale": "off", "strength": True})
    factories.fill_project(project, 2, n_completions=2)
    page = open_page(annotator, BENCH)
    lease = Lease.objects.get(pk=task_of(page))
    keys(page, "7")
    expect(page.locator(f"[data-task='{lease.pk}']")).to_have_count(0)
    saved(page)
    body = judgement_body(Judgement.objects.get())
    assert (body["ranking"], body["strength"]) == ([["b"], ["a"]], 3)


def test_one_key_decides_between_two_and_a_reason_may_be_written_before(project, annotator, open_page):
    factories.fill_project(project, 2, n_completions=2)
    page = open_page(annotator, BENCH)
    keys(page, "w")
    page.keyboard.type("both 1 and 2 are fine, s and u too")
    keys(page, "Escape", "2")
    saved(page)
    body = judgement_body(Judgement.objects.get())
    assert body["ranking"] == [["a", "b"]]
    assert body["rationale"] == "both 1 and 2 are fine, s and u too"
    assert "none_acceptable" not in body


def test_zero_says_that_both_are_bad(project, annotator, open_page):
    change_project(project=project, form={"strength": True})
    factories.fill_project(project, 2, n_completions=2)
    page = open_page(annotator, BENCH)
    keys(page, "0")
    saved(page)
    body = judgement_body(Judgement.objects.get())
    assert (body["ranking"], body["none_acceptable"]) == ([["a", "b"]], True) and "strength" not in body


def test_a_better_one_of_two_bad_ones(project, annotator, open_page):
    change_project(project=project, form={"strength": True})
    factories.fill_project(project, 2, n_completions=2)
    page = open_page(annotator, BENCH)
    keys(page, "n", "6")
    saved(page)
    body = judgement_body(Judgement.objects.get())
    assert (body["ranking"], body["strength"], body["none_acceptable"]) == ([["b"], ["a"]], 2, True)


def test_help_lists_every_key_that_a_control_prints(project, annotator, open_page):
    change_project(project=project, form={"corrections": True, "rationale": "required"})
    factories.fill_project(project, 1)
    page = open_page(annotator, BENCH)
    printed = {text.strip() for text in page.locator(".task kbd, .site-header kbd").all_inner_texts() if text.strip()}
    keys(page, "?")
    expect(page.locator("[data-help-dialog]")).to_be_visible()
    listed = set(page.locator("[data-help-table] kbd").all_inner_texts())
    assert {"s", "u", "n", "t", "g", "w", "e", "?"} <= printed
    assert {key.replace("⏎", "Enter") for key in printed} <= listed
    assert {"a", "c", "1", "3", "0", "↑", "↓", "←", "→", "o", "Esc", "Ctrl+Enter"} <= listed
    keys(page, "Escape")
    expect(page.locator("[data-help-dialog]")).to_be_hidden()


def test_skipping_asks_why_and_goes_on(project, annotator, open_page):
    factories.fill_project(project, 2)
    page = open_page(annotator, BENCH)
    first = task_of(page)
    keys(page, "s", "4", "Enter")
    expect(page.locator(f"[data-task='{first}']")).to_have_count(0)
    lease = Lease.objects.get(pk=first)
    assert (lease.state, lease.skip_reason) == (Lease.State.SKIPPED, "broken")


def test_undo_after_submitting_reopens_the_judgement_and_replaces_it(project, annotator, open_page):
    factories.fill_project(project, 2)
    page = open_page(annotator, BENCH)
    keys(page, "Shift+A", "Shift+B", "Shift+C", "Enter")
    saved(page)
    first = Judgement.objects.get()
    keys(page, "u")
    page.wait_for_url(f"**/history/{first.pk}/")
    expect(page.locator("[data-order]")).to_have_text("a › b › c")
    keys(page, "c", "1", "Enter")
    page.wait_for_url(f"**{BENCH}")
    second = Judgement.objects.get(supersedes=first)
    assert judgement_body(second)["ranking"] == [["a", "c"], ["b"]]


def test_the_last_task_leads_to_an_empty_bench_that_says_so(project, annotator, open_page):
    factories.fill_project(project, 1)
    page = open_page(annotator, BENCH)
    keys(page, "Shift+A", "Shift+B", "Shift+C", "Enter")
    expect(page.get_by_role("heading", name="Nothing is left for you here")).to_be_visible()
    assert Judgement.objects.count() == 1
    keys(page, "u")  # the last judgement of all can be reopened as well
    expect(page.locator("[data-revision]")).to_be_visible()


# --- mouse and finger ---------------------------------------------------------------------------
def test_a_dragged_card_lands_in_its_tier(project, annotator, open_page):
    factories.fill_project(project, 1)
    page = open_page(annotator, BENCH)
    handle = at_rest(page, page.locator("[data-card=b] [data-handle]").bounding_box)
    goal = page.locator("[data-tier='2']").bounding_box()
    page.mouse.move(handle["x"] + 60, handle["y"] + 12)
    page.mouse.down()
    page.mouse.move(handle["x"] + 80, handle["y"] - 10)
    page.mouse.move(goal["x"] + 200, goal["y"] + goal["height"] / 2)
    expect(page.locator("[data-tier='2']")).to_have_class(re.compile("drop-in"))
    page.mouse.up()
    assert [tier(page, key) for key in "abc"] == [None, "2", None]
    expect(page.locator("[data-tier='2'] [data-card=b]")).to_be_visible()
    expect(page.locator(".drag-chip")).to_have_count(0)


def test_a_drag_to_the_edge_of_a_tier_goes_between(project, annotator, open_page):
    factories.fill_project(project, 1)
    page = open_page(annotator, BENCH)
    keys(page, "Shift+A", "Shift+B")
    goal = page.locator("[data-tier='2']")
    expect(goal.locator("[data-card=b]")).to_be_visible()
    handle = at_rest(page, page.locator("[data-card=c] [data-handle]").bounding_box)
    page.mouse.move(handle["x"] + 60, handle["y"] + 12)
    page.mouse.down()
    box = at_rest(page, goal.bounding_box)
    page.mouse.move(box["x"] + 200, box["y"] + box["height"] / 2)
    expect(goal).to_have_class(re.compile("drop-in"))
    box = at_rest(page, goal.bounding_box)  # where it is while something is dragged
    page.mouse.move(box["x"] + 200, box["y"] + 6)
    expect(goal).to_have_class(re.compile("drop-before"))
    page.mouse.up()
    expect(page.locator("[data-order]")).to_have_text("a › c › b")


def test_a_phone_ranks_by_tapping_and_nothing_is_wider_than_it(site, project, annotator, open_page):
    code = (
        "```\n"
        + "x = 'a very long line of code' " * 9
        + "\n```\n\n"
        + "w" * 300
        + "\n\n| a | b |\n|--|--|\n"
        + "| wide | cell |\n" * 3
    )
    add_rows(
        project,
        [{"prompt": f"{n} {code}", "completions": [{"content": f"{i} {code}"} for i in range(4)]} for n in range(2)],
    )
    page = open_page(annotator, BENCH, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    for path in ("/", "/profile/", BENCH + "history/", BENCH):
        page.goto(site.url(path))
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
    for key, rank in (("b", 1), ("a", 2), ("d", 2), ("c", 3)):
        button = page.locator(f"[data-card={key}] [data-put='{rank}']")
        button.tap()
        expect(button).to_have_attribute("aria-pressed", "true")
        assert button.bounding_box()["height"] >= 44
    page.locator("[data-submit]").tap()
    saved(page)
    assert judgement_body(Judgement.objects.get())["ranking"] == [["b"], ["a", "d"], ["c"]]


# --- nothing is lost ----------------------------------------------------------------------------
def test_a_draft_survives_a_reload(project, annotator, open_page):
    factories.fill_project(project, 2)
    page = open_page(annotator, BENCH)
    first = task_of(page)
    keys(page, "b", "1", "w")
    page.keyboard.type("half a thought")
    saved(page)
    page.reload()
    assert task_of(page) == first
    assert [tier(page, key) for key in "abc"] == [None, "1", None]
    expect(page.locator("[data-rationale-field]")).to_have_value("half a thought")


def test_a_draft_the_server_never_got_survives_in_the_browser(project, annotator, open_page):
    factories.fill_project(project, 2)
    page = open_page(annotator, BENCH)
    page.route("**/draft/", lambda route: route.abort())
    keys(page, "c", "2")
    expect(page.locator(".bench-state")).to_have_attribute("data-state", "offline")
    page.unroute("**/draft/")
    page.reload()
    assert tier(page, "c") == "2"
    saved(page)
    assert Lease.objects.get(pk=task_of(page)).draft["ranking"] == [[], ["c"]]


def test_an_answer_given_offline_is_delivered_once_when_the_network_is_back(project, annotator, open_page):
    factories.fill_project(project, 3)
    page = open_page(annotator, BENCH)
    page.wait_for_load_state("networkidle")
    page.context.set_offline(True)
    first = task_of(page)
    keys(page, "Shift+C", "Shift+B", "Shift+A", "Enter")
    expect(page.locator(f"[data-task='{first}']")).to_have_count(0)  # the next one was fetched ahead
    expect(page.locator("[data-state-text]")).to_have_text("offline, kept here · 1 to send")
    assert Judgement.objects.count() == 0
    page.context.set_offline(False)
    saved(page)
    assert judgement_body(Judgement.objects.get())["ranking"] == [["c"], ["b"], ["a"]]
    assert Judgement.objects.get().lease_id == first


def test_an_answer_whose_receipt_got_lost_is_sent_again_and_counts_once(project, annotator, open_page):
    factories.fill_project(project, 3)
    page = open_page(annotator, BENCH)
    page.wait_for_load_state("networkidle")
    tries = []

    def lose_the_first(route):
        tries.append(route.request.post_data)
        if len(tries) == 1:
            route.fetch()
            route.abort()
        else:
            route.continue_()

    page.route("**/submit/*", lose_the_first)
    page.route("**/submit/", lose_the_first)
    keys(page, "Shift+C", "Shift+B", "Shift+A", "Enter")
    expect(page.locator(".bench-state")).to_have_attribute("data-state", "offline")
    assert Judgement.objects.count() == 1
    saved(page)
    assert len(tries) == 2 and tries[0] == tries[1]
    assert Judgement.objects.count() == 1


def test_an_answer_left_behind_by_a_closed_page_is_sent_by_the_next(project, annotator, open_page):
    factories.fill_project(project, 3)
    page = open_page(annotator, BENCH)
    page.wait_for_load_state("networkidle")
    first = task_of(page)
    page.route(re.compile("/submit/"), lambda route: route.abort())
    keys(page, "Shift+C", "Shift+B", "Shift+A", "Enter")
    expect(page.locator(".bench-state")).to_have_attribute("data-state", "offline")
    page.unroute(re.compile("/submit/"))
    page.reload()
    saved(page)
    expect(page.locator(f"[data-task='{first}']")).to_have_count(0)
    assert Judgement.objects.get().lease_id == first


def test_a_task_closed_in_another_tab_is_told_with_a_way_on(project, annotator, open_page):
    factories.fill_project(project, 3)
    page = open_page(annotator, BENCH)
    other = page.context.new_page()
    other.goto(page.url)
    assert task_of(other) == task_of(page)
    keys(other, "Shift+A", "Shift+B", "Shift+C", "Enter")
    saved(other)
    page.bring_to_front()
    keys(page, "b", "1")
    expect(page.locator("[data-said]")).to_contain_text("This task is closed")
    page.get_by_role("button", name="Next task").click()
    expect(page.locator("[data-said]")).to_have_text("")
    assert task_of(page) not in Lease.objects.filter(state=Lease.State.DONE).values_list("pk", flat=True)


def test_two_annotators_never_hold_one_slot(project, annotator, open_page):
    factories.fill_project(project, 8)
    second = factories.make_user("second")
    add_member(project=project, user=second, role=Role.ANNOTATOR)
    pages = [open_page(annotator, BENCH), open_page(second, BENCH)]
    for _ in range(3):
        for page in pages:
            before = task_of(page)
            keys(page, "Shift+A", "Shift+B", "Shift+C", "Enter")
            expect(page.locator(f"[data-task='{before}']")).to_have_count(0)
    for page in pages:
        expect(page.locator("[data-figures] b")).to_have_text("3")
    assert Judgement.objects.count() == 6
    assert Judgement.objects.values("slot").distinct().count() == 6
    assert not Judgement.objects.filter(slot=None).exists()
    held = Lease.objects.filter(state=Lease.State.OPEN)
    assert (
        held.values("slot").distinct().count() == held.count() == Slot.objects.filter(state=Slot.State.LEASED).count()
    )


def test_time_away_from_the_task_is_not_counted(project, annotator, open_page):
    factories.fill_project(project, 2)
    page = open_page(annotator, "/profile/")
    page.clock.install()
    page.goto(page.url.replace("/profile/", BENCH))
    keys(page, "a")
    page.clock.run_for(20_000)
    keys(page, "1")
    page.clock.run_for(600_000)  # ten minutes without a sign of life: one of them counts
    keys(page, "Shift+B", "Shift+C", "Enter")
    page.clock.run_for(1_000)
    saved(page)
    assert 79 <= Judgement.objects.get().seconds <= 85


# --- hostile text -------------------------------------------------------------------------------
def test_hostile_texts_open_nothing_fetch_nothing_and_make_no_element(site, annotator, open_page):
    name = "<img src=x onerror=alert(1)>"
    project = create_project(
        slug="support",
        name=name,
        created_by=factories.make_user("lead"),
        guideline="\n\n".join(HOSTILE),
        form={"flags": [name[:40]], "rationale": "off"},
    )
    add_member(project=project, user=annotator, role=Role.ANNOTATOR)
    texts = [f"{payload}\n\nnumber {number}" for number, payload in enumerate(HOSTILE)]
    groups = [texts[start : start + 9] for start in range(0, len(texts) - 1, 9)]
    add_rows(
        project,
        [{"prompt": [{"role": "system", "content": group[1]}, {"role": "user", "content": group[0]}], "completions": [{"content": text} for text in group]} for group in groups],
    )  # fmt: skip
    page = open_page(annotator, "/profile/")
    dialogs, requests, refused = [], [], []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: requests.append(request.url))
    page.on(
        "console", lambda message: refused.append(message.text) if "Content Security Policy" in message.text else None
    )
    page.goto(site.url(BENCH))
    for _ in groups:
        keys(page, "g" if page.locator("[data-card=g]").count() == 0 else "l")
        inside = page.locator(".prose").evaluate_all(
            "blocks => [...new Set(blocks.flatMap(block => [...block.querySelectorAll('*')].map(one => one.localName)))]"
        )
        assert not {
            "script",
            "img",
            "svg",
            "style",
            "iframe",
            "form",
            "input",
            "link",
            "object",
            "embed",
            "math",
            "details",
        } & set(inside)
        before = task_of(page)
        for card in page.locator("[data-card]").all():
            keys(page, "Shift+" + card.get_attribute("data-card").upper())
        keys(page, "Enter")
        expect(page.locator(f"[data-task='{before}']")).to_have_count(0)
    expect(page.get_by_role("heading", name="Nothing is left for you here")).to_be_visible()
    page.goto(site.url(BENCH + "history/"))
    page.locator(".past-link").first.click()
    page.wait_for_load_state("networkidle")
    assert Judgement.objects.count() == len(groups)
    assert dialogs == []
    assert [url for url in requests if not url.startswith(site.address)] == []
    assert refused == []


# --- the pure parts, in the browser they run in -------------------------------------------------
def test_rankings_keep_every_card_exactly_once_whatever_is_done(project, annotator, open_page):
    page = open_page(annotator, BENCH)
    wrong = page.evaluate(
        """async () => {
          const R = await import("ranking");
          let seed = 7;
          const random = (n) => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
          for (let round = 0; round < 400; round++) {
            const keys = [..."abcdefghi"].slice(0, 2 + random(8));
            const ties = random(3) > 0;
            let ranking = R.emptyRanking(keys, { ties });
            for (let step = 0; step < 40; step++) {
              const key = keys[random(keys.length)];
              const before = JSON.stringify(ranking);
              const last = ranking;
              const rank = random(keys.length + 1);
              const move = random(6);
              ranking = [
                () => R.put(ranking, key, rank), () => R.insert(ranking, key, rank + 1), () => R.up(ranking, key),
                () => R.down(ranking, key), () => R.append(ranking, key), () => R.tie(ranking, key),
              ][move]();
              const all = [...ranking.tray, ...ranking.tiers.flat()].sort().join("");
              if (all !== keys.join("")) return [before, move, key, rank, JSON.stringify(ranking)];
              if (ranking.tiers.length !== keys.length) return ["tiers", before, move, key, rank];
              if (!ties && ranking.tiers.some((tier) => tier.length > 1)) return ["tied", before, move, key, rank];
              if (JSON.stringify(last) !== before) return ["changed its argument", before, move];
              if (move === 0 && ties && R.rankOf(ranking, key) !== rank) return ["put", before, key, rank];
              const others = (r) => R.groups(r).map((tier) => tier.filter((k) => k !== key).join("")).filter(Boolean).join(" ");
              if (move !== 2 && move !== 3 && others(last) !== others(ranking)) return ["moved others", before, move, key, rank, JSON.stringify(ranking)];
            }
            for (const key of keys) for (let i = 0; i < 40; i++) ranking = R.up(ranking, key);
            if (!R.isComplete(ranking)) return ["up leaves the tray", JSON.stringify(ranking)];
          }
          return null;
        }"""
    )
    assert wrong is None


def test_the_next_task_is_there_before_the_server_has_answered(project, annotator, open_page):
    factories.fill_project(project, 4, n_completions=4)
    page = open_page(annotator, BENCH)
    page.wait_for_load_state("networkidle")
    held_back = []
    page.route("**/submit/**", lambda route: held_back.append(route))
    first = task_of(page)
    keys(page, "Shift+A", "Shift+B", "Shift+C", "Shift+D", "Enter")
    expect(page.locator(f"[data-task='{first}']")).to_have_count(0)
    expect(page.locator("[data-task] [data-card=a] .prose")).to_be_visible()
    expect(page.locator(".bench-state")).to_have_attribute("data-state", "saving")
    assert not Judgement.objects.exists()
    first_held(page, held_back).continue_()
    saved(page)
    assert Judgement.objects.get().lease_id == first


def test_a_task_fetched_ahead_and_brought_by_an_answer_is_one_task(project, annotator, open_page):
    factories.fill_project(project, 4)
    page = open_page(annotator, "/profile/")
    ahead, answers = [], []

    def hold_back_the_first(held: list):
        return lambda route: route.continue_() if held else held.append(route)

    page.route("**/bench/next/", hold_back_the_first(ahead))
    page.route("**/submit/**", hold_back_the_first(answers))
    page.goto(page.url.replace("/profile/", BENCH))
    prefetch = first_held(page, ahead)
    seen = [task_of(page)]
    keys(page, "Shift+A", "Shift+B", "Enter")
    submit = first_held(page, answers)
    with page.expect_response("**/bench/next/"):
        prefetch.continue_()  # the prefetch comes first, then the answer with the same task in it
    submit.continue_()
    for n in (1, 2, 3):
        expect(page.locator(f"[data-task='{seen[-1]}']")).to_have_count(0)
        expect(page.locator("[data-figures] b")).to_have_text(str(n))
        seen.append(task_of(page))
        keys(page, "Shift+A", "Shift+B", "Enter")
    expect(page.locator("[data-nothing]")).to_be_visible()
    saved(page)
    assert len(set(seen)) == 4 and Judgement.objects.count() == 4


def test_a_task_fetched_ahead_that_comes_after_it_was_judged_is_not_shown_again(project, annotator, open_page):
    factories.fill_project(project, 3)
    page = open_page(annotator, "/profile/")
    held, answers = [], []

    def answer_later(route):
        if answers:
            return route.continue_()
        answers.append(route.fetch())
        held.append(route)
        return None

    page.route("**/bench/next/", answer_later)
    page.goto(page.url.replace("/profile/", BENCH))
    prefetch = first_held(page, held)
    for n in (1, 2):  # both come with the answer to a submit, while the server's other answer is on its way
        expect(page.locator(".bench-state")).to_have_attribute("data-state", "saved")
        keys(page, "Shift+A", "Shift+B", "Enter")
        expect(page.locator("[data-figures] b")).to_have_text(str(n))
    with page.expect_response("**/bench/next/"):
        prefetch.fulfill(response=answers[0])
    keys(page, "Shift+A", "Shift+B", "Enter")
    expect(page.locator("[data-nothing]")).to_be_visible()
    saved(page)
    assert Judgement.objects.count() == 3


def test_a_task_whose_time_ran_out_is_told_and_can_still_be_submitted(project, annotator, open_page):
    change_project(project=project, lease_seconds=30)
    factories.fill_project(project, 2)
    page = open_page(annotator, "/profile/")
    page.clock.install()
    page.goto(page.url.replace("/profile/", BENCH))
    page.wait_for_load_state("networkidle")
    first = task_of(page)
    Lease.objects.filter(pk=first).update(state=Lease.State.EXPIRED)
    Slot.objects.filter(leases=first).update(state=Slot.State.FREE, holder=None)
    keys(page, "a")
    page.clock.run_for(12_000)
    expect(page.locator("[data-said]")).to_contain_text("The time on this task ran out")
    keys(page, "Shift+A", "Shift+B", "Shift+C", "Enter")
    page.clock.run_for(1_000)
    saved(page)
    judgement = Judgement.objects.get()
    assert judgement.lease_id == first
    assert not judgement.is_surplus


def test_the_theme_follows_the_browser_until_the_person_chooses(project, annotator, open_page):
    page = open_page(annotator, BENCH, color_scheme="dark")
    body = page.locator("body")
    expect(body).to_have_css("background-color", "rgb(19, 20, 21)")
    page.get_by_role("button", name="Switch between light and dark").click()
    expect(body).to_have_css("background-color", "rgb(247, 247, 245)")
    page.reload()
    expect(body).to_have_css("background-color", "rgb(247, 247, 245)")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"


def test_without_scripts_the_bench_is_a_form_that_works(project, annotator, open_page):
    factories.fill_project(project, 2)
    page = open_page(annotator, BENCH, java_script_enabled=False)
    for key, rank in (("a", "2"), ("b", "1"), ("c", "2")):
        page.get_by_label(f"Rank of {key}", exact=False).and_(page.locator("select")).select_option(rank)
    page.get_by_role("button", name="Submit").click()
    assert judgement_body(Judgement.objects.get())["ranking"] == [["b"], ["a", "c"]]
