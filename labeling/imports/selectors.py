"""What a person may see of imports."""

from django.db.models import QuerySet

from labeling.accounts.models import User
from labeling.accounts.roles import READING
from labeling.projects.models import Import
from labeling.projects.selectors import projects_of


def imports_visible_to(user: User) -> QuerySet[Import]:
    """Imports of the projects whose console the person reads; files that somebody still looks at are none yet."""
    found = Import.objects.filter(project__in=projects_of(user, roles=READING)).exclude(state=Import.State.DRAFT)
    return found.select_related("project", "created_by")
