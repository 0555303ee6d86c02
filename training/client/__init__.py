"""Python client and command line for the REST API."""

from training.client.client import Client
from training.client.errors import (
    ApiError,
    BadLogin,
    ChecksumMismatch,
    ClientError,
    Conflict,
    ConnectionFailed,
    Invalid,
    JobFailed,
    MissingPackage,
    NotAllowed,
    NotFound,
    NotLoggedIn,
    RateLimited,
    TooLarge,
    Unavailable,
)
from training.client.webhooks import is_genuine

__all__ = [
    "ApiError",
    "BadLogin",
    "ChecksumMismatch",
    "Client",
    "ClientError",
    "Conflict",
    "ConnectionFailed",
    "Invalid",
    "JobFailed",
    "MissingPackage",
    "NotAllowed",
    "NotFound",
    "NotLoggedIn",
    "RateLimited",
    "TooLarge",
    "Unavailable",
    "is_genuine",
]
