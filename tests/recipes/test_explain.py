"""Explanations as a run: what it leaves, what it refuses."""

from pathlib import Path

import pytest

from tests.recipes.conftest import read_result, user, write_rows
from training.recipes._runlog import Stopped, read_events
from training.recipes.explain import ExplainArguments, main, path_steps
from training.recipes.reward import RewardArguments, RewardSettings
from training.recipes.reward import main as train_reward
from training.recipes.reward_head import RewardHeadArguments
from training.recipes.reward_head import main as fit_head
from training.sampling.model_files import ModelFilesError

PROMPT = user("How do I reset number 3?")


def asking(folder: Path, *completions: str, prompts: tuple = (PROMPT, PROMPT)) -> Path:
    rows = [{"prompt": prompt, "completion": text} for prompt, text in zip(prompts, completions, strict=False)]
    write_rows(folder / "dataset" / "completions.jsonl", rows)
    return folder


def explanations(folder: Path) -> list[dict]:
    return [event for event in read_events(folder) if event["type"] == "explanation"]


def test_two_completions_beside_each_other_by_a_head(run_folder, tiny_model: Path, tmp_path: Path) -> None:
    fitted = run_folder(name="head")
    fit_head(RewardHeadArguments(run_dir=fitted, model=str(tiny_model), layer=1))
    folder = asking(tmp_path / "why", "Thank you! Open page 7.", "Open page 7.")
    main(ExplainArguments(run_dir=folder, model=str(fitted / "model")))
    first, second = explanations(folder)
    assert (first["number"], second["number"]) == (0, 1)
    assert first["method"] == "exact" and first["gap"] == pytest.approx(0, abs=1e-9)
    assert sum(piece["value"] for piece in first["pieces"]) == pytest.approx(first["reward"])
    assert first["deviation"] > 0
    assert [part["text"] for part in first["sentences"]] == ["Thank you! ", "Open page 7."] and second["sentences"] == []
    result = read_result(folder)
    assert result["difference"]["value"] == pytest.approx(first["reward"] - second["reward"], abs=1e-4)
    assert result["difference"]["deviation"] > 0 and result["is_complete"]


def test_what_a_lora_reward_model_learned_is_what_it_is_held_to_look_at(run_folder, tiny_model: Path, tmp_path: Path) -> None:
    """It learned that more thanks are better; then thanks must add more to its reward than the rest."""
    trained = run_folder(name="lora")
    train_reward(
        RewardArguments(run_dir=trained, model=str(tiny_model), adapter_rank=4),
        RewardSettings(max_steps=12, per_device_train_batch_size=8, learning_rate=1e-2, bf16=False, save_strategy="no"),
    )
    assert read_result(trained)["figures"]["accuracy"]["value"] == 1
    folder = asking(tmp_path / "why", "Thank you! Open page 7. Thank you!")
    main(ExplainArguments(run_dir=folder, model=str(trained / "model"), max_path_steps=64))
    (found,) = explanations(folder)
    assert found["method"] == "integrated_gradients" and found["is_complete"] and found["steps"] <= 64
    text, thanks, rest = "", 0.0, 0.0
    for piece in found["pieces"]:
        if any(place <= len(text) + len(piece["text"]) // 2 < place + 10 for place in (0, 24)):
            thanks += piece["value"]
        else:
            rest += piece["value"]
        text += piece["text"]
    assert thanks > rest
    effects = [part["effect"] for part in found["sentences"]]
    assert effects[0] > effects[1] < effects[2]
    result = read_result(folder)
    assert result["difference"] is None and result["metrics"] == {"reward/0": pytest.approx(found["reward"])}


def test_a_conversation_too_long_for_the_model_says_what_was_cut(run_folder, tiny_model: Path, tmp_path: Path) -> None:
    trained = run_folder(name="lora")
    train_reward(RewardArguments(run_dir=trained, model=str(tiny_model), adapter_rank=2), RewardSettings(max_steps=1, bf16=False))
    folder = asking(tmp_path / "why", "Thank you! " * 300)
    main(ExplainArguments(run_dir=folder, model=str(trained / "model"), max_path_steps=1))
    (found,) = explanations(folder)
    assert 0 < found["n_tokens_cut"] < found["n_tokens"]
    assert found["pieces"][0]["value"] is None and found["pieces"][-1]["value"] is not None
    assert "".join(piece["text"] for piece in found["pieces"]) == "Thank you! " * 300


@pytest.mark.parametrize(
    ("completions", "prompts", "said"),
    [
        ((), (), "holds 0 completions"),
        (("one", "two"), (PROMPT, user("Another?")), "answer different prompts"),
        ((" ",), (PROMPT,), "is empty"),
    ],
)
def test_what_cannot_be_explained_is_named(run_folder, tiny_model, tmp_path, completions, prompts, said) -> None:
    fitted = run_folder(name="head")
    fit_head(RewardHeadArguments(run_dir=fitted, model=str(tiny_model), layer=1))
    folder = asking(tmp_path / "why", *completions, prompts=prompts)
    with pytest.raises(ValueError, match=said):
        main(ExplainArguments(run_dir=folder, model=str(fitted / "model")))


def test_a_policy_is_no_reward_model_and_options_are_checked(tiny_model: Path, tmp_path: Path) -> None:
    folder = asking(tmp_path / "why", "Thank you!")
    with pytest.raises(ModelFilesError, match="gives no scalar reward"):
        main(ExplainArguments(run_dir=folder, model=str(tiny_model)))
    with pytest.raises(ValueError, match="baseline is 'none'"):
        ExplainArguments(run_dir=folder, model="x", baseline="none")
    with pytest.raises(ValueError, match="max_path_steps is 0"):
        ExplainArguments(run_dir=folder, model="x", max_path_steps=0)
    assert (path_steps(128), path_steps(40), path_steps(1)) == ([16, 32, 64, 128], [16, 32, 40], [1])


def test_it_ends_where_it_is_asked_to_stop(run_folder, tiny_model: Path, tmp_path: Path) -> None:
    fitted = run_folder(name="head")
    fit_head(RewardHeadArguments(run_dir=fitted, model=str(tiny_model), layer=1, pooling="last"))
    folder = asking(tmp_path / "why", "Thank you!")
    (folder / "stop").touch()
    with pytest.raises(Stopped):
        main(ExplainArguments(run_dir=folder, model=str(fitted / "model")))
    assert explanations(folder) == [] and not (folder / "result.json").exists()
