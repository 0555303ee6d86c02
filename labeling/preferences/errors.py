class PreferenceError(Exception):
    """Base of what the services of this app refuse; the message is meant for the person."""


class BadFilter(PreferenceError):
    """A filter or policy is not one that snapshots know. `fields` names it."""

    def __init__(self, fields: dict[str, str]) -> None:
        self.fields = fields
        super().__init__("; ".join(f"{key}: {value}" for key, value in fields.items()))


class NothingToFreeze(PreferenceError):
    pass


class UnknownView(PreferenceError):
    pass
