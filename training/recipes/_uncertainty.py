"""Whether a reward model that knows how sure it is knows it rightly, on pairs that it has not seen.

Each pair comes with its margin, the reward of chosen minus rejected, and with a row whose norm is that margin's standard
deviation. The rows' products are covariances, so that pairs of one posterior are drawn together.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy
from scipy.special import expit

from training.recipes._statistics import Figure, proportion
from training.sampling.certainty import DOES_NOT_KNOW, KNOWS, LEANS, interval, probability, verdicts

DRAWS = 200
IN_BIN = 25  # pairs
MOST_BINS = 40
LEAST_BINS = 4
LEVELS = (0.5, 0.9)


def uncertainty_report(
    margins: numpy.ndarray, spreads: numpy.ndarray, groups: Sequence[Hashable], *, widening: float, seed: int = 0
) -> dict[str, Any]:
    """How sure the model is, how often it is right where it says so, and how often its intervals cover what people said.

    Of pairs with a winner: `verdicts`, a row for each of knows, leans and does_not_know with its `share` of the pairs and the
    `accuracy` on them; `coverage`, a row a `level`: pairs in order of the probability of the preferred side, in bins of some
    25, each with an interval of that level for the share of them that is right, by draws from the posterior and of the labels;
    `covered` is how many of the bins' shares lie within. `deviation` is the mean standard deviation of a pair's margin in logits,
    `widening` how much wider the posterior's variances are than of independent pairs.
    """
    deviation = numpy.linalg.norm(spreads, axis=1)
    low, high = interval(margins, deviation)
    said = verdicts(low, high)
    right = (numpy.sign(margins) + 1) / 2
    names = list(groups)
    rows = []
    for verdict in (KNOWS, LEANS, DOES_NOT_KNOW):
        here = numpy.flatnonzero(said == verdict)
        rows.append(
            {
                "verdict": verdict,
                "share": proportion((said == verdict).astype(float).tolist(), names),
                "accuracy": proportion(right[here].tolist(), [names[row] for row in here]),
            }
        )
    return {
        "n": len(margins),
        "n_groups": len(set(names)),
        "verdicts": rows,
        "coverage": _coverage(margins, spreads, deviation, right, seed),
        "deviation": float(deviation.mean()) if len(deviation) else None,
        "widening": widening,
    }


def headlines(report: dict[str, Any]) -> dict[str, Figure]:
    """The report's main figures, for `figures`."""
    by_verdict = {row["verdict"]: row for row in report["verdicts"]}
    found = {
        "right_where_it_knows": by_verdict[KNOWS]["accuracy"],
        "does_not_know": by_verdict[DOES_NOT_KNOW]["share"],
        **{f"coverage_{round(100 * row['level'])}": row["covered"] for row in report["coverage"]},
    }
    return {name: figure for name, figure in found.items() if figure["n"]}


def _coverage(
    margins: numpy.ndarray, spreads: numpy.ndarray, deviation: numpy.ndarray, right: numpy.ndarray, seed: int
) -> list[dict[str, Any]]:
    n_bins = min(MOST_BINS, len(margins) // IN_BIN)
    if n_bins < LEAST_BINS:
        return []
    draw = numpy.random.default_rng(seed)
    preferred = numpy.sign(margins) + (margins == 0)
    order = numpy.argsort(probability(abs(margins), deviation), kind="stable")
    places = []
    for rows in numpy.array_split(order, n_bins):
        drawn = margins[rows, None] + spreads[rows] @ draw.standard_normal((spreads.shape[1], DRAWS))
        shares = (draw.random(drawn.shape) < expit(drawn * preferred[rows, None])).mean(axis=0)
        seen = right[rows].mean()
        # Where the share lies among those drawn; half of the equal ones below it.
        places.append((shares < seen).mean() + (shares == seen).mean() / 2)
    centred = abs(numpy.array(places) - 0.5)
    bins = list(range(n_bins))
    return [{"level": level, "covered": proportion((centred <= level / 2).astype(float).tolist(), bins)} for level in LEVELS]
