"""Which layer and pooling predicts preferences best."""

from pathlib import Path

import numpy
import pytest

from tests.recipes.conftest import RunFolder, planted_rows, read_result, user
from training.recipes._rows import Table
from training.recipes.layers import LayersArguments, draw_groups, main, pick
from training.sampling.all_layers import AllLayers
from training.sampling.embeddings import Embedder


def test_every_layer_is_measured_in_one_pass_by_folds_that_have_not_seen_the_prompt(
    run_folder: RunFolder, tiny_model: Path
) -> None:
    folder = run_folder(planted_rows(range(40)), [])
    main(LayersArguments(run_dir=folder, model=str(tiny_model), max_pairs=90))
    result = read_result(folder)
    assert [(row["layer"], row["pooling"]) for row in result["layers"]] == [(1, "mean"), (1, "last"), (2, "mean"), (2, "last")]
    for row in result["layers"]:
        assert row["accuracy"]["n"] == 90 and row["accuracy"]["n_groups"] == 30
        assert row["accuracy"]["low"] < row["accuracy"]["value"]
    assert result["picked"] in [{"layer": row["layer"], "pooling": row["pooling"]} for row in result["layers"]]
    # More thanks are better, which the mean over the tokens says plainly.
    assert max(row["accuracy"]["value"] for row in result["layers"] if row["pooling"] == "mean") > 0.9
    # What was encoded is there for a run that is resumed: nothing goes through the model again.
    (folder / "result.json").unlink()
    before = sorted(path.stat().st_mtime_ns for path in (folder / "cache" / "layers" / "shards").iterdir())
    main(LayersArguments(run_dir=folder, model=str(tiny_model), max_pairs=90))
    assert sorted(path.stat().st_mtime_ns for path in (folder / "cache" / "layers" / "shards").iterdir()) == before
    assert read_result(folder)["picked"] == result["picked"]


def test_the_vectors_are_those_of_one_layer_at_a_time(tiny_model: Path) -> None:
    texts = [(user("Hi"), "Yes."), (user("How are you?"), "Quite well, thank you for asking.")]
    layers = AllLayers(str(tiny_model), max_length=64, batch_size=2, model_hash="x")
    vectors = layers.encode(texts).reshape(2, layers.n_layers, 2, -1)
    for layer in (1, 2):
        for place, pooling in enumerate(("mean", "last")):
            one = Embedder(str(tiny_model), layer=layer, pooling=pooling, max_length=64).encode(texts)
            assert vectors[:, layer - 1, place] == pytest.approx(one, abs=1e-4)


def test_the_lowest_layer_within_one_standard_error_is_picked() -> None:
    measured = [{"layer": layer, "pooling": pooling} for layer in (1, 2, 3) for pooling in ("mean", "last")]
    n = 400
    best = (numpy.arange(n) % 4 > 0).astype(float)  # 0.75
    near, far = best.copy(), best.copy()
    near[[1, 2]] = 0  # two of 400 lost, one won: within one standard error
    near[0] = 1
    far[1::4] = 0
    groups = list(range(n))
    picked, top, lost = pick(measured, [far, far, far, near, best, best], groups)
    assert (measured[picked], measured[top]) == ({"layer": 2, "pooling": "last"}, {"layer": 3, "pooling": "mean"})
    assert lost["value"] == pytest.approx(1 / 400)
    picked, top, lost = pick(measured, [best, best, best, best, best, best], groups)
    assert picked == top == 0 and lost["value"] == 0


def test_whole_groups_are_drawn_and_pairs_of_no_weight_left_out() -> None:
    rows = planted_rows(range(20))
    rows[0]["weight"] = 0
    drawn = draw_groups(Table(rows), 12, seed=0)
    assert len(drawn) <= 12 and all(weight > 0 for weight in drawn["weight"])
    counts = {group: drawn["group_id"].count(group) for group in drawn["group_id"]}
    assert set(counts.values()) <= {3, 2}
    assert draw_groups(Table(rows), 12, seed=0).to_list() == drawn.to_list()


def test_too_few_prompts_are_refused_with_what_to_do(run_folder: RunFolder, tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="judge more prompts, or lower folds"):
        main(LayersArguments(run_dir=run_folder(planted_rows(range(3)), []), model=str(tiny_model)))
