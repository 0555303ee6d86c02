"""Reading `dataset/`: what is refused, and how pairs are chosen and weighted."""

import json
from pathlib import Path

import pytest

from tests.recipes.conftest import RunFolder, assistant, planted_rows, user, write_rows
from training.recipes._data import (
    DatasetError,
    clearest_pairs,
    completion_text,
    drop_ties,
    load_preferences,
    load_prompts,
    normalise_weights,
)

GOOD = planted_rows(range(1))[0]


def test_columns_and_defaults(run_folder: RunFolder) -> None:
    row = {"prompt": user("Hi"), "chosen": assistant("Yes"), "rejected": assistant("No"), "n_votes": 3}
    dataset = load_preferences(run_folder([row]) / "dataset")
    assert dataset["train"][0] == {
        "prompt": user("Hi"),
        "chosen": assistant("Yes"),
        "rejected": assistant("No"),
        "margin": None,
        "weight": 1.0,
        "group_id": json.dumps(user("Hi")),
        "tie": False,
        "id": None,
    }


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"prompt": None}, "`prompt` is missing"),
        ({"prompt": "Hello"}, "`prompt` must be a list"),
        ({"chosen": []}, "`chosen` must be a list of at least one message"),
        ({"rejected": [{"role": "assistant"}]}, "needs a `role` and a `content`"),
        ({"chosen": user("I am a user")}, "must begin with a message of the assistant"),
        ({"weight": -1}, "cannot be negative"),
        ({"weight": "much"}, "must be a finite number"),
        ({"margin": float("nan")}, "must be a finite number"),
        ({"tie": "no"}, "must be true or false"),
        ({"id": 7}, "it must be a text"),
    ],
)
def test_malformed_rows_are_named_by_file_and_line(run_folder: RunFolder, change: dict, complaint: str) -> None:
    folder = run_folder([GOOD, GOOD | change])
    with pytest.raises(DatasetError, match=r"train\.jsonl, line 2: ") as error:
        load_preferences(folder / "dataset")
    assert complaint in str(error.value)


def test_broken_json_is_named_by_line(run_folder: RunFolder) -> None:
    folder = run_folder()
    with (folder / "dataset" / "eval.jsonl").open("a") as file:
        file.write('\n{"prompt": [')
    with pytest.raises(DatasetError, match=r"eval\.jsonl, line 14: no valid JSON"):
        load_preferences(folder / "dataset")


def test_a_missing_or_empty_training_file_says_so(run_folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"train\.jsonl is missing"):
        load_preferences(tmp_path)
    with pytest.raises(DatasetError, match="holds no pairs"):
        load_preferences(run_folder([]) / "dataset")


def test_groups_in_both_splits_are_refused(run_folder: RunFolder) -> None:
    folder = run_folder(planted_rows(range(4)), planted_rows(range(3, 6)))
    with pytest.raises(DatasetError, match="1 groups are in both"):
        load_preferences(folder / "dataset")


def test_an_empty_evaluation_file_is_allowed(run_folder: RunFolder) -> None:
    assert set(load_preferences(run_folder(evaluation=[]) / "dataset")) == {"train"}


def test_clearest_pairs_take_best_against_worst_and_keep_the_groups_weight(run_folder: RunFolder) -> None:
    folder = run_folder(planted_rows(range(5), completions=4))
    dataset = load_preferences(folder / "dataset")["train"]
    kept = clearest_pairs(dataset, 1)
    assert len(kept) == 5
    for row in kept:
        assert completion_text(row["chosen"]).count("Thank") == 3
        assert completion_text(row["rejected"]).count("Thank") == 0
        assert row["weight"] == pytest.approx(1)  # six pairs of one sixth


def test_weights_are_scaled_to_a_mean_of_one_and_zeros_left_out(run_folder: RunFolder) -> None:
    rows = [GOOD | {"weight": weight} for weight in (0, 1, 3)]
    dataset = normalise_weights(load_preferences(run_folder(rows) / "dataset")["train"])
    assert list(dataset["weight"]) == [0.5, 1.5]
    with pytest.raises(DatasetError, match="weight 0"):
        normalise_weights(load_preferences(run_folder([GOOD | {"weight": 0}], name="zero") / "dataset")["train"])


def test_ties_are_dropped_on_demand(run_folder: RunFolder) -> None:
    dataset = load_preferences(run_folder([GOOD, GOOD | {"tie": True}]) / "dataset")["train"]
    assert list(drop_ties(dataset)["tie"]) == [False]


def test_prompts_need_an_id_of_their_own(tmp_path: Path) -> None:
    write_rows(tmp_path / "prompts.jsonl", [{"prompt_id": "a", "prompt": user("Hi")}] * 2)
    with pytest.raises(DatasetError, match="'a' is there 2 times"):
        load_prompts(tmp_path)
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": user("Hi")}])
    with pytest.raises(DatasetError, match="line 1: `prompt_id` is missing"):
        load_prompts(tmp_path)
