"""The client works where nothing but its base install is: httpx, rich, and what these two need."""

import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.training.client.test_client import Answer, Site

ROOT = Path(__file__).resolve().parents[3]


def distributions(names: set[str]) -> set[str]:
    """These and whatever they need, by metadata; what only extras need is left out."""
    found: set[str] = set()
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform or Python
        found.add(name)
        waiting |= {re.split(r"[\s<>=!~;\[(]", need)[0].lower() for need in needs if "extra ==" not in need} - found
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """An interpreter of its own, to whose packages exactly those files were copied."""
    folder = tmp_path_factory.mktemp("base")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    [packages] = folder.glob("lib/python*/site-packages")
    for name in distributions({"httpx", "rich"}):
        for file in importlib.metadata.files(name) or []:
            if ".." not in file.parts and "__pycache__" not in file.parts:
                (packages / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), packages / file)
    return folder / "bin" / "python"


@pytest.fixture
def run(python, tmp_path):
    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), **variables}
        return subprocess.run([python, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True)

    return run


def test_nothing_else_is_there(run):
    for name in ("django", "yaml", "numpy", "datasets", "pyarrow", "celery"):
        assert "ModuleNotFoundError" in run("-c", f"import {name}").stderr


def test_every_command_shows_its_help(run):
    done = run("-m", "training.client", "--help")
    assert done.returncode == 0 and "prefloop login" in done.stdout, done.stderr
    assert run("-m", "training.client", "freeze", "--help").returncode == 0


def test_a_call_is_made(run):
    site = Site()
    try:
        project = {"slug": "larkfell", "role": "lead", "state": "open", "name": "Larkfell"}
        site.respond = lambda request: Answer(200, {"next": None, "results": [project]})
        done = run("-m", "training.client", "projects", PREFLOOP_URL=site.url, PREFLOOP_TOKEN="secret")
        assert done.returncode == 0 and "larkfell" in done.stdout, done.stderr
        assert site.requests[0].headers["authorization"] == "Bearer secret"
    finally:
        site.stop()


def test_what_needs_more_says_what_to_install(run, tmp_path):
    (tmp_path / "freeze.yaml").write_text("filters:\n  tags: [law]\n")
    done = run("-m", "training.client", "freeze", "larkfell", "--settings", "freeze.yaml", PREFLOOP_URL="http://127.0.0.1:1")
    assert done.returncode == 1 and "pip install PyYAML" in done.stderr
    done = run("-c", "from training.client import Client; Client('http://127.0.0.1:1').to_datasets('1')")
    assert "MissingPackage" in done.stderr and "pip install datasets" in done.stderr


def test_the_command_is_the_one_that_the_package_installs():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, function = declared["scripts"]["prefloop"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert {re.split("[<>=]", need)[0] for need in declared["dependencies"]} == {"httpx", "rich"}
