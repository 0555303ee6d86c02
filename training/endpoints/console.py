"""Pages on endpoints: where models are served, how hard they are asked, and whether they answer."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_http_methods, require_safe

from labeling.accounts.roles import STEERING
from labeling.projects.console_access import add_errors, console_page, keyset_page, show
from labeling.projects.models import Project
from training.endpoints.errors import BadEndpoint, Unreachable
from training.endpoints.forms import EndpointForm, LimitsForm
from training.endpoints.models import Endpoint
from training.endpoints.services import change_endpoint, register_endpoint, try_endpoint


@require_safe
@console_page()
def endpoints(request: HttpRequest, project: Project) -> HttpResponse:
    page = keyset_page(request, Endpoint.objects.filter(project=project).select_related("model"))
    return show(request, "console/endpoints/list.html", project, page=page)


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_open=STEERING, to_change=STEERING)
def new_endpoint(request: HttpRequest, project: Project) -> HttpResponse:
    form = EndpointForm(request.POST or None, project=project)
    if form.is_bound and form.is_valid():
        try:
            made = register_endpoint(project=project, created_by=request.user, **form.cleaned_data)
        except BadEndpoint as error:
            add_errors(form, error.fields)
        else:
            return redirect("endpoints:detail", project.slug, made.pk)
    return show(request, "console/endpoints/new.html", project, form=form, status=422 if form.is_bound else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_change=STEERING)
def endpoint(request: HttpRequest, project: Project, endpoint_id: int) -> HttpResponse:
    found = get_object_or_404(Endpoint.objects.select_related("model"), project=project, pk=endpoint_id)
    do = request.POST.get("do", "save")
    if request.method == "POST" and do == "try":
        return _page(request, project, found, tried=_tried(found))
    if request.method == "POST" and do in ("retire", "use"):
        change_endpoint(endpoint=found, is_active=do == "use")
        return redirect("endpoints:detail", project.slug, found.pk)
    if request.method == "POST" and do == "forget_key":
        change_endpoint(endpoint=found, key="")
        return redirect("endpoints:detail", project.slug, found.pk)
    if request.method == "POST":
        form = LimitsForm(request.POST)
        if form.is_valid():
            # An empty field leaves the key as it is.
            limits = {**form.cleaned_data, "key": form.cleaned_data["key"] or None}
            try:
                change_endpoint(endpoint=found, **limits)
            except BadEndpoint as error:
                add_errors(form, error.fields)
            else:
                messages.success(request, "Saved.")
                return redirect("endpoints:detail", project.slug, found.pk)
        return _page(request, project, found, form=form, status=422)
    return _page(request, project, found)


def _tried(endpoint: Endpoint) -> dict[str, Any]:
    try:
        return {"is_good": True, "text": f"It {try_endpoint(endpoint)}."}
    except Unreachable as error:
        return {"is_good": False, "text": str(error)}


def _page(
    request: HttpRequest, project: Project, endpoint: Endpoint, *, form: LimitsForm | None = None, **context: Any
) -> HttpResponse:
    return show(
        request, "console/endpoints/detail.html", project, endpoint=endpoint,
        form=form or LimitsForm(initial=LimitsForm.initial_of(endpoint)), **context,
    )  # fmt: skip
