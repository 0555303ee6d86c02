"""What a person may see of the registry."""

from dataclasses import dataclass, field
from typing import Any

from django.db.models import Q, QuerySet

from labeling.accounts.models import User
from labeling.accounts.roles import READING
from labeling.preferences.withdrawal import models_made_of, withdrawn_rows_in
from labeling.projects.models import Project
from labeling.projects.selectors import projects_of
from training.registry.models import ModelVersion, StageChange


def models_visible_to(user: User) -> QuerySet[ModelVersion]:
    """Models of the projects whose console the person reads, and the base models that all projects share."""
    projects = projects_of(user, roles=READING)
    if not projects.exists():
        return ModelVersion.objects.none()
    return ModelVersion.objects.filter(Q(project=None) | Q(project__in=projects)).select_related(
        "project", "base", "parent", "snapshot"
    )


def models_of(project: Project) -> QuerySet[ModelVersion]:
    """What a project can sample from, score with or train on."""
    return ModelVersion.objects.filter(Q(project=None) | Q(project=project)).select_related("parent", "base", "snapshot")


def stage_changes_of(project: Project) -> QuerySet[StageChange]:
    """Who moved the project's models to which stage, and why; base models, which are all projects', are not among them."""
    return StageChange.objects.filter(model__project=project).select_related("model", "created_by")


def models_of_withdrawn_rows(project: Project) -> set[int]:
    """Ids of the models that were made, at once or by way of others, of snapshots that hold rows withdrawn since."""
    if not project.withdrawals.filter(undone_at=None).exists():
        return set()
    snapshots = list(project.snapshots.defer("manifest"))
    held = withdrawn_rows_in(snapshots)
    made = models_made_of([snapshot for snapshot in snapshots if snapshot.pk in held])
    return {model.pk for models in made.values() for model in models}


def production_policy(project: Project) -> ModelVersion | None:
    """The policy in production, else the newest base model whose weights are here."""
    models = models_of(project)
    found = models.filter(kind=ModelVersion.Kind.POLICY, stage=ModelVersion.Stage.PRODUCTION).order_by("-pk").first()
    return found or models.filter(kind=ModelVersion.Kind.BASE).exclude(folder="").order_by("-pk").first()


@dataclass
class Lineage:
    """Where a model comes from and what was made of it, nearest first."""

    ancestors: list[ModelVersion] = field(default_factory=list)
    descendants: list[ModelVersion] = field(default_factory=list)
    snapshots: list[Any] = field(default_factory=list)
    licences: list[str] = field(default_factory=list)
    annotators_by_kind: dict[str, int] = field(default_factory=dict)


def lineage_of(model: ModelVersion) -> Lineage:
    """Walk back to the data, licences and kinds of annotator a model was made from, and forward to its children.

    The reward models that a policy was trained with, and the teacher it was distilled from, are among what it was made from.

    A judgement that entered two snapshots on the way counts once for each.
    """
    lineage = Lineage()
    seen = {model.pk}
    licences: set[str] = set()
    queue = [model]
    while queue:
        current = queue.pop(0)
        if current.pk != model.pk:
            lineage.ancestors.append(current)
        if current.licence:
            licences.add(current.licence)
        licences |= set(current.lineage.get("licences") or {})  # of texts that are no pairs
        if current.snapshot and current.snapshot not in lineage.snapshots:
            lineage.snapshots.append(current.snapshot)
            licences |= set(current.snapshot.manifest.get("pairs_by_licence", {}))
            for kind, count in current.snapshot.manifest.get("annotator_kinds", {}).items():
                lineage.annotators_by_kind[kind] = lineage.annotators_by_kind.get(kind, 0) + count
        # Reverse relations: runs are an app above.
        rewarded_by = ModelVersion.objects.filter(rewarding_runs__output_model=current).distinct().order_by("pk")
        taught_by = ModelVersion.objects.filter(runs_beside__output_model=current).distinct().order_by("pk")
        others = (other for found in (rewarded_by, taught_by) for other in found.select_related("parent", "base", "snapshot"))
        for parent in (current.parent, current.base, *others):
            if parent and parent.pk not in seen:
                seen.add(parent.pk)
                queue.append(parent)
    lineage.licences = sorted(licences)
    frontier = [model.pk]
    seen = {model.pk}
    while frontier:
        made_of = Q(parent__in=frontier) | Q(base__in=frontier) | Q(made_by__reward_models__in=frontier)
        made_of |= Q(made_by__other_model__in=frontier)
        children = ModelVersion.objects.filter(made_of).exclude(pk__in=seen).distinct()
        frontier = []
        for child in children.select_related("project").order_by("pk"):
            seen.add(child.pk)
            frontier.append(child.pk)
            lineage.descendants.append(child)
    return lineage
