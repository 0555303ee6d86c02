"""The shapes of the REST API, version 1, that a program meets most. All of them are at `/api/v1/docs/`."""

from typing import Any, Literal, NotRequired, TypedDict


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


class RejectedRow(TypedDict):
    line: int
    reason: str


class Import(TypedDict):
    """A file on its way in, or taken. `rejected` are the first rows refused, and not in lists."""

    id: str
    project: str
    format: str
    filename: str
    sha256: str
    state: Literal["waiting", "running", "done", "failed", "cancelled"]
    problem: str
    n_rows: int
    n_taken: int
    n_duplicates: int
    n_near_duplicates: int
    n_rejected: int
    n_prompts: int
    n_completions: int
    n_judgements: int
    bytes_done: int
    bytes_total: int
    seconds: float
    created_at: str
    finished_at: str | None
    rejected: NotRequired[list[RejectedRow]]


class Preview(TypedDict):
    """What the first rows of a file would become. `format` is empty where it is neither named nor recognised."""

    kind: str
    format: str
    certainty: str
    reasons: list[str]
    also: list[str]
    columns: list[str]
    mapping: dict[str, str]
    records: list[dict[str, Any]]
    problems: list[RejectedRow]
    n_rows: int
    n_records: int
    n_rejected: int
    problem: str


class Snapshot(TypedDict):
    """A frozen dataset. `manifest` is not in lists."""

    id: str
    project: str
    number: int
    name: str
    content_hash: str
    filters: dict[str, Any]
    policy: dict[str, Any]
    n_judgements: int
    n_pairs: int
    created_at: str
    manifest: NotRequired[dict[str, Any]]


class Freeze(TypedDict):
    """A snapshot on its way; counted in tasks."""

    id: str
    state: Literal["waiting", "freezing", "done", "failed"]
    n_done: int
    n_total: int
    snapshot: str | None
    problem: str


class Touched(TypedDict):
    """A snapshot that holds withdrawn rows, and the models made of it."""

    snapshot: str
    number: int
    n_judgements: int
    models: list[str]


class Withdrawal(TypedDict):
    id: str | None
    annotator: str | None
    prompt: str | None
    reason: str
    at: str | None
    undone_at: str | None
    touched: NotRequired[list[Touched]]


class Webhook(TypedDict):
    """`secret` is in the answers that make one, alone."""

    id: str
    url: str
    events: list[str]
    description: str
    state: Literal["active", "paused", "disabled"]
    problem: str
    failing_since: str | None
    old_secret_until: str | None
    created_at: str
    secret: NotRequired[str]


class Try(TypedDict):
    at: str
    status: int | None
    error: str
    milliseconds: int


class Delivery(TypedDict):
    id: str
    webhook_id: str
    event: str
    state: Literal["waiting", "sending", "delivered", "failed"]
    tries: list[Try]
    next_try_at: str | None
    created_at: str
