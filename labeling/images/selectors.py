from django.db.models import QuerySet

from labeling.accounts.models import User
from labeling.images.models import Image
from labeling.projects.selectors import projects_of


def images_seen_by(user: User) -> QuerySet[Image]:
    """Those of the projects that the person is a member of, in any role."""
    return Image.objects.filter(project__in=projects_of(user))
