"""What every REST view shares: the one error shape, cursor pages, and parsing that refuses unknown keys."""

import logging
from typing import Any

from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404
from rest_framework import exceptions, serializers, status
from rest_framework.pagination import CursorPagination
from rest_framework.response import Response
from rest_framework.views import set_rollback

logger = logging.getLogger(__name__)


class CursorPages(CursorPagination):
    page_size = 100
    page_size_query_param = "page_size"
    max_page_size = 1000
    ordering = "-pk"


class Refused(exceptions.APIException):
    """A refusal with a code of its own: `raise Refused("key_reused", "...", status=409)`."""

    def __init__(
        self, code: str, message: str, *, status: int = 400, fields: dict[str, Any] | None = None
    ) -> None:
        super().__init__(detail=message, code=code)
        self.status_code = status
        self.fields = fields or {}


class StrictSerializer(serializers.Serializer):
    """Refuses keys it doesn't know, so that nothing sent is silently ignored or assigned."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict) and (unknown := sorted(set(map(str, data)) - set(self.fields))):
            raise serializers.ValidationError({key: ["This field is not known here."] for key in unknown})
        return super().to_internal_value(data)


def error_body(code: str, message: str, fields: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "fields": fields or {}}}


def handle_exception(error: Exception, context: dict[str, Any]) -> Response | None:
    """Every refusal becomes `{"error": {"code", "message", "fields"}}`; anything else stays a 500 and is logged."""
    if isinstance(error, Http404):
        error = exceptions.NotFound("There is no such thing here, or it isn't yours to see")
    elif isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied(str(error) or None)
    elif isinstance(error, ValidationError):
        fields = getattr(error, "message_dict", None)
        error = exceptions.ValidationError(fields or error.messages)
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


def not_found(request: Any, exception: Exception | None = None) -> Response:
    return Response(error_body("not_found", "There is no such address"), status=status.HTTP_404_NOT_FOUND)
