"""From rankings to preference pairs. Pure: no Django, no database.

A ranking of K completions holds C(K, 2) comparisons that are not independent, so each pair of one ranking weighs
1 / C(K, 2) (Ouyang et al. 2022, arXiv:2203.02155, section 3.5) and all of them share a group.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from math import comb
from typing import Any, NamedTuple

Probabilities = Mapping[tuple[int, int], tuple[float, float, float]]
SAME = 1e-9  # expected wins that differ by less are the same: probabilities come from sums in another order


class Vote(NamedTuple):
    """One judgement's ranking of a task, completions by any hashable name, with its strength from 1 to 3."""

    ranking: Sequence[Sequence[int]]
    strength: int | None = None


class Pair(NamedTuple):
    """Two completions and what the votes say of them. `chosen` won; in a tie it is merely the one named first."""

    chosen: int
    rejected: int
    tie: bool
    n_votes: int
    agreement: float  # share of the votes that say what the pair says, 0 to 1 (0 is possible where it was settled)
    strength: float | None  # mean over the votes that agree and give one
    weight: float
    soft_label: float = 1.0  # probability that `chosen` is the better one; 0.5 for a tie
    vote: int | None = None  # which of the votes this is, where it is one vote's


def ranks(ranking: Sequence[Sequence[int]]) -> dict[int, int]:
    """Completion to rank, 0 is best; tied completions share one."""
    return {item: rank for rank, group in enumerate(ranking) for item in group}


def outcome(ranking: dict[int, int], first: int, second: int) -> int:
    """1 where `first` is ranked better, -1 where `second` is, 0 for a tie."""
    return (ranking[first] < ranking[second]) - (ranking[first] > ranking[second])


def pairs_for_training(
    votes: Sequence[Vote],
    policy: Mapping[str, Any],
    *,
    settled: Sequence[Sequence[int]] | None = None,
    probabilities: Probabilities | None = None,
    min_agreement: float | None = None,
) -> list[Pair]:
    """The pairs of one task that a policy lets a trainer see, in a fixed order.

    They weigh 1 together, less what is left out: ties if the policy drops them, and pairs on which fewer of the votes
    agree with most of them than `min_agreement`. What a reviewer `settled` decides in the place of the votes, for certain, and is never
    left out for want of agreement. `probabilities` are those of `probable_pairs`, for the policy of that name.
    """
    if not votes:
        return []
    which = policy["pairs"]
    if settled or policy["votes"] == "majority":
        pairs = pairs_of(votes, settled)
        if which == "extremes":
            pairs = select_pairs(pairs, mean_ranks([Vote(settled)] if settled else votes), which)
    elif policy["votes"] == "each":
        pairs = pairs_of_each(votes, which)
    else:
        known = probabilities or {}
        pairs = select_pairs(probable_pairs(votes, known), expected_places(known), which)
    if min_agreement and not settled:
        # Of a pair, all votes are seen or none.
        agreed = {frozenset(pair[:2]) for pair in pairs_of(votes) if pair.agreement >= min_agreement}
        pairs = [pair for pair in pairs if frozenset(pair[:2]) in agreed]
    return with_ties(pairs, policy["ties"])


def pairs_of(votes: Iterable[Vote], settled: Sequence[Sequence[int]] | None = None) -> list[Pair]:
    """All pairs of one task, by majority of its votes; a pair split evenly is a tie.

    A ranking that a reviewer `settled` decides in the place of the majority; votes are then counted for and against it.
    Every vote ranks the same K completions. Returns C(K, 2) pairs in a fixed order, or none without votes.
    """
    votes = list(votes)
    if not votes:
        return []
    if len(votes) == 1 and not settled:
        return _pairs_of_one(votes[0])
    places = [ranks(vote.ranking) for vote in votes]
    by_reviewer = ranks(settled) if settled else None
    weight = _share(len(places[0]))
    pairs = []
    for first, second in combinations(sorted(places[0]), 2):
        outcomes = [outcome(place, first, second) for place in places]
        won, lost = outcomes.count(1), outcomes.count(-1)
        tied = len(votes) - won - lost
        if by_reviewer:
            decided = outcome(by_reviewer, first, second)
        else:
            # Ties take part in the majority: two ties against one win is a tie.
            decided = 1 if won > max(lost, tied) else -1 if lost > max(won, tied) else 0
        pairs.append(
            Pair(
                *((second, first) if decided < 0 else (first, second)),
                decided == 0,
                len(votes),
                (tied, won, lost)[decided] / len(votes),
                _strength(votes, outcomes, decided),
                weight,
                1.0 if decided else 0.5,
            )
        )
    return pairs


def pairs_of_each(votes: Sequence[Vote], which: str = "all") -> list[Pair]:
    """The pairs of every vote by itself, which share the weight of 1: all of its ranking, or its `extremes`.

    `agreement` is the share of all votes that say of the two what this one says. A vote that ties all has no extremes.
    """
    places = [ranks(vote.ranking) for vote in votes]
    found: list[Pair] = []
    for number, vote in enumerate(votes):
        pairs = select_pairs(_pairs_of_one(vote, number), mean_ranks([vote]) if which == "extremes" else {}, which)
        for pair in pairs:
            said = 0 if pair.tie else 1
            same = sum(outcome(place, pair.chosen, pair.rejected) == said for place in places)
            found.append(pair._replace(n_votes=len(votes), agreement=same / len(votes)))
    shared = len({pair.vote for pair in found})
    return [pair._replace(weight=pair.weight / shared) for pair in found]


def probable_pairs(votes: Sequence[Vote], probabilities: Probabilities) -> list[Pair]:
    """All pairs of one task, by what is most probable of each.

    `probabilities` are of (first, second), first < second: that the first is better, that the second is, and of a tie.
    The soft label is the probability that `chosen` is better, given that it is no tie, to six digits: the last ones hang
    on the order in which numbers were added up.
    """
    places = [ranks(vote.ranking) for vote in votes]
    weight = _share(len(places[0]))
    pairs = []
    for first, second in combinations(sorted(places[0]), 2):
        p_first, p_second, p_tie = probabilities[first, second]
        likelier = max(p_first, p_second)
        decided = 0 if p_tie > likelier or abs(p_first - p_second) < SAME else 1 if p_first > p_second else -1
        outcomes = [outcome(place, first, second) for place in places]
        pairs.append(
            Pair(
                *((second, first) if decided < 0 else (first, second)),
                decided == 0,
                len(votes),
                outcomes.count(decided) / len(votes),
                _strength(votes, outcomes, decided),
                weight,
                round(likelier / (p_first + p_second), 6) if decided else 0.5,
            )
        )
    return pairs


def expected_places(probabilities: Probabilities) -> dict[int, float]:
    """Completion to the wins it is expected not to have, a tie being half of one: the least is the best."""
    lost: dict[int, float] = {}
    for (first, second), (p_first, p_second, p_tie) in probabilities.items():
        lost[first] = lost.get(first, 0.0) + p_second + p_tie / 2
        lost[second] = lost.get(second, 0.0) + p_first + p_tie / 2
    return {item: round(total, 9) for item, total in lost.items()}


def select_pairs(pairs: list[Pair], ranking: Mapping[int, float], which: str) -> list[Pair]:
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
    return [pair._replace(weight=1 / len(kept)) for pair in kept]


def with_ties(pairs: list[Pair], ties: str) -> list[Pair]:
    """`drop` leaves ties out, with their weight; `both` gives each way round half of it; `soft_label` keeps them."""
    if ties == "soft_label" or not any(pair.tie for pair in pairs):
        return pairs
    if ties == "drop":
        return [pair for pair in pairs if not pair.tie]
    found = []
    for pair in pairs:
        if pair.tie:
            half = pair._replace(weight=pair.weight / 2)
            found += [half, half._replace(chosen=pair.rejected, rejected=pair.chosen)]
        else:
            found.append(pair)
    return found


def margin_of(strength: float | None, margins: Mapping[str, float]) -> float | None:
    """By the strength rounded to a whole one, halves to the even one: 1.5 and 2.5 are both 2. None where there is none."""
    return margins.get(str(round(strength))) if strength else None


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


def without(ranking: Sequence[Sequence[int]], items: Iterable[int]) -> list[list[int]]:
    """The ranking of what is left when these take no part."""
    gone = set(items)
    groups = ([item for item in group if item not in gone] for group in ranking)
    return [group for group in groups if group]


def _pairs_of_one(vote: Vote, number: int | None = None) -> list[Pair]:
    """All pairs of one vote's ranking, in the order of `pairs_of`."""
    place = ranks(vote.ranking)
    weight = _share(len(place))
    pairs = []
    for first, second in combinations(sorted(place), 2):
        decided = outcome(place, first, second)
        chosen, rejected = (second, first) if decided < 0 else (first, second)
        strength = float(vote.strength) if decided and vote.strength is not None else None
        pairs.append(
            Pair(chosen, rejected, not decided, 1, 1.0, strength, weight, 1.0 if decided else 0.5, number)
        )  # fmt: skip
    return pairs


def _share(n_items: int) -> float:
    return 1 / comb(n_items, 2) if n_items > 1 else 1.0


def _strength(votes: Sequence[Vote], outcomes: Sequence[int], decided: int) -> float | None:
    given = [
        vote.strength for vote, said in zip(votes, outcomes, strict=True) if said == decided and vote.strength is not None
    ]
    return sum(given) / len(given) if given and decided else None
