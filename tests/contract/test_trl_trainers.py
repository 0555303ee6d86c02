"""TRL's own trainers take the files as they are, without mapping a column: a step each on a tiny model."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
import pytest

datasets = pytest.importorskip("datasets")
torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")

from labeling.annotation.services import submit_judgement, take_lease  # noqa: E402
from labeling.preferences.services import create_snapshot  # noqa: E402
from labeling.preferences.views_of_snapshots import view_file  # noqa: E402
from labeling.projects.services import change_project  # noqa: E402
from tests import factories  # noqa: E402
from training.sampling.tiny_model import build_tiny_model  # noqa: E402

torch.set_num_threads(1)
STEP = {
    "max_steps": 1,
    "per_device_train_batch_size": 4,
    "report_to": [],
    "use_cpu": True,
    "save_strategy": "no",
    "bf16": False,
}


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    return str(build_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def load(project, annotator, settings, tmp_path):
    """Loads a view of a snapshot with corrections, demonstrations and acceptances, from either format."""
    settings.FILES = tmp_path / "files"
    change_project(
        project=project, form={"corrections": True, "acceptable": True, "demonstration": "optional"}, eval_share=0.0
    )
    factories.fill_project(project, 8)
    while lease := take_lease(project=project, annotator=annotator):
        body = {
            "ranking": [["a"], ["b"], ["c"]],
            "acceptable": {"a": True, "b": True, "c": False},
            "corrections": {"b": f"Edited by hand: {lease.pk}."},
            "demonstration": f"Written by hand: {lease.pk}.",
        }
        submit_judgement(lease=lease, submission_key=str(lease.pk), body=body)
    snapshot = create_snapshot(project=project, created_by=None)

    def load(view, format):
        path = view_file(snapshot, split="train", view=view, format=format)
        reader = "parquet" if format == "parquet" else "json"
        return datasets.load_dataset(reader, data_files=str(path), cache_dir=str(tmp_path / "cache"))["train"]

    return load


def weights_of(trainer):
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


def takes_a_step(trainer):
    before = weights_of(trainer)
    result = trainer.train()
    assert result.global_step == 1 and result.training_loss > 0
    assert any(not torch.equal(before[name], value) for name, value in weights_of(trainer).items())


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_sft_trainer_takes_the_view_sft(load, tiny_model, tmp_path, format):
    data = load("sft", format)
    assert trl.is_conversational(data[0]) and {*data["source"]} == {"correction", "demonstration", "best"}
    arguments = trl.SFTConfig(output_dir=str(tmp_path / "out"), max_length=128, **STEP)
    takes_a_step(trl.SFTTrainer(model=tiny_model, args=arguments, train_dataset=data))


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_kto_trainer_takes_the_view_unpaired(load, tiny_model, tmp_path, format):
    data = load("unpaired", format)
    assert trl.is_conversational(data[0]) and {*data["label"]} == {True, False}
    arguments = trl.KTOConfig(output_dir=str(tmp_path / "out"), max_length=128, **STEP)
    takes_a_step(
        trl.KTOTrainer(model=tiny_model, args=arguments, train_dataset=data, processing_class=tokenizer(tiny_model))
    )


def test_dpo_trainer_takes_the_view_preference_with_its_corrections(load, tiny_model, tmp_path):
    data = load("preference", "jsonl")
    assert any(row[0]["content"].startswith("Edited by hand") for row in data["chosen"])
    arguments = trl.DPOConfig(output_dir=str(tmp_path / "out"), max_length=128, **STEP)
    trainer = trl.DPOTrainer(
        model=tiny_model, args=arguments, train_dataset=data, processing_class=tokenizer(tiny_model)
    )
    takes_a_step(trainer)


@pytest.mark.parametrize("view", ["preference", "preference_standard"])
def test_reward_trainer_takes_preferences(load, tiny_model, tmp_path, view):
    data = load(view, "parquet")
    assert trl.is_conversational(data[0]) == (view == "preference")
    arguments = trl.RewardConfig(output_dir=str(tmp_path / "out"), max_length=128, **STEP)
    takes_a_step(trl.RewardTrainer(model=tiny_model, args=arguments, train_dataset=data))


def test_dpo_trainer_takes_the_view_preference_standard(load, tiny_model, tmp_path):
    data = load("preference_standard", "parquet")
    arguments = trl.DPOConfig(output_dir=str(tmp_path / "out"), max_length=128, **STEP)
    takes_a_step(
        trl.DPOTrainer(model=tiny_model, args=arguments, train_dataset=data, processing_class=tokenizer(tiny_model))
    )


@pytest.mark.parametrize("name", ["GRPO", "RLOO"])
def test_online_trainers_take_the_view_prompt(load, tiny_model, tmp_path, name):
    data = load("prompt", "jsonl")
    assert trl.is_conversational(data[0])
    seen = []

    def longer(completions, **columns):
        seen.append(set(columns))
        return [float(number) for number in range(len(completions))]

    arguments = getattr(trl, f"{name}Config")(
        output_dir=str(tmp_path / "out"), num_generations=2, max_completion_length=4, **STEP
    )
    trainer = getattr(trl, f"{name}Trainer")(
        model=tiny_model, args=arguments, train_dataset=data, reward_funcs=longer, processing_class=tokenizer(tiny_model)
    )
    before = weights_of(trainer)
    assert trainer.train().global_step == 1
    assert any(not torch.equal(before[key], value) for key, value in weights_of(trainer).items())
    assert {"prompts", "group_id", "licence"} <= seen[0]


def tokenizer(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
