"""A tiny model and run folders of planted preferences; one torch thread."""

import itertools
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
import pytest
import torch
from transformers import AutoTokenizer

from training.sampling.tiny_model import build_tiny_model

torch.set_num_threads(1)

RunFolder = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random chat model of some 100,000 weights."""
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def foreign_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights with a tokenizer of one token more: its distributions are over something else."""
    folder = tmp_path_factory.mktemp("models") / "foreign"
    shutil.copytree(tiny_model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<|extra|>"])
    tokenizer.save_pretrained(folder)
    return folder


def user(text: str) -> list[dict[str, str]]:
    """A prompt of one message."""
    return [{"role": "user", "content": text}]


def assistant(text: str) -> list[dict[str, str]]:
    """A completion as TRL writes it."""
    return [{"role": "assistant", "content": text}]


def planted_rows(groups: range, *, completions: int = 3, noise: float = 0.0, seed: int = 0) -> list[dict]:
    """Pairs of rankings in which more thanks are better; a share `noise` of the pairs is turned round."""
    chance = random.Random(f"{seed} {groups}")
    rows = []
    for group in groups:
        texts = [f"{'Thank you! ' * rank}Open page {chance.randrange(99)}." for rank in range(completions)]
        for worse, better in itertools.combinations(texts, 2):
            chosen, rejected = (worse, better) if chance.random() < noise else (better, worse)
            rows.append(
                {
                    "prompt": user(f"How do I reset number {group}?"),
                    "chosen": assistant(chosen),
                    "rejected": assistant(rejected),
                    "margin": None,
                    "weight": 2 / (completions * (completions - 1)),
                    "group_id": f"g{group}",
                    "tie": False,
                }
            )
    return rows


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def run_folder(tmp_path: Path) -> RunFolder:
    """Makes a run folder out of rows."""

    def make(train: list[dict] | None = None, evaluation: list[dict] | None = None, name: str = "run") -> Path:
        folder = tmp_path / name
        write_rows(folder / "dataset" / "train.jsonl", planted_rows(range(8)) if train is None else train)
        write_rows(folder / "dataset" / "eval.jsonl", planted_rows(range(8, 12)) if evaluation is None else evaluation)
        (folder / "dataset" / "manifest.json").write_text('{"hash": "0123"}')
        return folder

    return make


def read_result(folder: Path) -> dict:
    """`result.json` of a run."""
    return json.loads((folder / "result.json").read_text())
