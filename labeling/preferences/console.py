"""Pages on snapshots: freezing one, what is in it, taking it out."""

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from labeling.accounts.roles import TRAINING
from labeling.preferences.choices import choices_of
from labeling.preferences.errors import BadFilter, BeingMade, UnknownView
from labeling.preferences.files import OutOfRange, send_file
from labeling.preferences.filters import FILTERS, POLICY, in_words
from labeling.preferences.forms import SnapshotForm, initial_of
from labeling.preferences.freezes import open_freezes, start_freeze
from labeling.preferences.models import Freeze, Snapshot
from labeling.preferences.preview import Preview, preview_of
from labeling.preferences.services import SPLITS
from labeling.preferences.views_of_snapshots import VIEWS, rows_in, view_file
from labeling.preferences.views_out.view import CONTENT_TYPES
from labeling.preferences.withdrawal import withdrawn_rows_in
from labeling.projects.console_access import add_errors, console_page, keyset_page, show
from labeling.projects.models import Project
from labeling.web.remembering import LARGE


@require_safe
@console_page()
def snapshots(request: HttpRequest, project: Project) -> HttpResponse:
    page = keyset_page(request, Snapshot.objects.filter(project=project).select_related("created_by"))
    held = withdrawn_rows_in(page["rows"])
    for row in page["rows"]:
        row.withdrawn = held.get(row.pk)
    return show(request, "console/preferences/list.html", project, page=page, freezes=open_freezes(project))


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_change=TRAINING)
def new_snapshot(request: HttpRequest, project: Project) -> HttpResponse:
    """The form; `preview` asks for the counts alone."""
    form = SnapshotForm(request.POST or None, choices=choices_of(project), initial=_asked_before(request, project))
    preview = None
    if request.method == "POST" and form.is_valid():
        try:
            if "preview" in request.POST:
                preview = _in_words(preview_of(project, form.filters(), form.policy()), form)
            else:
                freeze = start_freeze(
                    project=project, created_by=request.user, name=form.cleaned_data["name"], filters=form.filters(),
                    policy=form.policy(),
                )  # fmt: skip
                return redirect("preferences:freeze", project.slug, freeze.pk)
        except BadFilter as error:
            add_errors(form, error.fields)
    elif request.method != "POST" and not form.initial and not _is_large(project):
        preview = _in_words(preview_of(project, {}, {}), form)  # else the page asks for it when it is there
    if request.headers.get("HX-Request"):
        return show(request, "console/preferences/_preview.html", project, preview=preview, form=form)
    status = 422 if form.is_bound and not form.is_valid() else 200
    return show(request, "console/preferences/new.html", project, form=form, preview=preview, status=status)


def _in_words(preview: Preview, form: SnapshotForm) -> Preview:
    rows = [row | {"label": form.fields[row["filter"]].label.lower()} for row in preview["left_out"]]
    return preview | {"left_out": rows}


def _asked_before(request: HttpRequest, project: Project) -> dict[str, Any]:
    """What a freeze or a snapshot was asked for, `?freeze=` or `?like=`, to begin from."""
    if (number := request.GET.get("freeze", "")).isdigit() and len(number) < 19:
        found = Freeze.objects.filter(project=project, pk=int(number)).first()
    elif (number := request.GET.get("like", "")).isdigit() and len(number) < 10:
        found = Snapshot.objects.filter(project=project, number=int(number)).first()
    else:
        found = None
    return {} if found is None else {"name": found.name, **initial_of(found.filters, found.policy)}


@require_safe
@console_page()
def freeze(request: HttpRequest, project: Project, freeze_id: int) -> HttpResponse:
    """How far it is; asked by its own part of the page until it is over, which then leads to the snapshot."""
    found = get_object_or_404(Freeze.objects.select_related("snapshot"), project=project, pk=freeze_id)
    if found.state == Freeze.State.DONE and found.snapshot:
        if found.snapshot.created_at < found.created_at:
            messages.info(request, f"The same rows were frozen before: this is snapshot #{found.snapshot.number}.")
        address = reverse("preferences:detail", args=[project.slug, found.snapshot.number])
        if request.headers.get("HX-Request"):
            return HttpResponse(headers={"HX-Redirect": address})
        return redirect(address)
    template = "_freeze" if request.headers.get("HX-Request") else "freeze"
    return show(request, f"console/preferences/{template}.html", project, freeze=found)


def _is_large(project: Project) -> bool:
    return project.judgements.order_by("pk")[LARGE : LARGE + 1].exists()


@require_safe
@console_page()
def snapshot(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    found = get_object_or_404(
        Snapshot.objects.select_related("created_by", "project"), project=project, number=number
    )
    files = [
        {
            "view": name, "help": view.help, "kinds": view.kinds,
            "rows": {split: rows_in(found, name, split) for split in SPLITS},
            "beside": [file.split(".") for file in view.beside],
        }
        for name, view in VIEWS.items()
    ]  # fmt: skip
    return show(
        request, "console/preferences/detail.html", project, snapshot=found, files=files,
        withdrawn=withdrawn_rows_in([found]).get(found.pk), chosen=chosen_in(found),
        others=project.snapshots.filter(number__lt=number).order_by("-number").values_list("number", flat=True).first(),
        # Reverse relations: what was made of it belongs to apps above this one.
        runs=found.runs.select_related("model", "output_model").order_by("-pk")[:50],
        models=found.models.order_by("-pk")[:50],
    )  # fmt: skip


def chosen_in(snapshot: Snapshot) -> list[dict[str, str]]:
    """The filters that choose something, and the policy, in words."""
    rows = []
    for name, part in FILTERS.items():
        value = snapshot.filters.get(name, part.default)
        if value not in ([], None) and not part.is_set and (name == "purposes" or value != part.default):
            rows.append({"name": name, "value": in_words(value, part.choices)})
    for name, part in POLICY.items():
        rows.append({"name": name, "value": in_words(snapshot.policy.get(name, part.default), part.choices)})
    return [row | {"name": row["name"].replace("_", " ")} for row in rows]


@require_safe
@console_page()
def download(
    request: HttpRequest, project: Project, number: int, view: str, split: str, format: str
) -> HttpResponseBase:
    found = get_object_or_404(Snapshot, project=project, number=number)
    try:
        path = view_file(found, split=split, view=view, format=format)
    except UnknownView as error:
        raise Http404(str(error)) from None
    except BeingMade as error:
        return HttpResponse(str(error), status=503, content_type="text/plain", headers={"Retry-After": "10"})
    filename = f"{project.slug}-{found.number}-{view}.{split}.{format}"
    try:
        return send_file(request, path, content_type=CONTENT_TYPES[format], filename=filename)
    except OutOfRange as error:
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{error.size}"})
