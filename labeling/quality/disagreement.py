"""How strongly those who judged one task differ, and where a model contradicts them. Pure: no Django, no database."""

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import combinations

from labeling.quality.statistics import PairVotes, Ranking, pair_votes

MUCH = 1 / 3  # of what was compared: from here on a task is worth a look
SURE = 0.9  # a model that is at least so sure contradicts confidently
ALMOST = 1e-9  # shares are of whole numbers

# annotator -> completion -> axis -> value
Ratings = Mapping[Hashable, Mapping[Hashable, Mapping[str, float]]]
# (one completion, another) -> probability that the first is the better one
Beliefs = Mapping[tuple[Hashable, Hashable], float]


@dataclass(frozen=True)
class Difference:
    """`value` from 0 (all say the same) to 1, over `n` comparisons; None where nothing can be compared."""

    value: float | None
    n: int

    @property
    def is_much(self) -> bool:
        return self.value is not None and self.value >= MUCH - ALMOST


def ranking_difference(rankings: Mapping[Hashable, Ranking]) -> Difference:
    """The share of (pair of people, pair of completions) on which the two differ; a tie is an answer."""
    differing = n = 0
    for votes in pair_votes(rankings).values():
        size = len(votes)
        alike = sum(count * (count - 1) // 2 for count in Counter(votes.values()).values())
        n += size * (size - 1) // 2
        differing += size * (size - 1) // 2 - alike
    return Difference(differing / n if n else None, n)


def rating_difference(ratings: Ratings, scales: Mapping[str, tuple[float, float]]) -> Difference:
    """How far two people lie apart on average, as a share of the scale, over (pair of people, completion, axis).

    `scales` holds the ends of each axis; values of an axis that is not in it don't count. Yes and no are 1 and 0.
    """
    values: dict[tuple[Hashable, str], list[float]] = {}
    for by_completion in ratings.values():
        for completion, by_axis in by_completion.items():
            for axis, value in by_axis.items():
                if axis in scales and scales[axis][0] < scales[axis][1]:
                    values.setdefault((completion, axis), []).append(value)
    apart, n = 0.0, 0
    for (_, axis), given in values.items():
        low, high = scales[axis]
        for one, other in combinations(given, 2):
            apart += min(1.0, abs(one - other) / (high - low))
            n += 1
    return Difference(apart / n if n else None, n)


def majority_of(votes: Mapping[Hashable, int]) -> int | None:
    """What a confident majority says of a pair: all of at least two people, or two thirds of at least three."""
    if len(votes) < 2:
        return None
    (answer, count), *_ = Counter(votes.values()).most_common(1)
    return answer if count == len(votes) or (len(votes) >= 3 and 3 * count >= 2 * len(votes)) else None


def contradiction(votes: PairVotes, beliefs: Beliefs) -> float | None:
    """How sure a model is, at most over the pairs, that a confident majority has the order wrong; None: never sure.

    A majority that says tie is not contradicted: the model knows no ties.
    """
    found = []
    for (first, second), by_person in votes.items():
        belief = beliefs.get((first, second))
        if belief is None and (second, first) in beliefs:
            belief = 1 - beliefs[second, first]
        answer = majority_of(by_person)
        if belief is None or not answer:
            continue
        against = 1 - belief if answer == 1 else belief
        if against >= SURE - ALMOST:
            found.append(against)
    return max(found, default=None)
