"""How far a reward model may be trusted, in words, from the figures that are kept of it."""

from collections.abc import Iterator
from typing import Any

Figures = dict[str, Any]
LEAST_SURE = 20  # pairs, before anything is said of probabilities


def in_words(figures: Figures) -> list[str]:
    """Sentences on a reward model's main figures, those of pairs held out before those of cross-validation; none without any.

    Each gives the interval and n, and draws a conclusion only where intervals bear it out.
    """
    prefix = "" if _known(figures, "accuracy") else "cv_"
    if not _known(figures, f"{prefix}accuracy"):
        return []
    return list(_sentences(figures, prefix))


def _sentences(figures: Figures, prefix: str) -> Iterator[str]:
    accuracy = figures[f"{prefix}accuracy"]
    of = "training pairs, each judged by a fit that had not seen its prompt" if prefix else "held-out pairs"
    chance = " That may be chance, which is 50\u00a0%." if _holds(accuracy, 0.5) else ""
    yield f"It is right on {share(accuracy)} of {accuracy['n']:,} {of}.{chance}"
    shorter, longer = (_known(figures, f"{prefix}accuracy_{which}_won") for which in ("shorter", "longer"))
    if shorter and longer:
        said = f"Where the shorter completion won it is right on {share(shorter)} of {shorter['n']:,}, where the longer one won on {share(longer)} of {longer['n']:,}"
        yield f"{said}{_leaning(shorter, longer)}."
        won, preferred = (_known(figures, f"{prefix}longer_{what}") for what in ("won", "has_higher_reward"))
        if won and preferred:
            yield f"People preferred the longer one in {share(won)} of pairs, and the model does in {share(preferred)}."
    second, first = (_known(figures, f"{prefix}accuracy_{which}_shown_won") for which in ("second", "first"))
    if second and first and _apart(second, first):
        yield (
            f"It is right on {share(first)} where the completion shown first won, and on {share(second)} where the other did: "
            "the labels it learnt from may follow the place."
        )
    error = _known(figures, f"{prefix}calibration_error")
    if error and error["n"] >= LEAST_SURE:
        points = round(100 * error["value"])
        by = f"{points} point{'' if points == 1 else 's'} {interval(error)}"
        if error["low"] == 0:
            yield f"Its probabilities are off by {by} on average, which chance alone may explain with so few pairs."
        else:
            yield f"Its probabilities are off by {by} on average: they are no probabilities as they stand."
    if knows := _known(figures, "right_where_it_knows"):
        doubts = _known(figures, "does_not_know")
        told = f" It says that it doesn't know of {share(doubts)} of all." if doubts else ""
        yield f"It says that it knows of {knows['n']:,} pairs, and is right on {share(knows)} of them.{told}"
    if against := _known(figures, f"{prefix}against_clear_majority"):
        yield (
            f"It prefers the other completion in {share(against)} of {against['n']:,} comparisons on which at least three people "
            "judged and four in five or more agree."
        )


def share(figure: dict[str, Any]) -> str:
    """`71 % [64, 77]`, which no line breaks before its sign."""
    return f"{100 * figure['value']:.0f}\u00a0% {interval(figure)}".strip()


def interval(figure: dict[str, Any]) -> str:
    low, high = figure.get("low"), figure.get("high")
    return "" if low is None or high is None else f"[{100 * low:.0f}, {100 * high:.0f}]"


def _known(figures: Figures, name: str) -> dict[str, Any] | None:
    figure = figures.get(name)
    if not isinstance(figure, dict) or not isinstance(figure.get("n"), int):
        return None
    return figure if isinstance(figure.get("value"), int | float) else None


def _holds(figure: dict[str, Any], value: float) -> bool:
    return figure.get("low") is not None and figure["low"] <= value <= figure["high"]


def _apart(one: dict[str, Any], other: dict[str, Any]) -> bool:
    if any(figure.get("low") is None for figure in (one, other)):
        return False
    return one["high"] < other["low"] or other["high"] < one["low"]


def _leaning(shorter: dict[str, Any], longer: dict[str, Any]) -> str:
    if not _apart(shorter, longer):
        return ""
    return ": it leans on length" if longer["value"] > shorter["value"] else ": it leans against length"
