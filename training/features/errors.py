from labeling.projects.errors import WrongFields


class BadEncoder(WrongFields):
    """An encoder can't be made or used as asked. `fields` names what is wrong."""


class NothingToEncode(Exception):
    """There is no encoder in use, nothing new, or a run under way already; the message is meant for the person."""
