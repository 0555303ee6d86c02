"""The registry: base models, what runs made of them, and where each comes from."""

from typing import Any

from django.db.models import Q, QuerySet
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from labeling.accounts.roles import TRAINING
from labeling.projects.api_access import ApiView
from labeling.projects.selectors import projects_of
from labeling.web.api import PAGE_PARAMETERS, Refused, describe, page_of, wrong_fields
from training.registry.errors import BadStage, NoSuchModelFiles, UnsafeModelFiles
from training.registry.models import ModelVersion
from training.registry.selectors import lineage_of, models_visible_to
from training.registry.serializers import (
    ModelDetailSerializer,
    ModelSerializer,
    NewModelSerializer,
    StageSerializer,
)
from training.registry.services import change_stage, register_base_model


class ModelApiView(ApiView):
    def models(self) -> QuerySet[ModelVersion]:
        """What the caller may see and the token is for, with the base models of all projects."""
        found = models_visible_to(self.request.user)
        slug = self.request.auth.project_slug
        return found.filter(Q(project=None) | Q(project__slug=slug)) if slug else found

    def limited_to_token(self, rows: QuerySet[Any], project: str = "project") -> QuerySet[Any]:
        return rows  # models() has done it

    def detail(self, model: ModelVersion) -> dict[str, Any]:
        lineage = lineage_of(model)
        # A base model has descendants in projects that are not the caller's.
        seen = set(self.models().filter(pk__in=[other.pk for other in lineage.descendants]).values_list("pk", flat=True))
        made_by = {key: value for key, value in model.lineage.items() if key != "registered_by"}
        shown = {
            "ancestors": lineage.ancestors,
            "descendants": [other for other in lineage.descendants if other.pk in seen],
            "snapshots": lineage.snapshots,
            "licences": lineage.licences,
            "annotators_by_kind": lineage.annotators_by_kind,
            "made_by": made_by,
        }
        return ModelDetailSerializer(model, context={"lineage": shown}).data


class ModelsView(ModelApiView):
    @describe(
        "list_models", tag="models", answers={200: page_of(ModelSerializer)}, errors=[400], parameters=PAGE_PARAMETERS
    )
    def get(self, request: Request) -> Response:
        """Models of the projects whose console the caller reads, and the base models that all share."""
        return self.page(self.models(), ModelSerializer)

    @describe(
        "register_model", tag="models", body=NewModelSerializer,
        answers={201: ModelDetailSerializer}, errors=[],
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Enter a base model that lies on the server. For operators: it reads the server's files and is for all projects."""
        self.refuse_project_token()
        if not request.user.is_staff:
            raise PermissionDenied("Base models are for all projects: an operator of this site enters them")
        wanted = self.parsed(NewModelSerializer)
        try:
            model = register_base_model(created_by=request.user, **wanted)
        except (NoSuchModelFiles, UnsafeModelFiles) as error:
            raise wrong_fields({"folder": str(error)}) from None
        return Response(self.detail(model), status=201)


class ModelView(ModelApiView):
    @describe("get_model", tag="models", answers={200: ModelDetailSerializer}, errors=[404])
    def get(self, request: Request, model_id: str) -> Response:
        """A model and its lineage: back to data, licences and kinds of annotator, forward to what was made of it."""
        return Response(self.detail(self.find(self.models(), model_id)))

    @describe(
        "change_model_stage", tag="models", body=StageSerializer, answers={200: ModelDetailSerializer}, errors=[404, 409]
    )
    def patch(self, request: Request, model_id: str) -> Response:
        """Move a model to another stage, saying why. For leads and engineers of its project; operators move base models."""
        model = self.find(self.models(), model_id)
        theirs = projects_of(request.user, roles=TRAINING)
        may = request.user.is_staff if model.project is None else theirs.filter(pk=model.project_id).exists()
        if not may:
            raise PermissionDenied("A lead or engineer of its project moves a model, and an operator a base model")
        wanted = self.parsed(StageSerializer)
        try:
            change_stage(model=model, to_stage=wanted["stage"], reason=wanted["reason"], changed_by=request.user)
        except BadStage as error:
            raise Refused("bad_stage", str(error), status=409) from None
        return Response(self.detail(self.find(self.models(), model_id)))
