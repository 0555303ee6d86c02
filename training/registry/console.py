"""Pages on models: which there are, what they come from, which one is in use."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_http_methods, require_safe

from labeling.accounts.roles import TRAINING
from labeling.projects.console_access import console_page, keyset_page, show
from labeling.projects.models import Project
from training.registry.errors import RegistryError
from training.registry.forms import StageForm
from training.registry.models import ModelVersion
from training.registry.selectors import lineage_of, models_of, models_visible_to
from training.registry.services import change_stage

# What a model is judged by, most telling first.
HEADLINES = ("win_rate", "accuracy", "cv_accuracy", "rewards/accuracies")


def headline(model: ModelVersion) -> tuple[str, dict[str, Any]] | None:
    for name in HEADLINES:
        if isinstance(model.metrics.get(name), dict) and model.metrics[name].get("value") is not None:
            return name.replace("rewards/accuracies", "reward accuracy").replace("_", " "), model.metrics[name]
    return None


@require_safe
@console_page()
def models(request: HttpRequest, project: Project) -> HttpResponse:
    page = keyset_page(request, models_of(project), size=40)
    for model in page["rows"]:
        model.headline = headline(model)
    return show(request, "console/registry/list.html", project, page=page)


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(to_change=TRAINING)
def model(request: HttpRequest, project: Project, model_id: int) -> HttpResponse:
    found = get_object_or_404(models_visible_to(request.user).filter(pk__in=models_of(project)), pk=model_id)
    form = StageForm(request.POST or None, initial={"to_stage": next_stage(found)})
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
    run = found.made_by.order_by("-pk").first()  # reverse relation: runs are an app above
    figures = [
        (name, figure) for name, figure in found.metrics.items() if isinstance(figure, dict) and "value" in figure
    ]
    return show(
        request, "console/registry/detail.html", project, model=found, form=form, lineage=lineage, run=run,
        chain=chain_of(found), figures=figures, headline=headline(found), status=422 if form.is_bound else 200,
        children=[row for row in lineage.descendants if row.project_id in (None, project.pk)],
        changes=found.stage_changes.select_related("created_by").order_by("-pk"),
        facts={key: value for key, value in found.lineage.items() if not isinstance(value, dict | list) and value is not None},
    )  # fmt: skip


def next_stage(model: ModelVersion) -> str:
    return (
        "production"
        if model.stage == ModelVersion.Stage.CANDIDATE
        else "archived"
        if model.stage == ModelVersion.Stage.PRODUCTION
        else "candidate"
    )


def chain_of(model: ModelVersion, longest: int = 12) -> list[ModelVersion]:
    """The model and its parents, oldest first. One query a generation beyond the first."""
    chain = [model]
    while chain[0].parent_id and len(chain) < longest:
        parent = ModelVersion.objects.select_related("snapshot", "parent").get(pk=chain[0].parent_id)
        chain.insert(0, parent)
    return chain
