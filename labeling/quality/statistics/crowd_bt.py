"""Scores of completions and reliability of annotators from votes on pairs, at once.

Chen, Bennett, Collins-Thompson and Horvitz 2013, "Pairwise ranking aggregation in a crowdsourced setting" (WSDM).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy

from labeling.quality.statistics.intervals import Z_95
from labeling.quality.statistics.votes import Votes

COLUMNS_AT_ONCE = 64
LOGIT_AT_START = numpy.log(3.0)  # eta 3/4
SIGN = numpy.asarray([1.0, -1.0, 0.0])  # of FIRST, SECOND and TIE


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
    known: numpy.ndarray | None = None,
    virtual: float = 0.1,
    prior: tuple[float, float] = (4.0, 2.0),
    reliability: numpy.ndarray | None = None,
    max_iterations: int = 200,
) -> CrowdBT:
    """The most probable scores and reliabilities, by L-BFGS on all votes at once.

    An annotator k says that i is better than j with probability eta_k s + (1 - eta_k)(1 - s), where s is the logistic
    function of the difference of scores. A tie is half a vote each way. As in the paper, a virtual item of score 0 wins
    and loses `virtual` votes against each item, which keeps scores finite; the more it does so, the more the spread of
    votes is put down to close races and the nearer all etas come to 1. Eta has a Beta prior, by default as if each
    annotator had been right three times and wrong once. `reliability` holds eta as known and estimates scores alone.

    What is identified: within a component, scores up to a constant (here of mean 0); between components nothing, so
    the scores of two tasks with items of their own can't be compared. Eta is shared by all tasks, and that is what
    identifies it: a single task can't tell a close race from careless annotators. Turning all scores round and every
    eta to 1 - eta fits as well; the prior and the start (eta 3/4) choose the side on which most are right. With two or
    three votes a pair, each task's scores lean to its own votes, so eta's level is rough (too near 1 for those who
    agree) and its order is what to trust. A tie where the others see a winner pulls eta towards a coin's.

    `known` (one a vote, the same for all votes on a pair) is FIRST, SECOND or TIE where the pair was settled, -1
    elsewhere. As in `dawid_skene`, what is latent is then fixed: votes on such a pair tell of their annotators against
    the settled answer, not against the scores (s is 1, 0, or a half for a tie, of which a vote tells nothing), and
    the scores hear the settled answer itself once, as from an annotator who never errs.

    The interval is from the observed information, scores not taken as known, on the logit of eta. `weight` makes the
    pairs of one ranking count as what they tell together (see `Votes.drawn_from`).
    """
    from scipy.optimize import minimize  # of use to the worker; the web process does without while it can

    n_items = int(max(first.max(), second.max())) + 1
    n_annotators = int(annotator.max()) + 1
    pairs, pair = numpy.unique(first * n_items + second, return_inverse=True)
    weight = numpy.ones(len(first)) if weight is None else weight
    settled = None
    if known is not None and (known >= 0).any():
        settled = _Settled.of(pair, known, weight, len(pairs))
    votes = _SignedVotes(
        pairs // n_items, pairs % n_items, pair, annotator, SIGN[value], weight, n_items, n_annotators, settled
    )
    right, wrong = prior[0] - 1, prior[1] - 1
    # An eta hangs on thousands of votes, a score on a few: brought to one scale, the search is several times as short.
    scale = numpy.sqrt(1 + 0.1 * numpy.bincount(annotator, votes.weight, n_annotators))

    def loss(parameters: numpy.ndarray) -> tuple[float, numpy.ndarray]:
        scores = parameters[:n_items]
        logit = parameters[n_items:] / scale if reliability is None else None
        g = numpy.tanh(logit / 2) if logit is not None else 2 * reliability - 1  # type: ignore[operator]
        value, by_score, by_g = votes.loss(scores, g)
        at_zero = _logistic(scores)
        value -= virtual * numpy.log(numpy.maximum(at_zero * (1 - at_zero), 1e-300)).sum()
        by_score += virtual * (2 * at_zero - 1)
        if logit is None:
            return value, by_score
        eta = (1 + g) / 2
        value += right * _minus_log(logit).sum() + wrong * _minus_log(-logit).sum()
        by_logit = by_g * (1 - g**2) / 2 + wrong * eta - right * (1 - eta)
        return value, numpy.concatenate([by_score, by_logit / scale])

    start = numpy.zeros(n_items)
    if reliability is None:
        start = numpy.concatenate([start, LOGIT_AT_START * scale])
    # Known reliabilities leave a small problem, solved to the last digit; a large one to what can be seen.
    ends = {"ftol": 1e-7, "gtol": 1e-4} if reliability is None else {"ftol": 1e-14, "gtol": 1e-8}
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B",
        options={"maxiter": max_iterations, "maxfun": 2 * max_iterations, "maxcor": 4} | ends,
    )  # fmt: skip
    scores = found.x[:n_items]
    component = components_of(n_items, first, second)
    if reliability is None:
        logit = found.x[n_items:] / scale
        error = votes.standard_errors(scores, logit, virtual, right + wrong)
        eta, low, high = (_logistic(logit + side * Z_95 * error) for side in (0, -1, 1))
    else:
        eta = low = high = reliability
    mean = numpy.bincount(component, scores) / numpy.bincount(component)
    return CrowdBT(scores - mean[component], component, eta, low, high, int(found.nit), bool(found.success))


def crowd_bt_of(votes: Votes, known: numpy.ndarray | None = None, **options: object) -> CrowdBT:
    """The same of votes in columns, whatever their items are called; scores are in the order of items.

    `known` has one entry a pair here.
    """
    _, item = numpy.unique(numpy.concatenate([votes.first, votes.second]), return_inverse=True)
    first, second = item[: votes.n_pairs], item[votes.n_pairs :]
    return crowd_bt(
        first[votes.pair], second[votes.pair], votes.annotator, votes.value, weight=votes.weight,
        known=None if known is None else known[votes.pair], **options,
    )  # type: ignore[arg-type]  # fmt: skip


def components_of(n_items: int, first: numpy.ndarray, second: numpy.ndarray) -> numpy.ndarray:
    """The number of the set of items, linked by votes, that each item belongs to."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((numpy.ones(len(first), dtype=numpy.int8), (first, second)), shape=(n_items, n_items))
    return connected_components(links.tocsr(), directed=False)[1]


@dataclass(frozen=True)
class _Settled:
    """Pairs with a known answer: `sign` is 1, -1 or 0 for a tie; `weight` is that of one vote on the pair."""

    pair: numpy.ndarray
    sign: numpy.ndarray
    weight: numpy.ndarray

    @classmethod
    def of(cls, pair: numpy.ndarray, known: numpy.ndarray, weight: numpy.ndarray, n_pairs: int) -> "_Settled":
        sign, of_one = numpy.full(n_pairs, numpy.nan), numpy.zeros(n_pairs)
        is_known = known >= 0
        sign[pair[is_known]], of_one[pair[is_known]] = SIGN[known[is_known]], weight[is_known]
        found = numpy.flatnonzero(~numpy.isnan(sign))
        return cls(found, sign[found], of_one[found])


@dataclass(frozen=True)
class _SignedVotes:
    """Votes as the search wants them: `first` and `second` of each pair; `sign` of each vote: 1, -1 or 0 for a tie.

    With t = tanh of half the difference of scores and g = 2 eta - 1, a vote for the first has probability (1 + g t) / 2.
    On a settled pair t is its sign, whatever the scores.
    """

    first: numpy.ndarray
    second: numpy.ndarray
    pair: numpy.ndarray
    by: numpy.ndarray
    sign: numpy.ndarray
    weight: numpy.ndarray
    n_items: int
    n_annotators: int
    settled: _Settled | None = None

    def _t(self, scores: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
        """Of each pair t as votes see it, its slope by the difference of scores, and t by the scores of settled ones."""
        t = numpy.tanh((scores[self.first] - scores[self.second]) / 2)
        slope = (1 - t**2) / 2
        if self.settled is None:
            return t, slope, t[:0]
        by_scores = t[self.settled.pair]
        t[self.settled.pair], slope[self.settled.pair] = self.settled.sign, 0.0
        return t, slope, by_scores

    def loss(self, scores: numpy.ndarray, g: numpy.ndarray) -> tuple[float, numpy.ndarray, numpy.ndarray]:
        """Minus the log likelihood but for a constant, and its derivatives by score and by g."""
        t, t_slope, told = self._t(scores)
        of_by, of_pair = g[self.by], t[self.pair]
        count, odds, slope = self._of_votes(of_by * of_pair)
        step = count * slope / odds
        by_pair = numpy.bincount(self.pair, step * of_by, len(t)) * t_slope
        value = -float(count @ numpy.log(odds))
        if self.settled is not None:
            # The settled answer, told once: the logarithm of s, of 1 - s, or half of each for a tie.
            for_first = (1 + self.settled.sign) / 2
            logs = for_first * numpy.log(numpy.maximum(1 + told, 1e-300))
            logs += (1 - for_first) * numpy.log(numpy.maximum(1 - told, 1e-300))
            value -= float(self.settled.weight @ logs)
            by_pair[self.settled.pair] += self.settled.weight * (for_first - (1 + told) / 2)
        by_score = numpy.bincount(self.second, by_pair, self.n_items) - numpy.bincount(
            self.first, by_pair, self.n_items
        )
        by_g = -numpy.bincount(self.by, step * of_pair, self.n_annotators)
        return value, by_score, by_g

    def _of_votes(self, u: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
        """Of u = g t: the vote's probability is `odds` to the power of `count`; `slope` is the derivative of `odds`."""
        slope = self.sign - 2 * self.is_tie * u
        return self.count, numpy.maximum(1 + (self.sign + slope) * u / 2, 1e-300), slope

    @cached_property
    def is_tie(self) -> numpy.ndarray:
        return (self.sign == 0).astype(float)

    @cached_property
    def count(self) -> numpy.ndarray:
        return self.weight * (1 - self.is_tie / 2)

    def standard_errors(
        self, scores: numpy.ndarray, logit: numpy.ndarray, virtual: float, prior: float
    ) -> numpy.ndarray:
        """Of each logit of eta, by the observed information with the scores eliminated (Schur's complement)."""
        from scipy.sparse import coo_array
        from scipy.sparse.linalg import splu

        g, (t, t_slope, told) = numpy.tanh(logit / 2), self._t(scores)
        g_slope = (1 - g**2) / 2
        a, b, a_slope, b_slope = g[self.by], t[self.pair], g_slope[self.by], t_slope[self.pair]
        count, odds, slope = self._of_votes(a * b)
        first = -count * slope / odds
        second = count * (2 * self.is_tie / odds + (slope / odds) ** 2)
        of_pair = numpy.bincount(self.pair, second * (a * b_slope) ** 2 - first * a * b * b_slope, len(t))
        if self.settled is not None:
            of_pair[self.settled.pair] += self.settled.weight * (1 - told**2) / 4
        mixed = second * a * b_slope * a_slope * b + first * a_slope * b_slope
        own = numpy.bincount(self.by, second * (a_slope * b) ** 2 - first * a * a_slope * b, self.n_annotators)
        own += prior * (1 - g**2) / 4
        at_zero, every = _logistic(scores), numpy.arange(self.n_items)
        diagonal = numpy.bincount(self.first, of_pair, self.n_items) + numpy.bincount(
            self.second, of_pair, self.n_items
        )
        diagonal += 2 * virtual * at_zero * (1 - at_zero)
        rows = numpy.concatenate([self.first, self.second, every])
        columns = numpy.concatenate([self.second, self.first, every])
        within = coo_array(
            (numpy.concatenate([-of_pair, -of_pair, diagonal]), (rows, columns)), shape=(self.n_items, self.n_items)
        ).tocsc()
        ends = numpy.concatenate([self.first[self.pair], self.second[self.pair]])
        across = coo_array(
            (numpy.concatenate([mixed, -mixed]), (ends, numpy.concatenate([self.by, self.by]))),
            shape=(self.n_items, self.n_annotators),
        ).tocsc()
        factor = splu(within, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
        information = numpy.diag(own)
        for begin in range(0, self.n_annotators, COLUMNS_AT_ONCE):
            at = slice(begin, min(begin + COLUMNS_AT_ONCE, self.n_annotators))
            information[:, at] -= across.T @ factor.solve(across[:, at].toarray())
        variance = numpy.diag(numpy.linalg.pinv(information, hermitian=True))
        # Where the information isn't positive, only the prior says how far eta may be.
        return numpy.sqrt(numpy.where(variance > 0, variance, 4 / max(prior, 1e-9)))


def _logistic(x: numpy.ndarray) -> numpy.ndarray:
    return 0.5 * (1 + numpy.tanh(x / 2))


def _minus_log(x: numpy.ndarray) -> numpy.ndarray:
    """Minus the logarithm of the logistic function, without running over."""
    return numpy.logaddexp(0, -x)
