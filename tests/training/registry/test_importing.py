"""Models and adapters from elsewhere: what is taken, what is mended, what is refused and in which words."""

import json
import shutil
import struct
from io import StringIO
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from tests import factories
from tests.api_caller import Caller
from training.registry.errors import NotImported
from training.registry.importing import import_model
from training.registry.model_imports import work_off_model_imports
from training.registry.models import ModelVersion
from training.registry.verification import verify


@pytest.fixture
def incoming(tmp_path, settings) -> Path:
    folder = tmp_path / "incoming"
    folder.mkdir()
    settings.MODEL_ROOTS = [str(folder)]
    return folder


@pytest.fixture
def foreign(incoming, tiny_folder) -> Path:
    """A whole model, as somebody else would hand it over."""
    return shutil.copytree(tiny_folder, incoming / "foreign")


@pytest.fixture
def adapter(incoming, adapter_files) -> Path:
    return shutil.copytree(adapter_files, incoming / "adapter")


def bring_in(folder, **options) -> ModelVersion:
    return import_model(**{"folder": str(folder), "name": "foreign", "kind": "base", "licence": "MIT", **options})


def change_json(path: Path, **values) -> None:
    found = json.loads(path.read_text())
    found |= values
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))


def left_in_models() -> set[str]:
    return {path.name for path in Path(settings.MODELS).iterdir() if "foreign" in path.name or path.name.startswith(".")}


def test_a_folder_is_copied_and_entered_and_what_is_no_part_of_a_model_is_left_behind(db, foreign):
    (foreign / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (foreign / "modeling_x.py").write_text("raise SystemExit")
    (foreign / "runs").mkdir()
    model = bring_in(foreign.name, fee_due=True)
    assert (model.key, model.kind, model.stage, model.fee_due) == ("foreign@1", "base", "production", True)
    assert model.lineage["mended"] == [] and len(model.lineage["left_behind"]) == 3
    assert not {"pytorch_model.bin", "modeling_x.py"} & set(model.files)
    shutil.rmtree(foreign)
    assert [one.problem for one in verify(model) if one.problem] == []


def test_a_missing_padding_token_is_mended_and_the_mending_is_kept(db, foreign):
    change_json(foreign / "tokenizer_config.json", pad_token=None)
    model = bring_in(foreign)
    assert "pads with its end token <|im_end|>" in model.lineage["mended"][0]
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(Path(settings.HOME) / model.folder).pad_token == "<|im_end|>"


def test_a_missing_chat_template_is_refused_until_a_plain_one_is_asked_for(db, foreign):
    (foreign / "chat_template.jinja").unlink(missing_ok=True)
    change_json(foreign / "tokenizer_config.json", chat_template=None)
    with pytest.raises(NotImported, match="no chat template"):
        bring_in(foreign)
    assert "plain one" in bring_in(foreign, plain_template=True).lineage["mended"][0]


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), r"only pickled weights \(pytorch_model\.bin\)"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x80\x04\x95" + b"x" * 40), "is a pickle or an archive under another name"),
        (lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{}"), "header does not fit"),
        (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-50]), "cut off or half copied"),
        (lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"x": "model-2.safetensors"}}'), "Parts of the weights are missing: model-2"),
        (lambda f: change_json(f / "config.json", auto_map={"AutoModel": "x--y.Z"}), "program code of its own"),
        (lambda f: change_json(f / "tokenizer_config.json", auto_map={"AutoTokenizer": "x.Y"}), "program code of its own"),
        (lambda f: change_json(f / "config.json", attn_implementation="someone/kernel"), "attention kernel from elsewhere"),
        (lambda f: change_json(f / "config.json", model_type="mystery"), "configuration can't be read"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda f: (f / "config.json").unlink(), "neither config.json nor adapter_config.json"),
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer can't be loaded"),
        (lambda f: (f / "chat_template.jinja").write_text("{% for"), "chat template is broken"),
        (lambda f: (f / "chat_template.jinja").write_text("{{ ''.__class__.__mro__ }}"), "chat template is broken"),
        (lambda f: (f / "chat_template.jinja").write_text("Hello"), "leaves out what the person said"),
        (lambda f: change_json(f / "tokenizer_config.json", chat_template=[{"name": "../x", "template": "x"}]), "a name that is none"),
        (lambda f: (f / "added_tokens.json").symlink_to("/etc/hostname"), "link to a place that may not be read"),
    ],
)  # fmt: skip
def test_what_could_run_code_or_is_broken_is_refused_and_nothing_stays_behind(db, foreign, break_it, words):
    break_it(foreign)
    before = left_in_models()
    with pytest.raises(NotImported, match=words):
        bring_in(foreign)
    assert left_in_models() == before and not ModelVersion.objects.exists()


@pytest.mark.parametrize("folder", ["/etc", "..", ".", "../incoming", "nothing", "foreign/../../x", "a\0b"])
def test_a_folder_elsewhere_is_never_looked_at(db, foreign, folder):
    with pytest.raises(NotImported, match="no such folder below those that the operator allows"):
        bring_in(folder)


def test_links_below_the_allowed_folders_are_followed_as_a_download_cache_has_them(db, foreign):
    blobs = foreign.parent / "blobs"
    blobs.mkdir()
    shutil.move(foreign / "model.safetensors", blobs / "1234")
    (foreign / "model.safetensors").symlink_to("../blobs/1234")
    model = bring_in(foreign)
    assert not (Path(settings.HOME) / model.folder / "model.safetensors").is_symlink()


def test_an_adapter_is_entered_on_the_base_it_fits(db, adapter, tiny, project, tmp_path, incoming):
    policy = bring_in(adapter, kind="policy", project=project, base=tiny)
    assert (policy.is_adapter, policy.base, policy.parent, policy.stage) == (True, tiny, tiny, "candidate")
    with pytest.raises(NotImported, match="needs its base model"):
        bring_in(adapter, kind="policy", project=project)
    with pytest.raises(NotImported, match="given as reward model"):
        bring_in(adapter, kind="reward", project=project, base=tiny)
    with pytest.raises(NotImported, match="This is an adapter"):
        bring_in(adapter)
    from training.sampling.tiny_model import build_tiny_model

    wider = bring_in(build_tiny_model(incoming / "wider", hidden_size=96), name="wider")
    with pytest.raises(NotImported, match=r"does not fit wider@1: at model\.layers\.0\.self_attn\.q_proj it is made for 64 inputs"):
        bring_in(adapter, kind="policy", project=project, base=wider)


def test_the_command_says_what_it_did_and_what_is_wrong(db, foreign, project):
    change_json(foreign / "tokenizer_config.json", pad_token=None)
    out = StringIO()
    call_command("import_model", str(foreign), name="foreign", licence="MIT", stdout=out)
    assert "Mended: The tokenizer had no padding token" in out.getvalue() and "foreign@1 is entered" in out.getvalue()
    with pytest.raises(CommandError, match="no such folder"):
        call_command("import_model", "/etc", name="foreign", licence="MIT")


def test_over_rest_engineers_import_for_their_project_and_operators_for_all(foreign, adapter, tiny, project, engineer, reviewer):
    body = {"folder": str(adapter), "name": "theirs", "kind": "policy", "licence": "MIT", "base": tiny.key}
    url = "projects/support/models/import/"
    made = Caller(engineer).post(url, body)
    assert made.status_code == 202 and (made.json()["name"], made.json()["state"]) == ("theirs", "waiting")
    assert Caller(reviewer).post(url, body).status_code == 403
    whole = {"folder": str(foreign), "name": "whole", "kind": "base", "licence": "MIT"}
    assert Caller(engineer).post(url, whole).status_code == 403
    engineer.is_staff = True
    engineer.save()
    assert Caller(engineer).post(url, whole).status_code == 202
    assert work_off_model_imports() == 2
    theirs, base = ModelVersion.objects.get(key="theirs@1"), ModelVersion.objects.get(key="whole@1")
    assert (theirs.base, theirs.project, base.project) == (tiny, project, None)
    refused = Caller(engineer).post(url, {**body, "folder": "/etc"})
    assert refused.status_code == 400 and "operator allows" in str(refused.json()["error"]["fields"]["folder"])


def test_the_page_offers_the_folders_there_are(client, foreign, project, engineer, reviewer):
    client.force_login(engineer)
    url = "/projects/support/models/import/"
    assert str(foreign) in client.get(url).content.decode()
    told = {"folder": str(foreign), "name": "theirs", "kind": "policy", "licence": "MIT"}
    (foreign / "config.json").write_text("[]")
    answer = client.post(url, told, follow=True)
    work_off_model_imports()
    assert "config.json is not a JSON object" in client.get(answer.request["PATH_INFO"]).content.decode()
    assert client.post(url, {**told, "kind": "base"}).status_code == 422
    client.force_login(reviewer)
    assert client.post(url, told).status_code == 403
    client.force_login(factories.make_user("nobody"))
    assert client.get(url).status_code == 404
