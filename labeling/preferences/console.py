"""Pages on snapshots: freezing one, what is in it, taking it out."""

from typing import Any

from django.contrib import messages
from django.db.models import Count, Q
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_http_methods, require_safe

from labeling.accounts.roles import TRAINING
from labeling.preferences.errors import BadFilter, NothingToFreeze, UnknownView
from labeling.preferences.forms import SnapshotForm
from labeling.preferences.models import Snapshot
from labeling.preferences.rows import judgements_chosen, n_left_out_as_unfit
from labeling.preferences.services import SPLITS, complete_filters, complete_policy, create_snapshot
from labeling.preferences.views_of_snapshots import FILE_FORMATS, VIEWS, rows_in, view_file
from labeling.projects.console_access import add_errors, console_page, keyset_page, show
from labeling.projects.models import Project
from labeling.projects.text import canonical_json, sha256
from labeling.web.remembering import LARGE, remembered

VIEW_HELP = {
    "preference": "TRL's columns: prompt, chosen, rejected, with margin, weight and group_id",
    "unpaired": "TRL's columns for KTO: prompt, completion, label; by what was called acceptable, and what was written",
    "sft": "TRL's messages: corrections, demonstrations, and the best completion where nobody edited it",
    "pairs": "every pair with its votes, sources and licence",
    "votes": "one row a judgement, annotators under pseudonyms",
}
# Parts of a judgement that snapshots export by rows of their own, and what one does in giving them.
PARTS = {"acceptable": "accept or refuse", "corrections": "correct", "demonstration": "demonstrate"}


@require_safe
@console_page()
def snapshots(request: HttpRequest, project: Project) -> HttpResponse:
    page = keyset_page(request, Snapshot.objects.filter(project=project).select_related("created_by"))
    return show(request, "console/preferences/list.html", project, page=page)


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_change=TRAINING)
def new_snapshot(request: HttpRequest, project: Project) -> HttpResponse:
    """The form; `preview` asks for the counts alone."""
    iterations = sorted(set(project.tasks.order_by().values_list("iteration", flat=True).distinct()))
    form = SnapshotForm(request.POST or None, iterations=iterations)
    preview = None
    if request.method == "POST" and form.is_valid():
        try:
            if "preview" in request.POST:
                preview = counts(project, form.filters(), form.policy())
            else:
                snapshot = create_snapshot(
                    project=project, created_by=request.user, name=form.cleaned_data["name"], filters=form.filters(),
                    policy=form.policy(),
                )  # fmt: skip
                if snapshot.created_by_id != request.user.pk or snapshot.name != form.cleaned_data["name"]:
                    messages.info(request, f"The same rows are frozen already: this is snapshot #{snapshot.number}.")
                return redirect("preferences:detail", project.slug, snapshot.number)
        except BadFilter as error:
            add_errors(form, error.fields)
        except NothingToFreeze as error:
            form.add_error(None, str(error))
    elif request.method != "POST" and not _is_large(project):
        preview = counts(project, {}, {})  # else the page asks for it when it is there
    if preview is not None and request.headers.get("HX-Request"):
        return show(request, "console/preferences/_preview.html", project, preview=preview)
    status = 422 if form.is_bound and not form.is_valid() else 200
    return show(request, "console/preferences/new.html", project, form=form, preview=preview, status=status)


def _is_large(project: Project) -> bool:
    return project.judgements.order_by("pk")[LARGE : LARGE + 1].exists()


def counts(project: Project, filters: dict[str, Any], policy: dict[str, Any]) -> dict[str, Any]:
    """How many judgements, tasks and annotators of each kind would pass, and what they hold. Three queries."""
    filters, policy = complete_filters(filters), complete_policy(policy)
    asked = sha256(canonical_json([filters, policy]))
    return remembered(
        f"preview:{project.pk}:{asked}",
        lambda: _counts(project, filters, policy),
        n=lambda found: found["judgements"],
    )


def _counts(project: Project, filters: dict[str, Any], policy: dict[str, Any]) -> dict[str, Any]:
    chosen = judgements_chosen(project, filters, policy)
    totals = chosen.aggregate(
        judgements=Count("pk"), tasks=Count("task", distinct=True), prompts=Count("task__prompt", distinct=True),
        ranked=Count("pk", filter=~Q(ranking=[])),
        **{part: Count("pk", filter=Q(feedback__has_key=part)) for part in PARTS},
    )  # fmt: skip
    kinds = (
        chosen.order_by()
        .values_list("annotator_kind")
        .annotate(n=Count("pk"), people=Count("annotator", distinct=True))
    )
    holding = [("rank", totals["ranked"]), *((words, totals[part]) for part, words in PARTS.items())]
    unfit = n_left_out_as_unfit(project, filters, policy)
    return totals | {"unfit": unfit, "kinds": list(kinds), "holding": [(words, n) for words, n in holding if n]}


@require_safe
@console_page()
def snapshot(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    found = get_object_or_404(Snapshot.objects.select_related("created_by"), project=project, number=number)
    files = [
        {"view": view, "help": VIEW_HELP[view], "rows": {split: rows_in(found, view, split) for split in SPLITS}}
        for view in VIEWS
    ]
    return show(
        request, "console/preferences/detail.html", project, snapshot=found, files=files, formats=FILE_FORMATS,
        # Reverse relations: what was made of it belongs to apps above this one.
        runs=found.runs.select_related("model", "output_model").order_by("-pk")[:50],
        models=found.models.order_by("-pk")[:50],
    )  # fmt: skip


@require_safe
@console_page()
def download(request: HttpRequest, project: Project, number: int, view: str, split: str, format: str) -> HttpResponse:
    found = get_object_or_404(Snapshot, project=project, number=number)
    try:
        path = view_file(found, split=split, view=view, format=format)
    except UnknownView as error:
        raise Http404(str(error)) from None
    name = f"{project.slug}-{found.number}-{view}-{split}.{format}"
    types = {"jsonl": "application/jsonl", "parquet": "application/vnd.apache.parquet"}
    return FileResponse(open(path, "rb"), as_attachment=True, filename=name, content_type=types[format])
