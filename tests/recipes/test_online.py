"""GRPO and RLOO: two steps, resume after a kill, held-out rewards, what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.recipes.conftest import read_result, user, write_rows
from tests.waiting import wait_until
from training.recipes import grpo, rloo
from training.recipes._data import DatasetError
from training.recipes._online import OnlineArguments, cycle_steps, evaluate_policy
from training.recipes._runlog import Stopped, launch, newest_checkpoint, read_events
from training.sampling.reward_rules import RewardError
from training.sampling.transformers_backend import TransformersBackend, load_policy

ROOT = Path(__file__).resolve().parents[2]
RULES = ["length:target=4", "repetition:n=1"]
PromptFolder = Callable[..., Path]
RECIPES = {"grpo": (grpo.main, grpo.GRPOSettings), "rloo": (rloo.main, rloo.RLOOSettings)}


def settings(kind: str = "grpo", **changes: object) -> object:
    """Two steps of two prompts with two completions of eight tokens, in float32."""
    defaults = {
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "num_generations": 2,
        "max_completion_length": 8,
        "learning_rate": 1e-2,
        "bf16": False,
    }
    return RECIPES[kind][1](**defaults | changes)


def prompt_row(number: int) -> dict:
    return {"prompt_id": str(number), "prompt": user(f"How do I reset number {number}?"), "group_id": f"g{number // 2}"}


@pytest.fixture
def prompt_folder(tmp_path: Path) -> PromptFolder:
    """Makes a run folder with prompts, and held-out ones in pairs of a group."""

    def make(name: str = "run", held_out: range = range(8, 14)) -> Path:
        folder = tmp_path / name
        write_rows(folder / "dataset" / "prompts.jsonl", [prompt_row(number) for number in range(8)])
        write_rows(folder / "dataset" / "eval_prompts.jsonl", [prompt_row(number) for number in held_out])
        (folder / "dataset" / "manifest.json").write_text('{"project": "p"}')
        return folder

    return make


def arguments(folder: Path, model: Path, **changes: object) -> OnlineArguments:
    defaults = {"rewards": RULES, "adapter_rank": 4, "eval_completions": 2}
    return OnlineArguments(run_dir=folder, model=str(model), **defaults | changes)


def adapter_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "adapter_model.safetensors")


@pytest.mark.parametrize("kind", RECIPES)
def test_two_steps_move_the_weights_and_compare_held_out_rewards(
    kind: str, prompt_folder: PromptFolder, tiny_model: Path
) -> None:
    folder = prompt_folder()
    RECIPES[kind][0](arguments(folder, tiny_model), settings(kind, reward_weights=[1.0, 0.5]))
    result = read_result(folder)
    figures = result["figures"]
    assert {"reward/before", "reward/after", "reward/change", "rewards/length/after"} <= set(figures)
    for name in ("reward/before", "reward/after", "reward/change"):
        figure = figures[name]
        assert (figure["n"], figure["n_groups"]) == (12, 3)
        assert figure["low"] <= figure["value"] <= figure["high"]
    for when in ("before", "after"):
        total = figures[f"rewards/length/{when}"]["value"] + figures[f"rewards/repetition/{when}"]["value"] / 2
        assert figures[f"reward/{when}"]["value"] == pytest.approx(total)
    change = figures["reward/after"]["value"] - figures["reward/before"]["value"]
    assert figures["reward/change"]["value"] == pytest.approx(change)
    assert {"reward", "kl", "entropy", "rewards/length/mean", "completions/mean_length"} <= set(result["metrics"])
    assert [row["weight"] for row in result["rewards"]] == [1.0, 0.5]
    assert (result["dataset"]["n_train"], result["dataset"]["n_eval"]) == (8, 6)
    assert any(tensor.abs().max() > 0 for name, tensor in adapter_of(folder).items() if "lora_B" in name)
    assert "training_args.bin" not in result["files"]
    shown = [event for event in read_events(folder) if event["type"] == "sample"]
    assert len(shown) == 8 and {event["step"] for event in shown} == {1, 2}
    for event in shown:
        assert event["reward"] == pytest.approx(event["rewards"]["length"] + event["rewards"]["repetition"] / 2)
    TransformersBackend(str(tiny_model), str(folder / "model"))  # the adapter loads and merges


@pytest.mark.parametrize("kind", RECIPES)
def test_killed_in_training_and_started_again_it_ends_with_the_same_weights(
    kind: str, prompt_folder: PromptFolder, tiny_model: Path
) -> None:
    """Each rollout serves four steps: two batches of it, twice."""
    options = {
        "max_steps": 24, "save_steps": 4, "num_iterations": 2, "steps_per_generation": 2, "max_completion_length": 8,
        "per_device_train_batch_size": 4, "num_generations": 2, "learning_rate": 1e-2, "bf16": False,
    }  # fmt: skip
    whole = prompt_folder("whole")
    RECIPES[kind][0](arguments(whole, tiny_model), settings(kind, **options))

    folder = prompt_folder("killed")
    spec = {"model": str(tiny_model), "adapter_rank": 4, "eval_completions": 2, "rewards": RULES}
    (folder / "spec.yaml").write_text(json.dumps(spec | options))
    command = [sys.executable, "-m", f"training.recipes.{kind}", "--config", str(folder / "spec.yaml")]
    process = subprocess.Popen(
        [*command, "--run_dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    checkpoints = folder / "checkpoints"
    wait_until(lambda: process.poll() is not None or any(checkpoints.glob("checkpoint-*/complete.json")), seconds=120)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "result.json").exists()
    resumed_at = newest_checkpoint(checkpoints)
    assert resumed_at is not None
    # A checkpoint that was being written when the kill came:
    shutil.copytree(resumed_at, checkpoints / "checkpoint-23")
    (checkpoints / "checkpoint-23" / "adapter_model.safetensors").write_bytes(b"half")

    RECIPES[kind][0](arguments(folder, tiny_model), settings(kind, **options))
    resumed = [event for event in read_events(folder) if event.get("state") == "resumed"]
    assert resumed[0]["checkpoint"] == f"checkpoints/{resumed_at.name}"
    for name, tensor in adapter_of(whole).items():
        assert torch.equal(tensor, adapter_of(folder)[name]), name
    assert read_result(folder)["figures"] == read_result(whole)["figures"]


@pytest.mark.parametrize("kind", RECIPES)
def test_a_run_resumed_in_a_later_epoch_sees_the_prompts_in_the_same_order(
    kind: str, prompt_folder: PromptFolder, tiny_model: Path
) -> None:
    """An epoch is four rollouts of two prompts: one checkpoint lies at its end, one in the next."""
    options = {"max_steps": 8, "save_steps": 2, "save_total_limit": 9}
    whole, folder = prompt_folder("whole", held_out=range(0)), prompt_folder("resumed", held_out=range(0))
    RECIPES[kind][0](arguments(whole, tiny_model), settings(kind, **options))
    for step in (4, 6):
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        name = f"checkpoint-{step}"
        shutil.copytree(whole / "checkpoints" / name, folder / "checkpoints" / name)
        RECIPES[kind][0](arguments(folder, tiny_model), settings(kind, **options))
        for name, tensor in adapter_of(whole).items():
            assert torch.equal(tensor, adapter_of(folder)[name]), (step, name)


def test_the_stop_file_ends_a_run_between_rollouts(prompt_folder: PromptFolder, tiny_model: Path) -> None:
    """Of a policy that has an adapter already, whose copy is the reference before and after."""
    first, whole, folder = (prompt_folder(name, held_out=range(0)) for name in ("first", "whole", "stopped"))
    grpo.main(arguments(first, tiny_model), settings(max_steps=1))
    assert read_result(first)["figures"] == {}  # no prompts are held out

    def go_on(folder: Path) -> None:
        config = settings(max_steps=8, num_iterations=3, save_steps=3, beta=0.5)
        grpo.main(arguments(folder, tiny_model, adapter=str(first / "model")), config)

    go_on(whole)
    (folder / "stop").touch()
    with pytest.raises(Stopped):
        go_on(folder)
    assert newest_checkpoint(folder / "checkpoints").name == "checkpoint-3"
    (folder / "stop").unlink()
    go_on(folder)
    for name, tensor in adapter_of(whole).items():
        assert torch.equal(tensor, adapter_of(folder)[name]), name


def test_a_policys_adapter_is_gone_on_with(prompt_folder: PromptFolder, tiny_model: Path) -> None:
    first, second = prompt_folder("first"), prompt_folder("second")
    grpo.main(arguments(first, tiny_model, eval_completions=0), settings())
    rloo.main(
        arguments(second, tiny_model, adapter=str(first / "model"), eval_completions=2),
        settings("rloo", learning_rate=0.0),
    )
    assert not (second / "model" / "ref").exists()
    for name, tensor in adapter_of(first).items():
        assert torch.equal(tensor, adapter_of(second)[name]), name
    figures = read_result(second)["figures"]
    assert figures["reward/before"] == figures["reward/after"]  # the same policy and the same seeds
    assert figures["reward/change"]["value"] == 0


def test_evaluation_leaves_the_random_numbers_of_training_alone(prompt_folder: PromptFolder, tiny_model: Path) -> None:
    model, tokenizer = load_policy(str(tiny_model))
    torch.manual_seed(3)
    state = torch.get_rng_state()
    args = arguments(prompt_folder(), tiny_model, eval_batch_size=5)
    rows = [prompt_row(number) for number in range(4)]
    score = lambda prompts, completions, **columns: [float(len(text[0]["content"])) for text in completions]  # noqa: E731
    score.__name__ = "characters"
    found = evaluate_policy(model, tokenizer, rows, [score], [2.0], args=args, config=settings())
    assert torch.equal(torch.get_rng_state(), state)
    assert found.groups == ["g0"] * 4 + ["g1"] * 4
    assert found.totals == [2 * value for value in found.rewards["characters"]]
    assert all(0 <= length <= 8 for length in found.lengths)


def test_a_checkpoint_within_a_rollout_is_refused(prompt_folder: PromptFolder, tiny_model: Path) -> None:
    assert cycle_steps(settings(num_iterations=2, steps_per_generation=4, save_steps=8)) == 8
    assert cycle_steps(settings(gradient_accumulation_steps=2, save_steps=1)) == 1
    assert cycle_steps(settings(gradient_accumulation_steps=4, steps_per_generation=2, save_steps=1)) == 1
    with pytest.raises(ValueError, match="save_steps is 6, it must be a multiple of 4"):
        grpo.main(
            arguments(prompt_folder(), tiny_model), settings(num_iterations=2, steps_per_generation=2, save_steps=6)
        )


def test_what_cannot_work_is_refused_before_training(prompt_folder: PromptFolder, tiny_model: Path) -> None:
    folder = prompt_folder()
    with pytest.raises(ValueError, match="trust_remote_code"):
        grpo.main(arguments(folder, tiny_model), settings(trust_remote_code=True))
    with pytest.raises(RewardError, match="`rewards` is empty"):
        grpo.main(arguments(folder, tiny_model, rewards=[]), settings())
    with pytest.raises(DatasetError, match=r"holds 0 prompts to train on .8 longer than 3 tokens"):
        grpo.main(arguments(folder, tiny_model, max_prompt_length=3), settings())
    with pytest.raises(ValueError, match="leaves no room for a prompt in the model's 512 positions"):
        grpo.main(arguments(folder, tiny_model), settings(max_completion_length=600))
    write_rows(folder / "dataset" / "eval_prompts.jsonl", [prompt_row(7) | {"prompt_id": "other"}])
    with pytest.raises(DatasetError, match=r"1 groups are in both prompts.jsonl and eval_prompts.jsonl"):
        grpo.main(arguments(folder, tiny_model), settings())


def test_a_reward_that_is_no_number_stops_the_run_by_name(
    prompt_folder: PromptFolder, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "online_team.py").write_text(
        "def mood(completions, **columns): return [float('nan')] * len(completions)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PREFLOOP_REWARD_FUNCTIONS", "online_team.mood")
    folder = prompt_folder(held_out=range(0))
    command = ["--run_dir", str(folder), "--model", str(tiny_model), "--rewards", "function:online_team.mood"]
    command += ["--max_steps", "1", "--max_completion_length", "4", "--bf16", "false"]
    assert launch("grpo", grpo.main, (OnlineArguments, grpo.GRPOSettings), command) == 1
    last = list(read_events(folder))[-1]
    assert last["type"] == "error"
    assert last["message"].startswith("The reward function mood (function:online_team.mood) returned 'nan'")
