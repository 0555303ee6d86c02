"""Models and adapters from elsewhere over REST: an archive in the body, or a folder of the server; a worker takes them in."""

from typing import Any

from django.conf import settings
from django.db.models import Q
from drf_spectacular.types import OpenApiTypes
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from labeling.accounts.roles import READING, TRAINING
from labeling.imports.api import FileView
from labeling.projects.api_access import ApiView
from labeling.projects.models import Project
from labeling.web.api import PAGE_PARAMETERS, Refused, describe, page_of, query, wrong_fields
from training.registry.errors import NotImported
from training.registry.model_imports import cancel_model_import, model_imports_visible_to, start_model_import
from training.registry.models import ModelImport, ModelVersion
from training.registry.selectors import models_of
from training.registry.serializers import ModelImportSerializer, NewImportedModelSerializer, NewUploadedModelSerializer

ARCHIVE_TYPES = ("application/octet-stream", "application/x-tar", "application/gzip", "application/zip")
BODY = {
    **dict.fromkeys(ARCHIVE_TYPES, OpenApiTypes.BINARY),
    "multipart/form-data": {
        "type": "object", "properties": {"file": {"type": "string", "format": "binary"}}, "required": ["file"],
    },
}  # fmt: skip
FLAGS = ("fee_due", "acceptance_due", "plain_template")


def start(request: Request, project: Project, wanted: dict[str, Any], field: str, **source: Any) -> Response:
    """Queue it for somebody who may. `field` is what a refusal is said of."""
    if wanted["kind"] == ModelVersion.Kind.BASE and not request.user.is_staff:
        raise PermissionDenied("Base models are for all projects: an operator of this site imports them")
    named = wanted.pop("base", None)
    base = None
    if named:
        found = Q(key=named) | Q(pk=int(named)) if named.isascii() and named.isdigit() and len(named) < 19 else Q(key=named)
        base = models_of(project).filter(found).first()
        if base is None:
            raise wrong_fields({"base": "There is no such model in this project"})
    try:
        job = start_model_import(project=project, base=base, created_by=request.user, **source, **wanted)
    except NotImported as error:
        raise wrong_fields({field: str(error)}) from None
    return Response(ModelImportSerializer(model_imports_visible_to(request.user).get(pk=job.pk)).data, status=202)


class ImportModelView(ApiView):
    @describe("import_model", tag="models", body=NewImportedModelSerializer, answers={202: ModelImportSerializer}, errors=[404])
    def post(self, request: Request, slug: str) -> Response:
        """Take in a model or adapter from a folder of the server that the operator allows: copied, checked, then entered.

        For leads and engineers of the project. A base model is for all projects: operators alone import one. The answer
        comes at once; `GET /model-imports/{id}/` says how far it is.
        """
        project = self.project(slug, TRAINING)
        wanted = self.parsed(NewImportedModelSerializer)
        return start(request, project, wanted, "folder", source_at=wanted.pop("folder"))


class UploadModelView(FileView):
    @property
    def most_bytes(self) -> int:
        return settings.MODEL_UPLOAD_MAX_BYTES

    @describe(
        "upload_model", tag="models", body=BODY, answers={202: ModelImportSerializer}, errors=[404, 429, 507],
        parameters=[
            query("name", description="small letters, digits, . _ -", required=True),
            query("kind", description="base: operators alone, for all projects", required=True, enum=["base", "policy", "reward"]),
            query("licence", required=True),
            query("base", description="of an adapter: id or key of its base model"),
            query("source", description="where it comes from"),
            query("plain_template", bool, "give it a plain chat template where it has none"),
            query("licence_url", description="where the terms can be read"),
            query("fee_due", bool, "using it costs a fee, or does so in some cases"),
            query("acceptance_due", bool, "its maker asks that somebody accepts the terms first"),
            query("output_restrictions", description="what may not be done with its completions"),
        ],
    )  # fmt: skip
    def post(self, request: Request, slug: str) -> Response:
        """Send a model or adapter as a tar, tar.gz or zip of safetensors, configuration and tokenizer.

        It is streamed to the disk; a worker unpacks it, checks it and enters it. `GET /model-imports/{id}/` says how far
        that is.
        """
        project = self.project(slug, TRAINING)
        given = {name: value for name, value in request.query_params.items() if name != "format"}
        given |= {name: {"1": True, "true": True, "0": False, "false": False}.get(given[name], given[name]) for name in FLAGS if name in given}
        serializer = NewUploadedModelSerializer(data=given)
        if not serializer.is_valid():
            raise wrong_fields(serializer.errors)
        with self.received(request) as (upload, filename):
            return start(request, project, dict(serializer.validated_data), "file", source_at=upload, filename=filename)


class ModelImportsView(ApiView):
    @describe(
        "list_model_imports", tag="models", answers={200: page_of(ModelImportSerializer)}, errors=[404], parameters=PAGE_PARAMETERS
    )
    def get(self, request: Request, slug: str) -> Response:
        """Models that were taken in, or are being, newest first."""
        self.project(slug, READING)
        return self.page(model_imports_visible_to(request.user).filter(project__slug=slug), ModelImportSerializer)


class ModelImportView(ApiView):
    @describe("get_model_import", tag="models", answers={200: ModelImportSerializer}, errors=[404])
    def get(self, request: Request, model_import_id: str) -> Response:
        """How far the taking in of a model is, what it became, or why it was refused."""
        return Response(ModelImportSerializer(self.find(model_imports_visible_to(request.user), model_import_id)).data)


class CancelModelImportView(ApiView):
    @describe("cancel_model_import", tag="models", answers={200: ModelImportSerializer}, errors=[404, 409])
    def post(self, request: Request, model_import_id: str) -> Response:
        """End a waiting one, or have its worker stop at the next file. Nothing of it stays."""
        job: ModelImport = self.find(model_imports_visible_to(request.user), model_import_id, TRAINING)
        try:
            cancel_model_import(job=job)
        except NotImported as error:
            raise Refused("wrong_state", str(error), status=409) from None
        return Response(ModelImportSerializer(model_imports_visible_to(request.user).get(pk=job.pk)).data)
