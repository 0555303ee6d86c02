"""Pages of annotators: their conversations, and one of them.

The page's script asks for `state` after everything that changes it: what was said, and the turn in hand as text
that grows, as a task to be judged, or as what went wrong.
"""

import secrets
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labeling.annotation.bench import Bench, figures_of
from labeling.annotation.models import Lease, PromptReport, Task
from labeling.annotation.reading import change_to_read, projects_at_work
from labeling.annotation.selectors import judgements_by
from labeling.annotation.views import bench as ordinary_bench
from labeling.conversation.errors import ConversationError, sentence_for
from labeling.conversation.forms import KeyForm, MessageForm
from labeling.conversation.models import Conversation, Turn
from labeling.conversation.selectors import (
    conversations_of,
    has_conversations,
    settings_of,
    shown_opening,
    standing_turns,
)
from labeling.conversation.services import (
    end_conversation,
    request_stop,
    sample_again,
    settle,
    start_conversation,
    start_turn,
)
from labeling.projects.models import Project
from labeling.projects.text import sha256

MOST_LISTED = 100


@login_required
@require_safe
def bench_or_conversations(request: HttpRequest, slug: str) -> HttpResponse:
    """The bench's own address. `?tasks=1` asks for its ordinary tasks all the same."""
    project = get_object_or_404(projects_at_work(request.user), slug=slug)
    if "tasks" in request.GET or not has_conversations(project) or not _has_agreed(request, project):
        return ordinary_bench(request, slug)
    going_on = conversations_of(request.user).filter(project=project, state=Conversation.State.OPEN).first()
    if going_on is not None:
        return redirect("conversation:conversation", slug, going_on.public_id)
    if change_to_read(request.user, project):
        return ordinary_bench(request, slug)
    return redirect("conversation:list", slug)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def conversations(request: HttpRequest, slug: str) -> HttpResponse:
    """One's own conversations in this project, and the way to begin one."""
    project = get_object_or_404(projects_at_work(request.user), slug=slug)
    if not _has_agreed(request, project):
        return redirect("annotation:bench", slug)
    if request.method == "POST":
        if change_to_read(request.user, project):
            return redirect(f"{reverse('annotation:bench', args=[slug])}?tasks=1")
        form = KeyForm(request.POST)
        key = form.cleaned_data["client_key"] if form.is_valid() else secrets.token_hex(16)
        try:
            begun = start_conversation(project=project, annotator=request.user, client_key=key)
        except ConversationError as error:
            messages.warning(request, str(error))
            return redirect("conversation:list", slug)
        return redirect("conversation:conversation", slug, begun.public_id)
    mine = conversations_of(request.user).filter(project=project)
    rows = mine.annotate(n_judged=Count("turns", filter=Q(turns__state=Turn.State.JUDGED)))[:MOST_LISTED]
    first_words = dict(
        Turn.objects.filter(conversation__in=[row.pk for row in rows], number=1)
        .order_by("attempt")
        .values_list("conversation", "content")
    )
    for row in rows:
        row.first_words = first_words.get(row.pk, row.suggestion)
    context = {
        "project": project,
        "section": "bench",
        "settings": settings_of(project),
        "rows": rows,
        "client_key": secrets.token_hex(16),
        "has_tasks": project.tasks.filter(state=Task.State.OPEN).exclude(kind=Task.CONVERSATION).exists(),
    }
    return render(request, "conversation/list.html", context)


@login_required
@require_safe
def conversation(request: HttpRequest, slug: str, conversation_id: str) -> HttpResponse:
    found = _conversation_or_404(request, slug, conversation_id)
    if not _has_agreed(request, found.project):
        return redirect("annotation:bench", slug)
    project = found.project
    context = {
        "project": project,
        "section": "bench",
        "conversation": found,
        "settings": settings_of(project),
        "state": _state_of(request, found),
        "figures": figures_of(request.user, project),
        "skip_reasons": Lease.SkipReason.choices,
        "report_reasons": PromptReport.Reason.choices,
        "client_key": secrets.token_hex(16),
        "last": judgements_by(request.user).filter(project=project).first() if project.allows_revision else None,
    }
    return render(request, "conversation/conversation.html", context)


@login_required
@require_safe
def state(request: HttpRequest, slug: str, conversation_id: str) -> HttpResponse:
    return JsonResponse(_state_of(request, _conversation_or_404(request, slug, conversation_id)))


@login_required
@require_POST
def speak(request: HttpRequest, slug: str, conversation_id: str) -> HttpResponse:
    """Say something; the same key again says nothing more."""
    found = _conversation_or_404(request, slug, conversation_id)
    form = MessageForm(request.POST)
    if not form.is_valid():
        problems = "; ".join(" ".join(problems) for problems in form.errors.values())
        return JsonResponse({"state": "invalid", "message": problems}, status=422)
    return _changed(request, found, lambda: start_turn(conversation=found, **form.cleaned_data))


@login_required
@require_POST
def again(request: HttpRequest, slug: str, conversation_id: str, number: int) -> HttpResponse:
    found = _conversation_or_404(request, slug, conversation_id)
    turn = _turn_or_404(found, number)
    return _changed(request, found, lambda: sample_again(turn=turn))


@login_required
@require_POST
def stop(request: HttpRequest, slug: str, conversation_id: str, number: int) -> HttpResponse:
    found = _conversation_or_404(request, slug, conversation_id)
    turn = _turn_or_404(found, number)
    return _changed(request, found, lambda: request_stop(turn=turn))


@login_required
@require_POST
def end(request: HttpRequest, slug: str, conversation_id: str) -> HttpResponse:
    found = _conversation_or_404(request, slug, conversation_id)
    end_conversation(conversation=found, reason=request.POST.get("reason", "")[:300])
    return redirect("conversation:list", slug)


# --- shared -------------------------------------------------------------------------------------
def _has_agreed(request: HttpRequest, project: Project) -> bool:
    """To the project's content warning, if it has one: the bench shows it and asks."""
    warning = project.bench["content_warning"]
    return not warning or project.memberships.filter(user=request.user, agreed_to=sha256(warning)).exists()


def _conversation_or_404(request: HttpRequest, slug: str, conversation_id: str) -> Conversation:
    return get_object_or_404(conversations_of(request.user), project__slug=slug, public_id=conversation_id)


def _turn_or_404(conversation: Conversation, number: int) -> Turn:
    turn = conversation.turns.filter(number=number).select_related("conversation__project").order_by("-attempt").first()
    return turn or get_object_or_404(Turn, pk=None)


def _changed(request: HttpRequest, conversation: Conversation, change: Any) -> HttpResponse:
    """What came of it: the new state, or why not, with the state there is."""
    try:
        change()
    except ConversationError as error:
        refused = {"refused": error.code, "message": str(error), **_state_of(request, conversation)}
        return JsonResponse(refused, status=409)
    return JsonResponse(_state_of(request, conversation), status=202)


def _state_of(request: HttpRequest, conversation: Conversation) -> dict[str, Any]:
    """All that the page shows. Never who speaks, or how fast."""
    turn = settle(conversation)
    conversation.refresh_from_db(fields=["state"])
    turns = standing_turns(conversation)
    answer: dict[str, Any] = {
        "is_open": conversation.is_open,
        "turns_left": max(0, conversation.max_turns - sum(one.state == Turn.State.JUDGED for one in turns)),
        "thread": render_to_string(
            "conversation/_thread.html", {"opening": shown_opening(conversation), "turns": turns}, request
        ),
        "turn": None,
        "task": None,
    }
    if turn is None:
        return answer
    answer["turn"] = {
        "number": turn.number,
        "state": turn.state,
        "content": turn.content,
        "texts": turn.texts or ["", ""],
        "message": sentence_for(turn.problem) if turn.state == Turn.State.FAILED else "",
        "none_good": turn.state == Turn.State.JUDGED and turn.problem == "none_good",
    }
    if turn.state == Turn.State.READY and turn.lease_id and conversation.is_open:
        lease = Lease.objects.select_related("task__prompt", "task__project", "guideline").get(pk=turn.lease_id)
        answer["task"] = render_to_string("annotation/_task.html", {"bench": Bench(lease, lease.draft or {})}, request)
    return answer
