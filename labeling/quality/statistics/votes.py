"""Rankings as votes on pairs of completions, in columns: a million of them are a few arrays, not a million objects."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy

Ranking = Sequence[Sequence[Hashable]]
# A pair of completions and what each annotator said of it: 1 the first, -1 the second, 0 a tie.
PairVotes = dict[tuple[Hashable, Hashable], dict[Hashable, int]]
# What such a vote becomes when its two completions change places.
OTHER_WAY_ROUND = {1: -1, -1: 1, 0: 0}

# The same three answers in columns, as labels from 0.
FIRST, SECOND, TIE = range(3)
SWAPPED = (SECOND, FIRST, TIE)
CHUNK_CELLS = 4_000_000


def ranks_of(ranking: Ranking) -> dict[Hashable, int]:
    return {item: rank for rank, group in enumerate(ranking) for item in group}


def pair_votes(rankings: Mapping[Hashable, Ranking]) -> PairVotes:
    """Of one task: annotator to ranking, turned into votes on each pair of completions."""
    ranked = {annotator: ranks_of(ranking) for annotator, ranking in rankings.items()}
    items = sorted(set().union(*ranked.values())) if ranked else []
    votes: PairVotes = {}
    for first, second in combinations(items, 2):
        votes[first, second] = {
            annotator: (ranks[first] < ranks[second]) - (ranks[first] > ranks[second])
            for annotator, ranks in ranked.items()
            if first in ranks and second in ranks
        }
    return votes


@dataclass(frozen=True)
class Rankings:
    """Rankings in columns. `task` and `annotator` have one entry a ranking, numbered from 0.

    Ranking r covers `item[start[r] : start[r + 1]]` with the places `rank` (0 is best, equal means tied).
    """

    task: numpy.ndarray
    annotator: numpy.ndarray
    start: numpy.ndarray
    item: numpy.ndarray
    rank: numpy.ndarray

    def __len__(self) -> int:
        return len(self.task)

    @property
    def sizes(self) -> numpy.ndarray:
        return numpy.diff(self.start)

    @classmethod
    def of(cls, rows: Iterable[tuple[int, int, Ranking]]) -> "Rankings":
        """From (task, annotator, ranking), both numbered from 0 and items being numbers."""
        task: list[int] = []
        annotator: list[int] = []
        start, item, rank = [0], [], []
        for of_task, by, ranking in rows:
            task.append(of_task)
            annotator.append(by)
            for place, group in enumerate(ranking):
                item.extend(group)
                rank.extend([place] * len(group))
            start.append(len(item))
        return cls(*(numpy.asarray(column, dtype=numpy.int64) for column in (task, annotator, start, item, rank)))

    def cells(self, rows: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Items and ranks of rankings of one size, of shape (rows, size), items ascending in each row."""
        size = int(self.sizes[rows[0]])
        at = self.start[rows][:, None] + numpy.arange(size)
        order = numpy.argsort(self.item[at], axis=1, kind="stable")
        return numpy.take_along_axis(self.item[at], order, 1), numpy.take_along_axis(self.rank[at], order, 1)

    def shared(self) -> Iterator[tuple[numpy.ndarray, numpy.ndarray]]:
        """Tasks that two or more ranked over the same completions, in batches alike in shape.

        Each batch is (tasks, ranks of shape (tasks, annotators, completions)).
        """
        order = numpy.argsort(self.task, kind="stable")
        known, begin, count = numpy.unique(self.task[order], return_index=True, return_counts=True)
        sizes = self.sizes[order]
        least = numpy.minimum.reduceat(sizes, begin) if len(begin) else sizes
        most = numpy.maximum.reduceat(sizes, begin) if len(begin) else sizes
        fit = (count > 1) & (least == most) & (most > 1)
        for n_annotators, n_items in sorted(set(zip(count[fit].tolist(), most[fit].tolist(), strict=True))):
            alike = numpy.flatnonzero(fit & (count == n_annotators) & (most == n_items))
            step = max(1, CHUNK_CELLS // (n_annotators * n_items * n_items))
            for chunk in (alike[at : at + step] for at in range(0, len(alike), step)):
                rows = order[begin[chunk][:, None] + numpy.arange(n_annotators)]
                items, ranks = self.cells(rows.ravel())
                items, ranks = (cells.reshape(len(chunk), n_annotators, n_items) for cells in (items, ranks))
                same = (items == items[:, :1]).all(axis=(1, 2))
                if same.any():
                    yield known[chunk[same]], ranks[same]


@dataclass(frozen=True)
class Votes:
    """Votes on pairs in columns. `task`, `first` and `second` describe the pairs; the rest has one entry a vote.

    `ranking` numbers the ranking that a vote was drawn from, so that what belongs together stays together. `value` is
    FIRST, SECOND or TIE. Votes stand in the order of their pairs.
    """

    task: numpy.ndarray
    first: numpy.ndarray
    second: numpy.ndarray
    pair: numpy.ndarray
    annotator: numpy.ndarray
    ranking: numpy.ndarray
    value: numpy.ndarray
    weight: numpy.ndarray

    def __len__(self) -> int:
        return len(self.pair)

    @property
    def n_pairs(self) -> int:
        return len(self.task)

    @property
    def n_annotators(self) -> int:
        return int(self.annotator.max()) + 1 if len(self) else 0

    def tallies(self) -> numpy.ndarray:
        """How often each answer was given to each pair, of shape (pairs, 3)."""
        return numpy.bincount(self.pair * 3 + self.value, minlength=3 * self.n_pairs).reshape(-1, 3)

    def of_tasks(self, wanted: numpy.ndarray) -> "Votes":
        """Those of some tasks only; `wanted` says of each task by its number."""
        return self.only(wanted[self.task[self.pair]])

    def only(self, kept: numpy.ndarray) -> "Votes":
        """Those that `kept` says True of, and their pairs."""
        has_votes = numpy.bincount(self.pair[kept], minlength=self.n_pairs) > 0
        number = numpy.cumsum(has_votes) - 1
        return Votes(
            self.task[has_votes], self.first[has_votes], self.second[has_votes],
            number[self.pair[kept]], self.annotator[kept], self.ranking[kept], self.value[kept], self.weight[kept],
        )  # fmt: skip

    def settled_by(self, rankings: Mapping[int, Ranking]) -> numpy.ndarray | None:
        """Of each pair what a ranking that counts as the truth says: FIRST, SECOND, TIE, or -1 where there is none.

        `rankings` is by number of the task. None where no pair is settled.
        """
        known = numpy.full(self.n_pairs, -1)
        for pair in numpy.flatnonzero(numpy.isin(self.task, list(rankings))).tolist():
            ranks = ranks_of(rankings[int(self.task[pair])])
            first, second = ranks.get(int(self.first[pair])), ranks.get(int(self.second[pair]))
            if first is not None and second is not None:
                known[pair] = FIRST if first < second else SECOND if second < first else TIE
        return known if (known >= 0).any() else None

    def mirrored(self) -> "Votes":
        """Each pair entered the other way round."""
        return Votes(
            self.task, self.second, self.first, self.pair, self.annotator, self.ranking,
            numpy.asarray(SWAPPED)[self.value], self.weight,
        )  # fmt: skip

    @classmethod
    def drawn_from(cls, rankings: Rankings) -> "Votes":
        """Every ranking of K completions gives K (K - 1) / 2 votes of weight 2 / K: together as much as its K - 1
        independent comparisons. The first of a pair is the completion with the lower number."""
        parts: list[list[numpy.ndarray]] = []
        sizes = rankings.sizes
        for size in numpy.unique(sizes[sizes > 1]).tolist():
            rows = numpy.flatnonzero(sizes == size)
            items, ranks = rankings.cells(rows)
            left, right = numpy.triu_indices(size, 1)
            sign = numpy.sign(ranks[:, left] - ranks[:, right]).ravel()
            parts.append(
                [
                    numpy.repeat(rankings.task[rows], len(left)), items[:, left].ravel(), items[:, right].ravel(),
                    numpy.repeat(rows, len(left)), numpy.where(sign < 0, FIRST, numpy.where(sign > 0, SECOND, TIE)),
                    numpy.full(sign.shape, 2 / size),
                ]
            )  # fmt: skip
        if not parts:
            nothing = numpy.zeros(0, dtype=numpy.int64)
            return cls(nothing, nothing, nothing, nothing, nothing, nothing, nothing, numpy.zeros(0))
        task, first, second, ranking, value, weight = (numpy.concatenate(column) for column in zip(*parts, strict=True))
        order = numpy.lexsort((second, first, task))
        task, first, second, ranking = task[order], first[order], second[order], ranking[order]
        is_new = numpy.ones(len(task), dtype=bool)
        is_new[1:] = (task[1:] != task[:-1]) | (first[1:] != first[:-1]) | (second[1:] != second[:-1])
        return cls(
            task[is_new], first[is_new], second[is_new],
            numpy.cumsum(is_new) - 1, rankings.annotator[ranking], ranking, value[order], weight[order],
        )  # fmt: skip


def numbered(names: Iterable[Any]) -> tuple[numpy.ndarray, list[Any]]:
    """Names as numbers from 0 in the order they first come, and the names by number."""
    numbers: dict[Any, int] = {}
    column = numpy.fromiter((numbers.setdefault(name, len(numbers)) for name in names), dtype=numpy.int64)
    return column, list(numbers)
