"""Consent to training, its withdrawal, and what a withdrawal touches.

What is withdrawn is never deleted: snapshots frozen from then on leave it out, and those that hold it say so, as do the
models made of them.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.utils.timezone import now

from labeling.accounts.models import User
from labeling.accounts.roles import READING
from labeling.annotation.models import Judgement, Task, TaskCompletion
from labeling.annotation.services import close_tasks_of, reopen_tasks
from labeling.live.services import notify
from labeling.preferences.contents import contents_of, is_in
from labeling.preferences.errors import NotUndone
from labeling.preferences.models import Snapshot, Withdrawal
from labeling.projects.models import Membership, Project, Prompt
from labeling.projects.selectors import projects_of

THEIRS = "They took their judgements back themselves: only they can give them again"


# --- what stands --------------------------------------------------------------------------------
def withdrawals_visible_to(user: User) -> QuerySet[Withdrawal]:
    """Of the projects whose console the person reads."""
    found = Withdrawal.objects.filter(project__in=projects_of(user, roles=READING))
    return found.select_related("project", "annotator", "prompt", "by", "undone_by")


def standing_withdrawal(project: Project, *, annotator: User | None = None, prompt: Prompt | None = None) -> Withdrawal | None:
    """The one that stands of this person, or of this prompt."""
    found = Withdrawal.objects.filter(project=project, undone_at=None).select_related("by")
    return (found.filter(annotator=annotator) if annotator else found.filter(prompt=prompt)).first()


@dataclass(frozen=True)
class Held:
    """How much a snapshot holds of what was withdrawn since; each judgement counts once, for the first that holds.

    `n_by_people`: of those who withdrew. `n_on_prompts`: on removed prompts. `n_on_texts`: of others, over completions
    that somebody who withdrew wrote.
    """

    n_by_people: int
    n_people: int
    n_on_prompts: int
    n_prompts: int
    n_on_texts: int

    @property
    def n_judgements(self) -> int:
        return self.n_by_people + self.n_on_prompts + self.n_on_texts

    def __str__(self) -> str:
        """As in “12 judgements of 2 people and 3 judgements on 1 removed prompt”."""
        parts = []
        if self.n_by_people:
            parts.append(f"{_counted(self.n_by_people, 'judgement')} of {_counted(self.n_people, 'person', 'people')}")
        if self.n_on_prompts:
            of = _counted(self.n_prompts, "removed prompt")
            parts.append(f"{_counted(self.n_on_prompts, 'judgement')} on {of}")
        if self.n_on_texts:
            parts.append(f"{_counted(self.n_on_texts, 'judgement')} of others on texts written by who withdrew")
        return " and ".join(parts)


def _counted(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def withdrawn_rows_in(snapshots: Iterable[Snapshot]) -> dict[int, Held]:
    """Of those snapshots that hold rows withdrawn since, by id, how many. One query where nothing is withdrawn."""
    by_project: dict[int, list[Snapshot]] = {}
    for snapshot in snapshots:
        by_project.setdefault(snapshot.project_id, []).append(snapshot)
    standing: dict[int, list[tuple[int | None, int | None]]] = {}
    rows = Withdrawal.objects.filter(project__in=by_project, undone_at=None)
    for project, annotator, prompt in rows.values_list("project", "annotator", "prompt") if by_project else ():
        standing.setdefault(project, []).append((annotator, prompt))
    held: dict[int, Held] = {}
    for project, withdrawn in standing.items():
        people = [annotator for annotator, _ in withdrawn if annotator]
        prompts = [prompt for _, prompt in withdrawn if prompt]
        of_others = Judgement.objects.filter(project=project).exclude(annotator__in=people)
        on_prompts, prompt_of = _columns(of_others.filter(task__prompt__in=prompts), bool(prompts))
        over_texts = of_others.filter(task__in=_over_texts_of(people)).exclude(task__prompt__in=prompts)
        on_texts, _ = _columns(over_texts, bool(people))
        for snapshot in by_project[project]:
            contents = contents_of(snapshot)
            theirs = [n for pk in people if (n := contents.people.get(pk))]
            there = prompt_of[is_in(on_prompts, contents.judgements)]
            n_on_texts = int(is_in(on_texts, contents.judgements).sum())
            if theirs or len(there) or n_on_texts:
                held[snapshot.pk] = Held(sum(theirs), len(theirs), len(there), len(numpy.unique(there)), n_on_texts)
    return held


def _over_texts_of(people: Collection[int]) -> QuerySet[TaskCompletion, int]:
    """Tasks that show a completion which one of these people wrote."""
    return TaskCompletion.objects.filter(completion__author__in=people).values("task")


def _columns(judgements: QuerySet[Judgement], are_there: bool = True) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Ids of the judgements, and the prompt of each."""
    rows = list(judgements.values_list("pk", "task__prompt")) if are_there else []
    columns = numpy.array(rows, dtype=numpy.uint64).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


# --- what a withdrawal touches ------------------------------------------------------------------
@dataclass(frozen=True)
class Touched:
    """A snapshot that holds what is to be withdrawn, and the models that were made of it, at once or by way of others.

    `n_on_texts`: judgements of others over completions that the person wrote.
    """

    snapshot: Snapshot
    n_judgements: int
    n_on_texts: int
    models: list[Any] = field(default_factory=list)


def touched_by(*, project: Project, annotator: User | None = None, prompt: Prompt | None = None) -> list[Touched]:
    """The snapshots that hold judgements of this person, or on this prompt, the newest first."""
    snapshots = list(project.snapshots.defer("manifest").order_by("-number"))
    judged = Judgement.objects.filter(project=project)
    if annotator is not None:
        own = {snapshot.pk: contents_of(snapshot).people.get(annotator.pk, 0) for snapshot in snapshots}
        others, _ = _columns(judged.filter(task__in=_over_texts_of([annotator.pk])).exclude(annotator=annotator))
    else:
        on_prompt, _ = _columns(judged.filter(task__prompt=prompt))
        own = {snapshot.pk: _n_held(on_prompt, snapshot) for snapshot in snapshots}
        others = on_prompt[:0]
    on_texts = {snapshot.pk: _n_held(others, snapshot) if len(others) else 0 for snapshot in snapshots}
    holding = [snapshot for snapshot in snapshots if own[snapshot.pk] or on_texts[snapshot.pk]]
    models = models_made_of(holding)
    return [Touched(found, own[found.pk], on_texts[found.pk], models[found.pk]) for found in holding]


def _n_held(judgements: numpy.ndarray, snapshot: Snapshot) -> int:
    return int(is_in(judgements, contents_of(snapshot).judgements).sum())


def models_made_of(snapshots: Collection[Snapshot]) -> dict[int, list[Any]]:
    """By snapshot, the models that runs made of it, and whatever was made of these since, the oldest first.

    All by reverse relations: models and runs belong to apps above this one.
    """
    first: dict[int, set[int]] = {snapshot.pk: set() for snapshot in snapshots}
    known: dict[int, Any] = {}
    for snapshot in Snapshot.objects.filter(pk__in=first).prefetch_related("models", "runs__output_model"):
        made = [*snapshot.models.all(), *(run.output_model for run in snapshot.runs.all() if run.output_model)]
        known |= {model.pk: model for model in made}
        first[snapshot.pk] = {model.pk for model in made}
    children: dict[int, set[int]] = {}
    frontier = set(known)
    while frontier:
        models = type(next(iter(known.values()))).objects
        of_frontier = Q(parent__in=frontier) | Q(base__in=frontier) | Q(made_by__model__in=frontier)
        of_frontier |= Q(made_by__reward_models__in=frontier) | Q(made_by__other_model__in=frontier)
        sources_of = ("parent", "base", "made_by__model", "made_by__reward_models", "made_by__other_model")
        edges = models.filter(of_frontier).values_list("pk", *sources_of).distinct()
        for pk, *sources in edges:
            for source in frontier.intersection(sources):
                children.setdefault(source, set()).add(pk)
        frontier = {pk for source in frontier for pk in children.get(source, ())} - known.keys()
        known |= models.in_bulk(frontier)
    return {snapshot: [known[pk] for pk in sorted(_reached(made, children))] for snapshot, made in first.items()}


def _reached(starts: Collection[int], children: dict[int, set[int]]) -> set[int]:
    found, frontier = set(starts), set(starts)
    while frontier:
        frontier = {pk for source in frontier for pk in children.get(source, ())} - found
        found |= frontier
    return found


# --- recording ----------------------------------------------------------------------------------
def give_consent(*, membership: Membership, by: User) -> None:
    """The person agrees that models are trained on their judgements here; or a lead records that they did.

    Their own agreement undoes their own withdrawal, not a lead's. Raises NotUndone where a lead would answer for somebody
    who took back theirs.
    """
    user = membership.user_id
    with transaction.atomic():
        own = Withdrawal.objects.filter(project=membership.project_id, annotator=user, by=user, undone_at=None)
        if by.pk != user and own.exists():
            raise NotUndone(THEIRS)
        own.update(undone_at=now(), undone_by=by)
        Membership.objects.filter(pk=membership.pk).update(consent=Membership.Consent.GIVEN, consent_at=now())
        notify(membership.project.live_group, "withdrawal")


def withdraw_person(*, project: Project, annotator: User, by: User, reason: str = "") -> tuple[Withdrawal, bool]:
    """Take a person's judgements of the project out of training, those to come as well. The person may do so themselves.

    Returns the withdrawal that stands, and whether it is new.
    """
    with transaction.atomic():
        Membership.objects.filter(project=project, user=annotator).update(consent="", consent_at=None)
        return _record(project, by, reason, annotator=annotator)


def remove_prompt(*, project: Project, prompt: Prompt, by: User, reason: str = "") -> tuple[Withdrawal, bool]:
    """Take a prompt and all that was said on it out of training; its open tasks are handed out no more.

    Returns the withdrawal that stands, and whether it is new.
    """
    with transaction.atomic():
        withdrawal, is_new = _record(project, by, reason, prompt=prompt)
        if is_new:
            open_tasks = Task.objects.filter(prompt=prompt, state=Task.State.OPEN)
            withdrawal.closed_tasks = list(open_tasks.values_list("pk", flat=True))
            withdrawal.save(update_fields=["closed_tasks"])
            close_tasks_of(prompt=prompt)
        return withdrawal, is_new


def _record(project: Project, by: User, reason: str, **what: Any) -> tuple[Withdrawal, bool]:
    """The database lets one stand at a time: of two who record at once, the second gets the first's."""
    try:
        with transaction.atomic():
            withdrawal = Withdrawal.objects.create(project=project, by=by, reason=reason, **what)
    except IntegrityError:
        return Withdrawal.objects.get(project=project, undone_at=None, **what), False
    notify(project.live_group, "withdrawal")
    return withdrawal, True


def undo_withdrawal(*, withdrawal: Withdrawal, by: User) -> None:
    """Let the rows into snapshots again, and open the tasks that a prompt's removal closed.

    Raises NotUndone where it is undone already, and where a person withdrew by themselves: only they can agree again.
    """
    if withdrawal.annotator_id is not None and withdrawal.annotator_id == withdrawal.by_id != by.pk:
        raise NotUndone(THEIRS)
    with transaction.atomic():
        standing = Withdrawal.objects.filter(pk=withdrawal.pk, undone_at=None)
        if not standing.update(undone_at=now(), undone_by=by):
            raise NotUndone("This withdrawal is undone already")
        reopen_tasks(project=withdrawal.project, task_ids=withdrawal.closed_tasks)
        notify(withdrawal.project.live_group, "withdrawal")
