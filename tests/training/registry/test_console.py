import pytest

from labeling.preferences.services import create_snapshot
from tests import factories
from training.registry.models import ModelVersion


@pytest.fixture
def policy(filled_project, lead, annotator) -> ModelVersion:
    factories.judge_all(filled_project, annotator)
    snapshot = create_snapshot(project=filled_project, created_by=lead)
    base = ModelVersion.objects.create(
        key="small@1", name="small", version=1, kind="base", folder="b", licence="Apache-2.0", stage="production"
    )
    return ModelVersion.objects.create(
        key="p@1", name="p", version=1, kind="policy", project=filled_project, parent=base, base=base, snapshot=snapshot,
        folder="p", files={"adapter_model.safetensors": "ab" * 32}, lineage={"run": 3, "recipe": "dpo"},
        metrics={"rewards/accuracies": {"value": 0.712, "low": 0.652, "high": 0.772, "n": 240, "method": "Wilson"}},
    )  # fmt: skip


def test_a_model_shows_its_lineage_figures_and_hashes(client, policy, reviewer):
    client.force_login(reviewer)
    page = client.get(f"/projects/support/models/{policy.pk}/").content.decode()
    lineage = page.partition('class="lineage"')[2].partition("</ol>")[0]
    assert lineage.index("small@1") < lineage.index("snapshot #1") < lineage.index("dpo 3") < lineage.index("p@1")
    assert '<span class="fig-value">0.71</span> <span class="fig-note">±0.06 · n 240</span>' in page
    assert "ab" * 32 in page
    assert "Apache-2.0, CC0-1.0" in page


def test_a_stage_changes_with_a_reason_and_not_without(client, policy, engineer):
    client.force_login(engineer)
    url = f"/projects/support/models/{policy.pk}/"
    answer = client.post(url, {"to_stage": "production", "reason": ""})
    assert answer.status_code == 422
    assert "reason" in answer.context["form"].errors
    client.post(url, {"to_stage": "production", "reason": "It won."})
    policy.refresh_from_db()
    assert policy.stage == "production"
    again = client.post(url, {"to_stage": "production", "reason": "It won."})
    assert "is production already" in again.content.decode()


def test_a_base_model_that_all_share_is_not_moved_from_a_project(client, policy, lead):
    client.force_login(lead)
    answer = client.post(f"/projects/support/models/{policy.parent_id}/", {"to_stage": "archived", "reason": "old"})
    assert "shared by all projects" in answer.content.decode()


def test_reviewers_move_nothing_and_other_projects_models_are_not_found(client, policy, reviewer):
    other = factories.make_project(factories.make_user("other-lead"), slug="other")
    theirs = ModelVersion.objects.create(key="q@1", name="q", version=1, kind="policy", project=other, folder="q")
    client.force_login(reviewer)
    url = "/projects/support/models/"
    assert client.post(f"{url}{policy.pk}/", {"to_stage": "production", "reason": "x"}).status_code == 403
    assert client.get(f"{url}{theirs.pk}/").status_code == 404
