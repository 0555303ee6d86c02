"""The registry: base models, what runs made of them, and where each comes from."""

from collections.abc import Collection
from typing import Any

from django.db.models import Q, QuerySet
from django.http import Http404, HttpResponse
from drf_spectacular.types import OpenApiTypes
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import UserRateThrottle

from labeling.accounts.roles import READING, STEERING, TRAINING
from labeling.preferences.withdrawal import withdrawn_rows_in
from labeling.projects.api_access import ApiView
from labeling.projects.selectors import projects_of
from labeling.web.api import PAGE_PARAMETERS, Refused, describe, page_of, query, wrong_fields
from training.registry.card import card_of
from training.registry.errors import BadStage, NoSuchModelFiles, TermsNotAccepted, UnsafeModelFiles
from training.registry.graph import around, graph_of
from training.registry.models import ModelVersion
from training.registry.report_serializers import RewardReportSerializer
from training.registry.selectors import lineage_of, models_visible_to, stage_changes_of
from training.registry.serializers import (
    LineageGraphSerializer,
    ModelDetailSerializer,
    ModelSerializer,
    ModelVerificationSerializer,
    NewModelSerializer,
    NewTermsSerializer,
    ProjectStageChangeSerializer,
    StageSerializer,
)
from training.registry.services import change_stage, change_terms, is_promotion, register_base_model
from training.registry.verification import verify

MOST_OPENED = 50


class VerifyThrottle(UserRateThrottle):
    scope = "model_verify"
    rate = "30/min"


class ModelApiView(ApiView):
    def models(self) -> QuerySet[ModelVersion]:
        """What the caller may see and the token is for, with the base models of all projects."""
        found = models_visible_to(self.request.user)
        slug = self.request.auth.project_slug
        return found.filter(Q(project=None) | Q(project__slug=slug)) if slug else found

    def limited_to_token(self, rows: QuerySet[Any], project: str = "project") -> QuerySet[Any]:
        return rows  # models() has done it

    def refuse_others(self, model: ModelVersion, roles: Collection[str]) -> None:
        """Let through whoever has one of the roles in the model's project; operators, where it is for all projects."""
        theirs = projects_of(self.request.user, roles=roles)
        if model.project is None:
            if not self.request.user.is_staff:
                raise PermissionDenied("This model is for all projects: an operator of this site changes it")
        elif not theirs.filter(pk=model.project_id).exists():
            raise PermissionDenied(f"This needs {' or '.join(sorted(map(str, roles)))} in its project")

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
            "withdrawn": [{"snapshot": str(pk), "held": str(held)} for pk, held in withdrawn_rows_in(lineage.snapshots).items()],
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
        """Move a model to another stage, saying why. Into production and out of it: leads of its project; else engineers
        too. Operators move base models."""
        model = self.find(self.models(), model_id)
        self.refuse_others(model, TRAINING)
        wanted = self.parsed(StageSerializer)
        if is_promotion(model, wanted["stage"]):
            self.refuse_others(model, STEERING)
        try:
            change_stage(model=model, to_stage=wanted["stage"], reason=wanted["reason"], changed_by=request.user)
        except BadStage as error:
            raise Refused("bad_stage", str(error), status=409) from None
        except TermsNotAccepted as error:
            raise Refused("terms_not_accepted", str(error), status=409) from None
        return Response(self.detail(self.find(self.models(), model_id)))


class ModelTermsView(ModelApiView):
    @describe("change_model_terms", tag="models", body=NewTermsSerializer, answers={200: ModelDetailSerializer}, errors=[404])
    def put(self, request: Request, model_id: str) -> Response:
        """Write down a model's licence and terms. For leads of its project; operators do so for base models."""
        model = self.find(self.models(), model_id)
        self.refuse_others(model, STEERING)
        change_terms(model=model, **self.parsed(NewTermsSerializer))
        return Response(self.detail(self.find(self.models(), model_id)))


class ModelCardView(ModelApiView):
    @describe("get_model_card", tag="models", answers={(200, "text/markdown"): OpenApiTypes.STR}, errors=[404])
    def get(self, request: Request, model_id: str) -> HttpResponse:
        """The model card: Markdown with a head in YAML, as the Hugging Face hub takes it for README.md."""
        text = card_of(self.find(self.models(), model_id))
        return HttpResponse(text, content_type="text/markdown; charset=utf-8")


class ModelReportView(ModelApiView):
    @describe("get_model_report", tag="models", answers={200: RewardReportSerializer}, errors=[404])
    def get(self, request: Request, model_id: str) -> Response:
        """How far a reward model may be trusted: by slice of the data, how sure against how often right, length, place
        and clear majorities of people. 404 where its run made no report."""
        run = self.find(self.models(), model_id).made_by.order_by("-pk").first()
        if run is None or not run.result.get("report"):
            raise Http404
        return Response(RewardReportSerializer(run.result["report"]).data)


class VerifyModelView(ModelApiView):
    throttle_classes = [VerifyThrottle]

    @describe("verify_model", tag="models", answers={200: ModelVerificationSerializer}, errors=[404, 429])
    def get(self, request: Request, model_id: str) -> Response:
        """Read the model's files whole: which differ from those that were entered, are missing, or are too many."""
        checked = list(verify(self.find(self.models(), model_id)))
        shown = {"ok": not any(one.problem for one in checked), "checked": checked}
        return Response(ModelVerificationSerializer(shown).data)


class StageChangesView(ApiView):
    @describe(
        "list_stage_changes", tag="models", answers={200: page_of(ProjectStageChangeSerializer)}, errors=[404], parameters=PAGE_PARAMETERS
    )
    def get(self, request: Request, slug: str) -> Response:
        """Every move of the project's models from stage to stage, newest first: who, when and why."""
        return self.page(stage_changes_of(self.project(slug, READING)), ProjectStageChangeSerializer)


class LineageView(ApiView):
    @describe(
        "get_lineage", tag="models", answers={200: LineageGraphSerializer}, errors=[400, 404],
        parameters=[
            query("of", description="where to start: model:12, snapshot:3, run:8, iteration:2 or licence:MIT", required=True),
            query("open", description="nodes with commas between: all that follows from them is given"),
        ],
    )  # fmt: skip
    def get(self, request: Request, slug: str) -> Response:
        """What leads to a model, run, iteration, snapshot or licence of the project, and what follows from it, at most 400 nodes."""
        graph = graph_of(self.project(slug, READING))
        start = request.query_params.get("of", "")
        if not start:
            raise wrong_fields({"of": "Name where to start: model:12, snapshot:3, run:8, iteration:2 or licence:MIT"})
        if start not in graph.nodes:
            raise Http404
        shown = around(graph, start, opened=request.query_params.get("open", "").split(",")[:MOST_OPENED])
        edges = [{"source": source, "target": target} for source, target in shown.edges]
        return Response(LineageGraphSerializer({"nodes": shown.nodes.values(), "edges": edges, "is_cut": shown.is_cut}).data)
