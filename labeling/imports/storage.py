"""Where files lie while they are imported: a folder an import, with the file as it was sent and the list of rows refused.

Names are ours; what a file was called outside is a text in its row.
"""

import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from django.conf import settings

from labeling.imports.errors import DiskFull, FileTooLarge
from labeling.projects.models import Import

CHUNK_BYTES = 1 << 20
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
STRAY_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Upload:
    """A file that has come in whole, and isn't anybody's yet."""

    path: Path
    n_bytes: int
    sha256: str


def folder_of(record: Import) -> Path:
    return Path(settings.FILES) / "imports" / str(record.pk)


def file_of(record: Import) -> Path:
    return Path(record.path) if record.path else folder_of(record) / "source"


def rejected_file_of(record: Import) -> Path:
    return folder_of(record) / "rejected.jsonl"


def receive(read: Callable[[int], bytes], *, most_bytes: int | None = None) -> Upload:
    """Write a stream to the disk, holding no more of it than a chunk. Whatever goes wrong, nothing stays.

    `most_bytes`: in place of what files of rows may have.

    Raises FileTooLarge and DiskFull, and whatever `read` raises.
    """
    digest, n_bytes = hashlib.sha256(), 0
    path = _arriving() / secrets.token_hex(12)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            while chunk := read(CHUNK_BYTES):
                n_bytes += len(chunk)
                if n_bytes > (max_bytes() if most_bytes is None else most_bytes):
                    raise too_large(most_bytes)
                digest.update(chunk)
                file.write(chunk)
    except BaseException as error:
        path.unlink(missing_ok=True)
        raise (said_of_disk(error) or error) from None
    return Upload(path, n_bytes, digest.hexdigest())


def max_bytes() -> int:
    return settings.IMPORT_MAX_BYTES


def too_large(most_bytes: int | None = None) -> FileTooLarge:
    if most_bytes is not None:
        return FileTooLarge(f"A file may have at most {most_bytes:,} bytes")
    return FileTooLarge(
        f"A file may have at most {max_bytes():,} bytes. Compress it with gzip, or split it: parts can be sent one after the other"
    )


def said_of_disk(error: BaseException) -> DiskFull | None:
    if isinstance(error, OSError) and error.errno in FULL:
        return DiskFull("The disk of the server is full, so the file can't be kept. Make room, then send it again")
    return None


def keep(upload: Upload, record: Import) -> None:
    """Give the file to its import."""
    folder_of(record).mkdir(parents=True, exist_ok=True)
    os.replace(upload.path, folder_of(record) / "source")


def discard(upload: Upload) -> None:
    upload.path.unlink(missing_ok=True)


def remove_file(record: Import) -> None:
    with suppress(FileNotFoundError):
        (folder_of(record) / "source").unlink()


def remove_folder(record: Import) -> None:
    shutil.rmtree(folder_of(record), ignore_errors=True)


def remove_strays() -> int:
    """Uploads that nobody took on, because a server was stopped in the middle of one."""
    count = 0
    for path in _arriving().glob("*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STRAY_SECONDS:
                path.unlink()
                count += 1
    return count


def beginning_of(path: Path, n_bytes: int) -> Iterator[bytes]:
    if not n_bytes:
        return
    with open(path, "rb") as file:
        while n_bytes > 0 and (chunk := file.read(min(CHUNK_BYTES, n_bytes))):
            n_bytes -= len(chunk)
            yield chunk


def clean_name(name: str) -> str:
    """The last part of a path, without what shows nothing."""
    last = PurePath(str(name).replace("\\", "/")).name
    return "".join(char for char in last if char.isprintable())[:200]


def digest_of_path(path: Path, report: Callable[[int], Any] = lambda n: None) -> str:
    """SHA-256 of a file, or of the names and contents of all files of a folder."""
    if path.is_file():
        return _digest_of_file(path, report)
    whole = hashlib.sha256()
    for found in sorted(item for item in path.rglob("*") if item.is_file()):
        whole.update(f"{found.relative_to(path)}\0{_digest_of_file(found, report)}\n".encode())
    return whole.hexdigest()


def _digest_of_file(path: Path, report: Callable[[int], Any]) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _arriving() -> Path:
    return Path(settings.FILES) / "imports" / "arriving"
