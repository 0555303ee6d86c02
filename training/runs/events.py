"""Events of a run: lines of its folder's events.jsonl, and rows of the database."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.db import transaction
from django.utils.timezone import now

from labeling.live.services import notify
from training.runs.models import Run, RunEvent


class EventReader:
    """Carries complete lines of events.jsonl into RunEvent rows, each once, whoever did so before."""

    def __init__(self, run: Run, folder: Path) -> None:
        self.run = run
        self.path = folder / "events.jsonl"
        self.number = RunEvent.objects.filter(run=run).order_by("-number").values_list("number", flat=True).first() or 0
        self.offset = self._offset_after(self.number)
        self.total_steps = 0

    def _offset_after(self, lines: int) -> int:
        if not lines or not self.path.exists():
            return 0
        with open(self.path, "rb") as file:
            for _ in range(lines):
                file.readline()
            return file.tell()

    def read(self) -> dict[str, Any]:
        """Store what is new; returns the fields of the run that follow from it."""
        if not self.path.exists():
            return {}
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            chunk = file.read(4_000_000)
        end = chunk.rfind(b"\n") + 1
        if not end:
            return {}
        rows, fields = [], {}
        for line in chunk[:end].splitlines():
            self.number += 1
            event = _parse(line)
            rows.append(
                RunEvent(
                    run=self.run, number=self.number, type=str(event.pop("type", "unknown"))[:20],
                    step=event.pop("step", None), at=_time(event.pop("at", None)), payload=event,
                )
            )  # fmt: skip
            fields |= _run_fields(rows[-1])
        with transaction.atomic():
            RunEvent.objects.bulk_create(rows, ignore_conflicts=True)
            notify(self.run.live_group, "events", last=self.number)
        self.offset += end
        return fields


def _parse(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {"type": "torn"}
    return event if isinstance(event, dict) else {"type": "torn"}


def _time(text: Any) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return now()


def _run_fields(event: RunEvent) -> dict[str, Any]:
    payload = event.payload
    if event.type == "progress" and payload.get("total"):
        done, total, unit = payload["done"], payload["total"], payload.get("unit", "")
        return {"progress": min(1.0, done / total), "status_text": f"{done} of {total} {unit}".strip()[:300]}
    if event.type == "status" and payload.get("state"):
        return {"status_text": str(payload["state"])[:300]}
    return {}


def note(run: Run, folder: Path, type: str, **fields: Any) -> None:
    """Add an event of the site's own to a run that no worker holds. A line that a kill has torn gets its end first."""
    line = json.dumps({"type": type, "step": None, "at": datetime.now(UTC).isoformat()} | fields, ensure_ascii=False) + "\n"
    with open(folder / "events.jsonl", "ab+") as file:
        if file.tell():
            file.seek(-1, 2)
            line = line if file.read(1) == b"\n" else f"\n{line}"
        file.write(line.encode())
    EventReader(run, folder).read()
