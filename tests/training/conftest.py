"""Training on a tiny random model, for real: recipes run as processes of their own."""

import shutil
from pathlib import Path

import pytest
from django.conf import settings

from training.registry.models import ModelVersion
from training.registry.services import register_base_model


@pytest.fixture(scope="session")
def tiny_folder() -> Path:
    """A tiny random language model below PREFLOOP_HOME."""
    from training.sampling.tiny_model import build_tiny_model

    folder = Path(settings.MODELS) / "tiny"
    if not folder.exists():
        build_tiny_model(folder)
    return folder


@pytest.fixture
def tiny(tiny_folder, lead) -> ModelVersion:
    return register_base_model(name="tiny", folder="models/tiny", licence="Apache-2.0", source="tests", created_by=lead)


@pytest.fixture(autouse=True)
def _no_folders_left():
    """Tests that roll back use a run's number and a model's name again; their folders must not be there."""
    shutil.rmtree(settings.RUNS, ignore_errors=True)
    for name in ("small", "support-reward"):
        shutil.rmtree(Path(settings.MODELS) / name, ignore_errors=True)
