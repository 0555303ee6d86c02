from labeling.projects.errors import WrongFields


class BadEndpoint(WrongFields):
    """An endpoint can't be entered or changed as asked. `fields` names what is wrong."""


class Unreachable(Exception):
    """The endpoint may not be asked, or doesn't answer as it should; the message is meant for the person."""
