"""The shapes of the REST API, version 1, that a program meets most. All of them are at `/api/v1/docs/`."""

from typing import Any, NotRequired, TypedDict


class Message(TypedDict):
    role: str
    content: str


class Completion(TypedDict):
    key: str
    content: str


class Task(TypedDict):
    id: str
    kind: str
    prompt: list[Message]
    completions: list[Completion]
    form: dict[str, Any]


class Guideline(TypedDict):
    version: int
    markdown: str


class Lease(TypedDict):
    id: str
    expires_at: str
    task: Task
    guideline: Guideline | None
    draft: dict[str, Any] | None


class Mark(TypedDict):
    """A passage of a completion: characters (code points) from `start` up to and without `end`, from 0."""

    start: int
    end: int
    label: str
    comment: NotRequired[str]


class Judgement(TypedDict, total=False):
    """What an annotator submits. `ranking` is best first; ties share an inner list."""

    ranking: list[list[str]]
    strength: int
    ratings: dict[str, dict[str, int]]
    acceptable: dict[str, bool]
    flags: dict[str, list[str]]
    corrections: dict[str, str]
    marks: dict[str, list[Mark]]
    demonstration: str
    none_acceptable: bool
    rationale: str
    seconds: float


class RunEvent(TypedDict):
    id: str
    type: str
    at: str
    step: int | None
