"""What of the guideline a person has to read before their next task."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from django.db.models import OuterRef, QuerySet, Subquery
from django.utils.timezone import now

from labeling.accounts.models import User
from labeling.accounts.roles import ANNOTATING
from labeling.annotation.models import Lease, Task
from labeling.annotation.selectors import leases_held_by
from labeling.annotation.services.guidelines import begin_guideline
from labeling.projects.guidelines import Part, changed_parts
from labeling.projects.models import Guideline, Membership, Project
from labeling.projects.selectors import projects_of


@dataclass(frozen=True)
class GuidelineChange:
    """The newest version, and the one the person has read; None where that isn't there any more."""

    guideline: Guideline
    before: Guideline | None

    @property
    def parts(self) -> list[Part]:
        return changed_parts(self.before.markdown, self.guideline.markdown) if self.before else []


def projects_at_work(user: User) -> QuerySet[Project]:
    """Projects that the person annotates in, each with the version `guideline_read` that they have read."""
    mine = Membership.objects.filter(user=user, project=OuterRef("pk"))
    found = projects_of(user, roles=ANNOTATING).select_related("guideline")
    return found.annotate(guideline_read=Subquery(mine.values("guideline_read")[:1]))


def change_to_read(user: User, project: Project) -> GuidelineChange | None:
    """What changed since the version they have read; None: nothing. `project` is one of `projects_at_work`.

    No query for whoever has read the newest.
    """
    newest = project.guideline
    if newest is None:
        return None
    read = project.guideline_read or begin_guideline(project=project, user=user)  # type: ignore[attr-defined]
    if read >= newest.version:
        return None
    return GuidelineChange(newest, Guideline.objects.filter(project=project, version=read).first())


def lease_in_hand(
    user: User, project: Project, holding: Collection[int] = (), at: datetime | None = None
) -> Lease | None:
    """An open task of theirs, given under whatever version, that they don't say they hold."""
    found = leases_held_by(user).filter(task__project=project, state=Lease.State.OPEN, expires_at__gt=at or now())
    return found.exclude(task__kind=Task.CONVERSATION).exclude(pk__in=holding).order_by("pk").first()
