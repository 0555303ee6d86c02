"""Taking judgements: each once, whatever is sent twice, comes late or races another."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Case, Exists, F, OuterRef, Q, QuerySet, Value, When
from django.utils.timezone import now
from django.utils.translation import gettext as _

from labeling.annotation.checks import Feedback, OnGold
from labeling.annotation.errors import AlreadyJudged, KeyReused, LeaseLost, NotRevisable
from labeling.annotation.models import Judgement, Lease, Slot, Task
from labeling.annotation.queue import free_slots
from labeling.annotation.selectors import keys_of, member_at_work, shown_completions
from labeling.annotation.services.leases import give_lease, take_lease, with_texts
from labeling.database.disk import wait_for_disk
from labeling.database.prepared import insert, prepared, prepared_update
from labeling.live.services import notify
from labeling.projects.feedback import PER_COMPLETION, Answer, check_answer, needs_contents
from labeling.projects.models import Completion, Membership
from labeling.projects.text import canonical_json, sha256


@dataclass(frozen=True)
class Submission:
    """A judgement and whether this very request made it."""

    judgement: Judgement
    is_new: bool
    feedback: Feedback | None = None  # what somebody who is qualifying is told of their answer


def submit_judgement(
    *, lease: Lease, submission_key: str, body: dict[str, Any], at: datetime | None = None
) -> Submission:
    """Record one annotator's judgement and close the lease it was made under.

    `body` names completions by the keys of the page. The same key again gives the first judgement. A late
    answer takes its slot if that is still free; where the slot was given away, or the annotator was paused
    meanwhile, it is kept as surplus.

    Raises BadAnswer naming the parts that don't fit the form, KeyReused for the key with another body,
    AlreadyJudged where the annotator judged the task under another lease, LeaseLost for a skipped lease.
    """
    submission = _submitted(lease=lease, submission_key=submission_key, body=body, at=at or now())
    return _with_feedback(submission, lease)


def submit_and_take_lease(
    *, lease: Lease, submission_key: str, body: dict[str, Any], holding: Iterable[int] = ()
) -> tuple[Submission, Lease | None]:
    """`submit_judgement`, and `take_lease` in the same transaction: one wait for the disk, and for other writers."""
    project, at = lease.task.project, now()
    held = set(holding) - {lease.pk}
    if lease.task.is_gold:
        # The answer may qualify or pause the person, so what comes next is asked when that is known.
        submission = submit_judgement(lease=lease, submission_key=submission_key, body=body, at=at)
        return submission, take_lease(project=project, annotator=lease.annotator, holding=held, at=at)
    member = member_at_work(lease.annotator, project, held, closing=lease.pk)
    given: list[Lease | None] = []
    submission = _submitted(
        lease=lease, submission_key=submission_key, body=body, at=at,
        then=lambda: given.append(give_lease(member, held, at)),
    )  # fmt: skip
    following = given[0] if given else give_lease(member, held, at)
    return _with_feedback(submission, lease), following and with_texts(following, project)


def _with_feedback(submission: Submission, lease: Lease) -> Submission:
    if not lease.task.is_gold:
        return submission
    submission.judgement.lease = lease
    return replace(submission, feedback=OnGold.answered(submission.judgement))


def _submitted(
    *,
    lease: Lease,
    submission_key: str,
    body: dict[str, Any],
    at: datetime,
    then: Callable[[], object] = lambda: None,
) -> Submission:
    """`then` is done in the transaction of a judgement that is new."""
    body_hash = sha256(canonical_json(body))
    # An open lease has no judgement; a key that was used under another lease is found where it collides.
    if not lease.may_be_answered and (earlier := _earlier(lease.annotator_id, submission_key, body_hash, lease)):
        return earlier
    answer = _checked(lease, body)
    judgement = None
    try:
        with transaction.atomic():
            if lease.state == Lease.State.EXPIRED:
                _drop_newer_lease(lease, at)
            if not _close_open_or_late(lease=lease.pk, at=at):
                # Of two simultaneous requests with one key, the second finds the first's judgement.
                if earlier := _earlier(lease.annotator_id, submission_key, body_hash, lease):
                    return earlier
                raise LeaseLost(_("This task is closed already: it was submitted or skipped, perhaps in another tab"))
            owns_slot = not _was_paused(lease) and _fill_slot(slot=lease.slot_id, annotator=lease.annotator_id)
            if owns_slot:
                _count_judgement(task=lease.task_id)
            judgement = _add_judgement(
                lease, submission_key, body_hash, answer, slot_id=lease.slot_id if owns_slot else None
            )
            notify(lease.task.project.live_group, "judgement")
            then()
    except IntegrityError:
        if judgement is not None:
            raise  # in `then`
        if earlier := _earlier(lease.annotator_id, submission_key, body_hash, lease):
            return earlier
        if lease.state != Lease.State.EXPIRED:
            lease.refresh_from_db(fields=["state"])
            if lease.state == Lease.State.EXPIRED:
                # It ran out after it was loaded, and the person was given the task again.
                return _submitted(lease=lease, submission_key=submission_key, body=body, at=at, then=then)
        raise AlreadyJudged(_("You have judged this task already, under another lease")) from None
    return Submission(judgement, is_new=True)


@prepared_update
def _close_open_or_late(lease: int, at: datetime) -> tuple[QuerySet[Lease], dict[str, Any]]:
    found = Lease.objects.filter(pk=lease, state__in=[Lease.State.OPEN, Lease.State.EXPIRED])
    return found, {"state": Lease.State.DONE, "closed_at": at, "draft": None}


@prepared_update
def _fill_slot(slot: int, annotator: int) -> tuple[QuerySet[Slot], dict[str, Any]]:
    """The slot is the annotator's own, or came back and nobody has taken it."""
    in_time = Q(state=Slot.State.LEASED, holder=annotator)
    taken = Lease.objects.filter(slot=OuterRef("pk"), state=Lease.State.OPEN)
    found = Slot.objects.filter(in_time | Q(state=Slot.State.FREE), ~Exists(taken), pk=slot)
    return found, {"state": Slot.State.DONE, "expires_at": None}


@prepared_update
def _count_judgement(task: int) -> tuple[QuerySet[Task], dict[str, Any]]:
    is_last = When(state=Task.State.OPEN, n_judged__gte=F("overlap") - 1, then=Value(Task.State.DONE))
    return Task.objects.filter(pk=task), {"n_judged": F("n_judged") + 1, "state": Case(is_last, default=F("state"))}


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
        raise NotRevisable(_("This project doesn't allow judgements to be revised"))
    if lease.task.is_gold and OnGold.told(judgement):
        raise NotRevisable(_("You have been told what was right here, so your answer stays as it is"))
    answer = _checked(lease, body)
    try:
        with transaction.atomic():
            revision = _add_judgement(
                lease, submission_key, body_hash, answer, slot_id=judgement.slot_id, supersedes=judgement
            )
            notify(project.live_group, "judgement")
    except IntegrityError:
        if earlier := _earlier(judgement.annotator_id, submission_key, body_hash, lease):
            return earlier
        raise NotRevisable(_("There is a newer version of this judgement: reload and revise that one")) from None
    return Submission(revision, is_new=True)


def _was_paused(lease: Lease) -> bool:
    """Whether this is a late answer of somebody whose tasks were given back when they were paused."""
    if lease.state != Lease.State.EXPIRED:
        return False
    paused = Membership.objects.filter(state=Membership.State.PAUSED, project=lease.task.project_id)
    return paused.filter(user=lease.annotator_id).exists()


def _drop_newer_lease(lease: Lease, at: datetime) -> None:
    """The same person was given this very task again after `lease` ran out, and now answers under the old one."""
    newer = Lease.objects.filter(task=lease.task_id, annotator=lease.annotator_id, state=Lease.State.OPEN)
    for slot_id in newer.values_list("slot_id", flat=True):
        if newer.filter(slot=slot_id).update(state=Lease.State.EXPIRED, closed_at=at):
            free_slots(Slot.objects.filter(pk=slot_id, state=Slot.State.LEASED))


def _earlier(annotator_id: int, submission_key: str, body_hash: str, lease: Lease) -> Submission | None:
    sent_before = _sent_before(annotator=annotator_id, key=submission_key)
    if not sent_before:
        return None
    (found,) = sent_before
    if found.body_hash != body_hash or found.lease_id != lease.pk:
        raise KeyReused(_("This submission key was used for another judgement: make a new key for each"))
    wait_for_disk()
    return Submission(found, is_new=False)


@prepared
def _sent_before(annotator: int, key: str) -> QuerySet[Judgement]:
    return Judgement.objects.filter(annotator=annotator, submission_key=key)


def _checked(lease: Lease, body: dict[str, Any]) -> Answer:
    contents = None
    if needs_contents(body):
        contents = {shown.key: shown.content for shown in shown_completions(lease)}
    return check_answer(lease.task.project.form, list(keys_of(lease.order_shown)), body, contents)


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
    for name in PER_COMPLETION:
        if name in parts:
            parts[name] = {str(ids[key]): value for key, value in parts[name].items()}
    _store_written(lease, parts)
    return insert(
        Judgement(
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
    )


def _store_written(lease: Lease, parts: dict[str, Any]) -> None:
    """What the annotator wrote becomes completions of the prompt, with them as author; the same text once."""
    written = [(text, int(pk)) for pk, text in parts.get("corrections", {}).items()]
    if demonstration := parts.get("demonstration"):
        written.append((demonstration, None))
    if written:
        Completion.objects.bulk_create(
            [
                Completion(
                    prompt_id=lease.task.prompt_id, content=text, content_hash=sha256(text), author=lease.annotator,
                    corrects_id=corrected,
                )
                for text, corrected in written
            ],
            ignore_conflicts=True,
        )  # fmt: skip


def judgement_body(judgement: Judgement) -> dict[str, Any]:
    """The judgement as it was submitted, completions named by their keys again."""
    keys = {pk: key for key, pk in keys_of(judgement.key_order).items()}
    body: dict[str, Any] = {}
    if judgement.ranking:
        body["ranking"] = [[keys[pk] for pk in group] for group in judgement.ranking]
    for name, value in judgement.feedback.items():
        if name in PER_COMPLETION:
            value = {keys[int(pk)]: item for pk, item in value.items()}
        body[name] = value
    if judgement.seconds is not None:
        body["seconds"] = judgement.seconds
    return body
