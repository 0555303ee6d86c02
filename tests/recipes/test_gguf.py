"""Writing GGUF: the file says what the model said, and what quantising costs is measured, not assumed."""

import json
import shutil
from pathlib import Path

import gguf
import numpy
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig

from tests.recipes.conftest import read_result, user, write_rows
from training.recipes.gguf import CUTS, GGUFArguments, check_architecture, cut_of, interleave, main, type_of
from training.sampling.model_files import ModelFilesError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        {"prompt_id": str(number), "prompt": user(f"How do I reset number {number}?"), "group_id": f"g{number // 2}"}
        for number in range(6)
    ]
    write_rows(tmp_path / "dataset" / "prompts.jsonl", rows)
    return tmp_path


def arguments(folder: Path, model: Path, **changes: object) -> GGUFArguments:
    return GGUFArguments(**{"run_dir": folder, "model": str(model), "max_new_tokens": 8, "batch_size": 6, **changes})


def test_at_16_bits_nothing_is_lost_and_at_4_a_stated_amount_is(folder: Path, tiny_model: Path) -> None:
    figures, sizes = {}, {}
    for quantisation in ("f16", "q8_0", "q4_0"):
        main(arguments(folder, tiny_model, quantisation=quantisation))
        figures[quantisation] = read_result(folder)["figures"]
        (path,) = (folder / "model").iterdir()
        sizes[quantisation] = path.stat().st_size
        assert path.name == f"model.{quantisation}.gguf"
    kl = {name: found["kl/per_token"] for name, found in figures.items()}
    assert abs(kl["f16"]["value"]) < 1e-5 and figures["f16"]["top_1_agreement"]["value"] == 1.0
    assert kl["f16"]["high"] < kl["q8_0"]["low"] and kl["q8_0"]["high"] < kl["q4_0"]["low"]
    assert kl["q4_0"]["n"] == 6 and kl["q4_0"]["n_groups"] == 3 and figures["q4_0"]["top_1_agreement"]["n"] <= 48
    assert sizes["q4_0"] < sizes["q8_0"] < sizes["f16"]
    result = read_result(folder)
    assert result["metrics"]["file_bytes"] == sizes["q4_0"] and result["dataset"] == {"n_eval": 6, "n_completions": 6}
    assert result["files"]["model.q4_0.gguf"]["bytes"] == sizes["q4_0"]


def test_the_file_holds_what_a_server_needs_to_know(folder: Path, tiny_model: Path) -> None:
    main(arguments(folder, tiny_model, name="support@3", licence="apache-2.0"))
    reader = gguf.GGUFReader(folder / "model" / "model.q8_0.gguf")
    facts = {name: found.contents() for name, found in reader.fields.items()}
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    assert (facts["general.architecture"], facts["general.name"], facts["general.license"]) == ("llama", "support@3", "apache-2.0")
    assert facts["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q8_0
    assert (facts["llama.attention.head_count"], facts["llama.attention.head_count_kv"], facts["llama.context_length"]) == (4, 2, 512)
    assert facts["tokenizer.chat_template"] == tokenizer.chat_template
    assert facts["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id and facts["tokenizer.ggml.add_bos_token"] is False
    tokens, types = facts["tokenizer.ggml.tokens"], facts["tokenizer.ggml.token_type"]
    assert tokens[: len(tokenizer)] == tokenizer.convert_ids_to_tokens(range(len(tokenizer))) and tokens[-1] == "[PAD511]"
    assert [types[tokens.index(text)] for text in ("<|im_end|>", "Ġorder")] == [gguf.TokenType.CONTROL, gguf.TokenType.NORMAL]
    stored = {found.name: found.tensor_type.name for found in reader.tensors}
    assert stored["blk.0.attn_norm.weight"] == "F32" and stored["blk.1.ffn_down.weight"] == stored["token_embd.weight"] == "Q8_0"
    assert "output.weight" not in stored  # tied


def test_an_adapter_is_merged_first(folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config).save_pretrained(tmp_path / "adapter")
    kl, written = [], []
    for adapter in (None, str(tmp_path / "adapter")):
        main(arguments(folder, tiny_model, adapter=adapter, quantisation="f16"))
        (path,) = (folder / "model").iterdir()
        kl.append(read_result(folder)["figures"]["kl/per_token"]["value"])
        weights = {found.name: numpy.array(found.data, dtype=numpy.float32) for found in gguf.GGUFReader(path).tensors}
        written.append(weights["blk.0.ffn_up.weight"])
    assert max(map(abs, kl)) < 1e-4 and not numpy.allclose(*written, atol=0.01)


def test_a_killed_run_keeps_its_completions_and_gives_the_same_bytes(folder: Path, tiny_model: Path) -> None:
    main(arguments(folder, tiny_model))
    first, result = (folder / "model" / "model.q8_0.gguf").read_bytes(), read_result(folder)
    (folder / "model").rename(folder / "model.new")
    (folder / "model.new" / "model.q8_0.gguf").write_bytes(first[:100])
    (folder / "result.json").unlink()
    main(arguments(folder, tiny_model))
    assert (folder / "model" / "model.q8_0.gguf").read_bytes() == first and not (folder / "model.new").exists()
    assert read_result(folder)["figures"] == result["figures"]


def test_models_that_cannot_be_written_are_refused_in_words(folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    for changes, words in (
        ({"model_type": "gpt2"}, "Only Llama models.*'gpt2'"),
        ({"attention_bias": True}, "biases"),
        ({"hidden_act": "gelu"}, "activation is 'gelu'"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1.0}}, "positions are scaled by 'llama3'"),
    ):
        config = LlamaConfig()
        for name, value in changes.items():
            setattr(config, name, value) if name != "model_type" else config.__dict__.update(model_type=value)
        with pytest.raises(ModelFilesError, match=words):
            check_architecture(config)
    with pytest.raises(ValueError, match="must be one of: f16, q8_0"):
        arguments(folder, tiny_model, quantisation="q4_k")
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    described = json.loads((other / "tokenizer.json").read_text())
    described["pre_tokenizer"]["add_prefix_space"] = True
    (other / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(ModelFilesError, match="cuts texts in a way that is not among gpt-2, smollm, llama-bpe"):
        main(arguments(folder, other))
    assert not (folder / "model").exists()


def test_how_texts_are_cut_is_told_from_the_tokenizer() -> None:
    for name, steps in CUTS.items():
        cut = steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}
        assert cut_of({"model": {"type": "BPE"}, "normalizer": None, "pre_tokenizer": cut}) == name
    for described, words in (
        ({"model": {"type": "Unigram"}}, "byte-level BPE"),
        ({"model": {"type": "BPE", "byte_fallback": True}}, "byte-level BPE"),
        ({"model": {"type": "BPE"}, "normalizer": {"type": "NFC"}}, r"rewrites texts first \(NFC\)"),
    ):
        with pytest.raises(ModelFilesError, match=words):
            cut_of(described)


def test_rows_that_are_no_whole_blocks_stay_at_16_bits_and_heads_are_interleaved() -> None:
    kinds = gguf.GGMLQuantizationType
    assert type_of("blk.0.ffn_up.weight", numpy.zeros((4, 48)), "q4_0") == kinds.F16
    assert type_of("blk.0.ffn_up.weight", numpy.zeros((4, 64)), "q4_0") == kinds.Q4_0
    assert type_of("token_embd.weight", numpy.zeros((4, 64)), "q4_0") == kinds.Q8_0
    assert type_of("output_norm.weight", numpy.zeros(64), "q4_0") == kinds.F32
    rows = numpy.arange(8.0)[:, None]  # two heads of four rows
    assert interleave(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
