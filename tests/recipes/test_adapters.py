"""Kinds of adapter, all weights, and a base in four bits: trained, merged, refused."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.recipes.conftest import RunFolder, assistant, read_result, user
from training.recipes import merge, reward, sft
from training.recipes._adapters import AdapterArguments, check_adapters, four_bits, new_adapter
from training.sampling.reward_models import RewardModels, inspect_reward_model


def texts(groups: range) -> list[dict]:
    return [
        {"messages": user(f"How do I reset number {group}?") + assistant(f"Open page {group}."), "source": "correction"}
        for group in groups
    ]


def train(folder: Path, model: Path, **changes: object) -> dict:
    """Two steps of supervised fine-tuning at so high a rate that they show."""
    config = sft.SFTSettings(max_steps=2, per_device_train_batch_size=4, bf16=False, learning_rate=1e-2)
    sft.main(sft.SFTArguments(run_dir=folder, model=str(model), **{"adapter_rank": 4, **changes}), config)
    return read_result(folder)


@pytest.mark.parametrize(("kind", "setting"), [("dora", "use_dora"), ("rslora", "use_rslora")])
def test_an_adapter_of_either_kind_learns_and_merges_to_the_same_logits(
    kind: str, setting: str, run_folder: RunFolder, tiny_model: Path, tmp_path: Path
) -> None:
    folder = run_folder(texts(range(8)), texts(range(8, 10)))
    result = train(folder, tiny_model, adapter_kind=kind)
    assert result["figures"]["loss_change"]["value"] < 0
    assert json.loads((folder / "model" / "adapter_config.json").read_text())[setting] is True

    merged = tmp_path / "merged"
    merged.mkdir()
    merge.main(merge.MergeArguments(run_dir=merged, model=str(tiny_model), adapter=str(folder / "model")))
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    ids = torch.arange(3, 40)[None]
    with torch.inference_mode():
        plain = base(input_ids=ids).logits
        adapted = PeftModel.from_pretrained(base, folder / "model").eval()(input_ids=ids).logits
        whole = AutoModelForCausalLM.from_pretrained(merged / "model")(input_ids=ids).logits
    torch.testing.assert_close(whole, adapted, atol=1e-4, rtol=1e-4)
    assert (adapted - plain).abs().max() > 0.01


def test_training_goes_on_from_an_adapter_as_the_kind_it_is(run_folder: RunFolder, tiny_model: Path) -> None:
    first, second = run_folder(texts(range(4)), [], name="first"), run_folder(texts(range(4)), [], name="second")
    train(first, tiny_model, adapter_kind="dora")
    train(second, tiny_model, adapter=str(first / "model"))
    assert json.loads((second / "model" / "adapter_config.json").read_text())["use_dora"] is True


def test_all_weights_are_trained_and_load_by_themselves(run_folder: RunFolder, tiny_model: Path) -> None:
    folder = run_folder(texts(range(4)), [])
    train(folder, tiny_model, adapter_rank=0)
    assert not (folder / "model" / "adapter_config.json").exists()
    before, after = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (tiny_model, folder / "model"))
    assert all(not torch.equal(before[name], after[name]) for name in before if "proj" in name)


def test_a_reward_model_can_be_any_kind_of_adapter(run_folder: RunFolder, tiny_model: Path) -> None:
    folder = run_folder()
    config = reward.RewardSettings(max_steps=1, per_device_train_batch_size=4, bf16=False, max_length=300)
    reward.main(reward.RewardArguments(run_dir=folder, model=str(tiny_model), adapter_rank=4, adapter_kind="dora"), config)
    model = RewardModels().add(inspect_reward_model(str(folder / "model")))
    assert len(model.score([user("Hello"), user("Hello")], ["Thank you!", "No."])) == 2


def test_four_bits_are_refused_where_the_machine_cant(run_folder: RunFolder, tiny_model: Path) -> None:
    with pytest.raises(ValueError, match=r"4-bit needs an NVIDIA GPU and bitsandbytes; this worker has (neither|no )"):
        if torch.cuda.is_available():
            pytest.skip("this machine may be able to")
        train(run_folder(texts(range(4)), []), tiny_model, quantised_base="4bit")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter_kind": "vera"}, "must be one of lora, dora, rslora"),
        ({"adapter_rank": -1}, "can't be below 0"),
        ({"quantised_base": "8bit"}, "must be no or 4bit"),
        ({"adapter_kind": "dora", "adapter_rank": 0}, "there is no adapter"),
        ({"quantised_base": "4bit", "adapter_rank": 0}, "can't be trained themselves"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_adapters(AdapterArguments(run_dir=Path("unused"), model="unused", **changes))


def test_the_settings_of_four_bits_are_qloras() -> None:
    args = AdapterArguments(run_dir=Path("unused"), model="unused", quantised_base="4bit")
    found = four_bits(args, torch.bfloat16)
    assert (found.load_in_4bit, found.bnb_4bit_quant_type, found.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert found.bnb_4bit_compute_dtype == torch.bfloat16
    assert new_adapter(args).r == 16
