class RunError(Exception):
    """Base of what the services of this app refuse; the message is meant for the person."""


class BadSpec(RunError):
    """A run can't be started as asked. `fields` names what is wrong."""

    def __init__(self, fields: dict[str, str]) -> None:
        self.fields = fields
        super().__init__("; ".join(f"{key}: {value}" for key, value in fields.items()))
