"""An annotator's own figures in one project: how much, how fast, and how often others say the same."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.db.models import Count, Exists, OuterRef, Q
from django.utils.functional import Promise
from django.utils.timezone import now

from labeling.accounts.models import User
from labeling.annotation.models import Judgement, Lease, Task
from labeling.annotation.selectors import day_of, standing_judgements
from labeling.projects.models import Project
from labeling.quality import statistics

DAYS = 30
MAX_SHARED_TASKS = 1000  # the newest
LEAST_SHARED_TASKS = 20  # below, the figure would say more of single tasks than of the person


@dataclass(frozen=True)
class Day:
    """One day (UTC): judgements, and the median of the seconds measured on them."""

    day: date
    n: int
    seconds_median: float | None


@dataclass(frozen=True)
class OwnRecord:
    """The last 30 days, oldest first, today included. `per_hour` is of the time that was measured, pauses left out."""

    days: list[Day]
    n_all: int
    seconds_today: float
    seconds_median: float | None
    per_hour: float | None
    n_timed: int
    skips: list[tuple[str | Promise, int]]

    @property
    def today(self) -> Day:
        return self.days[-1]

    @property
    def n(self) -> int:
        return sum(day.n for day in self.days)

    @property
    def most(self) -> int:
        return max(day.n for day in self.days)

    @property
    def n_skipped(self) -> int:
        return sum(n for _, n in self.skips)


def own_record(user: User, project: Project, at: datetime | None = None) -> OwnRecord:
    """A judgement that was revised counts once, on the day it was first made. Three queries."""
    today = day_of(at or now())
    since = today - timedelta(days=DAYS - 1)
    mine = Judgement.objects.filter(annotator=user, project=project, supersedes=None)
    seconds: dict[date, list[float | None]] = {(since + timedelta(days=n)).date(): [] for n in range(DAYS)}
    for made_at, taken in mine.filter(created_at__gte=since).values_list("created_at", "seconds"):
        seconds.setdefault(made_at.date(), []).append(taken)
    timed = [value for day in seconds.values() for value in day if value is not None]
    skipped = (
        Lease.objects.filter(annotator=user, task__project=project, state=Lease.State.SKIPPED, closed_at__gte=since)
        .order_by()
        .values_list("skip_reason")
        .annotate(n=Count("pk"))
        .order_by("-n", "skip_reason")
    )
    labels = dict(Lease.SkipReason.choices)
    return OwnRecord(
        days=[Day(day, len(given), statistics.median_seconds(given)) for day, given in sorted(seconds.items())][:DAYS],
        n_all=mine.count(),
        seconds_today=sum(value for value in seconds[today.date()] if value is not None),
        seconds_median=statistics.median_seconds(timed),
        per_hour=3600 * len(timed) / sum(timed) if sum(timed) else None,
        n_timed=len(timed),
        skips=[(labels.get(reason, ""), n) for reason, n in skipped],
    )


@dataclass(frozen=True)
class OwnAgreement:
    """`figure` is None until enough tasks are shared."""

    n_tasks: int
    figure: statistics.Figure | None
    least: int = LEAST_SHARED_TASKS

    @property
    def value(self) -> int:
        return round(100 * self.figure["value"])

    @property
    def low(self) -> int:
        return round(100 * self.figure["low"])

    @property
    def high(self) -> int:
        return round(100 * self.figure["high"])


def own_agreement(user: User, project: Project, at: datetime | None = None) -> OwnAgreement:
    """How often the person says of a pair what most of the other people say of it; a tie is an answer.

    The person's own vote is not part of what most say. So that nobody can feel their way to how others judged a task:
    it is one figure over many tasks, of what was judged before today, by the person's first judgement of each, so a
    revision doesn't move it. Simulated annotators and gold tasks stay out. Two queries.
    """
    before = day_of(at or now())
    judged = Judgement.objects.filter(project=project, task__purpose__in=Task.COLLECTED, created_at__lt=before).exclude(ranking=[])
    others = standing_judgements(project).filter(created_at__lt=before, annotator_kind=User.Kind.HUMAN)
    others = others.exclude(Q(ranking=[]) | Q(annotator=user))
    shared = (
        judged.filter(annotator=user, supersedes=None)
        .filter(Exists(others.filter(task=OuterRef("task"))))
        .order_by("-pk")
        .values_list("task_id", "ranking")[:MAX_SHARED_TASKS]
    )
    rankings = {task: {user.pk: ranking} for task, ranking in shared}
    for task, annotator, ranking in others.filter(task__in=rankings).values_list("task_id", "annotator_id", "ranking"):
        rankings[task][annotator] = ranking
    votes = [statistics.pair_votes(by_annotator) for by_annotator in rankings.values()]
    figure = statistics.agreement_with_others(votes).get(user.pk)
    enough = figure is not None and figure["value"] is not None and len(votes) >= LEAST_SHARED_TASKS
    return OwnAgreement(n_tasks=len(votes), figure=figure if enough else None)
