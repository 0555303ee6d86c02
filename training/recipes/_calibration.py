"""Whether the probabilities of a reward model are borne out by labels it has not seen: how sure it is, how often right.

All figures are over pairs with a winner. `margin` is the reward of chosen minus rejected in logits, so that the model
calls chosen the better one with the probability 1 / (1 + exp(-margin)).
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy
from scipy.optimize import minimize_scalar
from scipy.special import expit

from training.recipes._statistics import Z_95, mean, proportion

MOST_BINS = 10
LEAST_IN_BIN = 10  # pairs
FOLDS = 5
LEAST_TO_FIT = 20  # pairs, to fit a temperature
LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.05, 20.0  # beyond these the fit says nothing more
RESAMPLES = 1000
RESAMPLES_AT_ONCE = 50


def calibration(margins: Sequence[float], groups: Sequence[Hashable], *, seed: int = 0) -> dict[str, Any]:
    """Reliability curve, expected calibration error, Brier score, temperature, and log loss without and with it.

    `bins` is the reliability curve: pairs in order of how sure the model is of the one it calls better (0.5 to 1), in
    up to 10 bins of equal size, each with its mean `predicted`, its bounds `low` and `high`, and the share `right` with
    an interval by group. `ece` is the mean over bins of the gap between the two, weighted by pairs; `ece_by_chance` is
    what a calibrated model would show on as many pairs. `temperature` is that of Guo et al. 2017 (section 4.2), which
    divides the margins; in `log_loss_scaled` each pair's is fitted on the pairs of other groups.
    """
    margin = numpy.asarray(margins, dtype=float)
    names = list(dict.fromkeys(groups))
    number = {name: index for index, name in enumerate(names)}
    group = numpy.array([number[name] for name in groups], dtype=int)
    wins = (numpy.sign(margin) + 1) / 2
    losses = numpy.logaddexp(0, -margin)
    scaled, fitted = scaled_margins(margin, group, seed=seed)
    brier = mean(((1 - expit(margin)) ** 2).tolist(), list(groups))
    found: dict[str, Any] = {
        "n": len(margin),
        "bins": _bins(margin, wins, groups),
        **_calibration_error(margin, wins, group, seed=seed),
        "brier": brier,
        "log_loss": mean(losses.tolist(), list(groups)),
        "temperature": fitted,
        "log_loss_scaled": None,
        "log_loss_change": None,
    }
    if scaled is not None:
        after = numpy.logaddexp(0, -scaled)
        found["log_loss_scaled"] = mean(after.tolist(), list(groups))
        found["log_loss_change"] = mean((after - losses).tolist(), list(groups))
    return found


def scaled_margins(
    margin: numpy.ndarray, group: numpy.ndarray, *, seed: int = 0
) -> tuple[numpy.ndarray | None, dict[str, Any]]:
    """Margins over a temperature that was fitted without the pair's own group, and the temperature of all pairs.

    `group` numbers the groups. None, with the reason in `method`, below 20 pairs or two groups.
    """
    groups = numpy.unique(group)
    figure: dict[str, Any] = {"value": None, "low": None, "high": None, "n": len(margin), "n_groups": len(groups)}
    if len(margin) < LEAST_TO_FIT or len(groups) < 2:
        return None, figure | {"method": f"not fitted: needs {LEAST_TO_FIT} pairs of two groups"}
    folds = min(FOLDS, len(groups))
    fold_of = numpy.empty(groups.max() + 1, dtype=int)
    fold_of[numpy.random.default_rng(seed).permutation(groups)] = numpy.arange(len(groups)) % folds
    scaled = numpy.empty(len(margin))
    for fold in range(folds):
        inside = fold_of[group] == fold
        scaled[inside] = margin[inside] * fit_scale(margin[~inside])
    scale = fit_scale(margin)
    figure |= {"value": 1 / scale, "folds": folds, "method": "temperature scaling on these pairs, sandwich error by group"}
    # The curvature of the log loss in the scale, and its slope by group: a robust standard error.
    slope = margin * (expit(scale * margin) - 1)
    curvature = float((margin**2 * expit(scale * margin) * expit(-scale * margin)).sum())
    if 1.001 / MOST_TEMPERATURE < scale < 0.999 / LEAST_TEMPERATURE and curvature > 0:
        by_group = numpy.bincount(group, weights=slope)
        error = float(numpy.sqrt((by_group**2).sum() * len(groups) / (len(groups) - 1))) / curvature
        low, high = scale - Z_95 * error, scale + Z_95 * error
        figure |= {
            "low": max(LEAST_TEMPERATURE, 1 / high),
            "high": min(MOST_TEMPERATURE, 1 / low) if low > 0 else MOST_TEMPERATURE,
        }
    else:
        figure["method"] += f"; at the end of the range from {LEAST_TEMPERATURE:g} to {MOST_TEMPERATURE:g}"
    return scaled, figure


def fit_scale(margin: numpy.ndarray) -> float:
    """One over the temperature that makes the log loss of the margins least, within the range."""
    most = float(numpy.log(1 / LEAST_TEMPERATURE))
    least = float(numpy.log(1 / MOST_TEMPERATURE))
    found = minimize_scalar(
        lambda log_scale: float(numpy.logaddexp(0, -numpy.exp(log_scale) * margin).mean()),
        bounds=(least, most), method="bounded", options={"xatol": 1e-6},
    )  # fmt: skip
    # The search never quite reaches an end.
    return float(numpy.exp(most if found.x > most - 1e-4 else least if found.x < least + 1e-4 else found.x))


def _bins_of(margin: numpy.ndarray) -> list[numpy.ndarray]:
    """Rows in order of how sure the model is, in bins of equal size."""
    order = numpy.argsort(abs(margin), kind="stable")
    return numpy.array_split(order, max(1, min(MOST_BINS, len(margin) // LEAST_IN_BIN)))


def _bins(margin: numpy.ndarray, wins: numpy.ndarray, groups: Sequence[Hashable]) -> list[dict[str, Any]]:
    sure = expit(abs(margin))
    return [
        {
            "low": float(sure[rows].min()),
            "high": float(sure[rows].max()),
            "predicted": float(sure[rows].mean()),
            "right": proportion(wins[rows].tolist(), [groups[row] for row in rows]),
        }
        for rows in _bins_of(margin)
        if len(rows)
    ]


def _calibration_error(margin: numpy.ndarray, wins: numpy.ndarray, group: numpy.ndarray, *, seed: int) -> dict[str, Any]:
    """`ece` and `ece_by_chance`.

    The estimate is too high where pairs are few, since noise is a gap too. By chance: the signs of the groups' gaps, less
    their mean, are drawn at random; `value` is the mean of what comes out and `high` its 95 % quantile. The interval is
    the basic bootstrap's over groups, which takes as much off as resampling adds; it begins at 0 where chance would do.
    """
    n, n_groups = len(margin), int(group.max()) + 1 if len(group) else 0
    undefined = {"value": None, "low": None, "high": None, "n": n, "n_groups": n_groups, "method": "not defined: fewer than two groups"}
    if n_groups < 2:
        return {"ece": undefined, "ece_by_chance": undefined}
    gap = wins - expit(abs(margin))
    gaps, counts = (numpy.zeros((n_groups, len(_bins_of(margin)))) for _ in range(2))
    for column, rows in enumerate(_bins_of(margin)):
        numpy.add.at(gaps[:, column], group[rows], gap[rows])
        numpy.add.at(counts[:, column], group[rows], 1)
    value = float(abs(gaps.sum(axis=0)).sum() / n)
    in_bin = (counts > 0).sum(axis=0)
    centred = gaps - counts * (gaps.sum(axis=0) / counts.sum(axis=0))
    centred *= numpy.sqrt(in_bin / numpy.maximum(in_bin - 1, 1))  # what the mean took away
    sizes = counts.sum(axis=1)
    draw = numpy.random.default_rng(seed)
    resampled, by_chance = [], []
    for _ in range(0, RESAMPLES, RESAMPLES_AT_ONCE):
        times = draw.multinomial(n_groups, numpy.full(n_groups, 1 / n_groups), size=RESAMPLES_AT_ONCE)
        resampled.append(abs(times @ gaps).sum(axis=1) / (times @ sizes))
        signs = draw.choice((-1.0, 1.0), size=(RESAMPLES_AT_ONCE, n_groups))
        by_chance.append(abs(signs @ centred).sum(axis=1) / n)
    below, above = numpy.quantile(numpy.concatenate(resampled), (0.025, 0.975))
    chance = numpy.concatenate(by_chance)
    most_by_chance = float(numpy.quantile(chance, 0.95))
    low = 0.0 if value <= most_by_chance else max(0.0, 2 * value - float(above))
    return {
        "ece": {
            "value": value, "low": low, "high": max(0.0, 2 * value - float(below)),
            "n": n, "n_groups": n_groups, "method": f"{len(_bins_of(margin))} bins of equal size, basic bootstrap by group_id",
        },
        "ece_by_chance": {
            "value": float(chance.mean()), "low": None, "high": most_by_chance,
            "n": n, "n_groups": n_groups, "method": "of a calibrated model on as many pairs: mean, and 95 % quantile as high",
        },
    }  # fmt: skip
