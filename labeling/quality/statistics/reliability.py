"""How far each annotator can be relied on: against the others, and by Dawid and Skene's model of who errs how.

Written here on arrays rather than taken from crowd-kit, which would bring pandas, scikit-learn, nltk and transformers
into the web process and wants the votes as data frames; `python -m bench.statistics` compares the two.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy

from labeling.quality.statistics.intervals import Figure, clustered_proportion, undefined
from labeling.quality.statistics.votes import PairVotes, Votes

LONGEST_LEAP = 100.0
NOBODY_ELSE = "nobody else judged the same tasks"


def agreement_with_others(tasks: Iterable[PairVotes]) -> dict[Hashable, Figure]:
    """Per annotator: the share of pairs on which they say what most of the others say.

    The annotator's own vote is left out of the majority, and so are pairs on which the others are split evenly.
    """
    right: dict[Hashable, list[int]] = {}
    counted: dict[Hashable, list[int]] = {}
    for task in tasks:
        mine: dict[Hashable, list[int]] = {}
        for votes in task.values():
            tally = Counter(votes.values())
            for annotator, vote in votes.items():
                same, total = mine.setdefault(annotator, [0, 0])
                others = tally.copy()
                others[vote] -= 1
                (top, most), *rest = others.most_common(2)
                if most and not (rest and rest[0][1] == most):
                    mine[annotator] = [same + (top == vote), total + 1]
        for annotator, (same, total) in mine.items():
            right.setdefault(annotator, []).append(same)
            counted.setdefault(annotator, []).append(total)
    return {annotator: clustered_proportion(right[annotator], counted[annotator]) for annotator in right}


def sides_with_others(votes: Votes) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Of each vote: whether most of the others say the same, and whether most of them say one thing at all."""
    others = votes.tallies()[votes.pair]
    others[numpy.arange(len(votes)), votes.value] -= 1
    most = others.max(axis=1, initial=0)
    has_majority = (most > 0) & ((others == most[:, None]).sum(axis=1) == 1)
    return has_majority & (others[numpy.arange(len(votes)), votes.value] == most), has_majority


def shares_by_annotator(votes: Votes, right: numpy.ndarray, counted: numpy.ndarray, reason: str) -> list[Figure]:
    """Of each annotator the sum of `right` over that of `counted`, a value a vote; a ranking's votes are one cluster."""
    n_rankings = int(votes.ranking.max()) + 1 if len(votes) else 0
    by = numpy.zeros(n_rankings, dtype=int)
    by[votes.ranking] = votes.annotator
    sums = [numpy.bincount(votes.ranking, column, n_rankings) for column in (right, counted)]
    order = numpy.argsort(by, kind="stable")
    ends = numpy.searchsorted(by[order], numpy.arange(votes.n_annotators + 1))
    figures = []
    for begin, end in pairwise(ends.tolist()):
        rows = order[begin:end]
        figure = clustered_proportion(sums[0][rows], sums[1][rows])
        figures.append(figure if figure["value"] is not None else undefined(reason))
    return figures


@dataclass(frozen=True)
class DawidSkene:
    """What the model holds of items and annotators. `n_iterations` of EM were made.

    `posteriors` (items, labels): the probability of each true label. `confusion` (annotators, true, given): the
    probability that an annotator gives a label to an item of some true label; `counts` are the votes it was estimated
    from, each shared among the true labels. `priors` (labels): how frequent each true label is. `log_likelihood` is
    that of all votes, in nats; it includes the prior of the confusion matrices where there is one.
    """

    posteriors: numpy.ndarray
    confusion: numpy.ndarray
    counts: numpy.ndarray
    priors: numpy.ndarray
    log_likelihood: float
    n_iterations: int
    converged: bool


def dawid_skene(
    item: numpy.ndarray,
    annotator: numpy.ndarray,
    label: numpy.ndarray,
    *,
    n_labels: int | None = None,
    known: numpy.ndarray | None = None,
    swap: Sequence[int] | None = None,
    smoothing: float = 1e-3,
    trust: float = 0.0,
    max_iterations: int = 500,
    tolerance: float = 1e-8,
    leaps: bool = True,
) -> DawidSkene:
    """True labels and annotators' confusion from votes, by EM (Dawid and Skene 1979).

    A vote is (item, annotator, label), each numbered from 0. It starts from the shares of votes, so equal votes give
    equal results. `smoothing` is added to each cell of a confusion matrix and `trust` to its diagonal, in votes: with
    few votes a person is then taken to be right more often than not, instead of being believed or inverted on the word
    of one. `known` (items) holds the true label of items that somebody settled, -1 elsewhere: there the E step is fixed
    at that label, and the votes on them count towards the confusion matrices as votes on a known truth do. That is EM
    over labelled and unlabelled items together (Nigam et al. 2000, Machine Learning 39, section 5; Dawid and Skene's own
    section 2 where all are known). Which items are settled may hang on the votes, as it does where people differ: it
    must only not hang on the truth in another way. `swap` (the label that each becomes when an item's sides change places) makes the model blind to sides: an
    item entered the other way round gets the mirrored posterior. Ends when an iteration gains less than `tolerance` nats
    a vote.

    Items of one ranking are taken as independent, which they are not, so posteriors are surer than they should be.
    """
    from scipy.sparse import csr_array  # of use to the worker; the web process does without while it can

    n_votes, n_items = len(item), int(item.max()) + 1
    n_annotators = int(annotator.max()) + 1
    n_labels = n_labels or int(label.max()) + 1
    # A row an item, a column an (annotator, label): both steps of EM are products with this matrix.
    order = numpy.argsort(item, kind="stable")
    starts = numpy.concatenate([[0], numpy.cumsum(numpy.bincount(item, minlength=n_items))])
    given = csr_array(
        (numpy.ones(n_votes), (annotator * n_labels + label)[order], starts), shape=(n_items, n_annotators * n_labels)
    )
    by_annotator = given.T.tocsr()
    prior_votes = smoothing + trust * numpy.eye(n_labels)

    def estimate(posteriors: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
        counts = (by_annotator @ posteriors).reshape(n_annotators, n_labels, n_labels).transpose(0, 2, 1)
        priors = posteriors.mean(axis=0)
        if swap is not None:
            counts = (counts + counts[:, swap][:, :, swap]) / 2
            priors = (priors + priors[list(swap)]) / 2
        confusion = counts + prior_votes
        return confusion / confusion.sum(axis=2, keepdims=True), priors, counts

    def judge(confusion: numpy.ndarray, priors: numpy.ndarray) -> tuple[numpy.ndarray, float]:
        posteriors, log_evidence = label_posteriors(given, confusion, priors, known)
        with numpy.errstate(divide="ignore", invalid="ignore"):
            of_prior = numpy.where(prior_votes > 0, prior_votes * numpy.log(confusion), 0.0)
        return posteriors, float(log_evidence.sum() + of_prior.sum())

    votes_of_item = numpy.bincount(item * n_labels + label, minlength=n_items * n_labels).reshape(n_items, n_labels)
    posteriors = votes_of_item / numpy.maximum(1, votes_of_item.sum(axis=1, keepdims=True))
    if known is not None:
        posteriors = numpy.where(known[:, None] < 0, posteriors, known[:, None] == numpy.arange(n_labels))
    path: list[tuple[numpy.ndarray, numpy.ndarray]] = []
    reached, converged, n_iterations = -numpy.inf, False, 0
    while True:
        confusion, priors, counts = estimate(posteriors)
        posteriors, log_likelihood = judge(confusion, priors)
        n_iterations += 1
        converged = log_likelihood - reached < tolerance * n_votes
        if converged or n_iterations >= max_iterations:
            return DawidSkene(posteriors, confusion, counts, priors, log_likelihood, n_iterations, converged)
        reached = log_likelihood
        path.append((confusion, priors))
        if leaps and len(path) == 3:
            # EM creeps where annotators are hard to tell apart. Three steps show where it is going; a leap is kept
            # only if it gains on the step that it starts from.
            leap = _leap(path)
            of_leap, gained = judge(*leap)
            if gained > reached:
                posteriors, reached = of_leap, gained
            path = []


def _leap(path: list[tuple[numpy.ndarray, numpy.ndarray]]) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Squared extrapolation of three EM steps (Varadhan and Roland 2008, scheme S3), on logarithms."""
    sizes = path[0][0].shape
    points = [numpy.log(numpy.maximum(numpy.concatenate([a.ravel(), b]), 1e-12)) for a, b in path]
    step = points[1] - points[0]
    bend = points[2] - points[1] - step
    length = -min(LONGEST_LEAP, max(1.0, float(numpy.linalg.norm(step) / max(numpy.linalg.norm(bend), 1e-12))))
    ahead = points[0] - 2 * length * step + length**2 * bend
    rows = numpy.concatenate([ahead[: -sizes[1]].reshape(-1, sizes[2]), ahead[None, -sizes[1] :]])
    rows = numpy.exp(rows - rows.max(axis=1, keepdims=True))
    rows /= rows.sum(axis=1, keepdims=True)
    return rows[:-1].reshape(sizes), rows[-1]


def label_posteriors(
    given: object, confusion: numpy.ndarray, priors: numpy.ndarray, known: numpy.ndarray | None = None
) -> tuple[numpy.ndarray, ...]:
    """The E step: probabilities of each item's labels, and the logarithm of the probability of its votes.

    `given` counts votes, of shape (items, annotators x labels): any matrix that knows `@`. An item whose label is
    `known` (not -1) has that label for certain; the second is then of its votes and this label together.
    """
    with numpy.errstate(divide="ignore"):
        of_vote = numpy.log(confusion).transpose(0, 2, 1).reshape(-1, len(priors))
        logs = given @ of_vote + numpy.log(priors)
    if known is not None:
        logs[(known[:, None] >= 0) & (known[:, None] != numpy.arange(len(priors)))] = -numpy.inf
    top = logs.max(axis=1, keepdims=True)
    posteriors = numpy.exp(logs - top)
    total = posteriors.sum(axis=1, keepdims=True)
    return posteriors / total, top[:, 0] + numpy.log(total[:, 0])
