"""Who may open a console page, and what every one of them hands its template."""

from collections.abc import Callable, Collection
from functools import wraps
from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import translation

from labeling.accounts.roles import READING, REVIEWING, STEERING, TRAINING
from labeling.projects.models import Membership, Project

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
View = Callable[..., HttpResponse]


def console_page(*, to_change: Collection[str] = (), to_open: Collection[str] = READING) -> Callable[[View], View]:
    """Open the page to those who read the project's console, or the roles given; others get 404, as if it weren't there.

    The view gets the project in place of its slug. A role not in `to_change` that posts gets 403: it sees the page.
    """

    def decorate(view: View) -> View:
        @login_required
        @wraps(view)
        def opened(request: HttpRequest, slug: str, **kwargs: Any) -> HttpResponse:
            membership = get_object_or_404(
                Membership.objects.select_related("project"),
                user=request.user,
                project__slug=slug,
                role__in=to_open,
            )
            request.console_role = membership.role  # type: ignore[attr-defined]
            with translation.override("en"):  # pages for leads are English, so their dates and form errors are
                if request.method not in SAFE_METHODS and membership.role not in to_change:
                    return refused(request, membership.project)
                return view(request, membership.project, **kwargs)

        return opened

    return decorate


def refused(request: HttpRequest, project: Project) -> HttpResponse:
    return show(request, "console/refused.html", project, status=403)


def show(request: HttpRequest, template: str, project: Project, *, status: int = 200, **context: Any) -> HttpResponse:
    role = request.console_role  # type: ignore[attr-defined]
    context |= {
        "project": project,
        "section": "console",
        "role": role,
        "can_steer": role in STEERING,
        "can_review": role in REVIEWING,
        "can_train": role in TRAINING,
    }
    return render(request, template, context, status=status)


def keyset_page(request: HttpRequest, rows: Any, size: int = 50) -> dict[str, Any]:
    """One page of a queryset, newest first, by `?before=<id>`: as fast on the last page as on the first."""
    before = request.GET.get("before", "")
    rows = rows.order_by("-pk")
    if before.isdigit() and len(before) < 19:
        rows = rows.filter(pk__lt=int(before))
    found = list(rows[: size + 1])
    parameters = request.GET.copy()
    parameters.pop("before", None)
    first_page = parameters.urlencode()
    if len(found) > size:
        parameters["before"] = str(found[size - 1].pk)
    return {
        "rows": found[:size],
        "older": parameters.urlencode() if len(found) > size else "",
        "newest": first_page,
        "is_first": not before,
    }


def add_errors(form: Any, fields: dict[str, Any]) -> None:
    """Put a service's refusal beside the fields it names; what has no field goes above the form."""
    for name, problem in fields.items():
        text = " ".join(problem) if isinstance(problem, list | tuple) else str(problem)
        if name in form.fields:
            form.add_error(name, text)
        else:
            form.add_error(None, f"{name}: {text}")
