"""Turns what happened into messages: of each project what its webhooks ask for, in ids, counts, states and addresses.

Never a text of a prompt or completion, nor which model wrote what.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils.timezone import now

from labeling.accounts.models import User
from labeling.annotation.models import Judgement
from labeling.live.models import Event
from labeling.preferences.models import Snapshot
from labeling.projects.models import Import, Project
from labeling.webhooks.models import Cursor, Delivery, Webhook, new_message_id
from labeling.webhooks.tail import begin_at_end, read_on

API = "/api/v1/"
MOST_JUDGEMENTS = 100  # in one message
MOST_BATCHES = 10  # at one look; the next goes on
IMPORT_COUNTS = (
    "n_rows", "n_taken", "n_duplicates", "n_near_duplicates", "n_rejected", "n_prompts", "n_completions", "n_judgements",
)  # fmt: skip
SOURCES = {
    "judgements": (Judgement, ("project_id", "task__public_id", "supersedes_id", "annotator_kind")),
    "events": (Event, ("group", "name", "payload")),
}

Happened = tuple[int, str, dict[str, Any]]  # project id, event, data


def collect(at: datetime | None = None) -> int:
    """Write a delivery for each webhook of all that happened since the last look. Returns how many were written.

    Where nobody listens it asks one question and reads nothing.
    """
    if not Webhook.objects.filter(state=Webhook.State.ACTIVE).exists():
        return 0
    n_written = 0
    for name, (model, _) in SOURCES.items():
        for _batch in range(MOST_BATCHES):
            cursor = Cursor.objects.filter(name=name).first()
            # Asked outside the transaction, which on SQLite would keep others from writing.
            if cursor is None or not (cursor.gaps or model._default_manager.filter(pk__gt=cursor.position).exists()):
                break
            n, is_full = _collect_batch(name, at or now())
            n_written += n
            if not is_full:
                break
    return n_written


def listen_from_now() -> None:
    """Begin to read at what is newest, if nobody listened until now. Part of the caller's transaction."""
    for name, (model, _) in SOURCES.items():
        Cursor.objects.get_or_create(name=name)
        cursor = Cursor.objects.select_for_update().get(name=name)
        if not Webhook.objects.filter(state=Webhook.State.ACTIVE).exists():
            begin_at_end(cursor, model)
            cursor.save()


def _collect_batch(name: str, at: datetime) -> tuple[int, bool]:
    model, fields = SOURCES[name]
    with transaction.atomic():
        # Of two workers the second waits here, and reads what the first left.
        cursor = Cursor.objects.select_for_update().get(name=name)
        rows, is_full = read_on(cursor, model, fields)
        cursor.save()
        happened = _judgements(rows) if name == "judgements" else _events(rows)
        deliveries = _deliveries(happened, at)
        Delivery.objects.bulk_create(deliveries)
    return len(deliveries), is_full


def _judgements(rows: list[tuple[Any, ...]]) -> Iterator[Happened]:
    """Judgements by project, up to a hundred a message. What was imported is told of as an import."""
    by_project: dict[int, list[dict[str, Any]]] = {}
    for pk, project, task, supersedes, kind in rows:
        if kind != User.Kind.IMPORTED:
            told = {"id": str(pk), "task": task, "supersedes": supersedes and str(supersedes)}
            by_project.setdefault(project, []).append(told)
    for project, judged in by_project.items():
        for start in range(0, len(judged), MOST_JUDGEMENTS):
            some = judged[start : start + MOST_JUDGEMENTS]
            yield project, Webhook.Event.JUDGEMENT, {"n": len(some), "judgements": some}


def _events(rows: list[tuple[Any, ...]]) -> Iterator[Happened]:
    """What the pages were told, as far as webhooks are told it as well; the same thing twice in a row once."""
    before: dict[tuple[str, str], dict[str, Any]] = {}
    for _, group, name, payload in rows:
        kind, _, number = group.partition(".")
        if kind != "project" or name not in TOLD:
            continue
        data = TOLD[name](int(number), payload)
        if data is None or before.get((group, f"{name}{data['id']}")) == data:
            continue
        before[group, f"{name}{data['id']}"] = data
        yield int(number), name, data


def _snapshot(project: int, payload: dict[str, Any]) -> dict[str, Any] | None:
    snapshot = Snapshot.objects.filter(project=project, number=payload.get("number")).defer("manifest").first()
    if snapshot is None:
        return None
    return {
        "id": str(snapshot.pk), "number": snapshot.number, "content_hash": snapshot.content_hash,
        "n_judgements": snapshot.n_judgements, "n_pairs": snapshot.n_pairs, "url": f"{API}snapshots/{snapshot.pk}/",
    }  # fmt: skip


def _run(project: int, payload: dict[str, Any]) -> dict[str, Any] | None:
    if not {"run", "state"} <= payload.keys():
        return None
    return {"id": str(payload["run"]), "state": payload["state"], "url": f"{API}runs/{payload['run']}/"}


def _iteration(project: int, payload: dict[str, Any]) -> dict[str, Any] | None:
    if not {"iteration", "number", "stage"} <= payload.keys():
        return None
    return {
        "id": str(payload["iteration"]), "number": payload["number"], "state": payload["stage"],
        "url": f"{API}iterations/{payload['iteration']}/",
    }  # fmt: skip


def _import(project: int, payload: dict[str, Any]) -> dict[str, Any] | None:
    if not {"id", "state"} <= payload.keys():
        return None  # how far it is
    record = Import.objects.filter(project=project, pk=payload["id"]).defer("rejected").first()
    if record is None:
        return None
    counts = {name: getattr(record, name) for name in IMPORT_COUNTS} if payload["state"] == record.state else {}
    return {"id": str(record.pk), "state": payload["state"], **counts, "url": f"{API}imports/{record.pk}/"}


def _model(project: int, payload: dict[str, Any]) -> dict[str, Any] | None:
    if not {"model", "state", "before"} <= payload.keys():
        return None  # not moved to another stage
    return {
        "id": str(payload["model"]), "state": payload["state"], "before": payload["before"],
        "url": f"{API}models/{payload['model']}/",
    }  # fmt: skip


TOLD = {"snapshot": _snapshot, "run": _run, "iteration": _iteration, "import": _import, "model": _model}


def _deliveries(happened: Iterable[Happened], at: datetime) -> list[Delivery]:
    listening: dict[int, list[Webhook]] = {}
    for webhook in Webhook.objects.filter(state=Webhook.State.ACTIVE).order_by("pk"):
        listening.setdefault(webhook.project_id, []).append(webhook)
    slugs = dict(Project.objects.filter(pk__in=listening).values_list("pk", "slug"))
    return [
        delivery_of(webhook, slugs[project], event, data, at)
        for project, event, data in happened
        for webhook in listening.get(project, ())
        if event in webhook.events
    ]


def delivery_of(webhook: Webhook, slug: str, event: str, data: dict[str, Any], at: datetime) -> Delivery:
    """A message with its body as it will be sent, not saved yet."""
    message_id = new_message_id()
    if event == Webhook.Event.JUDGEMENT:
        data = {**data, "url": f"{API}projects/{slug}/judgements/"}
    body = {"id": message_id, "event": str(event), "project": slug, "at": at.isoformat(), "data": data}
    return Delivery(
        webhook=webhook, message_id=message_id, event=event, next_try_at=at,
        body=json.dumps(body, ensure_ascii=False, separators=(",", ":")),
    )  # fmt: skip
