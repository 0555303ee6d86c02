import shutil
from pathlib import Path

import pytest
from django.conf import settings

from tests import factories
from training.features.models import Encoder
from training.features.services import create_encoder
from training.runs.models import Run
from training.runs.services import claim_next_run
from training.runs.watch import watch_run


@pytest.fixture(autouse=True)
def _no_features():
    """Tests that roll back use an encoder's number again; its folder must not be there."""
    yield
    shutil.rmtree(Path(settings.HOME) / "features", ignore_errors=True)


@pytest.fixture
def encoder(project, tiny, lead) -> Encoder:
    """Of the tiny model, over a project with prompts and completions; not in use yet."""
    factories.fill_project(project, 12)
    return create_encoder(project=project, model=tiny, layer=1, pooling="mean", created_by=lead)


def execute(run: Run) -> Run:
    claimed = claim_next_run(owner="test")
    assert claimed == run
    watch_run(claimed)
    run.refresh_from_db()
    return run
