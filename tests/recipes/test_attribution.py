"""What tokens and sentences are held to add to a reward: by hand, and where the reward was planted."""

import random
from pathlib import Path

import numpy
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.recipes.conftest import user
from training.sampling.attribution import (
    Attribution,
    integrated_gradients,
    mean_pooled,
    pieces,
    sentences,
    without_each,
)
from training.sampling.embeddings import Embedder
from training.sampling.explaining import EXACT, GRADIENTS, Explainer, Explanation
from training.sampling.reward_head import FeatureMap, RewardHead
from training.sampling.reward_models import inspect_reward_model

PROMPT = user("How do I reset number 3?")
THANKS = "Thank you! Open page 7. Thank you! It is on page 9."


def test_integrated_gradients_of_a_square_by_hand() -> None:
    """F = (w . x1)^2 + w . x2, from 0: the integral of the gradient along the path is (w . x1)^2 and w . x2."""
    weight = torch.tensor([1.0, -2.0])
    inputs = torch.tensor([[3.0, 1.0], [2.0, 5.0]])

    def reward(points: torch.Tensor) -> torch.Tensor:
        return (points[:, 0] @ weight) ** 2 + points[:, 1] @ weight

    found = integrated_gradients(reward, inputs, torch.zeros_like(inputs), steps=[3], batch_size=2)
    assert found.values == pytest.approx([1.0, -8.0], abs=1e-5)
    assert (found.reward, found.baseline, found.steps) == (-7.0, 0.0, 3)
    assert found.gap == pytest.approx(0, abs=1e-5) and found.is_complete


def test_more_points_are_taken_until_the_values_add_up_and_a_gap_that_stays_is_told() -> None:
    def step(points: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(80 * (points[:, 0, 0] - 0.3))

    calls = []
    ends = torch.ones(1, 1), torch.zeros(1, 1)
    found = integrated_gradients(step, *ends, steps=[2, 4, 64], on_step=lambda: calls.append(1))
    assert found.steps == 64 and found.is_complete and len(calls) == 2 + 8
    assert found.values == pytest.approx([1.0], abs=0.05)
    rough = integrated_gradients(step, *ends, steps=[2, 4])
    assert rough.steps == 4 and not rough.is_complete
    assert abs(rough.gap) > 0.5


def test_what_counts_as_complete() -> None:
    assert Attribution([0.96], reward=1.0, baseline=0.0).is_complete
    assert not Attribution([0.94], reward=1.0, baseline=0.0).is_complete
    assert Attribution([0.0], reward=0.02, baseline=0.0).is_complete


def test_shares_of_a_mean_pooled_head_are_its_reward(tiny_model: Path) -> None:
    chance = numpy.random.default_rng(0)
    features = FeatureMap(chance.normal(size=8), chance.normal(size=(8, 3)))
    head = RewardHead(features, chance.normal(size=3), numpy.eye(3), {})
    hidden = chance.normal(size=(5, 8))
    found = mean_pooled(hidden, head)
    assert sum(found.values) == pytest.approx(head.score_embeddings(hidden.mean(axis=0)[None])[0], rel=1e-9)
    assert (found.baseline, found.steps, found.is_complete) == (0.0, 0, True)
    assert found.values[2] == pytest.approx((features(hidden[2:3]) @ head.weight / 5)[0])


def test_pieces_are_the_text_and_keep_every_value() -> None:
    assert [(p.text, p.value) for p in pieces("a bc d", [(0, 1), (2, 4)], [1.0, 2.0])] == [("a", 1.0), (" bc", 2.0), (" d", None)]
    emoji = pieces("hi 🙂!", [(0, 2), (2, 4), (3, 4), (3, 4), (4, 5)], [1.0, 0.1, 0.2, 0.3, 2.0])
    assert [p.text for p in emoji] == ["hi", " 🙂", "!"]
    assert [p.value for p in emoji] == pytest.approx([1.0, 0.6, 2.0])
    assert [p.text for p in pieces("cut here", [(4, 8)], [1.0])] == ["cut ", "here"]
    assert [p.text for p in pieces("end  \n", [(0, 3)], [1.0])] == ["end  \n"]
    assert [(p.text, p.value) for p in pieces("all cut", [], [])] == [("all cut", None)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two! Three", ["One. ", "Two! ", "Three"]),
        ("It costs 3.50 today. Yes.", ["It costs 3.50 today. ", "Yes."]),
        ("Line\n\n- item", ["Line\n\n", "- item"]),
        ('He said "no." Then left.', ['He said "no." ', "Then left."]),
        ("一。二。", ["一。", "二。"]),
        ("Alone", ["Alone"]),
    ],
)
def test_sentences_joined_are_the_text(text: str, parts: list[str]) -> None:
    assert sentences(text) == parts
    assert "".join(sentences(text * 40, at_most=5)) == text * 40
    assert len(sentences(text * 40, at_most=5)) <= 5


def test_a_text_without_each_of_its_sentences() -> None:
    assert without_each(["One. ", "Two! ", "Three"]) == ["Two! Three", "One. Three", "One. Two!"]
    assert without_each(["Alone"]) == []


def thanking(chance: random.Random) -> str:
    words = ["Thank you!", "Open page 7.", "It is on page 9.", "Sure.", "Where is it?"]
    return " ".join(chance.choices(words, k=chance.randrange(2, 7)))


@pytest.fixture(scope="module")
def texts() -> list[str]:
    chance = random.Random(5)
    return [thanking(chance) for _ in range(300)]


def plant_head(folder: Path, base: Path, texts: list[str], pooling: str) -> Path:
    """A head whose reward is, as nearly as a linear one can tell, how much of the text is thanks."""
    embedder = Embedder(str(base), layer=1, pooling=pooling)
    embeddings = embedder.encode([(PROMPT, text) for text in texts])
    counts = numpy.array([text.count("Thank") / (1 if pooling == "last" else len(text)) for text in texts])
    counts = (counts - counts.mean()) / counts.std()
    features = FeatureMap.fit(embeddings, 64)
    projected = features(embeddings)
    weight = numpy.linalg.solve(projected.T @ projected + 1e-6 * numpy.eye(projected.shape[1]), projected.T @ counts)
    config = {"base_model_hash": embedder.model_hash, "layer": 1, "pooling": pooling, "max_length": 512}
    RewardHead(features, weight, numpy.eye(len(weight)) * 0.01, config, str(base)).save(folder)
    return folder


def plant_whole(folder: Path, base: Path, texts: list[str]) -> Path:
    """A whole reward model whose reward is, as nearly as its score head can tell, the number of thanks."""
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    hidden = []
    with torch.inference_mode():
        for text in texts:
            messages = [*PROMPT, {"role": "assistant", "content": text}]
            ids = torch.tensor([tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]])
            last = max(place for place, token in enumerate(ids[0].tolist()) if token != model.config.pad_token_id)
            hidden.append(model.model(ids).last_hidden_state[0, last].numpy())
    states = numpy.stack(hidden).astype("float64")
    counts = numpy.array([text.count("Thank") for text in texts], dtype=float)
    centred = states - states.mean(axis=0)
    weight = numpy.linalg.solve(centred.T @ centred + 1e-4 * numpy.eye(64), centred.T @ (counts - counts.mean()))
    with torch.no_grad():
        model.score.weight.copy_(torch.tensor(weight)[None])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def value_at(explanation: Explanation, word: str) -> float:
    """Mean value of the pieces that hold a letter of the word, wherever it stands."""
    text = "".join(piece.text for piece in explanation.pieces)
    inside = {place + offset for place in range(len(text)) if text.startswith(word, place) for offset in range(len(word))}
    values, place = [], 0
    for piece in explanation.pieces:
        letters = {place + offset for offset, letter in enumerate(piece.text) if not letter.isspace()}
        if letters & inside:
            values.append(piece.value)
        place += len(piece.text)
    return float(numpy.mean(values))


@pytest.mark.parametrize("kind", ["mean", "last", "whole"])
def test_a_planted_reward_is_found_where_it_was_planted(kind: str, tiny_model: Path, tmp_path: Path, texts: list[str]) -> None:
    if kind == "whole":
        folder = plant_whole(tmp_path / "model", tiny_model, texts)
    else:
        folder = plant_head(tmp_path / "model", tiny_model, texts, kind)
    explainer = Explainer(inspect_reward_model(folder))
    found = explainer.explain(PROMPT, THANKS)
    assert found.method == (EXACT if kind == "mean" else GRADIENTS)
    assert "".join(piece.text for piece in found.pieces) == THANKS
    assert sum(piece.value for piece in found.pieces) == pytest.approx(found.reward - found.baseline - found.gap, abs=1e-6)
    assert found.is_complete and found.n_tokens_cut == 0
    assert value_at(found, "Thank you!") > value_at(found, "page")
    # The second opinion: taking thanks away costs reward, taking the rest away does not cost as much.
    effects = {sentence.text.strip(): sentence.effect for sentence in found.sentences}
    assert effects["Thank you!"] > effects["Open page 7."]
    value, deviation = explainer.difference(PROMPT, THANKS, "Open page 7. It is on page 9.")
    assert value > 0
    assert (deviation is None) == (kind == "whole") == (found.deviation is None)
