"""Terms are accepted by a lead, for a project, as they were read; until then what stands under them is not used."""

import shutil
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from tests import factories
from tests.api_caller import Caller
from training.loop.errors import BadIteration
from training.loop.services import start_iteration
from training.registry.errors import TermsChanged, TermsNotAccepted
from training.registry.models import ModelVersion, TermsAcceptance
from training.registry.services import change_stage, change_terms, register_trained_model
from training.registry.terms import accept_terms, asked_of, terms_hash, terms_to_accept
from training.runs.errors import BadSpec
from training.runs.models import Run
from training.runs.services import create_run


@pytest.fixture
def base(db) -> ModelVersion:
    return ModelVersion.objects.create(
        key="llama@1", name="llama", version=1, kind="base", folder="models/none", licence="Llama 3", fee_due=True, stage="production"
    )


@pytest.fixture
def policy(filled_project, base) -> ModelVersion:
    folder = Path(settings.MODELS) / "under-terms"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_text("weights")
    (folder / "adapter_config.json").write_text("{}")
    return register_trained_model(
        name="support-dpo", kind="policy", project=filled_project, parent=base, snapshot=None, folder="models/under-terms",
        is_adapter=True, metrics={}, lineage={},
    )  # fmt: skip


def accept(model: ModelVersion, project, user) -> TermsAcceptance:
    return accept_terms(model=model, project=project, terms_hash=terms_hash(model), accepted_by=user)


def test_nothing_under_unaccepted_terms_is_run_promoted_or_taken_out(filled_project, base, policy, lead, engineer, tmp_path):
    def attempts(model: ModelVersion):
        create_run(project=filled_project, kind="sample", created_by=engineer, model=model)

    for model in (base, policy):
        with pytest.raises(BadSpec, match=r"terms of llama@1 that nobody of this project has accepted: a lead reads and accepts"):
            attempts(model)
    with pytest.raises(TermsNotAccepted) as refused:
        change_stage(model=policy, to_stage="production", reason="best", changed_by=lead)
    assert refused.value.models == [base]
    change_stage(model=policy, to_stage="archived", reason="put away", changed_by=lead)  # uses nothing
    with pytest.raises(BadIteration, match="terms of llama@1"):
        start_iteration(project=filled_project, policy_before=policy, created_by=lead)
    with pytest.raises(CommandError, match="terms of llama@1"):
        call_command("export_model", policy.key, out=tmp_path / "out")
    answer = Caller(engineer).get(f"models/{policy.pk}/archive/")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "terms_not_accepted")
    assert Caller(engineer).get(f"models/{policy.pk}/files/adapter_model.safetensors").status_code == 409
    answer = Caller(lead).call("PATCH", f"models/{policy.pk}/", {"stage": "production", "reason": "best"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "terms_not_accepted")

    accept(base, filled_project, lead)
    attempts(policy)
    change_stage(model=policy, to_stage="production", reason="best", changed_by=lead)
    assert Caller(engineer).get(f"models/{policy.pk}/archive/").status_code == 200
    call_command("export_model", policy.key, out=tmp_path / "out")
    other = factories.make_project(engineer, slug="other")
    assert terms_to_accept(other, base) == [base]  # a project accepts for itself


def test_changed_terms_are_asked_about_again_and_what_was_accepted_stays(filled_project, base, lead):
    first = accept(base, filled_project, lead)
    assert accept(base, filled_project, lead) == first  # twice is once
    read = terms_hash(base)
    change_terms(model=base, output_restrictions="Say where it comes from.")
    assert terms_to_accept(filled_project, base) == [base]
    with pytest.raises(TermsChanged, match="changed meanwhile: read them again"):
        accept_terms(model=base, project=filled_project, terms_hash=read, accepted_by=lead)
    (asked,) = asked_of(filled_project, base)
    assert asked.accepted is None and asked.earlier == [first] and first.terms["output_restrictions"] == ""
    accept(base, filled_project, lead)
    assert not terms_to_accept(filled_project, base)
    change_terms(model=base, output_restrictions="")  # those that were accepted once are accepted still
    assert not terms_to_accept(filled_project, base)
    change_terms(model=base, fee_due=False)
    assert asked_of(filled_project, base) == []
    with pytest.raises(TermsChanged, match="no terms of its own"):
        accept(base, filled_project, lead)


def test_a_teachers_terms_are_asked_for_once_and_hold_for_the_grandchild(filled_project, policy, base, lead):
    teacher = ModelVersion.objects.create(
        key="large@1", name="large", version=1, kind="base", folder="models/large", output_restrictions="Train no other model."
    )
    with pytest.raises(BadSpec) as refused:
        create_run(
            project=filled_project, kind="distill", created_by=lead, model=policy, inputs={"teacher": "large@1"}, spec={"preamble": "x"}
        )
    assert "terms of llama@1" in refused.value.fields["model"] and "terms of large@1" in refused.value.fields["inputs.teacher"]
    student = register_trained_model(
        name="student", kind="policy", project=filled_project, parent=policy, snapshot=None, folder="models/under-terms",
        is_adapter=True, metrics={}, lineage={}, teacher=teacher,
    )  # fmt: skip
    Run.objects.create(project=filled_project, kind="distill", model=policy, other_model=teacher, output_model=student, state="done")
    grandchild = register_trained_model(
        name="grandchild", kind="policy", project=filled_project, parent=student, snapshot=None, folder="models/under-terms",
        is_adapter=True, metrics={}, lineage={},
    )  # fmt: skip
    assert grandchild.fee_due and set(terms_to_accept(filled_project, grandchild)) == {base, teacher}
    accept(base, filled_project, lead)
    accept(teacher, filled_project, lead)
    assert not terms_to_accept(filled_project, grandchild)
    change_terms(model=student, licence="Ours", fee_due=False, acceptance_due=True)  # written by hand: terms of its own
    assert terms_to_accept(filled_project, grandchild) == [student]


def test_a_lead_accepts_on_the_page_and_an_engineer_only_reads(client, filled_project, policy, base, lead, engineer):
    page, accept_at = f"/projects/support/models/{policy.pk}/", f"/projects/support/models/{base.pk}/terms/accept/"
    client.force_login(engineer)
    text = client.get(page).content.decode()
    assert "Nobody of this project has accepted the terms of" in text and "Accept for" not in text
    assert client.post(accept_at, {"terms_hash": terms_hash(base)}).status_code == 403
    refused = client.get(f"{page}archive.tar")
    assert refused.status_code == 409 and f'href="/projects/support/models/{base.pk}/#terms"' in refused.content.decode()
    client.force_login(lead)
    assert "Accept for" in client.get(page).content.decode()
    answer = client.post(accept_at, {"terms_hash": "0" * 64, "asked_by": policy.pk}, follow=True)
    assert "changed meanwhile" in answer.content.decode() and not TermsAcceptance.objects.exists()
    answer = client.post(accept_at, {"terms_hash": terms_hash(base), "asked_by": policy.pk})
    assert answer["Location"] == f"{page}#terms"
    accepted = TermsAcceptance.objects.get()
    assert (accepted.accepted_by, accepted.project, accepted.terms["fee_due"]) == (lead, filled_project, True)
    text = client.get(page).content.decode()
    assert "by lead" in text and accepted.terms_hash in text and "Accept for" not in text


def test_terms_are_read_and_accepted_over_rest(filled_project, policy, base, lead, engineer):
    path = f"projects/support/models/{policy.pk}/terms/"
    (asked,) = Caller(engineer).get(path).json()
    assert asked["model"]["key"] == "llama@1" and asked["terms"]["fee_due"] and asked["accepted"] is None
    body = {"terms_hash": asked["terms_hash"]}
    own = f"projects/support/models/{base.pk}/terms/"
    assert Caller(engineer).post(own, body).status_code == 403
    answer = Caller(lead).post(path, body)  # the policy has none of its own
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "terms_changed")
    (asked,) = Caller(lead).post(own, body).json()
    assert asked["accepted"]["accepted_by"] == "lead" and asked["accepted"]["terms_hash"] == body["terms_hash"]
    assert Caller(lead).post(own, {"terms_hash": "x"}).status_code == 400


def test_the_form_of_a_run_links_to_the_terms_it_is_refused_for(client, filled_project, base, lead):
    client.force_login(lead)
    page = client.get("/projects/support/runs/new/?kind=sample").content.decode()
    assert "not accepted yet" in page and f"/projects/support/models/{base.pk}/#terms" in page
    accept(base, filled_project, lead)
    assert "not accepted yet" not in client.get("/projects/support/runs/new/?kind=sample").content.decode()
