"""The queue of disagreements, and what reviewers settle."""

import random
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.utils.timezone import now

from labeling.accounts.models import User
from labeling.annotation.errors import KeyReused
from labeling.annotation.models import Judgement, Slot, Task, TaskCompletion
from labeling.live.services import notify
from labeling.projects.models import Project
from labeling.quality.disagreement import contradiction, ranking_difference, rating_difference
from labeling.quality.errors import AlreadyAdjudicated, BadGold, BadOutcome
from labeling.quality.models import Adjudication, Contradiction, Disagreement, Look, Review
from labeling.quality.services.gold import create_gold
from labeling.quality.services.reports import outdate_report
from labeling.quality.statistics import pair_votes

BLIND, OPEN = "blind", "open"
ADJUDICATION_MODES = (BLIND, OPEN)
PEOPLE = (User.Kind.HUMAN, User.Kind.IMPORTED)
MAX_RATIONALE = 20_000
MAX_NOTE = 5_000

LOOK_BACK = 1000  # judgements whose transaction may have ended after that of a later one
BATCH = 5000
MOST_BATCHES = 20  # at one look; the next goes on


# --- the queue ----------------------------------------------------------------------------------
def refresh_disagreements() -> int:
    """Count again the tasks whose judgements came in since the last look. Returns how many tasks were counted.

    Goes through judgements by id from where it was, so it never scans a project.
    """
    look, _ = Look.objects.get_or_create(name="disagreements")
    counted = 0
    for _batch in range(MOST_BATCHES):
        rows = list(
            Judgement.objects.filter(pk__gt=look.judgement_id - LOOK_BACK).order_by("pk").values_list("pk", "task_id")[:BATCH]
        )  # fmt: skip
        newest = {task: pk for pk, task in rows}
        known = dict(Disagreement.objects.filter(task__in=newest).values_list("task", "newest_judgement"))
        counted += _count([task for task, pk in newest.items() if known.get(task, 0) < pk])
        if rows and rows[-1][0] > look.judgement_id:
            look.judgement_id = rows[-1][0]
            look.save(update_fields=["judgement_id"])
        if len(rows) < BATCH:
            break
    return counted


def _count(task_ids: Collection[int]) -> int:
    """Write the disagreement of these tasks, as far as two or more people judged them. Six statements."""
    if not task_ids:
        return 0
    standing = Judgement.objects.current().filter(task__in=task_ids, task__purpose__in=Task.COLLECTED)
    # A judgement that was set aside counts for nothing.
    rows = standing.exclude(slot__state=Slot.State.VOID).values_list(
        "task_id", "pk", "annotator_id", "annotator_kind", "ranking", "feedback__ratings", "feedback__acceptable"
    )
    judged: dict[int, list[Any]] = {}
    for task, *row in rows:
        judged.setdefault(task, []).append(row)
    there = set(Disagreement.objects.filter(task__in=task_ids).values_list("task", flat=True))
    wanted = [task for task in task_ids if len(judged.get(task, ())) > 1 or task in there]
    tasks = Task.objects.filter(pk__in=wanted).select_related("project").in_bulk()
    adjudicated = set(Adjudication.objects.filter(task__in=wanted).values_list("task", flat=True))
    beliefs = _beliefs(wanted)
    at = now()
    counted = []
    for pk in wanted:
        if (task := tasks.get(pk)) is None:
            continue
        found = _disagreement(task, judged.get(pk, []), beliefs.get(pk, {}), at)
        if pk in adjudicated or task.state == Task.State.CLOSED:
            found.urgency = None
        counted.append(found)
    Disagreement.objects.bulk_create(
        counted, update_conflicts=True, unique_fields=["task"],
        update_fields=[
            "n_people", "share", "n_comparisons", "spread", "n_ratings", "contradiction", "contradicted_by", "urgency",
            "newest_judgement", "looked_at",
        ],
    )  # fmt: skip
    for project in {row.project_id for row in counted if row.urgency is not None}:
        notify(Project(pk=project).live_group, "adjudication")
    return len(counted)


def _beliefs(task_ids: Collection[int]) -> dict[int, dict[str, dict[tuple[int, int], float]]]:
    """Of each task what each calibrated model thinks of its pairs, as it last said."""
    found: dict[int, dict[str, dict[tuple[int, int], float]]] = {}
    rows = Contradiction.objects.filter(task__in=task_ids).order_by("pk")
    for task, model_key, is_calibrated, pairs in rows.values_list("task", "model_key", "is_calibrated", "pairs"):
        of_task = found.setdefault(task, {})
        of_task.pop(model_key, None)
        if is_calibrated:
            of_task[model_key] = {(better, worse): probability for better, worse, probability in pairs}
    return found


def _disagreement(
    task: Task, judged: list[Any], beliefs: dict[str, dict[tuple[int, int], float]], at: datetime
) -> Disagreement:
    rankings = {who: ranking for _, who, _, ranking, _, _ in judged if ranking}
    by_people = {who: ranking for _, who, kind, ranking, _, _ in judged if ranking and kind in PEOPLE}
    scales = {axis: (scale["low"], scale["high"]) for axis, scale in task.project.form.get("ratings", {}).items()}
    accepted = object()  # an axis that no lead can name
    ratings: dict[int, dict[str, dict[Any, float]]] = {}
    for _, who, _, _, rated, acceptable in judged:
        said = ratings.setdefault(who, {})
        for completion, by_axis in (rated or {}).items():
            said.setdefault(completion, {}).update(by_axis)
        for completion, value in (acceptable or {}).items():
            said.setdefault(completion, {})[accepted] = float(value)
    ranked = ranking_difference(rankings)
    rated_apart = rating_difference(ratings, {**scales, accepted: (0, 1)})  # type: ignore[dict-item]
    votes = pair_votes(by_people)
    sure = {model: found for model, known in beliefs.items() if (found := contradiction(votes, known)) is not None}
    loudest = max(sure, key=lambda model: sure[model], default="")
    reasons = [difference.value for difference in (ranked, rated_apart) if difference.is_much]
    reasons += [sure[loudest]] if sure else []
    return Disagreement(
        task=task, project_id=task.project_id, n_people=len(judged), share=ranked.value, n_comparisons=ranked.n,
        spread=rated_apart.value, n_ratings=rated_apart.n, contradiction=sure.get(loudest), contradicted_by=loudest,
        urgency=max(reasons, default=None), newest_judgement=max((row[0] for row in judged), default=0), looked_at=at,
    )  # fmt: skip


@dataclass(frozen=True)
class Belief:
    """What a model thinks of one task: (better, worse, probability that this order is right) in completion ids."""

    task_id: int
    pairs: Sequence[tuple[int, int, float]]


def record_contradictions(
    *,
    project: Project,
    model_key: str,
    is_calibrated: bool,
    beliefs: Iterable[Belief],
    replaces: Collection[str] = (),
) -> tuple[int, int]:
    """Keep what a model thinks of the order of tasks, and look at those tasks again.

    What the models that it `replaces` thought is forgotten.

    Only a calibrated model brings a task before reviewers, where it is at least 0.9 sure that a confident majority
    of people (all of two or more, two thirds of three or more) has a pair the wrong way round. Returns how many
    tasks were recorded and how many of them now wait for a reviewer.

    Raises BadOutcome for a task of another project, a completion that isn't of the task, or a wrong probability.
    """
    by_task = {belief.task_id: belief for belief in beliefs}
    shown: dict[int, set[int]] = {}
    of_tasks = TaskCompletion.objects.filter(task__in=by_task, task__project=project)
    for task, completion in of_tasks.values_list("task", "completion"):
        shown.setdefault(task, set()).add(completion)
    rows = []
    for pk, belief in by_task.items():
        if pk not in shown:
            raise BadOutcome({"tasks": "a task that is not of this project"})
        for better, worse, probability in belief.pairs:
            if better == worse or not {better, worse} <= shown[pk]:
                raise BadOutcome({"tasks": f"{better} and {worse} are not two completions of one task"})
            if not 0 <= probability <= 1:
                raise BadOutcome({"tasks": "a probability lies between 0 and 1"})
        rows.append(
            Contradiction(
                task_id=pk, project=project, model_key=model_key, is_calibrated=is_calibrated,
                pairs=[list(pair) for pair in belief.pairs],
            )
        )  # fmt: skip
    with transaction.atomic():
        outdated = Contradiction.objects.filter(project=project, model_key__in=replaces)
        tasks = {*by_task, *outdated.values_list("task", flat=True)}
        outdated.delete()
        Contradiction.objects.bulk_create(rows)
        _count(tasks)
    waiting = Disagreement.objects.filter(task__in=by_task, urgency__isnull=False, contradiction__isnull=False)
    return len(rows), waiting.count()


# --- one reviewer before one task ---------------------------------------------------------------
def adjudication_mode(project: Project) -> str:
    """`blind`: votes are shown once the reviewer has said a ranking of their own; `open`: from the start."""
    return OPEN if project.quality.get("adjudication", BLIND) == OPEN else BLIND


def set_adjudication_mode(*, project: Project, mode: str) -> None:
    """Change how reviewers come to see the votes, and nothing else of the project's quality settings."""
    if mode not in ADJUDICATION_MODES:
        raise BadOutcome({"adjudication": "must be blind or open"})
    with transaction.atomic():
        found = Project.objects.select_for_update().get(pk=project.pk)
        found.quality = {**found.quality, "adjudication": mode}
        found.save(update_fields=["quality"])
        notify(project.live_group, "project")
    project.quality = found.quality


def open_review(*, task: Task, by: User, at: datetime | None = None) -> Review:
    """The reviewer's place before this task; made, with a random order of the completions, when they first come."""
    at = at or now()
    review = Review.objects.filter(task=task, by=by).first()
    if review is None:
        order = sorted(task.completions.values_list("pk", flat=True))
        random.SystemRandom().shuffle(order)
        review, _ = Review.objects.get_or_create(task=task, by=by, defaults={"order_shown": order})
    # Of a single completion there is nothing to be said first.
    if review.votes_seen_at is None and (adjudication_mode(task.project) == OPEN or len(review.order_shown) < 2):
        Review.objects.filter(pk=review.pk, votes_seen_at=None).update(votes_seen_at=at)
        review.votes_seen_at = at
    return review


def say_ranking(
    *, review: Review, ranking: list[list[int]], none_acceptable: bool = False, rationale: str = "",
    at: datetime | None = None,
) -> Review:  # fmt: skip
    """Record what the reviewer says of the task before they see the votes, and show them. The first word stands.

    Raises BadOutcome for a ranking that isn't of all completions.
    """
    _check_ranking(ranking, review.order_shown)
    at = at or now()
    Review.objects.filter(pk=review.pk, said_at=None).update(
        said=ranking, said_none_acceptable=none_acceptable, said_rationale=rationale[:MAX_RATIONALE], said_at=at
    )
    Review.objects.filter(pk=review.pk, votes_seen_at=None).update(votes_seen_at=at)
    review.refresh_from_db()
    return review


@dataclass(frozen=True)
class Settled:
    """An adjudication and whether this very request made it."""

    adjudication: Adjudication
    is_new: bool


def adjudicate(
    *,
    task: Task,
    by: User,
    submission_key: str,
    outcome: str,
    ranking: list[list[int]] | None = None,
    none_acceptable: bool = False,
    rationale: str = "",
    becomes_gold: bool = False,
    note_to_guideline: str = "",
    supersedes: int | None = None,
) -> Settled:
    """Settle a task: a ranking counts as the truth, `left` leaves it as it is, `unfit` closes it. Judgements stay.

    `supersedes` is the id of the adjudication that stands, where it is to be replaced. A repeated `submission_key`
    gives the first outcome.

    Raises BadOutcome naming wrong parts, AlreadyAdjudicated where another outcome stands that isn't named, KeyReused.
    """
    review = Review.objects.filter(task=task, by=by).first()
    if earlier := _settled_before(task, by, submission_key):
        return earlier
    if outcome not in Adjudication.Outcome.values:
        raise BadOutcome({"outcome": f"must be one of {', '.join(Adjudication.Outcome.values)}"})
    decides = outcome == Adjudication.Outcome.RANKING
    if decides:
        _check_ranking(ranking or [], task.completions.values_list("pk", flat=True))
    for name, text, most in (
        ("rationale", rationale, MAX_RATIONALE),
        ("note_to_guideline", note_to_guideline, MAX_NOTE),
    ):
        if len(text) > most:
            raise BadOutcome({name: f"has more than {most:,} characters"})
    try:
        with transaction.atomic():
            adjudication = Adjudication.objects.create(
                project=task.project, task=task, by=by, submission_key=submission_key, outcome=outcome,
                ranking=ranking if decides and ranking else [], none_acceptable=decides and none_acceptable,
                rationale=rationale.strip(), blind=_was_blind(review), votes_seen_at=review and review.votes_seen_at,
                becomes_gold=decides and becomes_gold, note_to_guideline=note_to_guideline.strip(),
                supersedes=Adjudication.objects.filter(pk=supersedes, task=task).first() if supersedes else None,
            )  # fmt: skip
            after_adjudication(adjudication)
    except IntegrityError:
        if earlier := _settled_before(task, by, submission_key):
            return earlier
        standing = Adjudication.objects.select_related("by").filter(task=task, superseded_by=None).first()
        if standing is None:
            raise
        raise AlreadyAdjudicated(standing) from None
    return Settled(adjudication, is_new=True)


def after_adjudication(adjudication: Adjudication) -> None:
    """What follows from an outcome, within its transaction. Gold tasks are made here of those that may become one."""
    task = adjudication.task
    Disagreement.objects.filter(task=task).update(urgency=None)
    if adjudication.outcome == Adjudication.Outcome.UNFIT:
        # As with a reported prompt: no more of it is handed out, and what is being judged is still taken.
        Slot.objects.filter(task=task).update(position=None)
        Task.objects.filter(pk=task.pk).update(state=Task.State.CLOSED)
    elif adjudication.becomes_gold and adjudication.ranking:
        with suppress(BadGold):  # there is one over these completions, or the form asks for more than a ranking
            create_gold(
                project=adjudication.project, prompt=task.prompt, completion_ids=[pk for group in adjudication.ranking for pk in group],
                expected={"ranking": adjudication.ranking}, explanation=adjudication.rationale,
                written_by=adjudication.by, promoted_from=task,
            )  # fmt: skip
    outdate_report(adjudication.project)  # annotators are held against what was settled
    notify(adjudication.project.live_group, "adjudication")


def settle_note(*, adjudication: Adjudication, by: User, at: datetime | None = None) -> bool:
    """Tick off a note to the guideline. False: somebody had done so."""
    open_note = Adjudication.objects.filter(pk=adjudication.pk, note_settled_at=None)
    return bool(open_note.update(note_settled_at=at or now(), note_settled_by=by))


def _check_ranking(ranking: list[list[int]], completion_ids: Iterable[int]) -> None:
    if not all(ranking) or sorted(pk for group in ranking for pk in group) != sorted(completion_ids):
        raise BadOutcome({"ranking": "every completion must be ranked exactly once"})


def _was_blind(review: Review | None) -> bool:
    """Nobody knows what was seen by someone who wasn't on the page."""
    if review is None:
        return False
    return review.votes_seen_at is None or bool(review.said_at and review.said_at <= review.votes_seen_at)


def _settled_before(task: Task, by: User, submission_key: str) -> Settled | None:
    found = Adjudication.objects.filter(by=by, submission_key=submission_key).first()
    if found and found.task_id != task.pk:
        raise KeyReused("This submission key was used for another task: make a new key for each")
    return Settled(found, is_new=False) if found else None
