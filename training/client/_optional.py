"""Packages that the base install leaves out and a few calls need."""

from importlib import import_module
from typing import Any

from training.client.errors import MissingPackage


def needed(package: str, install: str, what: str) -> Any:
    """The package; raises MissingPackage that says how to install it."""
    try:
        return import_module(package)
    except ImportError:
        raise MissingPackage(f"{what} needs the package {package}: pip install {install}") from None
