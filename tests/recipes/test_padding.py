"""Batches read in parts: the same hidden states and gradients from fewer tokens, and what can't be read so is read whole."""

import itertools
import random
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from training.recipes._padding import parts_of, spare_padding

LENGTHS = [24, 240, 32, 248, 40, 232, 24, 64]


@pytest.fixture
def model(tiny_model: Path) -> torch.nn.Module:
    torch.manual_seed(0)
    loaded = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    return get_peft_model(loaded, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))


def batch(lengths: list[int], *, left: bool = False) -> dict[str, torch.Tensor]:
    width = max(lengths)
    mask = torch.tensor([[1] * n + [0] * (width - n) for n in lengths])
    ids = torch.randint(3, 200, mask.shape, generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": mask.flip(1) if left else mask}


def widths_read(model: torch.nn.Module) -> list[tuple[int, int]]:
    """The shapes of the batches that the first layer reads from now on."""
    seen: list[tuple[int, int]] = []
    layer = model.get_base_model().model.layers[0]
    layer.register_forward_pre_hook(lambda module, given: seen.append(tuple(given[0].shape[:2])))
    return seen


def loss_of(model: torch.nn.Module, given: dict[str, torch.Tensor]) -> torch.Tensor:
    labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
    return model(**given, labels=labels, use_cache=False).loss


def test_loss_and_gradients_are_those_of_the_padded_batch_and_fewer_tokens_are_read(model):
    given = batch(LENGTHS)
    loss_of(model, given).backward()
    plain = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    expected = loss_of(model, given).item()
    spare_padding(model)
    seen = widths_read(model)
    loss = loss_of(model, given)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert len(plain) > 4
    for name, gradient in plain.items():
        torch.testing.assert_close(dict(model.named_parameters())[name].grad, gradient, atol=1e-5, rtol=1e-4)
    assert len(seen) >= 2 and sum(rows for rows, _ in seen) == len(LENGTHS)
    assert sum(rows * width for rows, width in seen) < 0.6 * len(LENGTHS) * max(LENGTHS)


def test_hidden_states_come_back_in_the_order_of_the_rows(model):
    given = batch(LENGTHS)
    body = model.get_base_model().model
    whole = body(**given, use_cache=False).last_hidden_state
    spare_padding(model)
    parts = body(**given, use_cache=False).last_hidden_state
    assert parts.shape == whole.shape
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(parts[row, :length], whole[row, :length], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "given",
    [
        batch(LENGTHS, left=True),
        batch([7, 7, 7, 7]),
        batch(LENGTHS) | {"output_hidden_states": True},
        {"input_ids": batch(LENGTHS)["input_ids"]},
    ],
    ids=["padded on the left", "one length", "more asked for", "no mask"],
)
def test_other_batches_are_read_whole(model, given):
    spare_padding(model)
    seen = widths_read(model)
    model(**given, use_cache=False)
    assert seen == [tuple(given["input_ids"].shape)]


def test_generating_is_as_it_was(model):
    given = batch([9, 9])
    torch.manual_seed(0)
    before = model.generate(**given, max_new_tokens=6, do_sample=False)
    spare_padding(model)
    assert torch.equal(model.generate(**given, max_new_tokens=6, do_sample=False), before)


def test_no_other_division_by_length_costs_less():
    drawn = random.Random(3)
    for _ in range(20):
        lengths = [drawn.randint(1, 60) for _ in range(drawn.randint(1, 7))]

        def cost(parts: list[list[int]], lengths: list[int] = lengths) -> int:
            return sum(len(rows) * max(lengths[row] for row in rows) + 20 for rows in parts)

        found = parts_of(lengths, a_part=20)
        assert sorted(itertools.chain(*found)) == list(range(len(lengths)))
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        every = (
            [order[begin:end] for begin, end in itertools.pairwise((0, *cuts, len(order)))]
            for n in range(len(order))
            for cuts in itertools.combinations(range(1, len(order)), n)
        )
        assert cost(found) == min(map(cost, every))
