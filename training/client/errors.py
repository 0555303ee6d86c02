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


class ConnectionFailed(ClientError):
    """The server could not be reached, or broke off, as often as it was tried."""


class ChecksumMismatch(ClientError):
    """A downloaded file is not the one that the server described. The file has been removed."""
