"""What the tasks of a snapshot asked for, and how that is named in the tools of others.

Labelling tools want to know beforehand which questions there are. The form of the project says so, and the judgements
that were frozen, which may have answered an earlier form.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from labeling.annotation.selectors import KEYS
from labeling.preferences.models import Snapshot
from labeling.preferences.services import SPLITS, snapshots_folder
from labeling.preferences.views_out.columns import Row
from labeling.preferences.views_out.making import read_rows
from labeling.projects.feedback import complete_form

FOLDER = "views-2"  # counts up when a release makes views differently, so that what an older one made is not sent
WRITTEN = ("demonstration", "rationale")
SAID = ("acceptable", "corrections", "strength", "none_acceptable")


@dataclass
class Asked:
    """`sizes`: numbers of completions of the tasks; `axes`: axis of the ratings to its lowest and highest step."""

    sizes: list[int] = field(default_factory=list)
    ranked_sizes: list[int] = field(default_factory=list)
    ties: bool = False
    axes: dict[str, list[int]] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)

    @property
    def keys(self) -> list[str]:
        """Of the completions of the largest task."""
        return list(KEYS[: max(self.sizes, default=0)])

    def name_of(self, axis: str) -> str:
        """A name that other tools take: small letters, digits and underscores, different for every axis."""
        names: dict[str, str] = {}
        for known in self.axes:
            plain = re.sub(r"[^a-z0-9]+", "_", known.lower()).strip("_") or "axis"
            taken = plain in names.values() or plain in ("ranking", "strength", *SAID, *WRITTEN, "flags", "marks")
            names[known] = f"{plain}_{len(names) + 1}" if taken else plain
        return names[axis]


def views_folder(snapshot: Snapshot) -> Path:
    return snapshots_folder() / snapshot.folder / FOLDER


def asked_in(snapshot: Snapshot) -> Asked:
    """Found once a snapshot, by reading all its votes."""
    path = views_folder(snapshot) / "asked.json"
    if path.exists():
        return Asked(**orjson.loads(path.read_bytes()))
    found = _of_form(snapshot)
    for split in SPLITS:
        _add_votes(found, read_rows(snapshots_folder() / snapshot.folder / f"votes.{split}.jsonl"))
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_name(f".asked.{os.getpid()}")
    unfinished.write_bytes(orjson.dumps(asdict(found)))
    os.replace(unfinished, path)
    return found


def _of_form(snapshot: Snapshot) -> Asked:
    form, _ = complete_form(snapshot.manifest.get("form", snapshot.project.form))
    return Asked(
        axes={axis: [scale["low"], scale["high"]] for axis, scale in form["ratings"].items()},
        flags=list(form["flags"]),
        marks=list(form["marks"]),
        parts=[part for part in (*SAID, *WRITTEN) if form[part] not in (False, "off")],
    )


def _add_votes(asked: Asked, votes: Iterable[Row]) -> None:
    sizes, ranked_sizes, flags, marks, parts = set(asked.sizes), set(asked.ranked_sizes), [], [], []
    for vote in votes:
        judgement: dict[str, Any] = vote["judgement"]
        sizes.add(len(vote["completions"]))
        if ranking := judgement.get("ranking"):
            ranked_sizes.add(len(vote["completions"]))
            asked.ties = asked.ties or any(len(group) > 1 for group in ranking)
        for given in judgement.get("ratings", {}).values():
            for axis, value in given.items():
                low, high = asked.axes.get(axis, (value, value))
                asked.axes[axis] = [min(low, value), max(high, value)]
        flags += [flag for given in judgement.get("flags", {}).values() for flag in given if flag not in asked.flags]
        for given in judgement.get("marks", {}).values():
            marks += [mark["label"] for mark in given if mark["label"] not in asked.marks]
        parts += [part for part in judgement if part in (*SAID, *WRITTEN) and part not in asked.parts]
        asked.flags += dict.fromkeys(flags)
        asked.marks += dict.fromkeys(marks)
        asked.parts += dict.fromkeys(parts)
        flags, marks, parts = [], [], []
    asked.sizes, asked.ranked_sizes = sorted(sizes), sorted(ranked_sizes)
