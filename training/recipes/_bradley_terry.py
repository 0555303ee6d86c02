"""Bradley-Terry on features of pairs: the fit, its ridge, its posterior. Numpy and scipy alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from scipy.optimize import minimize
from scipy.special import expit


@dataclass(frozen=True)
class Pairs:
    """One split as arrays, a row per pair.

    `difference` is features of chosen minus rejected, (pairs, features); `target` is 1, or 0.5 for a tie;
    `weight` has a mean of 1; `group` numbers the prompt groups.
    """

    difference: numpy.ndarray
    target: numpy.ndarray
    weight: numpy.ndarray
    group: numpy.ndarray

    def take(self, rows: numpy.ndarray) -> "Pairs":
        """The pairs at `rows`, an index or a mask."""
        return Pairs(self.difference[rows], self.target[rows], self.weight[rows], self.group[rows])


def bradley_terry_loss(margin: numpy.ndarray, target: numpy.ndarray, weight: numpy.ndarray) -> float:
    """Weighted mean negative log-likelihood in nats; 0.693 where all rewards are equal.

    `margin` is the reward of chosen minus rejected in logits; `target` the probability that chosen wins.
    """
    losses = numpy.logaddexp(0, -margin) * target + numpy.logaddexp(0, margin) * (1 - target)
    return float((weight * losses).sum() / weight.sum())


def fit_weights(pairs: Pairs, ridge: float, max_iterations: int) -> list[numpy.ndarray]:
    """Minimise the weighted log loss (summed over pairs) plus `ridge / 2` times the squared norm, which is convex.

    Newton steps within a trust region. Returns the weights after every step; the last are the solution.
    """

    def objective(weights: numpy.ndarray) -> float:
        loss = bradley_terry_loss(pairs.difference @ weights, pairs.target, pairs.weight) * pairs.weight.sum()
        return loss + ridge / 2 * float(weights @ weights)

    def gradient(weights: numpy.ndarray) -> numpy.ndarray:
        missing = pairs.weight * (pairs.target - expit(pairs.difference @ weights))
        return ridge * weights - pairs.difference.T @ missing

    steps: list[numpy.ndarray] = []
    minimize(
        objective, numpy.zeros(pairs.difference.shape[1]), jac=gradient, method="trust-exact",
        hess=lambda weights: posterior_precision(pairs, weights, ridge),
        callback=lambda weights: steps.append(weights.copy()),
        options={"maxiter": max_iterations, "gtol": 1e-9 * float(pairs.weight.sum())},
    )  # fmt: skip
    return steps or [numpy.zeros(pairs.difference.shape[1])]


def solve(pairs: Pairs, ridge: float, max_iterations: int) -> numpy.ndarray:
    """The last weights of `fit_weights`."""
    return fit_weights(pairs, ridge, max_iterations)[-1]


def posterior_precision(pairs: Pairs, weights: numpy.ndarray, ridge: float) -> numpy.ndarray:
    """Second derivative of the penalised loss at `weights`: the inverse of the Laplace covariance."""
    probability = expit(pairs.difference @ weights)
    curvature = pairs.weight * probability * (1 - probability)
    return (pairs.difference.T * curvature) @ pairs.difference + ridge * numpy.eye(len(weights))


def log_evidence(pairs: Pairs, ridge: float, max_iterations: int) -> float:
    """Laplace approximation of the log probability of the labels under a prior of precision `ridge`.

    MacKay 1992, equation 4.
    """
    weights = solve(pairs, ridge, max_iterations)
    loss = bradley_terry_loss(pairs.difference @ weights, pairs.target, pairs.weight) * pairs.weight.sum()
    _, log_determinant = numpy.linalg.slogdet(posterior_precision(pairs, weights, ridge))
    return float(-loss - ridge / 2 * weights @ weights + (len(weights) * numpy.log(ridge) - log_determinant) / 2)


def held_out_margins(
    pairs: Pairs, ridge: float, *, folds: int = 5, seed: int = 0, max_iterations: int = 60
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Reward differences of every pair by a fit that has not seen its group, and how sure those fits are.

    The second is a row a pair, (pairs, features), whose norm is the standard deviation of the pair's difference by that
    fit's posterior. Both are NaN below two groups.
    """
    groups = numpy.unique(pairs.group)
    fold_of = numpy.empty(groups.max() + 1, dtype=int)
    fold_of[numpy.random.default_rng(seed).permutation(groups)] = numpy.arange(len(groups)) % folds
    margins = numpy.full(len(pairs.target), numpy.nan)
    spreads = numpy.full(pairs.difference.shape, numpy.nan)
    for fold in range(folds):
        inside = fold_of[pairs.group] == fold
        if inside.any() and not inside.all():
            seen = pairs.take(~inside)
            weights = solve(seen, ridge, max_iterations)
            margins[inside] = pairs.difference[inside] @ weights
            spreads[inside] = pairs.difference[inside] @ root(posterior(seen, weights, ridge)[0])
    return margins, spreads


def posterior(pairs: Pairs, weights: numpy.ndarray, ridge: float) -> tuple[numpy.ndarray, float]:
    """Laplace covariance of the weights, and by how much it was widened for pairs that depend on one another.

    Pairs of one ranking say less than as many of different prompts. How much less is read off the sandwich covariance
    with one term a group (Huber 1967; Liang and Zeger 1986): its mean variance of a pair's difference over that of the Laplace
    covariance, at least 1.
    """
    covariance = numpy.linalg.inv(posterior_precision(pairs, weights, ridge))
    missing = pairs.weight * (pairs.target - expit(pairs.difference @ weights))
    scores = numpy.zeros((len(numpy.unique(pairs.group)), len(weights)))
    numpy.add.at(scores, numpy.unique(pairs.group, return_inverse=True)[1], pairs.difference * missing[:, None])
    sandwich = covariance @ (scores.T @ scores + ridge * numpy.eye(len(weights))) @ covariance
    spread = pairs.difference.T @ pairs.difference
    usual = float((spread * covariance).sum())
    widening = max(1.0, float((spread * sandwich).sum()) / usual) if usual > 0 else 1.0
    return covariance * widening, widening


def root(covariance: numpy.ndarray) -> numpy.ndarray:
    """A matrix whose product with its transpose is the covariance."""
    values, vectors = numpy.linalg.eigh(covariance)
    return vectors * numpy.sqrt(values.clip(min=0))


def temperature(margin: numpy.ndarray, pairs: Pairs, max_iterations: int) -> float:
    """What held-out margins are multiplied by to become log odds: temperature scaling, fitted by log loss.

    Guo et al. 2017, section 4.2, with the inverse of their T.
    """
    alone = Pairs(margin[:, None], pairs.target, pairs.weight, pairs.group)
    return float(solve(alone, 1e-6, max_iterations)[0])


def choose_ridge(
    pairs: Pairs, ridges: Sequence[float], by: str, *, folds: int = 5, seed: int = 0, max_iterations: int = 60
) -> tuple[float, dict[float, float]]:
    """The ridge with the highest log evidence, or the lowest cross-validated log loss; and all the values."""
    if by == "evidence":
        values = {ridge: log_evidence(pairs, ridge, max_iterations) for ridge in ridges}
        return max(values, key=values.get), values
    if by == "cv":
        values = {}
        for ridge in ridges:
            margins, _spreads = held_out_margins(pairs, ridge, folds=folds, seed=seed, max_iterations=max_iterations)
            if numpy.isnan(margins).any():
                raise ValueError("Cross-validation needs pairs of at least two groups; use ridge_by: evidence")
            values[ridge] = bradley_terry_loss(margins, pairs.target, pairs.weight)
        return min(values, key=values.get), values
    raise ValueError(f"ridge_by is {by!r}, it must be evidence or cv")


def right(margin: numpy.ndarray) -> numpy.ndarray:
    """1 where chosen has the higher reward, 0.5 where both are equal, else 0."""
    return (numpy.sign(margin) + 1) / 2
