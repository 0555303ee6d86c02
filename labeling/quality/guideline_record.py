"""What became of each version of a guideline: who has read it, what was judged under it, and how alike."""

from dataclasses import dataclass
from typing import Any

from django.core.cache import cache
from django.db.models import Count, Max

from labeling.accounts.roles import ANNOTATING
from labeling.annotation.models import Judgement, Task
from labeling.projects.models import Guideline, Project
from labeling.quality import statistics

MAX_JUDGEMENTS = 20_000  # the newest, of which agreement is computed
MOST_NAMED = 12


@dataclass(frozen=True)
class VersionRecord:
    """One version. `agreement` is of two people who judged the same task under it."""

    guideline: Guideline
    n_read: int
    n_people: int
    n_judgements: int
    agreement: statistics.Figure


@dataclass(frozen=True)
class GuidelineRecord:
    """Newest version first; and who of those who annotate hasn't read the newest."""

    versions: list[VersionRecord]
    unread: list[str]
    n_unread: int
    limited_to: int | None


def guideline_record(project: Project) -> GuidelineRecord:
    """Who has read a later version counts as a reader of an earlier one. Four queries, two where nothing came in."""
    versions = list(Guideline.objects.filter(project=project).defer("markdown").order_by("-version"))
    members = list(
        project.memberships.filter(role__in=ANNOTATING).values_list("guideline_read", "user__username").order_by("user__username")
    )  # fmt: skip
    judged = _judged_by_version(project)
    newest = versions[0].version if versions else 0
    unread = [name for read, name in members if read < newest]
    nothing = statistics.undefined("nothing was judged twice")
    return GuidelineRecord(
        versions=[
            VersionRecord(
                guideline=version,
                n_read=sum(read >= version.version for read, _ in members),
                n_people=len(members),
                n_judgements=judged["n"].get(version.version, 0),
                agreement=judged["agreement"].get(version.version, nothing),
            )
            for version in versions
        ],
        unread=unread[:MOST_NAMED],
        n_unread=len(unread),
        limited_to=judged["limited_to"],
    )


def _judged_by_version(project: Project) -> dict[str, Any]:
    """Counts and agreement by version, computed again when judgements came in; in a large project when a hundred did."""
    standing = Judgement.objects.current().filter(project=project, guideline__isnull=False)
    top = Judgement.objects.filter(project=project).aggregate(top=Max("pk"))["top"] or 0
    key = f"guideline-record:{project.pk}:{top // 100 if top > 5000 else top}"
    if found := cache.get(key):
        return found
    n = dict(standing.values_list("guideline__version").annotate(n=Count("pk")).order_by())
    rows = list(
        standing.filter(task__purpose__in=Task.COLLECTED)
        .exclude(ranking=[])
        .order_by("-pk")
        .values_list("guideline__version", "task_id", "annotator_id", "ranking")[: MAX_JUDGEMENTS + 1]
    )
    tasks: dict[int, dict[int, dict[int, Any]]] = {}
    for version, task, annotator, ranking in rows[:MAX_JUDGEMENTS]:
        tasks.setdefault(version, {}).setdefault(task, {})[annotator] = ranking
    found = {
        "n": n,
        "agreement": {
            version: statistics.pairwise_agreement(
                statistics.pair_votes(rankings) for rankings in by_task.values() if len(rankings) > 1
            )
            for version, by_task in tasks.items()
        },
        "limited_to": MAX_JUDGEMENTS if len(rows) > MAX_JUDGEMENTS else None,
    }
    cache.set(key, found, 600)
    return found
