"""What a reward model that knows how sure it is may claim of a pair: that one is better, or that it does not know.

Of a pair it knows the reward difference `margin` in logits and that difference's standard deviation.
"""

import numpy
from scipy.special import expit

Z_95 = 1.959963984540054
WIDELY = 0.15  # how far beyond one half, on both sides, an interval must reach to say nothing

KNOWS, LEANS, DOES_NOT_KNOW = "knows", "leans", "does_not_know"


def probability(margin: numpy.ndarray, deviation: numpy.ndarray) -> numpy.ndarray:
    """The probability that the first is preferred, averaged over the posterior: the less sure, the nearer to one half.

    MacKay 1992 (the evidence framework applied to classification networks), equation 10.
    """
    return expit(margin / numpy.sqrt(1 + numpy.pi * deviation**2 / 8))


def interval(margin: numpy.ndarray, deviation: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The low and high ends of the 95 % interval of that probability."""
    return expit(margin - Z_95 * deviation), expit(margin + Z_95 * deviation)


def verdicts(low: numpy.ndarray, high: numpy.ndarray) -> numpy.ndarray:
    """`knows` where the interval leaves one half out, `does_not_know` where it covers it widely, else `leans`."""
    says_nothing = (low < 0.5 - WIDELY) & (high > 0.5 + WIDELY)
    return numpy.where((low > 0.5) | (high < 0.5), KNOWS, numpy.where(says_nothing, DOES_NOT_KNOW, LEANS))
