"""What an import is made of, whatever file it came in. Pure: no Django, no database.

`sources` turns bytes into `SourceRow`s, a format of `formats` turns those into `Record`s, and `services` stores them.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Message = dict[str, str]  # {"role", "content"}


@dataclass(slots=True)
class SourceRow:
    """One row of a file. `line` is the line on which it begins, or its number from 1 in a file without lines.

    `data` is None where the row cannot be read; `problem` then says why.
    """

    line: int
    data: dict[str, Any] | None
    problem: str = ""


@dataclass(slots=True)
class Text:
    """A completion as it came in."""

    content: str
    model: str = ""
    sampling: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Vote:
    """What one annotator said of a record's completions.

    `judgement` has the shape of the REST API, completions named "a", "b", ... in the order of `Record.completions`.
    `annotator` is a name within the source, empty where it names nobody. `kind` is what the source knows of it: "human"
    (taken in as an imported annotator), "simulated" or "model". `order_shown` holds keys, None where it is not known.
    """

    judgement: dict[str, Any]
    annotator: str = ""
    kind: str = "human"
    order_shown: list[str] | None = None
    at: datetime | None = None
    guideline_version: int | None = None


@dataclass(slots=True)
class Record:
    """A prompt with what the source has on it: completions, and votes on those (they become one task).

    `group` names what must stay in one split beyond this prompt: a conversation tree, a document.
    """

    line: int
    prompt: list[Message]
    completions: list[Text] = field(default_factory=list)
    votes: list[Vote] = field(default_factory=list)
    external_id: str = ""
    source: str = ""
    licence: str = ""
    tags: list[str] = field(default_factory=list)
    group: str = ""
    iteration: int = 1


@dataclass(slots=True)
class Rejected:
    """A row, or a part of one, that cannot be taken, with a reason that names the field."""

    line: int
    reason: str
