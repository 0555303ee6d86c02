"""Python client of the REST API, version 1.

    with Client("http://127.0.0.1:8000", token) as client:
        snapshot = client.create_snapshot("larkfell")
        client.download_snapshot(snapshot["id"], "train", path="train.jsonl")

Calls return the decoded JSON of the answer. They raise ApiError where the server refuses, and ConnectionFailed where it
cannot be reached.
"""

from typing import Self

from training.client.access import AccessCalls
from training.client.errors import BadLogin
from training.client.imports import ImportCalls
from training.client.judging import JudgingCalls
from training.client.login import DEFAULT_URL, logged_in
from training.client.model_imports import ModelImportCalls
from training.client.quality import QualityCalls
from training.client.snapshots import SnapshotCalls
from training.client.training import TrainingCalls
from training.client.webhooks import WebhookCalls
from training.client.withdrawals import WithdrawalCalls


class Client(
    AccessCalls, ImportCalls, JudgingCalls, QualityCalls, SnapshotCalls, WithdrawalCalls, TrainingCalls, ModelImportCalls,
    WebhookCalls,
):
    """All calls of a site, each documented where its topic is."""

    @classmethod
    def logged_in(cls, url: str | None = None) -> Self:
        """With the address and token that `prefloop login` stored, or that PREFLOOP_URL and PREFLOOP_TOKEN name.

        Raises BadLogin where there is no token.
        """
        url, token = logged_in(url)
        if token is None:
            raise BadLogin(f"Nobody is logged in at {url or DEFAULT_URL}: run prefloop login, or set PREFLOOP_TOKEN")
        return cls(url, token)
