"""Releases below these have holes that are public; see each for its advisory."""

from importlib.metadata import PackageNotFoundError, version

import pytest
from packaging.version import Version

FLOORS = {
    "Django": "5.2.13",  # CVE-2026-33033: slow multipart parsing
    "djangorestframework": "3.17.2",  # CVE-2026-73228: bodies past DATA_UPLOAD_MAX_MEMORY_SIZE; CVE-2026-73229
    "transformers": "5.10.0",  # CVE-2026-4372, -5241, -1839, -9856: code from configurations, checkpoints, templates
    "celery": "5.6.0",  # before: workers deaf after the broker comes back
}


@pytest.mark.parametrize("package", FLOORS)
def test_no_package_is_below_its_floor(package):
    try:
        installed = version(package)
    except PackageNotFoundError:
        pytest.skip(f"{package} is not installed here")
    assert Version(installed) >= Version(FLOORS[package]), f"{package} {installed}: install {FLOORS[package]} or newer"
