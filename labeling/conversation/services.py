"""Holding a conversation, and generating its turns. The database decides who generates and what counts."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F, Q
from django.utils.timezone import now
from django.utils.translation import gettext as _

from labeling.accounts.models import User
from labeling.annotation.models import Lease, Task
from labeling.annotation.selectors import cap_reached, prompts_for_data
from labeling.annotation.services import open_leased_task
from labeling.conversation.errors import (
    BadSettings,
    ClaimLost,
    ConversationOver,
    KeyReused,
    NothingToRepeat,
    NotSetUp,
    TooMuchAtOnce,
    TurnOpen,
)
from labeling.conversation.models import Conversation, ConversationSettings, Turn
from labeling.conversation.selectors import (
    LOST_AFTER_SECONDS,
    choice_of,
    latest_turn,
    messages_of,
    model_servers,
    settings_of,
)
from labeling.conversation.speakers import draw_two, read_speakers
from labeling.live.services import notify
from labeling.projects.models import Completion, Project, Prompt
from labeling.projects.text import content_hash, group_id, sha256

MAX_CONTENT = 20_000
MAX_TURNS = 100
MAX_GENERATING = 3  # turns of one annotator under way at once: each keeps a model busy
OPENING_SAMPLE = 200
SOURCE = "conversation"


# --- settings -----------------------------------------------------------------------------------
def change_settings(*, project: Project, **changes: Any) -> ConversationSettings:
    """Change is_on, speakers, system, max_turns, note or opening. Raises BadSettings naming the field."""
    wrong: dict[str, str] = {}
    current = settings_of(project)
    if "speakers" in changes:
        if changes["speakers"] == []:
            speakers, problem = [], ""
        else:
            speakers, problem = read_speakers(changes["speakers"], model_servers())
        if problem:
            wrong["speakers"] = problem
        changes["speakers"] = [one.as_json for one in speakers]
    if not 1 <= changes.get("max_turns", current.max_turns) <= MAX_TURNS:
        wrong["max_turns"] = f"must lie between 1 and {MAX_TURNS}"
    for name in ("system", "note"):
        if len(changes.get(name, "")) > MAX_CONTENT or "\x00" in changes.get(name, ""):
            wrong[name] = f"must be a text of at most {MAX_CONTENT} characters"
    if changes.get("opening", current.opening) not in ConversationSettings.Opening.values:
        wrong["opening"] = "must be one of " + ", ".join(ConversationSettings.Opening.values)
    if changes.get("is_on", current.is_on) and not wrong:
        if not changes.get("speakers", current.speakers):
            wrong["speakers"] = "needs at least two speakers before conversations are switched on"
        elif not project.form["ranking"]:
            wrong["is_on"] = "the feedback form must ask for a ranking: it says which completion goes on"
    if wrong:
        raise BadSettings(wrong)
    with transaction.atomic():
        found, _made = ConversationSettings.objects.update_or_create(project=project, defaults=changes)
        notify(project.live_group, "project")
    return found


# --- conversations ------------------------------------------------------------------------------
def start_conversation(*, project: Project, annotator: User, client_key: str) -> Conversation:
    """Begin one; the same key again is the same conversation. Raises NotSetUp."""
    if earlier := Conversation.objects.filter(annotator=annotator, client_key=client_key).first():
        if earlier.project_id != project.pk:
            raise KeyReused(_("This key was used in another project"))
        return earlier
    found = _settings_in_use(project)
    prompt = _opening_prompt(project, annotator) if found.opening == ConversationSettings.Opening.PROMPTS else None
    opening = list(prompt.messages[:-1]) if prompt else []
    if found.system and not any(message["role"] == "system" for message in opening):
        opening.insert(0, {"role": "system", "content": found.system})
    try:
        with transaction.atomic():
            return Conversation.objects.create(
                project=project, annotator=annotator, client_key=client_key, prompt=prompt, opening=opening,
                suggestion=prompt.messages[-1]["content"] if prompt else "",
                group_id=prompt.group_id if prompt else "", max_turns=found.max_turns,
            )  # fmt: skip
    except IntegrityError:
        return Conversation.objects.get(annotator=annotator, client_key=client_key)


def _settings_in_use(project: Project) -> ConversationSettings:
    found = settings_of(project)
    if not found.is_on:
        raise NotSetUp(_("This project has no conversations: its lead switches them on"))
    if project.state != Project.State.OPEN:
        raise NotSetUp(_("This project is paused: conversations go on when its lead opens it again"))
    return found


def _opening_prompt(project: Project, annotator: User) -> Prompt | None:
    """One that the person has not begun from yet; None where there is none."""
    used = Conversation.objects.filter(annotator=annotator, project=project).exclude(prompt=None)
    free = prompts_for_data(project).exclude(source=SOURCE).exclude(pk__in=used.values("prompt"))
    ids = list(free.order_by("pk").values_list("pk", flat=True)[:OPENING_SAMPLE])
    return Prompt.objects.get(pk=random.SystemRandom().choice(ids)) if ids else None


def end_conversation(*, conversation: Conversation, reason: str = "", at: datetime | None = None) -> None:
    """Nothing more is said in it; what was judged stays. A turn under way is stopped. Ending twice does nothing."""
    at = at or now()
    with transaction.atomic():
        settle(conversation)
        ended = Conversation.objects.filter(pk=conversation.pk, state=Conversation.State.OPEN).update(
            state=Conversation.State.ENDED, ending=reason.replace("\x00", "")[:300], ended_at=at
        )
        if ended:
            conversation.turns.filter(state=Turn.State.GENERATING).update(
                state=Turn.State.FAILED, problem="stopped", epoch=F("epoch") + 1, closed_at=at
            )
    conversation.refresh_from_db()


# --- turns --------------------------------------------------------------------------------------
def settle(conversation: Conversation) -> Turn | None:
    """Take note of what became of the latest turn's comparison; returns that turn.

    Judgements are made by another app, which knows nothing of conversations, so whoever looks at one asks here. A
    revised judgement changes which completion goes on for as long as nothing was said after it.
    """
    turn = latest_turn(conversation)
    if turn is None or turn.lease is None or turn.state not in (Turn.State.READY, Turn.State.JUDGED):
        return turn
    choice = choice_of(turn.lease)
    if choice is not None:
        noted = {
            "state": Turn.State.JUDGED,
            "continued_with_id": choice.completion_id,
            "continued_text": choice.text,
            "problem": "none_good" if choice.none_good else "",
        }
    elif turn.lease.state == Lease.State.SKIPPED:
        noted = {"state": Turn.State.FAILED, "problem": "skipped"}
    else:
        return turn
    if any(getattr(turn, name) != value for name, value in noted.items()):
        Turn.objects.filter(pk=turn.pk).update(**noted)
        for name, value in noted.items():
            setattr(turn, name, value)
    return turn


def start_turn(*, conversation: Conversation, content: str, client_key: str) -> Turn:
    """Say something. The message is stored at once; a live process generates both completions.

    The same key again gives the same turn. After a turn that failed, another message takes its place.
    Raises KeyReused, TurnOpen, ConversationOver, NotSetUp and TooMuchAtOnce.
    """
    content = content.replace("\x00", "\ufffd")
    if earlier := _turn_of_key(conversation, client_key, content):
        return earlier
    found = _settings_in_use(conversation.project)
    before = settle(conversation)
    _refuse_if_over(conversation)
    number, attempt = 1, 1
    if before is not None:
        if before.state in (Turn.State.GENERATING, Turn.State.READY):
            # The same message, sent twice at one moment: the other request was faster.
            if earlier := _turn_of_key(conversation, client_key, content):
                return earlier
            raise TurnOpen(_("Judge the turn before first: which completion goes on?"))
        failed = before.state == Turn.State.FAILED
        number, attempt = (before.number, before.attempt + 1) if failed else (before.number + 1, 1)
    if number > conversation.max_turns:
        raise ConversationOver(_("This conversation has all its turns: end it and begin another"))
    return _create_turn(conversation, found, number, attempt, content, client_key)


def sample_again(*, turn: Turn) -> Turn:
    """Both completions once more: of a turn that failed, or whose completions were both called bad.

    Asking twice is asking once. Raises NothingToRepeat, ConversationOver, NotSetUp and TooMuchAtOnce.
    """
    conversation = turn.conversation
    latest = settle(conversation)
    if latest is None or (latest.number, latest.attempt) != (turn.number, turn.attempt):
        if latest is not None and latest.client_key == f"again:{turn.pk}":
            return latest
        raise NothingToRepeat(_("Something was said after this turn: it stays as it is"))
    if latest.state == Turn.State.GENERATING:
        return latest
    found = _settings_in_use(conversation.project)
    _refuse_if_over(conversation)
    if latest.state == Turn.State.FAILED:
        _refuse_too_much(conversation)
        Turn.objects.filter(pk=latest.pk, state=Turn.State.FAILED).update(
            state=Turn.State.GENERATING, problem="", problem_detail="", speakers=draw_two(found.speakers), texts=[],
            stop_requested=False, lease=None, owner="", heartbeat_at=None, epoch=F("epoch") + 1, closed_at=None,
        )  # fmt: skip
        return Turn.objects.select_related("conversation__project").get(pk=latest.pk)
    if latest.state == Turn.State.JUDGED and latest.problem == "none_good":
        return _create_turn(
            conversation, found, latest.number, latest.attempt + 1, latest.content, f"again:{latest.pk}"
        )
    raise NothingToRepeat(_("Judge this turn first; if both are bad, say so, and both are sampled again"))


def _create_turn(
    conversation: Conversation, found: ConversationSettings, number: int, attempt: int, content: str, client_key: str
) -> Turn:
    _refuse_too_much(conversation)
    try:
        with transaction.atomic():
            if number == 1 and not conversation.group_id:
                opened = [*conversation.opening, {"role": "user", "content": content}]
                conversation.group_id = group_id(opened)
                Conversation.objects.filter(pk=conversation.pk).update(group_id=conversation.group_id)
            return Turn.objects.create(
                conversation=conversation, number=number, attempt=attempt, client_key=client_key, content=content,
                speakers=draw_two(found.speakers),
            )  # fmt: skip
    except IntegrityError:
        if earlier := _turn_of_key(conversation, client_key, content):
            return earlier
        raise TurnOpen(_("Something else was said at the same moment, perhaps in another tab")) from None


def _turn_of_key(conversation: Conversation, client_key: str, content: str) -> Turn | None:
    found = conversation.turns.filter(client_key=client_key).first()
    if found is not None and found.content != content:
        raise KeyReused(_("This key was used for another message: make a new key for each"))
    return found


def _refuse_if_over(conversation: Conversation) -> None:
    conversation.refresh_from_db(fields=["state"])
    if not conversation.is_open:
        raise ConversationOver(_("This conversation has ended: begin another"))


def _refuse_too_much(conversation: Conversation) -> None:
    mine = Turn.objects.filter(conversation__annotator=conversation.annotator_id, state=Turn.State.GENERATING)
    if mine.count() >= MAX_GENERATING:
        raise TooMuchAtOnce(_("Too many of your completions are being written just now: wait for one"))
    if cap_reached(conversation.annotator, conversation.project, now()):
        raise TooMuchAtOnce(_("You have seen as much today as this project allows: go on tomorrow"))


def request_stop(*, turn: Turn) -> None:
    """Cut both completions where they are. The process that generates them does so at its next heartbeat."""
    Turn.objects.filter(pk=turn.pk, state=Turn.State.GENERATING).update(stop_requested=True)


# --- generating ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class Claim:
    """A turn that this process may generate, for as long as its epoch stands."""

    turn_id: int
    epoch: int
    messages: list[dict[str, str]]
    speakers: list[dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """One completion as it ended: `finish_reason` as servers say it, `stopped` where the annotator cut it."""

    text: str
    finish_reason: str
    stopped: bool = False


def claim_turn(*, turn_id: int, owner: str, at: datetime | None = None) -> Claim | None:
    """Take a turn that nobody works on. None where another was faster. Of two callers only one gets it."""
    at = at or now()
    lost = at - timedelta(seconds=LOST_AFTER_SECONDS)
    free = Turn.objects.filter(
        Q(heartbeat_at=None) | Q(heartbeat_at__lte=lost), pk=turn_id, state=Turn.State.GENERATING
    )
    if not free.update(owner=owner[:80], heartbeat_at=at, epoch=F("epoch") + 1, texts=[]):
        return None
    turn = Turn.objects.select_related("conversation").get(pk=turn_id)
    if turn.owner != owner[:80] or turn.state != Turn.State.GENERATING:
        return None
    return Claim(turn.pk, turn.epoch, messages_of(turn), turn.speakers)


def keep_claim(*, claim: Claim, texts: Sequence[str], at: datetime | None = None) -> bool:
    """The heartbeat: keeps what was shown so far; returns whether a stop was asked for. Raises ClaimLost."""
    if not _claimed(claim).update(heartbeat_at=at or now(), texts=list(texts)):
        raise ClaimLost(f"turn {claim.turn_id} is not ours any more")
    return Turn.objects.values_list("stop_requested", flat=True).get(pk=claim.turn_id)


def give_up_claim(*, claim: Claim) -> None:
    """This process is ending: let another take the turn at once."""
    _claimed(claim).update(owner="", heartbeat_at=None)


def fail_turn(*, claim: Claim, problem: str, detail: str = "", at: datetime | None = None) -> None:
    """Raises ClaimLost."""
    failed = _claimed(claim).update(
        state=Turn.State.FAILED, problem=problem, problem_detail=detail[:2000], closed_at=at or now()
    )
    if not failed:
        raise ClaimLost(f"turn {claim.turn_id} is not ours any more")


def finish_turn(*, claim: Claim, outcomes: Sequence[Outcome], at: datetime | None = None) -> Lease | None:
    """Store both completions as a comparison, leased to the annotator in the order shown.

    None where there is nothing to compare: equal texts or an empty one fail the turn. Raises ClaimLost.
    """
    at = at or now()
    texts = [outcome.text.strip() for outcome in outcomes]
    if not all(texts):
        stopped = any(outcome.stopped for outcome in outcomes)
        fail_turn(claim=claim, problem="stopped" if stopped else "empty", at=at)
        return None
    if texts[0] == texts[1]:
        fail_turn(claim=claim, problem="equal", at=at)
        return None
    with transaction.atomic():
        if not _claimed(claim).update(state=Turn.State.READY, texts=texts, closed_at=at):
            raise ClaimLost(f"turn {claim.turn_id} is not ours any more")
        turn = Turn.objects.select_related("conversation__project", "conversation__annotator").get(pk=claim.turn_id)
        conversation = turn.conversation
        prompt = _prompt_of(conversation, claim.messages)
        ids = []
        for speaker, outcome, text in zip(claim.speakers, outcomes, texts, strict=True):
            completion, _made = Completion.objects.get_or_create(
                prompt=prompt, content_hash=sha256(text), model_key=speaker["model_key"], author=None,
                defaults={"content": text, "sampling": _sampling(speaker, outcome, turn)},
            )  # fmt: skip
            ids.append(completion.pk)
        lease = open_leased_task(
            project=conversation.project, prompt=prompt, completion_ids=ids, annotator=conversation.annotator,
            kind=Task.CONVERSATION, order=ids, at=at,
        )  # fmt: skip
        Turn.objects.filter(pk=turn.pk).update(lease=lease)
    return lease


def _prompt_of(conversation: Conversation, messages: list[dict[str, str]]) -> Prompt:
    prompt, _made = Prompt.objects.get_or_create(
        project=conversation.project, content_hash=content_hash(messages),
        defaults={
            "messages": messages, "group_id": conversation.group_id, "source": SOURCE, "tags": [SOURCE],
            "licence": conversation.prompt.licence if conversation.prompt else "",
        },
    )  # fmt: skip
    return prompt


def _sampling(speaker: dict[str, Any], outcome: Outcome, turn: Turn) -> dict[str, Any]:
    return {
        "temperature": speaker["temperature"],
        "top_p": speaker["top_p"],
        "max_new_tokens": speaker["max_tokens"],
        "seed": speaker["seed"],
        "server": speaker["server"],
        "model": speaker["model"],
        "finished": outcome.finish_reason == "stop",
        "stopped_by_annotator": outcome.stopped,
        "conversation": turn.conversation.public_id,
        "turn": turn.number,
    }


def _claimed(claim: Claim) -> Any:
    return Turn.objects.filter(pk=claim.turn_id, epoch=claim.epoch, state=Turn.State.GENERATING)
