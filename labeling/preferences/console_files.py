"""Pages beside one snapshot: its card, and whether its files are as they were frozen."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_safe

from labeling.preferences.card import body_of, card_of
from labeling.preferences.errors import BeingMade
from labeling.preferences.models import Snapshot
from labeling.preferences.verification import verify
from labeling.projects.console_access import console_page, show
from labeling.projects.models import Project


def _found(project: Project, number: int) -> Snapshot:
    return get_object_or_404(Snapshot.objects.select_related("project"), project=project, number=number)


@require_safe
@console_page()
def card(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    found = _found(project, number)
    try:
        text = body_of(card_of(found, address=request.build_absolute_uri("/api/v1/")))
        title, _, rest = text.partition("\n")
    except BeingMade as error:
        title, rest = "", f"{error}."
    return show(request, "console/preferences/card.html", project, snapshot=found, title=title, text=rest)


@require_safe
@console_page()
def card_file(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    found = _found(project, number)
    try:
        text = card_of(found, address=request.build_absolute_uri("/api/v1/"))
    except BeingMade as error:
        return HttpResponse(str(error), status=503, content_type="text/plain", headers={"Retry-After": "10"})
    name = f"{project.slug}-{found.number}-README.md"
    return HttpResponse(
        text, content_type="text/markdown; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )  # fmt: skip


@require_safe
@console_page()
def verification(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """Reads every file whole: the page of the snapshot asks for this part when somebody wants to know."""
    found = _found(project, number)
    checked = list(verify(found))
    template = "_verified" if request.headers.get("HX-Request") else "verified"
    return show(
        request, f"console/preferences/{template}.html", project, snapshot=found, checked=checked,
        is_good=not any(one.problem for one in checked),
    )  # fmt: skip
