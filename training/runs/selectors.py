from django.db.models import QuerySet

from labeling.accounts.models import User
from labeling.accounts.roles import READING
from labeling.projects.selectors import projects_of
from training.runs.models import Run


def runs_visible_to(user: User) -> QuerySet[Run]:
    """Runs of the projects whose console the person reads."""
    return Run.objects.filter(project__in=projects_of(user, roles=READING)).select_related(
        "project", "snapshot", "model", "other_model", "output_model"
    )
