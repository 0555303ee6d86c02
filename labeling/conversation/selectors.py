"""What a person may see of conversations: their own, in projects where they still annotate."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Count, Q, QuerySet
from django.utils.timezone import now

from labeling.accounts.models import User
from labeling.accounts.roles import ANNOTATING
from labeling.annotation.models import Judgement, Lease
from labeling.conversation.models import Conversation, ConversationSettings, Turn
from labeling.projects.models import Project
from labeling.projects.selectors import projects_of

Message = dict[str, str]

LOST_AFTER_SECONDS = 6.0


def conversations_of(user: User) -> QuerySet[Conversation]:
    """The person's own conversations, newest first."""
    return (
        Conversation.objects.filter(annotator=user, project__in=projects_of(user, roles=ANNOTATING))
        .select_related("project", "prompt")
        .order_by("-pk")
    )


def settings_of(project: Project) -> ConversationSettings:
    """Those of the project; unsaved ones, switched off, where it has none yet."""
    return ConversationSettings.objects.filter(project=project).first() or ConversationSettings(project=project)


def has_conversations(project: Project) -> bool:
    return ConversationSettings.objects.filter(project=project, is_on=True).exists()


def model_servers() -> dict[str, dict[str, str]]:
    """The servers that the operator named, each with `url` and `key`. Never shown to annotators."""
    return settings.MODEL_SERVERS


def latest_turn(conversation: Conversation) -> Turn | None:
    return conversation.turns.order_by("-number", "-attempt").first()


def standing_turns(conversation: Conversation) -> list[Turn]:
    """One a number, the last attempt, in order."""
    last: dict[int, Turn] = {}
    for turn in conversation.turns.select_related("lease").order_by("number", "attempt"):
        last[turn.number] = turn
    return list(last.values())


def shown_opening(conversation: Conversation) -> list[Message]:
    """The messages before the first turn as the annotator may see them: a project may hide its system prompt."""
    hides = conversation.project.bench["system_prompts"] == "hidden"
    return [message for message in conversation.opening if not (hides and message["role"] == "system")]


def messages_before(conversation: Conversation, number: int) -> list[Message]:
    """What was said before this turn: the opening, and of each turn the message and the completion that went on."""
    messages = list(conversation.opening)
    for turn in standing_turns(conversation):
        if turn.number < number:
            messages.append({"role": "user", "content": turn.content})
            messages.append({"role": "assistant", "content": turn.continued_text})
    return messages


def messages_of(turn: Turn) -> list[Message]:
    """The prompt of the turn's comparison."""
    before = messages_before(turn.conversation, turn.number)
    return [*before, {"role": "user", "content": turn.content}]


def turns_to_generate(at: datetime | None = None, limit: int = 50) -> list[int]:
    """Turns that nobody works on: new ones, and those whose process has not been heard of for a while."""
    lost = (at or now()) - timedelta(seconds=LOST_AFTER_SECONDS)
    waiting = Turn.objects.filter(Q(heartbeat_at=None) | Q(heartbeat_at__lte=lost), state=Turn.State.GENERATING)
    return list(waiting.order_by("pk").values_list("pk", flat=True)[:limit])


@dataclass(frozen=True)
class Choice:
    """Which completion a judgement lets go on, and as which text. `none_good`: both were called bad."""

    completion_id: int
    text: str
    none_good: bool


def choice_of(lease: Lease) -> Choice | None:
    """From the lease's standing judgement: the best one, of equals the first shown, in the words it was corrected to."""
    judgement = Judgement.objects.current().filter(lease=lease).order_by("-pk").first()
    if judgement is None:
        return None
    best = judgement.ranking[0] if judgement.ranking else judgement.order_shown
    chosen = next(pk for pk in judgement.order_shown if pk in best)
    corrected = _corrections(judgement)
    text = corrected.get(chosen)
    if text is None and judgement.feedback.get("none_acceptable") and len(corrected) == 1:
        # Both were bad and one was rewritten: those words go on.
        chosen, text = next(iter(corrected.items()))
    if text is None:
        text = lease.task.completions.values_list("content", flat=True).get(pk=chosen)
    return Choice(chosen, text, bool(judgement.feedback.get("none_acceptable")))


def _corrections(judgement: Judgement) -> dict[int, str]:
    found: dict[int, str] = {}
    given: dict[str, Any] = judgement.feedback.get("corrections") or {}
    for pk, text in given.items():
        if isinstance(text, str) and text.strip():
            found[int(pk)] = text
    return found


@dataclass(frozen=True)
class Talk:
    """How much of a project is conversation."""

    n_conversations: int
    n_open: int
    n_turns: int
    n_judged: int
    n_failed: int


def talk_figures(project: Project) -> Talk:
    conversations = Conversation.objects.filter(project=project).aggregate(
        all=Count("pk"), open=Count("pk", filter=Q(state=Conversation.State.OPEN))
    )
    turns = Turn.objects.filter(conversation__project=project).aggregate(
        all=Count("pk"),
        judged=Count("pk", filter=Q(state=Turn.State.JUDGED)),
        failed=Count("pk", filter=Q(state=Turn.State.FAILED)),
    )
    return Talk(conversations["all"], conversations["open"], turns["all"], turns["judged"], turns["failed"])


def recent_problems(project: Project, limit: int = 10) -> list[Turn]:
    """Turns that failed for what a server did, newest first, for leads."""
    failed = Turn.objects.filter(conversation__project=project, state=Turn.State.FAILED).exclude(problem_detail="")
    return list(failed.order_by("-pk")[:limit])
