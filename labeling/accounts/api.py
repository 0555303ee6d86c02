"""Getting a token by password."""

from django.contrib.auth import authenticate
from django.contrib.auth.signals import user_logged_in
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import ScopedRateThrottle

from labeling.accounts.models import User
from labeling.accounts.serializers import CredentialsSerializer, TokenSerializer
from labeling.accounts.services import create_token
from labeling.web.api import JsonView, Refused, describe

LOCKED_SECONDS = 15 * 60


class TokenView(JsonView):
    authentication_classes = []
    permission_classes = [AllowAny]
    throttle_classes = [ScopedRateThrottle]
    throttle_scope = "token"

    @describe(
        "create_token", tag="access", public=True, body=CredentialsSerializer, answers={201: TokenSerializer},
        errors=[401, 429],
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Exchange a password for a token with all scopes, good for a year."""
        credentials = self.parsed(CredentialsSerializer)
        # The request goes along so that failures are counted by name and address.
        user = authenticate(request=request, **credentials)
        if getattr(request, "axes_locked_out", False):
            raise Refused(
                "locked_out", "Too many wrong passwords: wait a quarter of an hour", status=429, wait=LOCKED_SECONDS
            )
        if not isinstance(user, User):
            # One text for a wrong password, an unknown name and a closed account.
            raise Refused("bad_credentials", "The username or the password is wrong", status=401)
        user_logged_in.send(sender=User, request=request, user=user)
        _, text = create_token(user=user, name="by password")
        return Response({"token": text}, status=201)
