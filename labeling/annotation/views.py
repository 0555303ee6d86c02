"""Pages of annotators: what waits for them, the bench, their own past judgements.

The bench works as plain pages and forms. Its script sends the same forms by fetch, marked `X-Bench: 1`, and is
answered in JSON, so that the next task can take the place of the last without a reload.
"""

from collections.abc import Collection
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labeling.accounts.roles import ANNOTATING, Role
from labeling.annotation.bench import Bench, figures_of, n_tasks_left, said_in
from labeling.annotation.checks import Feedback, OnGold
from labeling.annotation.errors import AnnotationError, LeaseLost
from labeling.annotation.forms import (
    ReportForm,
    SkipForm,
    SubmissionForm,
    draft_body_from,
    judgement_body_from,
)
from labeling.annotation.models import Judgement, Lease, PromptReport
from labeling.annotation.pools import waits_for_others
from labeling.annotation.reading import GuidelineChange, change_to_read, lease_in_hand, projects_at_work
from labeling.annotation.reasons import in_own_language
from labeling.annotation.selectors import KEYS, cap_reached, judgements_by, leases_held_by
from labeling.annotation.services import (
    Submission,
    judgement_body,
    renew_lease,
    report_prompt,
    revise_judgement,
    save_draft,
    skip_lease,
    submit_judgement,
    take_lease,
)
from labeling.projects.errors import UnknownVersion
from labeling.projects.feedback import BadAnswer
from labeling.projects.models import Membership, Project
from labeling.projects.services import agree_to_warning, read_guideline
from labeling.projects.text import sha256

HISTORY_PAGE = 30
SURPLUS = gettext_lazy(
    "Kept as an extra judgement: the time on this task had run out and someone else judged it meanwhile. "
    "Nothing is lost; it is counted apart."
)


# --- what waits ---------------------------------------------------------------------------------
@login_required
@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """The person's projects. Whoever annotates in a single one goes straight to its bench."""
    memberships = list(request.user.memberships.select_related("project").order_by("project__name"))
    if len(memberships) == 1 and memberships[0].role == Role.ANNOTATOR:
        return redirect("annotation:bench", memberships[0].project.slug)
    rows = [
        {
            "membership": membership,
            "project": membership.project,
            "annotates": membership.role in ANNOTATING,
            "n_left": n_tasks_left(request.user, membership.project) if membership.role in ANNOTATING else 0,
        }
        for membership in memberships
    ]
    return render(request, "web/home.html", {"rows": rows})


# --- the bench ----------------------------------------------------------------------------------
@login_required
@require_safe
def bench(request: HttpRequest, slug: str) -> HttpResponse:
    project = _project_or_404(request, slug)
    membership = _membership(request, project)
    if project.bench["content_warning"] and membership.agreed_to != sha256(project.bench["content_warning"]):
        return render(request, "annotation/warning.html", {"project": project, "section": "bench"})
    told = request.GET.get("told", "")
    feedback = None
    if told.isdecimal() and len(told) < 18:  # without the script: what the last answer was worth
        answered = judgements_by(request.user).filter(project=project, pk=int(told)).first()
        feedback = OnGold.told(answered) if answered else None
    lease, change = _task_or_change(request, project)
    return _bench_page(
        request, project, Bench(lease, lease.draft or {}) if lease else None, change=change, feedback=feedback
    )


@login_required
@require_POST
def read(request: HttpRequest, slug: str) -> HttpResponse:
    """The person has read what changed in the guideline."""
    project = _project_or_404(request, slug)
    sent = request.POST.get("version", "")
    version = int(sent) if sent.isascii() and sent.isdecimal() and len(sent) < 9 else 0
    try:
        read_guideline(membership=_membership(request, project), version=version)
    except UnknownVersion as error:
        if _by_script(request):
            return JsonResponse({"state": "invalid", "message": str(error)}, status=422)
    return JsonResponse({"state": "read"}) if _by_script(request) else redirect("annotation:bench", slug)


@login_required
@require_POST
def agree(request: HttpRequest, slug: str) -> HttpResponse:
    """The person has read the content warning and wants to go on."""
    project = _project_or_404(request, slug)
    agree_to_warning(membership=_membership(request, project))
    return redirect("annotation:bench", slug)


@login_required
@require_POST
def next_task(request: HttpRequest, slug: str) -> HttpResponse:
    """The next task beside those the page holds (`holding=1,2`), as a fragment; taking it is a write, hence POST.

    Where there is none, why: the guideline changed and is to be read first, nothing is left, enough for today, or the
    project is paused.
    """
    project = _project_or_404(request, slug)
    lease, change = _task_or_change(request, project, _holding(request))
    answer = {"task": _fragment(request, project, lease)}
    if change:
        answer["guideline"] = _reading(request, project, change)
    elif lease is None:
        membership = _membership(request, project)
        context = {"project": project, "cap_reached": cap_reached(request.user, project), **_standing(membership)}
        answer["nothing"] = render_to_string("annotation/_nothing.html", context, request)
    return _no_store(JsonResponse(answer))


@login_required
@require_POST
def draft(request: HttpRequest, slug: str, lease_id: int) -> HttpResponse:
    lease = _lease_or_404(request, slug, lease_id)
    body = draft_body_from(request.POST, form=lease.task.project.form, keys=_keys(lease))
    try:
        save_draft(lease=lease, draft=body)
    except LeaseLost as error:
        return _refused(error)
    return JsonResponse({"state": "saved"})


@login_required
@require_POST
def renew(request: HttpRequest, slug: str, lease_id: int) -> HttpResponse:
    lease = _lease_or_404(request, slug, lease_id)
    try:
        expires_at = renew_lease(lease=lease)
    except LeaseLost as error:
        return _refused(error, expired=lease.state == Lease.State.EXPIRED)
    return JsonResponse({"state": "held", "expires_at": expires_at.isoformat()})


@login_required
@require_POST
def submit(request: HttpRequest, slug: str, lease_id: int) -> HttpResponse:
    lease = _lease_or_404(request, slug, lease_id)
    body = judgement_body_from(request.POST, form=lease.task.project.form, keys=_keys(lease))
    return _take_answer(
        request,
        Bench(lease, body),
        lambda key: submit_judgement(lease=lease, submission_key=key, body=body),
    )


@login_required
@require_POST
def skip(request: HttpRequest, slug: str, lease_id: int) -> HttpResponse:
    lease = _lease_or_404(request, slug, lease_id)
    form = SkipForm(request.POST)
    project = lease.task.project
    try:
        skip_lease(lease=lease, **(form.cleaned_data if form.is_valid() else {}))
    except LeaseLost as error:
        if _by_script(request):
            return _refused(error)
        messages.warning(request, str(error))
    if _by_script(request):
        return JsonResponse({"state": "skipped", "figures": _figures(request, project)})
    return redirect("annotation:bench", slug)


@login_required
@require_POST
def report(request: HttpRequest, slug: str, lease_id: int) -> HttpResponse:
    """Tell the leads that something is wrong with the prompt; the task stays on the bench."""
    lease = _lease_or_404(request, slug, lease_id)
    form = ReportForm(request.POST)
    if not form.is_valid():
        return JsonResponse({"state": "invalid", "message": _("Say what is wrong with the prompt")}, status=422)
    report_prompt(lease=lease, **form.cleaned_data)
    return JsonResponse({"state": "reported", "message": _("Reported to the leads of the project")})


# --- one's own past judgements ------------------------------------------------------------------
@login_required
@require_safe
def history(request: HttpRequest, slug: str) -> HttpResponse:
    project = _project_or_404(request, slug)
    found = judgements_by(request.user).filter(project=project)
    before = request.GET.get("before", "")
    page = list(
        (found.filter(pk__lt=int(before)) if before.isdecimal() and len(before) < 18 else found)[: HISTORY_PAGE + 1]
    )
    bodies = [(one, judgement_body(one)) for one in page[:HISTORY_PAGE]]
    rows = [{"judgement": one, "body": body, "said": said_in(body)} for one, body in bodies]
    context = {
        "project": project,
        "section": "bench",
        "rows": rows,
        "older": page[HISTORY_PAGE - 1].pk if len(page) > HISTORY_PAGE else None,
        "is_first": not before,
    }
    return render(request, "annotation/history.html", context)


@login_required
@require_http_methods(["GET", "POST"])
def revise(request: HttpRequest, slug: str, judgement_id: int) -> HttpResponse:
    """Look at one's own judgement again and, while the project allows it, put a newer one in its place."""
    project = _project_or_404(request, slug)
    if request.method == "POST":
        # Superseded ones too: a repeated request finds the revision that its first try made.
        mine = Judgement.objects.filter(annotator=request.user, project=project)
        judgement = get_object_or_404(mine, pk=judgement_id)
        body = judgement_body_from(request.POST, form=project.form, keys=_keys(judgement.lease))
        return _take_answer(
            request,
            Bench(judgement.lease, body, judgement),
            lambda key: revise_judgement(judgement=judgement, submission_key=key, body=body),
        )
    judgement = get_object_or_404(judgements_by(request.user).filter(project=project), pk=judgement_id)
    filled = {name: part for name, part in judgement_body(judgement).items() if name != "seconds"}
    return _bench_page(request, project, Bench(judgement.lease, filled, judgement))


# --- shared -------------------------------------------------------------------------------------
def _project_or_404(request: HttpRequest, slug: str) -> Project:
    return get_object_or_404(projects_at_work(request.user), slug=slug)


def _task_or_change(
    request: HttpRequest, project: Project, holding: Collection[int] = ()
) -> tuple[Lease | None, GuidelineChange | None]:
    """The next task; or, before a new one, what changed in the guideline. What is in hand is finished first."""
    change = change_to_read(request.user, project)
    if change is None:
        return take_lease(project=project, annotator=request.user, holding=holding), None
    lease = lease_in_hand(request.user, project, holding)
    return lease, None if lease else change


def _membership(request: HttpRequest, project: Project) -> Membership:
    return project.memberships.select_related("project").get(user=request.user)


def _lease_or_404(request: HttpRequest, slug: str, lease_id: int) -> Lease:
    project = _project_or_404(request, slug)
    lease = get_object_or_404(leases_held_by(request.user), pk=lease_id, task__project=project)
    lease.task.project = project  # this one knows what the person has read
    return lease


def _keys(lease: Lease) -> list[str]:
    return list(KEYS[: len(lease.order_shown)])


def _by_script(request: HttpRequest) -> bool:
    return request.headers.get("X-Bench") == "1"


def _holding(request: HttpRequest) -> list[int]:
    return [
        int(word) for word in request.POST.get("holding", "").split(",")[:50] if word.isdecimal() and len(word) < 18
    ]


def _standing(membership: Membership) -> dict[str, Any]:
    """Why somebody has no task, where it isn't that there are none, and whom to ask."""
    is_active = membership.state == Membership.State.ACTIVE
    if is_active and not waits_for_others(membership):
        return {}
    leads = membership.project.memberships.filter(role=Role.LEAD).order_by("user__username")
    return {
        "membership": membership,
        "for_others": is_active,
        "reason": in_own_language(membership.state_reason),
        "leads": list(leads.values_list("user__username", flat=True)),
    }


def _bench_page(
    request: HttpRequest,
    project: Project,
    task: Bench | None,
    *,
    status: int = 200,
    change: GuidelineChange | None = None,
    feedback: Feedback | None = None,
) -> HttpResponse:
    context = {
        "project": project,
        "section": "bench",
        "bench": task,
        "change": change,
        "figures": figures_of(request.user, project),
        "skip_reasons": Lease.SkipReason.choices,
        "report_reasons": PromptReport.Reason.choices,
        "cap_reached": task is None and cap_reached(request.user, project),
        "feedback": feedback,
        **({} if task else _standing(_membership(request, project))),
        "last": judgements_by(request.user).filter(project=project).first() if project.allows_revision else None,
    }
    return _no_store(render(request, "annotation/bench.html", context, status=status))


def _fragment(request: HttpRequest, project: Project, lease: Lease | None) -> str | None:
    if lease is None:
        return None
    return render_to_string("annotation/_task.html", {"bench": Bench(lease, lease.draft or {})}, request)


def _reading(request: HttpRequest, project: Project, change: GuidelineChange) -> str:
    return render_to_string("annotation/_reading.html", {"project": project, "change": change}, request)


def _take_answer(request: HttpRequest, task: Bench, take: Any) -> HttpResponse:
    """Hand the answer to its service, and say in the page's own way what became of it."""
    project = task.project
    form = SubmissionForm(request.POST)
    if not form.is_valid():
        return _wrong(request, task, {"submission_key": _("is missing: reload the page")})
    try:
        submission: Submission = take(form.cleaned_data["submission_key"])
    except BadAnswer as error:
        return _wrong(request, task, error.fields)
    except AnnotationError as error:
        if _by_script(request):
            return _refused(error, **{"next": None, **_next_after(request, project, task)})
        messages.warning(request, str(error))
        return redirect("annotation:bench", project.slug)
    judgement = submission.judgement
    surplus = judgement.is_surplus and not task.judgement
    feedback = submission.feedback
    if not _by_script(request):
        if feedback:
            return redirect(f"{reverse('annotation:bench', args=[project.slug])}?told={judgement.pk}")
        if surplus:
            messages.info(request, SURPLUS)
        return redirect("annotation:bench", project.slug)
    answer = {
        "state": "surplus" if surplus else "saved",
        "message": str(SURPLUS) if surplus else _("Saved"),
        "undo_url": _undo_url(project, judgement),
        "figures": _figures(request, project),
    }
    if feedback:
        answer["feedback"] = render_to_string("annotation/_feedback.html", {"feedback": feedback}, request)
    if request.GET.get("next"):
        answer["next"] = None
        answer.update(_next_after(request, project, task))
    return _no_store(JsonResponse(answer, status=202 if surplus else 201 if submission.is_new else 200))


def _next_after(request: HttpRequest, project: Project, task: Bench) -> dict[str, str | None]:
    """What an answer says of the next task, where it was asked for."""
    if not request.GET.get("next") or task.judgement:
        return {}
    lease, change = _task_or_change(request, project, [*_holding(request), task.lease.pk])
    return {"guideline": _reading(request, project, change)} if change else {"next": _fragment(request, project, lease)}


def _wrong(request: HttpRequest, task: Bench, fields: dict[str, str]) -> HttpResponse:
    if _by_script(request):
        message = "; ".join(f"{name} {problem}" for name, problem in fields.items())
        return JsonResponse({"state": "invalid", "message": message, "fields": fields}, status=422)
    task.errors = fields
    return _bench_page(request, task.project, task, status=422)


def _refused(error: AnnotationError, **more: Any) -> HttpResponse:
    return JsonResponse({"state": error.code, "message": str(error), **more}, status=409)


def _figures(request: HttpRequest, project: Project) -> str:
    return render_to_string("annotation/_figures.html", {"figures": figures_of(request.user, project)}, request)


def _undo_url(project: Project, judgement: Judgement) -> str:
    return reverse("annotation:revise", args=[project.slug, judgement.pk]) if project.allows_revision else ""


def _no_store(response: HttpResponse) -> HttpResponse:
    """A task taken from the browser's cache by its back key would be one that is already judged."""
    response["Cache-Control"] = "no-store, private"
    return response
