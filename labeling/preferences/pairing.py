"""From rankings to preference pairs. Pure: no Django, no database.

A ranking of K completions holds C(K, 2) comparisons that are not independent, so each pair of one ranking weighs
1 / C(K, 2) (Ouyang et al. 2022, arXiv:2203.02155, section 3.5) and all of them share a group.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb


@dataclass(frozen=True)
class Vote:
    """One judgement's ranking of a task, completions by any hashable name, with its strength from 1 to 3."""

    ranking: Sequence[Sequence[int]]
    strength: int | None = None


@dataclass(frozen=True)
class Pair:
    """Two completions and what the votes say of them. `chosen` won; in a tie it is merely the one named first."""

    chosen: int
    rejected: int
    tie: bool
    n_votes: int
    agreement: float  # share of the votes that say what the pair says, 0 to 1 (0 is possible where it was settled)
    strength: float | None  # mean over the votes that agree and give one
    weight: float


def ranks(ranking: Sequence[Sequence[int]]) -> dict[int, int]:
    """Completion to rank, 0 is best; tied completions share one."""
    return {item: rank for rank, group in enumerate(ranking) for item in group}


def outcome(ranking: dict[int, int], first: int, second: int) -> int:
    """1 where `first` is ranked better, -1 where `second` is, 0 for a tie."""
    return (ranking[first] < ranking[second]) - (ranking[first] > ranking[second])


def pairs_of(votes: Iterable[Vote], settled: Sequence[Sequence[int]] | None = None) -> list[Pair]:
    """All pairs of one task, by majority of its votes; a pair split evenly is a tie.

    A ranking that a reviewer `settled` decides in the place of the majority; votes are then counted for and against it.
    Every vote ranks the same K completions. Returns C(K, 2) pairs in a fixed order, or none without votes.
    """
    votes = list(votes)
    if not votes:
        return []
    ranked = [(ranks(vote.ranking), vote.strength) for vote in votes]
    items = sorted(ranked[0][0])
    by_reviewer = ranks(settled) if settled else None
    weight = 1 / comb(len(items), 2) if len(items) > 1 else 1.0
    pairs = []
    for first, second in combinations(items, 2):
        outcomes = [outcome(ranking, first, second) for ranking, _ in ranked]
        counts = Counter(outcomes)
        # Ties take part in the majority: two ties against one win is a tie.
        top = max(counts.values())
        leaders = [value for value, count in counts.items() if count == top]
        decided = leaders[0] if len(leaders) == 1 else 0
        if by_reviewer:
            decided = outcome(by_reviewer, first, second)
        agreeing = [strength for value, (_, strength) in zip(outcomes, ranked, strict=True) if value == decided]
        given = [strength for strength in agreeing if strength is not None]
        chosen, rejected = (second, first) if decided < 0 else (first, second)
        pairs.append(
            Pair(
                chosen=chosen,
                rejected=rejected,
                tie=decided == 0,
                n_votes=len(votes),
                agreement=counts[decided] / len(votes),
                strength=sum(given) / len(given) if given and decided else None,
                weight=weight,
            )
        )
    return pairs


def select_pairs(pairs: list[Pair], ranking: dict[int, int], which: str) -> list[Pair]:
    """What a snapshot's policy keeps of one task's pairs: `all`, or `extremes` (a best against a worst).

    `ranking` is the consensus: completion to mean rank. Kept pairs share the task's weight of 1 again.
    """
    if which == "all" or not ranking:
        return pairs
    best, worst = min(ranking.values()), max(ranking.values())
    kept = [
        pair for pair in pairs
        if not pair.tie and ranking[pair.chosen] == best and ranking[pair.rejected] == worst
    ]  # fmt: skip
    return [Pair(**{**pair.__dict__, "weight": 1 / len(kept)}) for pair in kept]


def beaten_by_correction(ranking: Sequence[Sequence[int]], corrected: int) -> list[int]:
    """What an edit of `corrected` is better than: what it corrects, and all that this ranking puts strictly below that.

    Edited > chosen > rejected: within one judgement the order carries over. Without a ranking, only what it corrects.
    """
    rank = ranks(ranking)
    below = [item for item, place in rank.items() if place > rank[corrected]] if corrected in rank else []
    return [corrected, *sorted(below)]


def mean_ranks(votes: Iterable[Vote]) -> dict[int, float]:
    """Completion to its mean rank over the votes, tied completions at the middle of the places they share."""
    sums: dict[int, float] = {}
    n = 0
    for vote in votes:
        n += 1
        place = 0
        for group in vote.ranking:
            middle = place + (len(group) - 1) / 2
            for item in group:
                sums[item] = sums.get(item, 0.0) + middle
            place += len(group)
    return {item: total / n for item, total in sums.items()}
