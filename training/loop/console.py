"""Pages on iterations: where a turn of the loop stands, and whether the new policy is better than the old."""

from datetime import datetime
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labeling.accounts.roles import STEERING, TRAINING
from labeling.annotation.models import Task
from labeling.projects.console_access import add_errors, console_page, keyset_page, show
from labeling.projects.models import Project
from training.loop import services
from training.loop.errors import BadIteration, LoopError
from training.loop.forms import IterationForm
from training.loop.models import Iteration
from training.loop.selectors import collected, iterations_visible_to, win_rate
from training.registry.selectors import production_policy

Stage = Iteration.Stage
STEPS = [stage for stage in Stage if stage not in (Stage.DONE, Stage.FAILED)]
RUN_OF = {
    Stage.SAMPLING: ("sample_run",),
    Stage.REWARD: ("reward_run",),
    Stage.POLICY: ("policy_run",),
    Stage.RESAMPLING: ("resample_run", "baseline_run"),
}


@require_safe
@console_page()
def iterations(request: HttpRequest, project: Project) -> HttpResponse:
    page = keyset_page(request, iterations_visible_to(request.user).filter(project=project), size=40)
    for iteration in page["rows"]:
        iteration.place = STEPS.index(iteration.stage) if iteration.stage in STEPS else len(STEPS)
    compared = next((row for row in page["rows"] if row.stage in (Stage.DONE, Stage.COMPARING)), None)
    return show(
        request, "console/loop/list.html", project, page=page, n_steps=len(STEPS), compared=compared,
        rate=win_rate(compared) if compared else None,
        is_busy=any(row.stage not in (Stage.DONE, Stage.FAILED) for row in page["rows"]),
    )  # fmt: skip


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_change=TRAINING)
def new_iteration(request: HttpRequest, project: Project) -> HttpResponse:
    form = IterationForm(request.POST or None, project=project)
    if not form.is_bound and (policy := production_policy(project)):
        form.initial["policy_before"] = policy.pk
    if form.is_bound and form.is_valid():
        try:
            iteration = services.start_iteration(
                project=project,
                policy_before=form.cleaned_data["policy_before"],
                created_by=request.user,
                config=form.config(),
            )
        except BadIteration as error:
            renamed = {"quota": "quota_per_cent"}
            add_errors(form, {renamed.get(name, name): text for name, text in error.fields.items()})
        except LoopError as error:
            form.add_error(None, str(error))
        else:
            return redirect("loop:detail", project.slug, iteration.number)
    return show(request, "console/loop/new.html", project, form=form, status=422 if form.is_bound else 200)


@require_safe
@console_page()
def iteration(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    found = get_object_or_404(iterations_visible_to(request.user), project=project, number=number)
    judged, compared = collected(found), collected(found, Task.Purpose.EVALUATION)
    return show(
        request, "console/loop/detail.html", project, iteration=found, steps=steps_of(found), judged=judged, compared=compared,
        rate=win_rate(found), people_rate=win_rate(found, kinds=["human"]), heldout_rate=win_rate(found, tag=found.config.get("heldout_tag") or None),
        waits={"collecting": judged, "comparing": compared}.get(found.stage), is_over=found.stage in (Stage.DONE, Stage.FAILED),
    )  # fmt: skip


def steps_of(iteration: Iteration) -> list[dict[str, Any]]:
    """The stages in order, each with when it began, how long it took, its runs, and past, now or to come."""
    began: dict[str, datetime] = {}
    ended: dict[str, datetime] = {}
    log = [(entry["stage"], datetime.fromisoformat(entry["at"])) for entry in iteration.stage_log]
    for index, (stage, at) in enumerate(log):
        began.setdefault(stage, at)
        if index + 1 < len(log):
            ended[stage] = log[index + 1][1]
    last = next((stage for stage, _ in reversed(log) if stage in STEPS), STEPS[0])
    failed = iteration.stage == Stage.FAILED
    done = iteration.stage == Stage.DONE
    steps = []
    for stage in STEPS:
        place, here = STEPS.index(stage), STEPS.index(Stage(last))
        state = (
            "past"
            if done or place < here
            else "failed"
            if failed and place == here
            else "now"
            if place == here
            else "ahead"
        )
        seconds = (ended[stage] - began[stage]).total_seconds() if stage in ended and stage in began else None
        runs = [run for name in RUN_OF.get(stage, ()) if (run := getattr(iteration, name))]
        steps.append({"stage": stage, "state": state, "began": began.get(stage), "seconds": seconds, "runs": runs})
    return steps


ACTIONS = {
    "proceed": (services.proceed_iteration, STEERING),
    "retry": (services.retry_iteration, TRAINING),
    "cancel": (services.cancel_iteration, TRAINING),
}


@require_POST
@console_page(to_change=TRAINING)
def act(request: HttpRequest, project: Project, number: int, action: str) -> HttpResponse:
    found = get_object_or_404(iterations_visible_to(request.user), project=project, number=number)
    service, roles = ACTIONS[action]
    if request.console_role not in roles:
        messages.error(request, "A lead decides that.")
        return redirect("loop:detail", project.slug, number)
    try:
        service(iteration=found)
    except LoopError as error:
        messages.warning(request, str(error))
    return redirect("loop:detail", project.slug, number)
