"""What every REST view shares: the one error shape, cursor pages, strict parsing, and how a call is described."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from django.core.exceptions import (
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
    ValidationError,
)
from django.http import Http404, UnreadablePostError
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema, inline_serializer
from rest_framework import exceptions, serializers
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.pagination import CursorPagination
from rest_framework.parsers import BaseParser, JSONParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView, set_rollback

from labeling.web import strict_json

logger = logging.getLogger(__name__)


# --- errors -------------------------------------------------------------------------------------
class Refused(exceptions.APIException):
    """A refusal with a code of its own: `raise Refused("key_reused", "...", status=409)`."""

    def __init__(
        self, code: str, message: str, *, status: int = 400, fields: dict[str, Any] | None = None, wait: float = 0
    ) -> None:
        super().__init__(detail=message, code=code)
        self.status_code = status
        self.fields = fields or {}
        self.wait = wait


def wrong_fields(fields: dict[str, Any]) -> exceptions.ValidationError:
    """A 400 that names fields; takes the plain texts that services give."""
    return exceptions.ValidationError(
        {key: value if isinstance(value, list | dict) else [str(value)] for key, value in fields.items()}
    )


def error_body(code: str, message: str, fields: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "fields": fields or {}}}


def handle_exception(error: Exception, context: dict[str, Any]) -> Response | None:
    """Every refusal becomes `{"error": {"code", "message", "fields"}}`; anything else stays a 500 and is logged."""
    if isinstance(error, Http404):
        error = exceptions.NotFound("There is no such thing here, or it isn't yours to see")
    elif isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied(str(error) or None)
    elif isinstance(error, ValidationError):
        error = (
            wrong_fields(error.message_dict)
            if hasattr(error, "error_dict")
            else exceptions.ValidationError(error.messages)
        )
    elif isinstance(error, RequestDataTooBig):
        error = Refused("request_too_large", "The body is longer than this call takes", status=413)
    elif isinstance(error, SuspiciousOperation):
        error = exceptions.ParseError("The request is not one that this site understands")
    elif isinstance(error, UnreadablePostError):
        error = exceptions.ParseError("The body broke off")
    if not isinstance(error, exceptions.APIException):
        return None
    headers = {}
    if getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = error.auth_header
    if getattr(error, "wait", None):
        headers["Retry-After"] = str(int(error.wait) + 1)
    fields: dict[str, Any] = getattr(error, "fields", {})
    if isinstance(error, exceptions.ValidationError):
        code = "invalid"
        if isinstance(error.detail, dict):
            fields = {key: value for key, value in error.detail.items()}
            message = "Some fields are wrong: " + ", ".join(map(str, fields))
        else:
            message = " ".join(map(str, error.detail))
    else:
        codes = error.get_codes()
        code = codes if isinstance(codes, str) else "invalid"
        message = str(error.detail)
    set_rollback()
    return Response(error_body(code, message, fields), status=error.status_code, headers=headers)


# --- requests -----------------------------------------------------------------------------------
class JsonBody(JSONParser):
    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            return strict_json.parse(stream.read())
        except UnicodeDecodeError as error:
            raise exceptions.ParseError(f"The body is not UTF-8: see byte {error.start}") from None
        except ValueError as error:
            raise exceptions.ParseError(f"The body is not JSON as this site takes it: {error}") from None


class StrictSerializer(serializers.Serializer):
    """Refuses keys it doesn't know, so that nothing sent is silently ignored or assigned."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict) and (unknown := sorted(set(map(str, data)) - set(self.fields))):
            raise serializers.ValidationError({key: ["This field is not known here."] for key in unknown})
        return super().to_internal_value(data)


class Text(serializers.CharField):
    """A JSON string; numbers are not turned into one."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Whole(serializers.IntegerField):
    """A JSON number without a fraction; "5" and true are none."""

    def to_internal_value(self, data: Any) -> int:
        if type(data) is not int:
            self.fail("invalid")
        return super().to_internal_value(data)


class Number(serializers.FloatField):
    def to_internal_value(self, data: Any) -> float:
        if type(data) not in (int, float):
            self.fail("invalid")
        return super().to_internal_value(data)


class Flag(serializers.BooleanField):
    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


def json_object(request: Request) -> dict[str, Any]:
    """The body, where it is free but must be an object."""
    if not isinstance(request.data, dict):
        raise exceptions.ValidationError(["The body must be a JSON object"])
    return dict(request.data)


def sent_in_chunks(request: Request) -> bool:
    """Whether the body comes without a length: Django would take it for empty."""
    return bool(request.META.get("HTTP_TRANSFER_ENCODING")) and not request.META.get("CONTENT_LENGTH")


def length_required() -> Refused:
    return Refused("length_required", "Send the body whole, with its Content-Length: chunks are not taken here", status=411)


# --- views --------------------------------------------------------------------------------------
class JsonOnly(BaseContentNegotiation):
    """Answers are JSON whatever `Accept` or `?format=` say: the latter names import formats here."""

    def select_parser(self, request: Request, parsers: Sequence[BaseParser]) -> BaseParser | None:
        mime = (request.content_type or "").split(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == mime), None)

    def select_renderer(
        self, request: Request, renderers: Sequence[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        return renderers[0], renderers[0].media_type


class JsonView(APIView):
    """Base of every REST view. JSON in and out; OPTIONS tells nothing."""

    parser_classes = [JsonBody]
    content_negotiation_class = JsonOnly
    metadata_class = None
    takes_chunks = False

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if not self.takes_chunks and sent_in_chunks(request):
            raise length_required()

    def parsed(self, serializer_class: type[serializers.Serializer], **options: Any) -> dict[str, Any]:
        """The checked body; a wrong one is a 400 naming its fields."""
        serializer = serializer_class(data=self.request.data, **options)
        serializer.is_valid(raise_exception=True)
        return serializer.validated_data


class CursorPages(CursorPagination):
    page_size = 100
    page_size_query_param = "page_size"
    max_page_size = 1000
    ordering = "-pk"

    def decode_cursor(self, request: Request) -> Any:
        try:
            cursor = super().decode_cursor(request)
            if cursor is not None and cursor.position is not None and not 0 <= int(cursor.position) < 2**63:
                raise ValueError
        except (exceptions.NotFound, ValueError):
            raise wrong_fields({"cursor": "Take it from `next` or `previous` of another page"}) from None
        return cursor


# --- descriptions (OpenAPI) ---------------------------------------------------------------------
class ErrorDetailSerializer(serializers.Serializer):
    code = serializers.CharField(help_text="for programs, such as key_reused")
    message = serializers.CharField(help_text="for people")
    fields = serializers.DictField(  # type: ignore[assignment]
        help_text="wrong fields by name, each with a list of texts, or an object where the field is one"
    )


class ErrorSerializer(serializers.Serializer):
    error = ErrorDetailSerializer()


ID = {"type": "string"}
PAGE_PARAMETERS = [
    OpenApiParameter("cursor", str, description="from `next` or `previous` of another page"),
    OpenApiParameter("page_size", int, description="rows a page, at most 1000; 100 if not given"),
]
ERRORS = {
    400: "a field, parameter or the body is wrong",
    401: "no token, or one that is unknown, expired or revoked",
    403: "your role or the token's scope does not allow this",
    404: "not there, or not yours to see",
    409: "refused by the state things are in: `code` says why",
    411: "the body came in chunks, without its length",
    413: "the body is too long",
    415: "the body's content type is not one this call takes",
    416: "the range lies outside the file",
    429: "too often: wait as long as Retry-After says",
    503: "the database is away, or the file is still being made: wait as long as Retry-After says, and send the same again",
    507: "the disk of the server is full: nothing was kept",
}


def page_of(serializer: type[serializers.Serializer]) -> serializers.Serializer:
    """The shape of one page of a list."""
    name = serializer.__name__.removesuffix("Serializer") + "Page"
    return inline_serializer(
        name,
        {
            "next": serializers.URLField(allow_null=True),
            "previous": serializers.URLField(allow_null=True),
            "results": serializer(many=True),
        },
    )


def describe(
    name: str,
    *,
    tag: str,
    answers: dict[int, Any],
    body: Any = None,
    parameters: Sequence[OpenApiParameter] = (),
    errors: Sequence[int] = (),
    public: bool = False,
) -> Callable[[Any], Any]:
    """Describe one call for the schema. `errors` come on top of those that every call has."""
    common = (400, 503) if public else (400, 401, 403, 404, 503)
    responses: dict[Any, Any] = dict(answers)
    for code in sorted({*common, *errors, *((411, 413, 415) if body is not None else ())}):
        responses[code] = OpenApiResponse(ErrorSerializer, description=ERRORS[code])
    return extend_schema(
        operation_id=name,
        tags=[tag],
        request=body,
        responses=responses,
        parameters=list(parameters),
        auth=[] if public else None,
    )


def query(name: str, kind: Any = str, description: str = "", **options: Any) -> OpenApiParameter:
    return OpenApiParameter(name, kind, description=description, **options)


def header(name: str, description: str, *, required: bool) -> OpenApiParameter:
    return OpenApiParameter(
        name, OpenApiTypes.STR, OpenApiParameter.HEADER, required=required, description=description
    )


MAX_KEY_CHARACTERS = 80


def idempotency_key(request: Request) -> str:
    """The key that makes sending twice harmless. Refuses a request without one."""
    key = request.headers.get("Idempotency-Key", "")
    if not (0 < len(key) <= MAX_KEY_CHARACTERS and key.isascii() and key.isprintable()):
        raise wrong_fields(
            {"Idempotency-Key": f"This header is required: 1 to {MAX_KEY_CHARACTERS} visible ASCII characters"}
        )
    return key
