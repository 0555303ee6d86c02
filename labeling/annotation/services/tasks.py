"""Making tasks, each with a slot for every judgement that it wants."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db import transaction

from labeling.annotation.errors import BadTasks
from labeling.annotation.models import Pool, Slot, Task, TaskCompletion
from labeling.annotation.queue import MOST_PRIORITY, position_of, reopen_queue
from labeling.annotation.selectors import prompts_for_gold, prompts_removed
from labeling.database.planner import after_many_new_rows
from labeling.live.services import notify
from labeling.projects.feedback import least_completions
from labeling.projects.models import Completion, Project, Prompt
from labeling.projects.text import canonical_json, sha256

MOST_COMPLETIONS = 9


@dataclass(frozen=True)
class NewTask:
    prompt_id: int
    completion_ids: Sequence[int]


def create_tasks(
    *,
    project: Project,
    new_tasks: Iterable[NewTask],
    overlap: int | None = None,
    purpose: str = Task.Purpose.PREFERENCE,
    kind: str = "ranking",
    priority: int = 0,
    iteration: int = 1,
    pool: Pool | None = None,
) -> int:
    """Open tasks, each with its slots; a task that is there already is left alone. Returns how many are new.

    `pool` says who may be given them (default: everyone), `priority` (-1000 to 1000) who goes first in the queue.

    Raises BadTasks for more than 9 completions or fewer than the project's form asks for (2 for a ranking, 1 for
    what is said of a single one, 0 for a demonstration), or an overlap below 1.
    """
    overlap = project.overlap if overlap is None else overlap
    if overlap < 1:
        raise BadTasks("overlap must be at least 1")
    if abs(priority) > MOST_PRIORITY:
        raise BadTasks(f"priority must lie between -{MOST_PRIORITY} and {MOST_PRIORITY}")
    least = least_completions(project.form)
    tasks: dict[str, tuple[Task, Sequence[int]]] = {}
    for new in new_tasks:
        ids = sorted(set(new.completion_ids))
        if not least <= len(ids) <= MOST_COMPLETIONS:
            raise BadTasks(
                f"A task of this project shows {least} to {MOST_COMPLETIONS} completions; "
                f"prompt {new.prompt_id} came with {len(ids)}"
            )
        digest = sha256(canonical_json([new.prompt_id, ids, purpose, iteration]))
        task = Task(
            project=project, prompt_id=new.prompt_id, kind=kind, purpose=purpose, overlap=overlap,
            priority=priority, iteration=iteration, content_hash=digest, pool=pool,
        )  # fmt: skip
        tasks[digest] = (task, ids)
    with transaction.atomic():
        there = set(Task.objects.filter(project=project, content_hash__in=tasks).values_list("content_hash", flat=True))
        fresh = {digest: pair for digest, pair in tasks.items() if digest not in there}
        Task.objects.bulk_create([task for task, _ in fresh.values()], batch_size=500)
        TaskCompletion.objects.bulk_create(
            [TaskCompletion(task=task, completion_id=pk) for task, ids in fresh.values() for pk in ids],
            batch_size=1000,
        )
        Slot.objects.bulk_create(
            [
                Slot(task=task, project=project, pool=pool, number=number, position=position_of(task.pk, priority))
                for task, _ in fresh.values()
                for number in range(1, overlap + 1)
            ],
            batch_size=1000,
        )
        notify(project.live_group, "tasks", new=len(fresh))
        reopen_queue(project)
    after_many_new_rows(len(fresh), Task, TaskCompletion, Slot)
    return len(fresh)


def create_tasks_for_prompts(
    *,
    project: Project,
    prompts: Iterable[Prompt] | None = None,
    completions_per_task: int = 4,
    overlap: int | None = None,
    kind: str = "ranking",
    iteration: int = 1,
    model_keys: Sequence[str] | None = None,
    priority: int = 0,
    pool: Pool | None = None,
) -> tuple[int, int]:
    """Open a task over each of the prompts (default: all that have none), up to `completions_per_task` each.

    With one completion a task, every completion of a prompt gets a task of its own; with none, annotators write
    from nothing. Prompts written for gold tasks alone are passed over, and those that were removed. Returns how many
    tasks are new and how many prompts have too few distinct completions for one.
    """
    least = least_completions(project.form)
    if not least <= completions_per_task <= MOST_COMPLETIONS:
        raise BadTasks(
            f"completions_per_task must lie between {least} and {MOST_COMPLETIONS}: the feedback form of this project "
            f"needs at least {least}"
        )
    if prompts is None:
        prompts = Prompt.objects.filter(project=project, tasks=None)
    not_these = set(prompts_for_gold(project).values_list("pk", flat=True)) | set(prompts_removed(project))
    prompt_ids = [prompt.pk for prompt in prompts if prompt.pk not in not_these]
    by_prompt: dict[int, dict[str, int]] = {pk: {} for pk in prompt_ids}
    for start in range(0, len(prompt_ids) if completions_per_task else 0, 500):
        # What annotators wrote is compared only where somebody asks for it: they would meet their own texts.
        rows = Completion.objects.filter(prompt__in=prompt_ids[start : start + 500], author=None).order_by("pk")
        if model_keys is not None:
            rows = rows.filter(model_key__in=model_keys)
        for prompt_id, digest, pk in rows.values_list("prompt_id", "content_hash", "pk"):
            by_prompt[prompt_id].setdefault(digest, pk)  # equal texts are one choice
    needed = min(completions_per_task, max(least, 2))
    new_tasks = []
    for prompt_id, found in by_prompt.items():
        ids = list(found.values())
        if len(ids) < needed:
            continue
        parts = [[pk] for pk in ids] if completions_per_task == 1 else [ids[:completions_per_task]]
        new_tasks += [NewTask(prompt_id, part) for part in parts]
    made = create_tasks(
        project=project, new_tasks=new_tasks, overlap=overlap, kind=kind, iteration=iteration, priority=priority,
        pool=pool,
    )  # fmt: skip
    return made, len(prompt_ids) - len({new.prompt_id for new in new_tasks})
