"""Views of whole tasks: the consensus ranking of K completions, and ratings by axis."""

from collections.abc import Iterator
from itertools import combinations, groupby
from math import comb

from labeling.preferences.models import Snapshot
from labeling.preferences.pairing import Vote, mean_ranks, outcome, ranks
from labeling.preferences.views_out.columns import AUTHOR, COMPLETION, MESSAGES, Row
from labeling.preferences.views_out.tasks import with_origins
from labeling.preferences.views_out.view import View


def consensus(votes: list[Row]) -> tuple[list[list[str]], dict[str, float]]:
    """The ranking of a task, best first and ties in one group, and each completion's mean rank.

    By the mean of the ranks, or as a reviewer settled it. Both are empty where nobody ranked.
    """
    settled = votes[0].get("adjudication")
    rankings = [settled["ranking"]] if settled else _rankings(votes)
    places = mean_ranks([Vote(ranking) for ranking in rankings])
    # Sums of halves over a count: equal means may differ in their last bit.
    near = {key: round(place, 9) for key, place in places.items()}
    in_order = sorted(near, key=lambda key: (near[key], key))
    return [list(group) for _, group in groupby(in_order, key=near.__getitem__)], near


def agreement(votes: list[Row], ranking: list[list[str]]) -> float:
    """Share of the votes on pairs of completions that say what the ranking says, 0 to 1."""
    decided = ranks(ranking)
    pairs = list(combinations(sorted(decided), 2))
    said = [ranks(one) for one in _rankings(votes)]
    same = sum(outcome(one, *pair) == outcome(decided, *pair) for one in said for pair in pairs)
    return same / (len(said) * len(pairs)) if said and pairs else 1.0


def _rankings(votes: list[Row]) -> list[list[list[str]]]:
    return [vote["judgement"]["ranking"] for vote in votes if vote["judgement"].get("ranking")]


def _who(vote: Row) -> Row:
    return {"annotator": vote["annotator"], "annotator_kind": vote["annotator_kind"]}


def _ranking_rows(snapshot: Snapshot, rows: Iterator[Row]) -> Iterator[Row]:
    for votes, origin in with_origins(snapshot, rows):
        ranking, places = consensus(votes)
        if not ranking:
            continue
        task, place = votes[0], ranks(ranking)
        keys = [item["key"] for item in task["completions"]]
        ranked = [vote for vote in votes if vote["judgement"].get("ranking")]
        yield {
            "task": task["task"],
            "prompt": task["prompt"],
            "completions": [{"author": None, **item} for item in task["completions"]],
            "ranking": ranking,
            "ranks": [place[key] for key in keys],
            "mean_ranks": [places[key] for key in keys],
            "n_votes": len(ranked),
            "agreement": agreement(votes, ranking),
            "settled": task.get("adjudication") is not None,
            "weight": 1.0,
            "pair_weight": 1 / comb(len(keys), 2) if len(keys) > 1 else 1.0,
            "rankings": [_who(vote) | {"ranking": vote["judgement"]["ranking"]} for vote in ranked],
            "iteration": task["iteration"],
            **origin,
        }


def _rating_rows(snapshot: Snapshot, rows: Iterator[Row]) -> Iterator[Row]:
    for votes, origin in with_origins(snapshot, rows):
        task = votes[0]
        for item in task["completions"]:
            given: dict[str, list[Row]] = {}
            for vote in votes:
                for axis, value in vote["judgement"].get("ratings", {}).get(item["key"], {}).items():
                    given.setdefault(axis, []).append(_who(vote) | {"value": value})
            for axis, values in given.items():
                yield {
                    "task": task["task"],
                    "prompt": task["prompt"],
                    "completion": [{"role": "assistant", "content": item["content"]}],
                    "key": item["key"],
                    "model": item["model"],
                    "axis": axis,
                    "mean": sum(value["value"] for value in values) / len(values),
                    "n": len(values),
                    "values": values,
                    "iteration": task["iteration"],
                    **origin,
                }


RANKING = View(
    "one row a task: its completions in the order of the consensus, ties in one group",
    frozen="votes",
    rows=_ranking_rows,
    columns={
        "task": str, "prompt": MESSAGES, "completions": [COMPLETION], "ranking": [[str]], "ranks": [int],
        "mean_ranks": [float], "n_votes": int, "agreement": float, "settled": bool, "weight": float,
        "pair_weight": float, "rankings": [{**AUTHOR, "ranking": [[str]]}], "iteration": int, "group_id": str,
        "licence": str,
    },
)  # fmt: skip
RATINGS = View(
    "one row a completion and axis: mean, count, and who gave what",
    frozen="votes",
    rows=_rating_rows,
    columns={
        "task": str, "prompt": MESSAGES, "completion": MESSAGES, "key": str, "model": str, "axis": str, "mean": float,
        "n": int, "values": [{**AUTHOR, "value": int}], "iteration": int, "group_id": str, "licence": str,
    },
)  # fmt: skip
