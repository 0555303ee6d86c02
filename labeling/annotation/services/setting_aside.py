"""Setting judgements aside: they stay as they are, don't count any more, and are asked of somebody else."""

from collections.abc import Collection
from datetime import datetime

from django.db import IntegrityError, transaction
from django.db.models import Case, Exists, F, Max, OuterRef, Q, QuerySet, Value, When
from django.utils.timezone import now

from labeling.accounts.models import User
from labeling.annotation.errors import NotRestorable
from labeling.annotation.models import Judgement, SetAside, Slot, Task
from labeling.annotation.queue import front_position_of
from labeling.live.services import notify
from labeling.projects.models import Project

CHUNK = 500


def judgements_to_set_aside(
    *, project: Project, annotator: User, since: datetime | None = None, until: datetime | None = None
) -> QuerySet[Judgement]:
    """What `set_aside_judgements` would take, counted from when each was first made.

    Turns of a conversation stay: nobody else can be asked the same again.
    """
    there = SetAside.objects.filter(judgement=OuterRef("pk"), restored_at=None)
    found = Judgement.objects.filter(
        ~Exists(there), project=project, annotator=annotator, supersedes=None, task__purpose__in=Task.COLLECTED
    ).exclude(task__kind=Task.CONVERSATION)
    if since is not None:
        found = found.filter(created_at__gte=since)
    return found if until is None else found.filter(created_at__lte=until)


def set_aside_judgements(
    *,
    project: Project,
    annotator: User,
    reason: str,
    by: User | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    at: datetime | None = None,
) -> int:
    """Let the annotator's judgements of a time not count any more, and put their tasks back at the front of the queue.

    The slot of each becomes void and another one is opened in the same transaction, so a task always has as many
    slots that count as it wants judgements. What is set aside already is left alone. Returns how many are new.
    """
    at = at or now()
    n = 0
    chosen = judgements_to_set_aside(project=project, annotator=annotator, since=since, until=until)
    rows = list(chosen.order_by("pk").values_list("pk", "slot_id"))
    for start in range(0, len(rows), CHUNK):
        by_slot = {slot_id: pk for pk, slot_id in rows[start : start + CHUNK] if slot_id is not None}
        surplus = [pk for pk, slot_id in rows[start : start + CHUNK] if slot_id is None]
        n += _set_aside(by_slot, project=project, reason=reason, by=by, at=at)
        n += _set_surplus_aside(surplus, reason=reason, by=by, at=at)
    if n:
        notify(project.live_group, "queue")
    return n


def _set_aside(by_slot: dict[int, int], *, project: Project, reason: str, by: User | None, at: datetime) -> int:
    """Rows are locked in the order of a submit, slots before tasks, and each kind by id."""
    with transaction.atomic():
        done = Slot.objects.select_for_update(no_key=True).filter(pk__in=by_slot, state=Slot.State.DONE)
        slots = dict(done.order_by("pk").values_list("pk", "task_id"))
        Slot.objects.filter(pk__in=slots).update(state=Slot.State.VOID, position=None)
        tasks = list(Task.objects.select_for_update(no_key=True).filter(pk__in=set(slots.values())).order_by("pk"))
        top = dict(Slot.objects.filter(task__in=tasks).order_by().values_list("task").annotate(top=Max("number")))
        fresh = Slot.objects.bulk_create(
            Slot(
                task=task, project=project, pool_id=task.pool_id, number=top[task.pk] + 1,
                position=None if task.state == Task.State.CLOSED else front_position_of(task.pk, task.priority),
            )
            for task in tasks
        )  # fmt: skip
        Task.objects.filter(pk__in=set(slots.values())).update(
            n_judged=F("n_judged") - 1,
            state=Case(When(state=Task.State.DONE, then=Value(Task.State.OPEN)), default=F("state")),
        )
        replacement = {slot.task_id: slot for slot in fresh}
        SetAside.objects.bulk_create(
            SetAside(
                judgement_id=by_slot[slot_id], replacement=replacement[task_id], reason=reason[:300], by=by, at=at
            )
            for slot_id, task_id in slots.items()
        )  # fmt: skip
    return len(slots)


def _set_surplus_aside(pks: Collection[int], *, reason: str, by: User | None, at: datetime) -> int:
    """Late answers hold no slot, so nothing takes their place."""
    n = 0
    for pk in pks:
        try:
            with transaction.atomic():
                SetAside.objects.create(judgement_id=pk, reason=reason[:300], by=by, at=at)
        except IntegrityError:
            continue  # another request was first
        n += 1
    return n


def restore_judgement(*, set_aside: SetAside, by: User | None, at: datetime | None = None) -> None:
    """Let the judgement count again and withdraw the slot that was opened for another.

    Raises NotRestorable where somebody is judging that one or has, or the judgement was restored already.
    """
    with transaction.atomic():
        open_ones = SetAside.objects.filter(pk=set_aside.pk, restored_at=None)
        if not open_ones.update(restored_at=at or now(), restored_by=by):
            raise NotRestorable("This judgement counts again already")
        judgement = set_aside.judgement
        if judgement.slot_id is not None:
            withdrawn = Slot.objects.filter(pk=set_aside.replacement_id, state=Slot.State.FREE)
            if not withdrawn.update(state=Slot.State.VOID, position=None):
                raise NotRestorable("Somebody else is judging this task in its place, or has")
            Slot.objects.filter(pk=judgement.slot_id, state=Slot.State.VOID).update(state=Slot.State.DONE)
            Task.objects.filter(pk=judgement.task_id).update(
                n_judged=F("n_judged") + 1,
                state=Case(
                    When(Q(state=Task.State.OPEN, n_judged__gte=F("overlap") - 1), then=Value(Task.State.DONE)),
                    default=F("state"),
                ),
            )
        notify(judgement.project.live_group, "judgement")


def restore_judgements(*, project: Project, annotator: User, by: User | None) -> tuple[int, int]:
    """Restore all of the person's that can be. Returns how many were, and how many are judged by others by now."""
    found = SetAside.objects.filter(judgement__project=project, judgement__annotator=annotator, restored_at=None)
    restored = kept = 0
    for set_aside in found.select_related("judgement__project").order_by("pk"):
        try:
            restore_judgement(set_aside=set_aside, by=by)
        except NotRestorable:
            kept += 1
        else:
            restored += 1
    return restored, kept
