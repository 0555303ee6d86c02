"""Pages on models: which there are, what they come from, which one is in use."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_http_methods, require_safe

from labeling.accounts.roles import STEERING, TRAINING
from labeling.preferences.contents import contents_of
from labeling.preferences.models import Snapshot
from labeling.preferences.withdrawal import withdrawn_rows_in
from labeling.projects.console_access import console_page, keyset_page, refused, show
from labeling.projects.models import Project
from training.registry.errors import RegistryError
from training.registry.forms import StageForm
from training.registry.models import ModelVersion
from training.registry.selectors import (
    lineage_of,
    models_of,
    models_of_withdrawn_rows,
    models_visible_to,
    stage_changes_of,
)
from training.registry.services import change_stage, is_promotion
from training.registry.terms import asked_of

MOST_EVALUATIONS = 6  # as many as can be compared
EVALUATED = {"win_rate": "Win rate", "win_rate/length_controlled": "With length held", "reward": "Reward", "kl": "KL, nats"}
# What a model is judged by, most telling first.
HEADLINES = ("win_rate", "accuracy", "cv_accuracy", "rewards/accuracies", "rewards/auc", "reward/change")


def headline(model: ModelVersion) -> tuple[str, dict[str, Any]] | None:
    for name in HEADLINES:
        if isinstance(model.metrics.get(name), dict) and model.metrics[name].get("value") is not None:
            return name.replace("rewards/accuracies", "reward accuracy").replace("_", " "), model.metrics[name]
    return None


@require_safe
@console_page()
def models(request: HttpRequest, project: Project) -> HttpResponse:
    page = keyset_page(request, models_of(project), size=40)
    withdrawn = models_of_withdrawn_rows(project)
    for model in page["rows"]:
        model.headline = headline(model)
        model.is_of_withdrawn_rows = model.pk in withdrawn
    return show(request, "console/registry/list.html", project, page=page)


@require_safe
@console_page()
def stage_changes(request: HttpRequest, project: Project) -> HttpResponse:
    """Which model came into use when, by whom and why."""
    return show(request, "console/registry/stage_changes.html", project, page=keyset_page(request, stage_changes_of(project)))


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_change=TRAINING)
def model(request: HttpRequest, project: Project, model_id: int) -> HttpResponse:
    found = get_object_or_404(models_visible_to(request.user).filter(pk__in=models_of(project)), pk=model_id)
    may_promote = request.console_role in STEERING
    in_production = found.stage == ModelVersion.Stage.PRODUCTION
    if request.method == "POST" and found.project_id and not may_promote and is_promotion(found, request.POST.get("to_stage", "")):
        return refused(request, project)
    form = StageForm(
        request.POST or None, may_promote=may_promote, is_in_production=in_production, initial={"to_stage": next_stage(found)}
    )
    if request.method == "POST" and form.is_valid():
        if found.project_id is None:
            form.add_error(None, "A base model is shared by all projects: the operator moves it")
        else:
            try:
                change_stage(model=found, changed_by=request.user, **form.cleaned_data)
            except RegistryError as error:
                form.add_error(None, str(error))
            else:
                messages.success(request, f"{found.key} is {form.cleaned_data['to_stage']} now.")
                return redirect("registry:detail", project.slug, found.pk)
    lineage = lineage_of(found)
    held = withdrawn_rows_in(lineage.snapshots)
    run = found.made_by.order_by("-pk").first()  # reverse relation: runs are an app above
    figures = [
        (name, figure) for name, figure in found.metrics.items() if isinstance(figure, dict) and "value" in figure
    ]
    return show(
        request, "console/registry/detail.html", project, model=found, form=form, lineage=lineage, run=run,
        chain=chain_of(found), figures=figures, headline=headline(found), status=422 if form.is_bound else 200,
        may_move=may_promote or not in_production, people=people_behind(lineage.snapshots),
        may_change_terms=may_change_terms(request, found), asked=asked_of(project, found), withdrawn=[(snapshot, held[snapshot.pk]) for snapshot in lineage.snapshots if snapshot.pk in held],
        evaluations=evaluations_of(found, project), evaluated=list(EVALUATED.values()),
        children=[row for row in lineage.descendants if row.project_id in (None, project.pk)],
        changes=found.stage_changes.select_related("created_by").order_by("-pk"),
        facts={key: value for key, value in found.lineage.items() if not isinstance(value, dict | list) and value is not None},
    )  # fmt: skip


def evaluations_of(model: ModelVersion, project: Project) -> list[Any]:
    """The newest evaluations of a model, each run with its `told`, a figure or none for each of EVALUATED."""
    done = model.runs_from.filter(kind="evaluate", state="done", project=project)  # reverse relation: runs are an app above
    runs = list(done.select_related("other_model").order_by("-pk")[:MOST_EVALUATIONS])
    for run in runs:
        figures = run.result.get("figures") or {}
        run.told = [figures.get(name) for name in EVALUATED]
    return runs


def next_stage(model: ModelVersion) -> str:
    return (
        "production"
        if model.stage == ModelVersion.Stage.CANDIDATE
        else "archived"
        if model.stage == ModelVersion.Stage.PRODUCTION
        else "candidate"
    )


def people_behind(snapshots: list[Snapshot]) -> list[tuple[Snapshot, int | None]]:
    """How many people judged what each snapshot holds; none where its files are away. Never who."""
    found = []
    for snapshot in snapshots:
        try:
            found.append((snapshot, len(contents_of(snapshot).people)))
        except OSError:
            found.append((snapshot, None))
    return found


def may_change_terms(request: HttpRequest, model: ModelVersion) -> bool:
    """A lead those of the project's models, an operator of the site those of base models."""
    if model.project_id is None:
        return request.user.is_staff
    return request.console_role in STEERING


def chain_of(model: ModelVersion, longest: int = 12) -> list[ModelVersion]:
    """The model and its parents, oldest first. One query a generation beyond the first."""
    chain = [model]
    while chain[0].parent_id and len(chain) < longest:
        parent = ModelVersion.objects.select_related("snapshot", "parent", "base").get(pk=chain[0].parent_id)
        chain.insert(0, parent)
    return chain
