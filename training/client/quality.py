"""Agreement, gold tasks and what reviewers settle."""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from training.client._connection import JSON, Connection, part


class QualityCalls(Connection):
    def quality(self, slug: str) -> JSON:
        return self._call("GET", f"projects/{part(slug)}/quality/")

    def consensus(self, slug: str, task: str | None = None) -> Iterator[JSON]:
        """What annotators hold together of each ranked task, or what a reviewer settled; of one `task` if it is named."""
        return self._pages(f"projects/{part(slug)}/consensus/", {"task": task} if task else {})

    def gold_tasks(self, slug: str) -> Iterator[JSON]:
        return self._pages(f"projects/{part(slug)}/gold/")

    def create_gold(self, slug: str, **fields: Any) -> JSON:
        """Of `task`, which is promoted; of `prompt` and `completions` by ids; or of `text` and `texts` written for it.

        The latter two need `expected`, completions by the keys a, b, ... in the order given; `explanation` may be added.
        """
        return self._call("POST", f"projects/{part(slug)}/gold/", json=fields)

    def change_gold(self, gold_id: str, **fields: Any) -> JSON:
        """Change `expected` or `explanation`; `retired` takes it out of use or back."""
        return self._call("PATCH", f"gold/{part(gold_id)}/", json=fields)

    def gold_candidates(self, slug: str) -> list[JSON]:
        """Tasks that three people or more ranked alike."""
        return self._call("GET", f"projects/{part(slug)}/gold/candidates/")

    def adjudications(self, slug: str) -> Iterator[JSON]:
        """What reviewers settled, and what stands of it."""
        return self._pages(f"projects/{part(slug)}/adjudications/")

    def task_to_settle(self, task_id: str) -> JSON:
        """A task with the ids of its completions, without votes, and what stands."""
        return self._call("GET", f"tasks/{part(task_id)}/adjudication/")

    def adjudicate(self, task_id: str, outcome: str, *, key: str | None = None, **fields: Any) -> JSON:
        """Settle a task: `ranking` (with `ranking`, ids of completions, best first), `left` or `unfit`.

        All tries of one call send the same `key`, so that it is settled once. ApiError "already_adjudicated" says
        who was first: name theirs in `supersedes` to replace it.
        """
        return self._call(
            "POST",
            f"tasks/{part(task_id)}/adjudication/",
            json={"outcome": outcome, **fields},
            headers={"Idempotency-Key": key or str(uuid.uuid4())},
            repeatable=True,
        )

    def record_contradictions(
        self, slug: str, model_key: str, tasks: Iterable[Mapping[str, Any]], *, calibrated: bool
    ) -> JSON:
        """Send what a model thinks of the order of tasks: `{"task", "pairs": [{"better", "worse", "probability"}]}`.

        At most 1,000 tasks a call. Tasks enter the reviewers' queue only if its probabilities are calibrated.
        """
        # Safe to repeat: of what a model said of a task, the newest counts.
        body = {"model_key": model_key, "calibrated": calibrated, "tasks": list(tasks)}
        return self._call("POST", f"projects/{part(slug)}/contradictions/", json=body, repeatable=True)
