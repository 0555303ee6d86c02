"""Who works on a row, and whether that process is still there.

Rows of long work name their owner, so that nobody has to wait for the heartbeat of a process that is known to be gone.
"""

import os
import socket
from datetime import timedelta
from pathlib import Path

from django.db.models import DateTimeField, ExpressionWrapper
from django.db.models.functions import Now

PROC = Path("/proc")


def owner_name() -> str:
    """This process: its host, its number, and when it began, for another one may have its number later."""
    return f"{socket.gethostname()}:{os.getpid()}:{_began(os.getpid())}"


def owner_is_gone(owner: str) -> bool:
    """Whether the owner is a process of this very host that no longer runs: then nobody needs to wait."""
    host, _, rest = owner.partition(":")
    pid, _, began = rest.partition(":")
    if host != socket.gethostname() or not pid.isdigit() or not PROC.exists():
        return False
    now = _began(int(pid))
    return not now or (began.isdigit() and now != began)


def before(time_ago: timedelta) -> ExpressionWrapper:
    """That long ago, by the clock of the database."""
    return ExpressionWrapper(Now() - time_ago, output_field=DateTimeField())


def _began(pid: int) -> str:
    """In ticks since the machine started; empty if there is no such process, or it has ended and was not waited for."""
    try:
        state, *fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else fields[18]
