"""Encoding what arrives, through kills and withdrawals, by real runs of the tiny model."""

import os
import signal
import subprocess

import pytest
import yaml

from labeling.imports.services import import_rows
from labeling.preferences.services import create_snapshot
from labeling.preferences.withdrawal import remove_prompt, withdraw_person
from labeling.projects.models import Completion
from tests import factories
from tests.training.features.conftest import execute
from training.features.errors import BadEncoder, NothingToEncode
from training.features.models import Encoded, Encoder
from training.features.selectors import completions_waiting, encode_runs, encoder_in_use, folder_of, state_of
from training.features.services import (
    create_encoder,
    delete_encoder,
    reconcile_features,
    start_encoding,
    stop_encoder,
    stop_encoding,
    sweep_features,
    use_encoder,
)
from training.features.uncertain import uncertain_pairs
from training.registry.models import ModelVersion
from training.runs import watch
from training.runs.errors import BadSpec
from training.runs.folder import run_folder, write_inputs
from training.runs.models import Run
from training.runs.services import create_run, resume_run
from training.sampling.feature_store import Encoding, FeatureStore


def store_of(encoder: Encoder) -> FeatureStore:
    return FeatureStore(folder_of(encoder))


@pytest.mark.recipe
def test_what_arrives_is_encoded_once_and_a_reward_head_refits_on_it(project, encoder, lead, annotator, client):
    use_encoder(encoder=encoder, by=lead)
    assert execute(Run.objects.get()).status_text == "encoded 36 completions"
    state = state_of(project)
    assert (state.n_completions, state.n_encoded, state.n_waiting) == (36, 36, 0)
    assert state.n_bytes > 0 and state.tokens_per_second > 0
    assert sweep_features() == 0 and Run.objects.count() == 1

    # More arrive: the sweep begins one run, which encodes these alone.
    import_rows(project=project, format="completions", lines=factories.completions_rows(2, 3, start=50), created_by=lead)
    assert (sweep_features(), sweep_features()) == (1, 0)
    run = execute(encode_runs(encoder).first())
    assert run.result["metrics"]["n_encoded"] == 6 and run.result["metrics"]["n_there"] == 0
    assert Encoded.objects.count() == len(store_of(encoder).keys()) == 42

    # A reward head finds all of them, and says how sure it is; then the comparisons that would tell it most are known.
    factories.judge_all(project, annotator)
    snapshot = create_snapshot(project=project, created_by=lead)
    head = execute(create_run(project=project, kind="reward_head", created_by=lead, model=encoder.model, snapshot=snapshot))
    assert (head.state, head.error) == (Run.State.DONE, "")
    assert head.result["n_encoded"] == 0 and head.result["n_from_features"] == head.result["n_texts"] > 0
    assert head.result["base_model"]["layer"] == 1 and head.result["uncertainty"]["n"] > 0
    client.force_login(lead)
    report = client.get(f"/projects/{project.slug}/runs/{head.pk}/report/").content.decode()
    assert "Whether it knows what it doesn’t know" in report
    pairs = uncertain_pairs(project)
    new = set(Completion.objects.filter(prompt__external_id__in=["p50", "p51"]).values_list("pk", flat=True))
    assert {pair.first for pair in pairs} | {pair.second for pair in pairs} <= new, "the others are in a task together"
    assert len(pairs) == len({pair.prompt for pair in pairs}) == 2
    assert pairs[0].information >= pairs[1].information > 0
    for pair in pairs:
        assert pair.low < pair.probability < pair.high and pair.verdict in ("knows", "leans", "does_not_know")


@pytest.mark.recipe
def test_layers_are_measured_and_what_is_picked_can_be_used(project, tiny, lead, annotator, client):
    factories.fill_project(project, 12)
    factories.judge_all(project, annotator)
    snapshot = create_snapshot(project=project, created_by=lead)
    run = execute(create_run(project=project, kind="layers", created_by=lead, model=tiny, snapshot=snapshot))
    assert (run.state, run.error) == (Run.State.DONE, "")
    encoder = Encoder.objects.get()
    assert (encoder.measured_by, encoder.is_active, encoder.model) == (run, False, tiny)
    assert {"layer": encoder.layer, "pooling": encoder.pooling} == encoder.evidence["picked"]
    assert len(encoder.evidence["layers"]) == 4 and encoder.evidence["snapshot"] == snapshot.number
    assert run.status_text == f"picked layer {encoder.layer}, {encoder.get_pooling_display()}"
    client.force_login(lead)
    page = client.get(f"/projects/{project.slug}/features/").content.decode()
    assert f"layer {encoder.layer}, {encoder.get_pooling_display()}" in page and '"isBound": true' in page


@pytest.mark.recipe
def test_a_run_whose_processes_are_killed_is_resumed_with_nothing_lost_or_encoded_twice(project, encoder, lead, monkeypatch):
    use_encoder(encoder=encoder)
    run = encode_runs(encoder).get()
    Run.objects.filter(pk=run.pk).update(spec={"shard_size": 1, "batch_size": 1})
    started: list[subprocess.Popen] = []
    begin = watch.subprocess.Popen

    class Killed(begin):
        """Killed by force when the first vectors are written."""

        def poll(self):
            if not started and len(list((folder_of(encoder) / "shards").glob("*.safetensors"))) >= 2:
                started.append(self)
                os.killpg(self.pid, signal.SIGKILL)
            return super().poll()

    monkeypatch.setattr(watch.subprocess, "Popen", Killed)
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.001)
    run.refresh_from_db()
    execute(run)
    assert run.state == Run.State.FAILED and started
    kept = len(store_of(encoder).keys())
    assert 2 <= kept < 36 and Encoded.objects.count() == kept, "what is written counts, however the run ended"
    assert sweep_features() == 0, "after a failure a person looks first"
    resume_run(run=run)
    run.refresh_from_db()
    execute(run)
    assert (run.state, run.error) == (Run.State.DONE, "")
    assert run.result["metrics"]["n_encoded"] == 36 - kept and run.result["metrics"]["n_there"] == kept
    assert Encoded.objects.count() == len(store_of(encoder).keys()) == 36 and store_of(encoder).damaged() == []


# --- without a recipe: vectors are put there ----------------------------------------------------
@pytest.fixture
def encoded(encoder) -> Encoder:
    """In use, with a vector for every completion."""
    import numpy

    from training.features.kinds import PARTS_OF_RUNS
    from training.sampling.feature_store import text_key

    use_encoder(encoder=encoder)
    run = encode_runs(encoder).get()
    write_inputs(run)
    store = FeatureStore.create(folder_of(encoder), Encoding("abc", 1, "mean", 1024))
    rows = list(PARTS_OF_RUNS["encode"].rows(run))
    store.add({text_key(row["prompt"], row["completion"]): numpy.ones(4, "f4") * n for n, row in enumerate(rows)})
    assert PARTS_OF_RUNS["encode"].ended(run, {}) == "encoded 36 completions"
    Run.objects.filter(pk=run.pk).update(state=Run.State.DONE)
    return encoder


def test_features_of_removed_prompts_are_deleted_from_the_files_and_made_again_when_it_is_undone(encoded, project, lead):
    prompt = project.prompts.first()
    gone = {bytes.fromhex(key) for key in Encoded.objects.filter(completion__prompt=prompt).values_list("key", flat=True)}
    remove_prompt(project=project, prompt=prompt, by=lead)
    assert sweep_features() == 0
    assert Encoded.objects.count() == len(store_of(encoded).keys()) == 33
    assert not gone & store_of(encoded).keys()
    project.withdrawals.update(undone_at="2026-01-01T00:00:00Z")
    assert completions_waiting(encoded).count() == 3 and sweep_features() == 1


def test_what_a_person_wrote_goes_with_their_withdrawal(encoded, project, lead, annotator):
    written = Completion.objects.first()
    Completion.objects.filter(pk=written.pk).update(author=annotator)
    withdraw_person(project=project, annotator=annotator, by=lead)
    sweep_features()
    assert Encoded.objects.count() == len(store_of(encoded).keys()) == 35
    assert not Encoded.objects.filter(completion=written).exists()


def test_files_and_rows_are_reconciled_after_a_deletion_and_after_files_were_lost(encoded):
    Completion.objects.filter(pk__in=list(Completion.objects.values_list("pk", flat=True)[:2])).delete()
    assert len(store_of(encoded).keys()) == 36
    assert reconcile_features() == 2
    assert len(store_of(encoded).keys()) == 34
    next((folder_of(encoded) / "shards").iterdir()).unlink()
    assert reconcile_features() == 34
    assert not Encoded.objects.exists() and completions_waiting(encoded).count() == 34
    stray = folder_of(encoded).with_name("999999")
    stray.mkdir()
    reconcile_features()
    assert not stray.exists() and folder_of(encoded).exists()


def test_while_a_run_writes_nothing_is_deleted_and_what_it_wrote_of_removed_prompts_goes_when_it_ends(encoded, project, lead):
    from training.features.kinds import PARTS_OF_RUNS

    run = encode_runs(encoded).get()
    Run.objects.filter(pk=run.pk).update(state=Run.State.RUNNING)
    remove_prompt(project=project, prompt=project.prompts.first(), by=lead)
    sweep_features()
    assert reconcile_features() == 0 and len(store_of(encoded).keys()) == 36
    Encoded.objects.all().delete()
    PARTS_OF_RUNS["encode"].ended(run, None)
    assert Encoded.objects.count() == len(store_of(encoded).keys()) == 33


def test_one_encoder_is_in_use_and_the_other_stops_encoding(encoder, project, tiny, lead):
    use_encoder(encoder=encoder, by=lead)
    other = create_encoder(project=project, model=tiny, layer=2, pooling="last")
    use_encoder(encoder=other, by=lead)
    assert encoder_in_use(project) == other and Encoder.objects.filter(is_active=True).count() == 1
    assert list(encode_runs(encoder).values_list("state", flat=True)) == [Run.State.CANCELLED]
    assert list(encode_runs(other).values_list("state", flat=True)) == [Run.State.QUEUED]
    with pytest.raises(NothingToEncode, match="encodes already"):
        start_encoding(project=project, created_by=lead)
    stop_encoding(project=project)
    assert sweep_features() == 0, "a person stopped it"
    with pytest.raises(BadEncoder, match="is in use"):
        delete_encoder(encoder=other)
    stop_encoder(encoder=other)
    with pytest.raises(NothingToEncode, match="No encoder is in use"):
        start_encoding(project=project, created_by=lead)
    delete_encoder(encoder=other)
    assert list(Encoder.objects.all()) == [encoder]


def test_a_deleted_encoder_takes_its_files_along(encoded, django_capture_on_commit_callbacks):
    stop_encoder(encoder=encoded)
    folder = folder_of(encoded)
    assert folder.exists()
    with django_capture_on_commit_callbacks(execute=True):
        delete_encoder(encoder=encoded)
    assert not folder.exists() and not Encoded.objects.exists()


def test_wrong_choices_are_refused_by_name(encoder, project, tiny):
    with pytest.raises(BadEncoder) as caught:
        create_encoder(project=project, model=tiny, layer=99, pooling="median", max_length=1, dimensions=0)
    assert set(caught.value.fields) == {"layer", "pooling", "max_length", "dimensions"}
    assert caught.value.fields["layer"] == "must lie between 1 and 2, the layers of tiny@1"
    policy = ModelVersion.objects.create(name="p", version=1, key="p@1", kind="policy", project=project, folder="models/tiny")
    with pytest.raises(BadEncoder, match="must be a base model"):
        create_encoder(project=project, model=policy, layer=1, pooling="mean")
    with pytest.raises(BadSpec) as refused:
        create_run(project=project, kind="encode", created_by=None, model=tiny)
    assert refused.value.fields == {"encoder": "none is in use: measure the layers, or choose one, and use it"}


def test_a_reward_head_gets_the_layer_in_use_unless_it_asks_for_another(encoded, project, lead, annotator, tiny):
    factories.judge_all(project, annotator)
    snapshot = create_snapshot(project=project, created_by=lead)

    def sent(**spec) -> dict:
        run = create_run(project=project, kind="reward_head", created_by=lead, model=tiny, snapshot=snapshot, spec=spec)
        return yaml.safe_load((write_inputs(run) / "spec.yaml").read_text())

    with_cache = sent()
    assert (with_cache["layer"], with_cache["pooling"], with_cache["max_length"]) == (1, "mean", 1024)
    assert with_cache["features"] == str(folder_of(encoded))
    other = sent(layer=2)
    assert other["layer"] == 2 and "features" not in other
    stop_encoder(encoder=encoded)
    assert "features" not in sent(layer=1)


def test_the_rows_of_a_run_are_written_once_and_hold_what_waits(encoder, project):
    use_encoder(encoder=encoder)
    run = encode_runs(encoder).get()
    rows = run_folder(run) / "dataset" / "completions.jsonl"
    write_inputs(run)
    before = rows.read_bytes()
    assert before.count(b"\n") == 36
    Completion.objects.first().delete()
    time_before = rows.stat().st_mtime_ns
    write_inputs(run)
    assert rows.stat().st_mtime_ns == time_before and rows.read_bytes() == before
