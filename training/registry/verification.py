"""Whether a model's files are still those that were entered: each against the SHA-256 that was kept of it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from training.registry.models import ModelVersion
from training.registry.services import folder_of


@dataclass(frozen=True)
class Checked:
    """One file; `problem` is empty where it is as it was entered, and `sha256` where it can't be read."""

    name: str
    sha256: str
    problem: str = ""


def verify(model: ModelVersion) -> Iterator[Checked]:
    """Read every file whole and compare; then name what lies in the folder and was not entered.

    A link is never followed: where a file was, it counts as missing, and elsewhere as one too many.
    """
    folder = folder_of(model)
    for name, known in sorted(model.files.items()):
        path = folder / name
        try:
            if path.is_symlink():
                raise FileNotFoundError(name)
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            yield Checked(name, "", "is missing")
            continue
        yield Checked(name, found, "" if found == known else "is not as it was entered")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name not in model.files and (path.is_symlink() or path.is_file()):
            yield Checked(name, "", "was not there when the model was entered")
