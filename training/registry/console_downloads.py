"""Taking a model's files away from its page: one by one, or all as a repository of the hub. For leads and engineers."""

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.views.decorators.http import require_safe

from labeling.accounts.roles import TRAINING
from labeling.preferences.files import OutOfRange, send_file
from labeling.projects.console_access import console_page, show
from labeling.projects.models import Project
from training.registry.console_files import find_model
from training.registry.errors import NotExported, RegistryError, TermsNotAccepted
from training.registry.exporting import archive_name, file_of, tar_of
from training.registry.models import ModelVersion
from training.registry.terms import refuse_unaccepted


@require_safe
@console_page(to_open=TRAINING)
def archive(request: HttpRequest, project: Project, model_id: int) -> HttpResponseBase:
    """All that the hub takes, as a tar that is sent while it is read."""
    model = find_model(request, project, model_id)
    try:
        refuse_unaccepted(project, model)
        n_bytes, stream = tar_of(model)
    except (NotExported, TermsNotAccepted) as error:
        return _refused(request, project, model, error)
    headers = {"Content-Length": str(n_bytes), "Content-Disposition": f'attachment; filename="{archive_name(model)}.tar"'}
    return StreamingHttpResponse(stream, content_type="application/x-tar", headers=headers)


@require_safe
@console_page(to_open=TRAINING)
def file(request: HttpRequest, project: Project, model_id: int, file: str) -> HttpResponseBase:
    model = find_model(request, project, model_id)
    if file not in model.files:
        raise Http404
    try:
        refuse_unaccepted(project, model)
        path = file_of(model, file)
        name = f"{archive_name(model)}-{path.name}"
        return send_file(request, path, content_type="application/octet-stream", filename=name, sha256=model.files[file])
    except (NotExported, TermsNotAccepted) as error:
        return _refused(request, project, model, error)
    except OutOfRange as error:
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{error.size}"})


def _refused(request: HttpRequest, project: Project, model: ModelVersion, error: RegistryError) -> HttpResponse:
    asking = error.models if isinstance(error, TermsNotAccepted) else ()
    return show(request, "console/registry/not_exported.html", project, model=model, reason=str(error), asking=asking, status=409)
