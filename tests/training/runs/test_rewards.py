"""Runs that learn from rewards: what is refused before it is queued, what the recipe gets, lineage, the form and REST."""

import json

import pytest
import yaml
from django.conf import settings as site

from labeling.preferences.services import create_snapshot
from labeling.preferences.withdrawal import models_made_of
from labeling.projects.models import Project, Prompt
from labeling.projects.text import split_of
from tests import factories
from tests.api_caller import Caller
from tests.labeling.quality import gold
from training.registry.models import ModelVersion
from training.registry.selectors import lineage_of
from training.runs.errors import BadSpec
from training.runs.folder import run_folder, write_inputs
from training.runs.models import Run
from training.runs.services import claim_next_run, create_run
from training.runs.watch import environment, watch_run

SMALL = {
    "max_steps": 2, "per_device_train_batch_size": 4, "num_generations": 2, "max_completion_length": 6,
    "eval_completions": 2, "save_steps": 1, "sample_every_steps": 1, "learning_rate": 0.01,
}  # fmt: skip
RULE = {"rule": "length:target=4", "weight": 0.5}


@pytest.fixture
def base(db) -> ModelVersion:
    return ModelVersion.objects.create(key="small@1", name="small", version=1, kind="base", folder="models/small")


@pytest.fixture
def reward_model(project, base) -> ModelVersion:
    return ModelVersion.objects.create(
        key="support-reward@1", name="support-reward", version=1, kind="reward", folder="models/support-reward",
        project=project, base=base, parent=base, metrics={"accuracy": {"value": 0.71, "n": 240}},
    )  # fmt: skip


def execute(run: Run) -> Run:
    claimed = claim_next_run(owner="test")
    assert claimed == run
    watch_run(claimed)
    run.refresh_from_db()
    assert (run.state, run.error) == (Run.State.DONE, "")
    return run


@pytest.mark.recipe
def test_a_policy_learns_from_a_reward_model_and_both_know_of_each_other(project, annotator, lead, tiny):
    factories.fill_project(project, 24)
    factories.judge_all(project, annotator)
    snapshot = create_snapshot(project=project, created_by=lead)
    judge = execute(
        create_run(project=project, kind="reward_head", created_by=lead, snapshot=snapshot, model=tiny, spec={"layer": 1})
    ).output_model
    rewards = [{"model": judge.key, "weight": 1.0}, RULE]
    run = create_run(project=project, kind="grpo", created_by=lead, model=tiny, spec=SMALL, inputs={"rewards": rewards})
    execute(run)
    policy = run.output_model
    assert (policy.kind, policy.is_adapter, policy.parent, policy.base) == ("policy", True, tiny, tiny)
    assert list(run.reward_models.all()) == [judge]
    assert run.inputs["rewards"] == [{"model": judge.pk, "key": judge.key, "weight": 1.0}, RULE]
    assert policy.lineage["rewards"] == run.inputs["rewards"]
    assert {"reward/before", "reward/after", "reward/change"} <= set(policy.metrics)
    n_held_out = sum(split_of(prompt.group_id, project.eval_share) == "eval" for prompt in Prompt.objects.all())
    assert policy.metrics["reward/after"]["n"] == 2 * n_held_out > 0
    sample = run.events.filter(type="sample").first().payload
    name = f"{project.slug}_reward_run_{judge.lineage['run']}"
    assert sample["reward"] == pytest.approx(sample["rewards"][name] + sample["rewards"]["length"] / 2)
    # From the policy back to the judgements behind its reward model, and from them forward to it.
    lineage = lineage_of(policy)
    assert {judge, tiny} <= set(lineage.ancestors) and lineage.snapshots == [snapshot]
    assert lineage.annotators_by_kind == snapshot.manifest["annotator_kinds"]
    assert lineage_of(judge).descendants == [policy]
    assert models_made_of([snapshot])[snapshot.pk] == [judge, policy]


def test_training_prompts_leave_out_what_is_held_out_or_gold(project, lead, base, reward_model):
    factories.fill_project(project, 30)
    gold.write(project, 2)
    run = create_run(
        project=project, kind="grpo", created_by=lead, model=base, inputs={"rewards": [{"model": reward_model.pk}]}
    )
    folder = write_inputs(run)
    assert folder == run_folder(run)
    rows = {
        split: [json.loads(line) for line in (folder / "dataset" / name).read_text().splitlines()]
        for split, name in (("train", "prompts.jsonl"), ("eval", "eval_prompts.jsonl"))
    }
    assert len(rows["train"]) + len(rows["eval"]) == 30 < Prompt.objects.count()
    for split, found in rows.items():
        assert found
        assert {split_of(row["group_id"], project.eval_share) for row in found} == {split}
    manifest = json.loads((folder / "dataset" / "manifest.json").read_text())
    assert manifest["n_prompts"] == {split: len(found) for split, found in rows.items()}
    spec = yaml.safe_load((folder / "spec.yaml").read_text())
    assert spec["rewards"] == [f"model:{site.HOME}/models/support-reward,base={site.HOME}/models/small"]
    assert spec["reward_weights"] == [1.0]


@pytest.mark.parametrize(
    ("rewards", "field", "said"),
    [
        (None, "", "is required"),
        ([], "", "is required"),
        ([{"weight": 1}], ".0", "must name one model, one rule or one function"),
        ([RULE, {"rule": "format:json", "model": "x"}], ".1", "must name one"),
        ([{"model": "other-reward@1"}], ".0.model", "no such reward model in this project"),
        ([{"model": "policy@1"}], ".0.model", "policy@1 is a policy, no reward model"),
        ([{"model": "support-reward@1"}] * 2, ".1.model", "support-reward@1 is there twice"),
        ([{"rule": "length:target=0"}], ".0.rule", "target is '0'"),
        ([{"rule": "model:/etc"}], ".0.rule", "is no rule: give it as model"),
        ([{"rule": "function:os.system"}], ".0.rule", "is no rule: give it as function"),
        ([{"function": "os.system"}], ".0.function", "not allowed here"),
        ([{"function": "team.mood"}], ".0.function", ""),
        ([{**RULE, "weight": float("nan")}], ".0.weight", "finite"),
        ([{**RULE, "weight": "1"}], ".0.weight", "finite"),
        ([{**RULE, "weight": 0}], "", "weight of 0, all of them"),
        ([RULE] * 21, "", "at most 20"),
    ],
)
def test_rewards_that_cannot_work_are_refused_by_name(
    filled_project, lead, base, reward_model, settings, rewards, field, said
):
    project = filled_project
    other = Project.objects.create(slug="other", name="Other")
    for key, kind, owner in (("other-reward@1", "reward", other), ("policy@1", "policy", project)):
        ModelVersion.objects.create(key=key, name=key[:-2], version=1, kind=kind, folder="models/x", project=owner)
    settings.REWARD_FUNCTIONS = ["team.mood"]
    inputs = {} if rewards is None else {"rewards": rewards}
    options = {"project": project, "kind": "grpo", "created_by": lead, "model": base, "inputs": inputs}
    spec = {"per_device_train_batch_size": 2, "num_generations": 2}
    if not said:
        run = create_run(**options, spec=spec)
        assert environment()["PREFLOOP_REWARD_FUNCTIONS"] == "team.mood"
        assert run.inputs["rewards"] == [{"function": "team.mood", "weight": 1.0}]
        return
    with pytest.raises(BadSpec) as refusal:
        create_run(**options, spec=spec)
    assert list(refusal.value.fields) == [f"inputs.rewards{field}"]
    assert said in refusal.value.fields[f"inputs.rewards{field}"]
    assert not Run.objects.exists()


@pytest.mark.parametrize(
    ("spec", "field", "said"),
    [
        ({"num_generations": 3}, "spec.num_generations", "a rollout has 8 completions"),
        ({"num_iterations": 3, "save_steps": 10}, "spec.save_steps", "must be a multiple of 3"),
        ({"steps_per_generation": 4, "gradient_accumulation_steps": 2, "save_steps": 5}, "spec.save_steps", "multiple of 2"),
        ({"per_device_train_batch_size": 512, "num_generations": 2}, "inputs", "one rollout takes 256"),
        ({"rewards": ["length:target=4"]}, "spec.rewards", "is not an option"),
        ({"loss_type": "sigmoid"}, "spec.loss_type", "must be one of"),
    ],
)
def test_rollouts_that_cannot_work_are_refused_by_name(filled_project, lead, base, spec, field, said):
    with pytest.raises(BadSpec) as refusal:
        create_run(
            project=filled_project, kind="grpo", created_by=lead, model=base, spec=spec, inputs={"rewards": [RULE]}
        )
    assert said in refusal.value.fields[field]


def test_other_kinds_take_no_rewards(filled_project, lead, base):
    with pytest.raises(BadSpec, match="are not for a run of kind sample"):
        create_run(project=filled_project, kind="sample", created_by=lead, model=base, inputs={"rewards": [RULE]})


# --- caution ------------------------------------------------------------------------------------
@pytest.fixture
def ensemble(reward_model) -> ModelVersion:
    reward_model.files = {"adapter_model.safetensors": "0", "reward_heads.safetensors": "1"}
    reward_model.is_adapter = True
    reward_model.save()
    return reward_model


def test_caution_reaches_the_recipe_and_is_read_over_rest(filled_project, base, ensemble, engineer):
    body = {
        "kind": "rloo", "model": base.key, "spec": {"per_device_train_batch_size": 2, "num_generations": 2},
        "inputs": {"rewards": [{"model": ensemble.key, "caution": 0.5}, RULE]},
    }  # fmt: skip
    answer = Caller(engineer).post("projects/support/runs/", body)
    assert answer.status_code == 201, answer.json()
    assert [reward["caution"] for reward in answer.json()["rewards"]] == [0.5, 0.0]
    spec = yaml.safe_load((write_inputs(Run.objects.get()) / "spec.yaml").read_text())
    assert spec["rewards"][0] == f"model:{site.HOME}/models/support-reward,base={site.HOME}/models/small,caution=0.5"


@pytest.mark.parametrize(
    ("kind", "reward", "files", "said"),
    [
        ("grpo", {"model": "support-reward@1", "caution": 1}, {"adapter_model.safetensors": "0"}, "doesn't know how sure it is"),
        ("grpo", {"model": "support-reward@1", "caution": 11}, None, "a number from 0 to 10"),
        ("grpo", {"model": "support-reward@1", "caution": "x"}, None, "a number from 0 to 10"),
        ("grpo", {**RULE, "caution": 1}, None, "for reward models alone"),
    ],
)
def test_caution_that_cannot_work_is_refused_by_name(filled_project, lead, base, ensemble, kind, reward, files, said):
    if files is not None:
        ModelVersion.objects.filter(pk=ensemble.pk).update(files=files)
    with pytest.raises(BadSpec) as refusal:
        create_run(project=filled_project, kind=kind, created_by=lead, model=base, inputs={"rewards": [reward]})
    assert said in refusal.value.fields["inputs.rewards.0.caution"]


def test_each_axis_of_a_reward_model_can_be_a_reward_of_its_own(client, filled_project, base, reward_model, lead):
    def start(*rewards):
        return create_run(
            project=filled_project, kind="grpo", created_by=lead, model=base, inputs={"rewards": list(rewards)},
            spec={"per_device_train_batch_size": 2, "num_generations": 2},
        )  # fmt: skip

    def refused(*rewards):
        with pytest.raises(BadSpec) as refusal:
            start(*rewards)
        return refusal.value.fields

    tone, facts = ({"model": reward_model.key, "axis": axis} for axis in ("tone", "facts"))
    assert "one reward alone" in refused(tone)["inputs.rewards.0.axis"]
    assert "for reward models alone" in refused({**RULE, "axis": "tone"})["inputs.rewards.0.axis"]
    reward_model.lineage = {"options": {"axes": ["tone", "facts"]}}
    reward_model.metrics = {"accuracy_on/tone": {"value": 0.8, "n": 40}}
    reward_model.save()
    assert "choose from tone, facts" in refused({**tone, "axis": "length"})["inputs.rewards.0.axis"]
    assert "twice" in refused(tone, tone)["inputs.rewards.1.model"]
    spec = yaml.safe_load((write_inputs(start(tone, facts, {"model": reward_model.key})) / "spec.yaml").read_text())
    assert [entry.partition(",axis=")[2] for entry in spec["rewards"]] == ["tone", "facts", ""]

    client.force_login(lead)
    page = client.get("/projects/support/runs/new/?kind=grpo").content.decode()
    assert f"{reward_model.key} on tone" in page and "accuracy 0.80 (n = 40 pairs)" in page
    sent = {"kind": "grpo", "model": base.pk, f"reward_{reward_model.pk}_1": "2", "rules": "repetition"}
    sent |= {"option_num_generations": "2", "other_options": "per_device_train_batch_size: 2"}
    shown = client.get(client.post("/projects/support/runs/new/", sent).url).content.decode()
    assert Run.objects.latest("pk").inputs["rewards"][0] == {
        "model": reward_model.pk, "key": reward_model.key, "axis": "facts", "weight": 2.0,
    }  # fmt: skip
    assert f"{reward_model.key}</a> on facts" in shown


def test_the_form_is_cautious_with_models_that_know_how_sure_they_are(client, filled_project, base, ensemble, lead):
    client.force_login(lead)
    sent = {"kind": "grpo", "model": base.pk, f"reward_{ensemble.pk}": "1", "rules": "repetition 0.2", "caution": "0.5"}
    sent |= {"option_num_generations": "2", "other_options": "per_device_train_batch_size: 2"}
    answer = client.post("/projects/support/runs/new/", sent)
    run = Run.objects.get()
    assert [reward.get("caution") for reward in run.inputs["rewards"]] == [0.5, None]
    assert "less 0.5 sd" in client.get(answer.url).content.decode()
    ModelVersion.objects.filter(pk=ensemble.pk).update(files={})
    answer = client.post("/projects/support/runs/new/", sent)
    assert answer.status_code == 422
    assert "doesn't know how sure it is" in " ".join(answer.context["form"].errors["caution"])


# --- the form -----------------------------------------------------------------------------------
def test_an_engineer_chooses_reward_models_and_rules_with_weights(client, filled_project, base, reward_model, engineer):
    client.force_login(engineer)
    page = client.get("/projects/support/runs/new/?kind=grpo")
    form = page.context["form"]
    field = f"reward_{reward_model.pk}"
    assert form[field].value() == 1.0
    assert "accuracy 0.71 (n = 240 pairs)" in page.content.decode()
    sent = {f"option_{name}": form[f"option_{name}"].value() or "" for name in form.option_names}
    sent |= {"kind": "grpo", "model": base.pk, field: "0.8", "rules": "length:target=40,tolerance=5 0.5\n\nrepetition"}
    sent |= {"option_num_generations": "2", "other_options": "per_device_train_batch_size: 2"}
    answer = client.post("/projects/support/runs/new/", sent)
    run = Run.objects.get()
    assert answer.url == f"/projects/support/runs/{run.pk}/"
    assert run.inputs["rewards"] == [
        {"model": reward_model.pk, "key": "support-reward@1", "weight": 0.8},
        {"rule": "length:target=40,tolerance=5", "weight": 0.5},
        {"rule": "repetition", "weight": 1.0},
    ]
    shown = client.get(answer.url).content.decode()
    assert "support-reward@1" in shown and "length:target=40,tolerance=5" in shown


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"rules": "length 1"}, "rules", "needs target"),
        ({"rules": "repetition\nlength:target=40 much"}, "rules", "Line 2: write a rule and its weight"),
        ({"rules": "repetition nan"}, "rules", "Line 1"),
        ({"rules": "function:os.system"}, "rules", "not allowed here"),
        ({"rules": ""}, "rules", "choose a reward model, or write a rule"),
        ({"rules": "repetition 0"}, "rules", "weight of 0"),
        ({"reward": "many"}, "reward", "number"),
        ({"option_num_generations": "3"}, "option_num_generations", "a rollout has 8 completions"),
    ],
)
def test_what_is_wrong_with_rewards_is_said_beside_the_field(
    client, filled_project, base, reward_model, lead, changes, field, said
):
    client.force_login(lead)
    name = f"reward_{reward_model.pk}"
    changes = {(name if key == "reward" else key): value for key, value in changes.items()}
    answer = client.post("/projects/support/runs/new/", {"kind": "rloo", "model": base.pk, "rules": "repetition"} | changes)
    assert answer.status_code == 422
    assert said in " ".join(answer.context["form"].errors[name if field == "reward" else field])
    assert not Run.objects.exists()


# --- REST ---------------------------------------------------------------------------------------
def test_a_run_with_rewards_is_started_and_read_over_rest(filled_project, base, reward_model, engineer):
    body = {
        "kind": "rloo", "model": base.key, "spec": {"per_device_train_batch_size": 2, "num_generations": 2},
        "inputs": {"rewards": [{"model": reward_model.key, "weight": 0.5}, {"rule": "format:json"}]},
    }  # fmt: skip
    caller = Caller(engineer)
    answer = caller.post("projects/support/runs/", body)
    assert answer.status_code == 201, answer.json()
    nothing = {"model": None, "key": None, "rule": None, "function": None, "axis": "", "caution": 0.0}
    assert answer.json()["rewards"] == [
        {**nothing, "model": str(reward_model.pk), "key": reward_model.key, "weight": 0.5},
        {**nothing, "rule": "format:json", "weight": 1.0},
    ]
    assert caller.get(f"runs/{answer.json()['id']}/").json()["rewards"] == answer.json()["rewards"]
    for rewards, field in (
        ([{"model": "support-reward@9"}], "inputs.rewards.0.model"),
        ([{"rule": "format:json", "colour": "red"}], "inputs"),
        ([{"rule": 5}], "inputs"),
    ):
        refused = caller.post("projects/support/runs/", body | {"inputs": {"rewards": rewards}})
        assert refused.status_code == 400 and field in refused.json()["error"]["fields"], refused.json()
