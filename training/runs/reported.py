"""What the report of a reward model asks of its pairs beyond what the loss needs: who said what, shown how, of which prompt."""

from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any

from labeling.annotation.models import Task
from labeling.preferences.compared import Compared, compared_pairs
from labeling.preferences.models import Snapshot
from labeling.preferences.parts import pair_id
from labeling.preferences.views_of_snapshots import rows_to_train_on
from labeling.preferences.views_out.trl import preference

REPORTED = ("reward", "reward_head")  # kinds of run whose result holds a report
BATCH = 500

Row = dict[str, Any]


def rows_to_report_on(snapshot: Snapshot, split: str) -> Iterator[Row]:
    """Rows for the run folder with the columns of the report, as `load_preferences` takes them.

    All but `tags` are as they were frozen; tags are those that the prompts have now.
    """
    found = compared_pairs(snapshot, split)
    while batch := list(islice(found, BATCH)):
        tags = _tags({compared.task for _, compared in batch if compared})
        for pair, compared in batch:
            yield preference(pair) | {"id": pair["id"]} | _reported(pair, compared, tags)


def rows_by_axis(snapshot: Snapshot, split: str, axes: Collection[str]) -> Iterator[Row]:
    """The pairs of these axes that completions were rated on, with the tags that their prompts have now."""
    rows = (row for row in rows_to_train_on(snapshot, "preference_by_axis", split) if row["axis"] in axes)
    while batch := list(islice(rows, BATCH)):
        tags = _tags({row["task"] for row in batch})
        for row in batch:
            yield row | {"tags": tags.get(row["task"])}


def _reported(pair: Row, compared: Compared | None, tags: dict[str, list[str]]) -> Row:
    found = {
        "strength": pair["strength"],
        "iteration": pair["iteration"],
        "votes": [{name: vote[name] for name in ("annotator", "annotator_kind", "choice")} for vote in pair["votes"]],
        "is_settled": "adjudication" in pair,
    }
    if compared is None:
        return found
    found |= {"task": compared.task, "tags": tags.get(compared.task), "chosen_first": compared.shown_first}
    if compared.people is not None:
        found["people"] = dict(zip(("chosen", "rejected", "tie"), compared.people, strict=True))
        found["comparison"] = pair_id(compared.task, *sorted((compared.chosen or "", compared.rejected or "")))
    return found


def _tags(tasks: set[str]) -> dict[str, list[str]]:
    return dict(Task.objects.filter(public_id__in=tasks).values_list("public_id", "prompt__tags"))
