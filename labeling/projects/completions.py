"""Completions in from a sampling run."""

from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from labeling.live.services import notify
from labeling.projects.models import Completion, Project
from labeling.projects.text import sha256

BATCH_ROWS = 500


def store_completions(*, project: Project, model_key: str, path: Path, facts: dict[str, Any]) -> tuple[int, int]:
    """Take rows `{"prompt_id", "content", "sampling", ...}` of a file into the project.

    `facts` join each row's sampling parameters, so that a completion knows its run. The same text of the same
    model for the same prompt is one completion. Returns (new, there already).
    """
    prompt_ids = set(project.prompts.values_list("pk", flat=True))
    new = there = 0
    with open(path, "rb") as file:
        while lines := list(islice(file, BATCH_ROWS)):
            wanted = {}
            for row in map(orjson.loads, lines):
                # A model may say anything; a database refuses NUL.
                row["content"] = row["content"].replace("\x00", "\ufffd")
                prompt_id = int(row["prompt_id"])
                if prompt_id in prompt_ids and row["content"].strip():
                    facts_of_row = {
                        "n_tokens": row.get("n_tokens"),
                        "finished": row.get("finished"),
                        "index": row.get("index"),
                    }
                    wanted.setdefault(
                        (prompt_id, sha256(row["content"])),
                        (row["content"], {**row.get("sampling", {}), **facts_of_row, **facts}),
                    )
            known = set(
                Completion.objects.filter(
                    prompt__in={prompt_id for prompt_id, _ in wanted}, model_key=model_key
                ).values_list("prompt_id", "content_hash")
            )
            fresh = {key: value for key, value in wanted.items() if key not in known}
            Completion.objects.bulk_create(
                [
                    Completion(
                        prompt_id=prompt_id,
                        content=content,
                        content_hash=digest,
                        model_key=model_key,
                        sampling=sampling,
                    )
                    for (prompt_id, digest), (content, sampling) in fresh.items()
                ],
                ignore_conflicts=True,
            )
            new += len(fresh)
            there += len(lines) - len(fresh)
    notify(project.live_group, "completions", new=new)
    return new, there
