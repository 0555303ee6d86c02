from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labeling.quality.models import Adjudication


class QualityError(Exception):
    """Base of what the services of this app refuse; the message is meant for the person."""

    code = "refused"


class BadOutcome(QualityError):
    """An adjudication, a setting or a contradiction is not as it must be. `fields` names the wrong parts."""

    code = "invalid"

    def __init__(self, fields: dict[str, str]) -> None:
        self.fields = fields
        super().__init__("; ".join(f"{name}: {problem}" for name, problem in fields.items()))


class AlreadyAdjudicated(QualityError):
    """Another reviewer was first. `adjudication` is what stands now."""

    code = "already_adjudicated"

    def __init__(self, adjudication: "Adjudication") -> None:
        self.adjudication = adjudication
        super().__init__(
            f"{adjudication.by.username} settled this task at {adjudication.created_at:%Y-%m-%d %H:%M} UTC: "
            f"{adjudication.get_outcome_display()}"
        )


class BadGold(QualityError):
    """A gold task can't be made or changed as asked. `fields` names what is wrong."""

    code = "invalid"

    def __init__(self, fields: dict[str, str]) -> None:
        self.fields = fields
        super().__init__("; ".join(f"{key}: {value}" for key, value in fields.items()))
