"""How far people agree with themselves: tasks they judged, shown to them again with the order turned around."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain, combinations
from typing import Any

from labeling.annotation.models import Judgement, Task
from labeling.projects.models import Project
from labeling.quality.statistics import Figure, clustered_proportion, ranks_of, undefined

Ranking = Sequence[Sequence[int]]
# What was said first, what was said of the repeat, and the order in which the completions were shown at first.
Twice = tuple[Ranking, Ranking, Sequence[int]]


def self_consistency(twice: Iterable[Twice]) -> Figure:
    """Share of pairs of completions of which the same was said both times; a tie is an answer."""
    same, all_ = [], []
    for first, second, order in twice:
        pairs = _pairs(first, second, order)
        same.append(sum(before == after for before, after in pairs))
        all_.append(len(pairs))
    if not sum(all_):
        return undefined("no task was shown again")
    return clustered_proportion(same, all_)


def position_bias(twice: Iterable[Twice]) -> Figure:
    """How much oftener than half the completion further ahead was preferred, over both showings: 0 is none.

    Each pair is shown once either way round, so what the texts are worth cancels out exactly, and only answers that
    went with the place are left. Pairs with a tie are left out. `n` counts answers, two for each pair.
    """
    ahead, all_ = [], []
    for first, second, order in twice:
        strict = [(before, after) for before, after in _pairs(first, second, order) if before and after]
        # 1: the one shown ahead at first. In the repeat it was shown behind, so there -1 is the one ahead.
        ahead.append(sum((before == 1) + (after == -1) for before, after in strict))
        all_.append(2 * len(strict))
    if not sum(all_):
        return undefined("no pair was ordered both times")
    share = clustered_proportion(ahead, all_)
    return share | {
        "value": share["value"] - 0.5,
        "low": share["low"] - 0.5,
        "high": share["high"] - 0.5,
        "share": share["value"],
        "method": "share of answers for the completion shown ahead, in both orders, less one half; " + share["method"],
    }


def _pairs(first: Ranking, second: Ranking, order: Sequence[int]) -> list[tuple[int, int]]:
    """What was said of each pair, first and again: 1 the one shown ahead at first is better, -1 the other, 0 a tie."""
    before, after = ranks_of(first), ranks_of(second)
    known = [pk for pk in order if pk in before and pk in after]
    return [(_sign(before, one, other), _sign(after, one, other)) for one, other in combinations(known, 2)]


def _sign(ranks: dict[Any, int], one: int, other: int) -> int:
    return (ranks[one] < ranks[other]) - (ranks[one] > ranks[other])


def repeat_results(project: Project) -> tuple[dict[int, dict[str, Figure]], dict[str, Figure]]:
    """`self_consistency` and `position_bias` by annotator id, and of all together. Two queries."""
    repeats = Judgement.objects.current().filter(project=project, task__purpose=Task.Purpose.REPEAT)
    again = {
        (annotator, original): ranking
        for annotator, original, ranking in repeats.values_list("annotator_id", "task__repeats", "ranking")
    }
    first = Judgement.objects.current().filter(
        project=project, task__in=repeats.order_by().values("task__repeats")
    )
    twice: dict[int, list[Twice]] = defaultdict(list)
    rows = first.order_by("pk").values_list("annotator_id", "task_id", "ranking", "order_shown")
    for annotator, task, ranking, order in rows:
        if (annotator, task) in again:
            twice[annotator].append((ranking, again[annotator, task], order))
    by_annotator = {annotator: _figures(found) for annotator, found in twice.items()}
    return by_annotator, _figures(list(chain.from_iterable(twice.values())))


def _figures(twice: Sequence[Twice]) -> dict[str, Figure]:
    return {"self_consistency": self_consistency(twice), "position_bias": position_bias(twice)}
