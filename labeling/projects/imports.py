"""Rows in: prompts and prompts with completions, as JSON lines. Streams; good rows are kept, bad ones named."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from django.db import transaction

from labeling.accounts.models import User
from labeling.database.planner import after_many_new_rows
from labeling.live.services import notify
from labeling.projects.errors import BadImport, RowRejected
from labeling.projects.models import Completion, Import, Project, Prompt
from labeling.projects.text import ROLES, content_hash, group_id, sha256
from labeling.web import strict_json

FORMATS = ("prompts", "completions")
BATCH_ROWS = 500
MAX_LINE_BYTES = 1_000_000
MAX_COMPLETIONS = 64
MAX_REASONS_KEPT = 1000


@dataclass
class Row:
    """One checked line of an import."""

    line: int
    messages: list[dict[str, str]]
    external_id: str = ""
    source: str = ""
    licence: str = ""
    tags: list[str] = field(default_factory=list)
    completions: list[dict[str, Any]] = field(default_factory=list)


def import_rows(
    *, project: Project, format: str, lines: Iterable[bytes], created_by: User | None, filename: str = ""
) -> Import:
    """Take JSON lines into the project and return what was taken, what was there before and what was refused.

    Each batch of rows is one transaction; memory stays constant. The same file twice adds nothing.
    Raises BadImport for an unknown format.
    """
    if format not in FORMATS:
        raise BadImport(f"Unknown format {format!r}: choose from {', '.join(FORMATS)}")
    record = Import.objects.create(
        project=project, format=format, filename=filename[:200], created_by=created_by
    )
    digest = hashlib.sha256()
    rejected: list[dict[str, Any]] = []
    rows = _checked_rows(lines, format, digest, record, rejected)
    while batch := list(islice(rows, BATCH_ROWS)):
        with transaction.atomic():
            taken, duplicates = _take_batch(project, record, batch)
            record.n_taken += taken
            record.n_duplicates += duplicates
            # With the rows: an upload that breaks off still counts what it brought.
            record.save(update_fields=["n_taken", "n_duplicates", "n_rejected"])
    record.rejected = rejected
    record.sha256 = digest.hexdigest()
    record.save(update_fields=["n_taken", "n_duplicates", "n_rejected", "rejected", "sha256"])
    after_many_new_rows(record.n_taken, Prompt, Completion)
    notify(project.live_group, "import", taken=record.n_taken)
    return record


def _checked_rows(
    lines: Iterable[bytes], format: str, digest: Any, record: Import, rejected: list[dict[str, Any]]
) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        digest.update(line)
        if not line.strip():
            continue
        try:
            yield parse_row(line, number, format)
        except RowRejected as error:
            record.n_rejected += 1
            if len(rejected) < MAX_REASONS_KEPT:
                rejected.append({"line": number, "reason": str(error)})


def parse_row(line: bytes, number: int, format: str) -> Row:
    """Check one line. Raises RowRejected with a reason that names the field."""
    if len(line) > MAX_LINE_BYTES:
        raise RowRejected(f"the line is longer than {MAX_LINE_BYTES:,} bytes")
    try:
        data = strict_json.parse(line, "utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise RowRejected(f"is not UTF-8: byte {error.start} is {line[error.start]:#04x}") from None
    except ValueError as error:
        raise RowRejected(f"is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise RowRejected("must be a JSON object")
    known = {"id", "prompt", "source", "licence", "tags"} | (
        {"completions"} if format == "completions" else set()
    )
    if unknown := sorted(set(data) - known):
        raise RowRejected(f"has an unknown field {unknown[0]!r}; known: {', '.join(sorted(known))}")
    row = Row(
        line=number,
        messages=parse_messages(data.get("prompt")),
        external_id=_text(data, "id", 120),
        source=_text(data, "source", 200),
        licence=_text(data, "licence", 80),
        tags=_tags(data.get("tags")),
    )
    if format == "completions":
        row.completions = _completions(data.get("completions"))
    return row


def parse_messages(prompt: Any) -> list[dict[str, str]]:
    """A prompt as messages; a plain text is one user message. Raises RowRejected."""
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if not isinstance(prompt, list) or not prompt:
        raise RowRejected("prompt: must be a text or a list of messages that is not empty")
    messages = []
    for index, message in enumerate(prompt):
        where = f"prompt[{index}]"
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise RowRejected(f'{where}: must be {{"role", "content"}}')
        if message["role"] not in ROLES:
            raise RowRejected(f"{where}.role: must be one of {', '.join(ROLES)}")
        messages.append({"role": message["role"], "content": _clean(message["content"], f"{where}.content")})
    if messages[-1]["role"] != "user":
        raise RowRejected("prompt: the last message must be the user's")
    return messages


def _completions(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise RowRejected("completions: must be a list that is not empty")
    if len(value) > MAX_COMPLETIONS:
        raise RowRejected(f"completions: at most {MAX_COMPLETIONS}, this row has {len(value)}")
    checked = []
    for index, item in enumerate(value):
        where = f"completions[{index}]"
        if isinstance(item, str):
            item = {"content": item}
        if not isinstance(item, dict):
            raise RowRejected(f"{where}: must be an object or a text")
        if unknown := sorted(set(item) - {"content", "model", "sampling"}):
            raise RowRejected(f"{where}: has an unknown field {unknown[0]!r}")
        sampling = item.get("sampling") or {}
        if not isinstance(sampling, dict):
            raise RowRejected(f"{where}.sampling: must be an object")
        checked.append(
            {
                "content": _clean(item.get("content"), f"{where}.content"),
                "model": _text(item, "model", 120, where=f"{where}."),
                "sampling": sampling,
            }
        )
    return checked


def _clean(text: Any, where: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise RowRejected(f"{where}: must be a text that is not empty")
    if "\x00" in text:
        raise RowRejected(f"{where}: holds a NUL character, which databases refuse")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RowRejected(f"{where}: holds half of a surrogate pair") from None
    return text


def _text(data: dict[str, Any], key: str, longest: int, where: str = "") -> str:
    value = data.get(key)
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or len(value) > longest or "\x00" in value:
        raise RowRejected(f"{where}{key}: must be a text of at most {longest} characters")
    return value


def _tags(value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(tag, str) and 0 < len(tag) <= 60 for tag in value):
        raise RowRejected("tags: must be a list of texts of at most 60 characters")
    return sorted(set(value))


def _take_batch(project: Project, record: Import, batch: list[Row]) -> tuple[int, int]:
    """Store a batch; returns how many rows added something and how many were all there already."""
    hashes = {row.line: content_hash(row.messages) for row in batch}
    ids = _prompt_ids(project, hashes.values())
    new_prompts: dict[str, Prompt] = {}
    for row in batch:
        digest = hashes[row.line]
        if digest not in ids and digest not in new_prompts:
            new_prompts[digest] = Prompt(
                project=project, external_id=row.external_id, messages=row.messages, content_hash=digest,
                group_id=group_id(row.messages), source=row.source, licence=row.licence, tags=row.tags, batch=record,
            )  # fmt: skip
    Prompt.objects.bulk_create(new_prompts.values(), ignore_conflicts=True)
    ids = _prompt_ids(project, hashes.values())
    # Rows that repeat a prompt of this very batch count once.
    first_line = {digest: line for line, digest in reversed(hashes.items()) if digest in new_prompts}
    adds = {line for line in first_line.values()}

    wanted = {
        (ids[hashes[row.line]], sha256(item["content"]), item["model"]): (row.line, item)
        for row in reversed(batch)
        for item in row.completions
    }
    if wanted:
        there = set(
            Completion.objects.filter(prompt__in={prompt for prompt, _, _ in wanted}).values_list(
                "prompt_id", "content_hash", "model_key"
            )
        )
        new = {key: value for key, value in wanted.items() if key not in there}
        Completion.objects.bulk_create(
            [
                Completion(
                    prompt_id=prompt, content=item["content"], content_hash=digest, model_key=model,
                    sampling=item["sampling"], batch=record,
                )
                for (prompt, digest, model), (_, item) in reversed(new.items())
            ],
            ignore_conflicts=True,
        )  # fmt: skip
        adds |= {line for line, _ in new.values()}
    return len(adds), len(batch) - len(adds)


def _prompt_ids(project: Project, hashes: Iterable[str]) -> dict[str, int]:
    found = Prompt.objects.filter(project=project, content_hash__in=set(hashes))
    return dict(found.values_list("content_hash", "pk"))
