"""Computing and storing the figures of a project's judgements."""

import logging
import time
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q
from django.utils.timezone import now

from labeling.accounts.models import User
from labeling.annotation.models import Judgement
from labeling.live.services import notify
from labeling.projects.models import Project
from labeling.projects.services import pseudonym_of
from labeling.quality.columns import read_columns, read_settled, tags_of_tasks
from labeling.quality.gold import gold_results
from labeling.quality.models import QualityReport
from labeling.quality.repeats import repeat_results
from labeling.quality.reports import SHAPE, figures_of, no_row, nothing_yet

logger = logging.getLogger(__name__)

SMALL = 2000  # judgements up to which whoever asks gets figures of this moment
LOST_AFTER = timedelta(minutes=30)
AFTER_A_PROBLEM = timedelta(minutes=10)
FAILED = "the newest figures could not be computed: the worker's log says why, and it is tried again every ten minutes"
# A large project that is judged all day is not computed all day: each report is followed by a rest of so many times the
# time it took.
REST = 10


def quality_figures(project: Project) -> dict[str, Any]:
    """The figures to show: of this moment in a small project, else those of the newest report.

    `computed_at` is None, and each figure says why, where a large project has no report yet.
    """
    return figures_and_annotators(project)[0]


def figures_and_annotators(project: Project) -> tuple[dict[str, Any], list[int]]:
    """The same, and the ids of the annotators in them: for the console, never for exports. Two queries if stored."""
    report = QualityReport.objects.filter(project=project).first()
    newest, is_small = _newest_judgement(project)
    if is_small and (report is None or _is_behind(report, newest)):
        report = compute_report(project=project) or report
    elif report is None:
        report, _ = QualityReport.objects.get_or_create(project=project)
    problem = FAILED if report and report.problem else ""
    if report is None or report.computed_at is None or report.shape != SHAPE:
        figures = nothing_yet(problem or "the figures are being computed; they are here in a minute or two")
        return figures | {"computed_at": None, "n_judgements_since": 0, "problem": problem}, []
    n_since = 0
    if newest > report.up_to_judgement:
        n_since = Judgement.objects.filter(project=project, pk__gt=report.up_to_judgement).count()
    of_report = {"computed_at": report.computed_at.isoformat(), "n_judgements_since": n_since, "problem": problem}
    return report.figures | of_report, report.consensus["annotators"]


def compute_report(*, project: Project, at: datetime | None = None) -> QualityReport | None:
    """Compute the figures and store them. None where somebody else is at it. A failure is stored, then raised."""
    at = at or now()
    QualityReport.objects.get_or_create(project=project)
    mine = QualityReport.objects.filter(project=project, state=QualityReport.State.COMPUTING, claimed_at=at)
    is_free = Q(state=QualityReport.State.IDLE) | Q(claimed_at__lte=at - LOST_AFTER)
    # Of two who come at once only one sees a row updated. What is asked for from here on asks again.
    if not QualityReport.objects.filter(is_free, project=project).update(
        state=QualityReport.State.COMPUTING, claimed_at=at, is_outdated=False
    ):
        return None
    began, (newest, _) = time.monotonic(), _newest_judgement(project)
    try:
        columns = read_columns(project)
        tags, settled = tags_of_tasks(project, columns.tasks), read_settled(project, columns.tasks)
        figures, consensus = figures_of(project, columns, tags, settled)
        _add_checks(project, figures, consensus["annotators"])
    except Exception as error:
        mine.update(state=QualityReport.State.IDLE, problem=f"{type(error).__name__}: {error}"[:300])
        raise
    mine.update(
        state=QualityReport.State.IDLE, problem="", computed_at=at, seconds=time.monotonic() - began, shape=SHAPE,
        up_to_judgement=newest, n_judgements=len(columns), figures=figures, consensus=consensus,
    )  # fmt: skip
    return QualityReport.objects.get(project=project)


def _add_checks(project: Project, figures: dict[str, Any], annotators: list[int]) -> None:
    """How gold tasks and repeats came out: of all, and in each annotator's row; None for those who had none.

    Who had some, but has no judgement that counts, gets a row and is added to `annotators`.
    """
    gold, (repeats, of_all) = gold_results(project), repeat_results(project)
    figures["gold"], figures["repeats"] = {"all": gold.all, "over_time": gold.over_time}, of_all
    known = set(annotators)
    for user in User.objects.filter(pk__in=(gold.by_annotator.keys() | repeats.keys()) - known).order_by("pk"):
        annotators.append(user.pk)
        figures["annotators"].append(no_row(pseudonym_of(project, user), user.kind))
    who = {pseudonym_of(project, User(pk=pk)): pk for pk in annotators}
    for row in figures["annotators"]:
        pk = who[row["annotator"]]
        row["gold"], row["repeats"] = gold.by_annotator.get(pk), repeats.get(pk)


def outdate_report(project: Project) -> None:
    """Have the figures computed again though no judgement came in: some were set aside, or a task was closed."""
    QualityReport.objects.filter(project=project).update(is_outdated=True)


def compute_due_reports(at: datetime | None = None) -> int:
    """Bring reports up to date in projects where judgements came in since. Returns how many were computed."""
    at = at or now()
    for project in Project.objects.filter(quality_report=None, judgements__isnull=False).distinct():
        QualityReport.objects.get_or_create(project=project)
    n_computed = 0
    for report in QualityReport.objects.select_related("project").defer("figures", "consensus").order_by("claimed_at"):
        if _is_due(report, at):
            try:
                if compute_report(project=report.project):
                    notify(report.project.live_group, "quality")
                    n_computed += 1
            except Exception:
                # One project's trouble is in its row, and must not keep the others from theirs.
                logger.exception("Figures of project %s could not be computed", report.project_id)
    return n_computed


def _is_due(report: QualityReport, at: datetime) -> bool:
    if report.problem and report.claimed_at and report.claimed_at > at - AFTER_A_PROBLEM:
        return False
    if report.computed_at and report.computed_at > at - timedelta(seconds=REST * (report.seconds or 0)):
        return False
    return _is_behind(report, _newest_judgement(report.project)[0])


def _is_behind(report: QualityReport, newest: int) -> bool:
    is_missing = report.computed_at is None or report.shape != SHAPE
    return is_missing or report.is_outdated or newest > report.up_to_judgement


def _newest_judgement(project: Project) -> tuple[int, bool]:
    """Its id, 0 if there is none, and whether there are few. One step into an index, whatever the project's size."""
    newest = Judgement.objects.filter(project=project).order_by("-created_at", "-pk").values_list("pk", flat=True)
    found = list(newest[: SMALL + 1])
    return max(found, default=0), len(found) <= SMALL
