import pytest
import yaml

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


def test_a_stage_changes_with_a_reason_and_not_without(client, policy, lead):
    client.force_login(lead)
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


def test_an_engineer_archives_a_candidate_and_brings_nothing_into_production_nor_out_of_it(client, policy, engineer, lead):
    client.force_login(engineer)
    url = f"/projects/support/models/{policy.pk}/"
    assert [value for value, _ in client.get(url).context["form"].fields["to_stage"].choices] == ["candidate", "archived"]
    assert client.post(url, {"to_stage": "production", "reason": "It won."}).status_code == 403
    assert client.post(url, {"to_stage": "archived", "reason": "It lost."}).status_code == 302
    client.force_login(lead)
    client.post(url, {"to_stage": "production", "reason": "It won after all."})
    client.force_login(engineer)
    assert client.post(url, {"to_stage": "candidate", "reason": "x"}).status_code == 403
    policy.refresh_from_db()
    assert policy.stage == "production"
    page = client.get(url).content.decode()
    assert "It won after all." in page and "by lead" in page and "A lead brings models into production" in page


def test_terms_are_kept_by_an_operator_shown_with_all_that_is_made_of_the_model_and_before_a_run(client, policy, lead, engineer):
    url = f"/projects/support/models/{policy.base_id}/terms/"
    told = {"licence": "Llama 3", "licence_url": "https://example.org/terms", "acceptance_due": "on",
            "output_restrictions": "No other model may be trained on its <outputs>."}  # fmt: skip
    client.force_login(lead)
    assert client.post(url, told).status_code == 403
    assert client.post(f"/projects/support/models/{policy.pk}/terms/", {"licence": ""}).status_code == 422
    lead.is_staff = True
    lead.save()
    assert client.post(url, told).status_code == 302
    client.force_login(engineer)
    for address in (f"models/{policy.pk}/", f"models/{policy.pk}/card/", "runs/new/?kind=dpo"):
        page = client.get(f"/projects/support/{address}").content.decode()
        assert "https://example.org/terms" in page and "No other model may be trained on its &lt;outputs&gt;." in page, address
    assert client.get(url).status_code == 200 and client.post(url, told).status_code == 403


def test_the_card_counts_people_and_names_none(client, policy, reviewer):
    client.force_login(reviewer)
    answer = client.get(f"/projects/support/models/{policy.pk}/card.md")
    text = answer.content.decode()
    head, _, body = text.removeprefix("---\n").partition("\n---\n")
    head = yaml.safe_load(head)
    assert (head["license"], head["base_model"], head["datasets"]) == ("apache-2.0", "small@1", ["support/snapshot-1"])
    assert head["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.712
    assert "| `rewards/accuracies` | 0.712 | 0.652 to 0.772 | 240 | Wilson |" in body
    assert policy.snapshot.content_hash in body and "CC0-1.0" in body and "5 by people" in body
    assert "annotator" not in body.replace("annotators", "") and "few pairs" in body
    assert "attachment" in answer["Content-Disposition"]


def test_the_lineage_is_a_drawing_of_links_and_the_same_as_a_list(client, policy, reviewer, stranger):
    client.force_login(reviewer)
    url = "/projects/support/models/lineage/"
    page = client.get(url).content.decode()
    svg, _, table = page.partition('<svg class="lineage-graph"')[2].partition("</svg>")
    for address in (f"models/{policy.pk}/", f"models/{policy.base_id}/", "snapshots/1/"):
        assert f'href="/projects/support/{address}"' in svg and f'href="/projects/support/{address}"' in table
    assert "style=" not in svg
    assert "Lineage of" in client.get(url, {"of": "licence:CC0-1.0"}).content.decode()
    assert client.get(url, {"of": "model:999"}).status_code == 404
    client.force_login(stranger)
    assert client.get(url).status_code == 404


def test_files_are_verified_on_a_page(client, policy, reviewer):
    client.force_login(reviewer)
    page = client.get(f"/projects/support/models/{policy.pk}/verify/").content.decode()
    assert "adapter_model.safetensors" in page and "is missing" in page and "not as it was entered" in page
