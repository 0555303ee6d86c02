"""PPO runs: what is refused before it is queued, what the recipe gets, the form and REST."""

import dataclasses

import pytest
import yaml

from tests.api_caller import Caller
from training.registry.models import ModelVersion
from training.runs.catalogue import KINDS, defaults
from training.runs.errors import BadSpec
from training.runs.folder import write_inputs
from training.runs.models import Run
from training.runs.services import create_run

RULE = {"rule": "length:target=4", "weight": 0.5}


@pytest.fixture
def base(db) -> ModelVersion:
    return ModelVersion.objects.create(key="small@1", name="small", version=1, kind="base", folder="models/small")


@pytest.fixture
def reward_model(project, base) -> ModelVersion:
    return ModelVersion.objects.create(
        key="support-reward@1", name="support-reward", version=1, kind="reward", folder="models/support-reward",
        project=project, base=base, parent=base, is_adapter=True,
    )  # fmt: skip


def start(project, lead, base, spec=None, rewards=(RULE,)) -> Run:
    return create_run(
        project=project, kind="ppo", created_by=lead, model=base, spec={"per_device_train_batch_size": 2, **(spec or {})},
        inputs={"rewards": list(rewards)},
    )  # fmt: skip


def test_the_recipe_knows_every_option_and_default_that_the_site_sends(filled_project, lead, base, reward_model):
    pytest.importorskip("trl")
    from training.recipes.ppo import PPOArguments, PPOSettings

    known = {field.name for cls in (PPOArguments, PPOSettings) for field in dataclasses.fields(cls)}
    assert set(KINDS["ppo"].options) <= known
    run = start(filled_project, lead, base, {"value_head_from": "reward"}, [{"model": reward_model.key}, RULE])
    spec = yaml.safe_load((write_inputs(run) / "spec.yaml").read_text())
    assert set(spec) <= known
    assert len(spec["rewards"]) == len(spec["reward_weights"]) == 2
    assert (spec["num_generations"], spec["value_head_from"]) == (1, "reward")
    assert list(run.reward_models.all()) == [reward_model]


@pytest.mark.parametrize(
    ("spec", "field", "said"),
    [
        ({"per_device_train_batch_size": 1}, "per_device_train_batch_size", "must lie between 2 and 512"),
        ({"num_iterations": 3}, "save_steps", "must be a multiple of 3"),
        ({"gradient_accumulation_steps": 3, "steps_per_generation": 1}, "gradient_accumulation_steps", "must divide"),
        ({"kl_target_nats": 6, "beta": 0}, "kl_target_nats", "give beta a first value"),
        ({"lam": 1.2}, "lam", "must lie between 0.0 and 1.0"),
        ({"value_head_from": "noise"}, "value_head_from", "must be one of: zero, reward"),
        ({"value_head_from": "reward"}, "value_head_from", "no reward is a LoRA reward model"),
        ({"loss_type": "grpo"}, "loss_type", "is not an option of ppo"),
    ],
)
def test_what_cannot_work_is_refused_by_name(filled_project, lead, base, spec, field, said):
    with pytest.raises(BadSpec) as refusal:
        start(filled_project, lead, base, spec)
    assert said in refusal.value.fields[f"spec.{field}"]
    assert not Run.objects.exists()


def test_ppo_is_started_from_its_form(client, filled_project, base, reward_model, engineer):
    client.force_login(engineer)
    form = client.get("/projects/support/runs/new/?kind=ppo").context["form"]
    assert form["option_beta"].value() == defaults("ppo")["beta"] == 0.05
    sent = {f"option_{name}": form[f"option_{name}"].value() or "" for name in form.option_names}
    sent |= {"kind": "ppo", "model": base.pk, f"reward_{reward_model.pk}": "1", "rules": "repetition 0.2"}
    refused = client.post("/projects/support/runs/new/", sent | {"option_num_iterations": "3"})
    assert refused.status_code == 422 and "must be a multiple of 3" in refused.content.decode()
    answer = client.post("/projects/support/runs/new/", sent | {"other_options": "per_device_train_batch_size: 2"})
    run = Run.objects.get()
    assert answer.url == f"/projects/support/runs/{run.pk}/"
    assert (run.kind, len(run.inputs["rewards"])) == ("ppo", 2)


def test_ppo_is_started_over_rest(filled_project, base, reward_model, engineer):
    body = {
        "kind": "ppo", "model": base.key, "inputs": {"rewards": [{"model": reward_model.key}]},
        "spec": {"per_device_train_batch_size": 2, "kl_target_nats": 6.0, "value_head_from": "reward"},
    }  # fmt: skip
    answer = Caller(engineer).post("projects/support/runs/", body)
    assert answer.status_code == 201, answer.json()
    assert answer.json()["kind"] == "ppo"
    refused = Caller(engineer).post("projects/support/runs/", body | {"spec": {"vf_coef": "much"}})
    assert "spec.vf_coef" in refused.json()["error"]["fields"]
