"""What annotators say of what holds: of two completions one is better, or they are a tie."""

import numpy

from labeling.quality.statistics.intervals import Figure, clustered_proportion, undefined
from labeling.quality.statistics.reliability import shares_by_annotator
from labeling.quality.statistics.votes import SWAPPED, TIE, Votes

# What holds -> what was said -> the share of votes that say so.
Confusion = dict[str, dict[str, Figure]]
NO_SUCH_PAIR = {
    "better": "no vote on a pair of which one is better by the model",
    "tie": "no vote on a pair that is a tie by the model",
}
LEAST = 0.5  # votes: below, a share would be made of roundings


def confusion_of(votes: Votes, posteriors: numpy.ndarray) -> Confusion:
    """Of all votes together. `posteriors` (pairs, 3) are those of `fit_consensus`.

    `better`: of votes on pairs of which one is better, the share that say `same` (that one), `other` and `tie`; `tie`: of
    votes on ties, the share that say `better` (of either) and `tie`. A vote counts for what holds by as much as it is
    probable. `n` is the number of votes to be expected so. The interval is Wilson's by task, the model taken as known.
    """
    _, task = numpy.unique(votes.task, return_inverse=True)
    by = task[votes.pair]

    def share(said: numpy.ndarray, counted: numpy.ndarray, reason: str) -> Figure:
        if counted.sum() < LEAST:
            return undefined(reason)
        return clustered_proportion(numpy.bincount(by, said), numpy.bincount(by, counted))

    return {
        holds: {name: share(said, counted, NO_SUCH_PAIR[holds]) for name, said in cells.items()}
        for holds, (counted, cells) in _cells(votes, posteriors).items()
    }


def confusions_by_annotator(votes: Votes, posteriors: numpy.ndarray) -> list[Confusion]:
    """The same of each annotator; here a ranking's votes are one cluster."""
    found: list[Confusion] = [{"better": {}, "tie": {}} for _ in range(votes.n_annotators)]
    for holds, (counted, cells) in _cells(votes, posteriors).items():
        n = numpy.bincount(votes.annotator, counted, votes.n_annotators)
        for name, said in cells.items():
            figures = shares_by_annotator(votes, said, counted, NO_SUCH_PAIR[holds])
            for by, figure in enumerate(figures):
                found[by][holds][name] = figure if n[by] >= LEAST else undefined(NO_SUCH_PAIR[holds])
    return found


def _cells(
    votes: Votes, posteriors: numpy.ndarray
) -> dict[str, tuple[numpy.ndarray, dict[str, numpy.ndarray]]]:  # fmt: skip
    """What holds -> (how probable that is of each vote's pair, what is said -> the same where the vote says so)."""
    of_pair = posteriors[votes.pair]
    every = numpy.arange(len(votes))
    is_tie = votes.value == TIE
    tie, better = of_pair[:, TIE], 1 - of_pair[:, TIE]
    same, other = (of_pair[every, side] for side in (votes.value, numpy.asarray(SWAPPED)[votes.value]))
    nothing = numpy.zeros(len(votes))
    return {
        "better": (
            better,
            {
                "same": numpy.where(is_tie, nothing, same),
                "other": numpy.where(is_tie, nothing, other),
                "tie": numpy.where(is_tie, better, nothing),
            },
        ),
        "tie": (tie, {"better": numpy.where(is_tie, nothing, tie), "tie": numpy.where(is_tie, tie, nothing)}),
    }
