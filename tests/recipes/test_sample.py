"""Sampling: rows, resuming, empty completions."""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.recipes.conftest import read_result, user, write_rows
from tests.training.sampling.openai_server import MODEL, Running, completion_of, running_server
from tests.waiting import wait_until
from training.recipes._runlog import Stopped, read_events
from training.recipes.sample import SampleArguments, main, read_completions
from training.sampling.backends import Generation, GenerationRequest
from training.sampling.openai_compatible import EndpointError
from training.sampling.scripted import ScriptedBackend

ROOT = Path(__file__).resolve().parents[2]


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


# --- from a server --------------------------------------------------------------------------------
KEY = "sk-very-secret-key"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with running_server(tmp_path / "requests.jsonl", key=KEY) as running:
        yield running


def from_server(folder: Path, server: Running, monkeypatch: pytest.MonkeyPatch, **changes: object) -> SampleArguments:
    monkeypatch.setenv("PREFLOOP_ENDPOINT_KEY", KEY)
    named = {"endpoint": server.url, "endpoint_name": "gpu1", "served_model": MODEL, "revision": "abc", "concurrency": 4}
    return arguments(folder, Path("big@1"), **named | changes)


def test_completions_come_from_a_server_with_their_lineage(
    folder: Path, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(from_server(folder, server, monkeypatch, prompt_price=1.0, new_price=2.0))
    rows = read_rows(folder)
    assert len(rows) == 15
    for row in rows:
        number = row["prompt_id"].removeprefix("p")
        assert row["content"] == completion_of(f"Question {number}?", row["sampling"]["seed"], 6)
        assert {name: row["sampling"][name] for name in ("endpoint", "served_model", "revision", "answered_by")} == {
            "endpoint": "gpu1", "served_model": MODEL, "revision": "abc", "answered_by": MODEL,
        }  # fmt: skip
    asked = Counter(line["body"]["seed"] for line in server.seen())
    assert asked == Counter(row["sampling"]["seed"] for row in rows) and set(asked.values()) == {1}
    result = read_result(folder)
    metrics = result["metrics"]
    assert (metrics["requests"], metrics["used_prompt_tokens"], metrics["used_new_tokens"]) == (15, 75, 90)
    assert metrics["cost"] == pytest.approx((75 + 180) / 1e6)
    assert (metrics["refused"], metrics["not_sampled"]) == (0, 0)
    assert result["base_model"]["served_model"] == MODEL
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "requests.jsonl":  # that one is the server's
            assert KEY.encode() not in path.read_bytes(), path
    assert KEY not in os.environ.values()


def test_a_killed_run_asks_only_for_what_is_missing_and_ends_as_an_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [{"prompt_id": f"p{index}", "prompt": user(f"Question {index}?")} for index in range(40)]
    for name in ("killed", "whole"):
        write_rows(tmp_path / name / "dataset" / "prompts.jsonl", prompts)
    killed = tmp_path / "killed"
    with running_server(tmp_path / "holding.jsonl", key=KEY, hold_after=5) as holding:
        given = [f"--{name}={value}" for name, value in {
            "run_dir": killed, "model": "big@1", "endpoint": holding.url, "served_model": MODEL, "concurrency": 2,
            "max_new_tokens": 6, "completions_per_prompt": 1,
        }.items()]  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-m", "training.recipes.sample", *given], cwd=ROOT, env={**os.environ, "PREFLOOP_ENDPOINT_KEY": KEY}
        )
        path = killed / "completions.jsonl"
        wait_until(lambda: path.exists() and len(path.read_bytes().splitlines()) == 5 and len(holding.seen()) == 7)
        process.kill()
        process.wait()
    assert len(read_completions(path)) == 5
    with running_server(tmp_path / "later.jsonl", key=KEY) as server:
        changes = {"completions_per_prompt": 1, "endpoint_name": ""}
        main(from_server(killed, server, monkeypatch, **changes))
        again = len(server.seen())
        main(from_server(tmp_path / "whole", server, monkeypatch, **changes))
    assert again == 35
    texts = [sorted((row["prompt_id"], row["content"]) for row in read_rows(tmp_path / name)) for name in ("killed", "whole")]
    assert texts[0] == texts[1] and len(texts[0]) == 40
    metrics = read_result(killed)["metrics"]
    # What was under way at the kill is counted, with the most it can have used.
    assert (metrics["requests"], metrics["requests_lost"]) == (42, 2)


def test_refused_prompts_and_a_budget_are_reported_and_what_there_is_is_kept(
    folder: Path, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt_id": "long", "prompt": user("Long !context=x")}]
    rows += [{"prompt_id": f"p{index}", "prompt": user(f"Question {index}?")} for index in range(9)]
    write_rows(folder / "dataset" / "prompts.jsonl", rows)
    main(from_server(folder, server, monkeypatch, completions_per_prompt=1, concurrency=1, token_budget=160))
    result = read_result(folder)
    assert [row["prompt_id"] for row in result["refused"]] == ["long"]
    assert "context length exceeded" in result["refused"][0]["problem"]
    metrics = result["metrics"]
    assert metrics["used_prompt_tokens"] + metrics["used_new_tokens"] <= 160
    assert metrics["completions"] >= 5
    assert metrics["completions"] + metrics["refused"] + metrics["not_sampled"] == 10 and metrics["not_sampled"] >= 1
    told = [event for event in read_events(folder) if event.get("state") == "budget_reached"]
    assert len(told) == 1 and "no room for one more request" in told[0]["message"]


def test_a_server_that_fails_leaves_what_was_sampled_and_its_words(
    folder: Path, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt_id": "a", "prompt": user("Fine")}, {"prompt_id": "b", "prompt": user("Then !bad=9")}]
    write_rows(folder / "dataset" / "prompts.jsonl", rows)
    with pytest.raises(EndpointError, match="temperature must be at most 2"):
        main(from_server(folder, server, monkeypatch, completions_per_prompt=1, concurrency=1))
    assert [row["prompt_id"] for row in read_rows(folder)] == ["a"]
    assert not (folder / "result.json").exists()


def test_a_budget_without_prices_is_refused_before_anything_is_sampled(folder: Path) -> None:
    with pytest.raises(ValueError, match="no prices to count with"):
        arguments(folder, Path("x"), endpoint="http://x/v1", served_model="m", budget=1.0)
    with pytest.raises(ValueError, match="give endpoint"):
        arguments(folder, Path("x"), token_budget=5)


def test_the_stop_file_lets_what_is_under_way_at_a_server_come_in(
    folder: Path, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_after_a_few() -> None:
        wait_until(lambda: len(server.seen()) >= 5)
        (folder / "stop").touch()

    stopping = threading.Thread(target=stop_after_a_few)
    stopping.start()
    with pytest.raises(Stopped):
        main(from_server(folder, server, monkeypatch, completions_per_prompt=1000))
    stopping.join()
    # Every answer that was asked for is there.
    assert 5 <= len(read_rows(folder)) == len(server.seen()) < 5000
    assert not (folder / "result.json").exists()
