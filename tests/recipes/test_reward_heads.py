"""Ensembles of score heads: their bootstraps, what is saved, how unsure they are, and caution."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from tests.recipes.conftest import RunFolder, read_result, user
from training.recipes._reward_heads import bootstrap_weights, describe_ensemble
from training.recipes._rewards import reward_functions
from training.recipes._runlog import read_events
from training.recipes.reward import RewardArguments, RewardSettings, main
from training.sampling.explaining import Explainer
from training.sampling.reward_models import ENSEMBLE_FILE, Ensemble, RewardModels, inspect_reward_model
from training.sampling.reward_rules import RewardError, parse_reward

ROOT = Path(__file__).resolve().parents[2]
PROMPTS, TEXTS = [user("Where is it?")] * 3, ["Thank you! Thank you!", "Open page 7.", "Thank you!"]


def settings(**changes: object) -> RewardSettings:
    return RewardSettings(
        **{"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "bf16": False, "save_steps": 2, **changes}
    )


def train(folder: Path, base: Path, n_heads: int = 3, rank: int = 4, **changes: object) -> Path:
    main(RewardArguments(run_dir=folder, model=str(base), adapter_rank=rank, n_heads=n_heads), settings(**changes))
    return folder / "model"


def test_each_head_has_a_bootstrap_over_groups_that_is_drawn_alike_again() -> None:
    groups = [f"g{number // 3}" for number in range(3000)]
    weights = numpy.array(bootstrap_weights(groups, 4, seed=1))
    assert weights.shape == (3000, 4)
    assert (weights[0::3] == weights[1::3]).all()
    assert weights.mean(axis=0) == pytest.approx([1.0] * 4, abs=0.1)
    assert weights.var(axis=0) == pytest.approx([1.0] * 4, abs=0.2)
    assert abs(numpy.corrcoef(weights[::3].T)[0, 1]) < 0.1
    assert bootstrap_weights(groups[:30], 4, seed=1) == weights[:30].tolist()
    assert bootstrap_weights(groups[:30], 4, seed=2) != weights[:30].tolist()


def test_an_ensemble_is_described_by_where_it_agrees() -> None:
    difference = numpy.array([[1.0, 2.0], [1.0, 3.0], [-1.0, -2.0], [2.0, -1.0], [-4.0, 1.0], [0.5, 0.6]])
    figures = describe_ensemble(difference, [f"g{number}" for number in range(6)])
    assert figures["ensemble/accuracy_where_alike"]["value"] == 0.75 and figures["ensemble/accuracy_where_alike"]["n"] == 4
    assert figures["ensemble/accuracy_where_not"]["value"] == 0.5 and figures["ensemble/accuracy_where_not"]["n"] == 2
    spread = difference.std(axis=1, ddof=1)
    wrong = [0, 0, 1, 0, 1, 0]
    assert figures["ensemble/spread_error_correlation"]["value"] == pytest.approx(numpy.corrcoef(spread, wrong)[0, 1])


def test_deviations_of_an_ensemble_by_hand() -> None:
    ensemble = Ensemble(torch.zeros(3, 2), torch.tensor([0.0, 10.0, 0.0]))
    rewards = numpy.array([[1.0, 11.0, 1.0], [1.0, 12.0, 3.0]])  # but for their constants: 1, 1, 1 and 1, 2, 3
    rows = ensemble.deviations(rewards)
    assert numpy.linalg.norm(rows, axis=1) == pytest.approx([0.0, 1.0])
    assert numpy.linalg.norm(rows[1] - rows[0]) == pytest.approx(numpy.std([0, 1, 2], ddof=1))


@pytest.mark.parametrize("rank", [4, 0])
def test_what_is_saved_is_an_ordinary_reward_model_with_the_heads_beside_it(
    run_folder: RunFolder, tiny_model: Path, rank: int
) -> None:
    folder = run_folder()
    saved = train(folder, tiny_model, rank=rank)
    result = read_result(folder)
    assert {"accuracy", "ensemble/accuracy_where_alike", "ensemble/spread_error_correlation"} <= set(result["figures"])
    assert sum(result["figures"][f"ensemble/accuracy_where_{name}"]["n"] for name in ("alike", "not")) == 12
    assert ENSEMBLE_FILE in result["files"]
    heads = load_file(saved / ENSEMBLE_FILE)
    assert heads["weight"].shape == (3, 64) and heads["offset"].shape == (3,)
    assert not torch.allclose(heads["weight"][0], heads["weight"][1])
    # As transformers and PEFT load it, without anything of ours.
    if rank:
        base = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1)
        plain = PeftModel.from_pretrained(base, saved)
        weight = plain.base_model.model.score.modules_to_save["default"].weight
    else:
        plain = AutoModelForSequenceClassification.from_pretrained(saved)
        weight = plain.score.weight
    assert torch.allclose(weight, heads["weight"].mean(dim=0, keepdim=True), atol=1e-6)
    model = RewardModels(dtype=torch.float32).add(inspect_reward_model(saved))
    rewards, deviations = model.score_with_deviations(PROMPTS, TEXTS)
    assert rewards == pytest.approx(model.score(PROMPTS, TEXTS), abs=1e-5)
    assert min(rewards[0], rewards[2]) > rewards[1]  # more thanks are better: what was planted
    assert (numpy.linalg.norm(deviations, axis=1) > 0).all()
    explainer = Explainer(inspect_reward_model(saved), steps=[8])
    found = explainer.explain(PROMPTS[0], TEXTS[0])
    assert found.deviation == pytest.approx(numpy.linalg.norm(deviations[0]), abs=1e-4)
    assert explainer.difference(PROMPTS[0], TEXTS[0], TEXTS[1])[1] > 0


def test_an_ensemble_killed_in_training_ends_with_the_heads_of_an_uninterrupted_one(
    run_folder: RunFolder, tiny_model: Path
) -> None:
    options = {"max_steps": 30, "save_steps": 3, "num_train_epochs": 20}
    whole = train(run_folder(name="whole"), tiny_model, **options)
    folder = run_folder(name="killed")
    spec = {"model": str(tiny_model), "adapter_rank": 4, "n_heads": 3, "per_device_train_batch_size": 4}
    (folder / "spec.yaml").write_text(json.dumps(spec | options | {"learning_rate": 1e-2, "bf16": False}))
    command = ["-m", "training.recipes.reward", "--config", str(folder / "spec.yaml"), "--run_dir", str(folder)]
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list((folder / "checkpoints").glob("checkpoint-*/complete.json")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "result.json").exists()
    resumed = train(folder, tiny_model, **options)
    assert any(event.get("state") == "resumed" for event in read_events(folder))
    for name in (ENSEMBLE_FILE, "adapter_model.safetensors"):
        first, second = load_file(whole / name), load_file(resumed / name)
        assert all(torch.equal(first[key], second[key]) for key in first), name


def test_caution_takes_standard_deviations_off(run_folder: RunFolder, tiny_model: Path) -> None:
    saved = train(run_folder(evaluation=[]), tiny_model)
    bold, cautious = (
        reward_functions([f"model:{saved},base={tiny_model}{option}"], None, base_model=str(tiny_model), seed=0)[0][0]
        for option in ("", ",caution=2")
    )
    prompts, completions = PROMPTS, [[{"role": "assistant", "content": text}] for text in TEXTS]
    model = RewardModels().add(inspect_reward_model(saved))
    _, deviations = model.score_with_deviations(PROMPTS, TEXTS)
    lowered = numpy.array(bold(prompts, completions)) - 2 * numpy.linalg.norm(deviations, axis=1)
    assert cautious(prompts, completions) == pytest.approx(lowered.tolist(), abs=1e-4)
    single = train(run_folder(evaluation=[], name="single"), tiny_model, n_heads=1, max_steps=1)
    assert not (single / ENSEMBLE_FILE).exists()
    with pytest.raises(RewardError, match="has one head and no posterior"):
        reward_functions([f"model:{single},caution=1"], None, base_model=str(tiny_model), seed=0)


def test_caution_is_parsed_with_and_without_a_base() -> None:
    assert parse_reward("model:/a,b,caution=0.5").options == {"caution": "0.5"}
    assert parse_reward("model:/a,b,caution=0.5").value == "/a,b"
    assert parse_reward("model:/a,base=/b,caution=1").options == {"base": "/b", "caution": "1"}
    for text in ("x", "-1", "11", "nan", ""):
        with pytest.raises(RewardError, match="a number from 0 to 10"):
            parse_reward(f"model:/a,caution={text}")


def test_the_number_of_heads_has_bounds(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="n_heads is 0"):
        RewardArguments(run_dir=tmp_path, model="x", n_heads=0)
