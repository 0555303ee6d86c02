"""Choosing how a project's completions are encoded, encoding what arrives, and forgetting what was withdrawn."""

import contextlib
import json
import shutil
from functools import partial
from pathlib import Path

from django.conf import settings
from django.db import IntegrityError, transaction

from labeling.accounts.models import User
from labeling.live.services import notify
from labeling.projects.models import Project
from training.features.errors import BadEncoder, NothingToEncode
from training.features.models import Encoded, Encoder
from training.features.selectors import (
    OPEN,
    completions_to_keep,
    completions_waiting,
    encode_runs,
    encoder_in_use,
    folder_of,
)
from training.registry.models import ModelVersion
from training.registry.services import folder_of as folder_of_model
from training.runs.errors import BadSpec, RunError
from training.runs.models import Run
from training.runs.services import create_run, request_cancel
from training.sampling.feature_store import FeaturesError, FeatureStore

MAX_LENGTHS, DIMENSIONS = (16, 32_768), (1, 4096)
BATCH = 500


def create_encoder(
    *, project: Project, model: ModelVersion, layer: int, pooling: str, max_length: int = 1024, dimensions: int = 64,
    created_by: User | None = None,
) -> Encoder:  # fmt: skip
    """Enter a choice made by hand; `layers` runs enter measured ones. Raises BadEncoder naming each wrong field."""
    wrong = {}
    if model.kind != ModelVersion.Kind.BASE or model.project_id not in (None, project.pk):
        wrong["model"] = "must be a base model that the project can use"
    elif not model.folder:
        wrong["model"] = f"is on a server alone: there are no weights of {model.key} here to work with"
    elif not 1 <= layer <= (most := _n_layers(model)):
        wrong["layer"] = f"must lie between 1 and {most}, the layers of {model.key}"
    if pooling not in Encoder.Pooling.values:
        wrong["pooling"] = f"must be one of: {', '.join(Encoder.Pooling.values)}"
    for name, value, (low, high) in (("max_length", max_length, MAX_LENGTHS), ("dimensions", dimensions, DIMENSIONS)):
        if not low <= value <= high:
            wrong[name] = f"must lie between {low} and {high}"
    if wrong:
        raise BadEncoder(wrong)
    return Encoder.objects.create(
        project=project, model=model, layer=layer, pooling=pooling, max_length=max_length, dimensions=dimensions,
        created_by=created_by,
    )  # fmt: skip


def _n_layers(model: ModelVersion) -> int:
    """As the model's own configuration has it; 0 where it can't be read."""
    try:
        config = json.loads((folder_of_model(model) / "config.json").read_text(encoding="utf-8"))
        return int({**config, **(config.get("text_config") or {})}["num_hidden_layers"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def use_encoder(*, encoder: Encoder, by: User | None = None) -> Encoder:
    """Encode by this one from now on, what is there and what arrives. What others encoded stays until they are deleted.

    Raises BadEncoder where somebody else chose another one at the same moment.
    """
    with transaction.atomic():
        _cancel_others(encoder)
        Encoder.objects.filter(project=encoder.project, is_active=True).exclude(pk=encoder.pk).update(is_active=False)
        try:
            with transaction.atomic():
                Encoder.objects.filter(pk=encoder.pk).update(is_active=True)
        except IntegrityError:
            raise BadEncoder({"encoder": "somebody chose another one just now: look again"}) from None
        notify(encoder.project.live_group, "features")
    encoder.is_active = True
    if completions_waiting(encoder).exists():
        with contextlib.suppress(NothingToEncode):  # a run is under way
            start_encoding(project=encoder.project, created_by=by)
    return encoder


def stop_encoder(*, encoder: Encoder) -> Encoder:
    """Encode nothing more by it; a run under way is asked to stop. What is encoded stays."""
    with transaction.atomic():
        Encoder.objects.filter(pk=encoder.pk).update(is_active=False)
        for run in encode_runs(encoder).filter(state__in=OPEN):
            _cancel(run)
        notify(encoder.project.live_group, "features")
    encoder.is_active = False
    return encoder


def delete_encoder(*, encoder: Encoder) -> None:
    """Delete an encoder that is not in use, and all its files. Raises BadEncoder."""
    if _is_written(encoder):
        raise BadEncoder({"encoder": "a run still encodes by it: wait until it has stopped"})
    folder = folder_of(encoder)
    with transaction.atomic():
        if not Encoder.objects.filter(pk=encoder.pk, is_active=False).delete()[0]:
            raise BadEncoder({"encoder": "is in use: stop it, or use another one first"})
        transaction.on_commit(partial(shutil.rmtree, folder, ignore_errors=True))
        notify(encoder.project.live_group, "features")


def start_encoding(*, project: Project, created_by: User | None) -> Run:
    """Queue a run that encodes what waits. Raises NothingToEncode."""
    with transaction.atomic():
        # A person and the sweep may come at one moment: the second waits here, and sees the first one's run.
        encoder = Encoder.objects.select_for_update().filter(project=project, is_active=True).first()
        if encoder is None:
            raise NothingToEncode("No encoder is in use: measure the layers, or choose one, and use it")
        if _is_written(encoder):
            raise NothingToEncode("A run encodes already: what arrives meanwhile goes into the next one")
        try:
            return create_run(project=project, kind="encode", created_by=created_by, model=encoder.model)
        except BadSpec as error:
            raise NothingToEncode(str(error)) from None


def stop_encoding(*, project: Project) -> None:
    """Ask the run under way to stop. Raises NothingToEncode if there is none."""
    encoder = encoder_in_use(project)
    run = encode_runs(encoder).filter(state__in=OPEN).first() if encoder else None
    if run is None or not _cancel(run):
        raise NothingToEncode("No run encodes now")


def _cancel(run: Run) -> bool:
    try:
        request_cancel(run=run)
    except RunError:
        return False
    return True


def _cancel_others(encoder: Encoder) -> None:
    for other in Encoder.objects.filter(project=encoder.project, is_active=True).exclude(pk=encoder.pk):
        for run in encode_runs(other).filter(state__in=OPEN):
            _cancel(run)


# --- the sweep ----------------------------------------------------------------------------------
def sweep_features() -> int:
    """Begin runs for what arrived, and delete features of what was withdrawn or removed. Returns how many runs were begun.

    Where the last run failed or was cancelled, nothing is begun until a person does, or it is resumed.
    """
    begun = 0
    for encoder in Encoder.objects.select_related("project", "model"):
        forget_withdrawn(encoder=encoder)
        if not encoder.is_active or not completions_waiting(encoder).exists():
            continue
        last = encode_runs(encoder).first()
        if last is None or last.state == Run.State.DONE:
            try:
                start_encoding(project=encoder.project, created_by=None)
                begun += 1
            except NothingToEncode:
                continue
    return begun


def forget_withdrawn(*, encoder: Encoder) -> int:
    """Delete what is no longer to be kept from the files and then from the rows; returns how many vectors went.

    So whatever is interrupted is done again. While a run writes, nothing: the next sweep does it.
    """
    rows = Encoded.objects.filter(encoder=encoder)
    gone = rows.exclude(completion__in=completions_to_keep(encoder.project).values("pk"))
    withdrawn = dict(gone.values_list("pk", "key"))
    if not withdrawn or _is_written(encoder) or (store := _store_of(encoder)) is None:
        return 0
    # Another completion of the same words to the same prompt keeps the vector.
    others = rows.filter(key__in=set(withdrawn.values())).exclude(pk__in=withdrawn).values_list("key", flat=True)
    keys = {bytes.fromhex(key) for key in set(withdrawn.values()) - set(others)}
    try:
        with store.writing():
            count = store.forget(keys)
    except FeaturesError:
        return 0
    Encoded.objects.filter(pk__in=list(withdrawn)).delete()
    return count


def reconcile_features() -> int:
    """Bring rows and files together: delete vectors whose completions were deleted, and rows whose vectors are not there, as
    after a backup was restored; and folders of encoders that went with their project. Returns how many vectors and rows went.
    """
    count = 0
    for encoder in Encoder.objects.select_related("project"):
        if _is_written(encoder):
            continue
        rows = Encoded.objects.filter(encoder=encoder)
        in_rows = {bytes.fromhex(key) for key in rows.values_list("key", flat=True).iterator()}
        store = _store_of(encoder)
        there: set[bytes] = set()
        if store is not None:
            try:
                with store.writing():
                    there = store.keys()
                    count += store.forget(there - in_rows)
            except FeaturesError:
                continue
        missing = sorted(key.hex() for key in in_rows - there)
        for start in range(0, len(missing), BATCH):
            count += rows.filter(key__in=missing[start : start + BATCH]).delete()[0]
    root = Path(settings.HOME) / "features"
    if root.is_dir():
        known = {str(pk) for pk in Encoder.objects.values_list("pk", flat=True)}
        for folder in root.iterdir():
            if folder.is_dir() and folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)
    return count


def _is_written(encoder: Encoder) -> bool:
    """Whether a run holds the files, or has texts that it may write yet."""
    return encode_runs(encoder).filter(state__in=OPEN).exists()


def _store_of(encoder: Encoder) -> FeatureStore | None:
    try:
        return FeatureStore(folder_of(encoder))
    except FeaturesError:
        return None
