"""Holding a conversation from a program: the calls behind the page, and the settings."""

from typing import Any

from django.http import Http404
from rest_framework.request import Request
from rest_framework.response import Response

from labeling.accounts.models import ApiToken
from labeling.accounts.roles import ANNOTATING, READING, STEERING
from labeling.conversation.errors import BadSettings, ConversationError, TooMuchAtOnce
from labeling.conversation.models import Conversation, Turn
from labeling.conversation.selectors import conversations_of, settings_of
from labeling.conversation.serializers import (
    ConversationSerializer,
    EndSerializer,
    MessageBodySerializer,
    NewSettingsSerializer,
    SettingsSerializer,
    TurnSerializer,
)
from labeling.conversation.services import (
    change_settings,
    end_conversation,
    request_stop,
    sample_again,
    settle,
    start_conversation,
    start_turn,
)
from labeling.projects.api_access import ApiView
from labeling.projects.models import Membership
from labeling.web.api import (
    PAGE_PARAMETERS,
    Refused,
    StrictSerializer,
    describe,
    header,
    idempotency_key,
    page_of,
    wrong_fields,
)


class NothingSerializer(StrictSerializer):
    """An empty body, or an empty object."""


def _key_header(thing: str) -> Any:
    return header(
        "Idempotency-Key", f"made by the caller, one for each {thing}; 1 to 80 visible ASCII characters", required=True
    )


class SettingsView(ApiView):
    @describe("conversation_settings", tag="conversations", answers={200: SettingsSerializer}, errors=[404])
    def get(self, request: Request, slug: str) -> Response:
        """Whom annotators talk with. `servers` are those the operator has named."""
        return Response(SettingsSerializer(settings_of(self.project(slug, READING))).data)

    @describe(
        "change_conversation_settings", tag="conversations", body=NewSettingsSerializer,
        answers={200: SettingsSerializer}, errors=[404],
    )  # fmt: skip
    def patch(self, request: Request, slug: str) -> Response:
        """Change what is given. Turns from now on follow it."""
        project = self.project(slug, STEERING)
        changes = self.parsed(NewSettingsSerializer)
        try:
            found = change_settings(project=project, **changes)
        except BadSettings as error:
            raise wrong_fields(error.fields) from None
        return Response(SettingsSerializer(found).data)


class ConversationsView(ApiView):
    scope = ApiToken.Scope.ANNOTATE

    @describe(
        "list_conversations", tag="conversations", parameters=PAGE_PARAMETERS,
        answers={200: page_of(ConversationSerializer)}, errors=[404],
    )  # fmt: skip
    def get(self, request: Request, slug: str) -> Response:
        """The caller's own conversations, newest first."""
        project = self.project(slug, ANNOTATING)
        return self.page(conversations_of(request.user).filter(project=project), ConversationSerializer)

    @describe(
        "start_conversation", tag="conversations", body=NothingSerializer, parameters=[_key_header("conversation")],
        answers={201: ConversationSerializer}, errors=[404, 409],
    )  # fmt: skip
    def post(self, request: Request, slug: str) -> Response:
        """Begin a conversation. The same key again is the same conversation."""
        project = self.project(slug, ANNOTATING)
        self.parsed(NothingSerializer)
        with _refusals():
            begun = start_conversation(project=project, annotator=request.user, client_key=idempotency_key(request))
        return Response(ConversationSerializer(begun).data, status=201)


class OneConversationView(ApiView):
    """Base of what one does with a conversation of one's own."""

    scope = ApiToken.Scope.ANNOTATE

    def conversation(self, id: str) -> Conversation:
        rows = self.limited_to_token(conversations_of(self.request.user))
        found = rows.filter(public_id=id).first()
        if found is None:
            raise Http404
        if not Membership.objects.filter(user=self.request.user, project=found.project, role__in=ANNOTATING).exists():
            raise Http404
        settle(found)
        return found

    def turn(self, id: str, number: int) -> Turn:
        found = self.conversation(id).turns.filter(number=number).order_by("-attempt")
        turn = found.select_related("conversation__project", "lease").first()
        if turn is None:
            raise Http404
        return turn


class ConversationView(OneConversationView):
    @describe("conversation", tag="conversations", answers={200: ConversationSerializer}, errors=[404])
    def get(self, request: Request, conversation_id: str) -> Response:
        """A conversation with all its turns."""
        return Response(ConversationSerializer(self.conversation(conversation_id)).data)


class EndView(OneConversationView):
    @describe(
        "end_conversation", tag="conversations", body=EndSerializer, answers={200: ConversationSerializer}, errors=[404]
    )
    def post(self, request: Request, conversation_id: str) -> Response:
        """Nothing more is said in it. What was judged stays."""
        found = self.conversation(conversation_id)
        end_conversation(conversation=found, reason=self.parsed(EndSerializer)["reason"])
        return Response(ConversationSerializer(found).data)


class TurnsView(OneConversationView):
    @describe(
        "say", tag="conversations", body=MessageBodySerializer, parameters=[_key_header("message")],
        answers={202: TurnSerializer}, errors=[404, 409, 429],
    )  # fmt: skip
    def post(self, request: Request, conversation_id: str) -> Response:
        """Say something: 202, and both completions are being written. Ask for the turn until its state is `ready`,
        then judge its lease; the completion ranked first goes on. 409 is `turn_open`, `conversation_over`,
        `not_set_up` or `key_reused`."""
        found = self.conversation(conversation_id)
        key = idempotency_key(request)
        content = self.parsed(MessageBodySerializer)["content"]
        with _refusals():
            turn = start_turn(conversation=found, content=content, client_key=key)
        return Response(TurnSerializer(turn).data, status=202)


class TurnView(OneConversationView):
    @describe("turn", tag="conversations", answers={200: TurnSerializer}, errors=[404])
    def get(self, request: Request, conversation_id: str, number: int) -> Response:
        """The turn as it stands: `generating`, `ready` with its lease, `failed` with the reason, or `judged`."""
        return Response(TurnSerializer(self.turn(conversation_id, number)).data)


class AgainView(OneConversationView):
    @describe(
        "sample_again", tag="conversations", body=NothingSerializer, answers={202: TurnSerializer},
        errors=[404, 409, 429],
    )  # fmt: skip
    def post(self, request: Request, conversation_id: str, number: int) -> Response:
        """Sample both completions once more: of a turn that failed, or whose completions were both called bad."""
        turn = self.turn(conversation_id, number)
        self.parsed(NothingSerializer)
        with _refusals():
            turn = sample_again(turn=turn)
        return Response(TurnSerializer(turn).data, status=202)


class StopView(OneConversationView):
    @describe("stop_turn", tag="conversations", body=NothingSerializer, answers={202: TurnSerializer}, errors=[404])
    def post(self, request: Request, conversation_id: str, number: int) -> Response:
        """Cut both completions where they are. A turn that is not being written stays as it is."""
        turn = self.turn(conversation_id, number)
        self.parsed(NothingSerializer)
        request_stop(turn=turn)
        return Response(TurnSerializer(turn).data, status=202)


class _refusals:
    """What the services of this app refuse, as an answer."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, TooMuchAtOnce):
            raise Refused(error.code, str(error), status=429, wait=5) from None
        if isinstance(error, ConversationError):
            raise Refused(error.code, str(error), status=409) from None
