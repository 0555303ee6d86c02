"""Gold tasks for those who steer and train. A reviewer judges, too, so nothing here is theirs to see."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django import forms
from django.contrib import messages
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_http_methods

from labeling.accounts.roles import STEERING, TRAINING
from labeling.annotation.models import Task
from labeling.annotation.selectors import KEYS
from labeling.projects.console_access import add_errors, console_page, keyset_page, refused, show
from labeling.projects.models import Completion, Project, Prompt
from labeling.projects.quality_settings import quality_of
from labeling.quality.adjudication import in_letters
from labeling.quality.errors import BadGold
from labeling.quality.gold import results_by_task, unanimous_tasks
from labeling.quality.models import GoldAnswer
from labeling.quality.services import (
    MAX_EXPLANATION,
    MAX_TEXT,
    change_gold,
    create_gold,
    promote_task,
    write_gold,
)

N_WRITTEN = 4
LEAST_ALIKE = 3
MOST_SHOWN = 9


class GoldForm(forms.Form):
    """What is expected of each completion, as fields named by its key: `rank.a`, `acceptable.a`, `rating.a.AXIS`."""

    explanation = forms.CharField(
        required=False, max_length=MAX_EXPLANATION, widget=forms.Textarea(attrs={"rows": 3}),
        help_text="in Markdown; shown to those who are qualifying, after their answer",
    )  # fmt: skip

    def __init__(
        self, *args: Any, project: Project, texts: list[str] | None = None, choosing: bool = False, **kwargs: Any
    ) -> None:
        """`texts`: of completions that are there; None: all is to be written. `choosing`: not all need be used."""
        super().__init__(*args, **kwargs)
        self.project, self.choosing = project, choosing
        self.is_written = texts is None
        if texts is None:
            self.fields["text"] = forms.CharField(
                max_length=MAX_TEXT, widget=forms.Textarea(attrs={"rows": 4}), label="Prompt"
            )
        self.keys = list(KEYS[: N_WRITTEN if texts is None else len(texts)])
        self.texts = texts or []
        n = len(self.keys)
        for key in self.keys:
            if texts is None:
                self.fields[f"text.{key}"] = forms.CharField(
                    required=False, max_length=MAX_TEXT, widget=forms.Textarea(attrs={"rows": 3}),
                    label=f"Completion {key}",
                )  # fmt: skip
            if choosing:
                self.fields[f"use.{key}"] = forms.BooleanField(required=False, initial=True, label=f"Show {key}")
            if project.form["ranking"]:
                self.fields[f"rank.{key}"] = forms.TypedChoiceField(
                    choices=[("", "–"), *((rank, str(rank)) for rank in range(1, n + 1))], coerce=int, empty_value=None,
                    required=False, label=f"Rank of {key}",
                )  # fmt: skip
            if project.form["acceptable"]:
                self.fields[f"acceptable.{key}"] = forms.ChoiceField(
                    choices=[("", "–"), ("yes", "yes"), ("no", "no")], required=False, label=f"{key} is acceptable"
                )
            for axis, scale in project.form["ratings"].items():
                self.fields[f"rating.{key}.{axis}"] = forms.IntegerField(
                    required=False, min_value=scale["low"], max_value=scale["high"], label=f"{axis} of {key}"
                )
                self.fields[f"within.{key}.{axis}"] = forms.IntegerField(
                    required=False, min_value=0, max_value=scale["high"] - scale["low"] - 1, label="give or take"
                )

    @property
    def rows(self) -> list[dict[str, Any]]:
        """For the template: a completion, and the fields about it."""
        rows = []
        for index, key in enumerate(self.keys):
            names = [name for name in self.fields if f".{key}" in name and name.split(".")[1] == key]
            about = [self[name] for name in names if not name.startswith(("text.", "use."))]
            rows.append({
                "key": key, "content": self.texts[index] if not self.is_written else "",
                "text": self[f"text.{key}"] if self.is_written else None,
                "use": self[f"use.{key}"] if self.choosing else None, "fields": about,
            })  # fmt: skip
        return rows

    @property
    def used(self) -> list[str]:
        data = self.cleaned_data
        if self.is_written:
            return [key for key in self.keys if data[f"text.{key}"].strip()]
        return [key for key in self.keys if data[f"use.{key}"]] if self.choosing else self.keys

    def expected(self, names: dict[str, Any]) -> dict[str, Any]:
        """What the fields say, completions named by `names` of their keys."""
        data, used = self.cleaned_data, [key for key in self.used if key in names]
        ranks = {key: data.get(f"rank.{key}") for key in used}
        given = sorted({rank for rank in ranks.values() if rank})
        return {
            "ranking": [[names[key] for key in used if ranks[key] == rank] for rank in given],
            "ratings": {
                str(names[key]): axes
                for key in used
                if (
                    axes := {
                        axis: {"value": value, "within": data.get(f"within.{key}.{axis}") or 0}
                        for axis in self.project.form["ratings"]
                        if (value := data.get(f"rating.{key}.{axis}")) is not None
                    }
                )
            },
            "acceptable": {
                str(names[key]): value == "yes" for key in used if (value := data.get(f"acceptable.{key}"))
            },
        }

    @staticmethod
    def initial_of(gold: GoldAnswer, ids: list[int]) -> dict[str, Any]:
        keys = dict(zip(ids, KEYS, strict=False))
        initial: dict[str, Any] = {"explanation": gold.explanation}
        for rank, group in enumerate(gold.expected["ranking"], 1):
            initial |= {f"rank.{keys[pk]}": rank for pk in group if pk in keys}
        for pk, value in gold.expected["acceptable"].items():
            initial[f"acceptable.{keys[int(pk)]}"] = "yes" if value else "no"
        for pk, axes in gold.expected["ratings"].items():
            for axis, wanted in axes.items():
                initial[f"rating.{keys[int(pk)]}.{axis}"] = wanted["value"]
                initial[f"within.{keys[int(pk)]}.{axis}"] = wanted["within"]
        return initial


def gold_page(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    @wraps(view)
    def opened(request: HttpRequest, project: Project, **kwargs: Any) -> HttpResponse:
        if request.console_role not in TRAINING:  # type: ignore[attr-defined]
            return refused(request, project)
        return view(request, project, **kwargs)

    return console_page(to_change=STEERING)(opened)


@require_http_methods(["GET", "HEAD", "POST"])
@gold_page
def gold(request: HttpRequest, project: Project) -> HttpResponse:
    """The gold tasks with how they were answered, and tasks that could become some."""
    if request.method == "POST":
        return _promote(request, project)
    results = results_by_task(project)
    found = GoldAnswer.objects.filter(project=project).select_related("task__prompt", "written_by")
    page = keyset_page(request, found)
    given = dict(
        Task.objects.filter(repeats__in=[row.task_id for row in page["rows"]], purpose=Task.Purpose.GOLD)
        .order_by().values_list("repeats").annotate(n=Count("pk"))
    )  # fmt: skip
    for row in page["rows"]:
        row.said = _in_letters(row.expected["ranking"])
        row.results, row.n_given = results.get(row.task_id), given.get(row.task_id, 0)
    candidates = [
        {"task": task, "n": n, "said": _in_letters(ranking)}
        for task, ranking, n in unanimous_tasks(project, least=LEAST_ALIKE, limit=20)
    ]
    settings = quality_of(project.quality)
    in_use = GoldAnswer.objects.filter(project=project, retired_at=None).count()
    return show(
        request, "console/quality/gold.html", project, page=page, candidates=candidates, least=LEAST_ALIKE,
        settings=settings, in_use=in_use, too_few=in_use < settings["qualification"]["n"],
    )  # fmt: skip


def _in_letters(ranking: list[list[int]]) -> str:
    """Completions by letters in the order of their ids, as the page of a gold task shows them."""
    ids = sorted(pk for group in ranking for pk in group)
    return in_letters(ranking, ids)


def _promote(request: HttpRequest, project: Project) -> HttpResponse:
    task = Task.objects.filter(project=project, public_id=request.POST.get("task", "")).first()
    try:
        if task is None:
            raise BadGold({"task": "is not in this project"})
        promote_task(task=task, by=request.user)
    except BadGold as error:
        messages.warning(request, f"Not promoted: {error}.")
    else:
        messages.success(request, "Promoted. It is handed out as soon as gold tasks are.")
    return redirect("projects:gold", project.slug)


@require_http_methods(["GET", "HEAD", "POST"])
@gold_page
def new_gold(request: HttpRequest, project: Project) -> HttpResponse:
    """Write a gold task, or make one of a prompt that is there (`?prompt=12`) and its completions."""
    number = request.GET.get("prompt", "").strip()
    prompt = None
    completions: list[Completion] = []
    if number:
        is_number = number.isdigit() and len(number) < 19
        prompt = Prompt.objects.filter(project=project, pk=int(number)).first() if is_number else None
        if prompt is None:
            messages.warning(request, f"There is no prompt {number[:30]} in this project.")
            return redirect("projects:new_gold", project.slug)
        completions = list(prompt.completions.filter(author=None).order_by("pk")[:MOST_SHOWN])
    texts = [completion.content for completion in completions] if prompt else None
    form = GoldForm(request.POST or None, project=project, texts=texts, choosing=prompt is not None)
    if request.method == "POST" and form.is_valid():
        try:
            explanation = form.cleaned_data["explanation"]
            if prompt:
                ids = {key: completion.pk for key, completion in zip(form.keys, completions, strict=True)}
                create_gold(
                    project=project, prompt=prompt, completion_ids=[ids[key] for key in form.used],
                    expected=form.expected(ids), explanation=explanation, written_by=request.user,
                )  # fmt: skip
            else:
                places = {key: place for place, key in enumerate(form.used)}
                write_gold(
                    project=project, messages=[{"role": "user", "content": form.cleaned_data["text"]}],
                    completions=[form.cleaned_data[f"text.{key}"] for key in form.used],
                    expected=form.expected(places), explanation=explanation, written_by=request.user,
                )  # fmt: skip
        except BadGold as error:
            add_errors(form, error.fields)
        else:
            messages.success(request, "Kept as a gold task.")
            return redirect("projects:gold", project.slug)
    status = 422 if form.is_bound else 200
    return show(request, "console/quality/new_gold.html", project, form=form, prompt=prompt, status=status)


@require_http_methods(["GET", "HEAD", "POST"])
@gold_page
def gold_task(request: HttpRequest, project: Project, gold_id: int) -> HttpResponse:
    """One gold task: change what is expected, retire it or take it back into use."""
    found = get_object_or_404(GoldAnswer.objects.select_related("task__prompt", "project"), project=project, pk=gold_id)
    if request.method == "POST" and request.POST.get("do") in ("retire", "use"):
        change_gold(gold=found, retired=request.POST["do"] == "retire")
        return redirect("projects:gold", project.slug)
    completions = list(found.task.completions.order_by("pk"))
    ids = [completion.pk for completion in completions]
    form = GoldForm(
        request.POST or None, project=project, texts=[completion.content for completion in completions],
        initial=GoldForm.initial_of(found, ids),
    )  # fmt: skip
    if request.method == "POST" and form.is_valid():
        try:
            expected = form.expected(dict(zip(form.keys, ids, strict=True)))
            change_gold(gold=found, expected=expected, explanation=form.cleaned_data["explanation"])
        except BadGold as error:
            add_errors(form, error.fields)
        else:
            messages.success(request, "Saved. Answers that came in are scored by it, too.")
            return redirect("projects:gold", project.slug)
    return show(
        request, "console/quality/new_gold.html", project, form=form, prompt=found.task.prompt, gold=found,
        status=422 if form.is_bound else 200,
    )  # fmt: skip
