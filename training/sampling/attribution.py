"""Where in a completion its reward comes from: token by token, and sentence by sentence. Tensors and texts in, numbers out."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy
import torch

from training.sampling.reward_head import RewardHead

STEPS = (16, 32, 64, 128)  # points on the path, more where fewer leave a gap
GAP_SHARE, GAP_LOGITS = 0.05, 0.02  # a gap up to the larger of the two counts as none
MAX_SENTENCES = 24
END_OF_SENTENCE = re.compile(r"[.!?…]+[\"'”’)\]*]*\s+|[。！？]+\s*|\n\s*")


@dataclass(frozen=True)
class Attribution:
    """What each token adds to the reward, in logits. `steps` is 0 where that is exact."""

    values: list[float]
    reward: float
    baseline: float
    steps: int = 0

    @property
    def gap(self) -> float:
        """What the tokens' values leave unexplained of reward minus baseline."""
        return self.reward - self.baseline - sum(self.values)

    @property
    def is_complete(self) -> bool:
        """Whether the gap is small: 5 % of what there is to explain, or 0.02 logits if that is more."""
        return abs(self.gap) <= max(GAP_SHARE * abs(self.reward - self.baseline), GAP_LOGITS)


def mean_pooled(hidden: numpy.ndarray, head: RewardHead) -> Attribution:
    """Exact shares of a head that pools by the mean; `hidden` has shape (tokens, hidden size).

    Centring, projection and whitening are linear, and so is the head: the reward is the mean over the tokens of
    (hidden - mean) @ components @ weight. The baseline is 0, the average of the completions that the head was fitted
    on. A token's hidden state has read all tokens before it, so its share is what the text says by then.
    """
    direction = head.features.components @ head.weight
    values = (hidden.astype(numpy.float64) - head.features.mean) @ direction / len(hidden)
    return Attribution(values.tolist(), float(values.sum()), 0.0)


def integrated_gradients(
    reward: Callable[[torch.Tensor], torch.Tensor],
    inputs: torch.Tensor,
    baseline: torch.Tensor,
    *,
    steps: Sequence[int] = STEPS,
    batch_size: int = 8,
    on_step: Callable[[], None] | None = None,
) -> Attribution:
    """Integrated gradients of `reward` on the straight path from `baseline` to `inputs`, both (tokens, size).

    Sundararajan et al. 2017 (arXiv:1703.01365), equation 1, summed over each token's embedding. The integral is taken
    by Gauss-Legendre quadrature at each number of `steps` in turn until the values add up (their completeness axiom);
    if they never do, the last attempt is returned with its gap. `reward` takes (batch, tokens, size) and gives
    (batch,), each row by itself. `on_step` is called between batches, and may raise to end the work.
    """
    with torch.no_grad():
        ends = [float(reward(end[None])[0]) for end in (inputs, baseline)]
    difference = inputs - baseline
    for count in steps:
        nodes, weights = numpy.polynomial.legendre.leggauss(count)  # on [-1, 1]
        total = torch.zeros_like(inputs, dtype=torch.float64)
        for start in range(0, count, batch_size):
            part = slice(start, start + batch_size)
            share = torch.as_tensor((nodes[part] + 1) / 2, dtype=inputs.dtype, device=inputs.device)
            points = (baseline + share[:, None, None] * difference).requires_grad_(True)
            (gradient,) = torch.autograd.grad(reward(points).sum(), points)
            weight = torch.as_tensor(weights[part] / 2, dtype=torch.float64, device=inputs.device)
            total += (gradient.double() * weight[:, None, None]).sum(dim=0)
            if on_step:
                on_step()
        found = Attribution((total * difference.double()).sum(dim=-1).tolist(), *ends, steps=count)
        if found.is_complete:
            break
    return found


@dataclass(frozen=True)
class Piece:
    """A stretch of the completion: one token, or several that share a character. `value` is None where none was read."""

    text: str
    value: float | None


def pieces(text: str, spans: Sequence[tuple[int, int]], values: Sequence[float]) -> list[Piece]:
    """The text in order, each stretch with what its tokens add; the pieces joined are the text.

    `spans` are the tokens' places in the text, in order. Tokens of one character (bytes of an emoji) become one piece;
    space between two tokens goes to the later one; other text without a token was cut off, and has no value.
    """
    found: list[tuple[int, int, float | None]] = []
    for (start, end), value in zip(spans, values, strict=True):
        if found and (start < found[-1][1] or start == end):
            before_start, before_end, before = found.pop()
            found.append((before_start, max(before_end, end), (before or 0.0) + value))
            continue
        place = found[-1][1] if found else 0
        if text[place:start].strip():
            found.append((place, start, None))
            place = start
        found.append((place, end, value))
    if not found:
        return [Piece(text, None)]
    rest = text[found[-1][1] :]
    if rest and not rest.strip():
        start, _, value = found.pop()
        found.append((start, len(text), value))
    elif rest:
        found.append((found[-1][1], len(text), None))
    return [Piece(text[start:end], value) for start, end, value in found]


def sentences(text: str, at_most: int = MAX_SENTENCES) -> list[str]:
    """The text cut into at most so many sentences or lines; joined they are the text. The shortest are joined first."""
    cuts = [0, *(match.end() for match in END_OF_SENTENCE.finditer(text)), len(text)]
    found: list[str] = []
    for start, end in pairwise(cuts):
        part = text[start:end]
        if found and (not part.strip() or not found[-1].strip()):
            found[-1] += part
        elif part:
            found.append(part)
    while len(found) > at_most:
        first = min(range(len(found) - 1), key=lambda place: len(found[place]) + len(found[place + 1]))
        found[first : first + 2] = [found[first] + found[first + 1]]
    return found


def without_each(parts: Sequence[str]) -> list[str]:
    """The text once without each of its parts; empty for a single part."""
    if len(parts) < 2:
        return []
    return ["".join([*parts[:place], *parts[place + 1 :]]).strip() for place in range(len(parts))]
