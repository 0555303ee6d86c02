"""What lies in a model's folder: cards, hashes, merging and writing out, with real runs on a tiny model."""

import hashlib
import json
import shutil
from io import StringIO
from pathlib import Path

import pytest
import yaml
from django.conf import settings
from django.core.management import CommandError, call_command

from labeling.preferences.services import create_snapshot
from labeling.preferences.withdrawal import withdraw_person
from tests import factories
from tests.api_caller import Caller
from training.registry.card import FILE, card_of, write_card
from training.registry.models import ModelVersion
from training.registry.services import folder_of, register_base_model, register_trained_model
from training.registry.verification import verify
from training.runs.errors import BadSpec
from training.runs.models import Run
from training.runs.services import claim_next_run, create_run
from training.runs.watch import watch_run


def execute(run: Run) -> Run:
    watch_run(claim_next_run(owner="test"))
    run.refresh_from_db()
    assert (run.state, run.error) == (Run.State.DONE, "")
    return run


def problems(model: ModelVersion) -> dict[str, str]:
    return {one.name: one.problem for one in verify(model) if one.problem}


@pytest.mark.recipe
def test_an_adapter_gets_its_card_is_merged_with_its_lineage_and_written_out(
    project, annotator, lead, tiny, adapter_files, tmp_path
):
    factories.fill_project(project, 12)
    factories.judge_all(project, annotator)
    snapshot = create_snapshot(project=project, created_by=lead)
    shutil.copytree(adapter_files, Path(settings.MODELS) / "adapter", dirs_exist_ok=True)
    policy = register_trained_model(
        name="support-dpo", kind="policy", project=project, parent=tiny, snapshot=snapshot, folder="models/adapter",
        is_adapter=True, lineage={"recipe": "dpo", "run": 1},
        metrics={"rewards/accuracies": {"value": 0.7, "low": 0.45, "high": 0.87, "n": 20, "method": "Wilson"}},
    )  # fmt: skip
    write_card(policy)
    card = (folder_of(policy) / FILE).read_text()
    assert problems(policy) == {} and FILE in policy.files
    assert "holds 0.5: it may be no better than chance" in card and f"few pairs: {snapshot.n_pairs}" in card
    assert snapshot.content_hash in card and "annotator" not in card.replace("annotators", "")
    head = yaml.safe_load(card.split("---\n")[1])
    assert (head["base_model"], head["base_model_relation"], head["library_name"]) == ("tests", "adapter", "peft")

    with pytest.raises(BadSpec, match="must be a policy"):
        create_run(project=project, kind="merge", created_by=lead, model=tiny)
    merged = execute(create_run(project=project, kind="merge", created_by=lead, model=policy)).output_model
    assert (merged.is_adapter, merged.kind, merged.parent, merged.base) == (False, "policy", policy, tiny)
    assert problems(merged) == {} and "model.safetensors" in merged.files and "tokenizer.json" in merged.files
    text = card_of(merged)
    assert f"Measured on {policy.key}".replace("_", "\\_") in text and snapshot.content_hash in text
    with pytest.raises(BadSpec, match="must be an adapter"):
        create_run(project=project, kind="merge", created_by=lead, model=merged)

    out = tmp_path / "hub"
    call_command("export_model", policy.key, out=out, stdout=StringIO())
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == "tests"
    assert str(settings.HOME) not in "".join(path.read_text() for path in out.iterdir() if path.suffix in (".json", ".md"))
    for line in (out / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    with pytest.raises(CommandError, match="there already"):
        call_command("export_model", policy.key, out=out)
    (folder_of(merged) / "config.json").write_text("{}")
    with pytest.raises(CommandError, match=r"config\.json is not as it was entered"):
        call_command("export_model", merged.key, out=tmp_path / "other")
    assert not (tmp_path / "other").exists() and not list(tmp_path.glob(".other-*"))

    # Withdrawn since: the card says so as it is asked for.
    withdraw_person(project=project, annotator=annotator, by=lead)
    assert "were withdrawn since: 12 judgements of 1 person" in card_of(merged)
    shown = Caller(lead).get(f"models/{merged.pk}/").json()["lineage"]["withdrawn"]
    assert shown == [{"snapshot": str(snapshot.pk), "held": "12 judgements of 1 person"}]


@pytest.fixture
def small(db) -> ModelVersion:
    folder = Path(settings.MODELS) / "to-verify"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("a.safetensors", "b.json", "c.json"):
        (folder / name).write_text(name)
    return register_base_model(name="small", folder="models/to-verify", licence="MIT")


def test_each_file_that_differs_is_missing_or_too_many_is_named(small, project, reviewer, annotator, stranger):
    assert problems(small) == {}
    path = f"models/{small.pk}/verify/"
    assert Caller(reviewer).get(path).json()["ok"] is True
    folder = folder_of(small)
    (folder / "a.safetensors").write_text("other")
    (folder / "b.json").unlink()
    (folder / "b.json").symlink_to(folder / "c.json")
    (folder / "d.json").write_text("d")
    wrong = {
        "a.safetensors": "is not as it was entered", "b.json": "is missing", "d.json": "was not there when the model was entered",
    }  # fmt: skip
    assert problems(small) == wrong
    answer = Caller(reviewer).get(path).json()
    assert answer["ok"] is False and {one["name"] for one in answer["checked"] if one["problem"]} == set(wrong)
    for nobody in (annotator, stranger):
        assert Caller(nobody).get(path).status_code == 404
    out = StringIO()
    with pytest.raises(CommandError, match="1 of 1 models are not as they were entered"):
        call_command("verify_models", "small@1", stdout=out)
    assert "a.safetensors is not as it was entered; b.json is missing; d.json was not there" in out.getvalue()
    with pytest.raises(CommandError, match="no model small@2"):
        call_command("verify_models", "small@2")


def test_a_folder_that_is_gone_is_all_missing(small):
    shutil.rmtree(folder_of(small))
    assert set(problems(small)) == {"a.safetensors", "b.json", "c.json"}
