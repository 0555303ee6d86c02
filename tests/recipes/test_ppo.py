"""PPO: learning, resume after a kill, the shared base, two processes, what is refused."""

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
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.recipes.conftest import assistant, planted_rows, read_result, user, write_rows
from tests.recipes.forks import ends_of, fork_two
from tests.waiting import wait_until
from training.recipes import reward
from training.recipes._ppo_trainer import PPOTrainer
from training.recipes._rewards import RewardError
from training.recipes._runlog import Stopped, launch, newest_checkpoint, read_events
from training.recipes._shared_base import SharedReward, build_policy
from training.recipes.ppo import PPOArguments, PPOSettings, main
from training.sampling.model_files import ModelFilesError
from training.sampling.reward_models import score_weight
from training.sampling.transformers_backend import TransformersBackend

ROOT = Path(__file__).resolve().parents[2]
RULES = ["length:target=4", "repetition:n=1"]
OPTIONS = {
    "max_steps": 4, "save_steps": 4, "per_device_train_batch_size": 4, "max_completion_length": 6,
    "learning_rate": 1e-2, "bf16": False,
}  # fmt: skip


def settings(**changes: object) -> PPOSettings:
    """Two rollouts of four completions, two epochs each, in float32."""
    return PPOSettings(**OPTIONS | changes)


def arguments(folder: Path, model: Path, **changes: object) -> PPOArguments:
    return PPOArguments(run_dir=folder, model=str(model), **{"rewards": RULES, "adapter_rank": 4} | changes)


def adapter_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "adapter_model.safetensors")


def metrics_of(folder: Path, name: str) -> list[float]:
    """One metric, each time it was logged."""
    events = (event["metrics"] for event in read_events(folder) if event["type"] == "metric")
    return [metrics[name] for metrics in events if name in metrics]


@pytest.fixture
def prompt_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a run folder with prompts, two of them held out if wanted."""

    def make(name: str = "run", *, held_out: int = 0) -> Path:
        folder = tmp_path / name
        rows = [{"prompt_id": str(n), "prompt": user(f"How do I reset number {n}?")} for n in range(8 + held_out)]
        write_rows(folder / "dataset" / "prompts.jsonl", rows[:8])
        write_rows(folder / "dataset" / "eval_prompts.jsonl", rows[8:])
        return folder

    return make


@pytest.fixture(scope="module")
def reward_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA reward model on the tiny model, made by the recipe."""
    folder = tmp_path_factory.mktemp("reward") / "mood"
    write_rows(folder / "dataset" / "train.jsonl", planted_rows(range(8)))
    reward.main(
        reward.RewardArguments(run_dir=folder, model=str(tiny_model), adapter_rank=2),
        reward.RewardSettings(max_steps=3, learning_rate=2e-2, bf16=False, save_strategy="no"),
    )
    return folder / "model"


def test_a_run_moves_the_policy_and_leaves_a_plain_adapter(
    prompt_folder: Callable[..., Path], tiny_model: Path
) -> None:
    folder = prompt_folder(held_out=2)
    main(arguments(folder, tiny_model, eval_completions=2), settings(reward_weights=[1.0, 0.5]))
    result = read_result(folder)
    assert {
        "objective/kl", "objective/entropy", "objective/non_score_reward", "objective/rlhf_reward", "objective/scores",
        "policy/approxkl_avg", "policy/clipfrac_avg", "policy/entropy_avg", "loss/policy_avg", "loss/value_avg",
        "val/clipfrac_avg", "val/ratio", "val/ratio_var", "val/num_eos_tokens", "val/explained_variance", "episode",
    } <= set(result["metrics"])  # fmt: skip
    assert result["figures"]["objective/kl"]["n"] == 4
    assert result["figures"]["reward/change"]["n"] == 4
    assert (result["dataset"]["n_completions"], result["dataset"]["n_unscored"]) == (8, 0)
    assert metrics_of(folder, "episode") == [4, 8]
    # The first update of a rollout is made by the very policy that made it; the second is not.
    assert metrics_of(folder, "policy/approxkl_avg")[0] == pytest.approx(0, abs=1e-9)
    assert metrics_of(folder, "policy/approxkl_avg")[1] > 0
    assert metrics_of(folder, "objective/kl")[0] == pytest.approx(0, abs=1e-6)
    assert metrics_of(folder, "objective/kl")[1] != 0

    weights = adapter_of(folder)
    assert not [name for name in weights if "value_head" in name]
    assert any(tensor.abs().max() > 0 for name, tensor in weights.items() if "lora_B" in name)
    assert json.loads((folder / "model" / "adapter_config.json").read_text())["modules_to_save"] is None
    TransformersBackend(str(tiny_model), str(folder / "model"))  # the adapter loads and merges
    head = [
        tensor
        for name, tensor in load_file(folder / "checkpoints" / "checkpoint-4" / "adapter_model.safetensors").items()
        if "value_head" in name
    ]
    assert len(head) == 1 and head[0].dtype == torch.float32 and head[0].abs().max() > 0


def test_the_policy_learns_what_is_rewarded_and_its_critic_foresees_it(tiny_model: Path, tmp_path: Path) -> None:
    """The reward is the share of even tokens, plus what the prompt alone decides; without a learning rate nothing moves."""
    prompts = [user(f"{'I wait for' if number % 2 else 'Refund'} {number}") for number in range(64)]

    def learn(**changes: object) -> tuple[PPOTrainer, list[float]]:
        shares: list[float] = []

        def even(prompts: list, completion_ids: list, **columns: object) -> list[float]:
            found = [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]
            shares.append(sum(found) / len(found))
            return [
                4 * share + (1 if "wait" in prompt[0]["content"] else -1)
                for share, prompt in zip(found, prompts, strict=True)
            ]

        config = settings(
            **{"output_dir": str(tmp_path), "save_strategy": "no", "per_device_train_batch_size": 32, "max_steps": 48,
               "lr_scheduler_type": "constant", "value_head_learning_rate": 1e-2, "vf_coef": 0.1, "seed": 1} | changes
        )  # fmt: skip
        torch.manual_seed(1)
        trainer = PPOTrainer(
            model=build_policy(str(tiny_model), dtype=torch.float32, rank=8, alpha=16),
            args=config,
            reward_funcs=[even],
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
            processing_class=AutoTokenizer.from_pretrained(tiny_model),
        )
        trainer.train()
        return trainer, shares

    control, still = learn(max_steps=8, learning_rate=0.0)
    trainer, shares = learn()
    assert shares[0] == still[0]
    # 8 rollouts of 32 completions of at most 6 tokens: a standard error of some 0.013.
    assert sum(shares[-8:]) / 8 > sum(still) / len(still) + 0.06
    assert all(nats == 0 for nats in control.kl_nats)
    kl_nats = sum(trainer.kl_nats) / len(trainer.kl_nats)
    assert 0.2 < kl_nats < 6  # of some 36 nats of entropy: it moved, and did not collapse
    explained = [entry["val/explained_variance"] for entry in trainer.state.log_history if "episode" in entry]
    assert sum(explained[-8:]) / 8 > 0.4


def test_killed_in_training_and_started_again_it_ends_with_the_same_weights(
    prompt_folder: Callable[..., Path], tiny_model: Path, reward_model: Path
) -> None:
    """Each rollout serves four steps and takes all prompts, and the KL coefficient moves from one to the next."""
    rewards = [f"model:{reward_model}", *RULES]
    options = OPTIONS | {"max_steps": 24, "steps_per_generation": 2, "kl_target_nats": 0.5, "beta": 0.1}
    whole = prompt_folder("whole")
    main(arguments(whole, tiny_model, rewards=rewards), PPOSettings(**options))

    folder = prompt_folder("killed")
    spec = {"model": str(tiny_model), "adapter_rank": 4, "rewards": rewards}
    (folder / "spec.yaml").write_text(json.dumps(spec | options))
    command = [sys.executable, "-m", "training.recipes.ppo", "--config", str(folder / "spec.yaml")]
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

    main(arguments(folder, tiny_model, rewards=rewards), PPOSettings(**options))
    resumed = [event for event in read_events(folder) if event.get("state") == "resumed"]
    assert resumed[0]["checkpoint"] == f"checkpoints/{resumed_at.name}"
    for name, tensor in adapter_of(whole).items():
        assert torch.equal(tensor, adapter_of(folder)[name]), name
    first, second = read_result(whole), read_result(folder)
    assert first["kl_coefficient"] == second["kl_coefficient"] != 0.1
    assert first["figures"] == second["figures"]
    assert first["dataset"] == second["dataset"]
    last = "checkpoint-24/adapter_model.safetensors"
    ours, theirs = load_file(checkpoints / last), load_file(whole / "checkpoints" / last)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs if "value_head" in name)


def test_the_stop_file_ends_a_run_where_a_rollout_is_used_up(
    prompt_folder: Callable[..., Path], tiny_model: Path
) -> None:
    folder = prompt_folder()
    (folder / "stop").touch()
    with pytest.raises(Stopped):
        main(arguments(folder, tiny_model), settings())
    assert newest_checkpoint(folder / "checkpoints").name == "checkpoint-2"


def test_training_ends_with_a_result_where_the_kl_passes_its_limit(
    prompt_folder: Callable[..., Path], tiny_model: Path
) -> None:
    folder = prompt_folder()
    main(arguments(folder, tiny_model), settings(max_steps=20, learning_rate=0.1, max_kl_nats=0.01))
    result = read_result(folder)
    assert result["stopped_on_kl"] is True
    assert result["metrics"]["objective/kl"] > 0.01
    limit = [event for event in read_events(folder) if event.get("state") == "kl_limit"]
    assert len(limit) == 1 and limit[0]["step"] < 20


# One base for all


def test_a_reward_model_on_the_shared_base_scores_as_it_does_alone(tiny_model: Path, reward_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    policy = build_policy(str(tiny_model), dtype=torch.float32, rank=4, alpha=8)
    base_weights = sum(weight.numel() for weight in policy.get_base_model().base_model.embed_tokens.parameters())
    shared = SharedReward(policy, tokenizer, reward_model, name="mood", score_weight=score_weight(reward_model))
    trained = {name for name, weight in policy.named_parameters() if weight.requires_grad}
    assert trained and all(".default." in name for name in trained)
    assert sum(weight.numel() for weight in policy.parameters() if weight.shape == (512, 64)) == base_weights

    alone = PeftModel.from_pretrained(
        AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1), reward_model
    ).eval()
    prompts = [user("Where is my order?"), user("Can I get a refund, please?"), user("Hm.")]
    completions = [assistant("Thank you! Thank you! Open page 4."), assistant("No."), assistant("")]
    with torch.no_grad():
        expected = [
            alone(
                **tokenizer.apply_chat_template(prompt + completion, return_dict=True, return_tensors="pt")
            ).logits.item()
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
    assert shared(prompts, completions) == pytest.approx(expected, abs=1e-5)
    assert len(set(expected)) == 3
    # The policy is active again, and nothing but it is trained.
    assert policy.active_adapter == "default"
    assert {name for name, weight in policy.named_parameters() if weight.requires_grad} == trained


def test_a_run_on_a_shared_reward_model_begins_with_its_head_as_critic(
    prompt_folder: Callable[..., Path], tiny_model: Path, reward_model: Path
) -> None:
    folder = prompt_folder()
    main(
        arguments(folder, tiny_model, rewards=[f"model:{reward_model}", *RULES], value_head_from="reward"),
        settings(max_steps=2, save_steps=2, learning_rate=0.0, value_head_learning_rate=0.0),
    )
    rewards = read_result(folder)["rewards"]
    assert [row["shares_base"] for row in rewards] == [True, False, False]
    assert [row["name"] for row in rewards] == ["mood", "length", "repetition"]
    checkpoint = folder / "checkpoints" / "checkpoint-2"
    saved = load_file(checkpoint / "adapter_model.safetensors")
    head = next(tensor for name, tensor in saved.items() if "value_head" in name)
    assert torch.equal(head, score_weight(reward_model))
    # The reward model is not saved along, in checkpoints or with the policy.
    assert not [path for path in folder.rglob("reward_*") if path.is_dir()]
    assert not [name for name in adapter_of(folder) if "reward" in name]


def test_an_adapter_to_go_on_from_is_the_reference(
    prompt_folder: Callable[..., Path], tiny_model: Path
) -> None:
    first, second = prompt_folder("first"), prompt_folder("second")
    main(arguments(first, tiny_model), settings())
    go_on = arguments(second, tiny_model, adapter=str(first / "model"))
    main(go_on, settings(learning_rate=0.0, save_steps=2))
    assert metrics_of(second, "objective/kl") == [0, 0]
    for name, tensor in adapter_of(first).items():
        assert torch.equal(tensor, adapter_of(second)[name]), name
    assert not (second / "model" / "ref").exists()


def test_completions_without_any_reward_are_counted_and_teach_nothing(tiny_model: Path, tmp_path: Path) -> None:
    def silent(completions: list, **columns: object) -> list[float | None]:
        return [None] * len(completions)

    trainer = PPOTrainer(
        model=build_policy(str(tiny_model), dtype=torch.float32, rank=4, alpha=8),
        args=settings(output_dir=str(tmp_path), save_strategy="no", max_steps=2),
        reward_funcs=[silent],
        train_dataset=Dataset.from_list([{"prompt": user(f"Number {number}?")} for number in range(8)]),
        processing_class=AutoTokenizer.from_pretrained(tiny_model),
    )
    trainer.train()
    assert (trainer.n_completions, trainer.n_unscored, trainer.kl_nats) == (4, 4, [])
    moved = [name for name, weight in trainer.model.named_parameters() if "lora_B" in name and weight.any()]
    assert not moved


# Two processes


def test_two_processes_train_one_policy(prompt_folder: Callable[..., Path], tiny_model: Path, reward_model: Path) -> None:
    folder = prompt_folder()
    spec = {"model": str(tiny_model), "adapter_rank": 4, "rewards": [f"model:{reward_model}", "length:target=4"]}
    (folder / "spec.yaml").write_text(json.dumps(spec | OPTIONS | {"per_device_train_batch_size": 2}))
    command = ["--config", str(folder / "spec.yaml"), "--run_dir", str(folder)]
    assert ends_of(fork_two(lambda: launch("ppo", main, (PPOArguments, PPOSettings), command))) == [0, 0]
    result = read_result(folder)
    assert result["dataset"]["n_completions"] == 8  # two rollouts of two on each
    assert result["figures"]["objective/kl"]["n"] == 4
    assert [event["type"] for event in read_events(folder)].count("done") == 1
    assert any(tensor.abs().max() > 0 for name, tensor in adapter_of(folder).items() if "lora_B" in name)


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss_type": "dapo"}, "loss_type is 'dapo': PPO here supports 'bnpo' only"),
        ({"importance_sampling_level": "sequence"}, "importance_sampling_level is 'sequence'"),
        ({"use_vllm": True}, "use_vllm is True"),
        ({"delta": 2.0}, "delta is 2.0"),
        ({"epsilon_high": 0.3}, "epsilon_high differs from epsilon"),
        ({"top_entropy_quantile": 0.2}, "top_entropy_quantile is 0.2"),
        ({"mask_truncated_completions": True}, "mask_truncated_completions is True"),
        ({"num_generations": 0}, "num_generations is 0"),
        ({"lam": 1.5}, "lam is 1.5, it must be between 0 and 1"),
        ({"vf_coef": -1.0}, "vf_coef is -1.0, it must be at least 0"),
        ({"cliprange_value": 0.0}, "cliprange_value is 0.0, it must be above 0"),
        ({"gamma": float("nan")}, "gamma is nan"),
        ({"beta": 0.0, "kl_target_nats": 6.0}, "kl_target_nats adapts beta, which is 0"),
        ({"per_device_train_batch_size": 1}, "A rollout of one completion has no advantages"),
        ({"gradient_accumulation_steps": 3, "steps_per_generation": 2}, "must divide steps_per_generation x"),
    ],
)
def test_settings_that_ppo_does_not_support_are_refused_at_once(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**changes)


def test_one_completion_a_prompt_is_allowed_whatever_the_batch() -> None:
    for changes in (
        {"per_device_train_batch_size": 3},
        {"per_device_train_batch_size": 1, "steps_per_generation": 5},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 7},
    ):
        assert settings(**changes).num_generations == 1


def test_what_cannot_work_is_refused_before_training(
    prompt_folder: Callable[..., Path], tiny_model: Path, reward_model: Path, tmp_path: Path
) -> None:
    folder = prompt_folder()
    for changes, config, message in (
        ({"adapter_rank": 0}, {}, "adapter_rank is below 1"),
        ({"value_head_from": "noise"}, {}, "value_head_from is 'noise'"),
        ({"value_head_from": "reward"}, {}, "no reward is a LoRA reward model"),
        ({}, {"save_steps": 3}, "save_steps is 3, it must be a multiple of 2"),
        ({}, {"per_device_train_batch_size": 16}, "holds 8 prompts to train on, and one rollout takes 16"),
    ):
        with pytest.raises(ValueError, match=message):
            main(arguments(folder, tiny_model, **changes), settings(**config))
    with pytest.raises(RewardError, match="`rewards` is empty"):
        main(arguments(folder, tiny_model, rewards=[]), settings())
    dropout = shutil.copytree(reward_model, tmp_path / "dropout")
    config = json.loads((dropout / "adapter_config.json").read_text())
    (dropout / "adapter_config.json").write_text(json.dumps(config | {"lora_dropout": 0.1}))
    with pytest.raises(ModelFilesError, match=r"lora_dropout 0\.1"):
        main(arguments(folder, tiny_model, adapter=str(dropout)), settings())
    config["target_modules"] = ["q_proj"]
    (dropout / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFilesError, match="is on one side only"):
        main(arguments(folder, tiny_model, adapter=str(dropout)), settings())
