"""Pools: who may be given certain tasks. `Membership.pool_ids` is computed here alone."""

from collections.abc import Collection, Sequence
from typing import Any

from django.db import IntegrityError, transaction

from labeling.accounts.models import User
from labeling.accounts.roles import ANNOTATING
from labeling.annotation.errors import BadPool, PoolInUse
from labeling.annotation.models import Pool, Task
from labeling.annotation.services.assigning import change_tasks
from labeling.live.services import notify
from labeling.projects.errors import BadSkills
from labeling.projects.fitting import alone_with_members
from labeling.projects.models import Membership, Project
from labeling.projects.services import checked_knowledge
from labeling.projects.skills import has_all

MOST_POOLS_OF_ONE = 25  # each that a person fits is looked at when they are given a task
MOST_NAMED = 200
MAX_NAME = 120


def create_pool(
    *,
    project: Project,
    name: str,
    languages: Sequence[str] = (),
    skills: Sequence[str] = (),
    people: Collection[User] = (),
) -> Pool:
    """Make a pool for everyone who has all these languages and skills, or for the people named alone.

    Raises BadPool naming the fields: a name that is taken, nobody and nothing asked for, people together with
    languages or skills, somebody who judges nothing here or would be in too many pools.
    """
    with transaction.atomic():
        alone_with_members(project)
        pool = Pool(project=project)
        _set(pool, name=name, languages=languages, skills=skills, people=people)
        notify(project.live_group, "queue")
    return pool


def change_pool(*, pool: Pool, **changes: Any) -> Pool:
    """Change name, languages, skills or people. Who no longer fits keeps what they hold. Raises BadPool."""
    with transaction.atomic():
        alone_with_members(pool.project)
        pool = Pool.objects.select_related("project").get(pk=pool.pk)
        _set(pool, **changes)
        notify(pool.project.live_group, "queue")
    return pool


def delete_pool(*, pool: Pool) -> None:
    """Take away a pool without tasks. Raises PoolInUse, which says how many there are and what to do."""
    with transaction.atomic():
        alone_with_members(pool.project)
        _refuse_in_use(pool)
        # Members first: whoever waits for one of them may hold what the deletion waits for.
        refit_members(pool.project, without=pool)
        try:
            with transaction.atomic():
                pool.people.clear()
                Pool.objects.filter(pk=pool.pk).delete()
        except IntegrityError:
            _refuse_in_use(pool)
            raise
        notify(pool.project.live_group, "queue")


def empty_and_delete_pool(*, pool: Pool, to: Pool | None) -> int:
    """Move all tasks of the pool to another, or to everyone, and delete it. Returns how many were moved."""
    if to == pool:
        raise BadPool({"move_to": "is the pool itself"})
    moved = change_tasks(project=pool.project, tasks=Task.objects.filter(pool=pool), pool=to)
    delete_pool(pool=pool)
    return moved


def pool_of_people(*, project: Project, people: Collection[User]) -> Pool:
    """The pool of exactly these people, made where there is none. Raises BadPool."""
    ids = {person.pk for person in people}
    with transaction.atomic():
        alone_with_members(project)
        of_one = Pool.objects.filter(project=project, is_named=True, people=min(ids, default=0)).order_by("pk")
        for pool in of_one.prefetch_related("people"):
            if {person.pk for person in pool.people.all()} == ids:
                return pool
        return create_pool(project=project, name=_free_name(project, people), people=people)


def refit_members(
    project: Project, user_ids: Collection[int] | None = None, *, without: Pool | None = None
) -> None:
    """Note anew which pools the members (all, or these) fit. In the transaction in which either changed.

    Named pools come first, then those that ask for most: what few can do is done by them first. It depends on no
    state, for whether somebody is paused is asked when they are given a task. Raises BadSkills.
    """
    pools = list(Pool.objects.filter(project=project).exclude(pk=without.pk if without else None))
    named: dict[int, set[int]] = {}
    people = Pool.people.through.objects.filter(pool__project=project)
    for pool_id, user_id in people.values_list("pool_id", "user_id"):
        named.setdefault(pool_id, set()).add(user_id)
    pools.sort(key=lambda pool: (not pool.is_named, -len(pool.languages) - len(pool.skills), pool.pk))
    members = Membership.objects.filter(project=project)
    if user_ids is not None:
        members = members.filter(user__in=user_ids)
    changed = []
    for member in members.only("user_id", "role", "languages", "skills", "pool_ids"):
        fits = [pool.pk for pool in pools if _fits(member, pool, named.get(pool.pk, set()))]
        if len(fits) > MOST_POOLS_OF_ONE:
            name = User.objects.get(pk=member.user_id).username
            raise BadSkills({
                "skills": f"{name} would fit {len(fits)} pools, and a person can fit {MOST_POOLS_OF_ONE}: "
                "delete pools that are done with"
            })  # fmt: skip
        if fits != member.pool_ids:
            member.pool_ids = fits
            changed.append(member)
    changed.sort(key=lambda member: member.pk)
    Membership.objects.bulk_update(changed, ["pool_ids"], batch_size=500)


def _fits(member: Membership, pool: Pool, named: set[int]) -> bool:
    if member.role not in ANNOTATING:
        return False
    if pool.is_named:
        return member.user_id in named
    return has_all(languages=member.languages, skills=member.skills, of=pool)


def _set(
    pool: Pool,
    *,
    name: str | None = None,
    languages: Sequence[str] | None = None,
    skills: Sequence[str] | None = None,
    people: Collection[User] | None = None,
) -> None:
    """In a transaction; members too."""
    try:
        for field, value in checked_knowledge(languages=languages, skills=skills).items():
            setattr(pool, field, value)
    except BadSkills as error:
        raise BadPool(error.fields) from None
    if name is not None:
        pool.name = _checked_name(pool, name)
    if people is not None:
        _refuse_people(pool.project, people)
        pool.is_named = bool(people)
    if pool.is_named and (pool.languages or pool.skills):
        raise BadPool({"people": "are named, so languages and skills play no part: give one or the other"})
    if not (pool.is_named or pool.languages or pool.skills):
        raise BadPool({"languages": "Say which languages or skills are needed, or name people"})
    pool.save()
    if people is not None:
        pool.people.set(people)
    try:
        refit_members(pool.project)
    except BadSkills as error:
        raise BadPool({"people" if pool.is_named else "skills": error.fields["skills"]}) from None


def _checked_name(pool: Pool, name: str) -> str:
    name = " ".join(name.split())
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise BadPool({"name": f"must be a text of 1 to {MAX_NAME} characters"})
    if Pool.objects.filter(project=pool.project_id, name=name).exclude(pk=pool.pk).exists():
        raise BadPool({"name": f"There is a pool {name!r} in this project already"})
    return name


def _refuse_people(project: Project, people: Collection[User]) -> None:
    if len(people) > MOST_NAMED:
        raise BadPool({"people": f"are {len(people)}: at most {MOST_NAMED} can be named; ask for a skill instead"})
    roles = dict(Membership.objects.filter(project=project, user__in=people).values_list("user_id", "role"))
    for person in people:
        if person.pk not in roles:
            raise BadPool({"people": f"{person.username} is not a member of this project"})
        if roles[person.pk] not in ANNOTATING:
            raise BadPool({"people": f"{person.username} judges nothing here: their role is {roles[person.pk]}"})


def _free_name(project: Project, people: Collection[User]) -> str:
    names = sorted(person.username for person in people)
    name = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    name, number = name[: MAX_NAME - 8], 1
    taken = set(Pool.objects.filter(project=project, name__startswith=name).values_list("name", flat=True))
    while (free := name if number == 1 else f"{name} ({number})") in taken:
        number += 1
    return free


def _refuse_in_use(pool: Pool) -> None:
    tasks = Task.objects.filter(pool=pool)
    if n := tasks.count():
        n_open = tasks.filter(state=Task.State.OPEN).count()
        raise PoolInUse(
            f"{n:,} task{' is' if n == 1 else 's are'} in the pool {pool.name!r}, {n_open:,} of them open: "
            "move them to another pool or to everyone first"
        )
