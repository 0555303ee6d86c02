"""Which way imports run, read from the source of every module."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("config", "labeling", "training")

# Each may import itself and what stands to the right of it.
CHAIN = [
    "config", "training.loop", "training.features", "training.runs", "training.endpoints", "training.registry", "labeling.webhooks", "labeling.preferences", "labeling.imports",
    "labeling.quality", "labeling.conversation", "labeling.annotation", "labeling.images", "labeling.projects", "labeling.accounts", "labeling.live", "labeling.web",
    "labeling.database",
]  # fmt: skip
SAMPLERS = {"config", "training.loop", "training.features", "training.runs", "training.endpoints", "training.registry", "training.recipes", "training.sampling"}
LABELING = {name for name in CHAIN if name.startswith("labeling.")}
# Pages of the site show what the parts hold; the parts know nothing of the pages but their tags and errors.
OWN_ROOF = {"labeling.live", "labeling.web"}
NO_DJANGO = ("training.recipes", "training.sampling", "training.client")
CLIENT_MAY = {"httpx", "rich"}
UTILITY = "training.loop.demo.simulated_annotator"


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


MODULES = dict(modules())


def imports_of(module: str) -> Iterator[tuple[str, int]]:
    """Every module named by an import of `module`, those inside functions and TYPE_CHECKING included."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]).rstrip(".")
            yield base, node.lineno
            for name in node.names:
                if f"{base}.{name.name}" in MODULES:
                    yield f"{base}.{name.name}", node.lineno


def part_of(module: str) -> str:
    return module.split(".")[0] if module.startswith("config") else ".".join(module.split(".")[:2])


def own_imports() -> Iterator[tuple[str, str, int]]:
    for module in MODULES:
        for target, line in imports_of(module):
            if target.split(".")[0] in PACKAGES and part_of(target) != part_of(module):
                yield module, target, line


def wrong_ways(is_wrong) -> list[str]:
    return [f"{module}:{line} imports {target}" for module, target, line in own_imports() if is_wrong(module, target)]


def test_apps_import_only_what_stands_right_of_them():
    def against_the_stream(module: str, target: str) -> bool:
        here, there = part_of(module), part_of(target)
        if here not in CHAIN or there not in CHAIN or here in OWN_ROOF:
            return False
        return CHAIN.index(there) < CHAIN.index(here)

    assert wrong_ways(against_the_stream) == []


def test_live_imports_no_other_app():
    apps = {*CHAIN} - {"labeling.database"}
    assert wrong_ways(lambda module, target: part_of(module) == "labeling.live" and part_of(target) in apps) == []


def test_labeling_never_imports_training():
    assert wrong_ways(lambda module, target: module.startswith("labeling") and target.startswith("training")) == []


def test_sampling_is_imported_by_those_that_sample():
    assert wrong_ways(
        lambda module, target: part_of(target) == "training.sampling" and part_of(module) not in SAMPLERS
    ) == []  # fmt: skip


def test_recipes_sampling_and_client_know_neither_django_nor_the_apps():
    wrong = []
    for module in MODULES:
        if not module.startswith(NO_DJANGO):
            continue
        for target, line in imports_of(module):
            top = target.split(".")[0]
            own = target.startswith(NO_DJANGO) or target == "training"
            if top in ("django", "celery", "channels", "rest_framework") or (top in PACKAGES and not own):
                wrong.append(f"{module}:{line} imports {target}")
    assert wrong == []


def test_the_client_needs_the_standard_library_httpx_and_rich_alone():
    allowed = CLIENT_MAY | set(sys.stdlib_module_names)
    wrong = [
        f"{module}:{line} imports {target}"
        for module in MODULES
        if module.startswith("training.client")
        for target, line in imports_of(module)
        if target.split(".")[0] not in allowed and not target.startswith("training.client")
    ]
    assert wrong == []


def test_the_init_files_of_training_and_of_the_recipes_are_empty():
    for name in ("training", "training/recipes"):
        assert (ROOT / name / "__init__.py").read_text().strip() == ""


def test_nothing_sees_what_the_simulated_annotator_prefers():
    """Its utility function is the truth that the loop must find by asking: only as a process may it be used."""
    assert wrong_ways(lambda module, target: target.startswith(UTILITY)) == []
    for module in MODULES:
        if module != UTILITY:
            assert UTILITY not in {target for target, _ in imports_of(module)}, module


RECIPES = sorted(
    name for name in MODULES if name.startswith("training.recipes.") and not name.rpartition(".")[2].startswith("_")
)

BLOCKED = """
import importlib, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("django", "labeling", "config", "celery", "channels", "rest_framework"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_recipes_sampling_and_client_import_where_django_is_blocked():
    """One interpreter for all of them: torch takes seconds to import."""
    pytest.importorskip("torch")
    others = [name for name in MODULES if name.startswith(("training.sampling.", "training.client."))]
    names = [*RECIPES, *(name for name in others if not name.endswith("__main__"))]
    assert len(RECIPES) >= 4
    done = subprocess.run([sys.executable, "-c", BLOCKED, *names], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_web_process_never_imports_torch():
    check = "import config.wsgi, sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:] or "torch was imported"
