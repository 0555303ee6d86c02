"""What the votes of a snapshot say of themselves: how often people agree, by whom they are, when, on what.

Read from the frozen rows once, so the figures are of the snapshot and not of its project as it is now.
"""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import groupby, islice
from typing import Any

import numpy
import orjson

from labeling.accounts.models import User
from labeling.annotation.selectors import KEYS
from labeling.preferences.contents import contents_of, is_in
from labeling.preferences.models import Snapshot
from labeling.preferences.services import SPLITS, snapshots_folder
from labeling.preferences.views_out.making import Hashed, made, make, read_rows
from labeling.projects.models import Prompt
from labeling.quality.statistics import (
    OTHER_WAY_ROUND,
    Answers,
    Figure,
    Rankings,
    Votes,
    krippendorff_alpha_nominal,
    pairwise_agreement,
)
from labeling.quality.statistics.rankings import position_bias_of

FOLDER = "figures-1"  # counts up when a release counts differently
CHUNK = 5000
PEOPLE = (User.Kind.HUMAN, User.Kind.IMPORTED)
Figures = dict[str, Any]


def figures_of_snapshot(snapshot: Snapshot) -> Figures:
    """Made at the first ask and kept. Raises BeingMade where somebody else is at it."""
    target = snapshots_folder() / snapshot.folder / FOLDER / "figures.json"
    if not made(target):
        make(target, partial(_write, snapshot))
    return orjson.loads(target.read_bytes())


def _write(snapshot: Snapshot, output: Hashed) -> int:
    figures = {**_of_votes(snapshot), **_of_prompts(snapshot)}
    output.write(orjson.dumps(figures))
    return 1


def _of_votes(snapshot: Snapshot) -> Figures:
    seen = _Seen()
    rankings = Rankings.of(_rankings(snapshot, seen))
    votes = Votes.drawn_from(rankings)
    people = [seen.numbers[name] for name, kind in seen.kinds.items() if kind in PEOPLE]
    return {
        "n_tasks": seen.n_tasks,
        "votes_a_task": dict(sorted(seen.votes_a_task.items())),
        "completions_a_task": dict(sorted(seen.completions_a_task.items())),
        "completions_by_model": dict(seen.models.most_common()),
        "agreement": _agreement(votes),
        "agreement_of_people": _agreement(votes.only(numpy.isin(votes.annotator, people))),
        "position_bias": position_bias_of(seen.n_ordered, seen.won, seen.expected),
        "n_annotators": len(seen.annotators),
        "largest_share": max(seen.annotators.values(), default=0) / max(1, sum(seen.annotators.values())),
        "annotators_by_kind": dict(sorted(Counter(seen.kinds.values()).items())),
        "first_at": seen.first_at, "last_at": seen.last_at,
    }  # fmt: skip


def _agreement(votes: Votes) -> dict[str, Figure]:
    alpha = krippendorff_alpha_nominal(Answers.of_votes(votes), swap=OTHER_WAY_ROUND)
    return {"pairwise_raw": pairwise_agreement(votes), "krippendorff_alpha_symmetric": alpha}


class _Seen:
    """What is counted on the way through the votes."""

    def __init__(self) -> None:
        self.n_tasks = 0
        self.votes_a_task: Counter[str] = Counter()
        self.completions_a_task: Counter[str] = Counter()
        self.models: Counter[str] = Counter()
        self.annotators: Counter[str] = Counter()
        self.kinds: dict[str, str] = {}
        self.numbers: dict[str, int] = {}
        self.n_ordered, self.won, self.expected = 0, 0.0, 0.0
        self.first_at = self.last_at = ""

    def task(self, votes: list[dict[str, Any]]) -> None:
        self.n_tasks += 1
        self.votes_a_task[str(len(votes))] += 1
        self.completions_a_task[str(len(votes[0]["completions"]))] += 1
        for completion in votes[0]["completions"]:
            self.models[completion["model"] or ("an annotator" if completion.get("author") else "unknown")] += 1

    def vote(self, vote: dict[str, Any]) -> int:
        """The annotator's number."""
        name = vote["annotator"]
        self.annotators[name] += 1
        self.kinds[name] = vote["annotator_kind"]
        self.first_at = min(self.first_at or vote["at"], vote["at"])
        self.last_at = max(self.last_at, vote["at"])
        return self.numbers.setdefault(name, len(self.numbers))

    def order(self, ranking: list[list[str]], shown: list[str]) -> None:
        """What the completion shown first won, and would win by chance: as `position_bias` counts it."""
        if len(shown) > 1:
            self.n_ordered += 1
            self.won += 1 / len(ranking[0]) if shown[0] in ranking[0] else 0.0
            self.expected += 1 / len(shown)


def _rankings(snapshot: Snapshot, seen: _Seen) -> Iterator[tuple[int, int, list[list[int]]]]:
    for split in SPLITS:
        rows = read_rows(snapshots_folder() / snapshot.folder / f"votes.{split}.jsonl")
        for _, of_task in groupby(rows, key=lambda row: row["task"]):
            votes = list(of_task)
            number = seen.n_tasks
            seen.task(votes)
            for vote in votes:
                annotator, ranking = seen.vote(vote), vote["judgement"].get("ranking")
                if ranking:
                    seen.order(ranking, vote["order_shown"])
                    yield number, annotator, [[KEYS.index(key) for key in group] for group in ranking]


def _of_prompts(snapshot: Snapshot) -> Figures:
    """Counts of the prompts that were judged."""
    wanted = contents_of(snapshot).prompts
    sources: Counter[str] = Counter()
    licences: Counter[str] = Counter()
    tags: Counter[str] = Counter()
    groups: set[str] = set()
    rows = Prompt.objects.filter(project=snapshot.project_id).order_by("pk")
    columns = rows.values_list("pk", "group_id", "source", "licence", "tags").iterator(chunk_size=CHUNK)
    while batch := list(islice(columns, CHUNK)):
        there = is_in(numpy.array([row[0] for row in batch], dtype=numpy.uint64), wanted)
        for (_, group, source, licence, of_prompt), is_there in zip(batch, there, strict=True):
            if is_there:
                sources[source or "unknown"] += 1
                licences[licence or "unknown"] += 1
                tags.update(set(map(str.casefold, of_prompt)))
                groups.add(group)
    return {
        "n_prompts": len(wanted), "n_groups": len(groups), "sources": dict(sources.most_common()),
        "licences": dict(licences.most_common()), "tags": dict(tags.most_common(200)),
    }  # fmt: skip
