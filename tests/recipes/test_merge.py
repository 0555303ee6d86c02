"""Merging an adapter: the same logits, the same bytes each time, nothing half done."""

import hashlib
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.recipes.conftest import read_result
from training.recipes import merge
from training.recipes.merge import MergeArguments, main
from training.sampling.model_files import ModelFilesError


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes something: LoRA starts as nothing."""
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder


def logits(model: torch.nn.Module, tokenizer: object) -> torch.Tensor:
    ids = tokenizer("How do I reset my password?", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        return model(input_ids=ids).logits.float()


def test_the_merged_model_says_what_the_adapter_said_and_loads_by_itself(tiny_model, adapter, tmp_path):
    main(MergeArguments(run_dir=tmp_path, model=str(tiny_model), adapter=str(adapter)))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    plain = logits(base, tokenizer)
    with_adapter = logits(PeftModel.from_pretrained(base, adapter).eval(), tokenizer)
    assert torch.allclose(logits(merged, tokenizer), with_adapter, atol=1e-4)
    assert (with_adapter - plain).abs().max() > 0.01
    assert read_result(tmp_path)["metrics"]["max_logit_difference"] < 1e-3
    assert {path.suffix for path in (tmp_path / "model").iterdir()} <= {".json", ".jinja", ".safetensors"}
    assert tokenizer.chat_template and tokenizer.pad_token


def test_after_a_kill_it_begins_anew_and_gives_the_same_bytes(tiny_model, adapter, tmp_path):
    digests = []
    for name in ("whole", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        if name == "killed":
            (folder / "model.new").mkdir()
            (folder / "model.new" / "model.safetensors").write_bytes(b"half")
        main(MergeArguments(run_dir=folder, model=str(tiny_model), adapter=str(adapter), dtype="bfloat16"))
        assert not (folder / "model.new").exists()
        digests.append(hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "killed" / "model").dtype == torch.bfloat16


def test_what_cannot_be_merged_is_refused(tiny_model, adapter, tmp_path, monkeypatch):
    with pytest.raises(ModelFilesError, match="no adapter to merge"):
        main(MergeArguments(run_dir=tmp_path, model=str(tiny_model)))
    monkeypatch.setattr(merge, "TOLERANCE", -1.0)
    with pytest.raises(ValueError, match="can't be merged"):
        main(MergeArguments(run_dir=tmp_path, model=str(tiny_model), adapter=str(adapter)))
    assert not (tmp_path / "model").exists() and not (tmp_path / "result.json").exists()
