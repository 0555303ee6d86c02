"""Pages on what may no longer be trained on: who and which prompts, recording one, undoing one."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labeling.accounts.roles import STEERING
from labeling.preferences.errors import NotUndone
from labeling.preferences.models import Withdrawal
from labeling.preferences.withdrawal import (
    give_consent,
    remove_prompt,
    standing_withdrawal,
    touched_by,
    undo_withdrawal,
    withdraw_person,
)
from labeling.preferences.withdrawal_forms import WithdrawalForm
from labeling.projects.console_access import console_page, keyset_page, show
from labeling.projects.models import Membership, Project


@require_safe
@console_page()
def withdrawals(request: HttpRequest, project: Project) -> HttpResponse:
    """All that were recorded, the newest first, and a form that leads to what another would touch."""
    rows = Withdrawal.objects.filter(project=project).select_related("annotator", "prompt", "by", "undone_by")
    return show(
        request, "console/preferences/withdrawals.html", project, page=keyset_page(request, rows),
        form=WithdrawalForm(project=project),
    )  # fmt: skip


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_change=STEERING, to_open=STEERING)
def new_withdrawal(request: HttpRequest, project: Project) -> HttpResponse:
    """First what it touches, then the record of it."""
    sent = request.POST if request.method == "POST" else request.GET
    form = WithdrawalForm(sent, project=project)
    if not form.is_valid():
        page = keyset_page(request, Withdrawal.objects.filter(project=project))
        return show(request, "console/preferences/withdrawals.html", project, page=page, form=form, status=422)
    what, reason = form.what, form.cleaned_data["reason"]
    if request.method == "POST":
        record = withdraw_person if "annotator" in what else remove_prompt
        withdrawal, is_new = record(project=project, by=request.user, reason=reason, **what)
        messages.success(request, _said(withdrawal) if is_new else "This was recorded before: it stands.")
        return redirect("preferences:withdrawals", project.slug)
    touched = touched_by(project=project, **what)
    return show(
        request, "console/preferences/withdraw.html", project, form=form, touched=touched, **_counted(project, what),
        n_models=len({model.pk for row in touched for model in row.models}),
        standing=standing_withdrawal(project, **what),
    )  # fmt: skip


def _counted(project: Project, what: dict[str, Any]) -> dict[str, Any]:
    """What is named, with how much of it is in the project."""
    judgements = project.judgements.current()
    if "annotator" in what:
        return what | {"n_judgements": judgements.filter(annotator=what["annotator"]).count()}
    n_open = what["prompt"].tasks.filter(state="open").count()
    return what | {"n_judgements": judgements.filter(task__prompt=what["prompt"]).count(), "n_open_tasks": n_open}


def _said(withdrawal: Withdrawal) -> str:
    if withdrawal.annotator_id:
        return f"What {withdrawal.annotator.username} judged goes into no snapshot from now on."
    n = len(withdrawal.closed_tasks)
    closed = f"; {n} open task{'s' if n != 1 else ''} of it {'are' if n != 1 else 'is'} closed" if n else ""
    return f"Prompt {withdrawal.prompt_id} goes into no snapshot from now on{closed}."


@require_POST
@console_page(to_change=STEERING, to_open=STEERING)
def undo(request: HttpRequest, project: Project, withdrawal_id: int) -> HttpResponse:
    withdrawal = get_object_or_404(Withdrawal.objects.select_related("project"), project=project, pk=withdrawal_id)
    try:
        undo_withdrawal(withdrawal=withdrawal, by=request.user)
    except NotUndone as error:
        messages.error(request, f"{error}.")
    else:
        messages.success(request, "Undone: snapshots frozen from now on may hold it again.")
    return redirect("preferences:withdrawals", project.slug)


@require_POST
@console_page(to_change=STEERING, to_open=STEERING)
def consent(request: HttpRequest, project: Project, user_id: int) -> HttpResponse:
    """A lead records that a member agreed, on paper for instance."""
    member = get_object_or_404(Membership.objects.select_related("project", "user"), project=project, user=user_id)
    try:
        give_consent(membership=member, by=request.user)
    except NotUndone as error:
        messages.error(request, f"{error}.")
    else:
        messages.success(request, f"Recorded: {member.user.username} agrees to training.")
    return redirect("projects:person", project.slug, user_id)
