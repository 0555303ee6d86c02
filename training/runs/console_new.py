"""The page that starts a run: its form, filled in for the model and the machine, and what the run would take."""

from typing import Any
from urllib.parse import urlencode

import yaml
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from labeling.accounts.roles import TRAINING
from labeling.projects.console_access import console_page, show
from labeling.projects.models import Project
from training.runs import services
from training.runs.catalogue import KINDS
from training.runs.checking import check_run
from training.runs.errors import BadSpec
from training.runs.estimates_shown import basis, in_words
from training.runs.forms import RunForm
from training.runs.machines import in_words as machine_in_words
from training.runs.machines import machines_there
from training.runs.planning import facts_of
from training.runs.suggesting import Suggestion, defaults_for, suggestions

MACHINES_SHOWN = 5


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_change=TRAINING)
def new_run(request: HttpRequest, project: Project) -> HttpResponse:
    kind = request.POST.get("kind") or request.GET.get("kind") or "reward_head"
    if kind not in KINDS:
        kind = "reward_head"
    if KINDS[kind].explains:
        return redirect("runs:explain", project.slug)
    if KINDS[kind].started_at:
        return redirect(KINDS[kind].started_at, project.slug)
    initial = {}
    for name in ("snapshot", "model"):
        if (value := request.GET.get(name, "")).isdigit():
            initial[name] = value
    form = RunForm(request.POST or None, project=project, kind=kind, initial=initial)
    suggested: dict[str, Suggestion] = {}
    if not form.is_bound:
        # The newest of each is what one wants, mostly.
        for name in ("snapshot", "model"):
            if name in form.fields and name not in initial and (first := form.fields[name].queryset.first()):
                form.initial[name] = first.pk
        suggested = _fill_in(form)
    if form.is_bound and form.is_valid():
        try:
            run = services.create_run(
                project=project, kind=kind, created_by=request.user, spec=form.spec(), inputs=form.inputs(),
                snapshot=form.cleaned_data.get("snapshot"), model=form.cleaned_data["model"],
            )  # fmt: skip
        except BadSpec as error:
            form.add_refusal(error.fields)
        else:
            return redirect("runs:detail", project.slug, run.pk)
    return show(
        request, "console/runs/new.html", project, form=form, kind=kind, kinds=KINDS, suggested=suggested,
        machines=[(machine, machine_in_words(machine.facts)) for machine in machines_there()[:MACHINES_SHOWN]],
        status=422 if form.is_bound else 200,
    )  # fmt: skip


@require_POST
@console_page(to_change=TRAINING)
def estimate(request: HttpRequest, project: Project) -> HttpResponse:
    """What a run would take as the form stands, for the part of the page that asks anew at each change."""
    kind = request.POST.get("kind", "")
    kind = kind if kind in KINDS and not (KINDS[kind].explains or KINDS[kind].started_at) else "reward_head"
    form = RunForm(request.POST, project=project, kind=kind)
    shown: dict[str, Any] = {"form": form}
    if form.is_valid():
        try:
            checked = check_run(
                project=project, kind=kind, spec=form.spec(), inputs=form.inputs(), snapshot=form.cleaned_data.get("snapshot"),
                model=form.cleaned_data["model"],
            )  # fmt: skip
        except BadSpec as error:
            shown["problems"] = error.fields
        else:
            found = checked.plan.estimate
            named = {"kind": kind, "model": form.cleaned_data["model"].pk}
            if snapshot := form.cleaned_data.get("snapshot"):
                named["snapshot"] = snapshot.pk
            shown |= {
                "problems": {name.removeprefix("spec."): problem for name, problem in checked.wrong.items()},
                "lines": in_words(found), "basis": basis(found), "notes": found.get("notes"),
                "suggested": suggestions(checked), "again": f"{reverse('runs:new', args=[project.slug])}?{urlencode(named)}",
            }  # fmt: skip
    elif "model" not in form.errors and "snapshot" not in form.errors:
        shown["problems"] = {form.fields[name].label or name if name in form.fields else "": text[0] for name, text in form.errors.items()}
    return render(request, "console/runs/_estimate.html", shown)


def _fill_in(form: RunForm) -> dict[str, Suggestion]:
    """Put what suits the chosen model and the machines into a form that nobody has filled in; returns what was put in."""
    chosen = form.initial.get("model")
    model = form.fields["model"].queryset.filter(pk=chosen).first() if chosen else None
    facts = facts_of(model) if model and model.folder else None
    if facts is None:
        return {}
    machine = machines_there().first()
    found = defaults_for(form.kind, facts, machine.facts if machine else None)
    others = {}
    for name, one in found.items():
        if name in form.option_names:
            form.initial[f"option_{name}"] = one.value
        else:
            others[name] = one.value
    if others:
        form.initial["other_options"] = yaml.safe_dump(others, sort_keys=False)
    return found
