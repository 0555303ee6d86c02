"""Judging by the order of completion ids, for tests of what people differ on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labeling.annotation.selectors import keys_of
from labeling.annotation.services import submit_judgement, take_lease

if TYPE_CHECKING:
    from labeling.accounts.models import User
    from labeling.annotation.models import Judgement, Task
    from labeling.projects.models import Project


def completion_ids(task: Task) -> list[int]:
    return sorted(task.completions.values_list("pk", flat=True))


def judge(project: Project, annotator: User, places: list[list[int]], **parts: Any) -> Judgement:
    """The annotator's next task, ranked: `[[2], [0, 1]]` puts its third completion first and ties the others.

    Other parts name completions by place: `ratings={0: {"tone": 4}}`.
    """
    lease = take_lease(project=project, annotator=annotator)
    assert lease is not None
    keys = {pk: key for key, pk in keys_of(lease.order_shown).items()}
    by_place = [keys[pk] for pk in sorted(lease.order_shown)]
    body: dict[str, Any] = {"seconds": 5.0}
    if places:
        body["ranking"] = [[by_place[place] for place in group] for group in places]
    for name, value in parts.items():
        body[name] = {by_place[place]: said for place, said in value.items()} if isinstance(value, dict) else value
    return submit_judgement(lease=lease, submission_key=f"{annotator.pk}-{lease.pk}", body=body).judgement
