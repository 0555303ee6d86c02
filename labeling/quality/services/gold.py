"""Gold tasks, and what follows from how they are answered."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.utils.timezone import now
from django.utils.translation import gettext as _

from labeling.accounts.models import User
from labeling.annotation import reasons
from labeling.annotation.checks import Compared, Feedback
from labeling.annotation.models import Judgement, Task, TaskCompletion
from labeling.annotation.selectors import keys_of
from labeling.annotation.services import pause_member, reinstate_member, set_aside_judgements
from labeling.annotation.services.tasks import MOST_COMPLETIONS
from labeling.live.services import notify
from labeling.projects.feedback import least_completions
from labeling.projects.models import Completion, Membership, Project, Prompt
from labeling.projects.quality_settings import quality_of
from labeling.projects.text import canonical_json, content_hash, group_id, sha256
from labeling.quality.adjudication import in_letters
from labeling.quality.errors import BadGold
from labeling.quality.gold import (
    MOST_LOOKED_AT,
    Expected,
    is_surely_below,
    last_surely_good,
    pass_figure,
    score_of,
    scored_answers,
    unanimous_tasks,
)
from labeling.quality.models import GoldAnswer, QualificationAnswer

MAX_EXPLANATION = 4_000
MAX_TEXT = 50_000


# --- making gold --------------------------------------------------------------------------------
def create_gold(
    *,
    project: Project,
    prompt: Prompt,
    completion_ids: Sequence[int],
    expected: Expected,
    explanation: str = "",
    written_by: User | None = None,
    promoted_from: Task | None = None,
) -> GoldAnswer:
    """A gold task over completions of a prompt, which nobody has been shown as an ordinary one if it is to go unnoticed.

    Raises BadGold where the completions aren't the prompt's, what is expected doesn't fit the project's form, or there
    is a gold task over them.
    """
    ids = sorted(set(completion_ids))
    if prompt.completions.filter(pk__in=ids).count() != len(ids):
        raise BadGold({"completions": "must all be completions of the prompt"})
    least = max(1, least_completions(project.form))
    if not least <= len(ids) <= MOST_COMPLETIONS:
        raise BadGold({"completions": f"A task of this project shows {least} to {MOST_COMPLETIONS} completions"})
    checked = checked_expectation(project.form, ids, expected)
    try:
        with transaction.atomic():
            task = Task.objects.create(
                project=project, prompt=prompt, purpose=Task.Purpose.GOLD, overlap=1,
                content_hash=sha256(canonical_json([prompt.pk, ids, Task.Purpose.GOLD.value])),
            )  # fmt: skip
            TaskCompletion.objects.bulk_create([TaskCompletion(task=task, completion_id=pk) for pk in ids])
            return GoldAnswer.objects.create(
                task=task, project=project, expected=checked, explanation=_explanation(explanation),
                written_by=written_by, promoted_from=promoted_from,
            )  # fmt: skip
    except IntegrityError:
        raise BadGold({"completions": "There is a gold task over these completions already"}) from None


def write_gold(
    *,
    project: Project,
    messages: list[dict[str, str]],
    completions: Sequence[str],
    expected: dict[str, Any],
    explanation: str = "",
    written_by: User,
) -> GoldAnswer:
    """A gold task over texts written for it. `expected` names completions by their place, from 0.

    The completions have the writer as author: they come up in no other task, and not before the writer. Raises BadGold.
    """
    texts = [text.replace("\x00", "").strip() for text in completions]
    if len(set(texts)) < len(texts) or not all(texts) or any(len(text) > MAX_TEXT for text in texts):
        raise BadGold({"completions": f"must differ, and hold 1 to {MAX_TEXT:,} characters each"})
    if not messages or any(not message["content"].strip() or "\x00" in message["content"] for message in messages):
        raise BadGold({"prompt": "must not be empty"})
    with transaction.atomic():
        prompt, _made = Prompt.objects.get_or_create(
            project=project, content_hash=content_hash(messages),
            defaults={"messages": messages, "group_id": group_id(messages)},
        )  # fmt: skip
        ids = [
            Completion.objects.get_or_create(
                prompt=prompt, content_hash=sha256(text), author=written_by, defaults={"content": text}
            )[0].pk
            for text in texts
        ]
        try:
            by_id = _named_by(ids, expected)
        except (KeyError, ValueError, IndexError, TypeError, AttributeError):
            raise BadGold({"expected": "names completions that aren't there"}) from None
        return create_gold(
            project=project, prompt=prompt, completion_ids=ids, expected=by_id, explanation=explanation,
            written_by=written_by,
        )  # fmt: skip


def _named_by(names: Sequence[int], expected: dict[str, Any]) -> Expected:
    return {
        "ranking": [[names[int(place)] for place in group] for group in expected.get("ranking") or []],
        "ratings": {str(names[int(place)]): axes for place, axes in (expected.get("ratings") or {}).items()},
        "acceptable": {str(names[int(place)]): value for place, value in (expected.get("acceptable") or {}).items()},
    }


def promote_task(*, task: Task, by: User, least: int = 3) -> GoldAnswer:
    """Make a gold task of one that people judged alike. Raises BadGold where they didn't, or it is gold already."""
    for found, ranking, _n in unanimous_tasks(task.project, least=least, limit=MOST_LOOKED_AT):
        if found.pk == task.pk:
            ids = list(task.task_completions.values_list("completion_id", flat=True))
            return create_gold(
                project=task.project, prompt=task.prompt, completion_ids=ids, expected={"ranking": ranking},
                written_by=by, promoted_from=task,
            )  # fmt: skip
    raise BadGold({"task": f"is not one that {least} people or more ranked alike, or its prompt has a gold task"})


def change_gold(
    *,
    gold: GoldAnswer,
    expected: Expected | None = None,
    explanation: str | None = None,
    retired: bool | None = None,
    at: datetime | None = None,
) -> GoldAnswer:
    """Change what is expected (past answers are scored by it from now on) or explained; retire it or take it back."""
    if expected is not None:
        ids = list(gold.task.task_completions.values_list("completion_id", flat=True))
        gold.expected = checked_expectation(gold.project.form, ids, expected)
    if explanation is not None:
        gold.explanation = _explanation(explanation)
    with transaction.atomic():
        if retired is not None and retired != bool(gold.retired_at):
            gold.retired_at = (at or now()) if retired else None
            gold.task.state = Task.State.CLOSED if retired else Task.State.OPEN
            gold.task.save(update_fields=["state"])
        gold.save(update_fields=["expected", "explanation", "retired_at"])
    return gold


def checked_expectation(form: dict[str, Any], ids: Sequence[int], expected: Any) -> Expected:
    """What a gold task expects in its full shape. Raises BadGold naming the parts that don't fit the form."""
    if not isinstance(expected, dict) or expected.keys() - {"ranking", "ratings", "acceptable"}:
        raise BadGold({"expected": "must be an object of ranking, ratings and acceptable"})
    wrong: dict[str, str] = {}
    ranking, ratings = expected.get("ranking") or [], expected.get("ratings") or {}
    acceptable = expected.get("acceptable") or {}
    known = {str(pk) for pk in ids}
    if ranking:
        groups = ranking if isinstance(ranking, list) and all(isinstance(group, list) for group in ranking) else [[]]
        if not form["ranking"]:
            wrong["ranking"] = "is not asked for by this project's form"
        elif sorted(pk for group in groups for pk in group if type(pk) is int) != sorted(ids) or not all(groups):
            wrong["ranking"] = "must hold every completion once, best first"
        elif not form["ties"] and any(len(group) > 1 for group in groups):
            wrong["ranking"] = "this project's form allows no ties"
        elif len(ids) < 2:
            wrong["ranking"] = "needs two completions"
    full_ratings: dict[str, dict[str, dict[str, int]]] = {}
    if not isinstance(ratings, dict) or ratings.keys() - known:
        wrong["ratings"] = "must be an object with the completions' keys"
    else:
        for completion, axes in ratings.items():
            for axis, wanted in axes.items() if isinstance(axes, dict) else [("", None)]:
                scale = form["ratings"].get(axis)
                if scale is None:
                    wrong["ratings"] = f"{axis!r} is not an axis of this project's form"
                    continue
                value = wanted.get("value") if isinstance(wanted, dict) else wanted
                within = wanted.get("within", 0) if isinstance(wanted, dict) else 0
                if type(value) is not int or not scale["low"] <= value <= scale["high"]:
                    wrong["ratings"] = f"{axis} must be a whole number from {scale['low']} to {scale['high']}"
                elif type(within) is not int or not 0 <= within < scale["high"] - scale["low"]:
                    wrong["ratings"] = f"{axis}: within must be a whole number of steps, fewer than the scale has"
                else:
                    full_ratings.setdefault(completion, {})[axis] = {"value": value, "within": within}
    if not isinstance(acceptable, dict) or acceptable.keys() - known:
        wrong["acceptable"] = "must be an object with the completions' keys"
    elif not all(isinstance(value, bool) for value in acceptable.values()):
        wrong["acceptable"] = "must be true or false"
    elif acceptable and not form["acceptable"]:
        wrong["acceptable"] = "is not asked for by this project's form"
    if not wrong and not (ranking or full_ratings or acceptable):
        wrong["expected"] = "must say something: a ranking, ratings or what is acceptable"
    if wrong:
        raise BadGold(wrong)
    return {"ranking": ranking, "ratings": full_ratings, "acceptable": acceptable}


def _explanation(text: str) -> str:
    text = text.replace("\r\n", "\n").strip()
    if len(text) > MAX_EXPLANATION or "\x00" in text:
        raise BadGold({"explanation": f"must be a text of at most {MAX_EXPLANATION:,} characters"})
    return text


# --- what follows from an answer ----------------------------------------------------------------
def gold_answered(judgement: Judgement) -> Feedback | None:
    """Look at the person again now that they answered a gold task: pause them, or tell them how their round goes.

    Only who is qualifying gets feedback. Sent again, an answer gives the same feedback and changes nothing.
    """
    if feedback := told(judgement):
        return feedback
    membership = (
        Membership.objects.select_related("project")
        .filter(project=judgement.project_id, user=judgement.annotator_id)
        .first()
    )
    if membership is None:
        return None
    if membership.state == Membership.State.QUALIFYING:
        return _qualify(membership, judgement)
    if membership.state == Membership.State.ACTIVE:
        check_member(membership=membership)
    return None


def check_member(*, membership: Membership, at: datetime | None = None) -> bool:
    """Pause the person if the gold answers in the window say so, and set aside what they judged since they were good.

    Counted are answers since they were let in or reinstated. What is set aside begins after the last answer at which
    they were surely at or above the bound, at most `requeue_days` ago. Returns whether they were paused. Three
    statements where they were not.
    """
    at = at or now()
    settings = quality_of(membership.project.quality)
    if not settings["gold_bound"]:
        return False
    answers = scored_answers(membership.project, membership.user_id, since=membership.state_at, n=MOST_LOOKED_AT)
    window = [score for _, score in answers[-settings["gold_window"] :]]
    figure = pass_figure(window, settings["gold_pass"])
    if not is_surely_below(figure, bound=settings["gold_bound"], least=settings["gold_least"]):
        return False
    good_at = last_surely_good(
        answers, passes_from=settings["gold_pass"], bound=settings["gold_bound"], window=settings["gold_window"]
    )
    starts = [at - timedelta(days=settings["requeue_days"]), good_at, membership.state_at]
    reason = reasons.GOLD % {"n": figure["n"], "right": round(figure["value"] * figure["n"])}
    with transaction.atomic():
        if not pause_member(membership=membership, reason=reason, at=at):
            return False
        if settings["requeue_days"]:
            set_aside_judgements(
                project=membership.project, annotator=membership.user, reason=reason, at=at,
                since=max(start for start in starts if start is not None),
            )  # fmt: skip
    return True


def _qualify(membership: Membership, judgement: Judgement) -> Feedback | None:
    """Record the answer as the next one of the round, and at its end let the person in or pause them."""
    settings = quality_of(membership.project.quality)
    at = now()
    with transaction.atomic():
        # Two answers at once: the second counts on the first. On SQLite the transaction holds the write lock.
        held = Membership.objects.select_for_update(no_key=True).filter(
            pk=membership.pk, state=Membership.State.QUALIFYING
        )
        member = held.first()
        gold = GoldAnswer.objects.filter(task=judgement.task.repeats_id).first()
        if member is None or gold is None:
            return told(judgement)
        if member.state_at and judgement.lease.created_at < member.state_at:
            return None  # given to them before the round began
        earlier = QualificationAnswer.objects.filter(project=member.project_id, annotator=member.user_id)
        if member.state_at:
            earlier = earlier.filter(at__gte=member.state_at)
        known = list(earlier.values_list("judgement_id", "is_right"))
        if judgement.pk in dict(known):
            return told(judgement)
        score = score_of(gold.expected, judgement.ranking, judgement.feedback)
        is_right = score >= settings["gold_pass"]
        number, n_right = len(known) + 1, sum(right for _, right in known) + is_right
        n = max(settings["qualification"]["n"], 1)
        needed = math.ceil(n * settings["qualification"]["pass"] - 1e-9)
        outcome = "going on" if number < n else "passed" if n_right >= needed else "failed"
        QualificationAnswer.objects.create(
            judgement=judgement, project_id=member.project_id, annotator_id=member.user_id, score=score,
            is_right=is_right, number=number, n=n, n_right=n_right, outcome=outcome, at=at,
        )  # fmt: skip
        member.project = membership.project
        if outcome == "passed":
            reinstate_member(membership=member, at=at)
        elif outcome == "failed":
            pause_member(
                membership=member, reason=reasons.QUALIFICATION % {"n": n, "right": n_right, "needed": needed}, at=at
            )
        notify(membership.project.live_group, "members")
    return told(judgement)


# --- what the person is told --------------------------------------------------------------------
def told(judgement: Judgement) -> Feedback | None:
    """The feedback on an answer given while qualifying; None for any other, so that hidden ones stay hidden."""
    answer = QualificationAnswer.objects.filter(judgement=judgement.pk).first()
    gold = GoldAnswer.objects.filter(task=judgement.task.repeats_id).first() if answer else None
    if answer is None or gold is None:
        return None
    return Feedback(
        is_right=answer.is_right, score=answer.score, compared=compared(gold.expected, judgement),
        explanation=gold.explanation, number=answer.number, n=answer.n, n_right=answer.n_right, outcome=answer.outcome,
    )  # fmt: skip


def compared(expected: Expected, judgement: Judgement) -> list[Compared]:
    """Line by line what was said and what was expected, completions named by the keys that were shown."""
    keys = {pk: key for key, pk in keys_of(judgement.order_shown).items()}
    nothing = _("nothing")
    lines = []
    if ranking := expected.get("ranking"):
        is_right = score_of({"ranking": ranking}, judgement.ranking, {}) == 1
        said = in_letters(judgement.ranking, judgement.order_shown) or nothing
        lines.append(Compared(_("Ranking"), said, in_letters(ranking, judgement.order_shown), is_right))
    for pk, axes in expected.get("ratings", {}).items():
        for axis, wanted in axes.items():
            given = (judgement.feedback.get("ratings", {}).get(pk) or {}).get(axis)
            low, high = wanted["value"] - wanted["within"], wanted["value"] + wanted["within"]
            words = str(low) if low == high else _("%(low)s to %(high)s") % {"low": low, "high": high}
            asked = _("%(axis)s of %(key)s") % {"axis": axis, "key": keys[int(pk)]}
            is_right = given is not None and low <= given <= high
            lines.append(Compared(asked, nothing if given is None else str(given), words, is_right))
    for pk, wanted in expected.get("acceptable", {}).items():
        given = judgement.feedback.get("acceptable", {}).get(pk)
        words = {True: _("yes"), False: _("no"), None: nothing}
        asked = _("%(key)s is acceptable") % {"key": keys[int(pk)]}
        lines.append(Compared(asked, words[given], words[wanted], given is wanted))
    return lines
