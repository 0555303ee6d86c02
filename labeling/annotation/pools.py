"""Who could be given which tasks, and choosing tasks by what is known of them."""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet, Sum

from labeling.accounts.roles import ANNOTATING
from labeling.annotation.models import Pool, Slot, Task
from labeling.projects.models import Membership, Project

ANY: Any = object()  # of a pool, where None is everyone


@dataclass(frozen=True)
class PoolFigures:
    """How many people a pool has at work, and what of its tasks is open.

    `n_beyond`: open tasks that want more judgements, each by another person, than there are people.
    """

    n_people: int
    n_open: int = 0
    n_wanted: int = 0
    n_beyond: int = 0

    @property
    def warning(self) -> str:
        if not self.n_beyond:
            return ""
        is_one = self.n_beyond == 1
        tasks = "one open task" if is_one else f"{self.n_beyond:,} open tasks"
        if not self.n_people:
            return f"Nobody in this project can be given the {tasks}"
        people = "the one person who fits" if self.n_people == 1 else f"the {self.n_people:,} people who fit"
        return f"{tasks} want{'s' if is_one else ''} judgements by more than {people}"


def figures_of_pools(project: Project) -> dict[int | None, PoolFigures]:
    """By id of the pool; None: everyone. Two queries, whatever there is of either."""
    people: Counter[int | None] = Counter({None: 0})
    for pool_ids in _at_work(project).values_list("pool_ids", flat=True):
        people.update([None, *pool_ids])
    tasks = (
        assignable_tasks(project)
        .filter(state=Task.State.OPEN)
        .order_by()
        .values_list("pool", "overlap")
        .annotate(n=Count("pk"), wanted=Sum(F("overlap") - F("n_judged")))
    )
    n_open: Counter[int | None] = Counter()
    n_wanted: Counter[int | None] = Counter()
    n_beyond: Counter[int | None] = Counter()
    for pool, overlap, n, wanted in tasks:
        n_open[pool] += n
        n_wanted[pool] += wanted
        n_beyond[pool] += n if overlap > people[pool] else 0
    return {
        pool: PoolFigures(people[pool], n_open[pool], n_wanted[pool], n_beyond[pool])
        for pool in {None, *people, *n_open}
    }


def people_of_pool(pool: Pool) -> list[tuple[int, str]]:
    """Members at work who fit: id and name of each account, by name."""
    found = _at_work(pool.project).order_by("user__username").values_list("user", "user__username", "pool_ids")
    return [(user_id, name) for user_id, name, pool_ids in found if pool.pk in pool_ids]


def _at_work(project: Project) -> QuerySet[Membership]:
    """Those whom the queue gives tasks."""
    return project.memberships.filter(role__in=ANNOTATING, state=Membership.State.ACTIVE, user__is_active=True)


def assignable_tasks(project: Project) -> QuerySet[Task]:
    """What the queue hands out: not what checks annotators, nor turns of conversations."""
    found = Task.objects.filter(project=project, purpose__in=Task.COLLECTED)
    return found.exclude(kind=Task.CONVERSATION)


def tasks_like(
    project: Project,
    *,
    state: str = "",
    pool: Pool | None = ANY,
    tag: str = "",
    iteration: int | None = None,
    batch: int | None = None,
) -> QuerySet[Task]:
    """Assignable tasks of this state, pool (None: everyone), tag of the prompt, iteration and import of the prompt."""
    found = assignable_tasks(project)
    if state:
        found = found.filter(state=state)
    if pool is not ANY:
        found = found.filter(pool=pool)
    if tag:
        # As JSON, with its quotes: the tag as a whole. SQLite keeps it with escapes, PostgreSQL without.
        found = found.filter(
            Q(prompt__tags__icontains=json.dumps(tag)) | Q(prompt__tags__icontains=json.dumps(tag, ensure_ascii=False))
        )
    if iteration is not None:
        found = found.filter(iteration=iteration)
    return found if batch is None else found.filter(prompt__batch=batch)


def waits_for_others(member: Membership) -> bool:
    """Whether tasks are free that this person can't be given, for want of languages or skills, or for being others'."""
    free = Slot.objects.filter(project=member.project_id, pool=OuterRef("pk"), state=Slot.State.FREE, position__isnull=False)
    others = Pool.objects.filter(project=member.project_id).exclude(pk__in=member.pool_ids)
    return others.filter(Exists(free)).exists()
