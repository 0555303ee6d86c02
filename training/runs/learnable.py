"""Whether a snapshot holds what a run would learn from: said before the run is queued, not by its failure."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from labeling.preferences.compared import compared_pairs
from labeling.preferences.models import Snapshot
from labeling.preferences.views_of_snapshots import axes_rated_in, rows_in, rows_to_train_on
from training.runs.catalogue import defaults, view_of

PREFERENCE = "preference"  # the axis of rankings: which one people prefer altogether
MAX_PAIRS_READ = 2000
MAX_ROWS_READ = 20_000  # of a snapshot so large and so uneven the recipe says it itself


def why_nothing_to_learn(snapshot: Snapshot, kind: str, spec: dict[str, Any]) -> str:
    """What is missing for a run of this kind with these options, and what to do; empty: nothing that shows early.

    Takes options that `check_spec` found right. Reads rows until it has seen enough, of nearly all snapshots the first few.
    """
    view = view_of(kind, spec)
    if spec.get("axes"):
        return _no_ratings(snapshot, spec["axes"])
    if view == "preference":
        if snapshot.n_pairs:
            return ""
        return f"{snapshot} holds no pairs to learn from: freeze one with rankings or corrections in it"
    try:
        is_empty = rows_in(snapshot, view, "train") == 0
        rows = () if is_empty else islice(rows_to_train_on(snapshot, view, "train"), MAX_ROWS_READ)
        if view == "sft":
            wanted = set(spec.get("sources", defaults(kind)["sources"]))
            return _no_texts(snapshot, _seen(rows, "source", lambda seen: bool(seen & wanted)), wanted)
        return _one_sided(snapshot, _seen(rows, "label", lambda seen: len(seen) > 1))
    except FileNotFoundError:
        return f"the files of {snapshot} are gone: bring them back from a backup, or freeze again"


def why_no_agreement(snapshot: Snapshot, spec: dict[str, Any]) -> str:
    """Why labels can't be smoothed by how far people agreed, and what to do; empty: they can, or aren't asked to be."""
    if spec.get("smoothing_from") != "agreement":
        return ""
    if snapshot.policy.get("votes") == "each":
        return (
            f"is agreement, but {snapshot} has a pair for each vote, so how far people agree is in it already: leave it out, or "
            "freeze one with a pair for all votes"
        )
    n_read = 0
    try:
        for _, compared in islice(compared_pairs(snapshot, "train"), MAX_PAIRS_READ):
            n_read += 1
            if compared and sum(compared.people or ()) > 1:
                return ""
    except FileNotFoundError:
        return f"is agreement, but the files of {snapshot} are gone: bring them back from a backup, or freeze again"
    if n_read == MAX_PAIRS_READ:
        return ""
    return (
        f"is agreement, but two people judged no pair to train on in {snapshot} (programs and models don't count): leave it out, "
        "or say with label_smoothing which share of labels is wrong"
    )


def _no_ratings(snapshot: Snapshot, axes: list[str]) -> str:
    if PREFERENCE in axes and not snapshot.n_pairs:
        return f"{snapshot} holds no pairs of rankings: leave {PREFERENCE} out of the axes, or freeze one with rankings in it"
    wanted = set(axes) - {PREFERENCE}
    try:
        seen, n_rows = set(), 0
        for axis in islice(axes_rated_in(snapshot, "train"), MAX_ROWS_READ):
            seen.add(axis)
            n_rows += 1
            if wanted <= seen:
                return ""
    except FileNotFoundError:
        return f"the files of {snapshot} are gone: bring them back from a backup, or freeze again"
    if wanted <= seen or n_rows == MAX_ROWS_READ:
        return ""
    there = f"only on {', '.join(sorted(seen))}" if seen else "on no axis at all"
    missing = ", ".join(sorted(wanted - seen))
    return f"{snapshot} compares no two completions to train on by {missing}, {there}: ask for ratings in the feedback form and freeze again"


def why_nothing_to_read(snapshot: Snapshot, view: str) -> str:
    """What is missing for an evaluation on the snapshot's held-out rows; empty: nothing."""
    try:
        if next(iter(rows_to_train_on(snapshot, view, "eval")), None) is None:
            return f"{snapshot} holds no held-out text: leave it out, or freeze one with corrections or demonstrations in it"
    except FileNotFoundError:
        return f"the files of {snapshot} are gone: bring them back from a backup, or freeze again"
    return ""


def _seen(rows: Iterable[dict[str, Any]], column: str, is_enough: Callable[[set[Any]], bool]) -> set[Any] | None:
    """The values of the column in the rows up to where they are enough; None where that would take too long to tell."""
    seen: set[Any] = set()
    n_rows = 0
    for row in rows:
        n_rows += 1
        seen.add(row[column])
        if is_enough(seen):
            return seen
    return seen if n_rows < MAX_ROWS_READ else None


def _no_texts(snapshot: Snapshot, seen: set[str] | None, wanted: set[str]) -> str:
    if seen is None or seen & wanted:
        return ""
    if seen:
        return (
            f"{snapshot} holds no text to train on of the sources {', '.join(sorted(wanted))}, only of {', '.join(sorted(seen))}: "
            "name these under sources, or collect the others and freeze again"
        )
    return (
        f"{snapshot} holds no text to train on: collect corrections, demonstrations or rankings with one best completion, "
        "and freeze again"
    )


def _one_sided(snapshot: Snapshot, seen: set[bool] | None) -> str:
    if seen is None or len(seen) > 1:
        return ""
    or_else = ", or set labels_from: pairs to learn from its rankings" if snapshot.n_pairs else ""
    if not seen:
        return (
            f"{snapshot} holds no completion to train on that was called acceptable or not: ask for it in the feedback form "
            f"and freeze again{or_else}"
        )
    called, other = ("acceptable", "not acceptable") if seen == {True} else ("not acceptable", "acceptable")
    return (
        f"{snapshot} calls every completion to train on {called}, and KTO needs both: freeze again when some are judged "
        f"{other}{or_else}"
    )
