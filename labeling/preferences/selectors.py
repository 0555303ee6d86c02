from django.db.models import QuerySet

from labeling.accounts.models import User
from labeling.accounts.roles import READING
from labeling.preferences.models import Snapshot
from labeling.projects.selectors import projects_of


def snapshots_visible_to(user: User) -> QuerySet[Snapshot]:
    """Snapshots of the projects whose console the person reads."""
    return Snapshot.objects.filter(project__in=projects_of(user, roles=READING)).select_related("project")
