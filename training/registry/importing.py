"""Taking in a model or an adapter that was made elsewhere: from a folder that the operator allows, copied and checked."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction

from labeling.accounts.models import User
from labeling.projects.models import Project
from training.registry.errors import NotImported
from training.registry.models import ModelVersion
from training.registry.services import folder_of, register_imported_model
from training.sampling.foreign_model import Found, look_at, mend, mismatch, read_shapes, try_tokenizer
from training.sampling.model_files import ModelFilesError

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}\Z")
SPARE_BYTES = 500_000_000  # that stay free on the disk


def allowed_roots() -> list[Path]:
    return [Path(root).resolve() for root in settings.MODEL_ROOTS]


def folders_to_import(most: int = 200) -> list[str]:
    """Folders at most three levels below the allowed roots that hold weights, as one may give them to `import_model`."""
    found = []
    for root in allowed_roots():
        for pattern in ("*", "*/*", "*/*/*"):
            for folder in sorted(root.glob(pattern)) if root.is_dir() else ():
                if folder.is_dir() and not folder.is_symlink() and any(folder.glob("*.safetensors")):
                    found.append(str(folder))
                    if len(found) >= most:
                        return found
    return found


def import_model(
    *,
    folder: str,
    name: str,
    kind: str,
    licence: str,
    project: Project | None = None,
    base: ModelVersion | None = None,
    source: str = "",
    plain_template: bool = False,
    created_by: User | None = None,
    most_bytes: int | None = None,
    **terms: Any,
) -> ModelVersion:
    """Copy a folder into the site's models, check and mend the copy, and enter it.

    A base model is for all projects; a policy or a reward model is of `project`. An adapter needs the `base` it was made
    for. What was mended and what was left behind is kept in the model's lineage. Raises NotImported, with words for the
    person; nothing stays behind then.
    """
    return take_in(
        allowed_folder(folder), roots=allowed_roots(), name=name, kind=kind, licence=licence, project=project, base=base, source=source,
        plain_template=plain_template, created_by=created_by, most_bytes=most_bytes, **terms,
    )  # fmt: skip


def take_in(
    path: Path,
    *,
    roots: list[Path],
    name: str,
    kind: str,
    licence: str,
    project: Project | None = None,
    base: ModelVersion | None = None,
    source: str = "",
    plain_template: bool = False,
    created_by: User | None = None,
    most_bytes: int | None = None,
    imported_from: str = "",
    left: Sequence[str] = (),
    target: Path | None = None,
    scratch_prefix: str = ".importing-",
    report: Callable[[int], None] = lambda n_bytes: None,
    entered: Callable[[ModelVersion], None] = lambda model: None,
    **terms: Any,
) -> ModelVersion:
    """As `import_model`, of a folder whose place is not in question; links may lead below `roots`.

    `target` is the folder that it gets, and `scratch_prefix` what the one it is made in begins with, where an attempt that
    is killed must be cleared away later.
    `report` gets the bytes copied so far, and `entered` the model in the transaction that enters it; both may raise.
    """
    check_wanted(name=name, kind=kind, project=project)
    try:
        found = look_at(path, roots=roots)
        _check_kind(found, kind, base)
        _check_space(found, most_bytes)
        Path(settings.MODELS).mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=scratch_prefix, dir=settings.MODELS))
        try:
            copy = scratch / "model"
            copy.mkdir()
            n_bytes = 0
            for file in found.files:
                shutil.copyfile(file, copy / file.name)  # of a link, the file itself
                n_bytes += file.stat().st_size
                report(n_bytes)
            mended = []
            if found.adapter is None or found.has_tokenizer:
                mended = mend(copy, plain_template=plain_template) if kind != ModelVersion.Kind.REWARD or found.has_tokenizer else []
                try_tokenizer(copy)
            final = target or _free_folder(name)
            shutil.rmtree(final, ignore_errors=True)
            os.replace(copy, final)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except ModelFilesError as error:
        raise NotImported(str(error)) from None
    except OSError as error:
        raise NotImported(f"{error.strerror or error}: {Path(error.filename or path).name}") from None
    try:
        with transaction.atomic():
            model = register_imported_model(
                name=name, kind=kind, project=project, base=base if found.adapter is not None else None,
                folder=str(final.relative_to(settings.HOME)), is_adapter=found.adapter is not None, licence=licence, source=source,
                lineage={
                    "imported_from": imported_from or path.name, "mended": mended, "left_behind": [*left, *found.left],
                    "registered_by": created_by.username if created_by else None,
                },
                **terms,
            )  # fmt: skip
            entered(model)
        return model
    except BaseException:
        shutil.rmtree(final, ignore_errors=True)
        raise


def check_wanted(*, name: str, kind: str, project: Project | None) -> None:
    """Raises NotImported."""
    if not NAME.match(name):
        raise NotImported("A name has small letters, digits, . _ - and starts with a letter or digit")
    if kind not in (ModelVersion.Kind.BASE, ModelVersion.Kind.POLICY, ModelVersion.Kind.REWARD):
        raise NotImported("Only base models, policies and reward models are imported")
    if (kind == ModelVersion.Kind.BASE) != (project is None):
        raise NotImported("A base model is for all projects; a policy or a reward model is of one")


def _free_folder(name: str) -> Path:
    number = 1
    while (final := Path(settings.MODELS) / f"{name}-imported-{number}").exists():
        number += 1
    return final


def allowed_folder(folder: str) -> Path:
    """The folder, once it is known to lie below an allowed root. Raises NotImported."""
    path = Path(folder)
    roots = allowed_roots()
    if not roots:
        raise NotImported("No folder may be imported from: the operator names some in PREFLOOP_MODEL_ROOTS")
    # A path that isn't absolute is one below the first root that has it.
    candidates = [path] if path.is_absolute() else [root / path for root in roots]
    for candidate in candidates:
        try:
            resolved = candidate.resolve()
        except (OSError, ValueError, RuntimeError):
            continue
        if any(resolved.is_relative_to(root) and resolved != root for root in roots) and resolved.is_dir():
            return resolved
    # Whether it exists elsewhere is nobody's business.
    raise NotImported("There is no such folder below those that the operator allows (PREFLOOP_MODEL_ROOTS)")


def _check_kind(found: Found, kind: str, base: ModelVersion | None) -> None:
    if found.adapter is None:
        if base is not None:
            raise NotImported("This is a whole model, not an adapter: leave the base out")
        if found.scores != (kind == ModelVersion.Kind.REWARD):
            raise NotImported(_kind_words(found, kind))
        if not found.has_tokenizer:
            raise NotImported("It has no tokenizer (tokenizer.json, tokenizer.model or vocab.json): copy it beside the weights")
        return
    if kind == ModelVersion.Kind.BASE:
        raise NotImported("This is an adapter: enter it as a policy or a reward model, on its base")
    if found.scores != (kind == ModelVersion.Kind.REWARD):
        raise NotImported(_kind_words(found, kind))
    if found.adapter.get("peft_type") != "LORA":
        raise NotImported(f"Only LoRA adapters are taken; this one is {found.adapter.get('peft_type')!r}")
    if base is None:
        named = found.adapter.get("base_model_name_or_path") or "not said"
        raise NotImported(f"An adapter needs its base model: enter that first, then name it here. It was made for: {named}")
    if base.kind != ModelVersion.Kind.BASE or base.is_adapter:
        raise NotImported(f"{base.key} is no base model")
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder_of(base).glob("*.safetensors")):
        shapes |= read_shapes(file)
    if problem := mismatch(found.shapes, shapes):
        raise NotImported(f"It does not fit {base.key}: {problem}")


def _kind_words(found: Found, kind: str) -> str:
    is_a = "a reward model (it gives one number)" if found.scores else "a language model (it writes)"
    return f"This is {is_a}, and it was given as {ModelVersion.Kind(kind).label}"


def _check_space(found: Found, most_bytes: int | None) -> None:
    n_bytes = sum(file.stat().st_size for file in found.files)
    if most_bytes is not None and n_bytes > most_bytes:
        raise NotImported(f"It is larger than a page takes in ({n_bytes:,} bytes): use manage.py import_model on the server")
    free = shutil.disk_usage(settings.HOME).free
    if free < n_bytes + SPARE_BYTES:
        raise NotImported(f"It takes {n_bytes:,} bytes, and the disk has {free:,} free")
