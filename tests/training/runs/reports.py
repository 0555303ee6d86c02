"""A report as the reward recipes leave it, by hand: few pairs, of which little is known."""

from typing import Any


def small_report(cases: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    figure = {"value": 0.5, "low": 0.2, "high": 0.8, "n": 4, "n_groups": 2, "method": "by hand"}
    none = figure | {"value": None, "low": None, "high": None, "n": 0}
    return {
        "of": "held-out pairs", "is_cross_validated": True, "n_pairs": 4, "n_groups": 2, "n_ties": 1, "n_dropped": 2,
        "accuracy": figure,
        "slices": [
            {"by": "tag", "unit": "pairs", "rows": [{"name": "<b>", "is_other": False, "accuracy": figure}, {"name": "other", "is_other": True, "accuracy": figure}], "n_gathered": 9, "n_unknown": 1, "missing": ""},
            {"by": "strength", "unit": "pairs", "rows": [], "n_gathered": 0, "n_unknown": 4, "missing": "no pair says how strong the preference is"},
        ],
        "calibration": {
            "n": 4, "bins": [], "ece": figure, "ece_by_chance": none, "brier": figure, "log_loss": figure,
            "temperature": none | {"method": "not fitted"}, "log_loss_scaled": None, "log_loss_change": None,
        },
        "length": dict.fromkeys(("shorter_won", "longer_won", "difference", "within_prompt", "people", "model"), figure)
        | {"unit": "characters", "n_equal": 1, "overall": None, "by_ratio": []},
        "position": dict.fromkeys(("first_won", "second_won", "difference", "people"), none)
        | {"n_unknown": 4, "n_balanced": 0, "missing": "the pairs don't say which completion was shown first"},
        "majority": {
            "least_votes": 3, "clear": 0.8, "against": figure, "n_few": 2, "n_unclear": 1, "n_settled": 1, "n_cases": len(cases or []),
            "cases": cases or [], "missing": "",
        },
    }  # fmt: skip
