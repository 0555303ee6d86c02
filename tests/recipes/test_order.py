"""Rows of about the same length meet in a batch, in an order that a resumed run finds again."""

import pytest

pytest.importorskip("trl")

from datasets import Dataset

from training.recipes._order import GroupedByEpoch, token_counts


def order_of(epoch: int, *, seed: int = 1) -> list[int]:
    lengths = [7 * place % 101 for place in range(200)]
    return list(GroupedByEpoch(lengths, 4, seed=seed, epoch=lambda: epoch))


def test_each_row_comes_once_and_batches_waste_little():
    lengths = [7 * place % 101 for place in range(200)]
    order = order_of(0)
    assert sorted(order) == list(range(200))

    def padding(places: list[int]) -> int:
        batches = [places[start : start + 4] for start in range(0, 200, 4)]
        return sum(max(lengths[place] for place in batch) - lengths[one] for batch in batches for one in batch)

    assert padding(order) < 0.2 * padding(list(range(200)))


def test_the_order_follows_from_seed_and_epoch_alone():
    assert order_of(1) == order_of(1) != order_of(0)
    assert order_of(1, seed=2) != order_of(1)
    now = [0]
    sampler = GroupedByEpoch([7 * place % 101 for place in range(200)], 4, seed=1, epoch=lambda: now[0])
    first = list(sampler)
    now[0] = 1
    assert (first, list(sampler)) == (order_of(0), order_of(1))


@pytest.mark.parametrize(
    "row, count",
    [
        ({"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5, 6], "group_id": "a"}, 5),
        ({"chosen_ids": [1, 2, 3], "rejected_ids": [1, 2]}, 3),
        ({"input_ids": [1, 2, 3, 4], "labels": [0, 0, 0, 0]}, 4),
    ],
)
def test_a_row_counts_by_its_longest_text(row, count):
    assert token_counts(Dataset.from_list([row, row])) == [count, count]
