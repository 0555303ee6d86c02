"""Sampling: rows, resuming, empty completions."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.recipes.conftest import read_result, user, write_rows
from training.recipes._runlog import Stopped, read_events
from training.recipes.sample import SampleArguments, main
from training.sampling.backends import Generation, GenerationRequest
from training.sampling.scripted import ScriptedBackend


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder of five prompts."""
    rows = [{"prompt_id": f"p{index}", "prompt": user(f"Question {index}?")} for index in range(5)]
    write_rows(tmp_path / "dataset" / "prompts.jsonl", rows)
    return tmp_path


def arguments(folder: Path, model: Path, **changes: object) -> SampleArguments:
    """Three short completions of each prompt."""
    defaults = {"completions_per_prompt": 3, "max_new_tokens": 6, "batch_size": 4}
    return SampleArguments(run_dir=folder, model=str(model), **defaults | changes)


def read_rows(folder: Path) -> list[dict]:
    """`completions.jsonl`."""
    return [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]


def test_every_prompt_gets_its_completions_with_their_lineage(folder: Path, tiny_model: Path) -> None:
    main(arguments(folder, tiny_model))
    rows = read_rows(folder)
    assert {(row["prompt_id"], row["index"]) for row in rows} == {(f"p{p}", i) for p in range(5) for i in range(3)}
    for row in rows:
        assert set(row) == {"prompt_id", "index", "content", "sampling", "n_tokens", "finished"}
        assert set(row["sampling"]) == {"temperature", "top_p", "max_new_tokens", "seed"}
        assert row["content"] == row["content"].strip() != ""
        assert 1 <= row["n_tokens"] <= 6
    assert len({row["sampling"]["seed"] for row in rows}) == 15
    assert len({row["content"] for row in rows}) > 10
    result = read_result(folder)
    assert result["metrics"]["completions"] == 15
    assert result["empty"] == []
    assert [event for event in read_events(folder) if event["type"] == "progress"][-1]["done"] == 15


def test_an_interrupted_run_goes_on_where_it_was(folder: Path, tiny_model: Path) -> None:
    main(arguments(folder, tiny_model))
    whole = {(row["prompt_id"], row["index"]): row["content"] for row in read_rows(folder)}
    lines = (folder / "completions.jsonl").read_text().splitlines(keepends=True)
    (folder / "completions.jsonl").write_text("".join(lines[:7]) + lines[7][:20])  # killed while writing
    (folder / "result.json").unlink()
    main(arguments(folder, tiny_model))
    rows = read_rows(folder)
    assert len(rows) == 15
    assert {(row["prompt_id"], row["index"]): row["content"] for row in rows} == whole
    # Nothing is left to do the third time.
    main(arguments(folder, tiny_model))
    assert len(read_rows(folder)) == 15
    assert read_result(folder)["metrics"]["new_tokens"] == 0


def test_the_stop_file_ends_it_between_batches(folder: Path, tiny_model: Path) -> None:
    (folder / "stop").touch()
    with pytest.raises(Stopped):
        main(arguments(folder, tiny_model, batch_size=4))
    assert len(read_rows(folder)) == 4
    assert not (folder / "result.json").exists()


class Taciturn:
    """Says nothing to the first prompt, and to the second only when asked twice."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Generation]:
        for generation, request in zip(ScriptedBackend().generate(requests), requests, strict=True):
            self.asked.append(request.key)
            silent = "p0" in request.key or ("p1" in request.key and self.asked.count(request.key) == 1)
            yield Generation(request.key, "" if silent else generation.content, 0 if silent else 3, True)


def test_empty_completions_are_tried_again_and_then_reported(folder: Path, tiny_model: Path) -> None:
    main(arguments(folder, tiny_model, completions_per_prompt=1), Taciturn())
    assert {row["prompt_id"] for row in read_rows(folder)} == {"p1", "p2", "p3", "p4"}
    result = read_result(folder)
    assert result["empty"] == [{"prompt_id": "p0", "index": 0}]
    assert result["metrics"]["empty"] == 1
    assert any(event.get("state") == "empty_completions" for event in read_events(folder))
