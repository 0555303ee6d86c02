"""Whether a snapshot is still what was frozen: its files against the hashes that were kept of them."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from labeling.preferences.contents import contents_of
from labeling.preferences.models import Snapshot
from labeling.preferences.services import snapshots_folder
from labeling.projects.text import sha256


@dataclass(frozen=True)
class Checked:
    """One file, or what follows from all; `problem` is empty where it is as it was frozen."""

    name: str
    sha256: str
    problem: str = ""


def verify(snapshot: Snapshot) -> Iterator[Checked]:
    """Read every frozen file whole and compare, then the ids of the judgements and the snapshot's own name."""
    folder = snapshots_folder() / snapshot.folder
    files = snapshot.manifest.get("files", {})
    for name, known in sorted(files.items()):
        try:
            with open(folder / name, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            yield Checked(name, "", "is missing")
            continue
        yield Checked(name, found, "" if found == known["sha256"] else "is not as it was frozen")
    yield _ids(snapshot)
    whole = sha256("".join(f"{name} {files[name]['sha256']}\n" for name in sorted(files)))
    problem = "" if whole == snapshot.content_hash else "does not follow from the hashes of its files"
    yield Checked("the snapshot’s name", whole, problem)


def _ids(snapshot: Snapshot) -> Checked:
    name = "ids of its judgements"
    try:
        ids = contents_of(snapshot).judgements
    except OSError:
        return Checked(name, "", "are missing")
    digest = hashlib.sha256()
    for start in range(0, len(ids), 100_000):
        digest.update("".join(f"{pk}\n" for pk in ids[start : start + 100_000].tolist()).encode())
    found, known = digest.hexdigest(), snapshot.manifest.get("judgement_ids_sha256")
    return Checked(name, found, "" if found == known else "are not those that were frozen")
