"""Seeded nucleus sampling, and the backends."""

import gc
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

from training.sampling.backends import GenerationRequest, derive_seed
from training.sampling.scripted import ScriptedBackend
from training.sampling.tiny_model import build_tiny_model
from training.sampling.transformers_backend import TransformersBackend, sample_nucleus

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def request(text: str, seed: int, **changes: object) -> GenerationRequest:
    settings = {"temperature": 1.0, "top_p": 0.9, "max_new_tokens": 8} | changes
    return GenerationRequest(f"{text}/{seed}", ({"role": "user", "content": text},), seed, **settings)


def test_nucleus_keeps_the_fewest_tokens_that_reach_top_p() -> None:
    probabilities = torch.tensor([[0.1, 0.5, 0.05, 0.35]])

    def drawn(top_p: float) -> set[int]:
        uniform = torch.linspace(0, 0.999, 500)
        return set(sample_nucleus(probabilities.expand(500, -1), top_p, uniform).tolist())

    assert drawn(0.5) == {1}
    assert drawn(0.6) == {1, 3}
    assert drawn(0.9) == {0, 1, 3}
    assert drawn(1.0) == {0, 1, 2, 3}


def test_draws_follow_the_probabilities_also_beyond_the_first_candidates() -> None:
    flat = torch.full((4000, 2000), 1 / 2000)  # the nucleus of 1,800 tokens needs the full sort
    uniform = torch.rand(4000, generator=torch.Generator().manual_seed(0))
    assert len(set(sample_nucleus(flat, 0.9, uniform).tolist())) > 1400
    peaked = torch.tensor([0.7, 0.2, 0.1]).expand(4000, -1)
    counts = torch.bincount(sample_nucleus(peaked, 1.0, uniform), minlength=3) / 4000
    assert counts.tolist() == pytest.approx([0.7, 0.2, 0.1], abs=0.03)


def test_a_completion_does_not_depend_on_its_neighbours(tiny_model: Path) -> None:
    requests = [request(f"Where is order {'9' * (index % 4)}?", index) for index in range(12)]
    together = {
        generation.key: generation.content
        for generation in TransformersBackend(str(tiny_model), batch_size=12, bfloat16=False).generate(requests)
    }
    alone = {
        generation.key: generation.content
        for generation in TransformersBackend(str(tiny_model), batch_size=1, bfloat16=False).generate(requests[::-1])
    }
    assert together == alone
    assert len(set(together.values())) > 8


def base_models_in_memory() -> int:
    """Decoders of the tiny model's kind, and copies of its embedding, that are alive: the larger number."""
    gc.collect()
    alive = [found for found in gc.get_objects() if type(found) is LlamaForCausalLM]
    return max(len(alive), len({found.get_input_embeddings().weight.data_ptr() for found in alive}))


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two LoRA adapters that change what the model says."""
    folders = []
    for number in range(2):
        torch.manual_seed(number)
        config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
        folder = tmp_path_factory.mktemp("adapters") / str(number)
        get_peft_model(LlamaForCausalLM.from_pretrained(tiny_model), config).save_pretrained(folder)
        folders.append(str(folder))
    return folders


def test_policies_on_one_base_hold_it_once_and_say_what_each_says_alone(tiny_model: Path, adapters: list[str]) -> None:
    requests = [request(f"Where is order {index}?", index) for index in range(6)]

    def said(backend: TransformersBackend) -> dict[str, str]:
        return {generation.key: generation.content for generation in backend.generate(requests)}

    named = {"base": None, "one": adapters[0], "two": adapters[1]}
    before = base_models_in_memory()
    together = TransformersBackend.of_policies(str(tiny_model), named, bfloat16=False)
    assert base_models_in_memory() == before + 1
    # In turns, and each again after the others.
    texts = [{name: said(together[name]) for name in order} for order in (["one", "base", "two"], ["two", "one", "base"])]
    assert texts[0] == texts[1]
    alone = {name: said(TransformersBackend(str(tiny_model), folder, bfloat16=False)) for name, folder in named.items()}
    assert texts[0] == alone
    assert len({json.dumps(told) for told in alone.values()}) == 3


def test_greedy_is_the_models_own_greedy(tiny_model: Path) -> None:
    backend = TransformersBackend(str(tiny_model), bfloat16=False)
    (generation,) = backend.generate([request("Hello", 1, temperature=0.0)])
    encoded = backend.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    output = backend.model.generate(**encoded, max_new_tokens=8, do_sample=False)
    text = backend.tokenizer.decode(output[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
    assert generation.content == text.strip()


def test_a_prompt_that_is_too_long_says_so(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="exceed the model's 512 positions"):
        list(TransformersBackend(str(tiny_model)).generate([request("word " * 600, 0)]))


def test_scripted_answers_are_a_function_of_the_seed() -> None:
    backend = ScriptedBackend({"Hello": ["Hi there", "Good day"]})
    first, second, other = backend.generate([request("Hello", 2), request("Hello", 3), request("What?", 5)])
    assert (first.content, second.content) == ("Hi there", "Good day")
    assert other == next(backend.generate([request("What?", 5)]))


def test_seeds_differ_by_every_part_and_fit_31_bits() -> None:
    seeds = {derive_seed(0, prompt, index) for prompt in ("a", "b", "1") for index in range(50)}
    assert len(seeds) == 150
    assert max(seeds) < 2**31
    assert derive_seed("a", 11) != derive_seed("a1", 1)


@pytest.mark.parametrize("bad", [{"temperature": -1}, {"top_p": 0}, {"max_new_tokens": 0}])
def test_impossible_settings_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        request("Hi", 0, **bad)
