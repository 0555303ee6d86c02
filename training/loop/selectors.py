"""What a person may see of iterations, and how far each is."""

from dataclasses import dataclass
from typing import Any

from django.db.models import Count, QuerySet

from labeling.accounts.models import User
from labeling.accounts.roles import READING
from labeling.annotation.models import Judgement, Slot, Task
from labeling.projects.models import Completion
from labeling.projects.selectors import projects_of
from labeling.quality.statistics import wilson_interval
from training.loop.models import Iteration


def iterations_visible_to(user: User) -> QuerySet[Iteration]:
    """Iterations of the projects whose console the person reads."""
    return Iteration.objects.filter(project__in=projects_of(user, roles=READING)).select_related(
        "project", "snapshot", "policy_before", "policy_after", "reward_model", "sample_run", "reward_run",
        "policy_run", "baseline_run", "resample_run",
    )  # fmt: skip


@dataclass(frozen=True)
class Collected:
    """Judgements of one iteration's tasks: how many are wanted and how many there are."""

    n_tasks: int
    n_slots: int
    n_done: int


def collected(iteration: Iteration, purpose: str = Task.Purpose.PREFERENCE) -> Collected:
    slots = Slot.objects.filter(
        project=iteration.project_id, task__iteration=iteration.number, task__purpose=purpose
    ).exclude(task__state=Task.State.CLOSED).exclude(state=Slot.State.VOID)
    by_state = dict(slots.values_list("state").annotate(n=Count("pk")))
    return Collected(slots.values("task").distinct().count(), sum(by_state.values()), by_state.get(Slot.State.DONE, 0))


def win_rate(iteration: Iteration, *, tag: str | None = None, kinds: list[str] | None = None) -> dict[str, Any]:
    """How often the new policy's completion is ranked above the old one's in the comparison tasks.

    Each task (one prompt) counts once: the mean over its judgements of win 1, tie 1/2, loss 0. `tag` keeps
    prompts that carry it, `kinds` keeps kinds of annotator. The interval is Wilson's at 95 % with n = tasks, which
    is on the wide side where there are ties, since a share with ties varies less than a coin.
    """
    empty = {"value": None, "low": None, "high": None, "n": 0, "method": "no comparison judged yet"}
    if iteration.policy_after is None:
        return empty
    judgements = Judgement.objects.current().filter(
        project=iteration.project_id, task__iteration=iteration.number,
        task__purpose=Task.Purpose.EVALUATION, slot__isnull=False,
    ).exclude(slot__state=Slot.State.VOID).select_related("task__prompt")  # fmt: skip
    if kinds:
        judgements = judgements.filter(annotator_kind__in=kinds)
    completions = Completion.objects.filter(
        tasks__project=iteration.project_id, tasks__iteration=iteration.number,
        tasks__purpose=Task.Purpose.EVALUATION,
    )  # fmt: skip
    model_of = dict(completions.values_list("pk", "model_key"))
    by_task: dict[int, list[float]] = {}
    counts = {"wins": 0, "ties": 0, "losses": 0}
    for judgement in judgements:
        if tag and tag not in judgement.task.prompt.tags:
            continue
        rank = {pk: place for place, group in enumerate(judgement.ranking) for pk in group}
        new = [rank[pk] for pk in rank if model_of.get(pk) == iteration.policy_after.key]
        old = [rank[pk] for pk in rank if model_of.get(pk) == iteration.policy_before.key]
        if not new or not old:
            continue
        outcome = (new[0] < old[0]) - (new[0] > old[0])
        counts["wins" if outcome > 0 else "losses" if outcome < 0 else "ties"] += 1
        by_task.setdefault(judgement.task_id, []).append((outcome + 1) / 2)
    if not by_task:
        return empty
    n = len(by_task)
    value = sum(sum(scores) / len(scores) for scores in by_task.values()) / n
    low, high = wilson_interval(value * n, n)
    return {"value": value, "low": low, "high": high, "n": n, **counts, "method": "Wilson, 95 %, one prompt once"}
