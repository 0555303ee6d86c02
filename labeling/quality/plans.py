"""What making tasks would come to, counted before it is done."""

from dataclasses import dataclass

from django.db.models import Count, Exists, OuterRef, Q, Sum
from django.db.models.functions import Coalesce

from labeling.annotation.models import Task
from labeling.annotation.selectors import prompts_for_data
from labeling.projects.feedback import least_completions
from labeling.projects.models import Project
from labeling.web.remembering import remembered


@dataclass(frozen=True)
class Plan:
    """`n_tasks` is exact over prompts that have no task; over all it is the most that can be made."""

    n_prompts: int
    n_bare: int
    n_tasks: int
    needed: int
    overlap: int
    completions_per_task: int
    is_over_all: bool

    @property
    def n_judgements(self) -> int:
        return self.n_tasks * self.overlap


def plan_tasks(
    *, project: Project, completions_per_task: int, overlap: int, which: str, n_tasks_there: int = 0
) -> Plan:
    """Count as `create_tasks_for_prompts` would. One query; where many tasks are there already, some seconds old."""
    needed = min(completions_per_task, max(least_completions(project.form), 2))
    prompts = prompts_for_data(project)
    if which == "new":
        prompts = prompts.filter(~Exists(Task.objects.filter(prompt=OuterRef("pk"))))
    if not needed:
        n_ready, n_bare, n_tasks = (n := prompts.count()), 0, n
    else:
        # Equal texts are one choice.
        counted = prompts.annotate(n=Count("completions__content_hash", distinct=True))
        found = remembered(
            f"plan:{project.pk}:{which}:{needed}",
            lambda: counted.aggregate(
                ready=Count("pk", filter=Q(n__gte=needed)),
                bare=Count("pk", filter=Q(n__lt=needed)),
                texts=Coalesce(Sum("n"), 0),
            ),
            n=n_tasks_there,
        )
        n_ready, n_bare = found["ready"], found["bare"]
        n_tasks = found["texts"] if completions_per_task == 1 else n_ready
    return Plan(n_ready, n_bare, n_tasks, needed, overlap, completions_per_task, which == "all")
