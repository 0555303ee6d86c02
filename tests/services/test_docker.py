"""The container files: linted, and of the structure that the design asks for. Nothing is built."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from labeling.web.processes import site_processes

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
HADOLINT = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


@pytest.mark.parametrize("name", ["web.Dockerfile", "gpu.Dockerfile"])
def test_hadolint_finds_nothing(name):
    assert HADOLINT, "hadolint is part of the dev extra: make install-dev"
    done = subprocess.run([HADOLINT, str(DOCKER / name)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["web.Dockerfile", "gpu.Dockerfile"])
def test_images_are_pinned_and_run_without_rights(name):
    text = (DOCKER / name).read_text()
    for image in re.findall(r"^FROM (\S+)", text, re.M):
        assert re.fullmatch(r"[a-z]+:\d+\.\d+\.\d+[a-z0-9.-]*", image), image
    assert re.findall(r"^USER (\S+)", text, re.M) == ["10001"]
    assert "constraints.txt" in text and "HEALTHCHECK" in text


def test_the_web_image_has_no_torch():
    text = (DOCKER / "web.Dockerfile").read_text()
    assert ".[web]" in text and "train]" not in text


def test_every_service_has_a_pinned_image_and_a_healthcheck(compose):
    assert set(compose["services"]) == {"postgres", "redis", "setup", "web", "live", "worker", "gpu", "proxy"}
    for name, service in compose["services"].items():
        if not service["image"].startswith("prefloop-"):
            assert re.search(r":\d+\.\d+", service["image"]), name
        own_image_checks = name == "web"  # by its Dockerfile
        assert own_image_checks or "healthcheck" in service, name


def test_only_the_proxy_is_reachable_and_only_from_this_machine(compose):
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {"proxy": ["127.0.0.1:8080:8080"]}


def test_no_secret_has_a_default(compose):
    text = (DOCKER / "compose.yaml").read_text()
    for secret in ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "PREFLOOP_SECRET_KEY", "PREFLOOP_PSEUDONYM_KEY"):
        assert f"${{{secret}:?" in text
        assert f"${{{secret}:-" not in text
        assert f"{secret}=\n" in (DOCKER / "example.env").read_text()
    assert "requirepass" in str(compose["services"]["redis"]["command"])


def test_volumes_named_are_declared_and_dependencies_exist(compose):
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (DOCKER / source).exists()
        assert set(service.get("depends_on", {})) <= set(compose["services"])


def test_containers_run_the_same_applications_as_the_one_command(compose):
    def essence(command) -> set[str]:
        kept = {"granian", "celery", "wsgi", "asgi", "default", "gpu", "threads", "solo", "--without-mingle"}
        return {part for part in command if part in kept or part.startswith("config.")}

    def cmd(name: str) -> list[str]:
        return yaml.safe_load(re.findall(r"^CMD (\[.*\])$", (DOCKER / name).read_text(), re.M)[-1])

    services = compose["services"]
    contained = {
        "web": cmd("web.Dockerfile"), "gpu": cmd("gpu.Dockerfile"),
        "live": services["live"]["command"], "worker": services["worker"]["command"],
    }  # fmt: skip
    for process in site_processes(host="127.0.0.1", port=8000):
        if process.name == "model":
            continue  # there, model servers are others' and named by PREFLOOP_MODEL_SERVERS
        assert essence(contained[process.name]) == essence(process.command), process.name
    assert services["worker"]["environment"]["PREFLOOP_CLOCK"] == "1"
