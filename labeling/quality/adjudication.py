"""What waits for reviewers, how a task looks to one, and what was settled."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.urls import reverse

from labeling.accounts.models import User
from labeling.accounts.roles import STEERING
from labeling.annotation.bench import Bench
from labeling.annotation.models import Judgement, Lease, Slot, Task
from labeling.annotation.selectors import keys_of
from labeling.projects.feedback import complete_form
from labeling.projects.models import Project
from labeling.projects.selectors import current_guideline
from labeling.quality.models import Adjudication, Disagreement, Review

QUEUE_PAGE = 50
MOST_COUNTED = 1000
# What a reviewer is asked, whatever the project asks of annotators.
FORM = complete_form({"ranking": True, "ties": True, "none_acceptable": True, "rationale": "optional"})[0]


# --- the queue ----------------------------------------------------------------------------------
def queue_of(project: Project) -> QuerySet[Disagreement]:
    """Tasks that wait for a reviewer, the strongest disagreement first. Steps into one index."""
    found = Disagreement.objects.filter(project=project, urgency__isnull=False, task__purpose__in=Task.COLLECTED)
    return found.exclude(task__state=Task.State.CLOSED).order_by("-urgency", "pk")


def n_waiting(project: Project) -> int:
    """Counts to 1,000 and no further."""
    return queue_of(project).order_by()[:MOST_COUNTED].count()


def queue_after(project: Project, place: str) -> QuerySet[Disagreement]:
    """The queue from behind a place on: `<urgency>_<id>`, as `place_of` gives it. An odd place is its beginning."""
    urgency, _, pk = place.partition("_")
    try:
        beyond = Q(urgency__lt=float(urgency)) | Q(urgency=float(urgency), pk__gt=int(pk[:18]))
    except ValueError:
        return queue_of(project)
    return queue_of(project).filter(beyond)


def place_of(row: Disagreement) -> str:
    return f"{row.urgency!r}_{row.pk}"


@dataclass(frozen=True)
class QueuePage:
    rows: list[Disagreement]
    further: str  # the place to go on from; empty: this is the end
    is_first: bool


def queue_page(project: Project, reviewer: User, place: str = "") -> QueuePage:
    """50 tasks of the queue, each with `was_theirs`: the reviewer judged it themselves."""
    theirs = Judgement.objects.filter(task=OuterRef("task"), annotator=reviewer)
    found = queue_after(project, place) if place else queue_of(project)
    rows = list(found.select_related("task__prompt").annotate(was_theirs=Exists(theirs))[: QUEUE_PAGE + 1])
    further = place_of(rows[QUEUE_PAGE - 1]) if len(rows) > QUEUE_PAGE else ""
    return QueuePage(rows[:QUEUE_PAGE], further, not place)


def next_in_queue(project: Project, than: Disagreement | None) -> Task | None:
    """The task that comes after this one, or else the first of the queue."""
    if than and than.urgency is not None:
        row = queue_after(project, place_of(than)).select_related("task").first()
        if row:
            return row.task
    others = queue_of(project).exclude(pk=than.pk) if than else queue_of(project)
    row = others.select_related("task").first()
    return row.task if row else None


# --- one task -----------------------------------------------------------------------------------
def tasks_to_settle(project: Project, reviewer: User, role: str) -> QuerySet[Task]:
    """Tasks that this person may open to settle them, in the queue or not.

    Reviewers judge too, and must not find out which tasks check them by what can't be opened: of those they were given
    themselves, they may open what waits for reviewers, was settled, or what they opened before.
    """
    found = Task.objects.filter(project=project, purpose__in=Task.COLLECTED)
    if role in STEERING:
        return found
    here = {"task": OuterRef("pk")}
    given = Lease.objects.filter(**here, annotator=reviewer)
    waits = Disagreement.objects.filter(**here, urgency__isnull=False)
    known = Exists(waits) | Exists(Adjudication.objects.filter(**here)) | Exists(Review.objects.filter(**here, by=reviewer))
    return found.filter(~Exists(given) | known)


@dataclass
class AdjudicationBench(Bench):
    """A task as the bench draws it, for a reviewer. Nobody holds it."""

    review: Review = field(default_factory=Review)
    disagreement: Disagreement | None = None
    standing: Adjudication | None = None
    note_to_guideline: str = ""
    becomes_gold: bool = False

    side_template = "console/quality/_adjudication_side.html"
    actions_template = "console/quality/_adjudication_actions.html"

    @property
    def form(self) -> dict[str, Any]:
        return FORM if len(self.lease.order_shown) > 1 else {**FORM, "ranking": False, "none_acceptable": False}

    @property
    def is_leased(self) -> bool:
        return False

    @property
    def one_key_decides(self) -> bool:
        return False

    @property
    def may_be_empty(self) -> bool:
        return True

    @property
    def sees_votes(self) -> bool:
        return self.review.votes_seen_at is not None

    @property
    def shows_reason(self) -> bool:
        """Why it is in the queue; to one who judges blind, not before it is settled."""
        return (
            self.disagreement is not None
            and (self.review.said_at is None or self.standing is not None)
            and self.sees_votes
        )

    @property
    def submit_words(self) -> str:
        if not self.sees_votes:
            return "See the votes"
        if not self.ranks_completions:
            return "Leave as it is"
        return "Replace the outcome" if self.standing else "Settle it so"

    @property
    def submit_url(self) -> str:
        return reverse("projects:adjudicate", args=[self.project.slug, self.lease.task.public_id])


def bench_of(task: Task, review: Review) -> AdjudicationBench:
    """The task before this reviewer, with what stands, what they said and why it is here."""
    standing = Adjudication.objects.select_related("by").filter(task=task, superseded_by=None).first()
    lease = Lease(
        pk=0, task=task, order_shown=review.order_shown, guideline=current_guideline(task.project),
    )  # fmt: skip
    keys = {pk: key for key, pk in keys_of(review.order_shown).items()}
    filled: dict[str, Any] = {}
    if review.said is not None:
        filled["ranking"] = [[keys[pk] for pk in group] for group in review.said]
        filled["none_acceptable"] = review.said_none_acceptable
        filled["rationale"] = review.said_rationale
    return AdjudicationBench(
        lease, filled, review=review, standing=standing, disagreement=Disagreement.objects.filter(task=task).first(),
    )  # fmt: skip


def in_letters(ranking: Iterable[Iterable[int]], order_shown: list[int]) -> str:
    """`b › a = c`, by the letters that this reviewer sees."""
    keys = {pk: key for key, pk in keys_of(order_shown).items()}
    return " › ".join(" = ".join(sorted(keys.get(pk, "?") for pk in group)) for group in ranking)


@dataclass(frozen=True)
class Vote:
    """One standing judgement, in the letters of the reviewer."""

    who: str
    kind: str
    ranking: str
    none_acceptable: bool
    said: list[str]
    rationale: str
    guideline: int | None
    is_late: bool
    is_set_aside: bool
    at: datetime


def votes_on(task: Task, order_shown: list[int]) -> list[Vote]:
    """Two queries at most, whatever is in them."""
    rows = Judgement.objects.current().filter(task=task).select_related("annotator", "guideline", "slot")
    keys = {str(pk): key for key, pk in keys_of(order_shown).items()}
    votes = []
    for row in rows.order_by("pk"):
        feedback = row.feedback
        said = [
            f"{keys.get(pk, '?')}: " + ", ".join(f"{axis} {value}" for axis, value in by_axis.items())
            for pk, by_axis in sorted(feedback.get("ratings", {}).items(), key=lambda item: keys.get(item[0], "?"))
        ]
        said += [
            f"{keys.get(pk, '?')} {'acceptable' if value else 'not acceptable'}"
            for pk, value in sorted(feedback.get("acceptable", {}).items(), key=lambda item: keys.get(item[0], "?"))
        ]
        votes.append(
            Vote(
                who=row.annotator.username, kind=row.annotator_kind, ranking=in_letters(row.ranking, order_shown),
                none_acceptable=bool(feedback.get("none_acceptable")), said=said,
                rationale=feedback.get("rationale", ""), guideline=row.guideline and row.guideline.version,
                is_late=row.is_surplus, is_set_aside=bool(row.slot and row.slot.state == Slot.State.VOID),
                at=row.created_at,
            )
        )  # fmt: skip
    return votes


# --- what was settled ---------------------------------------------------------------------------
def standing_adjudications(project: Project) -> QuerySet[Adjudication]:
    return Adjudication.objects.filter(project=project, superseded_by=None)


def standing_rankings(project: Project) -> QuerySet[Adjudication]:
    """Outcomes that are a ranking, of tasks that have anything to rank: what counts as the truth."""
    return standing_adjudications(project).filter(outcome=Adjudication.Outcome.RANKING).exclude(ranking=[])


def adjudicated_rankings(project: Project) -> dict[int, list[list[int]]]:
    """Task id to the ranking that counts as the truth, in completion ids. One query."""
    return dict(standing_rankings(project).values_list("task_id", "ranking"))


def open_notes(project: Project) -> QuerySet[Adjudication]:
    """Notes to the guideline that no lead has ticked off."""
    found = Adjudication.objects.filter(project=project, note_settled_at=None).exclude(note_to_guideline="")
    return found.select_related("by", "task").order_by("pk")
