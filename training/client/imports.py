"""Rows on their way in: sent, followed, stopped and gone on with."""

import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from os import SEEK_END, PathLike
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any, cast

from training.client._connection import JSON, Connection, part
from training.client.errors import JobFailed
from training.client.types import Import, Preview

CHUNK_BYTES = 1 << 16
SPOOL_BYTES = 1 << 23
# What a server may take to work a file off before it answers.
LONGEST_ANSWER_SECONDS = 3600.0
FINAL_IMPORT_STATES = frozenset({"done", "failed", "cancelled"})

Report = Callable[[int, int], None]


class ImportCalls(Connection):
    def import_rows(
        self, slug: str, format: str, rows_or_path: Iterable[Mapping[str, Any]] | str | PathLike[str]
    ) -> JSON:
        """Send rows, or a file of JSON lines, in constant memory. Returns counts of rows taken, known and refused.

        The same rows again add nothing, so a broken import is simply sent again.
        """
        with ExitStack() as stack:
            if isinstance(rows_or_path, str | PathLike):
                file: IO[bytes] = stack.enter_context(open(rows_or_path, "rb"))
            else:
                # Not every server takes a body of unknown length, so the rows wait here, on disk if they are many.
                file = stack.enter_context(SpooledTemporaryFile(SPOOL_BYTES))
                file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows_or_path)
            n_bytes = file.seek(0, SEEK_END)

            def body() -> dict[str, Any]:
                file.seek(0)
                return {"content": iter(lambda: file.read(CHUNK_BYTES), b"")}

            return self._call(
                "POST",
                f"projects/{part(slug)}/imports/",
                params={"format": format},
                body=body,
                headers={"Content-Type": "application/x-ndjson", "Content-Length": str(n_bytes)},
                repeatable=True,
                answer_seconds=LONGEST_ANSWER_SECONDS,
            )

    def start_import(
        self,
        slug: str,
        path: str | PathLike[str],
        *,
        format: str = "",
        mapping: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        source: str = "",
        licence: str = "",
        tags: Iterable[str] = (),
        report: Report = lambda sent, total: None,
    ) -> Import:
        """Send a file of any kind that the site reads, and return the import, which goes on in the background.

        Without `format` the site recognises it by the first rows. `report` gets the bytes sent and in all. A broken
        upload is sent again from its beginning; rows that were taken before add nothing.
        """
        chosen = {"format": format, "source": source, "licence": licence, "tags": ",".join(tags)}
        params = {name: value for name, value in chosen.items() if value} | {"background": "1"}
        return cast(Import, self._send_file(f"projects/{part(slug)}/imports/", path, params, mapping, options, report))

    def preview_import(
        self,
        slug: str,
        path: str | PathLike[str],
        *,
        format: str = "",
        mapping: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        report: Report = lambda sent, total: None,
    ) -> Preview:
        """What the first rows of a file would become. Nothing is taken in."""
        params = {"format": format} if format else {}
        address = f"projects/{part(slug)}/imports/preview/"
        return cast(Preview, self._send_file(address, path, params, mapping, options, report))

    def import_file(
        self, slug: str, path: str | PathLike[str], *, follow: Callable[[Import], None] = lambda record: None, **choices: Any
    ) -> Import:
        """`start_import` with its `choices`, and wait for the end. `follow` gets each state on the way.

        Raises JobFailed where it failed or was cancelled; what was taken until then stays.
        """
        started = self.start_import(slug, path, **choices)
        for record in self.follow_import(started["id"]):
            follow(record)
        if record["state"] != "done":
            raise JobFailed(f"Import {record['id']} {record['state']}: {record['problem'] or 'no reason given'}")
        return record

    def imports(self, slug: str) -> Iterator[Import]:
        return self._pages(f"projects/{part(slug)}/imports/")

    def get_import(self, import_id: str) -> Import:
        return self._call("GET", f"imports/{part(import_id)}/")

    def follow_import(self, import_id: str, poll_seconds: float = 0.5) -> Iterator[Import]:
        """Yield the import as it is, again and again, until it has ended."""
        while True:
            record = self.get_import(import_id)
            yield record
            if record["state"] in FINAL_IMPORT_STATES:
                return
            time.sleep(poll_seconds)

    def cancel_import(self, import_id: str) -> Import:
        return self._call("POST", f"imports/{part(import_id)}/cancel/")

    def resume_import(self, import_id: str) -> Import:
        """Have one that failed or was cancelled go on after the last row it took."""
        return self._call("POST", f"imports/{part(import_id)}/resume/")

    def rejected_rows(self, import_id: str) -> Iterator[JSON]:
        """Every row that was refused: `line`, `reason`, `row`."""
        with self._stream(f"imports/{part(import_id)}/rejected.jsonl", {}, {}) as response:
            for line in response.iter_lines():
                yield json.loads(line)

    def _send_file(
        self,
        address: str,
        path: str | PathLike[str],
        params: Mapping[str, str],
        mapping: Mapping[str, str] | None,
        options: Mapping[str, str] | None,
        report: Report,
    ) -> Any:
        data = {name: json.dumps(dict(given)) for name, given in (("mapping", mapping), ("options", options)) if given}
        with CountedFile(path, report) as file:
            return self._call(
                "POST",
                address,
                params=params,
                body=lambda: {"files": {"file": (Path(path).name, file, "application/octet-stream")}, "data": data},
                repeatable=True,
                answer_seconds=LONGEST_ANSWER_SECONDS,
            )


class CountedFile(io.BufferedReader):
    """A file that says how far it has been read."""

    def __init__(self, path: str | PathLike[str], report: Report) -> None:
        super().__init__(io.FileIO(path, "rb"))
        self.n_bytes = self.seek(0, SEEK_END)
        self.seek(0)
        self.report = report

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        self.report(self.tell(), self.n_bytes)
        return found
