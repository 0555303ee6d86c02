from pathlib import Path

import pytest
from django.conf import settings

from labeling.preferences.services import create_snapshot
from tests import factories
from tests.api_caller import Caller, code_of
from training.registry.models import ModelVersion
from training.registry.services import change_stage


@pytest.fixture
def operator(project):
    return factories.make_user("operator", is_staff=True)


def weights(name):
    folder = Path(settings.MODELS) / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"weights of " + name.encode())
    return f"models/{name}"


def base(operator, name="small"):
    body = {"name": name, "folder": weights(name), "licence": "Apache-2.0", "source": "tests"}
    answer = Caller(operator).post("models/", body)
    assert answer.status_code == 201, answer.json()
    return ModelVersion.objects.get(pk=answer.json()["id"])


def derived(parent, project, *, snapshot=None, version=1):
    return ModelVersion.objects.create(
        name=f"{project.slug}-policy", version=version, key=f"{project.slug}-policy@{version}", kind="policy",
        project=project, parent=parent, base=parent, snapshot=snapshot, folder="x", licence="Apache-2.0",
    )  # fmt: skip


def test_an_operator_enters_a_base_model_and_the_projects_see_it(operator, engineer, annotator):
    made = base(operator)
    seen = Caller(engineer).get("models/").json()["results"]
    assert [(row["id"], row["key"], row["project"]) for row in seen] == [(str(made.pk), "small@1", None)]
    assert Caller(annotator).get("models/").json()["results"] == []
    refused = Caller(engineer).post("models/", {"name": "x", "folder": "models/small", "licence": "x"})
    assert refused.status_code == 403 and code_of(refused) == "permission_denied"


@pytest.mark.parametrize("folder", ["", ".", "models/../keys", "/etc", "keys", "models/", "models//x", "models/..", "models/nothing\n"])
def test_a_base_model_lies_below_the_models_folder(operator, folder):
    weights("small")
    answer = Caller(operator).post("models/", {"name": "x", "folder": folder, "licence": "x"})
    assert answer.status_code == 400 and "folder" in answer.json()["error"]["fields"]


def test_weights_that_can_run_code_are_refused(operator):
    folder = weights("pickled")
    (Path(settings.HOME) / folder / "pytorch_model.bin").write_bytes(b"x")
    answer = Caller(operator).post("models/", {"name": "pickled", "folder": folder, "licence": "x"})
    assert answer.status_code == 400 and "safetensors" in str(answer.json()["error"]["fields"]["folder"])


def test_lineage_goes_back_to_licences_and_kinds_of_annotator_and_forward_only_to_what_one_may_see(
    operator, project, engineer, annotator, stranger
):
    factories.fill_project(project, 10)
    factories.judge_all(project, annotator)
    small = base(operator)
    policy = derived(small, project, snapshot=create_snapshot(project=project, created_by=None))
    child = derived(policy, project, version=2)
    derived(small, factories.make_project(stranger, slug="elsewhere"))
    shown = Caller(engineer).get(f"models/{policy.pk}/").json()["lineage"]
    assert [row["key"] for row in shown["ancestors"]] == ["small@1"]
    assert [row["key"] for row in shown["descendants"]] == [child.key]
    assert shown["annotators_by_kind"] == {"human": 10} and "CC0-1.0" in shown["licences"]
    assert shown["snapshots"][0]["number"] == 1
    forward = Caller(engineer).get(f"models/{small.pk}/").json()
    assert {row["key"] for row in forward["lineage"]["descendants"]} == {policy.key, child.key}
    assert "operator" not in str(forward)
    only_elsewhere = Caller(engineer, project_slug="other")
    assert only_elsewhere.get(f"models/{policy.pk}/").status_code == 404
    assert only_elsewhere.get(f"models/{small.pk}/").json()["lineage"]["descendants"] == []


def test_a_lead_moves_a_model_of_the_project_and_says_why(operator, project, lead, reviewer):
    policy = derived(base(operator), project)
    body = {"stage": "production", "reason": "wins 58 % of 240 comparisons"}
    assert Caller(reviewer).patch(f"models/{policy.pk}/", body).status_code == 403
    moved = Caller(lead).patch(f"models/{policy.pk}/", body)
    assert moved.status_code == 200 and moved.json()["stage"] == "production"
    assert moved.json()["stage_changes"][0]["reason"] == body["reason"]
    again = Caller(lead).patch(f"models/{policy.pk}/", body)
    assert again.status_code == 409 and code_of(again) == "bad_stage"
    assert Caller(lead).patch(f"models/{policy.pk}/", {"stage": "gold", "reason": "x"}).status_code == 400
    assert Caller(lead).patch(f"models/{policy.base_id}/", body).status_code == 403


def test_moves_of_all_models_are_listed_newest_first_on_a_page_and_over_rest(client, operator, project, lead, engineer, stranger):
    first = derived(base(operator), project)
    second = derived(first.base, project, version=2)
    elsewhere = derived(first.base, factories.make_project(stranger, slug="elsewhere"), version=3)
    for model in (first, second, elsewhere):
        change_stage(model=model, to_stage="production", reason=f"<b>{model.version}</b> wins", changed_by=lead)
    shown = Caller(engineer).get("projects/support/stage-changes/").json()["results"]
    assert [(row["model"]["key"], row["to_stage"]) for row in shown] == [
        (second.key, "production"), (first.key, "candidate"), (first.key, "production"),
    ]  # fmt: skip
    assert shown[0]["created_by"] == "lead" and shown[1]["reason"] == f"{second.key} took its place"
    client.force_login(engineer)
    page = client.get("/projects/support/models/stages/").content.decode()
    assert "&lt;b&gt;2&lt;/b&gt; wins" in page and elsewhere.key not in page


def test_leads_bring_into_production_and_out_of_it_and_engineers_archive(operator, project, lead, engineer):
    policy = derived(base(operator), project)
    path, body = f"models/{policy.pk}/", {"stage": "production", "reason": "it wins"}
    assert Caller(engineer).patch(path, body).status_code == 403
    moved = Caller(lead).patch(path, body).json()
    assert moved["stage_changes"][0]["created_by"] == "lead"
    assert Caller(engineer).patch(path, {**body, "stage": "candidate"}).status_code == 403
    assert Caller(lead).patch(path, {**body, "reason": " "}).status_code == 400
    assert Caller(lead).patch(path, {**body, "stage": "candidate"}).status_code == 200
    assert Caller(engineer).patch(path, {**body, "stage": "archived"}).status_code == 200


def test_terms_are_entered_by_operators_and_leads_and_shown_with_what_is_made_of_a_model(operator, project, lead, engineer, reviewer):
    small = base(operator)
    policy = derived(small, project)
    terms = {
        "licence": "Llama 3", "licence_url": "https://example.org/terms", "fee_due": True, "acceptance_due": True,
        "output_restrictions": "train no other model",
    }  # fmt: skip
    for somebody in (lead, engineer):
        assert Caller(somebody).put(f"models/{small.pk}/terms/", terms).status_code == 403
    factories.make_project(operator, slug="theirs")
    assert Caller(operator).put(f"models/{small.pk}/terms/", terms).json()["terms"] == terms
    assert Caller(reviewer).get(f"models/{policy.pk}/").json()["terms"] == terms
    for somebody, status in ((engineer, 403), (reviewer, 403), (lead, 200)):
        assert Caller(somebody).put(f"models/{policy.pk}/terms/", {"licence": "MIT"}).status_code == status
    wrong = Caller(lead).put(f"models/{policy.pk}/terms/", {**terms, "licence_url": "javascript:alert(1)"})
    assert wrong.status_code == 400 and "licence_url" in wrong.json()["error"]["fields"]


def test_card_and_lineage_are_for_those_who_read_the_project(operator, project, reviewer, annotator, stranger):
    policy = derived(base(operator), project)
    card = Caller(reviewer).get(f"models/{policy.pk}/card/")
    assert card["Content-Type"].startswith("text/markdown") and "base_model: tests" in card.content.decode()
    path = f"projects/support/lineage/?of=model:{policy.pk}"
    graph = Caller(reviewer).get(path).json()
    assert {node["label"] for node in graph["nodes"]} == {policy.key, "small@1", "Apache-2.0"}
    assert {"source": f"model:{policy.base_id}", "target": f"model:{policy.pk}"} in graph["edges"]
    assert Caller(reviewer).get("projects/support/lineage/").status_code == 400
    assert Caller(reviewer).get("projects/support/lineage/?of=model:0").status_code == 404
    for nobody, status in ((annotator, 403), (stranger, 404)):
        assert Caller(nobody).get(path).status_code == status
        assert Caller(nobody).get(f"models/{policy.pk}/card/").status_code == 404
