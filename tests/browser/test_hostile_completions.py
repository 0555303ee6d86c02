"""Hundreds of hostile texts, each shown on the real bench as a prompt and as a completion.

`hostile/completions.jsonl` holds them: {"name", "kind", "marker", "content"}. Whatever a text tries, its marker must
be there to read, and nothing else may have happened: no script, no request but the page's own, no change to the form.
"""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import Page

from labeling.accounts.roles import Role
from labeling.annotation.models import Lease
from labeling.annotation.services import create_tasks_for_prompts, submit_judgement
from labeling.imports.services import import_rows
from labeling.projects.text import canonical_json
from tests import factories

CORPUS = [
    json.loads(line) for line in (Path(__file__).parent / "hostile" / "completions.jsonl").read_text().splitlines()
]
# A database holds neither NUL nor half of a surrogate pair: an import refuses these rows. That they would be rendered
# all the same is tested in tests/labeling/web/test_markdown.py.
STORABLE = [row for row in CORPUS if row["kind"] != "unstorable"]
BENCH = "/projects/support/bench/"
OWN_PATHS = re.compile(
    r"/projects/support/bench/.*|/static/.*|/images/[0-9a-f]{32}/|/language/\w+\.js|/favicon\.ico|/ws/.*|/live/.*"
)

# Runs before anything of the page does, in frames too.
CANARY = """
  Object.defineProperty(window, "canary", { set: () => window.reported("a script ran"), configurable: false });
  document.addEventListener("securitypolicyviolation", (event) => window.reported(`the policy stopped ${event.violatedDirective} ${event.blockedURI}`));
"""


def as_messages(texts: list[str]) -> list[dict[str, str]]:
    """A conversation of them that ends with the user."""
    roles = ["user" if (len(texts) - index) % 2 else "assistant" for index in range(len(texts))]
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]


def test_the_corpus_is_large_and_no_two_texts_are_alike():
    assert len(CORPUS) >= 220
    assert len({row["content"] for row in CORPUS}) == len({row["name"] for row in CORPUS}) == len(CORPUS)
    assert all(row["marker"] in row["content"] for row in CORPUS)


@pytest.fixture
def annotator(site):
    return factories.make_user("annotator")


@pytest.fixture
def project(site, annotator):
    return factories.make_project(factories.make_user("lead"), members={annotator: Role.ANNOTATOR})


@pytest.fixture
def watched(open_page, annotator):
    """A page that takes down whatever goes wrong, and every request."""
    page = open_page(annotator, "/profile/")
    page.wait_for_load_state("networkidle")
    page.happened, page.asked = [], []
    page.context.expose_binding("reported", lambda source, what: page.happened.append(what))
    page.context.add_init_script(CANARY)
    page.context.on("page", lambda other: page.happened.append("another page opened"))
    page.on("dialog", lambda dialog: (page.happened.append(f"a dialog: {dialog.message}"), dialog.dismiss()))
    page.on("framenavigated", lambda frame: frame.parent_frame and page.happened.append("a frame"))
    page.on("download", lambda download: page.happened.append("a download"))
    page.on("request", lambda request: page.asked.append(request.url))
    return page


def nothing_happened(page: Page, site) -> None:
    assert page.happened == []
    for address in page.asked:
        path = address.removeprefix(site.address)
        assert path != address or address.startswith(("data:image/", site.address.replace("http", "ws"))), address
        assert path == address or OWN_PATHS.fullmatch(path.partition("?")[0]), address


def test_no_text_runs_a_script_asks_for_anything_or_touches_the_form(site, project, annotator, watched):
    page = watched
    groups = [STORABLE[min(start, len(STORABLE) - 9) :][:9] for start in range(0, len(STORABLE), 9)]
    rows = []
    for number, group in enumerate(groups):
        asked = groups[(number + 1) % len(groups)]
        rows.append(
            {"prompt": as_messages([row["content"] for row in asked]), "completions": [row["content"] for row in group]}
        )
    record = import_rows(
        project=project, format="completions", lines=[canonical_json(row).encode() for row in rows], created_by=None
    )
    assert record.rejected == []
    create_tasks_for_prompts(project=project, completions_per_task=9)
    seen_in_completions, seen_in_prompts = set(), set()
    for _ in groups:
        answer = page.goto(site.url(BENCH))
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy and "default-src 'none'" in policy
        form = page.locator("form.task")
        lease = Lease.objects.get(pk=form.get_attribute("data-task"))
        cards = page.locator("form.task [data-card]")
        assert cards.count() == 9
        shape = form.evaluate(SHAPE)
        assert shape["action"] == f"{site.address}{BENCH}leases/{lease.pk}/submit/"
        assert shape["texts_with_controls"] == []
        assert shape["cards"] == shape["bodies"] == 9
        assert shape["strange"] == []
        seen_in_completions |= markers_in(cards.evaluate_all(SHOWN))
        seen_in_prompts |= markers_in(page.locator("[data-prompt]").first.evaluate(WORDS))
        page.wait_for_load_state("networkidle")
        nothing_happened(page, site)
        body = {"ranking": [[key] for key in "abcdefghi"], "seconds": 5.0}
        submit_judgement(lease=lease, submission_key=f"done-{lease.pk}", body=body)
    assert {row["marker"] for row in STORABLE} - seen_in_completions == set()
    assert {row["marker"] for row in STORABLE} - seen_in_prompts == set()
    page.goto(site.url(BENCH + "history/"))
    page.locator(".past-link").first.click()
    page.wait_for_load_state("networkidle")
    nothing_happened(page, site)


def markers_in(text: str) -> set[str]:
    return set(re.findall(r"marker\d{3}", text))


# Nothing made from a text is a control of the form, has a name to be found by, or stands outside its block.
SHAPE = """form => {
  const prose = [...form.querySelectorAll(".prose")];
  const inside = (what) => prose.flatMap(block => [...block.querySelectorAll(what)]);
  const known = new Set(`a blockquote br code div em h1 h2 h3 h4 h5 h6 hr img li ol p pre s span b strong table tbody td th thead tr ul bdi button
    math mfrac mi mn mo mover mroot mrow mspace msqrt mstyle msub msubsup msup mtable mtd mtext mtr munder munderover mmultiscripts mprescripts`.split(/\\s+/));
  return {
    action: HTMLFormElement.prototype.getAttribute.call(form, "action") && new URL(form.getAttribute("action"), location.href).href,
    cards: form.querySelectorAll("[data-card]").length,
    bodies: form.querySelectorAll("[data-card] [data-card-text]").length,
    texts_with_controls: inside("input, textarea, select, form, iframe, object, embed, script, style, link, meta, base, svg, dialog, details, [id], [name], [style], [onclick], [accesskey], [autofocus], button:not(.code-copy, .code-wrap)").map(one => one.outerHTML.slice(0, 200)),
    strange: [...new Set(inside("*").map(one => one.localName).filter(name => !known.has(name)))],
  };
}"""
# Text that is shown, though what is far out of sight may not be laid out yet.
SHOWN = """cards => cards.flatMap(card => {
  const shown = [];
  const walker = document.createTreeWalker(card, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    if (walker.currentNode.parentElement.checkVisibility({ visibilityProperty: true, opacityProperty: true })) shown.push(walker.currentNode.data);
  }
  return [...shown, ...[...card.querySelectorAll("img")].map(image => image.alt)];
}).join(" ")"""
WORDS = """prompt => [prompt.textContent, ...[...prompt.querySelectorAll("img")].map(image => image.alt)].join(" ")"""


def test_what_is_watched_for_would_be_seen(site, project, watched):
    """The alarm itself: were a text to get through, this is what the test above would find."""
    page = watched
    page.goto(site.url(BENCH))
    page.evaluate("window.canary = 1")
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=/nosuch onerror=window.canary=1><img src=http://evil.example/i>')"
    )
    page.wait_for_load_state("networkidle")
    assert "a script ran" in page.happened
    assert any("script-src-attr" in what for what in page.happened)
    assert any("img-src" in what for what in page.happened)
    with pytest.raises(AssertionError):
        nothing_happened(page, site)


def test_an_import_refuses_what_no_database_holds(project):
    rows = [row for row in CORPUS if row["kind"] == "unstorable"]
    lines = [json.dumps({"prompt": "x", "completions": [row["content"]]}).encode() for row in rows]
    record = import_rows(project=project, format="completions", lines=lines, created_by=None)
    assert record.n_taken == 0 and record.n_rejected == len(rows)
