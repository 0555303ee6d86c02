"""A reward model's figures in words: on its card and on the page of its report."""

import pytest

from training.registry import trust
from training.registry.card import card_of
from training.registry.models import ModelVersion


def figure(value: float, low: float, high: float, n: int = 240) -> dict:
    return {"value": value, "low": low, "high": high, "n": n, "method": "by hand"}


FIGURES = {
    "accuracy": figure(0.71, 0.64, 0.77),
    "accuracy_shorter_won": figure(0.55, 0.46, 0.64, 120),
    "accuracy_longer_won": figure(0.87, 0.8, 0.92, 120),
    "longer_won": figure(0.5, 0.44, 0.56),
    "longer_has_higher_reward": figure(0.66, 0.6, 0.72),
    "accuracy_first_shown_won": figure(0.7, 0.6, 0.8, 120),
    "accuracy_second_shown_won": figure(0.72, 0.6, 0.8, 120),
    "calibration_error": figure(0.08, 0.04, 0.12),
    "against_clear_majority": figure(0.12, 0.05, 0.25, 40),
}


def in_words(figures: dict) -> list[str]:
    """With plain spaces."""
    return [text.replace("\u00a0", " ") for text in trust.in_words(figures)]


def test_the_words_give_intervals_and_conclude_only_what_they_bear_out():
    assert in_words(FIGURES) == [
        "It is right on 71 % [64, 77] of 240 held-out pairs.",
        "Where the shorter completion won it is right on 55 % [46, 64] of 120, where the longer one won on 87 % [80, 92] of 120: "
        "it leans on length.",
        "People preferred the longer one in 50 % [44, 56] of pairs, and the model does in 66 % [60, 72].",
        "Its probabilities are off by 8 points [4, 12] on average: they are no probabilities as they stand.",
        "It prefers the other completion in 12 % [5, 25] of 40 comparisons on which at least three people judged and four in "
        "five or more agree.",
    ]
    unsure = FIGURES | {
        "accuracy": figure(0.52, 0.45, 0.6), "accuracy_longer_won": figure(0.6, 0.5, 0.7, 120),
        "calibration_error": figure(0.03, 0.0, 0.06), "accuracy_second_shown_won": figure(0.4, 0.3, 0.5, 120),
    }  # fmt: skip
    chance, length, _, place, error, _ = in_words(unsure)
    assert "may be chance" in chance and "leans" not in length
    assert "may follow the place" in place and "chance alone may explain" in error


def test_cross_validated_figures_are_called_so_and_no_figures_say_nothing():
    [text] = in_words({"cv_accuracy": figure(0.7, 0.6, 0.8)})
    assert "training pairs, each judged by a fit that had not seen its prompt" in text
    assert in_words({}) == in_words({"accuracy": {"value": None, "method": "no pairs"}}) == []


@pytest.mark.django_db
def test_the_card_has_them():
    model = ModelVersion(key="r@1", name="r", version=1, kind="reward", folder="r", metrics=FIGURES)
    model.save()
    card = card_of(model)
    part = card.replace("\u00a0", " ").partition("## How far to trust it")[2].partition("\n## ")[0]
    assert "right on 55 % [46, 64] of 120" in part and "On other prompts" in part
    assert card.index("## How it was evaluated") < card.index("## How far to trust it") < card.index("## Intended use")
    model.metrics = {}
    assert "How far to trust it" not in card_of(model)
