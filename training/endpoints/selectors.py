from django.db.models import QuerySet

from labeling.accounts.models import User
from labeling.accounts.roles import READING
from labeling.projects.selectors import projects_of
from training.endpoints.models import Endpoint


def endpoints_visible_to(user: User) -> QuerySet[Endpoint]:
    """Those of the projects whose console the person reads."""
    found = Endpoint.objects.filter(project__in=projects_of(user, roles=READING))
    return found.select_related("project", "model")
