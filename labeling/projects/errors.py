class ProjectError(Exception):
    """Base of what the services of this app refuse; the message is meant for the person."""


class WrongFields(Exception):
    """Refuses what was asked for certain of its parts: `fields` says of each what is wrong."""

    def __init__(self, fields: dict[str, str]) -> None:
        self.fields = fields
        super().__init__("; ".join(f"{name}: {problem}" for name, problem in fields.items()))


class SlugTaken(ProjectError):
    pass


class BadForm(ProjectError):
    """The feedback form is not one that Prefloop knows. `fields` names the wrong parts."""

    what = "The feedback form"

    def __init__(self, fields: dict[str, str]) -> None:
        self.fields = fields
        super().__init__(f"{self.what} is wrong: " + "; ".join(f"{key}: {value}" for key, value in fields.items()))


class BadBench(BadForm):
    """The settings of the bench are not ones that Prefloop knows."""

    what = "The bench"


class BadQuality(BadForm):
    """The settings of how labels are checked are not ones that Prefloop knows."""

    what = "The checking of labels"


class BadSkills(BadForm):
    """Languages or skills are not written as Prefloop takes them."""

    what = "What the person knows"


class LastLead(ProjectError):
    pass


class UnknownVersion(ProjectError):
    """The guideline has no such version."""
