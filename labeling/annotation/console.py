"""Pages for leads on the bench itself: what it would look like, what annotators reported and skipped there."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Count, Exists, OuterRef, Prefetch, Q
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils import translation
from django.views.decorators.http import require_http_methods

from labeling.accounts.roles import STEERING
from labeling.annotation.models import Lease, PromptReport, Task
from labeling.annotation.preview import PreviewBench, preview_of
from labeling.annotation.services import settle_report
from labeling.projects.bench_settings import complete_bench_settings
from labeling.projects.console_access import console_page, keyset_page, show
from labeling.projects.feedback import complete_form
from labeling.projects.forms import BenchFields, FeedbackFields
from labeling.projects.models import Project, Prompt

MOST_NOTES = 12
MOST_SETTLED = 20


# --- the bench before it is saved ---------------------------------------------------------------
class PreviewForm(BenchFields, FeedbackFields):
    pass


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_change=STEERING)
def preview(request: HttpRequest, project: Project) -> HttpResponse:
    """The bench of the project: as it is, or with the settings that are posted. Writes nothing."""
    return _preview(request, project)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def new_preview(request: HttpRequest) -> HttpResponse:
    """The same for a project that isn't made yet."""
    if not request.user.is_person:
        raise Http404("Only a person makes projects")
    with translation.override("en"):
        return _preview(request, None)


def _preview(request: HttpRequest, project: Project | None) -> HttpResponse:
    """A fragment for the script, which says so; else a page. 422 says what keeps the bench from being drawn."""
    problem, bench = "", None
    if request.method == "POST":
        problem, bench = _drawn_from(request.POST, project)
    else:
        form, settings = project.form if project else {}, project.bench if project else {}
        bench = preview_of(project=project, form=complete_form(form)[0], bench=complete_bench_settings(settings)[0])
    by_script = bool(request.headers.get("X-Preview"))
    if by_script and problem:
        return HttpResponse(problem, status=422, content_type="text/plain; charset=utf-8")
    template = "_preview.html" if by_script else "preview.html"
    return render(
        request, f"console/annotation/{template}", {"bench": bench, "problem": problem, "project": project},
        status=422 if problem else 200,
    )  # fmt: skip


def _drawn_from(data: QueryDict, project: Project | None) -> tuple[str, PreviewBench | None]:
    sent = PreviewForm(data)
    if not sent.is_valid():
        return _in_words(sent), None
    form, wrong = complete_form(sent.feedback_form())
    bench, wrong_bench = complete_bench_settings(sent.bench_settings())
    if wrong or wrong_bench:
        return next(iter((wrong | wrong_bench).values())), None
    n = data.get("preview_completions", "")
    return "", preview_of(
        project=project, form=form, bench=bench, n=int(n) if n.isdigit() and len(n) == 1 else None,
        guideline=data.get("guideline"),
    )  # fmt: skip


def _in_words(form: PreviewForm) -> str:
    name, errors = next(iter(form.errors.items()))
    label = form.fields[name].label if name in form.fields else ""
    rows = [row.problem for row in form.rows.get(name, []) if row.problem]
    return ": ".join(filter(None, [str(label), rows[0] if rows else errors[0]]))


# --- what annotators reported -------------------------------------------------------------------
@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_change=STEERING)
def reports(request: HttpRequest, project: Project) -> HttpResponse:
    """Open reports by prompt, what became of earlier ones, and why tasks were skipped."""
    if request.method == "POST":
        return _settle(request, project)
    settled = PromptReport.objects.filter(project=project).exclude(state=PromptReport.State.OPEN)
    settled = settled.select_related("prompt", "reporter", "settled_by")
    if request.GET.get("state") == "settled":
        return show(request, "console/annotation/settled.html", project, page=keyset_page(request, settled))
    is_open = PromptReport.objects.filter(project=project, state=PromptReport.State.OPEN)
    prompts = (
        Prompt.objects.filter(Exists(is_open.filter(prompt=OuterRef("pk"))), project=project)
        .annotate(
            n_open=Count("tasks", filter=Q(tasks__state=Task.State.OPEN), distinct=True),
            n_judged=Count("tasks__judgements", filter=Q(tasks__judgements__superseded_by=None), distinct=True),
        )
        .prefetch_related(Prefetch("reports", is_open.select_related("reporter").order_by("-pk"), "open_reports"))
    )
    recent = list(settled.order_by("-pk")[: MOST_SETTLED + 1])
    return show(
        request, "console/annotation/reports.html", project, page=keyset_page(request, prompts, size=20),
        n_open=is_open.values("prompt").distinct().count(), settled=recent[:MOST_SETTLED], has_more=len(recent) > MOST_SETTLED, **_skips(project),
    )  # fmt: skip


def _settle(request: HttpRequest, project: Project) -> HttpResponse:
    number, closes_tasks = request.POST.get("report", ""), request.POST.get("do") == "close"
    found = PromptReport.objects.filter(project=project, state=PromptReport.State.OPEN).select_related(
        "prompt", "project"
    )
    report = found.filter(pk=int(number)).first() if number.isdigit() and len(number) < 19 else None
    if report is None:
        messages.warning(request, "That report is settled already.")
    elif request.POST.get("do") not in ("keep", "close"):
        messages.warning(request, "Say what is to become of the prompt: keep it, or close its tasks.")
    else:
        closed = settle_report(report=report, by=request.user, closes_tasks=closes_tasks)
        said = f"{closed} open task{'' if closed == 1 else 's'} closed" if closes_tasks else "kept"
        messages.success(request, f"Prompt {report.prompt_id}: {said}.")
    return redirect("projects:reports", project.slug)


def _skips(project: Project) -> dict[str, Any]:
    """Why tasks of the project were given back, and the latest words to it. Two queries."""
    skipped = Lease.objects.filter(task__project=project, state=Lease.State.SKIPPED)
    counts = dict(skipped.values_list("skip_reason").annotate(n=Count("pk")).order_by("-n", "skip_reason"))
    names = {"": "no reason given", **dict(Lease.SkipReason.choices)}
    notes = skipped.exclude(skip_note="").select_related("annotator", "task").order_by("-closed_at")[:MOST_NOTES]
    return {
        "skips": [(names.get(reason, reason), n) for reason, n in counts.items()],
        "n_skips": sum(counts.values()),
        "notes": notes,
    }
