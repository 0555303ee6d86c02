"""What features bring to runs: the kinds `encode` and `layers`, and cached features for `reward_head`."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings

from labeling.projects.models import Project
from training.features.models import Encoded, Encoder
from training.features.selectors import completions_to_keep, completions_waiting, encoder_in_use, folder_of
from training.registry.models import ModelVersion
from training.runs.folder import run_folder
from training.runs.models import Run
from training.runs.parts import Checked, Part
from training.sampling.feature_store import FeaturesError, FeatureStore, text_key

MOST_AT_ONCE = 50_000  # completions of one run: what is left goes into the next
BATCH = 500


# --- encode -------------------------------------------------------------------------------------
def check_encoding(project: Project, model: ModelVersion | None, inputs: dict[str, Any]) -> Checked:
    """An encode run is for the encoder that is in use, by its base model."""
    encoder = encoder_in_use(project)
    if encoder is None:
        return inputs, {"encoder": "none is in use: measure the layers, or choose one, and use it"}
    if model is not None and model.pk != encoder.model_id:
        return inputs, {"model": f"must be {encoder.model.key}, which the encoder in use is of"}
    if not completions_waiting(encoder).exists():
        return inputs, {"encoder": "has encoded all completions of the project"}
    return {"encoder": encoder.pk}, {}


def encoding_options(run: Run) -> dict[str, Any]:
    encoder = Encoder.objects.get(pk=run.inputs["encoder"])
    return {**_of(encoder), "features": str(folder_of(encoder)), "cache": _cache()}


def rows_to_encode(run: Run) -> Iterator[dict[str, Any]]:
    encoder = Encoder.objects.select_related("project").get(pk=run.inputs["encoder"])
    waiting = completions_waiting(encoder).select_related("prompt").order_by("pk")[:MOST_AT_ONCE]
    for completion in waiting.iterator(BATCH):
        yield {"completion_id": completion.pk, "prompt": completion.prompt.messages, "completion": completion.content}


def note_encoded(run: Run, result: dict[str, Any] | None) -> str:
    """Enter what of the run's completions is in the encoder's files now, however the run ended.

    What was removed or withdrawn meanwhile is deleted from the files again.
    """
    encoder = Encoder.objects.select_related("project").filter(pk=run.inputs.get("encoder")).first()
    rows = run_folder(run) / "dataset" / "completions.jsonl"
    if encoder is None or not rows.exists():
        return ""
    try:
        store = FeatureStore(folder_of(encoder))
    except FeaturesError:
        return ""
    there, n_new, batch, unwanted = store.keys(), 0, {}, set()
    with open(rows, encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            key = text_key(row["prompt"], row["completion"])
            if key in there:
                batch[row["completion_id"]] = key.hex()
            if len(batch) >= BATCH:
                n_new += _enter(encoder, batch, unwanted)
                batch = {}
    n_new += _enter(encoder, batch, unwanted)
    if unwanted:
        with contextlib.suppress(FeaturesError), store.writing():
            store.forget(unwanted)
    return f"encoded {n_new:,} completions"


def _enter(encoder: Encoder, keys: dict[int, str], unwanted: set[bytes]) -> int:
    """Rows for those that may be kept; the keys of the others are added to `unwanted`. Returns how many rows are new."""
    kept = set(completions_to_keep(encoder.project).filter(pk__in=keys).values_list("pk", flat=True))
    wanted = {keys[pk] for pk in kept}
    unwanted |= {bytes.fromhex(key) for pk, key in keys.items() if pk not in kept and key not in wanted}
    new = kept - set(Encoded.objects.filter(encoder=encoder, completion__in=kept).values_list("completion", flat=True))
    Encoded.objects.bulk_create(
        [Encoded(encoder=encoder, completion_id=pk, key=keys[pk]) for pk in sorted(new)], ignore_conflicts=True
    )
    return len(new)


# --- layers -------------------------------------------------------------------------------------
def propose_encoder(run: Run, result: dict[str, Any] | None) -> str:
    """Enter what a measurement picked as an encoder that may be used."""
    if result is None:
        return ""
    picked, dataset = result["picked"], result.get("dataset") or {}
    encoder = Encoder.objects.create(
        project=run.project, model=run.model, layer=picked["layer"], pooling=picked["pooling"], max_length=result["max_length"],
        dimensions=run.spec.get("dimensions", 64), measured_by=run, created_by=run.created_by,
        evidence={
            "layers": result["layers"], "picked": picked, "best": result["best"], "figures": result["figures"],
            "snapshot": run.snapshot.number if run.snapshot else None, "n_pairs": dataset.get("n_train"),
        },
    )  # fmt: skip
    return f"picked layer {encoder.layer}, {encoder.get_pooling_display()}"


def layers_options(run: Run) -> dict[str, Any]:
    return {"cache": _cache()}


# --- reward_head --------------------------------------------------------------------------------
def cached_features(run: Run) -> dict[str, Any]:
    """Layer and pooling of the encoder in use, and its files, unless the run asks for something else."""
    encoder = encoder_in_use(run.project)
    if encoder is None or run.model_id != encoder.model_id:
        return {}
    of = _of(encoder)
    if any(run.spec.get(name) not in (None, value) for name, value in of.items()):
        return {}
    folder = folder_of(encoder)
    return {**of, "dimensions": encoder.dimensions, **({"features": str(folder)} if (folder / "encoder.json").exists() else {})}


def _of(encoder: Encoder) -> dict[str, Any]:
    return {"layer": encoder.layer, "pooling": encoder.pooling, "max_length": encoder.max_length}


def _cache() -> str:
    """Where hashes of models are remembered."""
    folder = Path(settings.HOME) / "cache"
    folder.mkdir(exist_ok=True)
    return str(folder / "embeddings.sqlite3")


PARTS_OF_RUNS = {
    "encode": Part(options=encoding_options, check=check_encoding, rows=rows_to_encode, ended=note_encoded),
    "layers": Part(options=layers_options, ended=propose_encoder),
    "reward_head": Part(options=cached_features),
}
