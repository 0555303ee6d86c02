"""Writes of this app, by topic: reports of figures, adjudication."""

from labeling.quality.services.adjudication import (
    ADJUDICATION_MODES,
    MAX_NOTE,
    MAX_RATIONALE,
    Belief,
    Settled,
    adjudicate,
    adjudication_mode,
    open_review,
    record_contradictions,
    refresh_disagreements,
    say_ranking,
    set_adjudication_mode,
    settle_note,
)
from labeling.quality.services.reports import (
    compute_due_reports,
    compute_report,
    figures_and_annotators,
    outdate_report,
    quality_figures,
)

__all__ = [
    "ADJUDICATION_MODES",
    "MAX_NOTE",
    "MAX_RATIONALE",
    "Belief",
    "Settled",
    "adjudicate",
    "adjudication_mode",
    "compute_due_reports",
    "compute_report",
    "figures_and_annotators",
    "open_review",
    "outdate_report",
    "quality_figures",
    "record_contradictions",
    "refresh_disagreements",
    "say_ranking",
    "set_adjudication_mode",
    "settle_note",
]
