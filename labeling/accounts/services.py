"""People and their tokens."""

import hashlib
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.contrib.auth.password_validation import validate_password
from django.db import IntegrityError, transaction
from django.utils.timezone import now

from labeling.accounts.errors import BadScope, UsernameTaken
from labeling.accounts.models import ApiToken, User

TOKEN_PREFIX = "plf_"


def create_user(
    *, username: str, password: str | None = None, kind: str = User.Kind.HUMAN, is_staff: bool = False
) -> User:
    """Make an account. Without a password nobody can log in to it by name; tokens still work.

    Raises UsernameTaken, and ValidationError where the password is too weak.
    """
    user = User(username=username, kind=kind, is_staff=is_staff, is_superuser=is_staff)
    if password is None:
        user.set_unusable_password()
    else:
        validate_password(password, user)
        user.set_password(password)
    user.clean_fields(exclude=["password"])
    try:
        with transaction.atomic():
            user.save()
    except IntegrityError:
        raise UsernameTaken(f"There is already an account named {username!r}") from None
    return user


def digest_of(token: str) -> str:
    """Tokens carry 160 random bits, so one SHA-256 is enough: there is nothing to guess."""
    return hashlib.sha256(token.encode()).hexdigest()


def create_token(
    *,
    user: User,
    name: str,
    scopes: Iterable[str] = (ApiToken.Scope.READ, ApiToken.Scope.ANNOTATE, ApiToken.Scope.MANAGE),
    project_slug: str = "",
    lifetime: timedelta | None = timedelta(days=365),
) -> tuple[ApiToken, str]:
    """Make a token and return it with its secret text, which is not stored and cannot be shown again.

    Raises BadScope for a scope that is not read, annotate or manage.
    """
    scopes = sorted(set(scopes))
    if unknown := set(scopes) - set(ApiToken.Scope.values):
        raise BadScope(
            f"Unknown scope {sorted(unknown)[0]!r}: choose from {', '.join(ApiToken.Scope.values)}"
        )
    text = TOKEN_PREFIX + secrets.token_hex(20)
    token = ApiToken.objects.create(
        user=user,
        name=name,
        digest=digest_of(text),
        prefix=text[:8],
        scopes=scopes,
        project_slug=project_slug,
        expires_at=now() + lifetime if lifetime else None,
    )
    return token, text


def revoke_token(*, token: ApiToken, at: datetime | None = None) -> None:
    ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=at or now())
