"""Seeded nucleus sampling, and the backends."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
import pytest
import torch

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
