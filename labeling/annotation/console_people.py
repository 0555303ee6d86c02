"""One member of a project, for leads: pause them, let them work again, set aside what they judged."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.defaultfilters import pluralize
from django.views.decorators.http import require_http_methods

from labeling.accounts.roles import STEERING
from labeling.annotation.errors import NotRestorable
from labeling.annotation.models import Pool, SetAside
from labeling.annotation.services import (
    judgements_to_set_aside,
    pause_member,
    reinstate_member,
    restore_judgement,
    restore_judgements,
    set_aside_judgements,
)
from labeling.projects.console_access import console_page, keyset_page, show
from labeling.projects.models import Membership, Project


class PauseForm(forms.Form):
    reason = forms.CharField(max_length=300, label="Why", help_text="the person reads it on their bench")


class ReinstateForm(forms.Form):
    to_qualify = forms.BooleanField(required=False, label="Begin with another qualification round")
    restore = forms.BooleanField(
        required=False, label="Let what was set aside count again, where nobody has taken it on since"
    )


class SetAsideForm(forms.Form):
    since = forms.DateTimeField(
        required=False, label="Judged from (UTC)", widget=forms.DateTimeInput(attrs={"type": "datetime-local"}),
        help_text="empty: from the first",
    )  # fmt: skip
    until = forms.DateTimeField(
        required=False, label="to (UTC)", widget=forms.DateTimeInput(attrs={"type": "datetime-local"}),
        help_text="empty: to the last",
    )  # fmt: skip
    reason = forms.CharField(max_length=300, label="Why")

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        if data.get("since") and data.get("until") and data["since"] > data["until"]:
            self.add_error("until", "This lies before the other")
        return data


FORMS = {"pause": PauseForm, "reinstate": ReinstateForm, "set_aside": SetAsideForm}


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_change=STEERING)
def person(request: HttpRequest, project: Project, user_id: int) -> HttpResponse:
    """A member's state, what to do about it, and which of their judgements were set aside."""
    member = get_object_or_404(Membership.objects.select_related("user", "project"), project=project, user=user_id)
    wanted = request.POST.get("do", "")
    if request.method == "POST" and wanted == "restore":
        return _restore(request, member)
    filled = {name: form(request.POST if name == wanted else None) for name, form in FORMS.items()}
    if wanted in filled and filled[wanted].is_valid():
        messages.success(request, _do(wanted, member, request, filled[wanted].cleaned_data))
        return redirect("projects:person", project.slug, user_id)
    found = SetAside.objects.filter(judgement__project=project, judgement__annotator=user_id).select_related(
        "judgement__task", "by", "restored_by", "replacement"
    )
    return show(
        request, "console/annotation/person.html", project, member=member, forms=filled,
        pools=Pool.objects.filter(pk__in=member.pool_ids).order_by("name"),
        # A reverse relation: withdrawals belong to an app above this one.
        withdrawal=project.withdrawals.filter(annotator=user_id, undone_at=None).select_related("by").first(),
        n_standing=judgements_to_set_aside(project=project, annotator=member.user).count(),
        page=keyset_page(request, found), status=422 if request.method == "POST" else 200,
    )  # fmt: skip


def _do(wanted: str, member: Membership, request: HttpRequest, data: dict[str, Any]) -> str:
    name = member.user.username
    if wanted == "pause":
        return f"{name} is paused." if pause_member(membership=member, **data) else f"{name} was paused already."
    if wanted == "set_aside":
        n = set_aside_judgements(project=member.project, annotator=member.user, by=request.user, **data)
        return f"{n:,} judgement{pluralize(n)} set aside; {'its task is' if n == 1 else 'their tasks are'} judged again."
    reinstate_member(membership=member, to_qualify=data["to_qualify"])
    if not data["restore"]:
        return f"{name} works again."
    restored, kept = restore_judgements(project=member.project, annotator=member.user, by=request.user)
    return f"{name} works again; {restored:,} judgement{pluralize(restored)} count again, {kept:,} stay aside."


def _restore(request: HttpRequest, member: Membership) -> HttpResponse:
    number = request.POST.get("set_aside", "")
    found = SetAside.objects.filter(judgement__project=member.project_id, judgement__annotator=member.user_id)
    found = found.select_related("judgement__project")
    row = found.filter(pk=int(number)).first() if number.isdigit() and len(number) < 19 else None
    try:
        if row is None:
            messages.warning(request, "That judgement isn't set aside.")
        else:
            restore_judgement(set_aside=row, by=request.user)
            messages.success(request, "The judgement counts again.")
    except NotRestorable as error:
        messages.warning(request, f"{error}.")
    return redirect("projects:person", member.project.slug, member.user_id)
