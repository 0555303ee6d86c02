"""DPO on labels that may be wrong: what each pair's share is, and that the loss is the mixture of both labels."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset

from tests.recipes.conftest import RunFolder, planted_rows
from training.recipes._data import DatasetError, load_preferences
from training.recipes._smoothing import check_smoothing, either_wrong, smoothing_of
from training.recipes.dpo import DPOArguments, DPOSettings, PairDPOTrainer, prepare


def settings(**changes: object) -> DPOSettings:
    return DPOSettings(**{"per_device_train_batch_size": 4, "bf16": False, **changes})


def pairs(*people: tuple[int, int, int] | None, settled: tuple[int, ...] = (), comparisons: list[str] | None = None) -> Dataset:
    names = ("chosen", "rejected", "tie")
    return Dataset.from_dict({
        "people": [None if counts is None else dict(zip(names, counts, strict=True)) for counts in people],
        "is_settled": [place in settled for place in range(len(people))],
        "comparison": comparisons or [str(place) for place in range(len(people))],
        "soft_label": [0.9 for _ in people],
    })  # fmt: skip


def test_dissent_is_drawn_to_that_of_all_pairs() -> None:
    found = smoothing_of(pairs((2, 1, 0), (1, 0, 1), (1, 0, 0), None, (3, 0, 0), settled=(4,)), "agreement")
    overall = 1.5 / 8  # of those that two or more judged, the settled one among them
    assert found == pytest.approx([(1 + 2 * overall) / 5, (0.5 + 2 * overall) / 4, 2 * overall / 3, overall, 0.0])


def test_a_pair_that_is_one_as_well_as_the_other_stays_below_a_half() -> None:
    assert smoothing_of(pairs((1, 1, 0), (1, 1, 0)), "agreement") == [0.49, 0.49]
    assert smoothing_of(pairs((1, 0, 0)), "soft_label") == pytest.approx([0.1])
    assert smoothing_of(pairs((1, 1, 0)), "none") == [0.0]


def test_where_nobody_agreed_or_votes_are_pairs_of_their_own_it_says_what_to_do() -> None:
    with pytest.raises(DatasetError, match="judged by two people"):
        smoothing_of(pairs((1, 0, 0), None), "agreement")
    with pytest.raises(DatasetError, match="votes: majority"):
        smoothing_of(pairs((2, 1, 0), (2, 1, 0), comparisons=["a", "a"]), "agreement")


@pytest.mark.parametrize(
    ("source", "changes", "message"),
    [
        ("votes", {}, "it must be one of none, agreement, soft_label"),
        ("agreement", {"loss_type": ["ipo"]}, "smoothing_from is agreement, but the losses are ipo"),
        ("none", {"loss_type": ["hinge"], "label_smoothing": 0.1}, "label_smoothing is 0.1, but the losses are hinge"),
        ("none", {"label_smoothing": 0.5}, "between 0 and 0.49"),
        ("soft_label", {"f_divergence_type": "forward_kl"}, "is for f_divergence_type reverse_kl"),
    ],
)
def test_what_would_change_nothing_is_refused(source: str, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_smoothing(source, settings(**changes))


def test_two_causes_of_a_wrong_label_may_cancel_out() -> None:
    assert either_wrong(torch.tensor([0.1]), 0.2).item() == pytest.approx(0.1 * 0.8 + 0.9 * 0.2)


@pytest.mark.parametrize("loss", ["sigmoid", "robust"])
def test_the_loss_and_its_gradient_are_those_of_both_labels(loss: str, run_folder: RunFolder, tiny_model: Path) -> None:
    """Also the contract with TRL: that `robust` takes a share for each pair, and that `sigmoid` is not smoothed already."""
    rows = load_preferences(run_folder(planted_rows(range(2))) / "dataset")["train"]
    trainer = PairDPOTrainer(
        model=str(tiny_model),
        args=settings(output_dir=str(run_folder(name="out")), loss_type=[loss], label_smoothing=0.05, max_steps=3),
        train_dataset=prepare(rows, DPOArguments(run_dir=Path("unused"), model="unused"))[0],
    )
    trainer.train()  # else policy and reference are one, and all margins 0
    example = dict(trainer.train_dataset[0])
    other = example | {"chosen_ids": example["rejected_ids"], "rejected_ids": example["chosen_ids"]}

    def step(row: dict, smoothing: float) -> tuple[float, torch.Tensor]:
        trainer.model.zero_grad()
        trainer.model.train()
        found = trainer.compute_loss(trainer.model, trainer.data_collator([row | {"smoothing": smoothing, "weight": 1.0}]))
        found.backward()
        return found.item(), trainer.model.model.layers[0].mlp.up_proj.weight.grad.clone()

    trainer.args.label_smoothing = 0.0
    (plain, of_plain), (flipped, of_flipped) = step(example, 0.0), step(other, 0.0)
    assert abs(plain - flipped) > 1e-3
    trainer.args.label_smoothing = 0.1
    share = 0.2 * 0.9 + 0.8 * 0.1
    sign, divisor = (1, 1) if loss == "sigmoid" else (-1, 1 - 2 * share)
    value, gradient = step(example, 0.2)
    assert value == pytest.approx(((1 - share) * plain + sign * share * flipped) / divisor, rel=1e-4)
    expected = ((1 - share) * of_plain + sign * share * of_flipped) / divisor
    torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-3)
    trainer.model.eval()
    trainer.kept.clear()
    evaluated = trainer.compute_loss(trainer.model, trainer.data_collator([example | {"smoothing": 0.2, "weight": 1.0}]))
    assert evaluated.item() == pytest.approx(plain, rel=1e-3)  # as labelled
