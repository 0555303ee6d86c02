from labeling.projects.errors import WrongFields


class PreferenceError(Exception):
    """Base of what the services of this app refuse; the message is meant for the person."""


class BadFilter(WrongFields, PreferenceError):
    """A filter or policy is not one that snapshots know. `fields` names it."""


class NothingToFreeze(PreferenceError):
    pass


class UnknownView(PreferenceError):
    pass
