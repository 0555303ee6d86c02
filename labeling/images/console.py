"""The console page where a lead puts in images and takes their references."""

from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_http_methods

from labeling.accounts.roles import TRAINING
from labeling.images.errors import BadImage
from labeling.images.pixels import MAX_BYTES, MAX_PIXELS
from labeling.images.services import store_image
from labeling.projects.console_access import console_page, keyset_page, show
from labeling.projects.models import Project

MAX_FILES = 100


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_change=TRAINING)
def images(request: HttpRequest, project: Project) -> HttpResponse:
    taken: list[dict[str, Any]] = []
    refused: list[dict[str, str]] = []
    if request.method == "POST":
        taken, refused = _store_all(request, project)
    page = keyset_page(request, project.images.select_related("uploaded_by"), size=60)
    return show(
        request, "console/images/list.html", project, page=page, taken=taken, refused=refused, n_images=project.images.count(),
        max_megabytes=MAX_BYTES // 1_000_000, max_megapixels=MAX_PIXELS // 1_000_000,
        status=422 if refused else 200,
    )  # fmt: skip


def _store_all(request: HttpRequest, project: Project) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Good files stay even if others are refused; the same file again adds nothing."""
    taken, refused = [], []
    files: list[UploadedFile] = request.FILES.getlist("files")
    if not files:
        refused.append({"name": "", "reason": "Pick at least one file"})
    for file in files[MAX_FILES:]:
        refused.append({"name": str(file.name), "reason": f"only {MAX_FILES} files at once"})
    for file in files[:MAX_FILES]:
        try:
            image, is_new = store_image(project=project, file=file, name=str(file.name), uploaded_by=request.user)
        except BadImage as error:
            refused.append({"name": str(file.name), "reason": str(error)})
        else:
            taken.append({"image": image, "is_new": is_new})
    return taken, refused
