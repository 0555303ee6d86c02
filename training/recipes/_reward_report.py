"""How far a reward model may be trusted, and where not: a report on pairs that it was not trained on.

Both reward recipes call `reward_report` with the rewards of pairs that were held out (or, where none were, of training
pairs by fits that have not seen their group), put it into `result.json` as `report`, its main figures among `figures`, and each pair's
margin into `predictions.jsonl` of the run folder.

A pair is right where chosen has the higher reward; equal rewards count half. Ties have no right order: they are counted and
take part in nothing but the correlation of reward and length. Every interval is a 95 % interval that knows that pairs of one
group are not independent. Pairs count alike, whatever they weigh in training.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy
from scipy.special import expit

from training.recipes._calibration import calibration, scaled_margins
from training.recipes._rows import Table, completion_text
from training.recipes._statistics import Figure, clustered_correlation, difference_of_means, proportion

MOST_SLICES = 12  # of one kind; the smallest of more are gathered
MOST_CASES = 50  # of disagreement with a clear majority that are listed
LEAST_VOTES, CLEAR = 3, 0.8  # a clear majority: at least so many people, at least this share of whom say the same
MACHINES = ("simulated", "model")
LENGTH_BINS = 5
LEAST_IN_LENGTH_BIN = 10
STRENGTHS = {1: "1 slightly", 2: "2 clearly", 3: "3 much"}

HELD_OUT = "held-out pairs"
CROSS_VALIDATED = "training pairs, each by a fit that has not seen its prompt group"

Rows = list[dict[str, Any]]
Say = Sequence[tuple[Hashable, float, Hashable]]


def reward_report(
    rows: Table, chosen: Sequence[float], rejected: Sequence[float], *,
    is_cross_validated: bool = False, is_one_scale: bool = True, n_dropped: int = 0, seed: int = 0,
) -> dict[str, Any]:
    """The report on pairs, in the order of `rows`, from the rewards of their two sides in logits.

    `rows` have the columns of `load_preferences`, in a `datasets.Dataset` or a `Table`; `n_dropped` pairs of their file had no reward, being too long. Returns
    plain values for JSON: `of`, `is_cross_validated`, `n_pairs`, `n_groups`, `n_ties`, `n_dropped`, `accuracy`, and
    `slices`, `calibration`, `length`, `position` and `majority`, as the functions below describe them. Of what the data
    don't say, the part has the reason in `missing`.

    `margin` below is the reward of chosen minus rejected. Rewards of cross-validated fits can't be compared between
    folds, nor those of pairs of different axes (not `is_one_scale`), so there the reward's correlation with length over all
    completions is None.
    """
    chosen_rewards, rejected_rewards = (numpy.asarray(values, dtype=float) for values in (chosen, rejected))
    margin = chosen_rewards - rejected_rewards
    decided = [index for index, tie in enumerate(rows["tie"]) if not tie]
    pairs: Rows = []
    table = rows.select(decided).to_list()
    for index, row in zip(decided, table, strict=True):
        value = float(margin[index])
        lengths = [len(completion_text(row[side])) for side in ("chosen", "rejected")]
        pairs.append(row | {"margin": value, "right": (value > 0) + (value == 0) / 2, "lengths": lengths})
    groups = [pair["group_id"] for pair in pairs]
    return {
        "of": CROSS_VALIDATED if is_cross_validated else HELD_OUT,
        "is_cross_validated": is_cross_validated,
        "n_pairs": len(rows),
        "n_groups": len(set(rows["group_id"])),
        "n_ties": len(rows) - len(pairs),
        "n_dropped": n_dropped,
        "accuracy": proportion([pair["right"] for pair in pairs], groups),
        "slices": slices(pairs),
        "calibration": calibration([pair["margin"] for pair in pairs], groups, seed=seed),
        "length": length_bias(pairs)
        | {"overall": None if is_cross_validated or not is_one_scale else _overall(rows, chosen_rewards, rejected_rewards)},
        "position": position_bias(pairs),
        "majority": against_majorities(pairs),
    }


def headlines(report: dict[str, Any]) -> dict[str, Figure]:
    """The report's main figures, for `figures`: those of cross-validated pairs begin with `cv_`."""
    prefix = "cv_" if report["is_cross_validated"] else ""
    length, position = report["length"], report["position"]
    found = {
        "accuracy_shorter_won": length["shorter_won"],
        "accuracy_longer_won": length["longer_won"],
        "longer_won": length["people"],
        "longer_has_higher_reward": length["model"],
        "length_correlation_within_prompt": length["within_prompt"],
        "accuracy_second_shown_won": position["second_won"],
        "accuracy_first_shown_won": position["first_won"],
        "calibration_error": report["calibration"]["ece"],
        "brier": report["calibration"]["brier"],
        "against_clear_majority": report["majority"]["against"],
    }
    return {prefix + name: figure for name, figure in found.items() if figure["n"]}


def write_predictions(
    path: Path, rows: Table, chosen: Sequence[float], rejected: Sequence[float], *, numbers: Sequence[int], seed: int = 0
) -> None:
    """A line `{"row", "id", "tie", "margin", "probability", "probability_scaled"}` for each pair; whole or not at all.

    `row` counts the lines of the pairs' file from 0, by `numbers`. `probability` is how likely chosen is the better one as
    the model has it, `probability_scaled` by a temperature fitted on other groups' pairs with a winner, null where
    there are too few; a tie has none of its own.
    """
    margin = numpy.asarray(chosen, dtype=float) - numpy.asarray(rejected, dtype=float)
    decided = numpy.array([not tie for tie in rows["tie"]], dtype=bool)
    names: dict[Hashable, int] = {}
    group = numpy.array([names.setdefault(name, len(names)) for name in rows["group_id"]], dtype=int)
    scaled = numpy.full(len(margin), numpy.nan)
    if decided.any():
        of_decided, _ = scaled_margins(margin[decided], numpy.unique(group[decided], return_inverse=True)[1], seed=seed)
        if of_decided is not None:
            scaled[decided] = of_decided
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as file:
        for row, id, tie, value, after in zip(numbers, rows["id"], rows["tie"], margin.tolist(), scaled.tolist(), strict=True):
            line = {
                "row": row, "id": id, "tie": tie, "margin": value, "probability": float(expit(value)),
                "probability_scaled": None if math.isnan(after) else float(expit(after)),
            }  # fmt: skip
            file.write(json.dumps(line) + "\n")
    temporary.replace(path)


# --- slices -------------------------------------------------------------------------------------
def slices(pairs: Rows) -> list[dict[str, Any]]:
    """Accuracy by what is known of the pairs: `[{"by", "unit", "rows", "n_gathered", "n_unknown", "missing"}]`.

    `by` is strength, tag, iteration, annotator or annotator_kind. Each of `rows` has a `name` and the figure `accuracy`;
    of more than 12 the smallest `n_gathered` are one row, `other`. `n_unknown` pairs say nothing of it. A pair with
    several tags is in each of their rows. For annotators the `unit` is votes, not pairs, and right is what that person
    said themselves, whoever won: a vote for a tie does not count.
    """

    def of_pairs(names_of: Callable[[dict[str, Any]], Iterable[str]]) -> tuple[list[tuple[str, float, Hashable]], int]:
        found, n_unknown = [], 0
        for pair in pairs:
            names = list(dict.fromkeys(names_of(pair)))
            n_unknown += not names
            found += [(name, pair["right"], pair["group_id"]) for name in names]
        return found, n_unknown

    def of_votes(key: str) -> tuple[list[tuple[str, float, Hashable]], int]:
        found, n_unknown = [], 0
        for pair in pairs:
            votes = [vote for vote in pair["votes"] or [] if vote.get(key)]
            n_unknown += not votes
            for vote in votes:
                if vote["choice"] != "tie":
                    right = pair["right"] if vote["choice"] == "chosen" else 1 - pair["right"]
                    found.append((str(vote[key]), right, pair["group_id"]))
        return found, n_unknown

    strength = of_pairs(lambda pair: [] if pair["strength"] is None else [STRENGTHS[min(3, max(1, round(pair["strength"])))]])
    iteration = of_pairs(lambda pair: [] if pair["iteration"] is None else [str(pair["iteration"])])
    return [
        _slice("strength", "pairs", strength, "no pair says how strong the preference is", in_order=True),
        _slice("tag", "pairs", of_pairs(lambda pair: pair["tags"] or []), "no prompt of theirs has a tag"),
        _slice("iteration", "pairs", iteration, "the pairs don't say of which iteration they are", in_order=True),
        _slice("annotator", "votes", of_votes("annotator"), "the pairs don't say who judged them"),
        _slice("annotator_kind", "votes", of_votes("annotator_kind"), "the pairs don't say what kind of annotator judged them"),
    ]


def _slice(
    by: str, unit: str, said: tuple[list[tuple[str, float, Hashable]], int], missing: str, *, in_order: bool = False
) -> dict[str, Any]:
    """`in_order`: by name, shortest first, as numbers go; else the largest first."""
    found, n_unknown = said
    members: dict[str, list[tuple[float, Hashable]]] = {}
    for name, right, group in found:
        members.setdefault(name, []).append((right, group))
    names = sorted(members, key=lambda name: (-len(members[name]), name))
    kept, gathered = (names, []) if len(names) <= MOST_SLICES else (names[: MOST_SLICES - 1], names[MOST_SLICES - 1 :])
    if in_order:
        kept = sorted(kept, key=lambda name: (len(name.split()[0]), name))
    rows = [{"name": name, "is_other": False, "accuracy": _proportion(members[name])} for name in kept]
    if gathered:
        others = [one for name in gathered for one in members[name]]
        rows.append({"name": "other", "is_other": True, "accuracy": _proportion(others)})
    return {
        "by": by, "unit": unit, "rows": rows, "n_gathered": len(gathered), "n_unknown": n_unknown,
        "missing": "" if rows else missing,
    }  # fmt: skip


def _proportion(said: Iterable[tuple[float, Hashable]]) -> Figure:
    right, groups = zip(*said, strict=True)
    return proportion(right, groups)


# --- length and position ------------------------------------------------------------------------
def length_bias(pairs: Rows) -> dict[str, Any]:
    """Whether reward follows length, in characters of the completion.

    `shorter_won` and `longer_won` are the accuracy on pairs whose chosen completion is the shorter or the longer one, and
    `difference` is the second less the first: near 1 for a model that reads nothing else, 0 for one that doesn't read it
    where length says nothing; where people prefer the longer one a good model lies above 0 too. `within_prompt` is the correlation of the pairs' differences of reward with those
    of log length, which does not hang on which side is which. `people` and `model` are how often each prefers the longer
    one, to be held against one another. `by_ratio` has both for up to 5 bins of pairs of equal size, in order of how many times as long the longer one
    is (`low` to `high`). `n_equal` pairs are of equal length and in none of these but `within_prompt`.
    """
    unequal = [pair for pair in pairs if pair["lengths"][0] != pair["lengths"][1]]
    groups = [pair["group_id"] for pair in unequal]
    longer_won = [pair["lengths"][0] > pair["lengths"][1] for pair in unequal]
    rights = [pair["right"] for pair in unequal]
    by_model = [right if longer else 1 - right for right, longer in zip(rights, longer_won, strict=True)]
    ratio = numpy.array([max(pair["lengths"]) / max(1, min(pair["lengths"])) for pair in unequal])
    bins = []
    if unequal:
        n_bins = max(1, min(LENGTH_BINS, len(unequal) // LEAST_IN_LENGTH_BIN))
        for rows in numpy.array_split(numpy.argsort(ratio, kind="stable"), n_bins):
            here = [groups[row] for row in rows]
            bins.append(
                {
                    "low": float(ratio[rows].min()),
                    "high": float(ratio[rows].max()),
                    "people": proportion([float(longer_won[row]) for row in rows], here),
                    "model": proportion([by_model[row] for row in rows], here),
                }
            )
    return {
        "unit": "characters",
        "n_equal": len(pairs) - len(unequal),
        "shorter_won": _where(unequal, [not longer for longer in longer_won]),
        "longer_won": _where(unequal, longer_won),
        "difference": difference_of_means(rights, longer_won, groups),
        "within_prompt": clustered_correlation(
            [pair["margin"] for pair in pairs], [_log_ratio(pair) for pair in pairs],
            [pair["group_id"] for pair in pairs], through_origin=True,
        ),
        "people": proportion([float(longer) for longer in longer_won], groups),
        "model": proportion(by_model, groups),
        "by_ratio": bins,
    }  # fmt: skip


def _log_ratio(pair: dict[str, Any]) -> float:
    chosen, rejected = pair["lengths"]
    return math.log1p(chosen) - math.log1p(rejected)


def _where(pairs: Rows, wanted: Sequence[bool]) -> Figure:
    found = [pair for pair, take in zip(pairs, wanted, strict=True) if take]
    return proportion([pair["right"] for pair in found], [pair["group_id"] for pair in found])


def _overall(rows: Table, chosen: numpy.ndarray, rejected: numpy.ndarray) -> Figure:
    """Correlation of reward with log length over all completions, each once."""
    seen: dict[tuple[str, str], tuple[float, float, str]] = {}
    for side, rewards in (("chosen", chosen), ("rejected", rejected)):
        for prompt, messages, group, reward in zip(rows["prompt"], rows[side], rows["group_id"], rewards.tolist(), strict=True):
            text = completion_text(messages)
            seen.setdefault((repr(prompt), text), (reward, math.log1p(len(text)), group))
    return clustered_correlation(*zip(*seen.values(), strict=True)) if seen else clustered_correlation([], [], [])


def position_bias(pairs: Rows) -> dict[str, Any]:
    """Whether the model learnt where completions stood: accuracy by whether the winner was shown first.

    A model never sees the place. Where it is right oftener when the first-shown won (`first_won`) than when the second-shown
    did (`second_won`), while order was drawn at random, the labels themselves follow the place. `difference` is the
    first less the second, `people` how often the first-shown one won. `n_unknown` pairs don't say what was shown first, as
    corrections, and `n_balanced` were shown as often one way as the other.
    """
    known = [pair for pair in pairs if pair["chosen_first"] is not None]
    uneven = [pair for pair in known if pair["chosen_first"] != 0.5]
    first_won = [pair["chosen_first"] > 0.5 for pair in uneven]
    groups = [pair["group_id"] for pair in uneven]
    return {
        "first_won": _where(uneven, first_won),
        "second_won": _where(uneven, [not first for first in first_won]),
        "difference": difference_of_means([pair["right"] for pair in uneven], first_won, groups),
        "people": proportion([float(first) for first in first_won], groups),
        "n_unknown": len(pairs) - len(known),
        "n_balanced": len(known) - len(uneven),
        "missing": "" if uneven else "the pairs don't say which completion was shown first",
    }


# --- people who agree with one another ----------------------------------------------------------
def against_majorities(pairs: Rows) -> dict[str, Any]:
    """How often the model prefers what a clear majority of people does not.

    A majority is clear where at least 3 people judged the two completions and at least 80 % of them said the same, a tie
    being an answer; votes of programs and models don't count, and what a reviewer settled is left out
    (`n_settled`). `against` is the share of such comparisons in which the model has the other one higher. `cases` are up
    to 50 of these, the surest first: `{"id", "task", "probability", "n_votes", "share"}`, where `probability` is the
    model's for what people prefer; there are `n_cases`. `n_few` comparisons had fewer votes, `n_unclear` no clear
    majority, or one for a tie.
    """
    by_comparison: dict[Hashable, Rows] = {}
    for number, pair in enumerate(pairs):
        by_comparison.setdefault(pair["comparison"] or (pair["id"] or number), []).append(pair)
    counts: Counter[str] = Counter()
    against: list[float] = []
    groups: list[Hashable] = []
    cases: Rows = []
    for same in by_comparison.values():
        pair = same[0]
        said = _people(same)
        total = sum(said)
        if pair["is_settled"]:
            counts["settled"] += 1
        elif total < LEAST_VOTES:
            counts["few"] += 1
        elif max(said[:2]) < CLEAR * total:
            counts["unclear"] += 1
        else:
            margin = pair["margin"] if said[0] > said[1] else -pair["margin"]
            against.append((margin < 0) + (margin == 0) / 2)
            groups.append(pair["group_id"])
            if margin < 0:
                case = {"id": pair["id"], "task": pair["task"], "probability": float(expit(margin))}
                cases.append(case | {"n_votes": total, "share": max(said[:2]) / total})
    cases.sort(key=lambda case: (case["probability"], str(case["id"])))
    return {
        "least_votes": LEAST_VOTES, "clear": CLEAR,
        "against": proportion(against, groups),
        "n_few": counts["few"], "n_unclear": counts["unclear"], "n_settled": counts["settled"],
        "n_cases": len(cases),
        "cases": cases[:MOST_CASES],
        "missing": "" if against else f"no comparison was judged by {LEAST_VOTES} people of whom {100 * CLEAR:.0f} % say the same",
    }  # fmt: skip


def _people(same: Rows) -> tuple[int, int, int]:
    """Of rows on one comparison: how many people prefer chosen of the first row, rejected, and neither."""
    first = same[0]
    if first["people"] is not None:
        chosen, rejected, tie = (first["people"][name] for name in ("chosen", "rejected", "tie"))
        return chosen, rejected, tie
    counts: Counter[str] = Counter()
    for pair in same:
        is_turned = completion_text(pair["chosen"]) != completion_text(first["chosen"])
        for vote in pair["votes"] or []:
            if vote.get("annotator_kind") not in MACHINES:
                choice = vote["choice"]
                counts[{"chosen": "rejected", "rejected": "chosen"}.get(choice, choice) if is_turned else choice] += 1
    return counts["chosen"], counts["rejected"], counts["tie"]
