"""Distillation: of a preamble, of another model, on either's completions; kill and resume; what is refused."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from trl.trainer.distillation_trainer import _chunked_divergence_loss

from tests.recipes.conftest import read_result, user, write_rows
from tests.waiting import wait_until
from training.recipes._completions import divergence, sample_all
from training.recipes._data import DatasetError
from training.recipes._runlog import RunLog, Stopped, newest_checkpoint, read_events
from training.recipes.distill import DistillArguments, DistillSettings, check, main, with_preamble
from training.sampling.tiny_model import build_tiny_model
from training.sampling.transformers_backend import TransformersBackend

ROOT = Path(__file__).resolve().parents[2]
PREAMBLE = "Say thank you, and name a page."
PromptFolder = Callable[..., Path]


def settings(**changes: object) -> DistillSettings:
    defaults = {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "bf16": False}
    return DistillSettings(**defaults | changes)


def arguments(folder: Path, model: Path, **changes: object) -> DistillArguments:
    defaults = {"adapter_rank": 4, "max_completion_length": 8, "generation_batch_size": 6, "preamble": PREAMBLE}
    return DistillArguments(run_dir=folder, model=str(model), **defaults | changes)


def prompt_row(number: int) -> dict:
    return {"prompt_id": str(number), "prompt": user(f"How do I reset number {number}?"), "group_id": f"g{number // 2}"}


@pytest.fixture
def prompt_folder(tmp_path: Path) -> PromptFolder:
    """Makes a run folder with prompts, and held-out ones in pairs of a group."""

    def make(name: str = "run") -> Path:
        folder = tmp_path / name
        write_rows(folder / "dataset" / "prompts.jsonl", [prompt_row(number) for number in range(8)])
        write_rows(folder / "dataset" / "eval_prompts.jsonl", [prompt_row(number) for number in range(8, 14)])
        return folder

    return make


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wider model with the same tokenizer."""
    return build_tiny_model(tmp_path_factory.mktemp("models") / "wide", seed=1, hidden_size=96)


def adapter_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "adapter_model.safetensors")


def test_a_preamble_is_learnt_and_the_kl_from_the_teacher_falls(prompt_folder: PromptFolder, tiny_model: Path) -> None:
    folder = prompt_folder()
    main(arguments(folder, tiny_model, sample_every_steps=4, sample_tokens=4), settings(max_steps=12))
    result = read_result(folder)
    figures = result["figures"]
    for name in ("kl", "loss"):
        before, after, change = (figures[f"{name}/{when}"] for when in ("before", "after", "change"))
        assert (after["n"], after["n_groups"]) == (12, 3)
        assert after["value"] - before["value"] == pytest.approx(change["value"])
    assert figures["kl/before"]["low"] > 0 and figures["kl/change"]["high"] < 0
    assert result["teacher"]["shares_base"] and result["teacher"]["same_vocabulary"]
    assert (result["dataset"]["n_train"], result["dataset"]["n_completions"], result["dataset"]["n_eval"]) == (8, 16, 6)
    assert set(path.name for path in (folder / "model").iterdir()) >= {"adapter_model.safetensors", "adapter_config.json"}
    assert "training_args.bin" not in result["files"]
    shown = [event for event in read_events(folder) if event["type"] == "sample"]
    assert shown[0]["prompt"][0] == {"role": "system", "content": PREAMBLE} and len(shown) == 4 + 3 * 2
    TransformersBackend(str(tiny_model), str(folder / "model"))  # the adapter loads and merges


@pytest.mark.parametrize(
    "changes",
    [{"written_by": "student", "divergence_beta": 0.5}, {"loss": "texts"}, {"divergence_beta": 1.0, "adapter_rank": 0}],
    ids=["on the student's completions", "on texts", "all weights, reverse"],
)
def test_another_model_teaches(
    changes: dict, prompt_folder: PromptFolder, tiny_model: Path, other_model: Path
) -> None:
    folder = prompt_folder()
    config = settings(learning_rate=1e-3 if changes.get("adapter_rank") == 0 else 1e-2, max_steps=4)
    main(arguments(folder, tiny_model, preamble="", teacher=str(other_model), **changes), config)
    result = read_result(folder)
    assert result["figures"]["kl/change"]["value"] < 0
    assert not result["teacher"]["shares_base"]
    if changes.get("adapter_rank") == 0:
        AutoModelForCausalLM.from_pretrained(folder / "model")


def test_a_teacher_of_other_tokens_teaches_by_its_texts_alone(
    prompt_folder: PromptFolder, tiny_model: Path, foreign_model: Path
) -> None:
    folder = prompt_folder()
    with pytest.raises(ValueError, match="have other tokens"):
        main(arguments(folder, tiny_model, teacher=str(foreign_model)), settings())
    main(arguments(folder, tiny_model, teacher=str(foreign_model), loss="texts"), settings(max_steps=4))
    result = read_result(folder)
    assert set(result["figures"]) == {"loss/before", "loss/after", "loss/change"}
    assert result["figures"]["loss/change"]["value"] < 0 and not result["teacher"]["same_vocabulary"]


def test_it_goes_on_from_an_adapter_which_is_then_the_teacher(prompt_folder: PromptFolder, tiny_model: Path) -> None:
    first, second = prompt_folder("first"), prompt_folder("second")
    main(arguments(first, tiny_model), settings())
    main(arguments(second, tiny_model, adapter=str(first / "model"), preamble="Be brief."), settings())
    assert read_result(second)["teacher"] | {"hash": ""} == {
        "path": str(tiny_model), "hash": "", "adapter": str(first / "model"), "shares_base": True, "same_vocabulary": True,
    }  # fmt: skip
    moved = [not torch.equal(tensor, adapter_of(second)[name]) for name, tensor in adapter_of(first).items()]
    assert all(moved)
    # With nothing to tell them apart, the student is its teacher.
    same = prompt_folder("same")
    args = arguments(same, tiny_model, adapter=str(first / "model"), teacher=str(tiny_model), preamble="")
    args.teacher_adapter = str(first / "model")
    main(args, settings(max_steps=1))
    assert read_result(same)["figures"]["kl/before"]["value"] == pytest.approx(0, abs=1e-6)


def test_killed_in_training_and_started_again_it_ends_with_the_same_weights(
    prompt_folder: PromptFolder, tiny_model: Path
) -> None:
    """On the student's own completions, which are sampled anew in each step."""
    options = {"max_steps": 14, "save_steps": 3, "num_train_epochs": 20, "gradient_accumulation_steps": 2}
    whole, folder = prompt_folder("whole"), prompt_folder("killed")
    main(arguments(whole, tiny_model, written_by="student"), settings(**options))

    spec = {"model": str(tiny_model), "adapter_rank": 4, "max_completion_length": 8, "generation_batch_size": 6}
    spec |= {"preamble": PREAMBLE, "written_by": "student", "per_device_train_batch_size": 4, "learning_rate": 1e-2}
    (folder / "spec.yaml").write_text(json.dumps(spec | options | {"bf16": False}))
    command = [sys.executable, "-m", "training.recipes.distill", "--config", str(folder / "spec.yaml")]
    process = subprocess.Popen(
        [*command, "--run_dir", str(folder)], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_until(lambda: list((folder / "checkpoints").glob("checkpoint-*/complete.json")))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "result.json").exists()
    resumed_at = newest_checkpoint(folder / "checkpoints")
    main(arguments(folder, tiny_model, written_by="student"), settings(**options))
    resumed = [event for event in read_events(folder) if event.get("state") == "resumed"]
    assert resumed[0]["checkpoint"] == f"checkpoints/{resumed_at.name}"
    for name, tensor in adapter_of(whole).items():
        assert torch.equal(tensor, adapter_of(folder)[name]), name
    assert read_result(folder)["figures"] == read_result(whole)["figures"]


def test_sampling_goes_on_with_the_first_batch_that_is_not_whole(tmp_path: Path) -> None:
    batches = []

    def sample_batch(batch: list[int]) -> list[dict]:
        batches.append(list(batch))
        return [{"number": number} for number in batch]

    path, run_log = tmp_path / "rows.jsonl", RunLog(tmp_path, kind="distill")
    path.write_text('{"number": 0}\n{"number": 1}\n{"number": 2}\n{"numb')
    rows = sample_all(path, range(5), sample_batch, batch_size=2, run_log=run_log)
    assert [row["number"] for row in rows] == [0, 1, 2, 3, 4] and batches == [[2, 3], [4]]
    assert sample_all(path, range(5), sample_batch, batch_size=2, run_log=run_log) == rows and len(batches) == 2
    (tmp_path / "stop").touch()
    path.unlink()
    with pytest.raises(Stopped):
        sample_all(path, range(5), sample_batch, batch_size=2, run_log=run_log)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_the_divergence_is_trls(beta: float) -> None:
    """Also the contract with TRL: names what moved if its own loss is another one."""
    torch.manual_seed(0)
    hidden, heads = torch.randn(2, 2, 3, 8), torch.randn(2, 16, 8)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    theirs, _, _ = _chunked_divergence_loss(hidden[0], hidden[1], heads[0], heads[1], mask, beta)
    student, teacher = (hidden[side] @ heads[side].T for side in (0, 1))
    ours = divergence(student, teacher, mask, beta=beta).sum() / mask.sum()
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_a_preamble_stands_before_what_the_prompt_says_of_the_system() -> None:
    system = [{"role": "system", "content": "You are kind."}, *user("Hello")]
    assert with_preamble(system, "Be brief.")[0]["content"] == "Be brief.\n\nYou are kind."
    assert with_preamble(user("Hello"), "Be brief.") == [{"role": "system", "content": "Be brief."}, *user("Hello")]
    assert with_preamble(system, " ") == system


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preamble": " "}, "nothing to learn"),
        ({"loss": "hinge"}, "must be kl or texts"),
        ({"loss": "texts", "written_by": "student"}, "set written_by: teacher"),
        ({"divergence_beta": 2.0}, "between 0 and 1"),
        ({"completions_per_prompt": 0}, "at least 1"),
    ],
)
def test_what_teaches_nothing_is_refused(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        check(arguments(tmp_path, tmp_path, **changes), settings())


def test_too_long_a_preamble_is_named(prompt_folder: PromptFolder, tiny_model: Path) -> None:
    with pytest.raises(DatasetError, match="preamble included"):
        main(arguments(prompt_folder(), tiny_model, max_prompt_length=20), settings())
