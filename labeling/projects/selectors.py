"""What a person may see of projects. Every queryset begins at the person's memberships."""

from collections.abc import Collection

from django.db.models import OuterRef, QuerySet, Subquery

from labeling.accounts.models import User
from labeling.database.prepared import prepared
from labeling.projects.models import Guideline, Membership, Project


def projects_of(user: User, *, roles: Collection[str] | None = None) -> QuerySet[Project]:
    """Projects that the person is a member of, in one of `roles` if given."""
    memberships = Membership.objects.filter(user=user)
    if roles is not None:
        memberships = memberships.filter(role__in=roles)
    return Project.objects.filter(pk__in=memberships.values("project"))


@prepared
def project_at(user: int, slug: str) -> QuerySet[Project]:
    """The project of this slug if the person is a member of it; `role` says as what."""
    memberships = Membership.objects.filter(user=user)
    role = memberships.filter(project=OuterRef("pk")).values("role")[:1]
    return Project.objects.filter(slug=slug, pk__in=memberships.values("project")).annotate(role=Subquery(role))


def membership_of(user: User, project: Project) -> Membership | None:
    return Membership.objects.filter(user=user, project=project).first()


def current_guideline(project: Project) -> Guideline | None:
    return project.guidelines.order_by("-version").first()


def members_of(project: Project) -> QuerySet[Membership]:
    return project.memberships.select_related("user").order_by("role", "user__username")
