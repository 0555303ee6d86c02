"""Pages on training runs: what goes on, what came out, starting and stopping."""

from datetime import datetime, timedelta
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.timezone import now
from django.views.decorators.http import require_POST, require_safe

from labeling.accounts.roles import TRAINING
from labeling.projects.console_access import console_page, keyset_page, show
from labeling.projects.models import Project
from training.endpoints.models import Endpoint
from training.runs import services
from training.runs.catalogue import KINDS, defaults
from training.runs.comparing import MOST_RUNS, curves_of, differences, figures_beside, share_of_data
from training.runs.console_explain import explanation_shown
from training.runs.curves import metric_rows
from training.runs.disk import goes_at
from training.runs.errors import RunError
from training.runs.estimates_shown import against, in_words
from training.runs.launchers import batch_of
from training.runs.models import Run, RunEvent
from training.runs.options import RUN_DEFAULTS
from training.runs.selectors import runs_visible_to

LOG_EVENTS = 200
SAMPLE_EVENTS = 60


def time_left(run: Run, at: datetime | None = None) -> float | None:
    """Seconds a running run still needs if it goes on as it has; none before 2 % are done."""
    if run.state != Run.State.RUNNING or run.started_at is None or run.progress < 0.02:
        return None
    return ((at or now()) - run.started_at) / timedelta(seconds=1) * (1 - run.progress) / run.progress


def find_run(request: HttpRequest, project: Project, run_id: int) -> Run:
    return get_object_or_404(runs_visible_to(request.user), project=project, pk=run_id)


@require_safe
@console_page()
def runs(request: HttpRequest, project: Project) -> HttpResponse:
    found = runs_visible_to(request.user).filter(project=project).select_related("created_by")
    kind = request.GET.get("kind", "")
    if kind in KINDS:
        found = found.filter(kind=kind)
    page = keyset_page(request, found, size=40)
    for run in page["rows"]:
        run.seconds_left = time_left(run)
    return show(request, "console/runs/list.html", project, page=page, kind=kind, kinds=KINDS)


@require_safe
@console_page()
def run(request: HttpRequest, project: Project, run_id: int) -> HttpResponse:
    found = find_run(request, project, run_id)
    rows = metric_rows(found)
    samples = list(RunEvent.objects.filter(run=found, type="sample").order_by("-number")[:SAMPLE_EVENTS])
    if found.kind == "evaluate":  # nothing changes here: as they were asked, the policy's before the reference's
        samples.reverse()
    log = list(
        RunEvent.objects.filter(run=found)
        .exclude(type__in=["metric", "sample", "progress", "explanation"])
        .order_by("-number")[:LOG_EVENTS]
    )
    return show(
        request, "console/runs/detail.html", project, run=found, seconds_left=time_left(found), kind=KINDS.get(found.kind),
        curves={"rows": rows, "last": rows[-1]["n"] if rows else 0}, samples=by_prompt(samples), log=log,
        options=options_of(found), batch=batch_shown(found), goes_at=goes_at(found), endpoint=endpoint_of(found), figures=figures_of(found), explanation=explanation_shown(found),
        told=in_words(found.estimate) if not found.is_over else [], against=against(found), notes=found.estimate.get("notes"), dataset=_plain(found.result.get("dataset")),
    )  # fmt: skip


@require_safe
@console_page()
def compare(request: HttpRequest, project: Project) -> HttpResponse:
    """`?run=3&run=5`: in the order named."""
    named = list(dict.fromkeys(int(value) for value in request.GET.getlist("run") if value.isdigit() and len(value) < 10))
    by_id = runs_visible_to(request.user).filter(project=project).in_bulk(named[:MOST_RUNS])
    found = [by_id[pk] for pk in named[:MOST_RUNS] if pk in by_id]
    for colour, run in enumerate(found, 1):
        run.colour = colour
    return show(
        request, "console/runs/compare.html", project, runs=found, n_left_out=len(named) - len(found),
        curves=curves_of(found), options=differences(found), figures=figures_beside(found),
        caution=share_of_data(found), most=MOST_RUNS,
    )  # fmt: skip


def endpoint_of(run: Run) -> Endpoint | None:
    """Where a sample run asks for its completions; None: in the worker."""
    id = run.inputs.get("endpoint")
    return Endpoint.objects.filter(pk=id).first() if id else None


def by_prompt(events: list[RunEvent]) -> list[dict[str, Any]]:
    """Sample events, newest first, as one block a prompt with its completions by step."""
    blocks: dict[str, dict[str, Any]] = {}
    for event in events:
        prompt = event.payload.get("prompt")
        text = prompt if isinstance(prompt, str) else prompt[-1].get("content", "") if prompt else ""
        block = blocks.setdefault(text, {"prompt": text, "completions": []})
        block["completions"].append(
            {"step": event.step, "content": event.payload.get("completion", ""), "reward": event.payload.get("reward"), "by": event.payload.get("by")}
        )
    return list(blocks.values())


def options_of(run: Run) -> list[dict[str, Any]]:
    """What the recipe was given, those that differ from its defaults first."""
    usual = {}
    if run.kind in KINDS:
        usual = defaults(run.kind) | {name: RUN_DEFAULTS[name] for name in KINDS[run.kind].run_options}
    names = [*run.spec, *(name for name in usual if name not in run.spec)]
    return [
        {
            "name": name,
            "value": run.spec.get(name, usual.get(name)),
            "usual": usual.get(name),
            "differs": name in run.spec,
        }
        for name in names
    ]


def batch_shown(run: Run) -> dict[str, int] | None:
    """Rows of a step, as the recipe counted them or will, where there are several processes or batches to a step."""
    if run.kind not in KINDS:
        return None
    batch = run.result.get("batch") or batch_of(defaults(run.kind) | run.spec)
    return batch if batch and batch["effective"] != batch["per_device"] else None


def figures_of(run: Run) -> list[tuple[str, dict[str, Any]]]:
    return [(name, figure) for name, figure in (run.result.get("figures") or {}).items() if isinstance(figure, dict)]


def _plain(facts: Any) -> dict[str, Any]:
    return {key: value for key, value in (facts or {}).items() if isinstance(value, int | float | str)}


@require_safe
@console_page()
def events(request: HttpRequest, project: Project, run_id: int) -> JsonResponse:
    """Metrics after event number `after`, for the curves of a page that is open."""
    found = find_run(request, project, run_id)
    after = request.GET.get("after", "")
    rows = metric_rows(found, after=int(after) if after.isdigit() and len(after) < 10 else 0)
    return JsonResponse({"rows": rows, "last": rows[-1]["n"] if rows else None, "is_over": found.is_over})


@require_POST
@console_page(to_change=TRAINING)
def cancel(request: HttpRequest, project: Project, run_id: int) -> HttpResponse:
    return _act(request, project, run_id, services.request_cancel)


@require_POST
@console_page(to_change=TRAINING)
def resume(request: HttpRequest, project: Project, run_id: int) -> HttpResponse:
    return _act(request, project, run_id, services.resume_run)


def _act(request: HttpRequest, project: Project, run_id: int, act: Any) -> HttpResponse:
    try:
        act(run=find_run(request, project, run_id))
    except RunError as error:
        messages.warning(request, str(error))
    return redirect("runs:detail", project.slug, run_id)
