import pytest
from django.db import IntegrityError, transaction

from training.registry.errors import BadStage, NoSuchModelFiles, UnsafeModelFiles
from training.registry.models import ModelVersion
from training.registry.selectors import lineage_of, models_visible_to, production_policy
from training.registry.services import change_stage, change_terms, register_base_model, register_trained_model


def test_the_same_files_are_one_base_model_and_others_the_next_version(tiny, tiny_folder, lead):
    again = register_base_model(name="tiny", folder="models/tiny", licence="Apache-2.0", created_by=lead)
    assert again == tiny and tiny.key == "tiny@1"
    assert all(len(digest) == 64 for digest in tiny.files.values())
    (tiny_folder / "note.json").write_text("{}")
    try:
        assert register_base_model(name="tiny", folder="models/tiny", licence="Apache-2.0").key == "tiny@2"
    finally:
        (tiny_folder / "note.json").unlink()


@pytest.mark.parametrize("name", ["model.bin", "weights.pt", "state.pkl", "modeling_evil.py"])
def test_weights_that_could_run_code_are_refused(tiny_folder, db, name):
    (tiny_folder / name).write_bytes(b"\x80\x04.")
    try:
        with pytest.raises(UnsafeModelFiles, match=name):
            register_base_model(name="evil", folder="models/tiny", licence="?")
    finally:
        (tiny_folder / name).unlink()
    assert not ModelVersion.objects.filter(name="evil").exists()


@pytest.mark.parametrize("folder", ["models/none", "../../etc", "/etc"])
def test_a_folder_elsewhere_or_without_weights_is_refused(db, folder):
    with pytest.raises(NoSuchModelFiles):
        register_base_model(name="lost", folder=folder, licence="?")


def test_a_symbolic_link_does_not_bring_foreign_files_in(db, tiny_folder):
    link = tiny_folder / "passwd.json"
    link.symlink_to("/etc/passwd")
    try:
        model = register_base_model(name="linked", folder="models/tiny", licence="?")
    finally:
        link.unlink()
    assert "passwd.json" not in model.files


def trained(project, parent, name="support-dpo", snapshot=None) -> ModelVersion:
    return register_trained_model(
        name=name, kind="policy", project=project, parent=parent, snapshot=snapshot, folder="models/tiny",
        is_adapter=True, metrics={}, lineage={},
    )  # fmt: skip


def test_lineage_is_walked_back_to_data_and_licences_and_forward_to_children(project, tiny, annotator, lead):
    from labeling.preferences.services import create_snapshot
    from tests import factories

    factories.fill_project(project, 8)
    factories.judge_all(project, annotator)
    snapshot = create_snapshot(project=project, created_by=lead)
    first = trained(project, tiny, snapshot=snapshot)
    second = trained(project, first)
    assert (second.key, second.base) == ("support-dpo@2", tiny)
    lineage = lineage_of(second)
    assert lineage.ancestors == [first, tiny]
    assert lineage.snapshots == [snapshot]
    assert lineage.licences == ["Apache-2.0", "CC0-1.0"]
    assert lineage.annotators_by_kind == {"human": 8}
    assert lineage_of(tiny).descendants == [first, second]


def test_a_policy_in_production_gives_way_to_the_next_and_the_reason_is_kept(project, tiny, lead):
    first, second = trained(project, tiny), trained(project, tiny)
    assert production_policy(project) == tiny
    change_stage(model=first, to_stage="production", reason="wins 0.62", changed_by=lead)
    change_stage(model=second, to_stage="production", reason="wins 0.70", changed_by=lead)
    first.refresh_from_db()
    assert first.stage == "candidate"
    assert production_policy(project) == second
    assert [change.reason for change in second.stage_changes.all()] == ["wins 0.70"]
    with pytest.raises(BadStage, match="why"):
        change_stage(model=first, to_stage="archived", reason=" ", changed_by=lead)
    with pytest.raises(BadStage):
        change_stage(model=first, to_stage="heaven", reason="x", changed_by=lead)


def test_strangers_see_no_model_and_members_only_their_projects(project, tiny, lead, annotator, stranger):
    policy = trained(project, tiny)
    assert set(models_visible_to(lead)) == {tiny, policy}
    assert not models_visible_to(annotator).exists()
    assert not models_visible_to(stranger).exists()


def test_the_database_holds_one_in_production_a_project_and_kind(project, tiny, lead):
    first, second = trained(project, tiny), trained(project, tiny)
    ModelVersion.objects.filter(pk=first.pk).update(stage="production")
    with pytest.raises(IntegrityError), transaction.atomic():
        ModelVersion.objects.filter(pk=second.pk).update(stage="production")
    ModelVersion.objects.filter(pk=second.pk).update(stage="production", kind="reward")
    assert register_base_model(name="tiny", folder="models/tiny", licence="Apache-2.0").stage == "production"


def test_terms_are_a_models_own_or_those_of_its_base(project, tiny):
    policy = trained(project, tiny)
    assert not policy.terms_ask
    change_terms(model=tiny, licence="Llama 3", acceptance_due=True)
    policy = ModelVersion.objects.get(pk=policy.pk)
    assert policy.terms_of == tiny and policy.terms_ask
    change_terms(model=policy, licence_url="https://example.org/own")
    assert policy.terms_of == policy and not policy.terms_ask
