"""A lead brings a file in: dropped or chosen, looked at, taken, followed, by keyboard too."""

import json

import pytest

from labeling.imports.services import run_next_import
from labeling.projects.models import Import, Prompt
from tests import factories

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect

DROP = """async ([name, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([text], name));
  document.querySelector("[data-import-drop]").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


@pytest.fixture
def lead(site):
    return factories.make_user("lead")


@pytest.fixture
def project(lead):
    return factories.make_project(lead)


def rows(n: int) -> bytes:
    return b"".join(
        json.dumps({"prompt": f"Question {number}?", "chosen": f"Yes {number}.", "rejected": f"No {number}."}).encode() + b"\n"
        for number in range(n)
    )


def test_a_file_is_chosen_looked_at_and_followed_in_by_keyboard(lead, project, site, open_page, tmp_path, settings):
    settings.FILES = site.home / "files"  # this process is the worker
    file = tmp_path / "answers.jsonl"
    file.write_bytes(rows(30) + b'{"prompt": ""}\n')
    page = open_page(lead, "/projects/support/import/")
    page.set_input_files("input[type=file]", str(file))
    page.get_by_role("button", name="Upload and look").press("Enter")
    expect(page.get_by_role("heading", name="answers.jsonl")).to_be_visible()
    expect(page.get_by_text("Yes 0.")).to_be_visible()
    with page.expect_response(lambda answer: answer.request.method == "POST"):
        page.locator("#id_licence").fill("MIT")
        page.locator("#id_licence").press("Tab")
    page.get_by_role("button", name="Import", exact=True).press("Enter")
    expect(page.get_by_text("waiting for a worker")).to_be_visible()
    assert run_next_import()
    # The page finds out by itself.
    expect(page.locator("#import-state .badge")).to_have_text("✓done")
    expect(page.locator("#refused")).to_contain_text("31")
    with page.expect_download() as fetched:
        page.get_by_role("link", name="All of them as JSON lines").press("Enter")
    assert fetched.value.suggested_filename.endswith("-rejected.jsonl")
    assert set(Prompt.objects.values_list("licence", flat=True)) == {"MIT"}


def test_a_dropped_file_is_sent_and_another_format_is_shown_at_once(lead, project, open_page):
    page = open_page(lead, "/projects/support/import/")
    page.evaluate(DROP, ["odd.jsonl", '{"colour": "blue", "prompt": "Why?"}\n'])
    expect(page.get_by_role("heading", name="odd.jsonl")).to_be_visible()
    page.get_by_label("Format").focus()
    page.get_by_label("Format").select_option("preference")
    expect(page.get_by_label("chosen (required)")).to_be_visible()
    expect(page.get_by_label("Format")).to_be_focused()
    assert Import.objects.get().format == "preference" and Prompt.objects.count() == 0


def test_what_cannot_be_read_is_said_beside_the_file(lead, project, open_page):
    page = open_page(lead, "/projects/support/import/")
    page.evaluate(DROP, ["pictures.zip", "PK\x03\x04" + "x" * 200])
    expect(page.locator("[data-import-errors]")).to_contain_text("ZIP")
    expect(page.get_by_role("button", name="Upload and look")).to_be_enabled()


@pytest.mark.parametrize("width", [1440, 390])
def test_pages_fit_their_width(lead, project, open_page, tmp_path, width):
    file = tmp_path / ("long-" * 30 + ".jsonl")
    file.write_bytes(rows(3) + json.dumps({"prompt": "x" * 400}).encode() + b"\n")
    page = open_page(lead, "/projects/support/import/", viewport={"width": width, "height": 900})
    page.set_input_files("input[type=file]", str(file))
    page.get_by_role("button", name="Upload and look").click()
    expect(page.get_by_text("Yes 0.")).to_be_visible()
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.goto(page.url.rsplit("/import/", 1)[0] + "/import/")
