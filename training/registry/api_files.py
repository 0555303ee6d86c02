"""Taking a model away over REST, file by file or as a repository of the hub, and the terms that stand before it."""

from django.http import Http404, HttpResponseBase, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from labeling.accounts.roles import READING, STEERING, TRAINING
from labeling.preferences.files import OutOfRange, send_file
from labeling.projects.selectors import projects_of
from labeling.web.api import Refused, describe, header
from training.registry.api import ModelApiView
from training.registry.errors import NotExported, TermsChanged
from training.registry.exporting import archive_name, file_of, tar_of
from training.registry.models import ModelVersion
from training.registry.selectors import models_of
from training.registry.serializers import AcceptTermsSerializer, AskedTermsSerializer
from training.registry.terms import accept_terms, asked_of, why_not_accepted

BINARY = "application/octet-stream"


class ModelFilesApiView(ModelApiView):
    def model_to_take(self, model_id: str) -> ModelVersion:
        """The model, for leads and engineers: of its project, or of any where it is for all."""
        model = self.find(self.models(), model_id)
        theirs = projects_of(self.request.user, roles=TRAINING)
        if slug := self.request.auth.project_slug:
            theirs = theirs.filter(slug=slug)
        projects = list(theirs if model.project_id is None else theirs.filter(pk=model.project_id))
        if not projects:
            raise PermissionDenied("This needs engineer or lead in its project")
        problems = [why_not_accepted(project, model) for project in projects]
        if all(problems):  # of a model for all projects, one of theirs is enough
            raise Refused("terms_not_accepted", f"{model.key} {problems[0]}", status=409)
        return model


class ModelArchiveView(ModelFilesApiView):
    @describe(
        "download_model", tag="models", answers={(200, "application/x-tar"): OpenApiTypes.BINARY}, errors=[404, 409]
    )
    def get(self, request: Request, model_id: str) -> HttpResponseBase:
        """The model as a repository of the Hugging Face hub, in a tar: card, weights, tokenizer, licence, SHA256SUMS.

        It is sent while it is read. Where a file turns out not to be as it was entered, the stream breaks off before its
        `Content-Length`.
        """
        model = self.model_to_take(model_id)
        try:
            n_bytes, stream = tar_of(model)
        except NotExported as error:
            raise Refused("not_exported", str(error), status=409) from None
        headers = {"Content-Length": str(n_bytes), "Content-Disposition": f'attachment; filename="{archive_name(model)}.tar"'}
        return StreamingHttpResponse(stream, content_type="application/x-tar", headers=headers)


class ModelFileView(ModelFilesApiView):
    @describe(
        "download_model_file", tag="models",
        answers={(status, BINARY): OpenApiTypes.BINARY for status in (200, 206)}
        | {304: OpenApiResponse(description="you have it already")},
        errors=[404, 409, 416],
        parameters=[
            header("Range", "one range of bytes", required=False),
            header("If-Range", "the ETag that the range is of", required=False),
            header("If-None-Match", "ETags that you have", required=False),
        ],
    )  # fmt: skip
    def get(self, request: Request, model_id: str, file: str) -> HttpResponseBase:
        """One file of a model, such as its GGUF, as it was entered. The ETag is its SHA-256; a broken download goes on
        with `Range` and `If-Range`."""
        model = self.model_to_take(model_id)
        if file not in model.files:
            raise Http404
        try:
            path = file_of(model, file)
        except NotExported as error:
            raise Refused("not_exported", str(error), status=409) from None
        name = f"{archive_name(model)}-{path.name}"
        return send_file(request._request, path, content_type=BINARY, filename=name, sha256=model.files[file])

    head = get

    def handle_exception(self, error: Exception) -> Response:
        response = super().handle_exception(error)
        if isinstance(error, OutOfRange):
            response["Content-Range"] = f"bytes */{error.size}"
        return response


class AcceptedTermsView(ModelApiView):
    @describe("list_asked_terms", tag="models", answers={200: AskedTermsSerializer(many=True)}, errors=[404])
    def get(self, request: Request, slug: str, model_id: str) -> Response:
        """The terms that stand over a model, its own and those of all it was made of, and who accepted them for the project."""
        project = self.project(slug, READING)
        return Response(AskedTermsSerializer(asked_of(project, self.find(models_of(project), model_id)), many=True).data)

    @describe(
        "accept_terms", tag="models", body=AcceptTermsSerializer, answers={200: AskedTermsSerializer(many=True)}, errors=[404, 409]
    )
    def post(self, request: Request, slug: str, model_id: str) -> Response:
        """Accept a model's own terms for the project, by the hash of those that were read. For leads.

        409 `terms_changed` where others are in force by now.
        """
        project = self.project(slug, STEERING)
        model = self.find(models_of(project), model_id)
        wanted = self.parsed(AcceptTermsSerializer)
        try:
            accept_terms(model=model, project=project, accepted_by=request.user, **wanted)
        except TermsChanged as error:
            raise Refused("terms_changed", str(error), status=409) from None
        return Response(AskedTermsSerializer(asked_of(project, model), many=True).data)
