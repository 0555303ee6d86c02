"""What may no longer be trained on, and who agreed to it."""

from collections.abc import Iterator

from training.client._connection import JSON, Connection, part
from training.client.types import Withdrawal


class WithdrawalCalls(Connection):
    def withdrawals(self, slug: str) -> Iterator[Withdrawal]:
        """People who took their judgements back, and prompts that were removed, undone ones too."""
        return self._pages(f"projects/{part(slug)}/withdrawals/")

    def withdraw(
        self, slug: str, *, annotator: str = "", prompt: str = "", reason: str = "", dry_run: bool = False
    ) -> Withdrawal:
        """Take a person's judgements, or a prompt and all that was said on it, out of what is frozen from now on.

        `touched` of the answer names the snapshots that hold the rows, and the models made of them; with `dry_run`
        that is all that happens.
        """
        named = {name: value for name, value in (("annotator", annotator), ("prompt", prompt)) if value}
        body = {**named, "reason": reason, "dry_run": dry_run}
        # Safe to repeat: what is withdrawn already stays so.
        return self._call("POST", f"projects/{part(slug)}/withdrawals/", json=body, repeatable=True)

    def undo_withdrawal(self, withdrawal_id: str) -> Withdrawal:
        return self._call("POST", f"withdrawals/{part(withdrawal_id)}/undo/")

    def consent(self, slug: str) -> JSON:
        """What the caller said of the use of their judgements for training."""
        return self._call("GET", f"projects/{part(slug)}/consent/")

    def say_consent(self, slug: str, consent: bool, reason: str = "") -> JSON:
        return self._call("PUT", f"projects/{part(slug)}/consent/", json={"consent": consent, "reason": reason})
