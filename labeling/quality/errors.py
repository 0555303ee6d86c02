from typing import TYPE_CHECKING

from labeling.projects.errors import WrongFields

if TYPE_CHECKING:
    from labeling.quality.models import Adjudication


class QualityError(Exception):
    """Base of what the services of this app refuse; the message is meant for the person."""

    code = "refused"


class BadOutcome(WrongFields, QualityError):
    """An adjudication, a setting or a contradiction is not as it must be. `fields` names the wrong parts."""

    code = "invalid"


class AlreadyAdjudicated(QualityError):
    """Another reviewer was first. `adjudication` is what stands now."""

    code = "already_adjudicated"

    def __init__(self, adjudication: "Adjudication") -> None:
        self.adjudication = adjudication
        super().__init__(
            f"{adjudication.by.username} settled this task at {adjudication.created_at:%Y-%m-%d %H:%M} UTC: "
            f"{adjudication.get_outcome_display()}"
        )


class BadGold(WrongFields, QualityError):
    """A gold task can't be made or changed as asked. `fields` names what is wrong."""

    code = "invalid"
