"""Tasks, leases and judgements."""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from training.client._connection import JSON, Connection, part
from training.client.types import Judgement, Lease


class JudgingCalls(Connection):
    def create_tasks(self, slug: str, **fields: Any) -> JSON:
        """Make tasks; `fields` are kind, overlap, completions_per_task, and prompts where not all are meant.

        pool or people say who may be given them, priority how soon.
        """
        return self._call("POST", f"projects/{part(slug)}/tasks/", json=fields)

    def tasks(self, slug: str, **filters: str) -> Iterator[JSON]:
        return self._pages(f"projects/{part(slug)}/tasks/", filters)

    def assign_tasks(self, slug: str, **fields: Any) -> JSON:
        """Move tasks; `fields` are tasks (ids) or where (what they are like), and pool, people or priority."""
        # Safe to repeat: what was moved already is found where it is.
        return self._call("POST", f"projects/{part(slug)}/tasks/assign/", json=fields, repeatable=True)

    def pools(self, slug: str) -> Iterator[JSON]:
        return self._pages(f"projects/{part(slug)}/pools/")

    def create_pool(self, slug: str, name: str, **fields: Any) -> JSON:
        """Make a pool; `fields` are languages and skills that are needed, or people by name."""
        return self._call("POST", f"projects/{part(slug)}/pools/", json={"name": name, **fields})

    def lease(self, slug: str) -> Lease | None:
        """The next task for the caller, or None when there is nothing for them."""
        # Safe to repeat: a lease whose answer got lost runs out by itself.
        return self._call("POST", f"projects/{part(slug)}/leases/", repeatable=True)

    def save_draft(self, lease_id: str, draft: Mapping[str, Any]) -> JSON | None:
        return self._call("PUT", f"leases/{part(lease_id)}/draft/", json=draft)

    def renew(self, lease_id: str) -> JSON | None:
        return self._call("POST", f"leases/{part(lease_id)}/renew/", repeatable=True)

    def skip(self, lease_id: str, reason: str = "", note: str = "") -> JSON | None:
        """Give a task back. `reason` is one of the site's (needs_expert, not_rankable, ...) or words of one's own."""
        return self._call("POST", f"leases/{part(lease_id)}/skip/", json={"reason": reason, "note": note})

    def report(self, lease_id: str, reason: str, note: str = "") -> JSON | None:
        """Tell the leads that something is wrong with the prompt of a task. The task stays with the caller."""
        # Safe to repeat: a second report by the same person takes the place of the first.
        return self._call(
            "POST", f"leases/{part(lease_id)}/report/", json={"reason": reason, "note": note}, repeatable=True
        )

    def submit(self, lease_id: str, judgement: Judgement | JSON, key: str | None = None, next: bool = False) -> JSON:
        """Submit a judgement; with `next`, the answer holds "next_lease" (a lease or None).

        All tries of one call send the same `key`, so that the judgement is recorded once. Pass the same key
        again after a ConnectionFailed. An answer with "surplus": true came too late to count for the task.
        """
        return self._call(
            "POST",
            f"leases/{part(lease_id)}/judgement/",
            params={"next": "1"} if next else None,
            json=judgement,
            headers={"Idempotency-Key": key or str(uuid.uuid4())},
            repeatable=True,
        )

    def judgements(self, slug: str, **filters: str) -> Iterator[JSON]:
        return self._pages(f"projects/{part(slug)}/judgements/", filters)

    def pull_judgements(
        self, slug: str, path: str | PathLike[str], *, report: Callable[[int], None] = lambda n: None, **filters: str
    ) -> int:
        """Write the judgements that stand to a file of JSON lines, newest first, and return how many.

        The file gets its name when it is whole. `report` gets how many are written.
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(target.name + ".part")
        n = 0
        with unfinished.open("w", encoding="utf-8") as file:
            for judgement in self.judgements(slug, **{"page_size": "1000", **filters}):
                file.write(json.dumps(judgement, ensure_ascii=False) + "\n")
                n += 1
                report(n)
        unfinished.replace(target)
        return n

    def revise(self, judgement_id: str, judgement: Judgement | JSON) -> JSON:
        return self._call("POST", f"judgements/{part(judgement_id)}/revision/", json=judgement)
