"""A cache of embeddings on disk. Imports no torch: what is in it needs no model."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy

from training.sampling.backends import Message
from training.sampling.model_files import hash_model

POOLINGS = ("mean", "last")

Text = tuple[Sequence[Message], str]  # a prompt and one completion of it


class EmbeddingCache:
    """Vectors by key in one SQLite file; what is stored survives a kill at any moment."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        with self._open() as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("CREATE TABLE IF NOT EXISTS embeddings (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")
            database.execute("CREATE TABLE IF NOT EXISTS models (path TEXT PRIMARY KEY, stamp TEXT, hash TEXT)")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self.path, timeout=60)
        try:
            with database:
                yield database
        finally:
            database.close()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, numpy.ndarray]:
        """The vectors that are there, as float32."""
        found = {}
        with self._open() as database:
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                rows = database.execute(f"SELECT key, vector FROM embeddings WHERE key IN ({marks})", part)
                found |= {key: numpy.frombuffer(vector, dtype="<f4") for key, vector in rows}
        return found

    def put(self, vectors: dict[bytes, numpy.ndarray]) -> None:
        """Store vectors; those already there are replaced."""
        rows = [(key, numpy.ascontiguousarray(vector, dtype="<f4").tobytes()) for key, vector in vectors.items()]
        with self._open() as database:
            database.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?)", rows)

    def hash_of(self, model: str) -> str:
        """`hash_model`, remembered until a file of the model changes its size or time."""
        folder = Path(model)
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        stamp = json.dumps([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])
        with self._open() as database:
            row = database.execute("SELECT stamp, hash FROM models WHERE path = ?", (model,)).fetchone()
            if row and row[0] == stamp:
                return row[1]
            digest = hash_model(model)
            database.execute("INSERT OR REPLACE INTO models VALUES (?, ?, ?)", (model, stamp, digest))
        return digest
