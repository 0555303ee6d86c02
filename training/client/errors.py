"""What a call of the client can raise."""


class ClientError(Exception):
    """Everything this client raises by itself."""


class ApiError(ClientError):
    """The server refused the call.

    `code` is for programs ("key_reused"), `message` for people, `fields` maps the name of a wrong field to its
    errors, `status` is the HTTP status.
    """

    def __init__(self, code: str, message: str, fields: dict[str, object] | None = None, status: int = 0) -> None:
        super().__init__(code, message, fields, status)
        self.code = code
        self.message = message
        self.fields = fields or {}
        self.status = status

    def __str__(self) -> str:
        fields = "".join(f"; {name}: {errors}" for name, errors in self.fields.items())
        return f"{self.message} ({self.code}, HTTP {self.status}{fields})"


class Invalid(ApiError):
    """400: a field, a parameter or the body is wrong; `fields` says which."""


class NotLoggedIn(ApiError):
    """401: there is no token, or it is unknown, expired or revoked."""


class NotAllowed(ApiError):
    """403: the role or the token's scope is too low."""


class NotFound(ApiError):
    """404: not there, or not the caller's to see."""


class Conflict(ApiError):
    """409: refused by the state that things are in; `code` says why."""


class TooLarge(ApiError):
    """413: the file or body is longer than the site takes."""


class RateLimited(ApiError):
    """429: too often, and the wait that the server asks for is longer than the client waits."""


class Unavailable(ApiError):
    """502, 503, 504: the site, or its database, is away, as often as it was tried."""


BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid, 401: NotLoggedIn, 403: NotAllowed, 404: NotFound, 409: Conflict, 413: TooLarge, 429: RateLimited,
    502: Unavailable, 503: Unavailable, 504: Unavailable,
}  # fmt: skip


def error_of(code: str, message: str, fields: dict[str, object] | None, status: int) -> ApiError:
    return BY_STATUS.get(status, ApiError)(code, message, fields, status)


class ConnectionFailed(ClientError):
    """The server could not be reached, or broke off, as often as it was tried."""


class ChecksumMismatch(ClientError):
    """A downloaded file is not the one that the server described. The file has been removed."""


class JobFailed(ClientError):
    """An import or a freeze in the background ended without being done; the message says why."""


class MissingPackage(ClientError):
    """A package is needed that the base install leaves out; the message says how to install it."""


class BadLogin(ClientError):
    """What is stored of a log-in can't be used."""
