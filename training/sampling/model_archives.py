"""Unpacking an archive of a model from somebody else: tar, tar.gz or zip, into a folder of plain files, within limits.

Nothing is written but what a model folder may hold, under its own last name. Links, absolute and parent paths, pickles and
program code are refused by name; whatever else lies there is left out and named. Sizes are counted as bytes come out, never
believed.
"""

import gzip
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn

from training.sampling.foreign_model import MOST_FILES, PICKLED_SUFFIXES, TAKEN_NAMES, WEIGHTS
from training.sampling.model_files import ModelFilesError

CODE_SUFFIXES = (".py", ".pyc", ".so", ".dll", ".sh", ".exe", ".ipynb")
CHUNK_BYTES = 1 << 20
MOST_RATIO = 100  # of bytes that come out to those of the archive
FREE_BYTES = 10_000_000  # that may come out of an archive of any size: a small one may be all zeros
MOST_HEAD_BYTES = 65_536  # a name, and what else tar says of one file
MOST_DIRECTORY_BYTES = 4_000_000  # the list of files at the end of a zip
Report = Callable[[int], None]


def unpack(archive: Path, into: Path, *, most_bytes: int, report: Report = lambda n_bytes: None) -> list[str]:
    """Write the model's files into the folder `into`, and return what was left out, with the reason.

    A folder that all lie in is taken off. `report` gets the bytes that have come out so far, and may raise. Raises
    ModelFilesError, naming the file; what was written by then stays, for the caller to remove.
    """
    budget = _Budget(archive.stat().st_size, most_bytes, report)
    with open(archive, "rb") as file:
        start = file.read(4)
        file.seek(0)
        try:
            if start == b"PK\x03\x04":
                members = _of_zip(file, budget)
            elif start[:2] == b"\x1f\x8b":
                members = _of_tar(budget.counting(gzip.GzipFile(fileobj=file)))
            else:
                members = _of_tar(budget.counting(file))
            return _write(members, into, budget)
        except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile, NotImplementedError) as error:
            raise ModelFilesError(
                f"The file is no tar, tar.gz or zip that can be read, or was cut off: {str(error)[:120] or type(error).__name__}"
            ) from None
        except RuntimeError as error:  # zipfile's word for a password
            raise ModelFilesError(f"The archive can't be unpacked: {str(error)[:120]}") from None


def _write(members: Iterator[tuple[str, str, IO[bytes] | None]], into: Path, budget: "_Budget") -> list[str]:
    """`members` are name, what is wrong with its kind (or nothing), and the content of a plain file."""
    left: list[str] = []
    top: str | None = None
    for number, (name, problem, content) in enumerate(members, start=1):
        if number > MOST_FILES:
            raise ModelFilesError(f"The archive holds more than {MOST_FILES:,} entries: this is no model folder")
        path = _safe(name)
        if problem:
            raise ModelFilesError(f"{name} is {problem}: pack plain files alone")
        if content is None or not path.parts:  # a folder
            continue
        parts = path.parts
        if top is None:
            top = parts[0] if len(parts) > 1 else ""
        inner = parts[1:] if top and parts[0] == top else parts
        if top and inner is parts:
            raise ModelFilesError(f"{name} lies outside the folder {top}/ that the others lie in: pack one model's folder alone")
        last = inner[-1]
        if Path(last).suffix.lower() in (*PICKLED_SUFFIXES, *CODE_SUFFIXES):
            what = "program code" if Path(last).suffix.lower() in CODE_SUFFIXES else "pickled, or in a form that can run code when it is read"
            raise ModelFilesError(f"{name} is {what}: leave it out, and pack the weights as safetensors")
        if len(inner) > 1 or not (last in TAKEN_NAMES or last.endswith(WEIGHTS)):
            left.append(f"{'/'.join(inner)[:200]}: not part of a model")
            continue
        target = into / last
        if target.exists():
            raise ModelFilesError(f"{name} is in the archive twice")
        with open(target, "xb") as file:
            while chunk := content.read(CHUNK_BYTES):
                budget.take(len(chunk) if isinstance(content, zipfile.ZipExtFile) else 0)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    if not any(into.iterdir()):
        raise ModelFilesError("The archive holds no file of a model: pack config, tokenizer and *.safetensors")
    return left


def _safe(name: str) -> PurePosixPath:
    """The name as a path below the folder. Raises ModelFilesError for one that leads, or might lead, elsewhere."""
    path = PurePosixPath(name)
    if not name.isprintable() or "\\" in name or ":" in name or path.is_absolute() or ".." in path.parts:
        raise ModelFilesError(f"{ascii(name)[:200]} is no name of a file below the archive's folder")
    return path


class _Budget:
    """How much may come out of one archive."""

    def __init__(self, archive_bytes: int, most_bytes: int, report: Report) -> None:
        self.limit = min(most_bytes, max(FREE_BYTES, MOST_RATIO * archive_bytes))
        self.most_bytes = most_bytes
        self.n_bytes = 0
        self.report = report

    def take(self, n_bytes: int) -> None:
        self.n_bytes += n_bytes
        if self.n_bytes > self.limit:
            if self.limit == self.most_bytes:
                raise ModelFilesError(f"More than {self.most_bytes:,} bytes come out of the archive, which is the most that is taken")
            raise ModelFilesError(f"Over {MOST_RATIO} times its own size comes out of the archive: no weights can be packed like this")
        self.report(self.n_bytes)

    def counting(self, stream: IO[bytes]) -> Any:
        return _Counting(stream, self)


class _Counting:
    """A stream whose every byte is counted, of what is skipped as well."""

    def __init__(self, stream: IO[bytes], budget: _Budget) -> None:
        self.stream, self.budget = stream, budget

    def read(self, size: int) -> bytes:
        chunk = self.stream.read(min(size, CHUNK_BYTES))
        self.budget.take(len(chunk))
        return chunk


# --- tar ----------------------------------------------------------------------------------------
class _Member(tarfile.TarInfo):
    """One whose long names and extra headers, which are held in memory, have a limit."""

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        if self.type not in (*tarfile.REGULAR_TYPES, tarfile.DIRTYPE) and self.size > MOST_HEAD_BYTES:
            raise ModelFilesError("The archive has a name or header that is far too long")
        return super()._proc_member(tar)  # type: ignore[misc]


def _of_tar(stream: Any) -> Iterator[tuple[str, str, IO[bytes] | None]]:
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar:
        for member in tar:
            plain = member.isreg() and not member.issparse()
            what = "" if plain or member.isdir() else "a link" if member.issym() or member.islnk() else "no plain file"
            yield member.name, what, tar.extractfile(member) if plain else None
            tar.members.clear()  # it keeps them all otherwise


# --- zip ----------------------------------------------------------------------------------------
def _of_zip(file: IO[bytes], budget: _Budget) -> Iterator[tuple[str, str, IO[bytes] | None]]:
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if end is None:
        _cut_off()
    if end[zipfile._ECD_SIZE] > MOST_DIRECTORY_BYTES:  # type: ignore[attr-defined]
        raise ModelFilesError("The archive's list of files is far too long: this is no model folder")
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            mode = member.external_attr >> 16
            if stat.S_ISLNK(mode):
                yield member.filename, "a link", None
            elif member.is_dir():
                yield member.filename, "", None
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                yield member.filename, "no plain file", None
            elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                yield member.filename, "packed in a way that is not taken (deflate is)", None
            else:
                with archive.open(member) as content:
                    yield member.filename, "", content


def _cut_off() -> NoReturn:
    raise zipfile.BadZipFile("it has no list of files at its end")
