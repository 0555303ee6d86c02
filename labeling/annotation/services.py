"""Making tasks, leasing slots, taking judgements. The database decides every race."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.db.models import Case, Exists, F, OuterRef, Q, Value, When
from django.utils.timezone import now

from labeling.accounts.models import User
from labeling.annotation.errors import AlreadyJudged, BadTasks, KeyReused, LeaseLost, NotRevisable
from labeling.annotation.models import Judgement, Lease, Slot, Task, TaskCompletion
from labeling.annotation.selectors import keys_of
from labeling.live.services import notify
from labeling.projects.feedback import Answer, check_answer
from labeling.projects.models import Completion, Project, Prompt
from labeling.projects.selectors import current_guideline
from labeling.projects.text import canonical_json, sha256

MAX_OPEN_LEASES = 3  # the one being judged, the next one prefetched, one for a second tab
CLOSED_TO_ANNOTATOR = (Lease.State.OPEN, Lease.State.DONE, Lease.State.SKIPPED)


# --- tasks --------------------------------------------------------------------------------------
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
) -> int:
    """Open tasks, each with its slots; a task that is there already is left alone. Returns how many are new.

    Raises BadTasks for fewer than 2 or more than 9 completions, or an overlap below 1.
    """
    overlap = project.overlap if overlap is None else overlap
    if overlap < 1:
        raise BadTasks("overlap must be at least 1")
    tasks: dict[str, tuple[Task, Sequence[int]]] = {}
    for new in new_tasks:
        ids = sorted(set(new.completion_ids))
        if not 2 <= len(ids) <= 9:
            raise BadTasks(
                f"A {kind} task compares 2 to 9 completions; prompt {new.prompt_id} came with {len(ids)}"
            )
        digest = sha256(canonical_json([new.prompt_id, ids, purpose, iteration]))
        task = Task(
            project=project, prompt_id=new.prompt_id, kind=kind, purpose=purpose, overlap=overlap,
            priority=priority, iteration=iteration, content_hash=digest,
        )  # fmt: skip
        tasks[digest] = (task, ids)
    with transaction.atomic():
        there = set(
            Task.objects.filter(project=project, content_hash__in=tasks).values_list(
                "content_hash", flat=True
            )
        )
        fresh = {digest: pair for digest, pair in tasks.items() if digest not in there}
        Task.objects.bulk_create([task for task, _ in fresh.values()], batch_size=500)
        TaskCompletion.objects.bulk_create(
            [TaskCompletion(task=task, completion_id=pk) for task, ids in fresh.values() for pk in ids],
            batch_size=1000,
        )
        Slot.objects.bulk_create(
            [
                Slot(task=task, project=project, number=number, priority=priority)
                for task, _ in fresh.values()
                for number in range(1, overlap + 1)
            ],
            batch_size=1000,
        )
        notify(project.live_group, "tasks", new=len(fresh))
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
) -> tuple[int, int]:
    """Open a task over each of the prompts (default: all that have none), up to `completions_per_task` each.

    Returns how many tasks are new and how many prompts have too few distinct completions for one.
    """
    if not 2 <= completions_per_task <= 9:
        raise BadTasks("completions_per_task must lie between 2 and 9")
    if prompts is None:
        prompts = Prompt.objects.filter(project=project, tasks=None)
    prompt_ids = [prompt.pk for prompt in prompts]
    by_prompt: dict[int, dict[str, int]] = {pk: {} for pk in prompt_ids}
    for start in range(0, len(prompt_ids), 500):
        rows = Completion.objects.filter(prompt__in=prompt_ids[start : start + 500]).order_by("pk")
        if model_keys is not None:
            rows = rows.filter(model_key__in=model_keys)
        for prompt_id, digest, pk in rows.values_list("prompt_id", "content_hash", "pk"):
            by_prompt[prompt_id].setdefault(digest, pk)  # equal texts are one choice
    new_tasks = [
        NewTask(prompt_id, list(found.values())[:completions_per_task])
        for prompt_id, found in by_prompt.items()
        if len(found) >= 2
    ]
    made = create_tasks(project=project, new_tasks=new_tasks, overlap=overlap, kind=kind, iteration=iteration)
    return made, len(prompt_ids) - len(new_tasks)


# --- leases -------------------------------------------------------------------------------------
def take_lease(
    *, project: Project, annotator: User, holding: Iterable[int] = (), at: datetime | None = None
) -> Lease | None:
    """The annotator's next task: an open lease not among those they say they hold, else a new one.

    Returns None where nothing is left for them, they hold MAX_OPEN_LEASES already, or the project is paused.
    """
    at = at or now()
    holding = set(holding)
    open_leases = list(
        Lease.objects.filter(annotator=annotator, task__project=project, state=Lease.State.OPEN).order_by(
            "pk"
        )
    )
    for lease in open_leases:
        if lease.pk not in holding:
            if lease.expires_at > at:
                return lease
            # Without this, leases that ran out would keep their own holder from work until the sweeper comes.
            free_expired_leases(lease=lease, at=at)
    open_leases = [lease for lease in open_leases if lease.pk in holding]
    if project.state != Project.State.OPEN or len(open_leases) >= MAX_OPEN_LEASES:
        return None
    guideline = current_guideline(project)
    for _ in range(20):
        try:
            with transaction.atomic():
                slot = _next_slot(project, annotator, at)
                if slot is None:
                    return None
                return _lease_slot(slot, annotator, guideline, project.lease_seconds, at)
        except (IntegrityError, _SlotBusy):
            # Another request of the same person took another slot of this very task, or the holder of a
            # lease that ran out is submitting right now.
            continue
    return None


class _SlotBusy(Exception):
    pass


def _next_slot(project: Project, annotator: User, at: datetime) -> Slot | None:
    theirs = Lease.objects.filter(task=OuterRef("task"), annotator=annotator, state__in=CLOSED_TO_ANNOTATOR)
    queue = (
        Slot.objects.filter(~Exists(theirs), project=project)
        .exclude(task__state=Task.State.CLOSED)
        .select_related("task__prompt")
        .order_by("-priority", "pk")
    )
    if connection.features.has_select_for_update_skip_locked:
        queue = queue.select_for_update(skip_locked=True, of=("self",))
    # On SQLite the transaction began by taking the write lock (BEGIN IMMEDIATE), so nobody is beside us.
    slot = queue.filter(state=Slot.State.FREE).first()
    if slot is None and (slot := queue.filter(state=Slot.State.LEASED, expires_at__lte=at).first()):
        old = Lease.objects.filter(slot=slot, state=Lease.State.OPEN)
        # Everyone else locks the lease first and then its slot. Waiting for the lease here would be a deadlock.
        can_lock = connection.features.has_select_for_update_skip_locked
        if can_lock and old.exists() and not old.select_for_update(skip_locked=True).first():
            raise _SlotBusy
        old.update(state=Lease.State.EXPIRED, closed_at=at)
    return slot


def _lease_slot(slot: Slot, annotator: User, guideline: Any, lease_seconds: int, at: datetime) -> Lease:
    expires_at = at + timedelta(seconds=lease_seconds)
    Slot.objects.filter(pk=slot.pk).update(state=Slot.State.LEASED, expires_at=expires_at, holder=annotator)
    order = list(slot.task.task_completions.values_list("completion_id", flat=True))
    random.SystemRandom().shuffle(order)
    return Lease.objects.create(
        slot=slot,
        task=slot.task,
        annotator=annotator,
        guideline=guideline,
        order_shown=order,
        expires_at=expires_at,
    )


def renew_lease(*, lease: Lease, at: datetime | None = None) -> datetime:
    """Keep the lease for another while; returns the new expiry. Raises LeaseLost if it isn't open any more."""
    at = at or now()
    expires_at = at + timedelta(seconds=lease.task.project.lease_seconds)
    with transaction.atomic():
        held = Slot.objects.filter(
            pk=lease.slot_id, state=Slot.State.LEASED, holder=lease.annotator_id, leases__pk=lease.pk
        )
        still_open = Lease.objects.filter(pk=lease.pk, state=Lease.State.OPEN)
        if not still_open.update(expires_at=expires_at):
            raise LeaseLost("This task was given back: its lease ran out or it was submitted elsewhere")
        Slot.objects.filter(pk__in=held.values("pk")).update(expires_at=expires_at)
    return expires_at


def save_draft(*, lease: Lease, draft: dict[str, Any]) -> None:
    """Keep what the annotator has so far. Kept on an expired lease too, so that nothing typed is lost."""
    open_or_expired = Lease.objects.filter(pk=lease.pk, state__in=[Lease.State.OPEN, Lease.State.EXPIRED])
    if not open_or_expired.update(draft=draft):
        raise LeaseLost("This task is closed: it was submitted or skipped, perhaps in another tab")


def skip_lease(*, lease: Lease, reason: str = "", at: datetime | None = None) -> None:
    """Give the task back; it isn't offered to this annotator again. Raises LeaseLost if it isn't open."""
    at = at or now()
    with transaction.atomic():
        closed = Lease.objects.filter(pk=lease.pk, state=Lease.State.OPEN).update(
            state=Lease.State.SKIPPED, skip_reason=reason[:300], closed_at=at
        )
        if not closed:
            raise LeaseLost("This task is closed already: it was submitted, skipped or given back")
        _free_slots(Slot.objects.filter(pk=lease.slot_id, state=Slot.State.LEASED))
        notify(lease.task.project.live_group, "queue")


def free_expired_leases(*, lease: Lease | None = None, at: datetime | None = None) -> int:
    """Put slots whose lease ran out (all, or the one given) back in the queue. Returns how many."""
    at = at or now()
    with transaction.atomic():
        overdue = Lease.objects.filter(state=Lease.State.OPEN, expires_at__lte=at)
        if lease is not None:
            overdue = overdue.filter(pk=lease.pk)
        expired = list(overdue.order_by("pk").values_list("pk", "slot_id"))
        freed = 0
        for lease_id, slot_id in expired:
            # Conditions again: a renewal or a submission may have come in between.
            if Lease.objects.filter(pk=lease_id, state=Lease.State.OPEN, expires_at__lte=at).update(
                state=Lease.State.EXPIRED, closed_at=at
            ):
                freed += _free_slots(Slot.objects.filter(pk=slot_id, state=Slot.State.LEASED))
    return freed


def _free_slots(slots: Any) -> int:
    return slots.update(state=Slot.State.FREE, expires_at=None, holder=None)


# --- judgements ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class Submission:
    """A judgement and whether this very request made it."""

    judgement: Judgement
    is_new: bool


def submit_judgement(
    *, lease: Lease, submission_key: str, body: dict[str, Any], at: datetime | None = None
) -> Submission:
    """Record one annotator's judgement and close the lease it was made under.

    `body` names completions by the keys of the page. The same key again gives the first judgement. A late
    answer takes its slot if that is still free; where the slot was given away it is kept as surplus.

    Raises BadAnswer naming the parts that don't fit the form, KeyReused for the key with another body,
    AlreadyJudged where the annotator judged the task under another lease, LeaseLost for a skipped lease.
    """
    at = at or now()
    body_hash = sha256(canonical_json(body))
    if earlier := _earlier(lease.annotator_id, submission_key, body_hash, lease):
        return earlier
    project = lease.task.project
    answer = check_answer(project.form, list(keys_of(lease.order_shown)), body)
    try:
        with transaction.atomic():
            if lease.state == Lease.State.EXPIRED:
                _drop_newer_lease(lease, at)
            open_or_late = Lease.objects.filter(
                pk=lease.pk, state__in=[Lease.State.OPEN, Lease.State.EXPIRED]
            )
            if not open_or_late.update(state=Lease.State.DONE, closed_at=at, draft=None):
                # Of two simultaneous requests with one key, the second finds the first's judgement.
                if earlier := _earlier(lease.annotator_id, submission_key, body_hash, lease):
                    return earlier
                raise LeaseLost(
                    "This task is closed already: it was submitted or skipped, perhaps in another tab"
                )
            in_time = Q(state=Slot.State.LEASED, holder=lease.annotator_id)
            owns_slot = (
                Slot.objects.filter(in_time | Q(state=Slot.State.FREE), pk=lease.slot_id)
                .exclude(leases__in=Lease.objects.filter(slot=lease.slot_id, state=Lease.State.OPEN))
                .update(state=Slot.State.DONE, expires_at=None)
            )
            if owns_slot:
                Task.objects.filter(pk=lease.task_id).update(
                    n_judged=F("n_judged") + 1,
                    state=Case(
                        When(
                            state=Task.State.OPEN, n_judged__gte=F("overlap") - 1, then=Value(Task.State.DONE)
                        ),
                        default=F("state"),
                    ),
                )
            judgement = _add_judgement(
                lease, submission_key, body_hash, answer, slot_id=lease.slot_id if owns_slot else None
            )
            notify(project.live_group, "judgement")
    except IntegrityError:
        if earlier := _earlier(lease.annotator_id, submission_key, body_hash, lease):
            return earlier
        if lease.state != Lease.State.EXPIRED:
            lease.refresh_from_db(fields=["state"])
            if lease.state == Lease.State.EXPIRED:
                # It ran out after it was loaded, and the person was given the task again.
                return submit_judgement(lease=lease, submission_key=submission_key, body=body, at=at)
        raise AlreadyJudged("You have judged this task already, under another lease") from None
    return Submission(judgement, is_new=True)


def revise_judgement(*, judgement: Judgement, submission_key: str, body: dict[str, Any]) -> Submission:
    """Add a judgement that supersedes the annotator's earlier one.

    Raises NotRevisable where the project allows none or a newer revision exists, BadAnswer and KeyReused.
    """
    lease = judgement.lease
    body_hash = sha256(canonical_json(body))
    if earlier := _earlier(judgement.annotator_id, submission_key, body_hash, lease):
        return earlier
    project = judgement.project
    if not project.allows_revision:
        raise NotRevisable("This project doesn't allow judgements to be revised")
    answer = check_answer(project.form, list(keys_of(judgement.order_shown)), body)
    try:
        with transaction.atomic():
            revision = _add_judgement(
                lease, submission_key, body_hash, answer, slot_id=judgement.slot_id, supersedes=judgement
            )
            notify(project.live_group, "judgement")
    except IntegrityError:
        if earlier := _earlier(judgement.annotator_id, submission_key, body_hash, lease):
            return earlier
        raise NotRevisable("There is a newer version of this judgement: reload and revise that one") from None
    return Submission(revision, is_new=True)


def _drop_newer_lease(lease: Lease, at: datetime) -> None:
    """The same person was given this very task again after `lease` ran out, and now answers under the old one."""
    newer = Lease.objects.filter(task=lease.task_id, annotator=lease.annotator_id, state=Lease.State.OPEN)
    for slot_id in newer.values_list("slot_id", flat=True):
        if newer.filter(slot=slot_id).update(state=Lease.State.EXPIRED, closed_at=at):
            _free_slots(Slot.objects.filter(pk=slot_id, state=Slot.State.LEASED))


def _earlier(annotator_id: int, submission_key: str, body_hash: str, lease: Lease) -> Submission | None:
    found = Judgement.objects.filter(annotator=annotator_id, submission_key=submission_key).first()
    if found is None:
        return None
    if found.body_hash != body_hash or found.lease_id != lease.pk:
        raise KeyReused("This submission key was used for another judgement: make a new key for each")
    return Submission(found, is_new=False)


def _add_judgement(
    lease: Lease,
    submission_key: str,
    body_hash: str,
    answer: Answer,
    *,
    slot_id: int | None,
    supersedes: Judgement | None = None,
) -> Judgement:
    ids = keys_of(lease.order_shown)
    parts = dict(answer.parts)
    for name in ("ratings", "acceptable", "flags", "corrections"):
        if name in parts:
            parts[name] = {str(ids[key]): value for key, value in parts[name].items()}
    return Judgement.objects.create(
        project=lease.task.project,
        task=lease.task,
        slot_id=slot_id,
        lease=lease,
        annotator=lease.annotator,
        annotator_kind=lease.annotator.kind,
        guideline_id=lease.guideline_id,
        submission_key=submission_key,
        body_hash=body_hash,
        order_shown=lease.order_shown,
        ranking=[[ids[key] for key in group] for group in answer.ranking],
        feedback=parts,
        seconds=answer.seconds,
        supersedes=supersedes,
    )


def judgement_body(judgement: Judgement) -> dict[str, Any]:
    """The judgement as it was submitted, completions named by their keys again."""
    keys = {pk: key for key, pk in keys_of(judgement.order_shown).items()}
    body: dict[str, Any] = {}
    if judgement.ranking:
        body["ranking"] = [[keys[pk] for pk in group] for group in judgement.ranking]
    for name, value in judgement.feedback.items():
        if name in ("ratings", "acceptable", "flags", "corrections"):
            value = {keys[int(pk)]: item for pk, item in value.items()}
        body[name] = value
    if judgement.seconds is not None:
        body["seconds"] = judgement.seconds
    return body
