"""Scores of completions and reliability of annotators from votes on pairs, at once.

Chen, Bennett, Collins-Thompson and Horvitz 2013, "Pairwise ranking aggregation in a crowdsourced setting" (WSDM).
"""

from dataclasses import dataclass

import numpy

from labeling.quality.statistics.intervals import Z_95
from labeling.quality.statistics.votes import FIRST, TIE, Votes

COLUMNS_AT_ONCE = 64
MOST_ANNOTATORS = 1000


@dataclass(frozen=True)
class CrowdBT:
    """`scores` are log strengths, of mean 0 in each component; `component` numbers the sets of items linked by votes.

    `reliability` is eta: how often an annotator votes for the better of two as the scores have it (0.5 is a coin, below
    it the reverse), with its 95 % interval `low` to `high`.
    """

    scores: numpy.ndarray
    component: numpy.ndarray
    reliability: numpy.ndarray
    low: numpy.ndarray
    high: numpy.ndarray
    n_iterations: int
    converged: bool


def crowd_bt(
    first: numpy.ndarray,
    second: numpy.ndarray,
    annotator: numpy.ndarray,
    value: numpy.ndarray,
    *,
    weight: numpy.ndarray | None = None,
    virtual: float = 0.5,
    prior: tuple[float, float] = (4.0, 2.0),
    reliability: numpy.ndarray | None = None,
    max_iterations: int = 200,
) -> CrowdBT:
    """The most probable scores and reliabilities, by L-BFGS on all votes at once.

    An annotator k says that i is better than j with probability eta_k s + (1 - eta_k)(1 - s), where s is the logistic
    function of the difference of scores. A tie is half a vote each way. As in the paper, a virtual item of score 0 wins
    and loses `virtual` votes against each item, which keeps scores finite. Eta has a Beta prior, by default as if each
    annotator had been right three times and wrong once. `reliability` holds eta as known and estimates scores alone.

    What is identified: within a component, scores up to a constant (here of mean 0); between components nothing, so
    the scores of two tasks with items of their own can't be compared. Eta is shared by all tasks, and that is what
    identifies it: a single task can't tell a close race from careless annotators. Turning all scores round and every
    eta to 1 - eta fits as well; the prior and the start (eta 3/4) choose the side on which most are right. With two or
    three votes a pair, each task's scores lean to its own votes, so eta's level is rough (too near 1 for those who
    agree) and its order is what to trust. A tie where the others see a winner pulls eta towards a coin's.

    The interval is from the observed information, scores not taken as known, on the logit of eta. `weight` makes the
    pairs of one ranking count as what they tell together (see `Votes.drawn_from`).
    """
    from scipy.optimize import minimize  # of use to the worker; the web process does without while it can

    n_items = int(max(first.max(), second.max())) + 1
    n_annotators = int(annotator.max()) + 1
    weight = numpy.ones(len(first)) if weight is None else weight
    is_tie = value == TIE
    # Each vote as (winner, loser); a tie as two halves.
    winner = numpy.concatenate([numpy.where(value == FIRST, first, second), first[is_tie]])
    loser = numpy.concatenate([numpy.where(value == FIRST, second, first), second[is_tie]])
    by = numpy.concatenate([annotator, annotator[is_tie]])
    weight = numpy.concatenate([numpy.where(is_tie, 0.5, 1.0) * weight, 0.5 * weight[is_tie]])
    right, wrong = prior[0] - 1, prior[1] - 1

    def loss(parameters: numpy.ndarray) -> tuple[float, numpy.ndarray]:
        scores, eta = parameters[:n_items], _logistic(parameters[n_items:])
        if reliability is not None:
            eta = reliability
        s = _logistic(scores[winner] - scores[loser])
        of_by = eta[by]
        probability = numpy.maximum(of_by * (2 * s - 1) + 1 - s, 1e-300)
        at_zero = _logistic(scores)
        value = -(weight @ numpy.log(probability)) + virtual * (_minus_log(scores) + _minus_log(-scores)).sum()
        step = weight / probability
        by_score = step * (2 * of_by - 1) * s * (1 - s)
        gradient = numpy.bincount(loser, by_score, n_items) - numpy.bincount(winner, by_score, n_items)
        gradient += virtual * (2 * at_zero - 1)
        if reliability is not None:
            return value, gradient
        logit = parameters[n_items:]
        value += right * _minus_log(logit).sum() + wrong * _minus_log(-logit).sum()
        by_eta = numpy.bincount(by, step * (2 * s - 1), n_annotators) * eta * (1 - eta)
        return value, numpy.concatenate([gradient, -by_eta - right * (1 - eta) + wrong * eta])

    start = numpy.zeros(n_items + (0 if reliability is not None else n_annotators))
    start[n_items:] = numpy.log(3.0)
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B",
        options={"maxiter": max_iterations, "maxfun": 2 * max_iterations, "ftol": 1e-10, "gtol": 1e-4, "maxcor": 10},
    )  # fmt: skip
    scores = found.x[:n_items]
    component = components_of(n_items, first, second)
    if reliability is None:
        logit = found.x[n_items:]
        error = _standard_errors(scores, logit, winner, loser, by, weight, virtual, right + wrong)
        eta, low, high = (_logistic(logit + side * Z_95 * error) for side in (0, -1, 1))
    else:
        eta = low = high = reliability
    mean = numpy.bincount(component, scores) / numpy.bincount(component)
    return CrowdBT(scores - mean[component], component, eta, low, high, int(found.nit), bool(found.success))


def crowd_bt_of(votes: Votes, **options: object) -> CrowdBT:
    """The same of votes in columns, whose items must be numbered from 0."""
    return crowd_bt(
        votes.first[votes.pair], votes.second[votes.pair], votes.annotator, votes.value, weight=votes.weight, **options
    )  # type: ignore[arg-type]


def components_of(n_items: int, first: numpy.ndarray, second: numpy.ndarray) -> numpy.ndarray:
    """The number of the set of items, linked by votes, that each item belongs to."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((numpy.ones(len(first), dtype=numpy.int8), (first, second)), shape=(n_items, n_items))
    return connected_components(links.tocsr(), directed=False)[1]


def _standard_errors(
    scores: numpy.ndarray, logit: numpy.ndarray, winner: numpy.ndarray, loser: numpy.ndarray, by: numpy.ndarray,
    weight: numpy.ndarray, virtual: float, prior: float,
) -> numpy.ndarray:  # fmt: skip
    """Of each logit of eta, by the observed information with the scores eliminated (Schur's complement)."""
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import splu

    n_items, n_annotators = len(scores), len(logit)
    eta = _logistic(logit)
    s, of_by = _logistic(scores[winner] - scores[loser]), eta[by]
    f = of_by * (2 * s - 1) + 1 - s
    slope, spread = s * (1 - s), of_by * (1 - of_by)
    by_score, by_eta = (2 * of_by - 1) * slope / f, (2 * s - 1) * spread / f
    # Minus the second derivatives of log f.
    score_score = weight * (by_score**2 - (2 * of_by - 1) * slope * (1 - 2 * s) / f)
    score_eta = weight * (by_score * by_eta - 2 * slope * spread / f)
    eta_eta = weight * (by_eta**2 - (2 * s - 1) * spread * (1 - 2 * of_by) / f)
    at_zero = _logistic(scores)
    diagonal = numpy.bincount(winner, score_score, n_items) + numpy.bincount(loser, score_score, n_items)
    diagonal += 2 * virtual * at_zero * (1 - at_zero)
    every = numpy.arange(n_items)
    within = coo_array(
        (
            numpy.concatenate([-score_score, -score_score, diagonal]),
            (numpy.concatenate([winner, loser, every]), numpy.concatenate([loser, winner, every])),
        ),
        shape=(n_items, n_items),
    ).tocsc()
    across = coo_array(
        (numpy.concatenate([score_eta, -score_eta]), (numpy.concatenate([winner, loser]), numpy.concatenate([by, by]))),
        shape=(n_items, n_annotators),
    ).tocsc()
    own = numpy.bincount(by, eta_eta, n_annotators) + prior * eta * (1 - eta)
    factor = splu(within, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    information = numpy.diag(own)
    for begin in range(0, n_annotators, COLUMNS_AT_ONCE):
        columns = slice(begin, min(begin + COLUMNS_AT_ONCE, n_annotators))
        information[:, columns] -= across.T @ factor.solve(across[:, columns].toarray())
    variance = numpy.diag(numpy.linalg.pinv(information, hermitian=True))
    # At a flat place the information may not be positive; the prior alone then says how far eta may be.
    widest = 1 / (prior * 0.75 * 0.25) if prior else numpy.inf
    return numpy.sqrt(numpy.where(variance > 0, variance, widest))


def _logistic(x: numpy.ndarray) -> numpy.ndarray:
    return 0.5 * (1 + numpy.tanh(x / 2))


def _minus_log(x: numpy.ndarray) -> numpy.ndarray:
    """Minus the logarithm of the logistic function, without running over."""
    return numpy.logaddexp(0, -x)
