"""REST authentication by bearer token; never by cookie, so the API needs no CSRF token."""

from datetime import datetime, timedelta

from django.db.models import Q, QuerySet
from django.utils.timezone import now
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from labeling.accounts.models import ApiToken, User
from labeling.accounts.services import digest_of
from labeling.database.prepared import prepared

LAST_USED_EVERY = timedelta(minutes=5)


@prepared
def _good_tokens(digest: str, at: datetime) -> QuerySet[ApiToken]:
    """The token of this digest, with its user, if it may be used; digests are unique."""
    return ApiToken.objects.select_related("user").filter(
        Q(expires_at=None) | Q(expires_at__gt=at), digest=digest, revoked_at=None, user__is_active=True
    )


class BearerTokenAuthentication(BaseAuthentication):
    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        header = get_authorization_header(request).split()
        if not header or header[0].lower() != b"bearer":
            return None
        if len(header) != 2:
            raise AuthenticationFailed("Write the header as: Authorization: Bearer <token>")
        try:
            digest = digest_of(header[1].decode("ascii"))
        except UnicodeDecodeError:
            raise AuthenticationFailed("The token has characters that no token has") from None
        at = now()
        tokens = _good_tokens(digest=digest, at=at)
        if not tokens:
            raise AuthenticationFailed(
                "The token is unknown, expired or revoked. Make a new one: POST /api/v1/auth/token/"
            )
        (token,) = tokens
        if token.last_used_at is None or at - token.last_used_at > LAST_USED_EVERY:
            ApiToken.objects.filter(pk=token.pk).update(last_used_at=at)
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class BearerTokenScheme(OpenApiAuthenticationExtension):
    target_class = "labeling.accounts.authentication.BearerTokenAuthentication"
    name = "bearer"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}
