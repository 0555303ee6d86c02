"""The loop over REST: begin an iteration, and see how far it is."""

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from labeling.accounts.roles import READING, TRAINING
from labeling.projects.api_access import ApiView
from labeling.web.api import PAGE_PARAMETERS, Refused, describe, page_of, wrong_fields
from training.loop.errors import BadIteration
from training.loop.models import Iteration
from training.loop.selectors import collected, iterations_visible_to, win_rate
from training.loop.serializers import IterationDetailSerializer, IterationSerializer, NewIterationSerializer
from training.loop.services import start_iteration
from training.runs.api import model_named


def _detail(iteration: Iteration) -> dict[str, Any]:
    iteration.collected = collected(iteration)
    iteration.win_rate = win_rate(iteration)
    return IterationDetailSerializer(iteration).data


class IterationsView(ApiView):
    @describe(
        "list_iterations", tag="training", answers={200: page_of(IterationSerializer)}, errors=[400, 404],
        parameters=PAGE_PARAMETERS,
    )  # fmt: skip
    def get(self, request: Request, slug: str) -> Response:
        self.project(slug, READING)
        return self.page(iterations_visible_to(request.user).filter(project__slug=slug), IterationSerializer)

    @describe(
        "create_iteration", tag="training", body=NewIterationSerializer, answers={201: IterationDetailSerializer},
        errors=[404, 409],
    )  # fmt: skip
    def post(self, request: Request, slug: str) -> Response:
        """Begin a turn of the loop. One at a time: 409 `iteration_under_way`."""
        project = self.project(slug, TRAINING)
        wanted = self.parsed(NewIterationSerializer)
        policy = model_named(project, wanted["policy_before"], "policy_before")
        try:
            iteration = start_iteration(
                project=project, policy_before=policy, created_by=request.user, config=wanted["config"]
            )
        except BadIteration as error:
            if "project" in error.fields:
                raise Refused("iteration_under_way", str(error), status=409) from None
            raise wrong_fields(error.fields) from None
        return Response(_detail(iteration), status=201)


class IterationView(ApiView):
    @describe("get_iteration", tag="training", answers={200: IterationDetailSerializer}, errors=[404])
    def get(self, request: Request, iteration_id: str) -> Response:
        """An iteration, what was collected so far, and how the new policy compares with the old."""
        return Response(_detail(self.find(iterations_visible_to(request.user), iteration_id)))
