"""Pages for leads: people, guidelines, prompts, settings. The front page is training.loop's."""

import difflib
import json
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.db.models import Count, Prefetch, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labeling.accounts.models import User
from labeling.accounts.roles import STEERING, Role
from labeling.projects.console_access import add_errors, console_page, keyset_page, show
from labeling.projects.errors import BadForm, BadSkills, LastLead, SlugTaken
from labeling.projects.forms import (
    BuilderForm,
    GuidelineForm,
    MemberForm,
    NewProjectForm,
    SettingsForm,
)
from labeling.projects.models import Completion, Guideline, Project, Prompt
from labeling.projects.presets import TALK
from labeling.projects.row_buttons import after_button, is_button
from labeling.projects.selectors import members_of
from labeling.projects.services import (
    add_member,
    change_project,
    create_project,
    publish_guideline,
    remove_member,
)
from labeling.web.markdown import render_markdown
from labeling.web.remembering import remembered, total

ROLE_HELP = {
    Role.ANNOTATOR: "judges tasks; sees nothing else",
    Role.REVIEWER: "judges, reads the console, and settles what annotators differ on",
    Role.LEAD: "judges, reads, steers and trains",
    Role.ENGINEER: "reads the console, freezes snapshots and trains; judges nothing",
}


# --- projects -----------------------------------------------------------------------------------
@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def new_project(request: HttpRequest) -> HttpResponse:
    if not request.user.is_person:
        raise Http404("Only a person makes projects")
    form = _builder(NewProjectForm, request, NewProjectForm.initial_of({}) | NewProjectForm.initial_of_bench({}))
    if request.method == "POST" and not form.is_draft and form.is_valid():
        data = form.cleaned_data
        try:
            project = create_project(
                slug=data["slug"], name=data["name"], description=data["description"], guideline=data["guideline"],
                form=form.feedback_form(), bench=form.bench_settings(), created_by=request.user, **form.work(),
            )  # fmt: skip
        except SlugTaken as error:
            form.add_error("slug", str(error))
        except BadForm as error:
            add_errors(form, error.fields)
        except ValidationError as error:
            add_errors(form, error.message_dict)
        else:
            talks = form.preset == TALK.key and form.has_conversations
            return redirect("projects:conversation" if talks else "projects:overview", project.slug)
    return render(request, "console/projects/new.html", {"form": form}, status=_status_of(form))


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_change=STEERING)
def settings(request: HttpRequest, project: Project) -> HttpResponse:
    form = _builder(SettingsForm, request, SettingsForm.initial_of_project(project))
    if request.method == "POST" and not form.is_draft and form.is_valid():
        try:
            change_project(project=project, **form.changes(project))
        except BadForm as error:
            add_errors(form, error.fields)
        except ValidationError as error:
            add_errors(form, error.message_dict)
        else:
            messages.success(request, "Saved. Tasks given out from now on follow it.")
            return redirect("projects:settings", project.slug)
        project.refresh_from_db()
    return show(request, "console/projects/settings.html", project, form=form, status=_status_of(form))


def _builder(form_class: type[BuilderForm], request: HttpRequest, initial: dict[str, Any]) -> BuilderForm:
    """The form as sent, or, where one of the builder's own buttons was pressed, as it is after that."""
    if request.method != "POST":
        return form_class(initial=initial)
    form = form_class(after_button(request.POST), initial=initial)
    form.is_draft = is_button(request.POST)
    return form


def _status_of(form: BuilderForm) -> int:
    return 422 if form.is_bound and not form.is_draft else 200


@require_POST
@console_page(to_change=STEERING)
def set_state(request: HttpRequest, project: Project) -> HttpResponse:
    """Pause or resume: a paused project hands out no tasks, and takes what is being judged."""
    state = request.POST.get("state")
    if state in Project.State.values:
        change_project(project=project, state=state)
    return redirect("projects:settings", project.slug)


# --- people -------------------------------------------------------------------------------------
@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_change=STEERING)
def people(request: HttpRequest, project: Project) -> HttpResponse:
    """The members, newest first, each with a form in its row, and a form for one more."""
    sent = MemberForm(request.POST) if request.method == "POST" else None
    if sent and sent.is_valid():
        user, role = sent.cleaned_data["username"], sent.cleaned_data["role"]
        try:
            add_member(project=project, user=user, role=role, **sent.known)
        except LastLead as error:
            sent.add_error("role", str(error))
        except BadSkills as error:
            add_errors(sent, error.fields)
        else:
            messages.success(request, f"{user.username} is {role} now.")
            return redirect(request.get_full_path())
    words = request.GET.get("q", "").strip()[:100]
    members = members_of(project)
    page = keyset_page(request, members.filter(user__username__icontains=words) if words else members)
    judged = project.judgements.current().order_by().values_list("annotator").annotate(n=Count("pk"))
    counts = remembered(f"judged-by:{project.pk}", lambda: dict(judged), n=total)
    of_row = request.POST.get("row", "")
    for member in page["rows"]:
        member.n_judgements = counts.get(member.user_id, 0)
        member.sent = sent if of_row == str(member.user_id) else None
    return show(
        request, "console/projects/people.html", project, form=MemberForm() if of_row or not sent else sent, page=page,
        words=words, roles=Role.choices, role_help=ROLE_HELP, status=422 if sent else 200,
    )  # fmt: skip


@require_POST
@console_page(to_change=STEERING)
def remove_person(request: HttpRequest, project: Project, user_id: int) -> HttpResponse:
    user = get_object_or_404(User, pk=user_id, memberships__project=project)
    try:
        remove_member(project=project, user=user)
    except LastLead as error:
        messages.error(request, str(error))
    else:
        messages.success(request, f"{user.username} is out of the project; their judgements stay.")
    return redirect("projects:people", project.slug)


# --- guidelines ---------------------------------------------------------------------------------
@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_change=STEERING)
def guidelines(request: HttpRequest, project: Project) -> HttpResponse:
    """All versions; one of them, with what changed since the one before; and the form of the next."""
    versions = list(project.guidelines.select_related("created_by").order_by("-version"))
    latest = versions[0] if versions else None
    form = GuidelineForm(request.POST or None, initial={"markdown": latest.markdown if latest else ""})
    if request.method == "POST" and form.is_valid():
        published = publish_guideline(project=project, markdown=form.cleaned_data["markdown"], created_by=request.user)
        if latest and published.pk == latest.pk:
            form.add_error("markdown", f"This is version {latest.version}, word for word")
        else:
            messages.success(request, f"Version {published.version} is what annotators see from now on.")
            return redirect("projects:guidelines", project.slug)
    wanted = request.GET.get("version", "")
    shown = next((version for version in versions if str(version.version) == wanted), latest)
    before = next((version for version in versions if shown and version.version < shown.version), None)
    return show(
        request, "console/projects/guidelines.html", project, form=form, versions=versions, shown=shown, before=before,
        difference=difference(before, shown) if shown and before else [], is_editing=form.is_bound or "edit" in request.GET,
        status=422 if form.is_bound else 200,
    )  # fmt: skip


def difference(before: Guideline, after: Guideline) -> list[tuple[str, str]]:
    """Lines as (kind, text): `added`, `removed`, `same`, or `gap` where equal lines are left out."""
    kinds = {"+": "added", "-": "removed", " ": "same", "@": "gap"}
    lines = difflib.unified_diff(before.markdown.splitlines(), after.markdown.splitlines(), n=2, lineterm="")
    return [(kinds.get(line[:1], "same"), "…" if line.startswith("@@") else line[1:]) for line in list(lines)[2:]]


@require_POST
@console_page(to_change=STEERING)
def guideline_preview(request: HttpRequest, project: Project) -> HttpResponse:
    return HttpResponse(render_markdown(request.POST.get("markdown", "")))


# --- prompts ------------------------------------------------------------------------------------
def search_prompts(project: Project, words: str) -> Any:
    """Prompts whose tags hold the words, or whose id of one's own begins with them, or whose number they are."""
    found = Prompt.objects.filter(project=project)
    if not words:
        return found
    # SQLite keeps JSON with escapes, PostgreSQL without.
    match = Q(tags__icontains=words) | Q(tags__icontains=json.dumps(words)[1:-1]) | Q(external_id__istartswith=words)
    if words.isdigit() and len(words) < 19:
        match |= Q(pk=int(words))
    return found.filter(match)


@require_safe
@console_page()
def prompts(request: HttpRequest, project: Project) -> HttpResponse:
    words = request.GET.get("q", "").strip()[:100]
    page = keyset_page(request, search_prompts(project, words))
    ids = [prompt.pk for prompt in page["rows"]]
    completions = dict(
        Completion.objects.filter(prompt__in=ids).values_list("prompt").annotate(n=Count("pk")).order_by()
    )
    shown = project.tasks.filter(prompt__in=ids, purpose__in=("preference", "evaluation"))
    tasks = dict(shown.values_list("prompt").annotate(n=Count("pk")).order_by())
    for prompt in page["rows"]:
        prompt.n_completions, prompt.n_tasks = completions.get(prompt.pk, 0), tasks.get(prompt.pk, 0)
    return show(request, "console/projects/prompts.html", project, page=page, words=words)


@require_safe
@console_page()
def prompt(request: HttpRequest, project: Project, prompt_id: int) -> HttpResponse:
    """One prompt with its completions, who wrote them, and its tasks."""
    found = get_object_or_404(Prompt.objects.select_related("batch"), project=project, pk=prompt_id)
    completions = list(found.completions.select_related("author").order_by("pk"))
    # What checks annotators has a page of its own, which not everyone who reads this one may open.
    tasks = found.tasks.filter(purpose__in=("preference", "evaluation")).prefetch_related(
        Prefetch("judgements", queryset=project.judgements.current().select_related("annotator", "slot"))
    ).order_by("pk")
    letters = {completion.pk: index for index, completion in enumerate(completions, start=1)}
    rows = [
        {
            "task": task,
            "judgements": [
                {
                    "judgement": judgement,
                    "ranking": [[letters.get(pk, "?") for pk in group] for group in judgement.ranking],
                }
                for judgement in task.judgements.all()
            ],
        }
        for task in tasks
    ]
    return show(
        request, "console/projects/prompt.html", project, prompt=found, completions=completions, tasks=rows,
        # A reverse relation: withdrawals belong to an app above this one.
        withdrawal=found.withdrawals.filter(undone_at=None).select_related("by").first(),
    )  # fmt: skip
