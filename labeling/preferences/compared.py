"""What stands behind the frozen pairs: which task and which two completions each compares, and all that was said of them.

A pair's id is a hash of just that, and not to be read back. Frozen votes and pairs lie in the same order of tasks, so the
ids of each task's possible pairs are made again while both files are read once.
"""

from collections.abc import Iterator
from itertools import groupby, permutations
from operator import itemgetter
from typing import NamedTuple

from labeling.preferences.models import Snapshot
from labeling.preferences.pairing import outcome, ranks
from labeling.preferences.parts import pair_id
from labeling.preferences.services import snapshots_folder
from labeling.preferences.views_out.columns import Row
from labeling.preferences.views_out.making import read_rows

MACHINES = ("simulated", "model")


class Compared(NamedTuple):
    """Of a frozen pair: the task's public id, and the keys of its two completions, of which an edit has none.

    `people` is how many people say of the two that chosen is better, that rejected is, and neither, programs and models
    left out; whatever the pair itself is made of. `shown_first` is the share of those who ranked it to whom chosen stood
    before rejected. Both are None where one side is an edit.
    """

    task: str
    chosen: str | None
    rejected: str | None
    people: tuple[int, int, int] | None
    shown_first: float | None


def compared_pairs(snapshot: Snapshot, split: str) -> Iterator[tuple[Row, Compared | None]]:
    """The frozen pairs of a split in their order, in constant memory; None beside one whose task isn't among the votes."""
    folder = snapshots_folder() / snapshot.folder
    tasks = groupby(read_rows(folder / f"votes.{split}.jsonl"), key=itemgetter("task"))
    known: dict[str, tuple[str | None, str | None]] = {}
    votes: list[Row] = []
    for pair in read_rows(folder / f"pairs.{split}.jsonl"):
        while pair["id"] not in known:
            task, of_task = next(tasks, (None, None))
            if of_task is None:
                break
            votes = list(of_task)
            known = _ids_of(task, votes)
        yield pair, _compared(known[pair["id"]], votes, pair) if pair["id"] in known else None


def _ids_of(task: str, votes: list[Row]) -> dict[str, tuple[str | None, str | None]]:
    """Of every pair that the task can give: by a ranking, by one person's ranking, and by an edit over a completion."""
    keys = [completion["key"] for completion in votes[0]["completions"]]
    people = list(dict.fromkeys(vote["annotator"] for vote in votes))
    found: dict[str, tuple[str | None, str | None]] = {}
    for one, other in permutations(keys, 2):
        found[pair_id(task, one, other)] = one, other
        for name in people:
            found[pair_id(task, one, f"{other} by {name}")] = one, other
    editors = [(vote["annotator"], vote["judgement"].get("corrections", {})) for vote in votes]
    for name, corrections in editors:
        for corrected in corrections:
            for key in keys:
                found[pair_id(task, f"{corrected} by {name}", key)] = None, key
    return found


def _compared(keys: tuple[str | None, str | None], votes: list[Row], pair: Row) -> Compared:
    chosen, rejected = keys
    if chosen is None or rejected is None:
        return Compared(votes[0]["task"], chosen, rejected, None, None)
    said: dict[str, int] = {}  # each person once
    first = n_shown = 0
    for vote in votes:
        if not (ranking := vote["judgement"].get("ranking")):
            continue
        if vote["annotator_kind"] not in MACHINES:
            said[vote["annotator"]] = outcome(ranks(ranking), chosen, rejected)
        shown = vote["order_shown"]
        if chosen in shown and rejected in shown and _is_behind(pair, vote["annotator"]):
            n_shown += 1
            first += shown.index(chosen) < shown.index(rejected)
    answers = list(said.values())
    people = (answers.count(1), answers.count(-1), answers.count(0))
    return Compared(votes[0]["task"], chosen, rejected, people, first / n_shown if n_shown else None)


def _is_behind(pair: Row, annotator: str) -> bool:
    """Whether the pair is made of this person's vote: of all, or of one alone."""
    return any(vote["annotator"] == annotator for vote in pair["votes"])
