"""Snapshots: frozen, counted beforehand, compared, described, downloaded, and as `datasets`."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from training.client._connection import JSON, Connection, part
from training.client._download import Download
from training.client._optional import needed
from training.client.errors import JobFailed
from training.client.types import Freeze, Snapshot

Kind = Literal["jsonl", "jsonl.gz", "parquet", "csv", "csv.gz", "json", "settings.json", "config.xml"]
FINAL_FREEZE_STATES = frozenset({"done", "failed"})
# Freezing in the foreground answers when all is written.
LONGEST_ANSWER_SECONDS = 3600.0


class SnapshotCalls(Connection):
    def snapshots(self, slug: str) -> Iterator[Snapshot]:
        return self._pages(f"projects/{part(slug)}/snapshots/")

    def create_snapshot(self, slug: str, **fields: Any) -> Snapshot:
        """Freeze, and wait for the answer; `fields` are name, filters and policy. The same rows are the same snapshot."""
        # Safe to repeat: the same judgements make the same snapshot.
        return self._call(
            "POST", f"projects/{part(slug)}/snapshots/", json=fields, repeatable=True, answer_seconds=LONGEST_ANSWER_SECONDS
        )

    def start_freeze(self, slug: str, **fields: Any) -> Freeze:
        """Freeze in the background; `fields` as for `create_snapshot`."""
        return self._call(
            "POST", f"projects/{part(slug)}/snapshots/", params={"background": "1"}, json=fields, repeatable=True
        )

    def get_freeze(self, freeze_id: str) -> Freeze:
        return self._call("GET", f"freezes/{part(freeze_id)}/")

    def follow_freeze(self, freeze_id: str, poll_seconds: float = 0.5) -> Iterator[Freeze]:
        """Yield the freeze as it is, again and again, until it has ended."""
        while True:
            freeze = self.get_freeze(freeze_id)
            yield freeze
            if freeze["state"] in FINAL_FREEZE_STATES:
                return
            time.sleep(poll_seconds)

    def freeze(self, slug: str, *, report: Callable[[int, int], None] = lambda done, total: None, **fields: Any) -> Snapshot:
        """Freeze in the background and return the snapshot when it is there. `report` gets tasks done and in all.

        Raises JobFailed with the reason where there is none.
        """
        started = self.start_freeze(slug, **fields)
        for freeze in self.follow_freeze(started["id"]):
            report(freeze["n_done"], freeze["n_total"])
        if freeze["state"] != "done" or freeze["snapshot"] is None:
            raise JobFailed(f"Freezing failed: {freeze['problem'] or 'no reason given'}")
        return self.snapshot(freeze["snapshot"])

    def preview_snapshot(self, slug: str, **fields: Any) -> JSON:
        """What would be frozen now, counted; `fields` are filters and policy."""
        return self._call("POST", f"projects/{part(slug)}/snapshots/preview/", json=fields, repeatable=True)

    def snapshot(self, snapshot_id: str) -> Snapshot:
        """A snapshot with its manifest."""
        return self._call("GET", f"snapshots/{part(snapshot_id)}/")

    def snapshot_card(self, snapshot_id: str) -> str:
        """The dataset card, in Markdown."""
        with self._stream(f"snapshots/{part(snapshot_id)}/card/", {}, {}) as response:
            response.read()
            return response.text

    def snapshot_diff(self, snapshot_id: str, to: str) -> JSON:
        """What another snapshot has more, and less, than this one."""
        return self._call("GET", f"snapshots/{part(snapshot_id)}/diff/", params={"to": to})

    def download_snapshot(
        self,
        snapshot_id: str,
        split: str,
        fmt: Kind = "jsonl",
        view: str | None = None,
        path: str | PathLike[str] | None = None,
        *,
        sha256: str | None = None,
        reuse: bool = False,
        report: Callable[[int, int | None], None] = lambda received, total: None,
    ) -> Path:
        """Download one split to `path` (default: "{split}.{fmt}" here) and return the path.

        A broken download goes on where it stopped, in this call and, from the file "{path}.part", in a later one.
        The file gets its name only when it is whole. Its SHA-256 is compared with `sha256` and with the ETag, where
        that is a SHA-256; ChecksumMismatch is raised where they differ. `report` gets the bytes so far and in all.
        With `reuse`, a file that is there already and is the same is left as it is.
        """
        target = Path(path or f"{split}.{fmt}")
        download = Download(target, reuse=reuse)
        url = f"snapshots/{part(snapshot_id)}/{part(split)}.{part(fmt)}"
        if not self._fetch(url, {"view": view} if view else {}, download, report):
            return target
        return download.finish(sha256)

    def to_datasets(
        self,
        snapshot: str | Snapshot,
        view: str = "preference",
        split: str = "train",
        *,
        folder: str | PathLike[str] | None = None,
        report: Callable[[int, int | None], None] = lambda received, total: None,
    ) -> Any:
        """One split of a snapshot as a `datasets.Dataset`.

        Its Parquet file is downloaded once, checked by its SHA-256, and kept in `folder` (default: prefloop in the
        person's folder of caches). Raises MissingPackage without the package `datasets`.
        """
        datasets = needed("datasets", "datasets", "to_datasets")
        snapshot_id = snapshot if isinstance(snapshot, str) else snapshot["id"]
        site = hashlib.sha256(str(self._http.base_url).encode()).hexdigest()[:12]
        where = (Path(folder) if folder else _caches() / "prefloop") / site
        path = where / f"{part(snapshot_id)}.{part(view)}.{part(split)}.parquet"
        self.download_snapshot(snapshot_id, split, "parquet", view, path, reuse=True, report=report)
        return datasets.Dataset.from_parquet(str(path), cache_dir=str(where / "arrow"))


def _caches() -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA") if os.name == "nt" else None)
    return Path(folder) if folder else Path.home() / ".cache"
