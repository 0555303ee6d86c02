"""The lead's page: whom annotators talk with, and whether their servers answer."""

import asyncio
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_http_methods, require_safe

from labeling.accounts.roles import STEERING
from labeling.conversation.client import Trial, server_states, try_speaker
from labeling.conversation.errors import PROBLEMS, BadSettings
from labeling.conversation.forms import SettingsForm, SpeakerFormSet
from labeling.conversation.selectors import model_servers, recent_problems, settings_of, talk_figures
from labeling.conversation.services import change_settings
from labeling.projects.console_access import add_errors, console_page, show
from labeling.projects.models import Project

TRIAL_SECONDS = 45.0


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_change=STEERING)
def conversation(request: HttpRequest, project: Project) -> HttpResponse:
    found = settings_of(project)
    names = list(model_servers())
    options = {"form_kwargs": {"servers": names}, "prefix": "speaker"}
    form = SettingsForm(request.POST or None, initial=SettingsForm.initial_of(found))
    speakers = SpeakerFormSet(request.POST or None, initial=found.speakers, **options)
    trial = None
    if request.method == "POST" and names and form.is_valid() and speakers.is_valid():
        given = [one.speaker() for one in speakers if one.has_changed()]
        if "try" in request.POST:
            trial = _try(request.POST["try"], speakers)
        elif _save(request, project, form, given):
            return redirect("projects:conversation", project.slug)
    problems = [(turn, PROBLEMS.get(turn.problem, turn.problem)) for turn in recent_problems(project)]
    return show(
        request, "console/conversation/settings.html", project, form=form, speakers=speakers, names=names,
        found=found, trial=trial, figures=talk_figures(project), problems=problems,
        status=422 if form.is_bound and trial is None else 200,
    )  # fmt: skip


def _save(request: HttpRequest, project: Project, form: SettingsForm, given: list[dict[str, Any]]) -> bool:
    try:
        change_settings(project=project, speakers=given, **form.cleaned_data)
    except BadSettings as error:
        add_errors(form, error.fields)
        return False
    messages.success(request, "Saved. Turns from now on follow it; conversations under way keep their system prompt.")
    return True


def _try(prefix: str, speakers: Any) -> dict[str, Any] | None:
    """Ask one speaker of the form for a few words, saved or not."""
    row = next((one for one in speakers if one.prefix == prefix and one.has_changed()), None)
    if row is None:
        return None
    speaker = {"top_p": 0.95, "temperature": 0.8, "max_tokens": 24, **row.speaker()}
    server = model_servers()[speaker["server"]]

    async def within_time() -> Trial:
        try:
            async with asyncio.timeout(TRIAL_SECONDS):
                return await try_speaker(server, speaker)
        except TimeoutError:
            return Trial(problem=f"{speaker['server']}: no answer within {TRIAL_SECONDS:g} s")

    return {"prefix": prefix, "model": speaker["model"], "result": asyncio.run(within_time())}


@require_safe
@console_page()
def servers(request: HttpRequest, project: Project) -> HttpResponse:
    """Whether each server answers and what it offers; a part of the page of its own, for it may take seconds."""
    states = asyncio.run(server_states(model_servers()))
    return show(request, "console/conversation/_servers.html", project, states=states)
