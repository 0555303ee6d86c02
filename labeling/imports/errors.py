from labeling.projects.errors import WrongFields


class ImportProblem(Exception):
    """Base of what the services of this app refuse; the message is meant for the person."""


class BadImport(WrongFields):
    """The import can't be begun as it was asked for: `fields` says why (file, format, mapping, options, ...)."""


class FileTooLarge(ImportProblem):
    pass


class DiskFull(ImportProblem):
    """The server has no room left for the file."""


class NotNow(ImportProblem):
    """The import is in a state in which that can't be done."""
