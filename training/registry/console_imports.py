"""Pages to take a model in: send an archive or name a folder of the server, and follow what becomes of it."""

from functools import partial

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labeling.accounts.roles import TRAINING
from labeling.imports import storage
from labeling.imports.console import unread
from labeling.imports.errors import DiskFull, FileTooLarge
from labeling.projects.console_access import console_page, show
from labeling.projects.models import Project
from training.registry.errors import NotImported
from training.registry.forms import ImportForm
from training.registry.model_imports import cancel_model_import, model_imports_visible_to, start_model_import

SHOWN = 20


def most_bytes() -> int:
    return settings.MODEL_UPLOAD_MAX_BYTES


@require_http_methods(["GET", "HEAD", "POST"])
@partial(unread, most_bytes=most_bytes)
@console_page(to_change=TRAINING)
def bring_in(request: HttpRequest, project: Project) -> HttpResponse:
    """Where an archive is sent or a folder named, and those that were taken in last."""
    form = ImportForm(request.POST or None, request.FILES or None, project=project, is_operator=request.user.is_staff)
    if form.is_bound and form.is_valid():
        wanted = dict(form.cleaned_data)
        file, folder = wanted.pop("file"), wanted.pop("folder")
        upload = None
        try:
            upload = storage.receive(file.read, most_bytes=most_bytes()) if file else None
            job = start_model_import(
                project=project, source_at=upload or folder, filename=file.name if file else "", created_by=request.user, **wanted
            )
        except (NotImported, FileTooLarge, DiskFull) as error:
            form.add_error("file" if file else "folder", str(error))
        else:
            return redirect("registry:import_result", project.slug, job.pk)
        finally:
            if upload:
                storage.discard(upload)
    recent = model_imports_visible_to(request.user).filter(project=project).order_by("-pk")[:SHOWN]
    return show(
        request, "console/registry/import.html", project, form=form, recent=recent, most_bytes=most_bytes(),
        status=422 if form.is_bound else 200,
    )  # fmt: skip


@require_safe
@console_page()
def import_result(request: HttpRequest, project: Project, model_import_id: int) -> HttpResponse:
    """How far the import is, and what it became."""
    job = get_object_or_404(model_imports_visible_to(request.user), project=project, pk=model_import_id)
    return show(request, "console/registry/import_result.html", project, job=job)


@require_POST
@console_page(to_change=TRAINING)
def cancel(request: HttpRequest, project: Project, model_import_id: int) -> HttpResponse:
    job = get_object_or_404(model_imports_visible_to(request.user), project=project, pk=model_import_id)
    try:
        cancel_model_import(job=job)
    except NotImported as error:
        messages.warning(request, f"{error}.")
    return redirect("registry:import_result", project.slug, job.pk)
