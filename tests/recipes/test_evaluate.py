"""Evaluation of a policy: figures alone and beside a reference, completions kept, a stop on the way, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import scipy.optimize
import scipy.special
import torch

from tests.recipes.conftest import assistant, read_result, user, write_rows
from training.recipes._data import DatasetError
from training.recipes._runlog import RunLog, Stopped, read_events
from training.recipes._statistics import length_controlled, proportion
from training.recipes.evaluate import EvaluateArguments, distinct_share, duel, load, losses, main
from training.sampling.tiny_model import build_tiny_model

RULES = ["length:target=4", "repetition:n=1"]
PromptFolder = Callable[..., Path]


def arguments(folder: Path, model: Path, **changes: object) -> EvaluateArguments:
    defaults = {"rewards": RULES, "max_new_tokens": 8, "batch_size": 5}
    return EvaluateArguments(run_dir=folder, model=str(model), **defaults | changes)


@pytest.fixture
def prompt_folder(tmp_path: Path) -> PromptFolder:
    def make(name: str = "run", texts: bool = False) -> Path:
        rows = [
            {"prompt_id": str(number), "prompt": user(f"How do I reset number {number}?"), "group_id": f"g{number // 2}"}
            for number in range(6)
        ]
        folder = tmp_path / name
        write_rows(folder / "dataset" / "prompts.jsonl", rows)
        if texts:
            said = [{"messages": user(f"Number {n}?") + assistant(f"Open page {n}."), "group_id": f"g{n}"} for n in range(5)]
            write_rows(folder / "dataset" / "eval.jsonl", said)
        return folder

    return make


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "other", seed=1)


def test_a_policy_is_measured_beside_its_reference(
    prompt_folder: PromptFolder, tiny_model: Path, other_model: Path
) -> None:
    folder = prompt_folder(texts=True)
    main(arguments(folder, tiny_model, reference=str(other_model), reward_weights=[1.0, 0.5]))
    result = read_result(folder)
    figures = result["figures"]
    assert {"win_rate", "win_rate/length_controlled", "win_rate/where_shorter", "reward/difference", "kl"} <= set(figures)
    assert (figures["win_rate"]["n"], figures["win_rate"]["n_groups"]) == (6, 3)
    assert figures["reward"]["n"] == 12
    difference = figures["reward"]["value"] - figures["reward/reference"]["value"]
    assert figures["reward/difference"]["value"] == pytest.approx(difference)
    total = figures["rewards/length"]["value"] + figures["rewards/repetition"]["value"] / 2
    assert figures["reward"]["value"] == pytest.approx(total)
    assert figures["kl"]["value"] > figures["kl/per_token"]["value"] > 0
    assert figures["loss"]["n"] == 5
    change = figures["loss"]["value"] - figures["loss/reference"]["value"]
    assert figures["loss/difference"]["value"] == pytest.approx(change)
    for figure in figures.values():
        assert figure["low"] is None or figure["low"] <= figure["value"] <= figure["high"]
    rows = [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]
    assert len(rows) == 24 and {row["who"] for row in rows} == {"policy", "reference"}
    assert rows[0]["reward"] == pytest.approx(rows[0]["rewards"]["length"] + rows[0]["rewards"]["repetition"] / 2)
    shown = [event for event in read_events(folder) if event["type"] == "sample"]
    assert [event["by"] for event in shown[:4]] == ["policy", "policy", "reference", "reference"]
    assert len(shown) == 24 and result["dataset"]["n_eval"] == 6 and len(result["dataset"]["prompts_hash"]) == 64
    assert not list(folder.glob("sampled_*"))


def test_against_itself_a_policy_wins_half_and_has_no_kl(prompt_folder: PromptFolder, tiny_model: Path) -> None:
    folder = prompt_folder()
    main(arguments(folder, tiny_model, reference=str(tiny_model)))
    figures = read_result(folder)["figures"]
    assert figures["win_rate"]["value"] == figures["win_rate/length_controlled"]["value"] == pytest.approx(0.5)
    assert figures["kl"]["value"] == pytest.approx(0, abs=1e-5)
    assert figures["reward/difference"]["value"] == pytest.approx(0)


def test_with_a_reference_of_other_tokens_all_but_the_kl_is_told(
    prompt_folder: PromptFolder, tiny_model: Path, foreign_model: Path
) -> None:
    folder = prompt_folder()
    main(arguments(folder, tiny_model, reference=str(foreign_model)))
    result = read_result(folder)
    assert "kl" not in result["figures"] and result["without_kl"] == "policy and reference have other tokens"
    assert result["figures"]["win_rate"]["value"] == 0.5


def test_stopped_while_it_samples_it_goes_on_to_the_same_completions(
    prompt_folder: PromptFolder, tiny_model: Path
) -> None:
    whole, folder = prompt_folder("whole"), prompt_folder("stopped")
    main(arguments(whole, tiny_model, rewards=[]))
    (folder / "stop").touch()
    with pytest.raises(Stopped):
        main(arguments(folder, tiny_model, rewards=[]))
    (folder / "stop").unlink()
    main(arguments(folder, tiny_model, rewards=[]))
    assert (folder / "completions.jsonl").read_text() == (whole / "completions.jsonl").read_text()
    figures = read_result(folder)["figures"]
    assert figures == read_result(whole)["figures"] and "reward" not in figures and "win_rate" not in figures


def test_the_loss_of_a_text_is_that_of_its_completion_alone(tiny_model: Path, tmp_path: Path) -> None:
    one = load("policy", str(tiny_model), None)
    one.model.float()
    row = {"prompt": user("Where is my order?"), "completion": assistant("It left this morning.")}
    other = {"prompt": user("Why?"), "completion": assistant("No.")}
    (folder := tmp_path / "log").mkdir()
    nats, tokens = losses(one, [row, other], RunLog(folder, kind="evaluate"))
    before = one.tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
    whole = one.tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=True)["input_ids"]
    ids = torch.tensor([whole])
    labels = torch.tensor([[-100] * len(before) + whole[len(before) :]])
    with torch.inference_mode():
        expected = one.model(input_ids=ids, labels=labels).loss.item()
    assert tokens[0] == len(whole) - len(before)
    assert nats[0] / tokens[0] == pytest.approx(expected, rel=1e-4)


def test_what_cannot_be_evaluated_is_refused(prompt_folder: PromptFolder, tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="would be one"):
        arguments(Path("unused"), tiny_model, temperature=0)
    with pytest.raises(ValueError, match="at least 1"):
        arguments(Path("unused"), tiny_model, max_prompts=0)
    with pytest.raises(DatasetError, match="longer than 5 tokens"):
        main(arguments(prompt_folder(), tiny_model, max_prompt_length=5))


def test_every_completion_meets_every_other_of_its_prompt() -> None:
    def row(prompt: int, reward: float, content: str) -> dict:
        return {"prompt_id": str(prompt), "group_id": f"g{prompt}", "reward": reward, "content": content}

    ours = [row(0, 2.0, "ab"), row(0, 0.0, "abcd"), row(1, 1.0, "a")]
    theirs = [row(0, 1.0, "abc"), row(0, 0.0, "abc"), row(1, 3.0, "ab")]
    figures = duel(ours, theirs)
    assert figures["win_rate"]["value"] == pytest.approx(((1 + 1 + 0 + 0.5) / 4 + 0) / 2)
    assert figures["win_rate/where_shorter"]["value"] == pytest.approx((1 + 1 + 0) / 3)
    assert figures["reward/difference"]["value"] == pytest.approx((0.5 - 2) / 2)


def test_distinct_share_counts_runs_over_all_texts() -> None:
    assert distinct_share(["a b", "a b"], 1) == 0.5
    assert distinct_share(["a b c", "a b"], 2) == pytest.approx(2 / 3)
    assert distinct_share(["a"], 2) is None


def test_a_win_rate_that_length_explains_is_half_when_length_is_held() -> None:
    """The longer text wins four of five, and the first is the longer in three of four."""
    longer = ([50.0] * 5) * 3 + [-50.0] * 5
    wins = [1.0, 1.0, 1.0, 1.0, 0.0] * 3 + [0.0, 0.0, 0.0, 0.0, 1.0]
    groups = [f"g{place}" for place in range(200)]
    assert proportion(wins * 10, groups)["value"] == pytest.approx(0.65)
    figure = length_controlled(wins * 10, longer * 10, groups, [1.0] * 200)
    assert figure["value"] == pytest.approx(0.5, abs=0.01) and figure["low"] < 0.5 < figure["high"]
    assert figure["n"] == 200
    # Where the longer always wins, no regression could tell: the interval says so.
    certain = length_controlled([float(x > 0) for x in longer] * 4, longer * 4, groups[:80], [1.0] * 80)
    assert certain["low"] < 0.5 < certain["high"]


def test_the_regression_is_that_of_another_optimiser() -> None:
    chance = numpy.random.default_rng(0)
    longer, wins = chance.normal(10, 40, 60), chance.integers(0, 2, 60) * 1.0

    def loss(beta: numpy.ndarray) -> float:
        logits = beta[0] + beta[1] * numpy.tanh(longer / longer.std())
        tie = numpy.logaddexp(0, beta[0]) - beta[0] / 2
        return float((numpy.logaddexp(0, logits) - wins * logits).sum() + tie + beta[1] ** 2 / 18)

    expected = scipy.special.expit(scipy.optimize.minimize(loss, [0, 0], tol=1e-12).x[0])
    figure = length_controlled(list(wins), list(longer), list(range(60)), [1.0] * 60)
    assert figure["value"] == pytest.approx(expected, abs=1e-6)


def test_length_controlled_without_lengths_is_the_win_rate_with_one_tie_more() -> None:
    wins = [1.0] * 30 + [0.0] * 10
    figure = length_controlled(wins, [0.0] * 40, [str(place) for place in range(40)], [1.0] * 40)
    assert figure["value"] == pytest.approx(30.5 / 41)
    # By hand, about the shrunken value: the squared scores over the information, or its inverse, whichever is larger.
    p = 30.5 / 41
    variance = 40 / 39 * (30 * (1 - p) ** 2 + 10 * p**2) / (41 * p * (1 - p)) ** 2
    half = 1.959963984540054 * max(variance, 1 / (41 * p * (1 - p))) ** 0.5
    logit = torch.logit(torch.tensor(p, dtype=torch.float64)).item()
    assert figure["high"] == pytest.approx(torch.sigmoid(torch.tensor(logit + half, dtype=torch.float64)).item())
    assert length_controlled([1.0] * 5, range(5), "abcde", [1.0] * 5)["value"] == 1
    assert length_controlled([], [], [], [])["value"] is None
