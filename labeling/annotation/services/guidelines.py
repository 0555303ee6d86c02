"""The guideline changed: who has to read what before they are given another task."""

from labeling.accounts.models import User
from labeling.annotation.models import Judgement
from labeling.projects.models import Membership, Project


def begin_guideline(*, project: Project, user: User) -> int:
    """Note which version somebody works under who never confirmed one. Returns it; 0 where there is no guideline.

    It is the newest that they judged under, so that they are asked about what changed since. Whoever has judged
    nothing begins with the newest of all, which stands beside their tasks: for them nothing has changed.
    """
    if project.guideline is None:
        return 0
    judged = Judgement.objects.filter(annotator=user, project=project, guideline__isnull=False).order_by("-pk")
    version = judged.values_list("guideline__version", flat=True).first() or project.guideline.version
    Membership.objects.filter(project=project, user=user, guideline_read=0).update(guideline_read=version)
    return version
