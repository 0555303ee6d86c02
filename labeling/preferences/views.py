"""The annotators' own page on what their judgements are used for."""

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from labeling.accounts.roles import ANNOTATING
from labeling.preferences.withdrawal import give_consent, standing_withdrawal, touched_by, withdraw_person
from labeling.projects.models import Membership


class ConsentForm(forms.Form):
    answer = forms.ChoiceField(choices=[("give", ""), ("withdraw", "")])
    reason = forms.CharField(max_length=2000, required=False)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def consent(request: HttpRequest, slug: str) -> HttpResponse:
    """What training on their judgements means, what holds them already, and their word on it."""
    member = get_object_or_404(
        Membership.objects.select_related("project"), user=request.user, project__slug=slug, role__in=ANNOTATING
    )
    project = member.project
    form = ConsentForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        if form.cleaned_data["answer"] == "give":
            give_consent(membership=member, by=request.user)
            messages.success(request, _("Thank you: your judgements may be used for training."))
        else:
            reason = form.cleaned_data["reason"]
            withdraw_person(project=project, annotator=request.user, by=request.user, reason=reason)
            messages.success(request, _("Taken back: nothing of yours goes into training data from now on."))
        return redirect("preferences_bench:consent", slug)
    touched = touched_by(project=project, annotator=request.user)
    context = {
        "project": project,
        "section": "bench",
        "member": member,
        "standing": standing_withdrawal(project, annotator=request.user),
        "n_judgements": project.judgements.current().filter(annotator=request.user).count(),
        "touched": touched,
        # Never which: their names are those of models whose completions are judged here.
        "n_models": len({model.pk for row in touched for model in row.models}),
    }
    return render(request, "preferences/consent.html", context, status=422 if form.is_bound else 200)
