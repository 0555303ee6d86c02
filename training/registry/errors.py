class RegistryError(Exception):
    """Base of what the services of this app refuse; the message is meant for the person."""


class NoSuchModelFiles(RegistryError):
    """The folder of a model isn't there or holds no safetensors weights."""


class UnsafeModelFiles(RegistryError):
    """The folder holds weights in a form that can run code when loaded."""


class BadStage(RegistryError):
    pass
