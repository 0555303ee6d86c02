"""Models from elsewhere: sent as an archive, or named as a folder of the server, and followed in."""

import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from training.client._connection import JSON, Connection, part
from training.client.errors import JobFailed
from training.client.imports import FINAL_IMPORT_STATES, LONGEST_ANSWER_SECONDS, CountedFile, Report

# What is packed of a folder; pickled weights and code beside them are refused by the site, so they stay here.
PACKED_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja")


class ModelImportCalls(Connection):
    def start_model_import(
        self, slug: str, path: str | PathLike[str] | None = None, *, report: Report = lambda sent, total: None, **fields: Any
    ) -> JSON:
        """Have a model or adapter taken in, and return the import, which goes on in the background.

        `path` is a tar, tar.gz or zip here, or a folder, which is packed on the disk first. Without it the `fields` name a
        `folder` of the server that its operator allows. They are also name, kind, licence, base, source, plain_template
        and the terms. `report` gets the bytes sent and in all. A broken upload is not sent again by itself.
        """
        if path is None:
            return self._call("POST", f"projects/{part(slug)}/models/import/", json=fields)
        with ExitStack() as stack:
            archive = Path(path)
            if archive.is_dir():
                archive = _packed(archive, Path(stack.enter_context(TemporaryDirectory())))
            file = stack.enter_context(CountedFile(archive, report))
            return self._call(
                "POST",
                f"projects/{part(slug)}/models/upload/",
                params={name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in fields.items()},
                body=lambda: {"files": {"file": (archive.name, file, "application/octet-stream")}},
                answer_seconds=LONGEST_ANSWER_SECONDS,
            )

    def import_model(
        self,
        slug: str,
        path: str | PathLike[str] | None = None,
        *,
        follow: Callable[[JSON], None] = lambda job: None,
        **fields: Any,
    ) -> JSON:
        """`start_model_import`, and wait for the end; returns the model. `follow` gets each state of the import on the way.

        Raises JobFailed where it was refused, with what is wrong with the files, or was cancelled. Nothing stays then.
        """
        started = self.start_model_import(slug, path, **fields)
        for job in self.follow_model_import(started["id"]):
            follow(job)
        if job["state"] != "done":
            raise JobFailed(f"Import {job['id']} of a model {job['state']}: {job['problem'] or 'no reason given'}")
        return self._call("GET", f"models/{part(job['model']['id'])}/")

    def model_imports(self, slug: str) -> Iterator[JSON]:
        return self._pages(f"projects/{part(slug)}/model-imports/")

    def model_import(self, import_id: str) -> JSON:
        return self._call("GET", f"model-imports/{part(import_id)}/")

    def follow_model_import(self, import_id: str, poll_seconds: float = 0.5) -> Iterator[JSON]:
        """Yield the import as it is, again and again, until it has ended."""
        while True:
            job = self.model_import(import_id)
            yield job
            if job["state"] in FINAL_IMPORT_STATES:
                return
            time.sleep(poll_seconds)

    def cancel_model_import(self, import_id: str) -> JSON:
        return self._call("POST", f"model-imports/{part(import_id)}/cancel/")


def _packed(folder: Path, into: Path) -> Path:
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in PACKED_SUFFIXES)
    if not any(path.suffix == ".safetensors" for path in files):
        raise FileNotFoundError(f"{folder} holds no .safetensors")
    target = into / f"{folder.resolve().name}.tar"
    with tarfile.open(target, "w", dereference=True) as tar:  # files of a cache are links
        for path in files:
            tar.add(path, path.name, recursive=False)
    return target
