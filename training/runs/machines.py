"""The machines that execute runs: each worker enters its own, and says from time to time that it is still there."""

import logging
import os
import socket
import subprocess
import threading
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import Error, connection
from django.db.models import QuerySet
from django.utils.timezone import now

from training.runs.launchers import environment
from training.runs.models import Machine, Run
from training.sampling import machine as measuring

logger = logging.getLogger(__name__)

QUEUE = "gpu"
SAY_EVERY = timedelta(minutes=5)
MEASURE_EVERY = timedelta(days=1)
THERE_FOR = timedelta(days=1)  # after it was last seen a machine counts as there: workers are restarted
KEPT_FOR = timedelta(days=30)  # containers have a new name at each start


def machines_there() -> QuerySet[Machine]:
    """Those that were seen lately, the last one first."""
    return Machine.objects.filter(seen_at__gt=now() - THERE_FOR).order_by("-seen_at")


def note_machine(facts: dict[str, Any], name: str = "") -> Machine:
    """Enter what this machine is, and forget those that were not seen for long."""
    at = now()
    machine, _ = Machine.objects.update_or_create(
        name=(name or socket.gethostname())[:120], defaults={"facts": facts, "measured_at": at, "seen_at": at}
    )
    Machine.objects.filter(seen_at__lt=at - KEPT_FOR).delete()
    return machine


def say_that_it_is_there() -> None:
    """Measure this machine where that was not done for a day and nothing runs on it, else only say that it is there."""
    name = socket.gethostname()
    known = Machine.objects.filter(name=name[:120]).first()
    is_busy = Run.objects.filter(state=Run.State.RUNNING, owner__startswith=f"{name}:").exists()
    if known and (is_busy or known.measured_at > now() - MEASURE_EVERY):
        Machine.objects.filter(pk=known.pk).update(seen_at=now())
        return
    try:
        facts = measuring.ask({**environment(), "PREFLOOP_HOME": str(settings.HOME)})
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        logger.warning("this machine could not be measured, so runs can't be estimated for it: %s", error)
        return
    note_machine(facts)


def keep_saying(ended: threading.Event) -> None:
    """Until `ended` is set; of a database that is away for a while only the log hears."""
    while not ended.is_set():
        try:
            say_that_it_is_there()
        except Error as error:
            logger.warning("this machine could not be entered: %s", error)
        finally:
            connection.close()
        ended.wait(SAY_EVERY.total_seconds())


def start_saying() -> threading.Event:
    """In a thread of the worker, which ends with it."""
    ended = threading.Event()
    threading.Thread(target=keep_saying, args=(ended,), name=f"machine {os.getpid()}", daemon=True).start()
    return ended


def in_words(facts: dict[str, Any]) -> str:
    """2 cores, 25 GB, 0.11 TFLOP/s in bfloat16; or its GPUs."""
    gpus = facts.get("gpus") or []
    parts = [f"{gpu['name']}, {gpu['memory_bytes'] / 1e9:.0f} GB" for gpu in gpus]
    parts += [f"{facts.get('cores', 1)} cores", f"{facts.get('memory_bytes', 0) / 1e9:.0f} GB of memory"]
    speeds = facts.get("flops") or {}
    if speeds:
        name = "bfloat16" if "bfloat16" in speeds else "float32"
        parts.append(f"{speeds[name] / 1e12:.2g} TFLOP/s in {name}")
    return ", ".join(parts)
