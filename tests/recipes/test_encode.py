"""Completions are encoded once: arrival by arrival, through a kill, and a refit that needs no model."""

import json
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from tests.recipes.conftest import RunFolder, planted_rows, read_result, user, write_rows
from training.recipes._encoding import texts_of
from training.recipes._eventlog import Stopped, read_events
from training.recipes._rows import DatasetError, Table, completion_text
from training.recipes.encode import EncodeArguments, main
from training.recipes.reward_head import RewardHeadArguments
from training.recipes.reward_head import main as fit
from training.sampling.embeddings import Embedder
from training.sampling.feature_store import FeaturesError, FeatureStore, text_key
from training.sampling.reward_head import RewardHead

ROOT = Path(__file__).resolve().parents[2]


def completions(pairs: list[dict]) -> list[dict]:
    sides = {(repr(row["prompt"]), completion_text(row[side])): row["prompt"] for row in pairs for side in ("chosen", "rejected")}
    return [
        {"completion_id": str(number), "prompt": prompt, "completion": text}
        for number, ((_, text), prompt) in enumerate(sides.items())
    ]


@pytest.fixture
def arrived(tmp_path: Path, tiny_model: Path):
    """Makes the arguments of a run that encodes rows."""

    def make(rows: list[dict], name: str, **options) -> EncodeArguments:
        folder = tmp_path / name
        write_rows(folder / "dataset" / "completions.jsonl", rows)
        options = {"layer": 2, "pooling": "mean", **options}
        return EncodeArguments(run_dir=folder, model=str(tiny_model), features=tmp_path / "features", **options)

    return make


def test_what_arrives_later_is_encoded_alone_and_is_what_the_model_says(arrived, tiny_model: Path) -> None:
    rows = completions(planted_rows(range(8)))
    first, second = arrived(rows[:10], "first", shard_size=4), arrived(rows, "second")
    main(first)
    main(second)
    metrics = read_result(second.run_dir)["metrics"]
    assert (metrics["n_there"], metrics["n_encoded"]) == (10, len(rows) - 10)
    assert metrics["n_tokens"] > 0 and metrics["store_bytes"] > 0
    store = FeatureStore(second.features)
    direct = Embedder(str(tiny_model), layer=2, pooling="mean").encode([(row["prompt"], row["completion"]) for row in rows])
    stored = store.get([text_key(row["prompt"], row["completion"]) for row in rows])
    for row, vector in zip(rows, direct, strict=True):
        assert stored[text_key(row["prompt"], row["completion"])] == pytest.approx(vector, rel=2e-3, abs=2e-3)
    third = arrived(rows, "third")
    main(third)
    assert read_result(third.run_dir)["metrics"]["n_encoded"] == 0


def test_a_refit_on_encoded_completions_imports_no_torch_and_says_how_sure_it_is(
    run_folder: RunFolder, arrived, tiny_model: Path
) -> None:
    train, held_out = planted_rows(range(40), noise=0.2), planted_rows(range(40, 80), noise=0.2)
    encoding = arrived(completions(train + held_out), "encoding")
    main(encoding)
    folder = run_folder(train, held_out)
    (folder / "spec.yaml").write_text(f"model: {tiny_model}\nfeatures: {encoding.features}\nridge_by: cv\n")
    code = (
        "import sys; from training.recipes import reward_head as recipe; from training.recipes._arguments import parse_plain\n"
        "code = recipe.launch('reward_head', recipe.main, (recipe.RewardHeadArguments,), parse=parse_plain)\n"
        "sys.exit(code or [name for name in ('torch', 'transformers', 'datasets') if name in sys.modules] or None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--config", str(folder / "spec.yaml"), "--run_dir", str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result = read_result(folder)
    assert (result["n_encoded"], result["n_from_features"]) == (0, result["n_texts"])
    assert result["base_model"]["layer"] == 2
    assert json.loads((folder / "model" / "reward_head.json").read_text())["pooling"] == "mean"
    assert [row["verdict"] for row in result["uncertainty"]["verdicts"]] == ["knows", "leans", "does_not_know"]
    assert result["uncertainty"]["n"] == 120 and result["figures"]["coverage_90"]["n"] == 4
    assert result["uncertainty"]["widening"] >= 1

    # The head itself says how sure it is, and of a completion against itself nothing.
    head = RewardHead.load(folder / "model")
    vectors = FeatureStore(encoding.features).get([text_key(prompt, text) for prompt, text in texts_of({"eval": Table(held_out)}).by_key.values()])
    first, second = numpy.stack(list(vectors.values())[:4]), numpy.stack(list(vectors.values())[4:8])
    probability, low, high = head.certainty(first, second)
    assert ((low < probability) & (probability < high)).all()
    assert [part.tolist() for part in head.certainty(first, first)] == [[0.5] * 4] * 3

    # Without the store the same comes out: the vectors are rounded to half precision, no more.
    direct = run_folder(train, held_out, name="direct")
    fit(RewardHeadArguments(run_dir=direct, model=str(tiny_model), layer=2, ridge_by="cv"))
    other = read_result(direct)
    assert other["n_encoded"] == result["n_texts"]
    assert result["figures"]["accuracy"]["value"] == pytest.approx(other["figures"]["accuracy"]["value"], abs=0.03)


def test_of_features_that_lack_some_only_these_are_encoded_and_of_others_nothing_is_taken(
    run_folder: RunFolder, arrived, tiny_model: Path
) -> None:
    train, held_out = planted_rows(range(6)), planted_rows(range(6, 9))
    encoding = arrived(completions(train), "encoding")
    main(encoding)
    folder = run_folder(train, held_out)
    fit(RewardHeadArguments(run_dir=folder, model=str(tiny_model), features=encoding.features))
    result = read_result(folder)
    assert result["n_from_features"] == len(completions(train)) and result["n_encoded"] == len(completions(held_out))
    wrong = run_folder(train, held_out, name="wrong")
    with pytest.raises(FeaturesError, match="pooling mean, but pooling last was asked for"):
        fit(RewardHeadArguments(run_dir=wrong, model=str(tiny_model), features=encoding.features, pooling="last"))


def test_asked_to_stop_it_stops_between_shards_and_bad_rows_are_named(arrived) -> None:
    args = arrived(completions(planted_rows(range(3))), "run")
    (args.run_dir / "stop").touch()
    with pytest.raises(Stopped):
        main(args)
    assert [event["state"] for event in read_events(args.run_dir) if event["type"] == "status"][-1] == "encoding"
    with pytest.raises(DatasetError, match=r"completions.jsonl, line 1: `completion` is missing"):
        main(arrived([{"prompt": user("Hi")}], "bad"))


def test_each_text_is_one_row_though_it_is_in_several_pairs() -> None:
    rows = planted_rows(range(2))
    texts = texts_of({"train": Table(rows)})
    assert len(texts.by_key) == len(completions(rows)) == len(texts.rows_of("train"))
    chosen = [list(texts.by_key.values())[row][1] for row in texts.sides["train", "chosen"]]
    assert chosen == [completion_text(row["chosen"]) for row in rows]
    assert numpy.unique(texts.sides["train", "chosen"]).size < len(rows)
