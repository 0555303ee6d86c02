"""What leaves the registry: a repository of the hub as folder and tar, single files, and a GGUF file that nothing trains on."""

import hashlib
import io
import shutil
import tarfile
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client as Browser
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from tests import factories
from tests.api_caller import Caller
from training.client import ApiError, Client
from training.registry.errors import NotExported
from training.registry.exporting import export_model, parts_of, tar_of
from training.registry.models import ModelVersion
from training.registry.selectors import production_policy
from training.registry.services import change_stage, folder_of, register_base_model, register_trained_model
from training.registry.serving import RegistryModels
from training.runs.errors import BadSpec
from training.runs.services import claim_next_run, create_run
from training.runs.watch import watch_run

FIGURE = {"value": 0.7, "low": 0.45, "high": 0.87, "n": 20, "method": "Wilson"}


def fill(name: str, files: dict[str, str]) -> str:
    folder = Path(settings.MODELS) / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file, text in files.items():
        (folder / file).write_text(text)
    return f"models/{name}"


@pytest.fixture
def base(db) -> ModelVersion:
    folder = fill("to-export", {"a.safetensors": "a" * 70_000, "config.json": "{}", "LICENSE": "Be kind.\n"})
    return register_base_model(name="small", folder=folder, licence="Apache-2.0", source="org/small")


@pytest.fixture
def adapter(base, project) -> ModelVersion:
    folder = fill("to-export-2", {"adapter_model.safetensors": "b" * 300, "adapter_config.json": '{"base_model_name_or_path": "/x"}'})
    return register_trained_model(
        name="support-dpo", kind="policy", project=project, parent=base, snapshot=None, folder=folder, is_adapter=True,
        metrics={"win_rate": FIGURE, "kl": {**FIGURE, "value": None}}, lineage={"recipe": "dpo"},
    )  # fmt: skip


@pytest.fixture
def quantised(adapter, project) -> ModelVersion:
    return register_trained_model(
        name="support-gguf", kind="gguf", project=project, parent=adapter, snapshot=None, is_adapter=False,
        folder=fill("to-export-3", {"model.q8_0.gguf": "GGUF" * 1000}), metrics={}, lineage={"recipe": "gguf"},
    )  # fmt: skip


def test_the_hubs_own_parser_reads_every_card(base, adapter, quantised, tmp_path):
    for model, relation, library in ((base, None, "transformers"), (adapter, "adapter", "peft"), (quantised, "quantized", "gguf")):
        out = tmp_path / model.name
        export_model(model, out)
        data = ModelCard.load(out / "README.md").data.to_dict()
        assert (data["license"], data.get("base_model_relation"), data["library_name"]) == ("apache-2.0", relation, library)
        assert data.get("base_model") == (None if model == base else "org/small")
    name, results = model_index_to_eval_results(ModelCard.load(tmp_path / "support-dpo" / "README.md").data.to_dict()["model-index"])
    assert name == "support-dpo@1"
    assert [(one.metric_type, one.metric_value, one.metric_args) for one in results] == [
        ("win_rate", 0.7, {"n": 20, "low": 0.45, "high": 0.87})
    ]


def test_a_folder_has_its_licence_what_git_keeps_by_hash_and_every_hash(adapter, tmp_path):
    hashes = export_model(adapter, tmp_path / "hub")
    assert set(hashes) == {".gitattributes", "LICENSE", "README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert (tmp_path / "hub" / "LICENSE").read_text() == "Be kind.\n"  # its base's
    assert "*.safetensors filter=lfs" in (tmp_path / "hub" / ".gitattributes").read_text()
    for name, digest in hashes.items():
        assert hashlib.sha256((tmp_path / "hub" / name).read_bytes()).hexdigest() == digest


def test_the_tar_has_what_the_folder_has_and_breaks_off_where_a_file_was_changed(adapter, base, tmp_path):
    n_bytes, stream = tar_of(base)
    sent = b"".join(stream)
    assert len(sent) == n_bytes
    with tarfile.open(fileobj=io.BytesIO(sent)) as tar:
        tar.extractall(tmp_path, filter="data")
    export_model(base, tmp_path / "folder")
    for part in parts_of(base):
        assert (tmp_path / "small-1" / part.name).read_bytes() == (tmp_path / "folder" / part.name).read_bytes()
    (folder_of(base) / "a.safetensors").write_text("c" * 70_000)
    n_bytes, stream = tar_of(base)
    sent = b""
    with pytest.raises(NotExported, match=r"a\.safetensors is not as it was entered"):
        for chunk in stream:
            sent += chunk
    assert len(sent) < n_bytes
    (folder_of(base) / "a.safetensors").unlink()
    with pytest.raises(NotExported, match=r"a\.safetensors is missing: run manage.py verify_models small@1"):
        tar_of(base)


def test_leads_and_engineers_download_in_parts_and_others_nothing(quantised, engineer, reviewer, stranger):
    path = f"models/{quantised.pk}/files/model.q8_0.gguf"
    whole = (folder_of(quantised) / "model.q8_0.gguf").read_bytes()
    caller = Caller(engineer)
    answer = caller.get(path)
    assert b"".join(answer.streaming_content) == whole
    assert answer["ETag"] == f'"{quantised.files["model.q8_0.gguf"]}"' and answer["Accept-Ranges"] == "bytes"
    part = caller.get(path, Range="bytes=4-11", If_Range=answer["ETag"])
    assert (part.status_code, b"".join(part.streaming_content), part["Content-Range"]) == (206, b"GGUFGGUF", "bytes 4-11/4000")
    assert caller.get(path, Range="bytes=4000-").status_code == 416
    assert caller.get(path, If_None_Match=answer["ETag"]).status_code == 304
    assert caller.get(f"models/{quantised.pk}/files/../secret").status_code == 404
    for user, expected in ((reviewer, 403), (stranger, 404)):
        for ending in ("archive/", "files/model.q8_0.gguf"):
            assert Caller(user).get(f"models/{quantised.pk}/{ending}").status_code == expected
    answer = caller.get(f"models/{quantised.pk}/archive/")
    assert answer["Content-Type"] == "application/x-tar" and len(b"".join(answer.streaming_content)) == int(answer["Content-Length"])

    browser = Browser()
    browser.force_login(engineer, backend="django.contrib.auth.backends.ModelBackend")
    page = f"/projects/support/models/{quantised.pk}/"
    assert b"archive.tar" in browser.get(page).content and b"files/model.q8_0.gguf" in browser.get(page).content
    assert b"".join(browser.get(f"{page}files/model.q8_0.gguf").streaming_content) == whole
    (folder_of(quantised) / "model.q8_0.gguf").unlink()
    for address in (f"{page}files/model.q8_0.gguf", f"{page}archive.tar"):
        answer = browser.get(address)
        assert answer.status_code == 409 and b"model.q8_0.gguf is missing" in answer.content


@pytest.mark.django_db(transaction=True)
def test_the_client_takes_a_model_and_goes_on_with_a_file(live_server, quantised, engineer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Client(live_server.url, factories.token_for(engineer)) as client:
        tar = client.download_model(quantised.pk, tmp_path / "model.tar")
        with tarfile.open(tar) as opened:
            assert "support-gguf-1/model.q8_0.gguf" in opened.getnames()
        whole = (folder_of(quantised) / "model.q8_0.gguf").read_bytes()
        (tmp_path / "model.q8_0.gguf.part").write_bytes(whole[:100])
        (tmp_path / "model.q8_0.gguf.part.etag").write_text(f'"{quantised.files["model.q8_0.gguf"]}"')
        seen = []
        target = client.download_model_file(quantised.pk, "model.q8_0.gguf", report=lambda received, total: seen.append((received, total)))
        assert target.read_bytes() == whole and seen[0][1] == len(whole)
        seen.clear()
        client.download_model_file(quantised.pk, "model.q8_0.gguf", report=lambda received, total: seen.append(received))
        assert seen == []  # it is here already
        (folder_of(quantised) / "model.q8_0.gguf").unlink()
        with pytest.raises(ApiError, match="is missing"):
            client.download_model(quantised.pk, tmp_path / "again.tar")
    assert not (tmp_path / "again.tar").exists()


def test_nothing_is_trained_on_a_gguf_file_and_it_takes_no_policys_place(filled_project, quantised, adapter, base, lead):
    change_stage(model=adapter, to_stage="production", reason="best", changed_by=lead)
    change_stage(model=quantised, to_stage="production", reason="serve it", changed_by=lead)
    assert production_policy(filled_project) == adapter
    assert quantised.key not in RegistryModels().names.__wrapped__(RegistryModels())
    for kind in ("dpo", "sft", "merge", "gguf", "evaluate", "grpo"):
        with pytest.raises(BadSpec, match=r"support-gguf@1 is a gguf model"):
            create_run(project=filled_project, kind=kind, created_by=lead, model=quantised)
    with pytest.raises(BadSpec, match="no model that writes completions"):
        create_run(project=filled_project, kind="evaluate", created_by=lead, model=base, inputs={"reference": quantised.key})
    with pytest.raises(BadSpec, match="is a file for serving: enter an endpoint that serves it, or choose support-dpo@1"):
        create_run(project=filled_project, kind="sample", created_by=lead, model=quantised)


@pytest.mark.recipe
def test_a_run_makes_a_gguf_file_with_its_lineage_figures_and_card(project, lead, tiny, tmp_path):
    factories.fill_project(project, 24)
    run = create_run(
        project=project, kind="gguf", created_by=lead, model=tiny, spec={"quantisation": "q4_0", "max_new_tokens": 4, "max_prompts": 3}
    )
    watch_run(claim_next_run(owner="test"))
    run.refresh_from_db()
    assert (run.state, run.error) == ("done", "")
    made = run.output_model
    assert (made.key, made.kind, made.parent, made.is_adapter) == ("support-gguf@1", "gguf", tiny, False)
    assert set(made.files) == {"model.q4_0.gguf", "README.md"}
    assert made.metrics["kl/per_token"]["value"] > 0 and made.metrics["kl/per_token"]["n"] <= 3
    export_model(made, tmp_path / "hub")
    data = ModelCard.load(tmp_path / "hub" / "README.md").data.to_dict()
    assert (data["base_model"], data["base_model_relation"], data["library_name"]) == ("tests", "quantized", "gguf")
    assert {result.metric_type for result in model_index_to_eval_results(data["model-index"])[1]} >= {"kl/per_token", "size_ratio"}
    assert "quantised from tiny@1" in (tmp_path / "hub" / "README.md").read_text()
