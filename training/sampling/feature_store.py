"""Completions encoded once: a folder of vectors that every refit reads. Imports no torch, loads no pickle.

`encoder.json` says what the vectors are of. Each file in `shards/` holds `vectors` and the `keys` of their texts, under the
SHA-256 of its own content as its name, and is there whole or not at all: so whatever is killed, what is there is right.
One process writes at a time; others read meanwhile.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy
from safetensors import safe_open
from safetensors.numpy import load, save

from training.sampling.backends import Message
from training.sampling.embedding_cache import POOLINGS

FORMAT = "prefloop-features-1"
SMALL = 256  # vectors in a shard that is worth joining with others
MOST_SMALL = 16
LARGEST_FLOAT16 = 60_000.0


class FeaturesError(ValueError):
    """A store is not there, is of other features than were asked for, or is being written to."""


@dataclass(frozen=True)
class Encoding:
    """What a vector is of: a hidden layer of one base model, pooled over the completion's tokens."""

    base_model_hash: str
    layer: int
    pooling: str
    max_length: int


def text_key(prompt: Sequence[Message], completion: str) -> bytes:
    """What a store knows a text by: SHA-256 of prompt and completion."""
    messages = [[message["role"], message["content"]] for message in prompt]
    return hashlib.sha256(json.dumps([messages, completion]).encode()).digest()


class FeatureStore:
    """The vectors of one encoder."""

    def __init__(self, folder: Path) -> None:
        """Open one that `create` made. Raises FeaturesError."""
        self.folder, self.shards = folder, folder / "shards"
        try:
            facts = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise FeaturesError(f"{folder} holds no encoded completions: encode them first, or leave `features` out") from None
        if facts.pop("format", None) != FORMAT or facts.get("pooling") not in POOLINGS:
            raise FeaturesError(f"{folder / 'encoder.json'} is not of the format {FORMAT}")
        self.encoding = Encoding(**facts)

    @classmethod
    def create(cls, folder: Path, encoding: Encoding) -> "FeatureStore":
        """The store of this encoding in `folder`, made if it isn't there. Raises FeaturesError where it is of another."""
        (folder / "shards").mkdir(parents=True, exist_ok=True)
        if not (folder / "encoder.json").exists():
            _write(folder / "encoder.json", json.dumps({"format": FORMAT, **asdict(encoding)}, indent=2).encode())
        store = cls(folder)
        store.check(encoding)
        return store

    def check(self, wanted: Encoding) -> None:
        """Raise FeaturesError, naming what differs, unless the vectors are of `wanted`."""
        for name, value in asdict(wanted).items():
            if (there := getattr(self.encoding, name)) != value:
                raise FeaturesError(
                    f"The encoded completions in {self.folder} are of {name} {there}, but {name} {value} was asked for: "
                    "leave `features` out, or ask for what is there"
                )

    def keys(self) -> set[bytes]:
        """Of every text that is there."""
        return {key for _path, keys in self._listed() for key in keys}

    def get(self, keys: Collection[bytes]) -> dict[bytes, numpy.ndarray]:
        """The vectors that are there, as float32."""
        wanted = set(keys)
        found: dict[bytes, numpy.ndarray] = {}
        for path, there in self._listed():
            rows = [row for row, key in enumerate(there) if key in wanted and key not in found]
            if rows:
                try:
                    vectors = load(path.read_bytes())["vectors"][rows].astype(numpy.float32)
                except FileNotFoundError:  # joined with others meanwhile
                    continue
                found.update(zip([there[row] for row in rows], vectors, strict=True))
        return found

    def n_bytes(self) -> int:
        """On disk."""
        return sum(path.stat().st_size for path in self.shards.glob("*.safetensors"))

    @contextmanager
    def writing(self, wait_seconds: float = 0) -> Iterator[None]:
        """Be the only writer; the lock goes with the process. Raises FeaturesError if another one writes that long."""
        until = time.monotonic() + wait_seconds
        with open(self.folder / "lock", "ab") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= until:
                        raise FeaturesError(f"Another process is writing into {self.folder}: wait until it has ended") from None
                time.sleep(0.1)
            for path in self.shards.glob(".*.tmp"):
                path.unlink()  # of a writer that was killed
            yield

    def add(self, vectors: dict[bytes, numpy.ndarray]) -> Path | None:
        """Write one shard, whole or not at all; returns its file. As float16, unless a value is too large for it."""
        if not vectors:
            return None
        matrix = numpy.stack(list(vectors.values())).astype(numpy.float32)
        if abs(matrix).max() < LARGEST_FLOAT16:
            matrix = matrix.astype(numpy.float16)
        keys = numpy.frombuffer(b"".join(vectors), dtype=numpy.uint8).reshape(len(vectors), -1)
        content = save({"keys": keys, "vectors": numpy.ascontiguousarray(matrix)})
        path = self.shards / f"{hashlib.sha256(content).hexdigest()}.safetensors"
        _write(path, content)
        return path

    def forget(self, keys: Collection[bytes]) -> int:
        """Delete vectors from the files; returns how many were there."""
        gone, count = set(keys), 0
        for path, there in list(self._listed()):
            if n := sum(key in gone for key in there):
                count += n
                self._replace([path], gone)
        return count

    def join_small(self) -> None:
        """Make one shard of many small ones, which come of completions that arrive a few at a time."""
        small = [path for path, keys in self._listed() if len(keys) < SMALL]
        if len(small) > MOST_SMALL:
            self._replace(small, set())

    def damaged(self) -> list[str]:
        """Names of shards whose content is not what it was."""
        return [
            path.name for path in sorted(self.shards.glob("*.safetensors"))
            if hashlib.sha256(path.read_bytes()).hexdigest() != path.stem
        ]  # fmt: skip

    def _replace(self, paths: list[Path], without: set[bytes]) -> None:
        kept: dict[bytes, numpy.ndarray] = {}
        for path in paths:
            tensors = load(path.read_bytes())
            for key, vector in zip(_keys(tensors["keys"]), tensors["vectors"], strict=True):
                if key not in without:
                    kept[key] = vector
        written = self.add(kept)  # first: a kill between the two leaves them twice, which is no matter
        for path in paths:
            if path != written:
                path.unlink()

    def _listed(self) -> Iterator[tuple[Path, list[bytes]]]:
        """Each shard with its keys. One that was joined with others meanwhile is read in its new place."""
        seen: set[Path] = set()
        while waiting := sorted(set(self.shards.glob("*.safetensors")) - seen):
            for path in waiting:
                seen.add(path)
                try:
                    with safe_open(path, framework="numpy") as file:
                        keys = _keys(file.get_tensor("keys"))
                except FileNotFoundError:
                    continue
                yield path, keys


def _keys(array: numpy.ndarray) -> list[bytes]:
    return [row.tobytes() for row in array]


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, even when the power goes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
