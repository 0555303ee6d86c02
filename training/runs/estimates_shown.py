"""Estimates in words, for pages and the command line, before a run and beside what it took."""

from typing import Any

from training.runs.models import Run
from training.runs.planning import took_bytes, took_seconds

Line = tuple[str, str]


def in_words(estimate: dict[str, Any]) -> list[Line]:
    """(what, how much) of everything that is known, such as ("Time", "4 to 17 min, likely 8 min")."""
    lines: list[Line] = []
    if seconds := estimate.get("seconds"):
        lines.append(("Time", _range(seconds, time)))
    if memory := estimate.get("memory_bytes"):
        there = estimate.get("memory_there_bytes")
        of = f" of {size(there)}" if there else ""
        lines.append(("GPU memory" if estimate.get("memory_of") == "gpu" else "Memory", _range(memory, size) + of))
    if disk := estimate.get("disk_bytes"):
        lines.append(("Disk", f"up to {size(disk['high'])}"))
    if cost := estimate.get("cost"):
        lines.append(("Cost", f"{_range(cost, lambda value: f'{value:,.2f}')} {cost['currency']}".strip()))
    if estimate.get("steps"):
        lines.append(("Steps", f"{estimate['steps']:,}"))
    if estimate.get("rows"):
        lines.append(("Rows", f"{estimate['rows']:,}"))
    if tokens := estimate.get("tokens"):
        lines.append(("Tokens", _range(tokens, count)))
    return lines


def basis(estimate: dict[str, Any]) -> str:
    """What the time goes by, in a sentence; empty where no time is told."""
    if not estimate.get("seconds"):
        return ""
    machine, n = estimate.get("machine") or "this machine", estimate.get("n_past") or 0
    if not n:
        return f"By the measured speed of {machine}; no run of this kind has finished there yet, so the range is wide."
    return f"By {n} past run{'s' if n > 1 else ''} of this kind on {machine}."


def against(run: Run) -> list[tuple[str, str, str]]:
    """(what, estimated, taken) of a finished run that was estimated."""
    rows = []
    if (seconds := run.estimate.get("seconds")) and (took := took_seconds(run)) is not None:
        rows.append(("Time", _range(seconds, time), time(took)))
    if (memory := run.estimate.get("memory_bytes")) and (peak := took_bytes(run)):
        rows.append(("Memory at its peak", _range(memory, size), size(peak)))
    return rows


def _range(value: dict[str, float], shown: Any) -> str:
    low, high = shown(value["low"]), shown(value["high"])
    if low == high:
        return high
    unit = high.rpartition(" ")[2]
    if low.endswith(f" {unit}"):
        low = low.removesuffix(f" {unit}")
    return f"{low} to {high}, likely {shown(value['likely'])}"


def time(seconds: float) -> str:
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    if seconds < 6000:
        return f"{round(seconds / 60)} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} days"


def size(n_bytes: float) -> str:
    if n_bytes < 1e9:
        return f"{max(1, round(n_bytes / 1e6))} MB"
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes < 1e11 else f"{n_bytes / 1e9:.0f} GB"


def count(n: float) -> str:
    for unit, word in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if n >= unit:
            return f"{n / unit:.1f} {word}"
    return f"{round(n)}"
