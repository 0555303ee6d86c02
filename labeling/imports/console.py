"""Pages for leads: send a file, look at what it would become, follow it in."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labeling.accounts.roles import STEERING
from labeling.imports import storage
from labeling.imports.api import rejected_rows
from labeling.imports.errors import BadImport, DiskFull, FileTooLarge, NotNow
from labeling.imports.formats import FORMATS
from labeling.imports.forms import OPTION, CheckForm, FileForm
from labeling.imports.preview import preview
from labeling.imports.records import Record, Vote
from labeling.imports.serializers import keys_for
from labeling.imports.services import (
    change_draft,
    drop_draft,
    request_cancel,
    resume_import,
    start_draft,
    start_import,
)
from labeling.projects.console_access import add_errors, console_page, keyset_page, show
from labeling.projects.models import Import, Project

FORM_BYTES = 100_000  # around the file
SHOWN_REJECTED = 200


def unread(view: Callable[..., HttpResponse], most_bytes: Callable[[], int] | None = None) -> Callable[..., HttpResponse]:
    """Refuse a body that is too long before any of it is read; the check for forgery, which reads it, comes after.

    `most_bytes`: in place of what files of rows may have.
    """
    checked = csrf_protect(view)

    @csrf_exempt
    @wraps(view)
    def opened(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        most = most_bytes() if most_bytes else None
        length = str(request.META.get("CONTENT_LENGTH") or "0")
        request.too_long = not length.isdigit() or int(length) > (most or storage.max_bytes()) + FORM_BYTES  # type: ignore[attr-defined]
        if request.method == "POST" and request.too_long:  # type: ignore[attr-defined]
            return HttpResponse(str(storage.too_large(most)), status=413, content_type="text/plain; charset=utf-8")
        try:
            return checked(request, *args, **kwargs)
        except OSError as error:
            if full := storage.said_of_disk(error):
                return HttpResponse(str(full), status=507, content_type="text/plain; charset=utf-8")
            raise

    return opened


@require_http_methods(["GET", "HEAD", "POST"])
@unread
@console_page(to_change=STEERING)
def import_file(request: HttpRequest, project: Project) -> HttpResponse:
    """Earlier imports, and where a file is sent; what it is, the next page shows."""
    form = FileForm(request.POST or None, request.FILES or None) if request.method == "POST" else FileForm()
    if request.method == "POST" and form.is_valid():
        file = form.cleaned_data["file"]
        try:
            upload = storage.receive(file.read)
            record = start_import(project=project, path=upload, filename=file.name, created_by=request.user, draft=True)
        except (BadImport, FileTooLarge, DiskFull) as error:
            form.add_error("file", str(getattr(error, "fields", {}).get("file", error)))
        else:
            return redirect("projects:import_check", project.slug, record.pk)
    found = Import.objects.filter(project=project).exclude(state=Import.State.DRAFT).defer("rejected")
    drafts = Import.objects.filter(project=project, state=Import.State.DRAFT, created_by=request.user).order_by("-pk")[:10]
    return show(
        request, "console/imports/list.html", project, form=form, page=keyset_page(request, found.select_related("created_by")),
        drafts=drafts, formats=FORMATS.values(), max_bytes=storage.max_bytes(), status=422 if form.is_bound else 200,
    )  # fmt: skip


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_open=STEERING, to_change=STEERING)
def check(request: HttpRequest, project: Project, import_id: int) -> HttpResponse:
    """What the file would become. Other choices show it anew; `start` takes it in."""
    record = get_object_or_404(Import, project=project, pk=import_id)
    if record.state != Import.State.DRAFT:
        return redirect("projects:import_result", project.slug, record.pk)
    path = storage.file_of(record)
    form = None
    if request.method == "POST":
        sent = str(request.POST.get("format", ""))
        changed = sent != record.format  # the fields sent are those of the format there was
        found = preview(path, filename=record.filename, format=sent if sent in FORMATS else "")
        initial = {"mapping": {}, "options": {}} if changed else {"mapping": record.mapping, "options": record.options}
        form = CheckForm(request.POST, chosen=FORMATS.get(record.format), columns=found.columns, initial=initial)
        if form.is_valid():
            choices = form.choices() | ({"mapping": found.mapping, "options": {}} if changed else {})
            try:
                change_draft(record=record, **choices)
                if "start" in request.POST:
                    start_draft(record=record)
                    return redirect("projects:import_result", project.slug, record.pk)
                form = None
            except BadImport as error:
                add_errors(form, {name.replace("options.", OPTION, 1): why for name, why in error.fields.items()})
            except NotNow as error:
                messages.warning(request, str(error))
                return redirect("projects:import_result", project.slug, record.pk)
    shown = preview(
        path, filename=record.filename, format=record.format, mapping=record.mapping or None, options=record.options
    )
    if form is None:
        initial = {
            "format": shown.format, "mapping": record.mapping or shown.mapping, "options": shown.options,
            "source": record.source, "licence": record.licence, "tags": ", ".join(record.tags),
        }  # fmt: skip
        form = CheckForm(chosen=shown.chosen, columns=shown.columns, initial=initial)
    before = Import.objects.filter(project=project, sha256=record.sha256).exclude(state=Import.State.DRAFT).order_by("-pk").first()
    return show(
        request, "console/imports/check.html", project, record=record, form=form, preview=shown, chosen=shown.chosen,
        records=[ShownRecord.of(one) for one in shown.records], before=before,
        status=422 if form.errors else 200,
    )  # fmt: skip


@require_safe
@console_page()
def import_result(request: HttpRequest, project: Project, import_id: int) -> HttpResponse:
    record = get_object_or_404(Import.objects.select_related("created_by"), project=project, pk=import_id)
    if record.state == Import.State.DRAFT:
        return redirect("projects:import_check", project.slug, record.pk)
    share = record.bytes_done / record.bytes_total if record.bytes_total else 0.0
    left = record.seconds * (1 - share) / share if record.state == Import.State.RUNNING and share > 0.02 else None
    title = FORMATS[record.format].title if record.format in FORMATS else record.format
    return show(
        request, "console/imports/detail.html", project, record=record, share=share, seconds_left=left, format_title=title,
        rejected=record.rejected[:SHOWN_REJECTED], can_resume=not record.file_removed_at and storage.file_of(record).exists(),
        rows_a_second=int(record.n_rows / record.seconds) if record.seconds > 0.5 else None,
    )  # fmt: skip


@require_safe
@console_page()
def rejected(request: HttpRequest, project: Project, import_id: int) -> HttpResponseBase:
    found = Import.objects.exclude(state=Import.State.DRAFT)
    return rejected_rows(get_object_or_404(found, project=project, pk=import_id))


@require_POST
@console_page(to_change=STEERING)
def drop(request: HttpRequest, project: Project, import_id: int) -> HttpResponse:
    record = get_object_or_404(Import, project=project, pk=import_id)
    try:
        drop_draft(record=record)
    except NotNow as error:
        messages.warning(request, str(error))
        return redirect("projects:import_result", project.slug, record.pk)
    messages.success(request, "The file is gone; nothing of it was taken.")
    return redirect("projects:import", project.slug)


@require_POST
@console_page(to_change=STEERING)
def cancel(request: HttpRequest, project: Project, import_id: int) -> HttpResponse:
    return _acted(request, project, import_id, request_cancel)


@require_POST
@console_page(to_change=STEERING)
def resume(request: HttpRequest, project: Project, import_id: int) -> HttpResponse:
    return _acted(request, project, import_id, resume_import)


def _acted(request: HttpRequest, project: Project, import_id: int, act: Callable[..., None]) -> HttpResponse:
    record = get_object_or_404(Import.objects.select_related("project"), project=project, pk=import_id)
    try:
        act(record=record)
    except NotNow as error:
        messages.warning(request, str(error))
    return redirect("projects:import_result", project.slug, record.pk)


# --- records as the page draws them -------------------------------------------------------------
@dataclass
class ShownRecord:
    record: Record
    completions: list[tuple[str, Any]]
    votes: list[dict[str, Any]]

    @classmethod
    def of(cls, record: Record) -> "ShownRecord":
        lettered = list(zip(keys_for(len(record.completions)), record.completions, strict=True))
        return cls(record, lettered, [_described(vote) for vote in record.votes[:20]])


def _described(vote: Vote) -> dict[str, Any]:
    """A vote in few words: who, the ranking, and the other parts each on a line."""
    said = vote.judgement
    parts = []
    if ratings := said.get("ratings"):
        parts += [f"{key}: " + ", ".join(f"{axis} {value}" for axis, value in by.items()) for key, by in sorted(ratings.items())]
    if said.get("strength"):
        parts.append(f"strength {said['strength']} of 3")
    if acceptable := said.get("acceptable"):
        parts.append(", ".join(f"{key} {'good' if fine else 'not good'}" for key, fine in sorted(acceptable.items())))
    if said.get("none_acceptable"):
        parts.append("none is good")
    for name in ("flags", "marks", "corrections"):
        if said.get(name):
            parts.append(f"{name} on {', '.join(sorted(said[name]))}")
    if said.get("demonstration"):
        parts.append("a text of their own")
    if said.get("rationale"):
        parts.append(f"“{said['rationale'][:300]}”")
    kind = "imported" if vote.kind == "human" else vote.kind
    ranking = " > ".join(" = ".join(group) for group in said.get("ranking") or [])
    return {"annotator": vote.annotator, "kind": kind, "ranking": ranking, "parts": parts, "at": vote.at}
