"""The stored figures as the pages show them: rows of tables, and plots as charts.js takes them."""

from collections import Counter
from itertools import chain
from typing import Any

from labeling.quality.person import Part

# Of the figures of agreement: what they are called, what to know of them, and the ends and the rule of their plot.
AGREEMENT = {
    "pairwise_raw": ("Share of comparisons on which two say the same", "a third or more by chance", "0,1,0.333"),
    "krippendorff_alpha_symmetric": (
        "Krippendorff’s α",
        "0 is chance, 1 perfect; either side equally likely to win by chance",
        "-1,1,0",
    ),
    "krippendorff_alpha_nominal": (
        "The same, nominal",
        "chance from how often the completion entered first wins; low where it mostly does",
        "-1,1,0",
    ),
    "krippendorff_alpha_ordinal": ("Krippendorff’s α of places", "ordinal: near places differ little", "-1,1,0"),
    "fleiss_kappa": ("Fleiss’ κ", "as nominal α, without its correction for few answers", "-1,1,0"),
    "kendall_tau": ("Kendall’s τ-b of two rankings", "mean over tasks; 0 no relation, 1 the same order", "-1,1,0"),
    "kendall_w": ("Kendall’s W of all rankings", "mean over tasks; guessing gives 1 / annotators of a task", "0,1,0.5"),
}
OF_AXES = {
    "krippendorff_alpha_interval": ("α of {}", "interval: equal steps", "-1,1,0"),
    "krippendorff_alpha_ordinal": ("α of {}", "ordinal: an order alone", "-1,1,0"),
    "krippendorff_alpha_nominal": ("α of {}", "nominal: yes or no", "-1,1,0"),
}
MATRIX_SIZE = 12
MOST_DOTS = 200  # annotators, those with most judgements


def agreement_rows(figures: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    # A database may give keys in an order of its own.
    axes = sorted((name.partition(":")[2], name) for name in figures["agreement"] if name.partition(":")[0] in OF_AXES)
    for name in [*AGREEMENT, *(name for axis, name in axes if axis)]:
        kind, _, axis = name.partition(":")
        if (figure := figures["agreement"].get(name)) is None:
            continue
        label, note, ends = OF_AXES[kind] if axis else AGREEMENT[name]
        people = figures["agreement_of_people"].get(name)
        rows.append({"label": label.format(axis), "note": note, "ends": ends, "all": figure, "people": people})
    return rows


def over_time_plot(figures: dict[str, Any]) -> dict[str, Any] | None:
    parts = [
        (part["to"], part["pairwise_raw"]) for part in figures["agreement_over_time"] if part["pairwise_raw"]["value"] is not None
    ]  # fmt: skip
    return _line("agreement", "Comparisons on which two say the same", parts)


def trend_plot(parts: list[Part]) -> dict[str, Any] | None:
    known = [(part.at.isoformat(), part.agreement) for part in parts if part.agreement["value"] is not None]
    return _line("trend", "Agrees with most of the others", known)


def gold_plot(figures: dict[str, Any]) -> dict[str, Any] | None:
    return _line("gold", "Gold tasks answered right", [(part["to"], part["right"]) for part in figures["gold"]["over_time"]])


def _line(key: str, title: str, parts: list[tuple[str, dict[str, Any]]]) -> dict[str, Any] | None:
    """A line with its interval, as charts.js takes it; None where there is too little for a line."""
    if len(parts) < 2:
        return None
    unit = "hour" if parts[0][0][:10] == parts[-1][0][:10] else "day"
    series = [
        {
            "label": label,
            "colour": 0,
            "isBound": bool(index),
            "points": [[at[:16], figure[part]] for at, figure in parts],
        }
        for index, (label, part) in enumerate((("share", "value"), ("95 % interval, low", "low"), ("high", "high")))
    ]
    panel = {"key": key, "title": title, "unit": "share", "kind": "line", "low": 0, "high": 1, "series": series}
    return {"x": {"unit": unit, "kind": "time"}, "panels": [panel]}


def differing_plot(figures: dict[str, Any]) -> dict[str, Any] | None:
    """How many tasks differ how much."""
    bins = figures["disagreement"]["histogram"]
    if not bins:
        return None
    parts = [("not settled", "n_open", 0), ("settled", "n_settled", 2)]
    series = [
        {"label": label, "colour": colour, "points": [[f"{row['low']:.1f}–{row['high']:.1f}", row[key]] for row in bins]}
        for label, key, colour in parts
    ]
    panel = {"key": "differing", "title": "Tasks by how much rankings of them differ", "unit": "tasks", "kind": "bar"}
    return {"x": {"unit": "share of comparisons", "kind": "names"}, "panels": [panel | {"series": series}]}


def settled_plot(figures: dict[str, Any]) -> dict[str, Any] | None:
    days = figures["adjudication"]["by_day"]
    if len(days) < 2:
        return None
    series = [{"label": "settled", "colour": 2, "points": [[row["day"], row["n"]] for row in days]}]
    panel = {"key": "settled", "title": "Settled a day", "unit": "tasks", "kind": "bar", "series": series}
    return {"x": {"unit": "day", "kind": "time"}, "panels": [panel]}


def pace_plot(annotators: list[dict[str, Any]]) -> dict[str, Any] | None:
    """A dot for each annotator: the median of their seconds, and how far they agree with the others."""
    points = [
        {
            "name": row["user"].username if row["user"] else row["annotator"],
            "x": row["seconds_median"],
            "n": row["agreement_with_consensus"]["n"],
        }
        | {
            key: row["agreement_with_consensus"][part] for key, part in (("y", "value"), ("low", "low"), ("high", "high"))
        }
        for row in annotators[:MOST_DOTS]
        if row["seconds_median"] is not None and row["agreement_with_consensus"]["value"] is not None
    ]
    if len(points) < 2:
        return None
    lowest = min(point["low"] for point in points)
    panel = {
        "key": "pace", "title": "Agrees with most of the others, by the median time taken", "unit": "share", "kind": "dots",
        "of": "annotators", "low": int(10 * lowest) / 10, "high": 1, "points": points, "series": [],
    }  # fmt: skip
    return {"x": {"unit": "seconds", "kind": "number"}, "panels": [panel]}


def kappa_matrix(agreement: dict[str, Any], usernames: dict[str, str]) -> dict[str, Any] | None:
    """Cohen's kappa of each pair of annotators, of those that most pairs are known of."""
    kappas = {
        tuple(name.partition(":")[2].split("|")): figure
        for name, figure in agreement.items()
        if name.startswith("cohen_kappa_symmetric:")
    }
    names = [name for name, _ in Counter(chain.from_iterable(kappas)).most_common(MATRIX_SIZE)]
    if len(names) < 3:
        return None
    names.sort(key=lambda name: usernames.get(name, name))
    rows = []
    for row in names:
        cells = [
            None if row == column else kappas.get((row, column)) or kappas.get((column, row)) or {} for column in names
        ]
        rows.append({"pseudonym": row, "name": usernames.get(row, row), "cells": [warmed(cell) for cell in cells]})
    return {"columns": [usernames.get(name, name) for name in names], "rows": rows}


def warmed(cell: dict[str, Any] | None) -> dict[str, Any]:
    """With a step of heat, 0 to 9, by the figure's value."""
    if cell is None:
        return {"is_self": True}
    value = cell.get("value")
    return {"figure": cell, "heat": None if value is None else round(9 * min(1.0, max(0.0, value)))}


HOLDS = {
    "better": ("one is better", [("same", "that one"), ("other", "the other"), ("tie", "a tie")]),
    "tie": ("a tie", [("better", "one of them"), (None, ""), ("tie", "a tie")]),
}


def confusion_rows(shares: dict[str, Any] | None) -> list[dict[str, Any]]:
    """What holds by what was said, as shares of each row. First and second are one under exchange of sides."""
    if not shares or all(figure["value"] is None for cells in shares.values() for figure in cells.values()):
        return []
    return [
        {
            "label": label,
            "n": max(figure["n"] for figure in shares[holds].values()),
            "cells": [{"said": said} | warmed(shares[holds][name]) if name else None for name, said in cells],
        }
        for holds, (label, cells) in HOLDS.items()
    ]
