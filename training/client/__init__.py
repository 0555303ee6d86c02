"""Python client and command line for the REST API."""

from training.client.client import Client
from training.client.errors import ApiError, ChecksumMismatch, ClientError, ConnectionFailed

__all__ = ["ApiError", "ChecksumMismatch", "Client", "ClientError", "ConnectionFailed"]
