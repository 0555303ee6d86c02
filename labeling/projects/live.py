"""Who may hear what of a project while its page is open."""

from labeling.accounts.models import User
from labeling.accounts.roles import READING
from labeling.live.consumers import Audience
from labeling.projects.models import Membership

# What annotators may know of: none of it tells how others judge.
FOR_ANNOTATORS = frozenset({"project", "guideline", "queue"})


def project_audience(user: User, slug: str) -> Audience | None:
    membership = Membership.objects.select_related("project").filter(user=user, project__slug=slug).first()
    if membership is None:
        return None
    return Audience(membership.project.live_group, None if membership.role in READING else FOR_ANNOTATORS)
