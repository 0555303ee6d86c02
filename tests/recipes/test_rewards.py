"""Reward functions: what they score, what is refused before anything is loaded, what stops a run."""

import sys
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.recipes.conftest import assistant, planted_rows, user, write_rows
from training.recipes._rewards import reward_functions
from training.recipes.reward import RewardArguments, RewardSettings
from training.recipes.reward import main as train_reward
from training.recipes.reward_head import RewardHeadArguments
from training.recipes.reward_head import main as fit_head
from training.sampling import embeddings, reward_models
from training.sampling.reward_head import RewardHead
from training.sampling.reward_models import RewardModels, inspect_reward_model
from training.sampling.reward_rules import (
    ALLOWED_VARIABLE,
    RewardError,
    length_reward,
    parse_reward,
    repeated_share,
)
from training.sampling.tiny_model import build_tiny_model

PROMPTS = [user("How do I reset number 1?"), user("Where is it?"), user("How do I reset number 2?")]
COMPLETIONS = [assistant("Thank you! Thank you! Open page 3."), assistant("Open page 4."), assistant("No.")]


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A LoRA reward model and two heads of different layers, all on the tiny model."""
    folders = {}
    for name in ("lora", "other_lora", "head", "low_head"):
        folder = tmp_path_factory.mktemp("runs") / name
        write_rows(folder / "dataset" / "train.jsonl", planted_rows(range(8), seed=len(folders)))
        folders[name] = folder / "model"
        if "lora" in name:
            settings = RewardSettings(max_steps=2, per_device_train_batch_size=4, bf16=False, learning_rate=1e-2)
            train_reward(RewardArguments(run_dir=folder, model=str(tiny_model), adapter_rank=4), settings)
        else:
            layer = 1 if name == "low_head" else 2
            fit_head(RewardHeadArguments(run_dir=folder, model=str(tiny_model), layer=layer, dimensions=8))
    return folders


def one(entry: str, base_model: Path) -> object:
    functions, weights = reward_functions([entry], None, base_model=str(base_model), seed=0)
    assert weights == [1.0]
    return functions[0]


def test_models_on_one_base_share_it_and_score_as_they_do_alone(
    trained: dict[str, Path], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (reward_models, embeddings):
        monkeypatch.setattr(module, "bfloat16_is_fast", lambda: False)
    scorers = RewardModels()
    models = {name: scorers.add(inspect_reward_model(folder)) for name, folder in trained.items()}
    texts = [completion[0]["content"] for completion in COMPLETIONS]
    for name in ("lora", "low_head", "other_lora", "head", "lora"):
        scores = models[name].score(PROMPTS, texts)
        if "head" in name:
            expected = RewardHead.load(trained[name]).score(PROMPTS, texts)
        else:
            expected = scores_by_peft(trained[name], tiny_model)
        assert scores == pytest.approx(expected, abs=1e-4), name
        assert len(set(scores)) == 3
    assert scorers.n_loaded() == 1


def scores_by_peft(folder: Path, base: Path) -> list[float]:
    """The same by PEFT's and transformers' own classes, one text at a time."""
    model = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=1).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    scores = []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        encoded = tokenizer.apply_chat_template(prompt + completion, return_dict=True, return_tensors="pt")
        with torch.no_grad():
            scores.append(float(model(**encoded).logits[0, 0]))
    return scores


def test_a_whole_reward_model_scores_as_transformers_does(tiny_model: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(tmp_path / "whole")
    tokenizer.save_pretrained(tmp_path / "whole")
    function = one(f"model:{tmp_path / 'whole'}", tiny_model)
    encoded = [
        tokenizer.apply_chat_template(prompt + completion, return_dict=True, return_tensors="pt")
        for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    with torch.no_grad():
        expected = [float(model(**inputs).logits[0, 0]) for inputs in encoded]
    assert function(PROMPTS, COMPLETIONS) == pytest.approx(expected, abs=0.05)  # bfloat16 where that is fast
    assert function.__name__ == "whole"


def test_a_head_on_another_base_model_is_refused_before_training(trained: dict[str, Path], tmp_path: Path) -> None:
    other = build_tiny_model(tmp_path / "other", seed=1)
    with pytest.raises(RewardError, match=r"model:.*the hashes differ"):
        one(f"model:{trained['head']},base={other}", other)


def test_rules_score_by_hand(tiny_model: Path) -> None:
    assert [length_reward(n, 60, 10) for n in (60, 50, 70, 45, 75, 0, 110, 900)] == [
        0, 0, 0, -0.1, -0.1, -1, pytest.approx(-0.8), -1,
    ]  # fmt: skip
    assert repeated_share("one two one two one two", 2) == pytest.approx(1 - 2 / 5)
    assert repeated_share("one two", 3) == 0
    words = one("length:target=4,unit=words", tiny_model)
    assert words(PROMPTS[:2], [assistant("one two three four"), assistant("one two")]) == [0, -0.5]
    tokens = AutoTokenizer.from_pretrained(tiny_model)("Open page 4.", add_special_tokens=False)["input_ids"]
    in_tokens = one(f"length:target={len(tokens)}", tiny_model)
    assert in_tokens(PROMPTS[:1], [assistant("Open page 4.")], completion_ids=[[*tokens, 2]]) == [0]
    assert in_tokens(["a text"], ["Open page 4."]) == [0]  # prompts and completions may be plain texts
    texts = ['{"a": 1}', "[1, 2]", "- one\n- two", "Yes. Done.", "no\nend", "[" * 100_000]
    found = {
        name: one(f"format:{name}", tiny_model)([""] * 6, texts)
        for name in ("json", "json-object", "list", "whole-sentence", "one-paragraph")
    }
    assert found == {
        "json": [1, 1, 0, 0, 0, 0],
        "json-object": [1, 0, 0, 0, 0, 0],
        "list": [0, 0, 1, 0, 0, 0],
        "whole-sentence": [0, 0, 0, 1, 0, 0],
        "one-paragraph": [1, 1, 0, 1, 0, 1],
    }


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("beauty", "of no known kind"),
        ("", "is no text"),
        ("model:", "names no folder"),
        ("model:/nowhere", r"'model:/nowhere' can't be used. No reward model at"),
        ("length", "needs target"),
        ("length:target=many", "target is 'many'"),
        ("length:target=60,target=61", "has target twice"),
        ("length:target=60,tolerance=-1", "tolerance is '-1'"),
        ("length:target=60,unit=pages", "must be tokens or words"),
        ("length:60", "is no option"),
        ("format:(a+)+$", "names no known format"),
        ("repetition:n=0", "whole number from 1 to 20"),
        ("repetition:m=3", "has no option m"),
        ("function:len", "names no function"),
        ("function:os.system", "not allowed here"),
        ("function:os.path.join ", "not allowed here"),
    ],
)
def test_entries_that_cannot_work_are_refused_by_name(entry: str, message: str, tiny_model: Path) -> None:
    with pytest.raises(RewardError, match=message):
        one(entry, tiny_model)


def test_a_policy_adapter_is_no_reward_model(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"task_type": "CAUSAL_LM"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(RewardError, match="no reward model"):
        one(f"model:{tmp_path}", tiny_model)
    with pytest.raises(RewardError, match="gives no scalar reward"):
        one(f"model:{tiny_model}", tiny_model)


def test_weights_are_one_each_finite_and_not_all_zero(tiny_model: Path) -> None:
    rules = ["repetition", "format:json"]
    for weights, message in (
        ([1.0], "2 rewards and 1"),
        ([1.0, float("nan")], "'format:json' is nan"),
        ([0, 0], "is 0"),
    ):
        with pytest.raises(RewardError, match=message):
            reward_functions(rules, weights, base_model=str(tiny_model), seed=0)
    with pytest.raises(RewardError, match="`rewards` is empty"):
        reward_functions([], None, base_model=str(tiny_model), seed=0)
    functions, weights = reward_functions(["repetition", "repetition:n=2"], [1, -0.5], base_model="unused", seed=0)
    assert [function.__name__ for function in functions] == ["repetition", "repetition_2"]
    assert weights == [1.0, -0.5]


TEAM = """
def fine(prompts, completions, seed, mood=None, **columns):
    return [None if i else float(seed) for i in range(len(completions))]
def short(completions, **columns): return [1.0]
def infinite(completions, **columns): return [float("inf")] * len(completions)
def words(completions, **columns): return ["good"] * len(completions)
def number(completions, **columns): return 3
def broken(completions, **columns): raise KeyError("mood")
"""


def test_a_teams_function_runs_only_if_the_operator_lists_it(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "team_rewards.py").write_text(TEAM)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(ALLOWED_VARIABLE, "team_rewards.fin")
    with pytest.raises(RewardError, match=f"team_rewards.fine to {ALLOWED_VARIABLE}"):
        one("function:team_rewards.fine", tiny_model)
    assert "team_rewards" not in sys.modules
    listed = ["fine", "short", "infinite", "words", "number", "broken", "missing"]
    monkeypatch.setenv(ALLOWED_VARIABLE, ", ".join(f"team_rewards.{name}" for name in listed))
    functions, _ = reward_functions(["function:team_rewards.fine"], None, base_model=str(tiny_model), seed=7)
    assert functions[0](PROMPTS, COMPLETIONS, mood=["x"] * 3) == [7.0, None, None]
    with pytest.raises(RewardError, match="can't be imported"):
        one("function:team_rewards.missing", tiny_model)
    for name, message in (
        ("short", "returned 1 rewards for 3 completions"),
        ("infinite", "'inf' for completion 0"),
        ("words", "'good' for completion 0"),
        ("number", "returned int: it must return a list"),
        ("broken", "failed: KeyError"),
    ):
        with pytest.raises(RewardError, match=f"{name} .*{message}"):
            one(f"function:team_rewards.{name}", tiny_model)(PROMPTS, COMPLETIONS)


def test_entries_are_taken_apart() -> None:
    reward = parse_reward("model:/a,b/model,base=/c")
    assert (reward.kind, reward.value, reward.options) == ("model", "/a,b/model", {"base": "/c"})
    assert parse_reward(" length:target=60 , tolerance=5").options == {"target": "60", "tolerance": "5"}
