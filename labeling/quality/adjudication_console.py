"""Pages of reviewers and leads: tasks on which annotators differ, and settling one."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labeling.accounts.roles import REVIEWING, STEERING
from labeling.annotation.errors import KeyReused
from labeling.annotation.forms import judgement_body_from
from labeling.annotation.selectors import KEYS, keys_of
from labeling.projects.console_access import console_page, keyset_page, show
from labeling.projects.models import Project
from labeling.quality.adjudication import (
    FORM,
    AdjudicationBench,
    bench_of,
    in_letters,
    n_waiting,
    next_in_queue,
    queue_page,
    standing_adjudications,
    tasks_to_settle,
    votes_on,
)
from labeling.quality.errors import AlreadyAdjudicated, BadOutcome
from labeling.quality.models import Adjudication, Review
from labeling.quality.services import (
    MAX_NOTE,
    adjudicate,
    adjudication_mode,
    open_review,
    say_ranking,
    set_adjudication_mode,
    settle_note,
)

MOST_SETTLED = 10


class AdjudicationForm(forms.Form):
    """The fields beside the ranking; that one is read as the bench sends it."""

    submission_key = forms.RegexField(r"^[\w.-]{8,80}$")
    outcome = forms.ChoiceField(choices=Adjudication.Outcome.choices, required=False)
    becomes_gold = forms.BooleanField(required=False)
    note_to_guideline = forms.CharField(required=False, max_length=MAX_NOTE)
    supersedes = forms.IntegerField(required=False, min_value=1, max_value=2**62)


@require_safe
@console_page(to_open=REVIEWING)
def queue(request: HttpRequest, project: Project) -> HttpResponse:
    """What waits, what was settled lately, and how votes are shown."""
    settled = standing_adjudications(project).select_related("task__prompt", "by")
    if request.GET.get("state") == "settled":
        page = keyset_page(request, settled)
        return show(request, "console/quality/settled.html", project, page=page)
    recent = list(settled.order_by("-pk")[: MOST_SETTLED + 1])
    return show(
        request, "console/quality/adjudication.html", project, mode=adjudication_mode(project),
        page=queue_page(project, request.user, request.GET.get("after", "")), n_waiting=n_waiting(project),
        settled=recent[:MOST_SETTLED], has_more=len(recent) > MOST_SETTLED,
    )  # fmt: skip


@require_POST
@console_page(to_open=REVIEWING, to_change=STEERING)
def change_mode(request: HttpRequest, project: Project) -> HttpResponse:
    try:
        set_adjudication_mode(project=project, mode=request.POST.get("adjudication", ""))
    except BadOutcome as error:
        messages.error(request, str(error))
    else:
        messages.success(request, "Saved. It holds for tasks that a reviewer opens from now on.")
    return redirect("projects:adjudication", project.slug)


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_open=REVIEWING, to_change=REVIEWING)
def one_task(request: HttpRequest, project: Project, task_id: str) -> HttpResponse:
    """One task before a reviewer: in a blind project first their own ranking, then the votes beside it."""
    settleable = tasks_to_settle(project, request.user, request.console_role)
    task = get_object_or_404(settleable.select_related("prompt"), public_id=task_id)
    task.project = project
    review = open_review(task=task, by=request.user)
    bench = bench_of(task, review)
    if request.method != "POST":
        return _page(request, project, bench)
    body = judgement_body_from(request.POST, form=FORM, keys=list(KEYS[: len(review.order_shown)]))
    form = AdjudicationForm(request.POST)
    bench.filled = body
    bench.note_to_guideline = request.POST.get("note_to_guideline", "")
    bench.becomes_gold = bool(request.POST.get("becomes_gold"))
    if not form.is_valid():
        bench.errors = {name: " ".join(problems) for name, problems in form.errors.items()}
        return _page(request, project, bench, status=422)
    bench.submission_key = form.cleaned_data["submission_key"]
    ids = keys_of(review.order_shown)
    said = {
        "ranking": [[ids[key] for key in group] for group in body.get("ranking", [])],
        "none_acceptable": bool(body.get("none_acceptable")),
        "rationale": body.get("rationale", ""),
    }
    outcome = form.cleaned_data.pop("outcome")
    try:
        if not bench.sees_votes and outcome != Adjudication.Outcome.UNFIT:
            say_ranking(review=review, **said)
            return redirect(bench.submit_url)
        usual = Adjudication.Outcome.RANKING if bench.ranks_completions else Adjudication.Outcome.LEFT
        done = adjudicate(task=task, by=request.user, outcome=outcome or usual, **said, **form.cleaned_data)
    except BadOutcome as error:
        bench.errors = error.fields
        return _page(request, project, bench, status=422)
    except KeyReused as error:
        bench.errors = {"submission_key": str(error)}
        return _page(request, project, bench, status=409)
    except AlreadyAdjudicated as error:
        # Everything typed is still in the form; sending it again replaces the other's outcome, knowingly.
        bench.standing = error.adjudication
        return _page(request, project, bench, status=409, was_first=True)
    messages.success(request, f"Settled: {_in_words(done.adjudication, review)}.")
    following = next_in_queue(project, bench.disagreement)
    if following:
        return redirect("projects:adjudicate", project.slug, following.public_id)
    return redirect("projects:adjudication", project.slug)


def _in_words(adjudication: Adjudication, review: Review) -> str:
    if adjudication.outcome == Adjudication.Outcome.RANKING:
        return in_letters(adjudication.ranking, review.order_shown)
    return adjudication.get_outcome_display()


def _page(
    request: HttpRequest, project: Project, bench: AdjudicationBench, *, status: int = 200, was_first: bool = False
) -> HttpResponse:
    review, standing = bench.review, bench.standing
    context: dict[str, Any] = {
        "bench": bench,
        "votes": votes_on(bench.lease.task, review.order_shown) if bench.sees_votes else [],
        "own": in_letters(review.said, review.order_shown) if review.said is not None else "",
        "standing": standing,
        "standing_ranking": in_letters(standing.ranking, review.order_shown) if standing else "",
        "was_first": was_first,
        "following": next_in_queue(project, bench.disagreement),
        "n_waiting": n_waiting(project),
        "is_blind": adjudication_mode(project) == "blind",
    }
    response = show(request, "console/quality/adjudicate.html", project, status=status, **context)
    response["Cache-Control"] = "no-store, private"
    return response


@require_POST
@console_page(to_open=REVIEWING, to_change=STEERING)
def tick_off_note(request: HttpRequest, project: Project, adjudication_id: int) -> HttpResponse:
    """A lead has taken up, or put aside, a note to the guideline."""
    note = get_object_or_404(
        Adjudication.objects.filter(project=project).exclude(note_to_guideline=""), pk=adjudication_id
    )
    settle_note(adjudication=note, by=request.user)
    return redirect("projects:guidelines", project.slug)
