"""The frozen rows themselves: `pairs` and `votes`."""

from collections.abc import Iterator

from labeling.preferences.models import Snapshot
from labeling.preferences.views_out.columns import AUTHOR, COMPLETION, JSON, MESSAGES, NUMBER, WORD, Row
from labeling.preferences.views_out.trl import soft_label
from labeling.preferences.views_out.view import View

SOURCE = {"model": str, "revision": WORD, "adapter": WORD, "sampling": JSON, "seed": NUMBER, "author": AUTHOR}
SETTLED = b'{"adjudication":'  # keys of frozen rows are sorted, so this one comes first


def _pairs(snapshot: Snapshot, rows: Iterator[Row]) -> Iterator[Row]:
    """Whole, with the snapshot's name; what only some rows have is null in the others, since all have one shape here."""
    name = f"{snapshot.project.slug}#{snapshot.number}"
    for row in rows:
        sources = {side: {"author": None, **row[side]} for side in ("chosen_source", "rejected_source")}
        yield {"adjudication": None, **row, "soft_label": soft_label(row), **sources, "snapshot": name}


def _votes(snapshot: Snapshot, rows: Iterator[Row]) -> Iterator[Row]:
    return ({"adjudication": None, **row} for row in rows)


def _lines_of_votes(lines: Iterator[bytes]) -> Iterator[bytes]:
    return (line if line.startswith(SETTLED) else SETTLED + b"null," + line[1:] for line in lines)


PAIRS = View(
    "every pair with its votes, sources and licence",
    frozen="pairs",
    rows=_pairs,
    columns={
        "id": str, "group_id": str, "iteration": int, "prompt": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES,
        "strength": float, "tie": bool, "margin": float, "weight": float, "soft_label": float, "chosen_source": SOURCE,
        "rejected_source": SOURCE, "n_votes": int, "agreement": float, "votes": JSON, "edited": MESSAGES,
        "reasons": [str], "flags": [str], "split": str, "licence": str, "snapshot": str,
        "adjudication": {**AUTHOR, "blind": bool, "at": str},
    },
    names_its_snapshot=True,
)  # fmt: skip
VOTES = View(
    "one row a judgement, whole, with its task; annotators under pseudonyms",
    frozen="votes",
    rows=_votes,
    columns={
        "task": str, "prompt": MESSAGES, "completions": [COMPLETION], "annotator": str, "annotator_kind": str,
        "judgement": JSON, "order_shown": [str], "guideline_version": int, "iteration": int, "gold": bool, "at": str,
        "adjudication": JSON, "group_id": str, "licence": str,
    },
    lines=_lines_of_votes,
)  # fmt: skip
