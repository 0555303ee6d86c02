"""Pairs by axis: which of two completions people rated higher on it."""

from collections.abc import Collection, Iterator
from itertools import combinations
from math import comb, isclose

from labeling.preferences.models import Snapshot
from labeling.preferences.pairing import Pair, with_ties
from labeling.preferences.parts import pair_id
from labeling.preferences.supervised import flagged_keys
from labeling.preferences.views_out.columns import MESSAGES, Row
from labeling.preferences.views_out.tasks import with_origins
from labeling.preferences.views_out.view import View


def pairs_by_axis(votes: list[Row], *, ties: str = "drop", without_flags: Collection[str] = ()) -> list[Row]:
    """The pairs of one task's ratings, axis by axis in the order of the alphabet.

    Two completions are compared by those who rated both: the one whose mean is higher is `chosen`, equal means are a tie,
    which the policy `ties` drops, keeps with a `soft_label` of one half, or gives both ways. The pairs of one axis weigh 1
    together, less dropped ties. Completions that anybody flagged so, `without_flags`, take no part.
    """
    text = {item["key"]: item["content"] for item in votes[0]["completions"]}
    flagged = flagged_keys(votes, without_flags)
    given: dict[str, list[dict[str, float]]] = {}  # axis -> by vote: key -> rating
    for vote in votes:
        of_vote: dict[str, dict[str, float]] = {}
        for key, ratings in vote["judgement"].get("ratings", {}).items():
            for axis, value in ratings.items():
                if key not in flagged:
                    of_vote.setdefault(axis, {})[key] = value
        for axis, ratings in of_vote.items():
            given.setdefault(axis, []).append(ratings)
    rows = []
    for axis, ratings in sorted(given.items()):
        rated = {key for one in ratings for key in one}
        pairs: dict[Pair, tuple[float, float]] = {}
        for first, second in combinations(sorted(rated), 2):
            both = [one for one in ratings if first in one and second in one]
            if not both:
                continue
            means = [sum(one[key] for one in both) / len(both) for key in (first, second)]
            difference = 0.0 if isclose(*means, abs_tol=1e-9) else means[0] - means[1]
            chosen, rejected = (second, first) if difference < 0 else (first, second)
            same = sum((one[chosen] > one[rejected]) if difference else (one[chosen] == one[rejected]) for one in both)
            pair = Pair(
                chosen, rejected, not difference, len(both), same / len(both), None, 1 / comb(len(rated), 2),
                1.0 if difference else 0.5,
            )  # fmt: skip
            pairs |= dict.fromkeys(with_ties([pair], ties), (max(means), min(means)))
        rows += [
            {
                "prompt": votes[0]["prompt"], "chosen": _said(text[pair.chosen]), "rejected": _said(text[pair.rejected]),
                "axis": axis, "chosen_mean": means[0], "rejected_mean": means[1], "n_votes": pair.n_votes,
                "agreement": pair.agreement, "weight": pair.weight, "soft_label": pair.soft_label, "tie": pair.tie,
                "id": pair_id(votes[0]["task"], f"{pair.chosen} on {axis}", pair.rejected), "task": votes[0]["task"],
                "iteration": votes[0]["iteration"],
            }
            for pair, means in pairs.items()
        ]  # fmt: skip
    return rows


def _said(text: str) -> list[Row]:
    return [{"role": "assistant", "content": text}]


def _rows(snapshot: Snapshot, rows: Iterator[Row]) -> Iterator[Row]:
    how = {"ties": snapshot.policy.get("ties", "drop"), "without_flags": snapshot.filters.get("without_flags", ())}
    for votes, origin in with_origins(snapshot, rows):
        for row in pairs_by_axis(votes, **how):
            yield row | origin


PREFERENCE_BY_AXIS = View(
    "TRL's columns for each axis that completions were rated on: chosen has the higher mean",
    frozen="votes",
    rows=_rows,
    columns={
        "prompt": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES, "axis": str, "chosen_mean": float,
        "rejected_mean": float, "n_votes": int, "agreement": float, "weight": float, "soft_label": float, "tie": bool,
        "id": str, "task": str, "iteration": int, "group_id": str, "licence": str,
    },
)  # fmt: skip
