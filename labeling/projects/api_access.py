"""Who may call what over REST. Every view of a project starts here.

A stranger, or a token that is for another project, gets 404. A member whose role is too low gets 403
`permission_denied`; what one's role can't even see is a 404. A token without the scope gets 403 `scope_missing`.
Roles are read at each request, so a change takes effect at the next one.
"""

from collections.abc import Collection
from typing import Any

from django.db.models import OuterRef, QuerySet, Subquery
from django.http import Http404
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import SAFE_METHODS, BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from labeling.accounts.models import ApiToken
from labeling.accounts.roles import Role
from labeling.projects.models import Membership, Project
from labeling.projects.selectors import project_at, projects_of
from labeling.projects.text import canonical_json, sha256
from labeling.web.api import CursorPages, JsonView, Refused, idempotency_key, json_object

ANY_ROLE = frozenset(Role.values)


class HasScope(BasePermission):
    """Reading needs the scope read; anything else the view's own, manage unless it says annotate."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        needed = ApiToken.Scope.READ if request.method in SAFE_METHODS else view.scope  # type: ignore[attr-defined]
        if needed in request.auth.scopes:
            return True
        raise Refused("scope_missing", f"This token does not have the scope {str(needed)!r}", status=403)


class ApiView(JsonView):
    permission_classes = [IsAuthenticated, HasScope]
    scope: str = ApiToken.Scope.MANAGE

    def projects(self) -> QuerySet[Project]:
        """Projects that the caller is a member of and the token is for, each with the caller's `role`."""
        found = projects_of(self.request.user).annotate(role=self._role_in("pk"))
        slug = self.request.auth.project_slug
        return found.filter(slug=slug) if slug else found

    def project(self, slug: str, roles: Collection[str] = ANY_ROLE) -> Project:
        """The project, or 404 for those outside it and 403 for those whose role is none of `roles`."""
        found = project_at(user=self.request.user.pk, slug=slug)
        if not found or self.request.auth.project_slug not in ("", slug):
            raise Http404
        (project,) = found
        refuse_low_role(project.role, roles)
        return project

    def limited_to_token(self, rows: QuerySet[Any], project: str = "project") -> QuerySet[Any]:
        """Leave out rows of projects that the token isn't for."""
        slug = self.request.auth.project_slug
        return rows.filter(**{f"{project}__slug": slug}) if slug else rows

    def find(
        self, visible: QuerySet[Any], id: str, roles: Collection[str] = ANY_ROLE, *, project: str = "project"
    ) -> Any:
        """The row of `visible` (a selector's) with this id; 404 and 403 as for a project."""
        rows = self.limited_to_token(visible, project).annotate(caller_role=self._role_in(project))
        row = rows.filter(pk=number_of(id)).first()
        if row is None:
            raise Http404
        refuse_low_role(row.caller_role, roles)
        return row

    def page(
        self, rows: QuerySet[Any], serializer: type[Serializer], pages: type[CursorPages] = CursorPages, **context: Any
    ) -> Response:
        paginator = pages()
        found = paginator.paginate_queryset(rows, self.request, self)
        return paginator.get_paginated_response(serializer(found, many=True, context=context).data)

    def refuse_project_token(self) -> None:
        """For what is not of one project."""
        if self.request.auth.project_slug:
            raise Refused("scope_missing", "This token is for one project only", status=403)

    def _role_in(self, project: str) -> Subquery:
        return Subquery(
            Membership.objects.filter(user=self.request.user, project=OuterRef(project)).values("role")[:1]
        )


def key_of(request: Request, what: str) -> str:
    """The key of a request that may leave it out: the same body for the same thing is then the same request."""
    if "Idempotency-Key" in request.headers:
        return idempotency_key(request)
    return f"{what}:{sha256(canonical_json(json_object(request)))[:32]}"


def number_of(id: str) -> int:
    """Ids are opaque texts outside; whatever can't be one names nothing."""
    if not (id.isascii() and id.isdigit() and len(id) < 19):
        raise Http404
    return int(id)


def refuse_low_role(role: str | None, roles: Collection[str]) -> None:
    if role not in roles and not (role is None and roles is ANY_ROLE):
        raise PermissionDenied(
            f"Your role here is {role or 'none'}; this needs {' or '.join(sorted(map(str, roles)))}"
        )
