"""What annotators hold together: of two completions which is better, and how sure, then an order of all of a task."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy

from labeling.quality.statistics.intervals import Figure
from labeling.quality.statistics.reliability import DawidSkene, dawid_skene, label_posteriors, shares_by_annotator
from labeling.quality.statistics.votes import CHUNK_CELLS, SWAPPED, TIE, Votes

# In votes: with none of their own yet, annotators are taken to be right two times in three.
SMOOTHING, TRUST = 1.0, 3.0
# Nats a vote, as crowd-kit's. Many more steps hardly change which of two is better, but make of "tie" the class of all
# close pairs, whether anybody called them a tie or not.
TOLERANCE = 1e-5
METHOD = (
    "Dawid-Skene over votes first / second / tie on pairs of completions, blind to sides, each annotator taken to be right "
    "two times in three before their own votes count; neighbours in the order are tied unless it is more likely than not "
    "that the upper one is better"
)


def fit_consensus(votes: Votes, known: numpy.ndarray | None = None) -> DawidSkene:
    """Dawid and Skene's model of all votes on pairs; posteriors are of (first better, second better, tie).

    `known` (pairs) is what was settled, as `Votes.settled_by` gives it: there the answer is certain.

    A pair entered the other way round gets the mirrored answer: the confusion matrices are the same under exchange
    of first and second, and so are the priors.
    """
    return dawid_skene(
        votes.pair, votes.annotator, votes.value, n_labels=3, known=known, swap=SWAPPED,
        smoothing=SMOOTHING, trust=TRUST, tolerance=TOLERANCE,
    )  # fmt: skip


def usual_confusion() -> numpy.ndarray:
    """That of an annotator without votes, of shape (3, 3): true by given."""
    return (SMOOTHING + TRUST * numpy.eye(3)) / (3 * SMOOTHING + TRUST)


def pair_probabilities(
    votes: Votes, confusion: numpy.ndarray, priors: numpy.ndarray, known: numpy.ndarray | None = None
) -> numpy.ndarray:
    """Of each pair: the probabilities that the first is better, that the second is, and of a tie, of shape (pairs, 3).

    `confusion` (annotators, 3, 3) and `priors` (3) are those of `fit_consensus`, so that a few tasks can be
    answered without all the others.
    """
    from scipy.sparse import csr_array

    starts = numpy.concatenate([[0], numpy.cumsum(numpy.bincount(votes.pair, minlength=votes.n_pairs))])
    shape = (votes.n_pairs, 3 * len(confusion))
    given = csr_array((numpy.ones(len(votes)), votes.annotator * 3 + votes.value, starts), shape=shape)
    return label_posteriors(given, confusion, priors, known)[0]


def accuracies(votes: Votes, model: DawidSkene) -> list[Figure]:
    """Of each annotator: the expected share of their votes that are the true label.

    Of a vote, what counts as right is the probability of its label given all votes, the annotator's own included, so
    it is a little high where few judged. The interval is Wilson's by task, the model taken as known.
    """
    right = model.posteriors[votes.pair, votes.value]
    figures = shares_by_annotator(votes, right, numpy.ones(len(votes)), "no vote on a pair")
    return [figure | {"method": f"Dawid-Skene accuracy; {figure['method']}"} for figure in figures]


@dataclass(frozen=True)
class Order:
    """Consensus rankings of tasks with equally many completions.

    `tasks` (n); `items` and `place` (n, completions): completions best first, and the place of each, equal for ties;
    `points` (n, completions): over how many of the others each is expected to win, a tie as half.
    """

    tasks: numpy.ndarray
    items: numpy.ndarray
    place: numpy.ndarray
    points: numpy.ndarray


def consensus_rankings(votes: Votes, probabilities: numpy.ndarray) -> Iterator[Order]:
    """The order of each task's completions, in batches of tasks alike in size.

    Completions are ordered by the wins that the pairs' probabilities lead one to expect (Borda's count of them; it
    needs no scores and can't run in circles). Neighbours stand in one place unless the upper is better than the lower
    with a probability above one half: "undecided" and "equally good" are both ties here. Tasks in which some pair of
    completions has no vote are left out.
    """
    task, begin, n_pairs = numpy.unique(votes.task, return_index=True, return_counts=True)
    won = probabilities[:, 0] + probabilities[:, TIE] / 2
    for count in numpy.unique(n_pairs).tolist():
        size = round((1 + (1 + 8 * count) ** 0.5) / 2)
        if size * (size - 1) // 2 != count:
            continue
        alike = numpy.flatnonzero(n_pairs == count)
        step = max(1, CHUNK_CELLS // size**2)
        left, right = numpy.triu_indices(size, 1)
        for chunk in (alike[at : at + step] for at in range(0, len(alike), step)):
            rows = begin[chunk][:, None] + numpy.arange(count)
            items = numpy.column_stack([votes.first[rows[:, 0]], votes.second[rows[:, : size - 1]]])
            # Pairs of a task stand in the order of triu_indices, because its pairs are sorted by first, then second.
            is_whole = (votes.first[rows] == items[:, left]).all(1) & (votes.second[rows] == items[:, right]).all(1)
            chunk, rows, items = chunk[is_whole], rows[is_whole], items[is_whole]
            better = numpy.zeros((len(chunk), size, size))
            beats = numpy.zeros_like(better)
            better[:, left, right], better[:, right, left] = won[rows], 1 - won[rows]
            beats[:, left, right], beats[:, right, left] = probabilities[rows, 0], probabilities[rows, 1]
            points = better.sum(axis=2)
            # Rounded, so that sums equal but for the last bit keep the order of items and are found tied below.
            order = numpy.argsort(-numpy.round(points, 9), axis=1, kind="stable")
            upper, lower = order[:, :-1], order[:, 1:]
            decided = beats[numpy.arange(len(chunk))[:, None], upper, lower] > 0.5
            place = numpy.concatenate([numpy.zeros((len(chunk), 1), int), numpy.cumsum(decided, axis=1)], axis=1)
            yield Order(
                task[chunk], numpy.take_along_axis(items, order, 1), place, numpy.take_along_axis(points, order, 1)
            )
