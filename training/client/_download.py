"""A file that is downloaded in parts, over as many connections as it takes."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import httpx

from training.client.errors import ChecksumMismatch


class Download:
    """The part of a file that has arrived, on disk beside its target, with the ETag it belongs to."""

    def __init__(self, target: Path, *, reuse: bool = False) -> None:
        """`reuse`: the target may be left as it is, if the server has the same."""
        self.target = target
        self.known = _sha256_of(target) if reuse and target.exists() else None
        self.part = target.with_name(target.name + ".part")
        self.etag_file = target.with_name(target.name + ".part.etag")
        target.parent.mkdir(parents=True, exist_ok=True)
        self.etag = self.etag_file.read_text() if self.etag_file.exists() else ""
        if not self.etag:  # a part of we do not know what
            self.restart()

    @property
    def received(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def headers(self) -> dict[str, str]:
        # Bytes are counted and hashed, so no compression on the way.
        plain = {"Accept-Encoding": "identity"}
        if self.known:
            plain["If-None-Match"] = f'"{self.known}"'
        return plain | {"Range": f"bytes={self.received}-", "If-Range": self.etag} if self.received else plain

    def receive(self, response: httpx.Response, report: Callable[[int, int | None], None]) -> None:
        etag = response.headers.get("ETag", "")
        if response.status_code != 206 or (self.etag and etag and etag != self.etag):
            self.restart()
        if response.status_code == 206 and not response.headers["Content-Range"].startswith(f"bytes {self.received}-"):
            raise httpx.ReadError("the file changed on the server during the download")
        if etag and not etag.startswith("W/"):
            self.etag = etag
            self.etag_file.write_text(etag)
        total = (
            int(response.headers["Content-Length"]) + self.received if "Content-Length" in response.headers else None
        )
        with self.part.open("ab") as file:
            for chunk in response.iter_raw():
                file.write(chunk)
                report(file.tell(), total)

    def is_whole(self, response: httpx.Response) -> bool:
        return response.headers.get("Content-Range") == f"bytes */{self.received}"

    def restart(self) -> None:
        self.part.unlink(missing_ok=True)
        self.etag_file.unlink(missing_ok=True)
        self.etag = ""

    def finish(self, sha256: str | None) -> Path:
        self.part.touch()
        actual = _sha256_of(self.part)
        for expected in filter(None, (sha256, _sha256_in(self.etag))):
            if expected.lower() != actual:
                self.restart()
                raise ChecksumMismatch(f"{self.target}: SHA-256 is {actual}, not {expected}")
        self.part.replace(self.target)
        self.etag_file.unlink(missing_ok=True)
        return self.target


def _sha256_in(etag: str) -> str | None:
    found = re.fullmatch(r'"(?:sha-?256[:=-])?([0-9a-fA-F]{64})"', etag)
    return found[1] if found else None


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
