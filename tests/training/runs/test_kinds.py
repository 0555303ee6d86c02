"""Distillation, evaluation and kinds of adapter: what is refused early, what recipes get, lineage, terms, pages and REST."""

import dataclasses
import json

import pytest
import yaml

from labeling.preferences.services import create_snapshot
from labeling.preferences.withdrawal import models_made_of
from labeling.projects.text import split_of
from tests import factories
from tests.api_caller import Caller
from training.registry.card import card_of
from training.registry.graph import graph_of
from training.registry.models import ModelVersion
from training.registry.selectors import lineage_of
from training.registry.services import register_base_model, register_trained_model
from training.registry.terms import accept_terms, terms_hash
from training.runs.catalogue import KINDS, defaults, makes_adapter
from training.runs.errors import BadSpec
from training.runs.folder import write_inputs
from training.runs.models import Run
from training.runs.options import MAX_PREAMBLE
from training.runs.services import claim_next_run, create_run
from training.runs.specs import check_spec
from training.runs.watch import watch_run

PREAMBLE = "Answer kindly.\nIn one: sentence, {{ name }} – 'quoted' # not a comment"
RULE = {"rule": "length:target=4", "weight": 1.0}
SMALL = {
    "preamble": PREAMBLE, "max_steps": 2, "per_device_train_batch_size": 4, "max_completion_length": 6, "save_steps": 2,
    "sample_every_steps": 0, "learning_rate": 0.001, "completions_per_prompt": 1,
}  # fmt: skip


def version(key: str, kind: str = "base", **fields: object) -> ModelVersion:
    name, number = key.split("@")
    return ModelVersion.objects.create(key=key, name=name, version=int(number), kind=kind, folder=f"models/{name}", **fields)


@pytest.fixture
def base(db) -> ModelVersion:
    return version("small@1", licence="Apache-2.0")


@pytest.fixture
def large(project, lead) -> ModelVersion:
    model = version("large@1", licence="Llama-3", output_restrictions="Not to train other models.", fee_due=True)
    accept_terms(model=model, project=project, terms_hash=terms_hash(model), accepted_by=lead)
    return model


@pytest.fixture
def policy(project, base) -> ModelVersion:
    return version("support-dpo@1", "policy", project=project, base=base, parent=base, is_adapter=True)


def refusal_of(**fields: object) -> dict[str, str]:
    with pytest.raises(BadSpec) as refusal:
        create_run(**fields)
    assert not Run.objects.exists()
    return refusal.value.fields


def execute(run: Run) -> Run:
    claimed = claim_next_run(owner="test")
    assert claimed == run
    watch_run(claimed)
    run.refresh_from_db()
    assert (run.state, run.error) == (Run.State.DONE, "")
    return run


# --- the whole way ------------------------------------------------------------------------------
@pytest.mark.recipe
def test_a_whole_model_is_distilled_and_then_evaluated_beside_its_start(client, project, lead, tiny):
    factories.fill_project(project, 24)
    run = create_run(project=project, kind="distill", created_by=lead, model=tiny, spec={**SMALL, "adapter_rank": 0})
    student = execute(run).output_model
    assert (student.kind, student.is_adapter, student.base, student.parent) == ("policy", False, tiny, tiny)
    assert {"kl/before", "kl/after", "kl/change", "loss/after"} <= set(student.metrics)
    assert student.lineage["options"]["preamble"] == PREAMBLE
    run = create_run(
        project=project, kind="evaluate", created_by=lead, model=student, spec={"max_new_tokens": 6},
        inputs={"rewards": [RULE], "reference": tiny.key},
    )  # fmt: skip
    execute(run)
    assert run.output_model is None and run.other_model == tiny
    n_held_out = sum(split_of(prompt.group_id, project.eval_share) == "eval" for prompt in project.prompts.all())
    assert run.result["figures"]["win_rate"]["n"] == run.result["dataset"]["n_eval"] == n_held_out > 0
    assert run.status_text.startswith("win rate ") and run.status_text.endswith(f"on {n_held_out} held-out prompts")
    assert {event.payload["by"] for event in run.events.filter(type="sample")} == {"policy", "reference"}
    client.force_login(lead)
    shown = client.get(f"/projects/{project.slug}/runs/{run.pk}/").content.decode()
    assert "win_rate/length_controlled" in shown and "· reward" in shown and "Reference" in shown
    shown = client.get(f"/projects/{project.slug}/models/{student.pk}/").content.decode()
    assert f"run {run.pk}</a>" in shown and "With length held" in shown


# --- distill ------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["distill", "evaluate"])
def test_the_recipe_knows_every_option_and_default_that_the_site_sends(kind, filled_project, lead, base, large, policy):
    pytest.importorskip("trl")
    from training.recipes import distill, evaluate

    classes = {"distill": (distill.DistillArguments, distill.DistillSettings), "evaluate": (evaluate.EvaluateArguments,)}
    known = {field.name for cls in classes[kind] for field in dataclasses.fields(cls)}
    assert set(KINDS[kind].options) | set(defaults(kind)) <= known
    role = KINDS[kind].other_model
    spec = {"preamble": PREAMBLE} if kind == "distill" else {}
    for other, adapter in ((large, None), (policy, "support-dpo")):
        run = create_run(
            project=filled_project, kind=kind, created_by=lead, model=base, spec=spec, inputs={role: other.key}
        )
        assert run.other_model == other and role not in run.inputs
        sent = yaml.safe_load((write_inputs(run) / "spec.yaml").read_text())
        assert set(sent) <= known
        assert sent[role].endswith("models/large" if adapter is None else "models/small")
        assert sent.get(f"{role}_adapter", "").endswith(adapter or "")
        if kind == "distill":
            assert sent["preamble"] == PREAMBLE


def test_a_run_has_no_preamble_but_its_own(filled_project, lead, base, large):
    run = create_run(project=filled_project, kind="distill", created_by=lead, model=base, inputs={"teacher": large.pk})
    assert "preamble" not in yaml.safe_load((write_inputs(run) / "spec.yaml").read_text())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (5, "must be a text"),
        ("x" * (MAX_PREAMBLE + 1), "has 8,001 characters, at most 8,000 are taken"),
        ("bell \a", "U+0007"),
        ("nul \0", "U+0000"),
        ("half \ud800", "U+D800"),
        ("lines\n\tand tabs – ß 漢", ""),
        ("x" * MAX_PREAMBLE, ""),
    ],
)
def test_a_free_text_is_bounded_and_holds_no_control_characters(value, said):
    wrong = check_spec("distill", {"preamble": value})
    assert said in wrong.get("spec.preamble", "") and bool(wrong) == bool(said)


@pytest.mark.parametrize(
    ("spec", "inputs", "field", "said"),
    [
        ({}, {}, "spec.preamble", "nothing to learn"),
        ({"preamble": "  \n"}, {"teacher": "small@1"}, "spec.preamble", "nothing to learn"),
        ({"preamble": "x"}, {"teacher": "nobody@1"}, "inputs.teacher", "no such model"),
        ({"preamble": "x"}, {"teacher": "other@1"}, "inputs.teacher", "no such model"),
        ({"preamble": "x"}, {"teacher": "judge@1"}, "inputs.teacher", "is a reward model"),
        ({"preamble": "x"}, {"teacher": "served@1"}, "inputs.teacher", "on a server alone"),
        ({"preamble": "x"}, {"reference": "small@1"}, "inputs.reference", "is not for a run of kind distill"),
        ({"preamble": "x"}, {"rewards": [RULE]}, "inputs.rewards", "are not for a run of kind distill"),
        ({"preamble": "x", "loss": "texts", "written_by": "student"}, {}, "spec.loss", "set written_by to teacher"),
        ({"preamble": "x"}, {"tags": ["none"]}, "inputs", "no prompt fits"),
    ],
)
def test_what_teaches_nothing_is_refused_by_name(filled_project, lead, base, spec, inputs, field, said):
    other = factories.make_project(lead, slug="other")
    version("other@1", "policy", project=other)
    version("judge@1", "reward", project=filled_project)
    ModelVersion.objects.create(key="served@1", name="served", version=1, kind="base", folder="", project=filled_project)
    wrong = refusal_of(project=filled_project, kind="distill", created_by=lead, model=base, spec=spec, inputs=inputs)
    assert said in wrong[field]


def test_the_teachers_licence_and_terms_go_with_the_student(project, lead, base, large, tiny_folder):
    student = register_trained_model(
        name="support-distill", kind="policy", project=project, parent=base, snapshot=None, folder="models/tiny",
        is_adapter=True, metrics={}, lineage={"recipe": "distill", "teacher": large.key}, teacher=large,
    )  # fmt: skip
    Run.objects.create(project=project, kind="distill", model=base, other_model=large, output_model=student, state="done")
    assert student.terms_of == student and student.fee_due
    assert student.output_restrictions == "Not to train other models."
    assert lineage_of(student).licences == ["Apache-2.0", "Llama-3"] and large in lineage_of(student).ancestors
    assert lineage_of(large).descendants == [student]
    assert f"run:{student.made_by.get().pk}" in graph_of(project).after[f"model:{large.pk}"]
    card = card_of(student)
    assert "Not to train other models" in card and "`large@1`" in card
    # And with what is made of it, though that has the same base.
    grandchild = register_trained_model(
        name="support-dpo", kind="policy", project=project, parent=student, snapshot=None, folder="models/tiny",
        is_adapter=True, metrics={}, lineage={},
    )  # fmt: skip
    assert grandchild.base == base and grandchild.output_restrictions == "Not to train other models."
    plain = register_trained_model(
        name="support-sft", kind="policy", project=project, parent=base, snapshot=None, folder="models/tiny",
        is_adapter=True, metrics={}, lineage={}, teacher=base,
    )  # fmt: skip
    assert not plain.has_terms


def test_rows_withdrawn_from_the_teachers_snapshot_are_found_behind_the_student(filled_project, annotator, lead, base):
    factories.judge_all(filled_project, annotator)
    snapshot = create_snapshot(project=filled_project, created_by=lead)
    teacher = version("support-dpo@1", "policy", project=filled_project, base=base, parent=base, snapshot=snapshot)
    student = version("support-distill@1", "policy", project=filled_project, base=base, parent=base)
    Run.objects.create(project=filled_project, kind="distill", model=base, other_model=teacher, output_model=student, state="done")
    assert models_made_of([snapshot])[snapshot.pk] == [teacher, student]


# --- evaluate -----------------------------------------------------------------------------------
def test_an_evaluation_is_given_held_out_prompts_and_texts_alone(filled_project, annotator, lead, base, policy):
    factories.fill_project(filled_project, 20)
    run = create_run(project=filled_project, kind="evaluate", created_by=lead, model=policy)
    folder = write_inputs(run)
    rows = [json.loads(line) for line in (folder / "dataset" / "prompts.jsonl").read_text().splitlines()]
    assert rows and {split_of(row["group_id"], filled_project.eval_share) for row in rows} == {"eval"}
    assert not (folder / "dataset" / "eval_prompts.jsonl").exists() and not (folder / "dataset" / "eval.jsonl").exists()
    assert "rewards" not in yaml.safe_load((folder / "spec.yaml").read_text())


def test_an_evaluation_without_held_out_prompts_or_texts_is_refused(filled_project, annotator, lead, base):
    factories.judge_all(filled_project, annotator)
    snapshot = create_snapshot(project=filled_project, created_by=lead)
    filled_project.eval_share = 0
    filled_project.save()
    wrong = refusal_of(project=filled_project, kind="evaluate", created_by=lead, model=base)
    assert "no prompt that fits is held out" in wrong["inputs"]
    from labeling.preferences.views_of_snapshots import rows_to_train_on

    if not list(rows_to_train_on(snapshot, "sft", "eval")):
        wrong = refusal_of(project=filled_project, kind="evaluate", created_by=lead, model=base, snapshot=snapshot)
        assert "holds no held-out text" in wrong["snapshot"]
    wrong = refusal_of(
        project=filled_project, kind="evaluate", created_by=lead, model=base, spec={"temperature": 0.0},
        inputs={"rewards": [{"rule": "nothing"}]},
    )  # fmt: skip
    assert "would be one" in wrong["spec.temperature"] and "inputs.rewards.0.rule" in wrong


# --- adapters -----------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["reward", "dpo", "sft", "kto", "grpo", "rloo", "distill"])
def test_every_kind_that_trains_an_adapter_knows_its_kinds_and_all_weights(kind):
    assert check_spec(kind, {"adapter_kind": "dora", "adapter_rank": 8}) == {}
    assert check_spec(kind, {"adapter_rank": 0}) == {} and not makes_adapter(kind, {"adapter_rank": 0})
    assert makes_adapter(kind, {})
    assert "there is no adapter" in check_spec(kind, {"adapter_rank": 0, "adapter_kind": "rslora"})["spec.adapter_kind"]
    assert "all weights" in check_spec(kind, {"adapter_rank": 0, "quantised_base": "4bit"})["spec.quantised_base"]
    assert "must be one of" in check_spec(kind, {"adapter_kind": "vera"})["spec.adapter_kind"]


def test_ppo_trains_plain_lora_alone():
    assert "is not an option" in check_spec("ppo", {"adapter_kind": "dora"})["spec.adapter_kind"]
    assert "between 1 and 512" in check_spec("ppo", {"adapter_rank": 0})["spec.adapter_rank"]


def test_all_weights_of_an_adapter_are_refused(filled_project, lead, policy):
    wrong = refusal_of(
        project=filled_project, kind="distill", created_by=lead, model=policy, spec={"preamble": "x", "adapter_rank": 0}
    )
    assert "merge it first" in wrong["spec.adapter_rank"]


def test_an_adapter_trained_on_a_whole_policy_hangs_on_that(project, lead, base, tiny_folder):
    """Not on the base model that the policy was made of, whose weights are others."""
    base.output_restrictions = "Say where it comes from."
    base.save()
    common = {"kind": "policy", "project": project, "snapshot": None, "folder": "models/tiny", "metrics": {}, "lineage": {}}
    whole = register_trained_model(name="whole", parent=base, is_adapter=False, **common)
    adapter = register_trained_model(name="adapter", parent=whole, is_adapter=True, **common)
    assert (whole.base, adapter.base, adapter.root) == (base, whole, base)
    assert adapter.terms_of == base
    again = register_trained_model(name="again", parent=adapter, is_adapter=True, **common)
    assert again.base == whole


# --- pages and REST -----------------------------------------------------------------------------
def test_an_engineer_distils_by_the_form(client, filled_project, base, large, engineer):
    client.force_login(engineer)
    form = client.get("/projects/support/runs/new/?kind=distill").context["form"]
    assert form["option_preamble"].value() in (None, "")
    sent = {f"option_{name}": form[f"option_{name}"].value() or "" for name in form.option_names}
    sent |= {"kind": "distill", "model": base.pk, "other_model": large.pk, "option_preamble": "Be brief.\r\nBe kind."}
    answer = client.post("/projects/support/runs/new/", sent)
    run = Run.objects.get()
    assert answer.url == f"/projects/support/runs/{run.pk}/"
    assert (run.other_model, run.spec) == (large, {"preamble": "Be brief.\nBe kind."})
    shown = client.get(answer.url).content.decode()
    assert "Teacher" in shown and "large@1" in shown and "Be kind." in shown
    refused = client.post("/projects/support/runs/new/", sent | {"option_preamble": "", "other_model": ""})
    assert refused.status_code == 422 and "nothing to learn" in refused.context["form"].errors["option_preamble"][0]


def test_an_engineer_evaluates_by_the_form(client, filled_project, base, policy, engineer):
    client.force_login(engineer)
    form = client.get("/projects/support/runs/new/?kind=evaluate").context["form"]
    sent = {f"option_{name}": form[f"option_{name}"].value() or "" for name in form.option_names}
    sent |= {"kind": "evaluate", "model": policy.pk, "other_model": base.pk, "rules": "length:target=40", "snapshot": ""}
    client.post("/projects/support/runs/new/", sent)
    run = Run.objects.get()
    assert (run.model, run.other_model, run.snapshot, run.spec) == (policy, base, None, {})
    assert run.inputs["rewards"] == [{"rule": "length:target=40", "weight": 1.0}]


def test_both_are_started_and_read_over_rest(filled_project, base, large, policy, engineer):
    caller = Caller(engineer)
    body = {"kind": "distill", "model": base.key, "spec": {"preamble": PREAMBLE}, "inputs": {"teacher": large.key}}
    answer = caller.post("projects/support/runs/", body)
    assert answer.status_code == 201, answer.json()
    assert answer.json()["other_model"] == {"id": str(large.pk), "key": "large@1", "kind": "base"}
    assert answer.json()["spec"]["preamble"] == PREAMBLE
    body = {"kind": "evaluate", "model": policy.key, "inputs": {"reference": str(base.pk)}}
    answer = caller.post("projects/support/runs/", body)
    assert answer.status_code == 201 and answer.json()["other_model"]["key"] == "small@1"
    refused = caller.post("projects/support/runs/", body | {"inputs": {"reference": "nobody@1"}})
    assert refused.status_code == 400 and "inputs.reference" in refused.json()["error"]["fields"]


def test_a_base_model_registers_without_terms_of_others(tiny_folder, lead):
    model = register_base_model(name="tiny", folder="models/tiny", licence="MIT", created_by=lead)
    assert not model.has_terms and model.root == model
