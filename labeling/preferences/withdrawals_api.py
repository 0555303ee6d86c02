"""What may no longer be trained on, over REST; and the callers' own word on the use of their judgements."""

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from labeling.accounts.models import ApiToken
from labeling.accounts.roles import ANNOTATING, READING, STEERING
from labeling.preferences.errors import NotUndone
from labeling.preferences.models import Withdrawal
from labeling.preferences.serializers import (
    ConsentSerializer,
    NewConsentSerializer,
    NewWithdrawalSerializer,
    WithdrawalDetailSerializer,
    WithdrawalSerializer,
)
from labeling.preferences.withdrawal import (
    give_consent,
    remove_prompt,
    standing_withdrawal,
    touched_by,
    undo_withdrawal,
    withdraw_person,
    withdrawals_visible_to,
)
from labeling.preferences.withdrawal_forms import person_called
from labeling.projects.api_access import ApiView
from labeling.projects.models import Membership, Project, Prompt
from labeling.web.api import PAGE_PARAMETERS, Refused, describe, page_of, wrong_fields


class WithdrawalsView(ApiView):
    @describe(
        "list_withdrawals", tag="snapshots", answers={200: page_of(WithdrawalSerializer)}, errors=[404],
        parameters=PAGE_PARAMETERS,
    )  # fmt: skip
    def get(self, request: Request, slug: str) -> Response:
        """People who took their judgements back, and prompts that were removed, undone ones too."""
        project = self.project(slug, READING)
        return self.page(withdrawals_visible_to(request.user).filter(project=project), WithdrawalSerializer)

    @describe(
        "record_withdrawal", tag="snapshots", body=NewWithdrawalSerializer,
        answers={201: WithdrawalDetailSerializer, 200: WithdrawalDetailSerializer}, errors=[404],
    )  # fmt: skip
    def post(self, request: Request, slug: str) -> Response:
        """Take a person's judgements, or a prompt and all that was said on it, out of training. For leads.

        Snapshots frozen from then on leave the rows out; `touched` names those that hold them, and the models made of
        these. `"dry_run": true` records nothing and only says what would be touched. 200 where it was recorded before.
        """
        project = self.project(slug, STEERING)
        wanted = self.parsed(NewWithdrawalSerializer)
        what = _named(project, wanted)
        touched = touched_by(project=project, **what)
        if wanted["dry_run"]:
            withdrawal = standing_withdrawal(project, **what) or Withdrawal(project=project, reason=wanted["reason"], **what)
            return Response(WithdrawalDetailSerializer(withdrawal, context={"touched": touched}).data)
        record = withdraw_person if "annotator" in what else remove_prompt
        withdrawal, is_new = record(project=project, by=request.user, reason=wanted["reason"], **what)
        body = WithdrawalDetailSerializer(withdrawal, context={"touched": touched}).data
        return Response(body, status=201 if is_new else 200)


def _named(project: Project, wanted: dict[str, Any]) -> dict[str, Any]:
    """The person or the prompt that is meant. Refuses both, neither, and what isn't there."""
    name, number = wanted["annotator"], wanted["prompt"]
    if bool(name) == bool(number):
        raise wrong_fields({"annotator": "Name an annotator or a prompt: one of them"})
    if name:
        annotator = person_called(project, name)
        if annotator is None:
            raise wrong_fields({"annotator": "Nobody of this name is in the project or judged in it"})
        return {"annotator": annotator}
    is_number = number.isascii() and number.isdigit() and len(number) < 19
    prompt = Prompt.objects.filter(project=project, pk=int(number)).first() if is_number else None
    if prompt is None:
        raise wrong_fields({"prompt": "The project has no such prompt"})
    return {"prompt": prompt}


class UndoWithdrawalView(ApiView):
    @describe("undo_withdrawal", tag="snapshots", answers={200: WithdrawalSerializer}, errors=[404, 409])
    def post(self, request: Request, withdrawal_id: str) -> Response:
        """Let the rows into snapshots again; a prompt's tasks that were closed with it are open again. For leads.

        409 `not_undone` where it is undone already, and where people took back their own: they alone agree again.
        """
        withdrawal = self.find(withdrawals_visible_to(request.user), withdrawal_id, STEERING)
        try:
            undo_withdrawal(withdrawal=withdrawal, by=request.user)
        except NotUndone as error:
            raise Refused("not_undone", str(error), status=409) from None
        return Response(WithdrawalSerializer(self.find(withdrawals_visible_to(request.user), withdrawal_id)).data)


class ConsentView(ApiView):
    scope = ApiToken.Scope.ANNOTATE

    @describe("get_consent", tag="projects", answers={200: ConsentSerializer}, errors=[404])
    def get(self, request: Request, slug: str) -> Response:
        """What you said of the use of your judgements for training."""
        return Response(self._said(self.project(slug, ANNOTATING)))

    @describe("say_consent", tag="projects", body=NewConsentSerializer, answers={200: ConsentSerializer}, errors=[404])
    def put(self, request: Request, slug: str) -> Response:
        """Agree that models are trained on what you judge here, or take your judgements back."""
        project = self.project(slug, ANNOTATING)
        wanted = self.parsed(NewConsentSerializer)
        if wanted["consent"]:
            give_consent(membership=project.memberships.select_related("project").get(user=request.user), by=request.user)
        else:
            withdraw_person(project=project, annotator=request.user, by=request.user, reason=wanted["reason"])
        return Response(self._said(project))

    def _said(self, project: Project) -> dict[str, Any]:
        member = project.memberships.get(user=self.request.user)
        withdrawal = standing_withdrawal(project, annotator=self.request.user)
        given = member.consent == Membership.Consent.GIVEN
        return {
            "consent": False if withdrawal else True if given else None,
            "at": withdrawal.at if withdrawal else member.consent_at,
            "by_a_lead": bool(withdrawal and withdrawal.by_id != member.user_id),
        }
