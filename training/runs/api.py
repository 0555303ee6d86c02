"""Training runs: starting, following and stopping them."""

from typing import Any

from django.db.models import Q
from django.http import Http404
from rest_framework.request import Request
from rest_framework.response import Response

from labeling.accounts.roles import READING, TRAINING
from labeling.preferences.models import Snapshot
from labeling.preferences.selectors import snapshots_visible_to
from labeling.projects.api_access import ApiView, number_of
from labeling.projects.models import Project
from labeling.web.api import PAGE_PARAMETERS, CursorPages, Refused, describe, page_of, query, wrong_fields
from training.registry.models import ModelVersion
from training.registry.selectors import models_of
from training.runs.checking import check_run
from training.runs.errors import BadSpec, RunError
from training.runs.explaining import explanation_of
from training.runs.machines import machines_there
from training.runs.models import Run
from training.runs.selectors import runs_visible_to
from training.runs.serializers import (
    ExplanationSerializer,
    MachineSerializer,
    NewRunSerializer,
    RunEstimateSerializer,
    RunEventSerializer,
    RunSerializer,
)
from training.runs.services import create_run, request_cancel, resume_run
from training.runs.suggesting import suggestions

WAIT_SECONDS = 60


class InOrder(CursorPages):
    ordering = "number"


def model_named(project: Project, name: str, field: str = "model") -> ModelVersion:
    """A model that the project can use, by id or key; a 400 naming `field` otherwise."""
    found = Q(key=name)
    if name.isascii() and name.isdigit() and len(name) < 19:
        found |= Q(pk=int(name))
    model = models_of(project).filter(found).first()
    if model is None:
        raise wrong_fields({field: "There is no such model in this project"})
    return model


def _snapshot_named(project: Project, request: Request, id: str) -> Snapshot:
    try:
        return snapshots_visible_to(request.user).filter(project=project).get(pk=number_of(id))
    except (Snapshot.DoesNotExist, Http404):
        raise wrong_fields({"snapshot": "There is no such snapshot in this project"}) from None


def _asked(project: Project, request: Request, wanted: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `create_run` and `check_run` that a body names."""
    model, snapshot = wanted.get("model"), wanted.get("snapshot")
    return {
        "kind": wanted["kind"],
        "spec": wanted["spec"],
        "snapshot": _snapshot_named(project, request, snapshot) if snapshot else None,
        "model": model_named(project, model) if model else None,
        "inputs": _inputs(project, wanted.get("inputs")),
    }


def _inputs(project: Project, given: dict[str, Any] | None) -> dict[str, Any] | None:
    if given and "endpoint" in given:
        given = {**given, "endpoint": _endpoint_named(project, given["endpoint"])}
    if given and "prompt_ids" in given:
        try:
            return {**given, "prompt_ids": [number_of(id) for id in given["prompt_ids"]]}
        except Http404:
            raise wrong_fields({"inputs": "prompt_ids: these are not ids of prompts"}) from None
    return given


def _endpoint_named(project: Project, name: str) -> int:
    found = Q(name=name)
    if name.isascii() and name.isdigit() and len(name) < 19:
        found |= Q(pk=int(name))
    endpoint = project.endpoints.filter(found).first()
    if endpoint is None:
        raise wrong_fields({"endpoint": "There is no such endpoint in this project"})
    return endpoint.pk


class RunsView(ApiView):
    @describe(
        "list_runs",
        tag="training",
        answers={200: page_of(RunSerializer)},
        errors=[400, 404],
        parameters=PAGE_PARAMETERS,
    )
    def get(self, request: Request, slug: str) -> Response:
        self.project(slug, READING)
        return self.page(runs_visible_to(request.user).filter(project__slug=slug), RunSerializer)

    @describe("create_run", tag="training", body=NewRunSerializer, answers={201: RunSerializer}, errors=[404, 429])
    def post(self, request: Request, slug: str) -> Response:
        """Queue a run. Nothing is queued that can't start; a project with many waiting runs gets 429."""
        project = self.project(slug, TRAINING)
        asked = _asked(project, request, self.parsed(NewRunSerializer))
        try:
            run = create_run(project=project, created_by=request.user, **asked)
        except BadSpec as error:
            if "project" in error.fields:
                raise Refused("too_many_runs", str(error), status=429, wait=WAIT_SECONDS) from None
            raise wrong_fields(error.fields) from None
        return Response(RunSerializer(run).data, status=201)


class RunEstimateView(ApiView):
    @describe("estimate_run", tag="training", body=NewRunSerializer, answers={200: RunEstimateSerializer}, errors=[404])
    def post(self, request: Request, slug: str) -> Response:
        """What a run would take and what keeps it from starting, by field, told without queueing it: the body is create_run's."""
        project = self.project(slug, TRAINING)
        asked = _asked(project, request, self.parsed(NewRunSerializer))
        try:
            checked = check_run(project=project, **asked)
        except BadSpec as error:
            raise wrong_fields(error.fields) from None
        suggested = suggestions(checked)
        return Response(
            RunEstimateSerializer({"estimate": checked.plan.estimate, "wrong": checked.wrong, "suggested": suggested}).data
        )


class MachinesView(ApiView):
    @describe("list_machines", tag="training", answers={200: page_of(MachineSerializer)}, errors=[404], parameters=PAGE_PARAMETERS)
    def get(self, request: Request, slug: str) -> Response:
        """Machines whose workers execute runs, of those seen within a day."""
        self.project(slug, READING)
        return self.page(machines_there(), MachineSerializer)


class RunView(ApiView):
    @describe("get_run", tag="training", answers={200: RunSerializer}, errors=[404])
    def get(self, request: Request, run_id: str) -> Response:
        return Response(RunSerializer(self.find(runs_visible_to(request.user), run_id)).data)


class RunEventsView(ApiView):
    @describe(
        "list_run_events", tag="training", answers={200: page_of(RunEventSerializer)}, errors=[400, 404],
        parameters=[*PAGE_PARAMETERS, query("after", description="id of an event: only later ones")],
    )  # fmt: skip
    def get(self, request: Request, run_id: str) -> Response:
        """The run's events in order: metrics, checkpoints, samples."""
        run = self.find(runs_visible_to(request.user), run_id)
        events = run.events.all()
        if after := request.query_params.get("after"):
            try:
                events = events.filter(number__gt=number_of(after))
            except Http404:
                raise wrong_fields({"after": "This is not the id of an event"}) from None
        return self.page(events, RunEventSerializer, InOrder)


class RunExplanationView(ApiView):
    @describe("get_run_explanation", tag="training", answers={200: ExplanationSerializer}, errors=[404])
    def get(self, request: Request, run_id: str) -> Response:
        """Why the reward model rewarded what a run of kind explain was asked about: the completions explained so far."""
        found = explanation_of(self.find(runs_visible_to(request.user), run_id))
        return Response(ExplanationSerializer(found or {"completions": [], "difference": None}).data)


class RunActionView(ApiView):
    def act(self, run: Run) -> None:
        raise NotImplementedError

    def answer(self, request: Request, run_id: str) -> Response:
        run = self.find(runs_visible_to(request.user), run_id, TRAINING)
        try:
            self.act(run)
        except RunError as error:
            raise Refused("wrong_state", str(error), status=409) from None
        return Response(RunSerializer(runs_visible_to(request.user).get(pk=run.pk)).data)


class CancelRunView(RunActionView):
    def act(self, run: Run) -> None:
        request_cancel(run=run)

    @describe("cancel_run", tag="training", answers={200: RunSerializer}, errors=[404, 409])
    def post(self, request: Request, run_id: str) -> Response:
        """End a waiting run, or ask a running one to stop at its next step."""
        return self.answer(request, run_id)


class ResumeRunView(RunActionView):
    def act(self, run: Run) -> None:
        resume_run(run=run)

    @describe("resume_run", tag="training", answers={200: RunSerializer}, errors=[404, 409])
    def post(self, request: Request, run_id: str) -> Response:
        """Queue a failed or cancelled run again; it goes on from its last checkpoint."""
        return self.answer(request, run_id)
