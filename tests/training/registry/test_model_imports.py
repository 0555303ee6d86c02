"""Models taken in by a worker: archives that are sent, folders of the server, and what a lost or stopped one leaves."""

import io
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from labeling.database.ownership import owner_name
from tests import factories
from tests.api_caller import Caller, code_of
from training.registry import model_imports
from training.registry.errors import NotImported
from training.registry.model_imports import (
    MAX_ATTEMPTS,
    MAX_OPEN_A_PROJECT,
    archive_of,
    cancel_model_import,
    claim_next_model_import,
    execute_model_import,
    start_model_import,
    sweep_model_imports,
    work_off_model_imports,
)
from training.registry.models import ModelImport, ModelVersion
from training.registry.verification import verify
from training.sampling.model_archives import unpack
from training.sampling.model_files import ModelFilesError

GONE = "worker@elsewhere:1"
UPLOAD = "projects/support/models/upload/?name=theirs&kind=policy&licence=MIT"


def tar_of(files: dict[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def content_of(folder: Path, below: str = "") -> dict[str, bytes]:
    return {below + path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(autouse=True)
def own_home(settings, tmp_path) -> None:
    settings.HOME = tmp_path / "home"
    settings.MODELS = settings.HOME / "models"


@pytest.fixture
def caller(engineer) -> Caller:
    return Caller(engineer)


def send(caller: Caller, archive: bytes, address: str = UPLOAD):
    return caller.post(address, archive, content_type="application/octet-stream")


def leftovers(settings) -> list[str]:
    return [path.name for path in Path(settings.MODELS).iterdir()] if Path(settings.MODELS).exists() else []


@pytest.fixture
def job(project, engineer, tiny_folder, settings, tmp_path) -> ModelImport:
    """A folder of the server that waits to be taken in."""
    settings.MODEL_ROOTS = [str(tmp_path / "incoming")]
    folder = shutil.copytree(tiny_folder, tmp_path / "incoming" / "foreign")
    return start_model_import(
        project=project, source_at=str(folder), created_by=engineer, name="theirs", kind="policy", licence="MIT"
    )


@pytest.mark.parametrize(
    "pack", [tar_of, lambda files: tar_of(files, "w:gz"), zip_of], ids=["tar", "tar.gz", "zip"]
)
def test_an_archive_that_was_sent_becomes_a_model_of_the_project(caller, project, tiny_folder, pack, settings):
    files = {**content_of(tiny_folder, "theirs/"), "theirs/notes.xyz": b"hello"}
    sent = send(caller, pack(files))
    assert sent.status_code == 202 and (sent.json()["state"], sent.json()["model"]) == ("waiting", None)
    assert work_off_model_imports() == 1
    done = caller.get(f"model-imports/{sent.json()['id']}/").json()
    assert (done["state"], done["share"], done["model"]["key"]) == ("done", 1.0, "theirs@1")
    assert done["left_behind"] == ["notes.xyz: not part of a model"]
    model = ModelVersion.objects.get(key="theirs@1")
    assert (model.project, model.kind, model.stage) == (project, "policy", "candidate")
    assert not any(one.problem for one in verify(model))
    assert leftovers(settings) == [Path(model.folder).name] and not archive_of(ModelImport.objects.get()).exists()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"m/config.json": b"{}", "m/pytorch_model.bin": b"x"}, "m/pytorch_model.bin is pickled"),
        ({"m/modeling.py": b"import os"}, "m/modeling.py is program code"),
        ({"../config.json": b"{}"}, "'../config.json' is no name of a file below"),
        ({"/etc/config.json": b"{}"}, "'/etc/config.json' is no name of a file below"),
        ({"m/config.json": b"{}", "other/config.json": b"{}"}, "lies outside the folder m/"),
        ({"m/notes.xyz": b"x"}, "holds no file of a model"),
        ({"config.json": b"0" * 20_000_000}, "times its own size"),
    ],
    ids=["pickle", "code", "parent", "absolute", "two_folders", "nothing", "bomb"],
)
@pytest.mark.parametrize("pack", [lambda files: tar_of(files, "w:gz"), zip_of], ids=["tar.gz", "zip"])
def test_what_no_model_is_packed_like_is_refused_by_name(tmp_path, files, said, pack):
    archive = tmp_path / "sent"
    archive.write_bytes(pack(files))
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(ModelFilesError, match=re.escape(said)):
        unpack(archive, into, most_bytes=100_000_000)
    assert {path.name for path in tmp_path.iterdir()} == {"sent", "into"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_an_archive_holds_plain_files_alone(tmp_path, kind):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("m/config.json")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    (tmp_path / "sent").write_bytes(out.getvalue())
    (tmp_path / "into").mkdir()
    with pytest.raises(ModelFilesError, match=r"m/config\.json is (a link|no plain file)"):
        unpack(tmp_path / "sent", tmp_path / "into", most_bytes=100_000)
    assert not list((tmp_path / "into").iterdir())


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive at all" * 100, zip_of({"config.json": b"{}"})[:-10], tar_of({"c": b"x" * 9000}, "w:gz")[:40]],
    ids=["empty", "text", "zip", "tar.gz"],
)
def test_what_is_no_archive_or_only_its_beginning_is_refused(tmp_path, content):
    (tmp_path / "sent").write_bytes(content)
    (tmp_path / "into").mkdir()
    with pytest.raises(ModelFilesError, match=r"tar|archive"):
        unpack(tmp_path / "sent", tmp_path / "into", most_bytes=100_000)


def test_more_than_the_operator_allows_is_refused_before_and_after_it_is_unpacked(caller, project, settings, tmp_path):
    settings.MODEL_UPLOAD_MAX_BYTES = 50_000
    assert send(caller, b"x" * 60_000).status_code == 413
    archive = tmp_path / "sent"
    archive.write_bytes(tar_of({"config.json": b"0" * 60_000}, "w:gz"))
    (tmp_path / "into").mkdir()
    with pytest.raises(ModelFilesError, match="More than 50,000 bytes come out"):
        unpack(archive, tmp_path / "into", most_bytes=50_000)


def test_a_refused_model_says_why_and_leaves_nothing(caller, project, tiny_folder, settings):
    sent = send(caller, tar_of({**content_of(tiny_folder), "config.json": b"[]"})).json()
    work_off_model_imports()
    failed = caller.get(f"model-imports/{sent['id']}/").json()
    assert failed["state"] == "failed" and "config.json is not a JSON object" in failed["problem"]
    assert not ModelVersion.objects.exists() and not leftovers(settings)
    assert not archive_of(ModelImport.objects.get()).exists()


def test_fields_are_checked_before_anything_is_taken(caller, project, reviewer):
    assert "name" in send(caller, b"x", UPLOAD.replace("name=theirs", "name=No+Name")).json()["error"]["fields"]
    assert "licence" in send(caller, b"x", UPLOAD.replace("&licence=MIT", "")).json()["error"]["fields"]
    assert "colour" in send(caller, b"x", UPLOAD + "&colour=red").json()["error"]["fields"]
    assert "base" in send(caller, b"x", UPLOAD + "&base=none@1").json()["error"]["fields"]
    assert send(caller, b"x", UPLOAD.replace("policy", "base")).status_code == 403
    assert send(Caller(reviewer), b"x").status_code == 403
    assert not ModelImport.objects.exists()


def test_a_project_has_so_many_open_at_once(caller, project):
    for _ in range(MAX_OPEN_A_PROJECT):
        assert send(caller, b"x").status_code == 202
    refused = send(caller, b"x")
    assert refused.status_code == 400 and "wait for one" in str(refused.json()["error"]["fields"]["file"])


def test_one_whose_worker_was_killed_is_done_anew_and_what_was_half_there_goes(job, settings):
    killed = claim_next_model_import(owner=GONE)
    Path(settings.MODELS).mkdir(parents=True, exist_ok=True)
    for name in (".unpacking-{}-1-x", ".importing-{}-1-x", "theirs-import-{}-1"):
        (Path(settings.MODELS) / name.format(job.pk)).mkdir()
    ModelImport.objects.update(heartbeat_at="2020-01-01T00:00Z")
    assert sweep_model_imports() == 1 and work_off_model_imports() == 1
    job.refresh_from_db()
    assert (job.state, job.attempts, job.model.key) == ("done", 2, "theirs@1")
    assert leftovers(settings) == [f"theirs-import-{job.pk}-3"]
    execute_model_import(killed)  # it lived all the same, and comes too late
    assert ModelVersion.objects.count() == 1 and leftovers(settings) == [f"theirs-import-{job.pk}-3"]


def test_one_that_kills_its_workers_fails_in_the_end(job):
    for _ in range(MAX_ATTEMPTS):
        claim_next_model_import(owner=GONE)
        ModelImport.objects.update(heartbeat_at="2020-01-01T00:00Z")
        assert sweep_model_imports() == 1
    job.refresh_from_db()
    assert job.state == "failed" and "lost 3 times" in job.problem and claim_next_model_import(owner=GONE) is None


def test_a_living_worker_is_left_alone(job):
    claim_next_model_import(owner=owner_name())
    assert sweep_model_imports() == 0


def test_cancelling_ends_one_that_waits_and_stops_one_that_works(job, project, settings, monkeypatch):
    cancel_model_import(job=job)
    job.refresh_from_db()
    assert job.state == "cancelled" and work_off_model_imports() == 0
    with pytest.raises(NotImported, match="over already"):
        cancel_model_import(job=job)
    again = start_model_import(project=project, source_at=job.source_folder, **job.wanted)
    monkeypatch.setattr(model_imports, "BEAT_SECONDS", 0.0)
    held = claim_next_model_import(owner=owner_name())
    cancel_model_import(job=again)
    execute_model_import(held)
    again.refresh_from_db()
    assert (again.state, again.model) == ("cancelled", None) and not leftovers(settings)


def test_the_page_takes_an_archive_and_shows_what_becomes_of_it(client, project, engineer, reviewer, tiny_folder):
    client.force_login(engineer)
    page = "/projects/support/models/import/"
    told = {"name": "theirs", "kind": "policy", "licence": "MIT"}
    missing = client.post(page, told)
    assert missing.status_code == 422 and "Choose an archive" in missing.content.decode()
    file = SimpleUploadedFile("theirs.tar", tar_of(content_of(tiny_folder)))
    sent = client.post(page, {**told, "file": file}, follow=True)
    assert sent.status_code == 200 and "waiting for a worker" in sent.content.decode()
    work_off_model_imports()
    result = client.get(sent.request["PATH_INFO"]).content.decode()
    assert "theirs@1" in result and "hx-get" not in result and "theirs.tar" in client.get(page).content.decode()
    assert client.post(sent.request["PATH_INFO"] + "cancel/").status_code == 302
    client.force_login(reviewer)
    assert client.post(sent.request["PATH_INFO"] + "cancel/").status_code == 403
    client.force_login(factories.make_user("nobody"))
    assert client.get(sent.request["PATH_INFO"]).status_code == 404


def test_an_import_that_is_over_cannot_be_cancelled(caller, job):
    ModelImport.objects.update(state="done")
    assert code_of(caller.post(f"model-imports/{job.pk}/cancel/")) == "wrong_state"
    assert [one["id"] for one in caller.get("projects/support/model-imports/").json()["results"]] == [str(job.pk)]
