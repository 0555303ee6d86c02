"""The views of a snapshot: each is a projection of its frozen rows, made once as a file and then only read.

A file that stays the same can be sent in pieces, resumed by HTTP range and verified by its hash.
"""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import permutations
from pathlib import Path

from labeling.preferences.errors import UnknownView
from labeling.preferences.models import Snapshot
from labeling.preferences.parts import pair_id
from labeling.preferences.services import SPLITS, snapshots_folder
from labeling.preferences.views_out import axes, rankings, trl, whole
from labeling.preferences.views_out.argilla import ARGILLA
from labeling.preferences.views_out.asked import views_folder
from labeling.preferences.views_out.columns import Row
from labeling.preferences.views_out.label_studio import LABEL_STUDIO
from labeling.preferences.views_out.making import Hashed, made, make, read_rows, write_view
from labeling.preferences.views_out.view import View

DEFAULT_VIEW = "preference"
VIEWS: dict[str, View] = {
    "preference": trl.PREFERENCE,
    "preference_standard": trl.PREFERENCE_STANDARD,
    "preference_by_axis": axes.PREFERENCE_BY_AXIS,
    "unpaired": trl.UNPAIRED,
    "sft": trl.SFT,
    "prompt": trl.PROMPT,
    "ranking": rankings.RANKING,
    "ratings": rankings.RATINGS,
    "pairs": whole.PAIRS,
    "votes": whole.VOTES,
    "hh": trl.HH,
    "argilla": ARGILLA,
    "label_studio": LABEL_STUDIO,
}


def view_file(snapshot: Snapshot, *, split: str, view: str, format: str) -> Path:
    """The file of one view, made now if nobody asked before; or a file beside it (`config` as `xml`).

    Raises UnknownView naming what there is, and BeingMade where another request has been making it for long.
    """
    known = VIEWS.get(view)
    if known is None:
        raise UnknownView(f"Unknown view {view!r}: choose from {', '.join(VIEWS)}")
    folder = snapshots_folder() / snapshot.folder
    target = _target(snapshot, view, split, format)
    if beside := known.beside.get(f"{split}.{format}"):
        write = partial(_write_beside, make=beside, snapshot=snapshot)
    elif split in SPLITS and format in known.kinds:
        frozen = folder / f"{known.frozen}.{split}.jsonl"
        write = partial(write_view, view=known, frozen=frozen, snapshot=snapshot, kind=format)
    else:
        there_is = [*(f"{split}.{kind}" for split in SPLITS for kind in known.kinds), *known.beside]
        raise UnknownView(f"{view} has no {split}.{format}: it comes as {', '.join(there_is)}")
    if not made(target):
        make(target, write)
    return target


def rows_in(snapshot: Snapshot, view: str, split: str) -> int | None:
    """How many rows the view has; None where nobody has counted them yet, when it was frozen or when a file was made."""
    manifest = snapshot.manifest
    if view in ("preference", "preference_standard", "pairs", "votes"):
        return manifest.get("files", {}).get(f"{VIEWS[view].frozen}.{split}.jsonl", {}).get("rows", 0)
    counted = manifest.get("views", {}).get(f"{view}.{split}")
    if counted is not None:
        return counted
    notes = (made(_target(snapshot, view, split, kind)) for kind in VIEWS[view].kinds)
    return next((note["rows"] for note in notes if note), None)


def preference_rows(snapshot: Snapshot, split: str) -> Iterator[Row]:
    """Rows of the `preference` view, each with its `id`, for the run folder."""
    for row in read_rows(snapshots_folder() / snapshot.folder / f"pairs.{split}.jsonl"):
        yield trl.preference(row) | {"id": row["id"]}


def rows_to_train_on(snapshot: Snapshot, view: str, split: str) -> Iterator[Row]:
    """Rows of a view for the run folder, one by one; no file of the view is made."""
    if view == "preference":
        yield from preference_rows(snapshot, split)
    else:
        known = VIEWS[view]
        yield from known.rows(snapshot, read_rows(snapshots_folder() / snapshot.folder / f"{known.frozen}.{split}.jsonl"))


def axes_rated_in(snapshot: Snapshot, split: str) -> Iterator[str]:
    """The axis of each pair of `preference_by_axis`, in order."""
    return (row["axis"] for row in rows_to_train_on(snapshot, "preference_by_axis", split))


def compared_in(snapshot: Snapshot, ids: Collection[str]) -> Iterator[tuple[str, str, str, str]]:
    """What pairs of two ranked completions compare: (id of the pair, of its task, key of chosen, key of rejected).

    A pair's id says it all, but not to be read back; so those of every task are made again.
    """
    for split in SPLITS:
        seen = None
        for vote in read_rows(snapshots_folder() / snapshot.folder / f"votes.{split}.jsonl"):
            if vote["task"] == seen:
                continue
            seen = vote["task"]
            for chosen, rejected in permutations([completion["key"] for completion in vote["completions"]], 2):
                if (id := pair_id(seen, chosen, rejected)) in ids:
                    yield id, seen, chosen, rejected


def _write_beside(output: Hashed, *, make: Callable[[Snapshot], bytes], snapshot: Snapshot) -> int:
    output.write(make(snapshot))
    return 0


def _target(snapshot: Snapshot, view: str, split: str, kind: str) -> Path:
    # Rows may be shared by snapshots that hold the same; a view that names its snapshot has files of its own.
    of = f".{snapshot.pk}" if VIEWS[view].names_its_snapshot else ""
    return views_folder(snapshot) / f"{view}{of}.{split}.{kind}"
