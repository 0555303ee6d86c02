"""Judging tasks: the calls behind the bench and behind any annotator that is a program."""

from collections.abc import Iterable
from typing import Any

from django.db.models import QuerySet
from django.http import Http404
from rest_framework.request import Request
from rest_framework.response import Response

from labeling.accounts.models import ApiToken, User
from labeling.accounts.roles import ANNOTATING
from labeling.annotation.errors import AnnotationError
from labeling.annotation.models import Judgement, Lease
from labeling.annotation.selectors import judgements_visible_to, lease_of
from labeling.annotation.serializers import (
    FeedbackSerializer,
    HoldingSerializer,
    JudgementBodySerializer,
    JudgementSerializer,
    LeaseSerializer,
    ListedJudgementSerializer,
    RenewedSerializer,
    ReportSerializer,
    SkipSerializer,
    SubmittedSerializer,
)
from labeling.annotation.services import (
    Submission,
    renew_lease,
    report_prompt,
    revise_judgement,
    save_draft,
    skip_lease,
    submit_and_take_lease,
    submit_judgement,
    take_lease,
)
from labeling.projects.api_access import ApiView, key_of, number_of, refuse_low_role
from labeling.projects.feedback import BadAnswer
from labeling.projects.selectors import projects_of
from labeling.web.api import (
    PAGE_PARAMETERS,
    Refused,
    describe,
    header,
    idempotency_key,
    json_object,
    page_of,
    query,
    wrong_fields,
)

KEY_HEADER = header(
    "Idempotency-Key", "made by the caller, one for each judgement; 1 to 80 visible ASCII characters", required=True
)


class LeasesView(ApiView):
    scope = ApiToken.Scope.ANNOTATE

    @describe(
        "take_lease", tag="annotation", body=HoldingSerializer, answers={201: LeaseSerializer, 204: None}, errors=[404]
    )
    def post(self, request: Request, slug: str) -> Response:
        """The next task for the caller; 204 when there is nothing for them. The body may be left out."""
        project = self.project(slug, ANNOTATING)
        holding = _numbers_of(self.parsed(HoldingSerializer)["holding"])
        lease = take_lease(project=project, annotator=request.user, holding=holding)
        return Response(status=204) if lease is None else Response(LeaseSerializer(lease).data, status=201)


class LeaseView(ApiView):
    """Base of what one does with a lease of one's own."""

    scope = ApiToken.Scope.ANNOTATE

    def lease(self, id: str) -> Lease:
        found = lease_of(user=self.request.user.pk, lease=number_of(id))
        project = self.request.auth.project_slug
        if not found or (project and found[0].task.project.slug != project):
            raise Http404
        (lease,) = found
        refuse_low_role(lease.role, ANNOTATING)
        lease.annotator = self.request.user  # known already; spares the submit a statement
        return lease


class DraftView(LeaseView):
    @describe(
        "save_draft",
        tag="annotation",
        body={"application/json": {"type": "object"}},
        answers={204: None},
        errors=[404, 409],
    )
    def put(self, request: Request, lease_id: str) -> Response:
        """Keep what the annotator has so far: any JSON object. It comes back with the lease."""
        lease = self.lease(lease_id)
        draft = json_object(request)
        with _refusals():
            save_draft(lease=lease, draft=draft)
        return Response(status=204)


class RenewView(LeaseView):
    @describe("renew_lease", tag="annotation", answers={200: RenewedSerializer}, errors=[404, 409])
    def post(self, request: Request, lease_id: str) -> Response:
        """Keep the task for another while: the heartbeat of an open page."""
        with _refusals():
            return Response(RenewedSerializer({"expires_at": renew_lease(lease=self.lease(lease_id))}).data)


class SkipView(LeaseView):
    @describe("skip_lease", tag="annotation", body=SkipSerializer, answers={204: None}, errors=[404, 409])
    def post(self, request: Request, lease_id: str) -> Response:
        """Give the task back; it is not offered to the caller again."""
        lease = self.lease(lease_id)
        with _refusals():
            skip_lease(lease=lease, **self.parsed(SkipSerializer))
        return Response(status=204)


class ReportView(LeaseView):
    @describe("report_prompt", tag="annotation", body=ReportSerializer, answers={204: None}, errors=[404])
    def post(self, request: Request, lease_id: str) -> Response:
        """Tell the leads that something is wrong with the prompt. The task stays with the caller."""
        report_prompt(lease=self.lease(lease_id), **self.parsed(ReportSerializer))
        return Response(status=204)


class SubmitView(LeaseView):
    @describe(
        "submit_judgement", tag="annotation", body=JudgementBodySerializer,
        parameters=[
            KEY_HEADER,
            query("next", description="1: add the next lease to the answer", enum=["0", "1"]),
            query("holding", description="with next: ids of leases that you have already, joined by commas"),
        ],
        answers={200: SubmittedSerializer, 201: SubmittedSerializer, 202: SubmittedSerializer},
        errors=[404, 409],
    )  # fmt: skip
    def post(self, request: Request, lease_id: str) -> Response:
        """Submit a judgement: 201; the same key and body again: 200 with the first judgement.

        202 with `"surplus": true` says that the slot was given away meanwhile: kept, and counted apart. 409 is
        `key_reused` (the key came with another body), `already_judged` or `lease_lost`. While the caller is
        qualifying, the answer also holds `feedback`.
        """
        lease = self.lease(lease_id)
        key = idempotency_key(request)
        body = json_object(request)
        wants_next = request.query_params.get("next") == "1"
        with _refusals():
            if wants_next:
                holding = _numbers_of(id for id in request.query_params.get("holding", "").split(",") if id)
                done, following = submit_and_take_lease(lease=lease, submission_key=key, body=body, holding=holding)
            else:
                done = submit_judgement(lease=lease, submission_key=key, body=body)
        # Known already from the lease; asking again would cost a statement each.
        judgement = done.judgement
        judgement.task, judgement.project = lease.task, lease.task.project
        judgement.annotator, judgement.guideline = lease.annotator, lease.guideline
        answer = _submitted(done)
        if done.feedback is not None:
            answer.data["feedback"] = FeedbackSerializer(done.feedback).data
        if wants_next:
            answer.data["next_lease"] = None if following is None else LeaseSerializer(following).data
        return answer


class JudgementsView(ApiView):
    @describe(
        "list_judgements", tag="annotation", answers={200: page_of(ListedJudgementSerializer)}, errors=[400, 404],
        parameters=[
            *PAGE_PARAMETERS,
            query("task", description="id of a task"),
            query("annotator_kind", description="of these only", enum=User.Kind.values),
        ],
    )  # fmt: skip
    def get(self, request: Request, slug: str) -> Response:
        """Standing judgements, newest first: an annotator's own, or all for those who read the console."""
        project = self.project(slug)
        found = judgements_visible_to(request.user, project).select_related("guideline", "project")
        if task := request.query_params.get("task"):
            found = found.filter(task__public_id=task)
        if kind := request.query_params.get("annotator_kind"):
            if kind not in User.Kind.values:
                raise wrong_fields({"annotator_kind": f"Choose from {', '.join(User.Kind.values)}"})
            found = found.filter(annotator_kind=kind)
        return self.page(found, ListedJudgementSerializer)


class RevisionView(ApiView):
    scope = ApiToken.Scope.ANNOTATE

    @describe(
        "revise_judgement", tag="annotation", body=JudgementBodySerializer,
        parameters=[header("Idempotency-Key", "as for a submit; left out, the same body again changes nothing", required=False)],
        answers={200: JudgementSerializer, 201: JudgementSerializer}, errors=[404, 409],
    )  # fmt: skip
    def post(self, request: Request, judgement_id: str) -> Response:
        """Revise a judgement of one's own by a new one that supersedes it. 409 is `not_revisable` or `key_reused`."""
        judgement = self.find(_own_judgements(request.user), judgement_id, ANNOTATING)
        judgement.annotator = judgement.lease.annotator = request.user
        body = json_object(request)
        key = key_of(request, f"revision:{judgement.pk}")
        with _refusals():
            done = revise_judgement(judgement=judgement, submission_key=key, body=body)
        return _submitted(done)


def _own_judgements(user: User) -> QuerySet[Judgement]:
    """Superseded ones too: a repeated revision must find the judgement it revised."""
    return Judgement.objects.filter(annotator=user, project__in=projects_of(user)).select_related(
        "task", "project", "lease__task__project", "guideline"
    )


def _submitted(done: Submission) -> Response:
    status = 200 if not done.is_new else 202 if done.judgement.is_surplus else 201
    return Response(JudgementSerializer(done.judgement).data, status=status)


def _numbers_of(holding: Iterable[str]) -> list[int]:
    try:
        return [number_of(id) for id in holding]
    except Http404:
        raise wrong_fields({"holding": "These are not ids of leases"}) from None


class _refusals:
    """What the services of annotation refuse, as an answer."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, BadAnswer):
            raise wrong_fields(error.fields) from None
        if isinstance(error, AnnotationError):
            raise Refused(error.code, str(error), status=409) from None
