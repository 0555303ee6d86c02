"""Endpoints over REST: leads enter them, since they spend money and send prompts out of the site."""

from django.db.models import Q
from rest_framework.request import Request
from rest_framework.response import Response

from labeling.accounts.roles import READING, STEERING
from labeling.projects.api_access import ApiView
from labeling.projects.models import Project
from labeling.web.api import PAGE_PARAMETERS, describe, page_of, wrong_fields
from training.endpoints.errors import BadEndpoint
from training.endpoints.selectors import endpoints_visible_to
from training.endpoints.serializers import EndpointPatchSerializer, EndpointSerializer, NewEndpointSerializer
from training.endpoints.services import change_endpoint, register_endpoint
from training.registry.models import ModelVersion
from training.registry.selectors import models_of


def _model_named(project: Project, name: str | None) -> ModelVersion | None:
    if name is None:
        return None
    found = Q(key=name)
    if name.isascii() and name.isdigit() and len(name) < 19:
        found |= Q(pk=int(name))
    model = models_of(project).filter(found).first()
    if model is None:
        raise wrong_fields({"model": "There is no such model in this project"})
    return model


class EndpointsView(ApiView):
    @describe(
        "list_endpoints", tag="models", answers={200: page_of(EndpointSerializer)}, errors=[404],
        parameters=PAGE_PARAMETERS,
    )  # fmt: skip
    def get(self, request: Request, slug: str) -> Response:
        """Where the project's models are served, those that are retired too."""
        self.project(slug, READING)
        return self.page(endpoints_visible_to(request.user).filter(project__slug=slug), EndpointSerializer)

    @describe(
        "register_endpoint", tag="models", body=NewEndpointSerializer, answers={201: EndpointSerializer}, errors=[404]
    )
    def post(self, request: Request, slug: str) -> Response:
        """Enter where a model is served, for leads. Its address, served name and revision can't be changed later."""
        project = self.project(slug, STEERING)
        wanted = self.parsed(NewEndpointSerializer)
        wanted["model"] = _model_named(project, wanted.get("model"))
        try:
            endpoint = register_endpoint(project=project, created_by=request.user, **wanted)
        except BadEndpoint as error:
            raise wrong_fields(error.fields) from None
        return Response(EndpointSerializer(endpoint).data, status=201)


class EndpointView(ApiView):
    @describe("get_endpoint", tag="models", answers={200: EndpointSerializer}, errors=[404])
    def get(self, request: Request, endpoint_id: str) -> Response:
        return Response(EndpointSerializer(self.find(endpoints_visible_to(request.user), endpoint_id)).data)

    @describe(
        "change_endpoint", tag="models", body=EndpointPatchSerializer, answers={200: EndpointSerializer}, errors=[404]
    )
    def patch(self, request: Request, endpoint_id: str) -> Response:
        """Change its limits, prices or key, retire it or take it back. For leads."""
        endpoint = self.find(endpoints_visible_to(request.user), endpoint_id, STEERING)
        try:
            changed = change_endpoint(endpoint=endpoint, **self.parsed(EndpointPatchSerializer, partial=True))
        except BadEndpoint as error:
            raise wrong_fields(error.fields) from None
        return Response(EndpointSerializer(changed).data)
