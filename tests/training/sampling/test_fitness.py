"""Models that no run could work with are told by reading their folders, in words; recipes stop early with the same."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.recipes._adapters import AdapterArguments, check_memory
from training.sampling import chat_template, fitness
from training.sampling.chat_template import count_tokens, try_template
from training.sampling.fitness import how_it_reads, known_architectures, too_large, why_adapter_unfit, why_unfit
from training.sampling.model_facts import read_facts, stamp_of
from training.sampling.model_files import ModelFilesError
from training.sampling.tiny_model import CHAT_TEMPLATE, build_tiny_model
from training.sampling.tokenizing import load_tokenizer

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
PLAIN = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


def change(path: Path, **fields) -> None:
    document = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({name: value for name, value in document.items() if value is not None}))


def spoil_template(folder: Path, template: str | None) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    change(folder / "tokenizer_config.json", chat_template=template)


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


UNFIT = {
    "no chat template": (lambda folder: spoil_template(folder, None), "it has no chat template"),
    "a broken template": (lambda folder: spoil_template(folder, "{% for message in %}"), "Its chat template is broken"),
    "a template that refuses all": (lambda folder: spoil_template(folder, "{{ raise_exception('no') }}"), "Its chat template is broken: no"),
    "a template that forgets": (lambda folder: spoil_template(folder, "hello"), "leaves out what the person said"),
    "no tokenizer": (no_tokenizer, "it has no tokenizer"),
    "no padding and no end": (
        lambda folder: change(folder / "tokenizer_config.json", pad_token=None, eos_token=None), "neither a padding token nor an end token",
    ),
    "pickled weights": (pickled, "only pickled weights"),
    "program code": (lambda folder: change(folder / "config.json", auto_map={"AutoModel": "evil.Model"}), "program code of its own"),
    "an unknown architecture": (lambda folder: change(folder / "config.json", model_type="gpt77"), "its architecture (gpt77) is not one"),
    "no kind": (lambda folder: change(folder / "config.json", model_type=None), "names no model_type"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json is not JSON"),
    "nothing": (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_what_makes_a_model_unfit_is_said_and_recipes_say_the_same(name, folder):
    assert why_unfit(folder) == ""
    spoil, said = UNFIT[name]
    spoil(folder)
    told = why_unfit(folder)
    assert said in told
    with pytest.raises(ModelFilesError) as refused:
        load_tokenizer(folder)
    assert told.split(":")[0] in str(refused.value)


def test_a_merge_needs_no_chat_template(folder):
    spoil_template(folder, None)
    assert why_unfit(folder, converses=False) == "" and why_unfit(folder)


def test_a_tokenizer_without_padding_pads_with_its_end(folder):
    change(folder / "tokenizer_config.json", pad_token=None)
    assert why_unfit(folder) == ""
    assert load_tokenizer(folder).pad_token == "<|im_end|>"


def test_an_adapter_is_looked_at_by_itself(tmp_path):
    assert "No adapter folder" in why_adapter_unfit(tmp_path / "nothing")
    (tmp_path / "adapter_config.json").write_text('{"auto_mapping": {"parent_library": "evil"}}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    assert "auto_mapping" in why_adapter_unfit(tmp_path)


def test_a_template_that_never_ends_is_stopped(monkeypatch):
    monkeypatch.setattr(chat_template, "SECONDS", 1)
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    assert "was stopped" in try_template(endless, {})["problem"]


def test_a_template_may_know_no_system_messages_and_mark_what_is_generated():
    assert try_template(PLAIN, SPECIAL) == {"problem": "", "takes_system": True}
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('none') }}{% endif %}" + PLAIN
    assert try_template(refusing, SPECIAL) == {"problem": "", "takes_system": False}
    marked = PLAIN.replace("{{ message['content'] }}", "{% generation %}{{ message['content'] }}{% endgeneration %}")
    assert try_template(marked, SPECIAL)["problem"] == ""
    attack = "{{ messages.__class__.__mro__ }}" + PLAIN
    assert "__mro__" not in try_template(attack, SPECIAL)["problem"] or "unsafe" in try_template(attack, SPECIAL)["problem"]


def test_tokens_are_those_that_transformers_counts(whole):
    conversations = [
        [{"role": "user", "content": "Where is my order?"}],
        [{"role": "user", "content": "Ünïcode 你好"}, {"role": "assistant", "content": "Thank you for waiting."}],
    ]
    reads, tokenizer = how_it_reads(whole), AutoTokenizer.from_pretrained(whole)
    expected = [
        len(tokenizer.apply_chat_template(one, add_generation_prompt=one[-1]["role"] == "user", return_dict=True)["input_ids"])
        for one in conversations
    ]
    assert reads.template == CHAT_TEMPLATE
    assert count_tokens(reads.template, reads.special, whole / "tokenizer.json", conversations) == expected
    refusing = "{{ raise_exception('none') if messages|length > 1 }}" + reads.template
    assert count_tokens(refusing, reads.special, whole / "tokenizer.json", conversations) == [expected[0], None]
    assert count_tokens(reads.template, reads.special, whole / "missing.json", conversations) is None


def test_facts_are_those_of_the_loaded_model(whole):
    facts, model = read_facts(whole), AutoModelForCausalLM.from_pretrained(whole)
    assert facts.n_parameters == sum(weight.numel() for weight in model.parameters())
    embeddings = model.get_input_embeddings().weight.numel()
    assert facts.n_active == facts.n_parameters - embeddings
    sides = [sum(module.weight.shape) for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and "lm_head" not in name]
    assert facts.linear_sides == sum(sides)
    assert (facts.layers, facts.hidden, facts.vocabulary, facts.positions) == (2, 64, 512, 512)
    with pytest.raises(ModelFilesError):
        read_facts(whole.parent)


def test_a_stamp_changes_with_any_file(folder):
    before = stamp_of(folder)
    (folder / "chat_template.jinja").write_text(PLAIN)
    assert stamp_of(folder) != before and stamp_of(folder / "nowhere") == ""


def test_the_architectures_are_those_of_the_installed_library():
    known = known_architectures()
    assert {"llama", "qwen3", "gpt2", "mistral"} <= known and len(known) > 100


def test_a_recipe_refuses_a_model_larger_than_the_memory(whole, monkeypatch):
    monkeypatch.setattr("training.recipes._adapters.memory_bytes", lambda: 1000)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    args = AdapterArguments(run_dir=Path("unused"), model=str(whole), adapter_rank=0)
    config = type("Config", (), {"bf16": False, "world_size": 1})()
    with pytest.raises(ValueError, match=r"needs at least 0\.0 GB of memory, and this machine has"):
        check_memory(args, config)
    assert "adapter_rank above 0" in too_large("it", 2e9, 1e9, "here", is_trained_whole=True)
    assert fitness.too_large("it", 2e9, 1e9, "here") == (
        "it needs at least 2.0 GB of memory, and here has 1.0 GB: choose a smaller model, a machine with more memory"
    )
