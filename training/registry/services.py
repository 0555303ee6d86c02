"""Registering models and moving them between stages."""

import hashlib
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Max

from labeling.accounts.models import User
from labeling.live.services import notify
from labeling.preferences.models import Snapshot
from labeling.projects.models import Project
from training.registry.errors import BadStage, NoSuchModelFiles, UnsafeModelFiles
from training.registry.models import ModelVersion, StageChange
from training.registry.terms import refuse_unaccepted

UNSAFE_SUFFIXES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".py", ".npy"}


def folder_of(model: ModelVersion) -> Path:
    """The model's folder on this machine."""
    return Path(settings.HOME) / model.folder


def hash_files(folder: Path, *, weights: str = ".safetensors") -> dict[str, str]:
    """SHA-256 of each file of a model folder. Raises UnsafeModelFiles, and NoSuchModelFiles unless a file ends on `weights`."""
    if not folder.is_dir():
        raise NoSuchModelFiles(f"There is no model folder at {folder}")
    files: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        if path.suffix.lower() in UNSAFE_SUFFIXES:
            raise UnsafeModelFiles(
                f"{path.name} can run code when it is loaded. Convert the weights to safetensors and leave it out."
            )
        with open(path, "rb") as file:
            files[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    if not any(name.endswith(weights) for name in files):
        raise NoSuchModelFiles(f"{folder} holds no {weights} weights")
    return files


def register_base_model(
    *, name: str, folder: str, licence: str, source: str = "", created_by: User | None = None, **terms: Any
) -> ModelVersion:
    """Enter a base model that lies in `folder` below PREFLOOP_HOME; the same files again give the entry there is.

    `terms`: `licence_url`, `fee_due`, `acceptance_due`, `output_restrictions`, where they are known.
    Raises NoSuchModelFiles and UnsafeModelFiles.
    """
    path = (Path(settings.HOME) / folder).resolve()
    if not path.is_relative_to(Path(settings.HOME).resolve()):
        raise NoSuchModelFiles("A model's folder lies below PREFLOOP_HOME")
    files = hash_files(path)
    for known in ModelVersion.objects.filter(name=name, kind=ModelVersion.Kind.BASE):
        if known.files == files:
            return known
    return _create(
        name=name, kind=ModelVersion.Kind.BASE, stage=ModelVersion.Stage.PRODUCTION, folder=folder, licence=licence,
        source=source, files=files, lineage={"registered_by": created_by.username if created_by else None}, **terms,
    )  # fmt: skip


def register_served_model(
    *, name: str, project: Project, licence: str, source: str, lineage: dict[str, Any]
) -> ModelVersion:
    """Enter a model whose weights are on a server alone: one can sample from it there, and train nothing on it.

    Its `folder` and `files` are empty; `lineage` says what is served.
    """
    return _create(
        name=name, kind=ModelVersion.Kind.BASE, project=project, folder="", licence=licence, source=source,
        lineage=lineage,
    )  # fmt: skip


def register_trained_model(
    *,
    name: str,
    kind: str,
    project: Project,
    parent: ModelVersion,
    snapshot: Snapshot | None,
    folder: str,
    is_adapter: bool,
    metrics: dict[str, Any],
    lineage: dict[str, Any],
    teacher: ModelVersion | None = None,
) -> ModelVersion:
    """Enter what a run made, as a candidate, under the next version of its name.

    Its base is the whole model that it hangs on: a base model, or a policy that was merged or trained whole. Terms that
    were written down for the parent alone, or for the teacher whose completions it learnt on, go with it.
    """
    base = parent.base if parent.is_adapter else parent
    return _create(
        name=name, kind=kind, project=project, parent=parent, base=base, snapshot=snapshot, folder=folder,
        is_adapter=is_adapter, licence=parent.licence,
        files=hash_files(Path(settings.HOME) / folder, weights=".gguf" if kind == ModelVersion.Kind.GGUF else ".safetensors"),
        metrics=metrics, lineage=lineage, **_terms_with_it(parent, base, teacher),
    )  # fmt: skip


def _terms_with_it(parent: ModelVersion, base: ModelVersion, teacher: ModelVersion | None) -> dict[str, Any]:
    """Terms of its own for a model that stands under more than those of its base; else none."""
    sources = list(dict.fromkeys(source.terms_of for source in (base, parent, teacher) if source is not None))
    sources = [source for source in sources if source.has_terms]
    if not sources or sources == [base.terms_of]:
        return {}
    said = {source: source.output_restrictions.strip() for source in sources if source.output_restrictions.strip()}
    return {
        "licence_url": sources[0].licence_url,
        "fee_due": any(source.fee_due for source in sources),
        "acceptance_due": any(source.acceptance_due for source in sources),
        "output_restrictions": next(iter(said.values())) if len(said) == 1
        else "\n\n".join(f"{source.key}: {text}" for source, text in said.items()),
        "terms_are_of_sources": True,
    }  # fmt: skip


def register_imported_model(
    *, name: str, kind: str, project: Project | None, base: ModelVersion | None, folder: str, is_adapter: bool, **fields: Any
) -> ModelVersion:
    """Enter a model that was made elsewhere and lies checked below PREFLOOP_HOME: a base model for use, others as candidates.

    Raises NoSuchModelFiles and UnsafeModelFiles.
    """
    stage = ModelVersion.Stage.PRODUCTION if kind == ModelVersion.Kind.BASE else ModelVersion.Stage.CANDIDATE
    return _create(
        name=name, kind=kind, stage=stage, project=project, base=base, parent=base, folder=folder, is_adapter=is_adapter,
        files=hash_files(Path(settings.HOME) / folder), **fields,
    )  # fmt: skip


def next_version(name: str) -> int:
    return (ModelVersion.objects.filter(name=name).aggregate(top=Max("version"))["top"] or 0) + 1


def _create(*, name: str, **fields: Any) -> ModelVersion:
    with transaction.atomic():
        version = next_version(name)
        return ModelVersion.objects.create(name=name, version=version, key=f"{name}@{version}", **fields)


def change_stage(*, model: ModelVersion, to_stage: str, reason: str, changed_by: User | None) -> StageChange:
    """Move a model to candidate, production or archived, and keep who did so and why.

    A model that goes to production takes the place of its project's earlier one of that kind, which becomes a candidate
    again; the database holds that there is one. Which of the moves are a lead's alone,
    `is_promotion` says. Raises BadStage, and TermsNotAccepted on the way to production.
    """
    if to_stage not in ModelVersion.Stage.values:
        raise BadStage(f"Unknown stage {to_stage!r}: choose from {', '.join(ModelVersion.Stage.values)}")
    if not reason.strip():
        raise BadStage("Say why: the reason is kept with the change")
    with transaction.atomic():
        if model.project_id:  # of two who promote at once, the second waits and then takes the first's place
            Project.objects.select_for_update().get(pk=model.project_id)
        model = ModelVersion.objects.select_for_update().get(pk=model.pk)
        if to_stage == model.stage:
            raise BadStage(f"{model.key} is {to_stage} already")
        if to_stage == ModelVersion.Stage.PRODUCTION and model.project:
            refuse_unaccepted(model.project, model)
        if to_stage == ModelVersion.Stage.PRODUCTION and model.project_id:
            earlier = ModelVersion.objects.filter(
                project=model.project_id, kind=model.kind, stage=ModelVersion.Stage.PRODUCTION
            )
            for other in earlier.exclude(pk=model.pk):
                _move(other, ModelVersion.Stage.CANDIDATE, f"{model.key} took its place", changed_by)
        change = _move(model, to_stage, reason.strip(), changed_by)
    return change


def is_promotion(model: ModelVersion, to_stage: str) -> bool:
    """Whether the move brings the model into use or takes it out of use."""
    return ModelVersion.Stage.PRODUCTION in (model.stage, to_stage)


def change_terms(*, model: ModelVersion, **terms: Any) -> None:
    """Write down a model's licence and terms: `licence`, `licence_url`, `fee_due`, `acceptance_due`, `output_restrictions`."""
    terms = {**terms, "terms_are_of_sources": False}
    ModelVersion.objects.filter(pk=model.pk).update(**terms)
    for name, value in terms.items():
        setattr(model, name, value)


def _move(model: ModelVersion, to_stage: str, reason: str, changed_by: User | None) -> StageChange:
    change = StageChange.objects.create(
        model=model, from_stage=model.stage, to_stage=to_stage, reason=reason, created_by=changed_by
    )
    ModelVersion.objects.filter(pk=model.pk).update(stage=to_stage)
    if model.project:  # also for those who are told by webhook
        notify(model.project.live_group, "model", model=model.pk, state=to_stage, before=model.stage)
    return change
