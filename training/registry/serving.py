"""Which models the model server offers: the registry's words for them, and where their files lie."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connections

from training.registry.models import ModelVersion
from training.registry.services import folder_of
from training.sampling.demo_model import NAME as DEMO_MODEL
from training.sampling.demo_model import DemoModelError, demo_model_folder, ensure_demo_model, find_gguf
from training.sampling.model_files import ModelFilesError
from training.sampling.server import ModelPlace


def _with_own_connection(act: Callable[..., Any]) -> Callable[..., Any]:
    """Each request is a thread, and a thread's database connection would stay open after it."""

    @wraps(act)
    def acting(*arguments: Any) -> Any:
        try:
            return act(*arguments)
        finally:
            connections.close_all()

    return acting


class RegistryModels:
    """The registry's base models and policies by their keys, archived ones left out.

    The demo model is offered by its own name while it isn't registered, so that an empty site has one to talk to.
    """

    @_with_own_connection
    def names(self) -> list[str]:
        keys = list(_offered().order_by("pk").values_list("key", flat=True))
        return (
            keys
            if any(key.startswith(f"{DEMO_MODEL}@") for key in keys) or not _has_demo_model()
            else [*keys, DEMO_MODEL]
        )

    @_with_own_connection
    def place_of(self, name: str) -> ModelPlace | None:
        model = _offered().select_related("base").filter(key=name).first()
        if model is not None:
            if not model.is_adapter:
                return ModelPlace(str(folder_of(model)))
            return ModelPlace(str(folder_of(model.base)), str(folder_of(model))) if model.base else None
        if name == DEMO_MODEL and _has_demo_model():
            try:
                return ModelPlace(str(ensure_demo_model(demo_model_folder(Path(settings.HOME)))))
            except DemoModelError as error:
                raise ModelFilesError(str(error)) from None
        return None


def _offered() -> Any:
    kinds = [ModelVersion.Kind.BASE, ModelVersion.Kind.POLICY]
    here = ModelVersion.objects.filter(kind__in=kinds).exclude(folder="")
    return here.exclude(stage=ModelVersion.Stage.ARCHIVED)


def _has_demo_model() -> bool:
    try:
        find_gguf()
    except DemoModelError:
        return demo_model_folder(Path(settings.HOME)).is_dir()
    return True
