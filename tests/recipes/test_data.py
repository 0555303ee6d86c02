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
    load_supervised,
    load_unpaired,
    normalise_weights,
    unpair,
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
        "soft_label": 1.0,
        "id": None,
        **dict.fromkeys(("strength", "iteration", "tags", "votes", "chosen_first", "task", "comparison", "people", "axis")),
        "is_settled": False,
    }


def test_a_soft_label_is_what_the_row_says_or_one_half_for_a_tie(run_folder: RunFolder) -> None:
    rows = [GOOD | {"soft_label": 0.75}, GOOD | {"tie": True}, GOOD | {"soft_label": None}]
    assert list(load_preferences(run_folder(rows) / "dataset")["train"]["soft_label"]) == [0.75, 0.5, 1.0]


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
        ({"strength": "much"}, "`strength` is 'much', it must be a finite number"),
        ({"chosen_first": 2}, "`chosen_first` is 2, it must lie between 0 and 1"),
        ({"iteration": 1.5}, "`iteration` is 1.5, it must be a whole number"),
        ({"tags": "maths"}, "`tags` is 'maths', it must be a list of texts"),
        ({"votes": [{"annotator": "a1", "choice": "first"}]}, "`votes` must be a list of objects with a `choice`"),
        ({"people": {"chosen": 2}}, "it must count chosen, rejected and tie"),
        ({"soft_label": 1.5}, "must lie between 0 and 1"),
        ({"soft_label": "often"}, "must be a finite number"),
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


SUPERVISED = {"messages": user("Hi") + assistant("Yes"), "source": "best", "group_id": "g"}
UNPAIRED = {"prompt": user("Hi"), "completion": assistant("Yes"), "label": True, "source": "completion"}


def test_a_text_to_imitate_is_the_last_message(run_folder: RunFolder) -> None:
    row = {"messages": user("Hi") + assistant("Hello") + user("Who?") + assistant("Me"), "model": "tiny@1"}
    dataset = load_supervised(run_folder([row], [SUPERVISED]) / "dataset")
    prompt = user("Hi") + assistant("Hello") + user("Who?")
    assert dataset["train"][0] == {
        "prompt": prompt, "completion": assistant("Me"), "source": "unknown", "licence": "unknown",
        "group_id": json.dumps(prompt),
    }  # fmt: skip
    assert (dataset["eval"][0]["source"], dataset["eval"][0]["group_id"]) == ("best", "g")


@pytest.mark.parametrize(
    ("load", "row", "complaint"),
    [
        (load_supervised, SUPERVISED | {"messages": user("Hi")}, "must end with a message of the assistant"),
        (load_supervised, SUPERVISED | {"messages": assistant("Hi")}, "must hold a prompt"),
        (load_supervised, SUPERVISED | {"messages": "Hi"}, "must be a list"),
        (load_supervised, SUPERVISED | {"source": 3}, "`source` is 3"),
        (load_unpaired, UNPAIRED | {"licence": ["CC0"]}, "`licence` is ['CC0']"),
        (load_unpaired, UNPAIRED | {"label": 1}, "`label` is 1, it must be true or false"),
        (load_unpaired, UNPAIRED | {"label": None}, "`label` is None"),
        (load_unpaired, UNPAIRED | {"completion": user("I")}, "must begin with a message of the assistant"),
        (load_unpaired, UNPAIRED | {"prompt": []}, "`prompt` must be a list"),
    ],
)
def test_malformed_texts_and_labels_are_named_by_file_and_line(run_folder: RunFolder, load, row, complaint) -> None:
    good = SUPERVISED if load is load_supervised else UNPAIRED
    with pytest.raises(DatasetError, match=r"train\.jsonl, line 2: ") as error:
        load(run_folder([good, row]) / "dataset")
    assert complaint in str(error.value)


def test_pairs_become_completions_by_how_often_they_were_the_better_one(run_folder: RunFolder) -> None:
    """Of three ranked completions the best, the worst, and one in the middle that has no label."""
    dataset = load_preferences(run_folder(planted_rows(range(2), completions=3)) / "dataset")["train"]
    rows, n_even = unpair(dataset)
    assert n_even == 2
    found = {(row["group_id"], completion_text(row["completion"]).count("Thank"), row["label"]) for row in rows}
    assert found == {("g0", 2, True), ("g0", 0, False), ("g1", 2, True), ("g1", 0, False)}
    assert len(rows) == 4


def test_ties_soft_labels_and_weights_of_nothing_in_unpairing(run_folder: RunFolder) -> None:
    tie = GOOD | {"tie": True, "prompt": user("A tie?")}
    leaning = GOOD | {"soft_label": 0.75, "prompt": user("Leaning?")}
    ignored = GOOD | {"weight": 0, "prompt": user("Ignored?")}
    rows, n_even = unpair(load_preferences(run_folder([tie, leaning, ignored]) / "dataset")["train"])
    assert (n_even, list(rows["label"])) == (2, [True, False])
    assert {row["prompt"][0]["content"] for row in rows} == {"Leaning?"}
