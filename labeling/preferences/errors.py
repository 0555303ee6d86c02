from labeling.projects.errors import WrongFields


class PreferenceError(Exception):
    """Base of what the services of this app refuse; the message is meant for the person."""


class BadFilter(WrongFields, PreferenceError):
    """A filter or policy is not one that snapshots know. `fields` names it."""


class NothingToFreeze(PreferenceError):
    pass


class NoRoom(PreferenceError):
    """The disk is full. Nothing was frozen."""


class UnknownView(PreferenceError):
    pass


class NotUndone(PreferenceError):
    pass


class BeingMade(PreferenceError):
    """Somebody else is making what was asked for, and it takes a while."""
