"""Engineers bring a model in and walk its lineage, in a browser."""

import pytest

from tests import factories
from training.registry.models import ModelImport, ModelVersion
from training.runs.models import Run

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect


@pytest.fixture
def lead(site):
    return factories.make_user("lead")


@pytest.fixture
def project(lead):
    return factories.make_project(lead)


def make(project, name: str, kind: str, parent=None) -> ModelVersion:
    return ModelVersion.objects.create(
        key=f"{name}@1", name=name, version=1, kind=kind, project=None if kind == "base" else project, parent=parent, folder="x", licence="MIT"
    )


def test_the_lineage_is_walked_by_the_arrow_keys(lead, project, open_page):
    base = make(project, "small", "base")
    rewards = [make(project, name, "reward", base) for name in ("kind", "short")]
    policy = make(project, "support", "policy", base)
    run = Run.objects.create(project=project, kind="ppo", state="done", model=base, output_model=policy)
    run.reward_models.set(rewards)
    page = open_page(lead, f"/projects/support/models/lineage/?of=model:{policy.pk}")
    page.locator("a.is-here").focus()
    focused = page.locator(":focus")
    seen = set()
    page.keyboard.press("ArrowLeft")
    expect(focused).to_have_attribute("data-node", f"run:{run.pk}")
    page.keyboard.press("ArrowLeft")
    for key in ("ArrowUp", "ArrowUp", "ArrowDown", "ArrowDown"):  # two ends, whichever comes first
        seen.add(focused.get_attribute("data-node"))
        page.keyboard.press(key)
    seen.add(focused.get_attribute("data-node"))
    assert seen == {f"model:{model.pk}" for model in (base, *rewards)}
    page.keyboard.press("Home")
    expect(focused).to_have_attribute("data-node", f"model:{policy.pk}")
    assert page.locator("a[data-node][tabindex='0']").count() == 1
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("l")
    expect(page.get_by_role("heading", name=f"Lineage of run {run.pk}")).to_be_visible()


def test_a_model_is_sent_and_followed(lead, project, open_page, tmp_path):
    file = tmp_path / "theirs.tar"
    file.write_bytes(b"no archive yet")
    page = open_page(lead, "/projects/support/models/import/")
    page.set_input_files("input[type=file]", str(file))
    page.get_by_label("Name").fill("theirs")
    page.get_by_label("Licence", exact=True).fill("MIT")
    page.get_by_role("button", name="Check and import").press("Enter")
    expect(page.get_by_text("waiting for a worker")).to_be_visible()
    ModelImport.objects.update(state="failed", problem="The file is no tar.", status_text="failed")
    expect(page.get_by_role("alert")).to_contain_text("The file is no tar.")
