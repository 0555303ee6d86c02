from collections.abc import Sequence
from typing import Any


class RegistryError(Exception):
    """Base of what the services of this app refuse; the message is meant for the person."""


class NoSuchModelFiles(RegistryError):
    """The folder of a model isn't there or holds no safetensors weights."""


class UnsafeModelFiles(RegistryError):
    """The folder holds weights in a form that can run code when loaded."""


class BadStage(RegistryError):
    pass


class TermsNotAccepted(RegistryError):
    """Terms stand that nobody of the project has accepted; `models` are those whose terms they are."""

    def __init__(self, message: str, models: Sequence[Any]) -> None:
        self.models = models
        super().__init__(message)


class TermsChanged(RegistryError):
    """Other terms are in force than those that somebody means to accept."""


class NotTheirs(RegistryError):
    """This person may not make this change."""


class NotImported(RegistryError):
    """A model folder can't be taken in; the message says why, and what to do."""


class NotExported(RegistryError):
    """A model can't be written out; the message says why."""


class ImportStopped(RegistryError):
    """Somebody cancelled the import."""
