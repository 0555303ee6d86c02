"""The files in which a run is told: what its processes wrote, and its events. Kept within bounds, and handed out."""

from pathlib import Path

from django.http import HttpResponse

from training.runs.folder import run_folder, size_of
from training.runs.models import Run

LOG, EVENTS = "log.txt", "events.jsonl"
CONTENT_TYPES = {LOG: "text/plain; charset=utf-8", EVENTS: "application/x-ndjson"}
MOST_BYTES_OF_A_LOG = 64_000_000  # then only its end is kept
KEPT_BYTES = 8_000_000
MOST_BYTES_HANDED_OUT = 32_000_000


def trim_log(folder: Path) -> bool:
    """Cut a log that has grown too long down to its end. Its writers append, so they go on after that."""
    path = folder / LOG
    if size_of(path) <= MOST_BYTES_OF_A_LOG:
        return False
    kept = _end_of(path, KEPT_BYTES)
    with open(path, "r+b") as file:
        file.truncate(0)
        file.write(b"(the log was longer than is kept; this is its end)\n" + kept)
    return True


def file_of(run: Run, name: str) -> HttpResponse:
    """The log or the events as a download, empty where there is nothing yet; of very long ones the end."""
    path = run_folder(run) / name
    content = _end_of(path, MOST_BYTES_HANDED_OUT) if path.exists() else b""
    headers = {"Content-Disposition": f'attachment; filename="run-{run.pk}-{name}"', "X-Content-Type-Options": "nosniff"}
    return HttpResponse(content, content_type=CONTENT_TYPES[name], headers=headers)


def _end_of(path: Path, n_bytes: int) -> bytes:
    """The last bytes, from the beginning of a line on."""
    with open(path, "rb") as file:
        start = max(0, size_of(path) - n_bytes)
        file.seek(start)
        content = file.read(n_bytes)
    return content.partition(b"\n")[2] if start else content
