"""Rows of `votes`, task by task, with what was frozen or is known of their prompts."""

from collections.abc import Iterator
from itertools import groupby, islice

from labeling.annotation.models import Task
from labeling.preferences.models import Snapshot
from labeling.preferences.views_out.columns import Row

BATCH_TASKS = 500


def by_task(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """The votes on each task, which lie together in the file."""
    return (list(votes) for _, votes in groupby(rows, key=lambda row: row["task"]))


def with_origins(snapshot: Snapshot, rows: Iterator[Row]) -> Iterator[tuple[list[Row], Row]]:
    """The votes on each task, and the group and licence of its prompt.

    Both are frozen with the votes; of snapshots that are older than that the database tells them.
    """
    tasks = by_task(rows)
    while batch := list(islice(tasks, BATCH_TASKS)):
        unknown = [votes[0]["task"] for votes in batch if "group_id" not in votes[0]]
        known = _of_the_database(snapshot, unknown) if unknown else {}
        for votes in batch:
            first = votes[0]
            if "group_id" in first:
                yield votes, {"group_id": first["group_id"], "licence": first["licence"]}
            else:
                yield votes, known.get(first["task"], {"group_id": None, "licence": None})


def _of_the_database(snapshot: Snapshot, tasks: list[str]) -> dict[str, Row]:
    found = Task.objects.filter(project=snapshot.project_id, public_id__in=tasks)
    return {
        public_id: {"group_id": group_id, "licence": licence or None}
        for public_id, group_id, licence in found.values_list("public_id", "prompt__group_id", "prompt__licence")
    }
