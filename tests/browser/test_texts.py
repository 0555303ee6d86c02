"""What a reader can do with a text: copy and wrap code, follow a link after a second look, see images or that one is missing."""

import re

import pytest

pytest.importorskip("playwright")
from django.core.files.storage import FileSystemStorage
from playwright.sync_api import Page, expect

from labeling.accounts.roles import Role
from labeling.annotation.services import create_tasks_for_prompts
from labeling.images.models import Image
from labeling.images.services import store_image
from labeling.imports.services import import_rows
from labeling.projects.text import canonical_json
from tests import factories
from tests.browser.held import first_held
from tests.labeling.images.pictures import picture, png

BENCH = "/projects/support/bench/"
CODE = (
    "```python\n"
    + "print('a line that is far too wide for a card of the bench', 'and goes on', 'and on', 'and on')\n"
    + "```"
)


@pytest.fixture
def annotator(site):
    return factories.make_user("annotator")


@pytest.fixture
def lead(site):
    return factories.make_user("lead")


@pytest.fixture
def project(lead, annotator):
    return factories.make_project(lead, members={annotator: Role.ANNOTATOR})


@pytest.fixture
def bench(project, annotator, open_page):
    """`bench(prompt, completions...)`: the bench with one task of these texts."""

    def opener(prompt: str, *completions: str, **options: object) -> Page:
        row = {"prompt": prompt, "completions": list(completions)}
        import_rows(project=project, format="completions", lines=[canonical_json(row).encode()], created_by=None)
        create_tasks_for_prompts(project=project, completions_per_task=len(completions))
        return open_page(annotator, BENCH, **options)

    return opener


def is_untouched(page: Page) -> bool:
    """Nothing is ranked."""
    return all(field.input_value() == "" for field in page.locator("[data-rank-field]").all())


# --- code ---------------------------------------------------------------------------------------
def test_code_is_copied_by_keyboard_and_says_so(bench):
    page = bench("Write code", CODE, "plain", "other", permissions=["clipboard-read", "clipboard-write"])
    button = page.locator(".code-copy").first
    button.focus()
    page.keyboard.press("Enter")
    expect(button).to_have_text("Copied")
    expect(page.locator("p[aria-live=polite]", has_text="Copied")).to_have_count(1)
    assert page.evaluate("navigator.clipboard.readText()").startswith("print('a line")
    page.keyboard.press("Space")
    assert is_untouched(page)
    expect(page.locator("dialog[open]")).to_have_count(0)
    expect(button).to_have_text("Copy")


def test_code_is_copied_where_a_site_has_no_clipboard_of_its_own(bench):
    page = bench("Write code", CODE, "plain", "other")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.evaluate(
        "document.addEventListener('copy', () => { window.copied = getSelection().toString() || document.activeElement.value })"
    )
    button = page.locator(".code-copy").first
    button.focus()
    page.keyboard.press("Enter")
    expect(button).to_have_text("Copied")
    assert page.evaluate("window.copied").startswith("print('a line")
    assert button.evaluate("button => button === document.activeElement")


def test_wide_code_scrolls_in_its_own_box_and_wraps_when_asked(bench):
    page = bench("Write code", CODE, "plain", "other", viewport={"width": 390, "height": 844})
    box = page.locator(".prose pre").first
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert box.evaluate("box => box.scrollWidth > box.clientWidth")
    box.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("box => box.scrollLeft > 0", arg=box.element_handle())
    assert is_untouched(page)
    wrap = page.get_by_role("button", name="Wrap").first
    wrap.press("Enter")
    expect(wrap).to_have_attribute("aria-pressed", "true")
    assert box.evaluate("box => box.scrollWidth <= box.clientWidth")


# --- links --------------------------------------------------------------------------------------
def test_a_link_shows_its_whole_address_before_it_leads_away(bench):
    page = bench("Where?", "[your bank](https://bank.example@xn--80ak6aa92e.example/login?next=%E2%80%AEgnp)", "b", "c")
    link = page.get_by_role("link", name="your bank")
    assert re.fullmatch("noopener noreferrer nofollow", link.get_attribute("rel"))
    link.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog.leave-dialog")
    expect(dialog).to_be_visible()
    expect(dialog.locator("bdi")).to_have_text("https://bank.example@xn--80ak6aa92e.example/login?next=%E2%80%AEgnp")
    expect(dialog.locator("mark")).to_have_text("bank.example@")
    expect(dialog.locator("b")).to_have_text("xn--80ak6aa92e.example")
    expect(dialog.get_by_role("listitem").first).to_contain_text("The site is xn--80ak6aa92e.example")
    expect(dialog.get_by_role("button", name="Stay")).to_be_focused()
    page.keyboard.press("a")
    page.keyboard.press("1")
    assert is_untouched(page)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(link).to_be_focused()
    assert len(page.context.pages) == 1 and page.url.endswith(BENCH)


@pytest.mark.parametrize("how", ["click", "middle", "control"])
def test_no_way_of_clicking_gets_around_the_second_look(bench, how):
    page = bench("Where?", "[x](http://evil.example/)", "b", "c")
    asked = []
    page.context.on("request", lambda request: asked.append(request.url))
    link = page.get_by_role("link", name="x", exact=True)
    link.click(button="middle" if how == "middle" else "left", modifiers=["Control"] if how == "control" else [])
    expect(page.locator("dialog.leave-dialog")).to_be_visible()
    assert len(page.context.pages) == 1
    assert not any("evil.example" in address for address in asked)


def test_the_link_opens_in_a_new_tab_once_it_is_wanted(bench):
    page = bench("Where?", "[x](http://evil.example/path)", "b", "c")
    page.context.route("http://evil.example/**", lambda route: route.fulfill(body="there", content_type="text/plain"))
    page.get_by_role("link", name="x", exact=True).click()
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Open in a new tab").click()
    assert opened.value.url == "http://evil.example/path"
    assert opened.value.evaluate("window.opener") is None
    assert opened.value.evaluate("document.referrer") == ""
    expect(page.locator("dialog.leave-dialog")).to_have_count(0)


def test_links_in_texts_that_come_later_ask_too(bench):
    page = bench("Where?", "a", "b", "c")
    page.locator("[data-card=a] .prose").evaluate(
        "block => { block.innerHTML = '<p><a href=\"http://evil.example/\" target=_blank>late</a></p>' }"
    )
    page.get_by_role("link", name="late").click()
    expect(page.locator("dialog.leave-dialog")).to_be_visible()


# --- images -------------------------------------------------------------------------------------
@pytest.fixture
def store(site, project, lead, monkeypatch):
    """Puts images where the running server looks for them."""
    monkeypatch.setattr(Image._meta.get_field("file"), "storage", FileSystemStorage(location=site.home / "files"))
    return lambda file, name: store_image(project=project, file=file, name=name, uploaded_by=lead)[0]


def test_an_image_is_shown_and_a_missing_one_says_so(store, bench):
    image = store(png((320, 200)), "a cat.png")
    gone = f"image:{'0' * 32}-640x480"
    page = bench(f"What is this?\n\n{image.markdown}", f"![a dog]({gone})", "b", f"![]({gone})")
    shown = page.get_by_role("img", name="a cat")
    expect(shown).to_be_visible()
    page.wait_for_function("image => image.complete && image.naturalWidth === 320", arg=shown.element_handle())
    expect(page.locator(".image-missing").first).to_be_visible()
    assert sorted(page.locator(".image-missing").all_inner_texts()) == ["Image not found", "Image not found: a dog"]


def test_the_room_of_an_image_is_kept_free_until_it_is_there(store, bench):
    image = store(png((320, 200)), "a.png")
    held = []
    page = bench("x", "a", "b", "c")
    page.route("**/images/**", lambda route: held.append(route))
    import_html = f'<p><img src="/images/{image.public_id}/" alt="a" width="320" height="200" loading="lazy" decoding="async"></p>'
    page.locator("[data-card=a] .prose").evaluate("(block, html) => { block.innerHTML = html }", import_html)
    before = page.locator("[data-card=a] img").bounding_box()
    assert abs(before["height"] / before["width"] - 200 / 320) < 0.01
    first_held(page, held).continue_()
    page.wait_for_function("() => document.querySelector('[data-card=a] img').naturalWidth === 320")
    assert page.locator("[data-card=a] img").bounding_box() == before


def test_a_lead_uploads_by_picking_and_by_dropping_and_takes_the_reference(site, project, lead, open_page):
    page = open_page(lead, "/projects/support/images/", permissions=["clipboard-read", "clipboard-write"])
    expect(page.get_by_role("heading", name="No images yet")).to_be_visible()
    page.get_by_label("Add images").set_input_files(
        [
            {"name": "one.png", "mimeType": "image/png", "buffer": png().read()},
            {"name": "two.svg", "mimeType": "image/svg+xml", "buffer": b"<svg onload=alert(1)>"},
            {"name": "three.jpg", "mimeType": "image/jpeg", "buffer": picture("JPEG", (50, 90)).read()},
        ]
    )
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("alert")).to_contain_text("two.svg: not a PNG, JPEG, WebP or GIF file")
    expect(page.locator(".image-tile")).to_have_count(2)
    dropped = page.evaluate_handle(
        "bytes => { const data = new DataTransfer(); data.items.add(new File([new Uint8Array(bytes)], 'four.png', { type: 'image/png' })); return data }",
        list(png((30, 30)).read()),
    )
    page.dispatch_event("[data-drop-zone]", "drop", {"dataTransfer": dropped})
    expect(page.locator(".image-tile")).to_have_count(3)
    page.get_by_role("button", name="Copy the reference of one.png").click()
    expect(page.get_by_text("Copied", exact=True).first).to_be_visible()
    image = Image.objects.get(name="one.png")
    assert page.evaluate("navigator.clipboard.readText()") == image.markdown == f"![one](image:{image.public_id}-64x48)"
