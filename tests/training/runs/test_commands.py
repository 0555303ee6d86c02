"""The command line starts the same runs as the pages, here in the process itself."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from labeling.preferences.services import create_snapshot
from labeling.projects.models import Completion
from tests import factories
from training.loop.models import Iteration
from training.runs.models import Run


@pytest.fixture
def snapshot(project, annotator, lead):
    factories.fill_project(project, 16)
    factories.judge_all(project, annotator)
    return create_snapshot(project=project, created_by=lead)


def call(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


@pytest.mark.recipe
def test_train_follows_the_run_to_the_model_it_makes(project, snapshot, tiny):
    printed = call("train", "reward_head", "support", "--snapshot=1", "--model=tiny@1", "--set=layer=1", "--here")
    assert "Made support-reward@1" in printed
    assert "accuracy" in printed and "n = " in printed


@pytest.mark.recipe
def test_sample_adds_completions_of_the_model(project, snapshot, tiny):
    call("sample", "support", "--model=tiny@1", "--set=max_new_tokens=4", "--set=completions_per_prompt=1", "--here")
    assert Completion.objects.filter(model_key="tiny@1", sampling__run=Run.objects.get().pk).exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("train", "dpo", "nowhere", "--snapshot=1", "--model=tiny@1"), "nowhere"),
        (("train", "dpo", "support", "--snapshot=9", "--model=tiny@1"), "#9"),
        (("train", "dpo", "support", "--snapshot=1", "--model=huge@1"), "tiny@1"),
        (("train", "dpo", "support", "--snapshot=1", "--model=tiny@1", "--set=beta=-3"), "beta"),
        (("train", "dpo", "support", "--snapshot=1", "--model=tiny@1", "--set=beta"), "NAME=VALUE"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_queued(project, snapshot, tiny, arguments, reason):
    with pytest.raises(CommandError, match=reason):
        call(*arguments)
    assert not Run.objects.exists()


def test_iterate_starts_an_iteration_and_then_pushes_it(project, snapshot, tiny):
    assert "Iteration 1 starts from tiny@1" in call("iterate", "support")
    assert Iteration.objects.get().sample_run is not None
    assert "sampling" in call("iterate", "support")
    assert Iteration.objects.count() == 1
